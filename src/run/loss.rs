//! What a rollback by exchange would lose: what was written to a database since its warm copy or its snapshot.
//!
//! A row that was written since is told by its transaction (`xmin`), which is not visible in the snapshot of transactions that was
//! recorded. The run's own rows are told from those of applications by theirs: a migration's ledger row was written by the
//! migration's own transaction. Against a standby, tables in which anything changed are compared row by row; from a snapshot, counts
//! are split as `split` does.

mod beside;
pub mod split;

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::{PgConnection, Row};

use crate::journal::ledger::Columns;
use crate::names::{DatabaseName, RunId};
use crate::outside::postgres::{PgError, ask, ask_one, connect, query_error};
use crate::outside::url::DatabaseUrl;
use crate::snapshot::inventory::{counters, sequences};
use crate::snapshot::manifest::{Counters, Manifest, Sequence, TableRows};
use crate::sql::quote::{identifier, literal};

use split::{Counted, between, split};

/// A table is counted for so long; one that takes longer is told by the server's counters.
const LIMITS: &str = "SET LOCAL statement_timeout = '60s'; SET LOCAL lock_timeout = '4s'; SET LOCAL row_security = off";

/// What would be lost of one database.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Loss {
    /// Each table in which something would be.
    pub tables: Vec<TableLoss>,
    /// Each sequence that moved.
    pub sequences: Vec<SequenceLoss>,
    /// Large objects that were made, and that were removed; their contents are not looked at.
    pub large_objects: Option<(u64, u64)>,
    /// What should be known of the numbers.
    pub notes: Vec<String>,
}

/// What would be lost of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableLoss {
    /// `schema.name`.
    pub table: String,
    /// Rows that are new.
    pub inserted: u64,
    /// Rows with other values.
    pub updated: u64,
    /// Rows that are gone.
    pub deleted: u64,
    /// Whether these are exact.
    pub exact: bool,
    /// How they were found: `key`, `row` (a table without a key), `transaction`, `counters`.
    pub by: &'static str,
    /// Rows in it that the run itself wrote: they are not among the others.
    pub by_run: u64,
}

/// A sequence that moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SequenceLoss {
    /// `schema.name`.
    pub sequence: String,
    /// The last number that it gave before.
    pub from: Option<i64>,
    /// And now.
    pub to: Option<i64>,
}

/// A table as it was before.
#[derive(Debug, Clone, Default)]
struct Before {
    rows: u64,
    counters: Option<Counters>,
}

/// A database as it was before, and the transactions that were over then.
struct Past {
    /// `txid_current_snapshot()`; none in manifests of earlier versions.
    horizon: Option<String>,
    tables: BTreeMap<(String, String), Before>,
    sequences: Vec<Sequence>,
    large_objects: Option<u64>,
}

/// What was written to the database at `url` since `manifest` was taken.
///
/// # Errors
/// The database does not answer.
pub async fn since_snapshot(url: &DatabaseUrl, run: &RunId, manifest: &Manifest) -> Result<Loss, PgError> {
    let counters = |it: &TableRows| {
        let found = manifest.counters.iter().find(|other| (&other.schema, &other.name) == (&it.schema, &it.name));
        found.map(|found| found.counters)
    };
    let table =
        |it: &TableRows| ((it.schema.clone(), it.name.clone()), Before { rows: it.rows, counters: counters(it) });
    let past = Past {
        horizon: manifest.horizon.clone(),
        tables: manifest.tables.iter().map(table).collect(),
        sequences: manifest.sequences.clone(),
        large_objects: manifest.large_objects,
    };
    let mut session = connect(url, "migrate rollback").await?;
    let mut now = Now::look(&mut session, run, past).await?;
    for (schema, name) in now.there.clone() {
        now.count(&schema, &name).await?;
    }
    now.rest().await
}

