//! The ledger: the rows in each database that say which migrations it has, committed with the migrations themselves.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::names::{RunId, StepName};
use crate::outside::postgres::{PgError, ask, query_error};
use crate::sql::quote::literal;
use crate::version;

/// What a database needs to hold a ledger. It stands in the transaction of the first migration, so that a first migration
/// that fails leaves nothing behind.
pub const CREATE: &str = "\
CREATE SCHEMA IF NOT EXISTS migrate;
CREATE TABLE IF NOT EXISTS migrate.ledger (
    step text NOT NULL,
    name text NOT NULL,
    kind text NOT NULL,
    checksum text NOT NULL,
    run text NOT NULL,
    state text NOT NULL CONSTRAINT state_is_known CHECK (state = 'started' OR state = 'applied'),
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    execution_ms bigint,
    applied_by text NOT NULL,
    tool_version text NOT NULL,
    up_sql text,
    down_sql text,
    progress int,
    unclear boolean,
    before jsonb,
    undoing boolean,
    CONSTRAINT ledger_pkey PRIMARY KEY (step, name),
    CONSTRAINT applied_is_finished CHECK ((state = 'applied') = (finished_at IS NOT NULL))
);
COMMENT ON TABLE migrate.ledger IS 'Which migrations this database has. Written by migrate, each row in the transaction of its migration.';
";

/// For a ledger that was made before it kept, of files without a transaction, how many statements have ended, whether the
/// next one may have taken effect as well, what that one found, and whether it is the way back that was begun.
pub const ADD_COLUMNS: &str = "ALTER TABLE migrate.ledger ADD COLUMN IF NOT EXISTS progress int, ADD COLUMN IF NOT EXISTS \
     unclear boolean, ADD COLUMN IF NOT EXISTS before jsonb, ADD COLUMN IF NOT EXISTS undoing boolean;\n";

/// One row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The step.
    pub step: String,
    /// The migration.
    pub name: String,
    /// SHA-256 of its text when it was applied.
    pub checksum: String,
    /// The run that applied it.
    pub run: String,
    /// False: it was begun outside a transaction, and nobody wrote that it ended.
    pub finished: bool,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// Outside a transaction: so many of its statements are known to have ended.
    pub progress: Option<i32>,
    /// Of a row that is not finished, and whose way back was not begun: what is known beyond that.
    pub begun: Option<Begun>,
}

/// What a row says of a migration without a transaction that did not end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// Its text.
    pub text: Option<String>,
    /// Whether the statement behind those that have ended may have taken effect.
    pub unclear: bool,
    /// What that statement found, as JSON.
    pub before: Option<String>,
}

/// Which columns a ledger has, if there is one: one of an earlier version lacks some. (The rows themselves are not asked for
/// what they have: that would read every text.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns(Option<Vec<String>>);

impl Columns {
    /// Asks for them.
    pub const QUERY: &str = "select array(select attname::text from pg_attribute where attrelid = \
         to_regclass('migrate.ledger') and not attisdropped) where to_regclass('migrate.ledger') is not null";

    /// Asks for them alone.
    ///
    /// # Errors
    /// The query failed.
    pub async fn ask(session: &mut PgConnection) -> Result<Self, PgError> {
        Self::read(&ask(session, Self::QUERY).await.map_err(query_error("looking for the ledger"))?)
    }

    /// From the answer to [`Columns::QUERY`].
    ///
    /// # Errors
    /// It is none.
    pub fn read(answer: &[PgRow]) -> Result<Self, PgError> {
        let columns = answer.first().map(|it| it.try_get(0)).transpose();
        columns.map(Self).map_err(query_error("looking for the ledger"))
    }

    /// Whether there is no ledger.
    #[must_use]
    pub fn has_none(&self) -> bool {
        self.0.is_none()
    }

    /// A column, as SQL; a null of that type where the ledger lacks it.
    #[must_use]
    pub fn get(&self, name: &str, kind: &str) -> String {
        match self.0.iter().flatten().any(|it| it == name) {
            true => name.to_owned(),
            false => format!("null::{kind}"),
        }
    }

