//! `migrate repair index`: drops the invalid indexes that a migration left, and no other.

use miette::Diagnostic;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::failure::{Blame, Failure, OrFail};
use crate::journal::Journal;
use crate::journal::entry::{Command, Fact, Identity, Outcome};
use crate::journal::ledger;
use crate::kind::concurrently;
use crate::kind::leftover;
use crate::names::{DatabaseName, RunId};
use crate::outside::clock;
use crate::outside::postgres::{PgError, Server, change, connect, database_oid, only, query_error};
use crate::outside::store::Store;
use crate::plan::{Plan, Step};
use crate::world::World;

use super::apply::refused;
use super::going_on::meant;
use super::lock::Locks;
use super::mend::{Which, step};

/// Why no index was dropped.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum RepairIndexError {
    /// The ledger does not know the migration.
    #[error("{database}: the ledger does not have `{which}`")]
    #[diagnostic(code("repair.unknown"), help("`migrate status` shows what there is."))]
    Unknown {
        /// Where.
        database: DatabaseName,
        /// The migration.
        which: Which,
    },
    /// There is nothing to drop.
    #[error("{database}: `{which}` left no invalid index")]
    #[diagnostic(
        code("repair.nothing"),
        help(
            "Only an invalid index is dropped that was not there before the migration, and on whose table no other session is \
             at work. One that was valid once is made so again by REINDEX INDEX CONCURRENTLY."
        )
    )]
    Nothing {
        /// Where.
        database: DatabaseName,
        /// The migration.
        which: Which,
    },
    /// A database failed.
    #[error("{database}: {source}")]
    #[diagnostic(code("repair.database"))]
    Database {
        /// Which.
        database: DatabaseName,
        /// How.
        #[source]
        #[diagnostic_source]
        source: PgError,
    },
}

/// Invalid indexes that a migration left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The migration.
    pub which: Which,
    /// Its database.
    pub database: DatabaseName,
    /// Each quoted, with its schema.
    pub indexes: Vec<String>,
}

/// What the migration left.
///
/// # Errors
/// Nothing, or the database cannot be asked.
pub async fn find(plan: &Plan, which: &Which) -> Result<Left, Failure> {
    let step = step(plan, which)?;
    let mut session = open(plan, step).await.or_fail()?;
    look(&mut session, step, which).await
}

/// Drops what the migration left, by what is so once the database's lock is held.
///
/// # Errors
/// Somebody works on the database, there is nothing left, or it failed.
pub async fn drop_left(world: &World, plan: &Plan, store: &Store, which: &Which) -> Result<(RunId, Left), Failure> {
    let step = step(plan, which)?;
    let (run, database) = (RunId::generate(clock::now()), &plan.databases[&step.database]);
    let mut locks = Locks::take(world, &run, &[database]).await.map_err(refused)?;
    let mut session = open(plan, step).await.or_fail()?;
    if let Some(begun) = begun_in(&mut session, step, which).await.or_fail()? {
        locks.end_leftovers(&begun).await.or_fail()?;
    }
    let left = look(&mut session, step, which).await?;
    let identity = identity(&mut session, step, database.url.dbname()).await.or_fail()?;
    let first = Fact::Begin {
        command: Command::Repair,
        plan: plan.name.clone(),
        target: plan.target.name.clone(),
        databases: vec![identity],
        no_snapshot: None,
        work: Vec::new(),
    };
    let journal = Journal::begin(world, store, &run, first).await.or_fail()?;
    let budget = concurrently::budget(&plan.limits(step));
    execute(&mut session, step, budget).await.or_fail()?;
    for index in &left.indexes {
        execute(&mut session, step, format!("DROP INDEX CONCURRENTLY {index}")).await.or_fail()?;
        let (step, database, name) = (which.step.clone(), step.database.clone(), which.name.clone());
        journal.write(Fact::IndexDropped { step, database, name, index: index.clone() }).await.or_fail()?;
    }
    journal.write(Fact::End { outcome: Outcome::Succeeded, message: None }).await.or_fail()?;
    Ok((run, left))
}

fn failed(step: &Step) -> impl Fn(PgError) -> RepairIndexError {
    |source| RepairIndexError::Database { database: step.database.clone(), source }
}