/// What was written to the database at `url` since its warm copy, which is at `standby`, was made.
///
/// # Errors
/// One of the two does not answer.
pub async fn since_standby(
    database: &DatabaseName,
    url: &DatabaseUrl,
    standby: &DatabaseUrl,
    run: &RunId,
    horizon: &str,
) -> Result<Loss, PgError> {
    let mut copy = connect(standby, "migrate rollback").await?;
    let past = Past {
        horizon: Some(horizon.to_owned()),
        tables: row_counts(&mut copy).await?,
        sequences: sequences(&mut copy).await.map_err(query_error("reading sequences"))?,
        large_objects: Some(large_objects(&mut copy, None).await?.0),
    };
    let mut session = connect(url, "migrate rollback").await?;
    let mut other = connect(url, "migrate rollback").await?;
    let mut now = Now::look(&mut session, run, past).await?;
    for (schema, name) in now.there.clone() {
        let Some(counted) = now.counted(&schema, &name).await? else {
            now.count(&schema, &name).await?;
            continue;
        };
        let same = counted.newer + counted.by_run == 0 && counted.now == counted.before;
        if same {
            continue;
        }
        let table = format!("{schema}.{name}");
        match beside::compare(database, &mut other, &mut copy, (&schema, &name), &now.is_of_run()).await {
            Ok(Some(found)) => now.loss.tables.extend(Some(found.of(table, counted.by_run)).filter(TableLoss::any)),
            Ok(None) => now.count(&schema, &name).await?,
            Err(error) => {
                now.loss.notes.push(format!("{table} could not be compared with the standby: {error}"));
                now.count(&schema, &name).await?;
            }
        }
    }
    now.rest().await
}

impl TableLoss {
    fn any(&self) -> bool {
        self.inserted + self.updated + self.deleted > 0
    }
}

/// The tables whose rows are looked at, in SQL: those that `pg_dump` takes, without our ledger.
const TABLES: &str = "select n.nspname::text, c.relname::text, c.oid::int8 from pg_class c join pg_namespace n on n.oid = \
     c.relnamespace where c.relkind = 'r' and c.relpersistence <> 't' and n.nspname <> 'information_schema' and n.nspname !~ \
     '^pg_' and not (n.nspname = 'migrate' and c.relname = 'ledger') and not exists (select from pg_depend x where x.classid = \
     'pg_class'::regclass and x.objid = c.oid and x.deptype = 'e') order by 1, 2";

async fn tables(session: &mut PgConnection) -> Result<Vec<(String, String)>, PgError> {
    let rows = ask(session, TABLES).await.map_err(query_error("listing tables"))?;
    let read = |row: &sqlx::postgres::PgRow| Ok((row.try_get(0)?, row.try_get(1)?));
    rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(query_error("listing tables"))
}

async fn row_counts(session: &mut PgConnection) -> Result<BTreeMap<(String, String), Before>, PgError> {
    let mut counts = BTreeMap::new();
    for (schema, name) in tables(session).await? {
        let count = format!("select count(*) from only {}.{}", identifier(&schema), identifier(&name));
        let rows: i64 =
            ask_one(session, count).await.and_then(|row| row.try_get(0)).map_err(query_error("counting rows"))?;
        counts.insert((schema, name), Before { rows: rows.unsigned_abs(), counters: None });
    }
    Ok(counts)
}

/// How many large objects there are, and how many of them are newer, by the expression.
async fn large_objects(session: &mut PgConnection, newer: Option<&str>) -> Result<(u64, u64), PgError> {
    let newer = newer.unwrap_or("false");
    let sql = format!("select count(*), count(*) filter (where {newer}) from pg_largeobject_metadata");
    let read = |row: sqlx::postgres::PgRow| Ok((row.try_get::<i64, _>(0)?, row.try_get::<i64, _>(1)?));
    let found = ask_one(session, sql).await.and_then(read);
    let (all, newer) = found.map_err(query_error("counting large objects"))?;
    Ok((all.unsigned_abs(), newer.unsigned_abs()))
}

/// A database as it is now, under one snapshot.
struct Now<'a> {
    session: &'a mut PgConnection,
    past: Past,
    there: Vec<(String, String)>,
    /// The transactions of the run, those of its ledger rows.
    of_run: Vec<String>,
    counters: BTreeMap<(String, String), Counters>,
    /// Whether a row's transaction number may stand for one of four thousand million transactions ago.
    around: bool,
    loss: Loss,
}