    /// Asks for every row, in the order of application; without a ledger, for nothing.
    #[must_use]
    pub fn rows_query(&self) -> String {
        if self.has_none() {
            return "select 1 where false".to_owned();
        }
        let (progress, unclear) = (self.get("progress", "int"), self.get("unclear", "boolean"));
        let (before, undoing) = (self.get("before", "jsonb"), self.get("undoing", "boolean"));
        let begun = format!("state = 'started' and {undoing} is not true");
        format!(
            "select step, name, checksum, run, state = 'applied', started_at, {progress}, case when {begun} then up_sql end, case \
             when {begun} then coalesce({unclear}, true) end, case when {begun} then {before}::text end from migrate.ledger order \
             by started_at, step, name"
        )
    }

    /// From the answer to [`Columns::rows_query`]; none if there is no ledger.
    ///
    /// # Errors
    /// It is none.
    pub fn rows(&self, answer: &[PgRow]) -> Result<Option<Vec<Applied>>, PgError> {
        let rows = (!self.has_none()).then(|| answer.iter().map(row).collect()).transpose();
        rows.map_err(query_error("reading the ledger"))
    }

    /// The rows that are there; none if there is no ledger.
    ///
    /// # Errors
    /// The query failed.
    pub async fn ask_rows(&self, session: &mut PgConnection) -> Result<Option<Vec<Applied>>, PgError> {
        if self.has_none() {
            return Ok(None);
        }
        self.rows(&ask(session, self.rows_query()).await.map_err(query_error("reading the ledger"))?)
    }
}

/// Every row, in the order of application; none if there is no ledger.
///
/// # Errors
/// The query failed.
pub async fn read(session: &mut PgConnection) -> Result<Option<Vec<Applied>>, PgError> {
    Columns::ask(session).await?.ask_rows(session).await
}

/// The texts that the ledger keeps of some migrations of a step, by name.
///
/// # Errors
/// The query failed.
pub async fn texts(
    session: &mut PgConnection,
    step: &StepName,
    names: &[&str],
) -> Result<BTreeMap<String, String>, PgError> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select name, up_sql from migrate.ledger where step = $1 and name = any($2) and up_sql is not null",
    )
    .bind(step.as_str())
    .bind(names)
    .fetch_all(session)
    .await
    .map_err(query_error("reading texts of the ledger"))?;
    Ok(rows.into_iter().collect())
}

fn row(row: &PgRow) -> Result<Applied, sqlx::Error> {
    let unclear: Option<bool> = row.try_get(8)?;
    let (text, before) = (row.try_get(7)?, row.try_get(9)?);
    Ok(Applied {
        step: row.try_get(0)?,
        name: row.try_get(1)?,
        checksum: row.try_get(2)?,
        run: row.try_get(3)?,
        finished: row.try_get(4)?,
        started_at: row.try_get(5)?,
        progress: row.try_get(6)?,
        begun: unclear.map(|unclear| Begun { text, unclear, before }),
    })
}

/// A row that a run wrote, with what it takes to undo its migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The step.
    pub step: StepName,
    /// The migration.
    pub name: String,
    /// `sql`, `refinery`, `alembic`, …
    pub kind: String,
    /// SHA-256 of its text when it was applied.
    pub checksum: String,
    /// False: it was begun outside a transaction, or its way back was, and nobody wrote that it ended.
    pub finished: bool,
    /// Its text.
    pub up: Option<String>,
    /// The text of its way back, as it was when it was applied.
    pub down: Option<String>,
}

/// The rows of one run, the last applied first; none if there is no ledger.
///
/// # Errors
/// The query failed.
pub async fn of_run(session: &mut PgConnection, run: &RunId) -> Result<Vec<Written>, PgError> {
    let failed = || query_error("reading the ledger");
    if read(session).await?.is_none() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(
        "select step, name, kind, checksum, state = 'applied', up_sql, down_sql from migrate.ledger where run = $1 order by \
         started_at desc, step desc, name desc",
    )
    .bind(run.as_str())
    .fetch_all(session)
    .await
    .map_err(failed())?;
    rows.iter().map(written).collect::<Result<_, _>>().map_err(failed())
}

fn written(row: &PgRow) -> Result<Written, sqlx::Error> {
    Ok(Written {
        step: StepName::new(row.try_get::<&str, _>(0)?).map_err(|error| sqlx::Error::Decode(error.into()))?,
        name: row.try_get(1)?,
        kind: row.try_get(2)?,
        checksum: row.try_get(3)?,
        finished: row.try_get(4)?,
        up: row.try_get(5)?,
        down: row.try_get(6)?,
    })
}