async fn open(plan: &Plan, step: &Step) -> Result<PgConnection, RepairIndexError> {
    connect(&plan.databases[&step.database].url, "migrate repair").await.map_err(failed(step))
}

async fn execute(session: &mut PgConnection, step: &Step, sql: String) -> Result<(), RepairIndexError> {
    let done = change(session, sql).await;
    done.map(drop).map_err(query_error("dropping the invalid index")).map_err(failed(step))
}

async fn identity(session: &mut PgConnection, step: &Step, dbname: &str) -> Result<Identity, RepairIndexError> {
    let server = Server::of(session).await.map_err(failed(step))?.system_identifier;
    let oid = database_oid(session, dbname).await.map_err(failed(step))?.unwrap_or_default();
    Ok(Identity { name: step.database.clone(), dbname: dbname.to_owned(), server, oid })
}

/// The run that the migration was begun in, if it did not end.
async fn begun_in(session: &mut PgConnection, step: &Step, which: &Which) -> Result<Option<RunId>, RepairIndexError> {
    let rows = ledger::read(session).await.map_err(failed(step))?.unwrap_or_default();
    let row = rows.iter().find(|row| row.step == which.step.as_str() && row.name == which.name && !row.finished);
    Ok(row.and_then(|row| RunId::new(&row.run).ok()))
}

async fn look(session: &mut PgConnection, step: &Step, which: &Which) -> Result<Left, Failure> {
    let database = step.database.clone();
    let rows = ledger::read(session).await.map_err(failed(step)).or_fail()?.unwrap_or_default();
    let row = rows.iter().find(|row| row.step == which.step.as_str() && row.name == which.name);
    let unknown = || RepairIndexError::Unknown { database: database.clone(), which: which.clone() };
    let row = row.ok_or_else(unknown).or_blame(Blame::Usage)?;
    let text = sqlx::query_scalar("select coalesce(up_sql, '') from migrate.ledger where step = $1 and name = $2");
    let text: Result<String, _> = text.bind(step.name.as_str()).bind(&which.name).fetch_one(&mut *session).await;
    let asking = "looking for invalid indexes";
    let text = text.map_err(query_error(asking)).map_err(failed(step)).or_fail()?;
    let indexes = leftover::left(session, &text, meant(row).as_ref()).await;
    let indexes = indexes.map_err(query_error(asking)).map_err(failed(step)).or_fail()?;
    let left = Left { which: which.clone(), database: database.clone(), indexes };
    let nothing = RepairIndexError::Nothing { database, which: which.clone() };
    if left.indexes.is_empty() { Err(nothing).or_blame(Blame::Usage) } else { Ok(left) }
}

/// Asks whether a database has an invalid index at all.
pub(super) const SOME_INVALID: &str = "select exists (select from pg_catalog.pg_index where not indisvalid)";

/// Every invalid index of a database that a migration left, with that migration. `some` is what [`SOME_INVALID`] says.
///
/// # Errors
/// A query failed.
pub(super) async fn all_left(
    session: &mut PgConnection,
    some: &[PgRow],
    rows: &[ledger::Applied],
) -> Result<Vec<(String, String)>, PgError> {
    let failed = || query_error("looking for invalid indexes");
    let some: bool = only(some).and_then(|row| row.try_get(0)).map_err(failed())?;
    if !some || rows.is_empty() {
        return Ok(Vec::new());
    }
    let texts =
        sqlx::query("select step, name, up_sql from migrate.ledger where up_sql ilike '%concurrently%' order by 1, 2");
    let texts = texts.fetch_all(&mut *session).await.map_err(failed())?;
    let mut found = Vec::new();
    for text in texts {
        let read = |at: usize| text.try_get::<String, _>(at).map_err(failed());
        let (step, name, text) = (read(0)?, read(1)?, read(2)?);
        let row = rows.iter().find(|row| row.step == step && row.name == name);
        let indexes = leftover::left(session, &text, row.and_then(meant).as_ref()).await.map_err(failed())?;
        found.extend(indexes.into_iter().map(|index| (index, format!("{step}/{name}"))));
    }
    Ok(found)
}