impl<'a> Now<'a> {
    async fn look(session: &'a mut PgConnection, run: &RunId, past: Past) -> Result<Self, PgError> {
        let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {LIMITS}");
        ask(session, begin).await.map_err(query_error("beginning to count"))?;
        let (of_run, unknown) = own_transactions(session, run).await?;
        let there = tables(session).await?;
        let counters = counters(session).await?.into_iter().map(|it| ((it.schema, it.name), it.counters)).collect();
        let around = first_of(past.horizon.as_deref()).is_none_or(|first| first >= 1 << 32);
        let mut loss = Loss::default();
        if past.horizon.is_none() {
            loss.notes
                .push("the snapshot is of a version that did not record the transactions: by counters alone".into());
        } else if around {
            loss.notes
                .push("the server has used its transaction numbers up once: old rows may be taken for new ones".into());
        }
        loss.notes.extend(unknown);
        Ok(Self { session, past, there, of_run, counters, around, loss })
    }

    /// That a row was written since: its transaction is not visible in the recorded snapshot.
    fn newer(&self) -> Option<String> {
        let horizon = self.past.horizon.as_deref()?;
        let first = first_of(Some(horizon))?;
        let age = format!("age('{}'::xid)", first % (1 << 32));
        Some(format!(
            "(age(xmin) between 0 and {age} and not txid_visible_in_snapshot({first} + {age} - age(xmin), {}::txid_snapshot))",
            literal(horizon)
        ))
    }