/// Removes the ledger if it has no rows: a run that made it and is undone leaves none.
pub const DROP_IF_EMPTY: &str = "\
DO $$ BEGIN
    IF pg_catalog.to_regclass('migrate.ledger') IS NOT NULL THEN
        IF NOT EXISTS (SELECT FROM migrate.ledger) THEN
            DROP TABLE migrate.ledger;
            DROP SCHEMA migrate;
        END IF;
    END IF;
EXCEPTION WHEN insufficient_privilege OR dependent_objects_still_exist OR lock_not_available THEN NULL;
END $$";

/// Whose row it is: for statements that need no more than its key.
fn key(step: &StepName, name: &str) -> String {
    format!("step OPERATOR(pg_catalog.=) {} AND name OPERATOR(pg_catalog.=) {}", literal(step.as_str()), literal(name))
}

/// The statement that removes the row of a migration that is undone, for the end of the transaction that undoes it.
#[must_use]
pub fn removed(step: &StepName, name: &str) -> String {
    format!("DELETE FROM migrate.ledger WHERE {}", key(step, name))
}

/// The statement that records that a migration outside a transaction is about to begin, or its way back: no statement of it
/// has been sent.
#[must_use]
pub fn begun(step: &StepName, name: &str, undoing: bool) -> String {
    let columns = format!("progress = 0, unclear = false, before = NULL, undoing = {undoing}");
    format!("UPDATE migrate.ledger SET {columns} WHERE {}", key(step, name))
}

/// The statement that records the intent to undo a migration outside a transaction.
#[must_use]
pub fn undo_started(step: &StepName, name: &str) -> String {
    format!("UPDATE migrate.ledger SET state = 'started', finished_at = NULL WHERE {}", key(step, name))
}

/// The statement that records how many statements of a migration, or of its way back, have ended, and that the next one took
/// no effect.
#[must_use]
pub fn progressed(step: &StepName, name: &str, statements: usize) -> String {
    let columns = format!("progress = {statements}, unclear = false, before = NULL");
    format!("UPDATE migrate.ledger SET {columns} WHERE {}", key(step, name))
}

/// The statement that records that the one after so many statements is about to be sent, and what it finds, as JSON.
#[must_use]
pub fn about_to(step: &StepName, name: &str, statements: usize, before: Option<&str>) -> String {
    let before = before.map_or("NULL".into(), literal);
    let columns = format!("progress = {statements}, unclear = true, before = {before}");
    format!("UPDATE migrate.ledger SET {columns} WHERE {}", key(step, name))
}

/// State and times of a row that is written at the end of the migration's own transaction.
const APPLIED: &str = "'applied', pg_catalog.transaction_timestamp(), pg_catalog.clock_timestamp(), (EXTRACT(EPOCH FROM \
     pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.transaction_timestamp()) OPERATOR(pg_catalog.*) \
     1000)::pg_catalog.int8";

/// State and times of a row that says what is intended.
const STARTED: &str = "'started', pg_catalog.clock_timestamp(), NULL, NULL";

/// What a row that is replaced takes from the new one: everything but its key.
fn replaced() -> String {
    let columns = [
        "kind",
        "checksum",
        "run",
        "state",
        "started_at",
        "finished_at",
        "execution_ms",
        "applied_by",
        "tool_version",
        "up_sql",
        "down_sql",
    ];
    columns.map(|column| format!("{column} = excluded.{column}")).join(", ")
}

/// Who writes ledger rows, and for which step.
#[derive(Debug, Clone)]
pub struct Author {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepName,
    /// `sql`, `refinery`, `copy`.
    pub kind: &'static str,
    /// `user@host`.
    pub applied_by: String,
}

/// What a ledger row says about the unit that it records.
#[derive(Debug, Clone, Copy)]
pub struct Unit<'a> {
    /// The migration's name.
    pub name: &'a str,
    /// Its checksum.
    pub checksum: &'a str,
    /// Its text, if it has one.
    pub up: Option<&'a str>,
    /// The text of its way back, if it has one.
    pub down: Option<&'a str>,
}

impl Author {
    /// The statement that records `unit` as applied, for the end of its own transaction. Fully qualified and quoted: the
    /// migration may have changed `search_path` and `standard_conforming_strings`. A row that is there already makes it
    /// fail: nothing is applied twice.
    #[must_use]
    pub fn applied(&self, unit: Unit<'_>) -> String {
        self.insert(unit, APPLIED)
    }