    /// That a row was written by the run itself.
    fn is_of_run(&self) -> String {
        match self.of_run.is_empty() {
            true => "false".into(),
            false => {
                format!("xmin::text in ({})", self.of_run.iter().map(|it| literal(it)).collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// The counts of a table; none if they take too long, or transactions were not recorded.
    async fn counted(&mut self, schema: &str, name: &str) -> Result<Option<Counted>, PgError> {
        let Some(newer) = self.newer() else { return Ok(None) };
        let own = self.is_of_run();
        let sql = format!(
            "SAVEPOINT counting; select count(*), count(*) filter (where {newer} and not {own}), count(*) filter (where {newer} and \
             {own}) from only {}.{}; RELEASE SAVEPOINT counting",
            identifier(schema),
            identifier(name)
        );
        let Ok(rows) = ask(self.session, sql).await else {
            let back = ask(self.session, "ROLLBACK TO SAVEPOINT counting").await;
            back.map_err(query_error("counting what was written since"))?;
            self.loss.notes.push(format!("{schema}.{name} could not be counted within a minute"));
            return Ok(None);
        };
        let number = |at| rows.first().map_or(Ok(0), |row| row.try_get::<i64, _>(at)).map(i64::unsigned_abs);
        let before = self.past.tables.get(&(schema.to_owned(), name.to_owned())).map_or(0, |it| it.rows);
        let read = || Ok(Counted { before, now: number(0)?, newer: number(1)?, by_run: number(2)? });
        read().map(Some).map_err(query_error("counting what was written since"))
    }

    /// A table by counts.
    async fn count(&mut self, schema: &str, name: &str) -> Result<(), PgError> {
        let counted = self.counted(schema, name).await?;
        let key = (schema.to_owned(), name.to_owned());
        let before = self.past.tables.get(&key).cloned().unwrap_or_default();
        let now = self.counters.get(&key).copied();
        let since = now.and_then(|now| between(before.counters?, now));
        let (split, by, by_run) = match counted {
            Some(counted) => (split(counted, since), "transaction", counted.by_run),
            None => (by_counters(since), "counters", 0),
        };
        let found = TableLoss {
            table: format!("{schema}.{name}"),
            inserted: split.inserted,
            updated: split.updated,
            deleted: split.deleted,
            exact: split.exact && !self.around,
            by,
            by_run,
        };
        self.loss.tables.extend(Some(found).filter(TableLoss::any));
        Ok(())
    }

    /// What is not in tables.
    async fn rest(mut self) -> Result<Loss, PgError> {
        let gone = self.past.tables.keys().filter(|key| !self.there.contains(key));
        let ledger = |key: &&(String, String)| (key.0.as_str(), key.1.as_str()) != ("migrate", "ledger");
        let gone: Vec<String> = gone.filter(ledger).map(|(schema, name)| format!("{schema}.{name}")).collect();
        if !gone.is_empty() {
            self.loss.notes.push(format!("what was written to {} before it was dropped is not known", gone.join(", ")));
        }
        let now = sequences(self.session).await.map_err(query_error("reading sequences"))?;
        for it in &now {
            let before =
                self.past.sequences.iter().find(|other| (&other.schema, &other.name) == (&it.schema, &it.name));
            let from = before.and_then(|it| it.last);
            if before.is_some() && from != it.last {
                let sequence = format!("{}.{}", it.schema, it.name);
                self.loss.sequences.push(SequenceLoss { sequence, from, to: it.last });
            }
        }
        if let (Some(newer), Some(before)) = (self.newer(), self.past.large_objects) {
            let (all, made) = large_objects(self.session, Some(&newer)).await?;
            let found = (made, before.saturating_sub(all.saturating_sub(made)));
            self.loss.large_objects = Some(found).filter(|it| *it != (0, 0));
        }
        self.loss.tables.sort_by(|a, b| a.table.cmp(&b.table));
        Ok(self.loss)
    }
}

/// The first transaction that was not over in a recorded snapshot, `xmin:xmax:…`.
fn first_of(horizon: Option<&str>) -> Option<u64> {
    horizon?.split(':').next()?.parse().ok()
}

/// What the counters alone say.
fn by_counters(since: Option<Counters>) -> split::Split {
    let since = since.unwrap_or_default();
    split::Split { inserted: since.inserted, updated: since.updated, deleted: since.deleted, exact: false }
}

/// The transactions of the run, and what is to be said of those that cannot be known.
async fn own_transactions(session: &mut PgConnection, run: &RunId) -> Result<(Vec<String>, Option<String>), PgError> {
    let columns = Columns::ask(session).await?;
    if columns.has_none() {
        return Ok((Vec::new(), None));
    }
    // Where statements are counted, the file had no transaction.
    let sql = format!(
        "select xmin::text, kind in ('sql', 'refinery', 'copy') and {} is null, step || '/' || name from migrate.ledger where \
         run = {}",
        columns.get("progress", "int"),
        literal(run.as_str())
    );
    let rows = ask(session, sql).await.map_err(query_error("reading the run's transactions"))?;
    let read = |row: &sqlx::postgres::PgRow| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
    let rows: Vec<(String, bool, String)> = rows
        .iter()
        .map(read)
        .collect::<Result<_, sqlx::Error>>()
        .map_err(query_error("reading the run's transactions"))?;
    let outside: Vec<&str> = rows.iter().filter(|(_, ours, _)| !ours).map(|(_, _, name)| name.as_str()).collect();
    let note = (!outside.is_empty()).then(|| {
        format!(
            "rows that {} wrote count as written by others: not in one transaction with the ledger",
            outside.join(", ")
        )
    });
    Ok((rows.into_iter().map(|(transaction, ..)| transaction).collect(), note))
}

/// The rows that others than the run wrote since: in which tables they may be, and how to tell them. The session is left in a
/// transaction that sees them as they are now, without a limit on how long a statement runs.
pub(super) struct Writes {
    /// `schema` and `name`.
    pub(super) tables: Vec<(String, String)>,
    /// True of such a row.
    pub(super) theirs: String,
}

impl Writes {
    /// # Errors
    /// The database does not answer.
    pub(super) async fn look(session: &mut PgConnection, run: &RunId, horizon: &str) -> Result<Self, PgError> {
        let past = Past {
            horizon: Some(horizon.to_owned()),
            tables: BTreeMap::new(),
            sequences: Vec::new(),
            large_objects: None,
        };
        let now = Now::look(session, run, past).await?;
        let newer = now.newer().unwrap_or_else(|| "true".into());
        let found = Self { theirs: format!("{newer} and not {}", now.is_of_run()), tables: now.there };
        ask(session, "SET LOCAL statement_timeout = 0").await.map_err(query_error("beginning to read rows"))?;
        Ok(found)
    }
}