    /// As [`Author::applied`], for a unit that is applied again and again (a copy, a repeatable file): its row is replaced.
    #[must_use]
    pub fn applied_again(&self, unit: Unit<'_>) -> String {
        format!("{} ON CONFLICT (step, name) DO UPDATE SET {}", self.insert(unit, APPLIED), replaced())
    }

    /// The statement that records the intent to apply `unit` outside a transaction.
    #[must_use]
    pub fn started(&self, unit: Unit<'_>) -> String {
        self.insert(unit, STARTED)
    }

    /// As [`Author::started`], for a unit that is run again and again (a command, a repeatable file): its row is
    /// replaced.
    #[must_use]
    pub fn started_again(&self, unit: Unit<'_>) -> String {
        format!("{} ON CONFLICT (step, name) DO UPDATE SET {}", self.insert(unit, STARTED), replaced())
    }

    /// The statement that takes back what [`Author::started`] announced: it did not happen.
    #[must_use]
    pub fn not_done(&self, name: &str) -> String {
        format!(
            "DELETE FROM migrate.ledger WHERE step = {} AND name = {} AND state = 'started'",
            literal(self.step.as_str()),
            literal(name)
        )
    }

    /// The statement that records that this run goes on with what an earlier one announced, by its text as it is now.
    #[must_use]
    pub fn gone_on(&self, unit: Unit<'_>) -> String {
        let text = |text: Option<&str>| text.map_or("NULL".into(), literal);
        let columns = [
            ("checksum", literal(unit.checksum)),
            ("run", literal(self.run.as_str())),
            ("applied_by", literal(&self.applied_by)),
            ("tool_version", literal(version::THIS)),
            ("up_sql", text(unit.up)),
            ("down_sql", text(unit.down)),
        ];
        self.update(unit.name, &columns.map(|(column, value)| format!("{column} = {value}")).join(", "))
    }

    /// The statement that records the end of what [`Author::started`] announced.
    #[must_use]
    pub fn finished(&self, name: &str) -> String {
        self.update(
            name,
            "state = 'applied', finished_at = pg_catalog.clock_timestamp(), execution_ms = (EXTRACT(EPOCH FROM \
             pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) started_at) OPERATOR(pg_catalog.*) \
             1000)::pg_catalog.int8",
        )
    }

    fn update(&self, name: &str, columns: &str) -> String {
        format!("UPDATE migrate.ledger SET {columns} WHERE {}", key(&self.step, name))
    }

    fn insert(&self, unit: Unit<'_>, state_and_times: &str) -> String {
        insert_of(&self.values(unit), state_and_times)
    }

    /// As [`Author::applied`], in a session in which [`prepare`] was sent.
    #[must_use]
    pub fn applied_by_prepared(&self, unit: Unit<'_>) -> String {
        format!("EXECUTE {PREPARED}({})", self.values(unit).join(", "))
    }

    /// For [`insert_of`].
    fn values(&self, unit: Unit<'_>) -> [String; TEXTS] {
        let text = |text: Option<&str>| text.map_or("NULL".into(), literal);
        [
            literal(self.step.as_str()),
            literal(unit.name),
            literal(self.kind),
            literal(unit.checksum),
            literal(self.run.as_str()),
            literal(&self.applied_by),
            literal(version::THIS),
            text(unit.up),
            text(unit.down),
        ]
    }
}

/// The columns of a row that are texts, apart from its state.
const TEXTS: usize = 9;
/// The name of the statement that [`prepare`] prepares.
const PREPARED: &str = "migrate_row";

/// Prepares the statement of [`Author::applied_by_prepared`] for a session. The server then reads and plans it once, which otherwise
/// is two thirds of what a row costs it.
#[must_use]
pub fn prepare() -> String {
    let types = ["pg_catalog.text"; TEXTS].join(", ");
    let parameters: [String; TEXTS] = std::array::from_fn(|at| format!("${}", at + 1));
    format!("PREPARE {PREPARED} ({types}) AS {}", insert_of(&parameters, APPLIED))
}

fn insert_of(texts: &[String; TEXTS], state_and_times: &str) -> String {
    let [step, name, kind, checksum, run, applied_by, version, up, down] = texts;
    format!(
        "INSERT INTO migrate.ledger (step, name, kind, checksum, run, state, started_at, finished_at, execution_ms, \
         applied_by, tool_version, up_sql, down_sql) VALUES ({step}, {name}, {kind}, {checksum}, {run}, {state_and_times}, \
         {applied_by}, {version}, {up}, {down})"
    )
}
