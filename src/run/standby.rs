//! Warm copies within a run: which databases get one, the entries before and after each, and what one costs.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::event::{Event, Stage};
use crate::failure::{Blame, Failure, list};
use crate::journal::entry::Fact;
use crate::journal::state::Standby;
use crate::journal::{self, Journal, JournalError};
use crate::names::{DatabaseName, RunId};
use crate::outside::interrupt::Interrupted;
use crate::outside::postgres::{PgError, connect};
use crate::outside::store::Store;
use crate::plan::{Database, Plan};
use crate::snapshot::restore::{drop_database, name_beside};
use crate::snapshot::standby::{self, StandbyError};
use crate::world::World;

use super::freeze::Told;
use super::report::{RunReport, StandbyReport};

/// Bytes in a second that a server is taken to copy where nobody has measured it.
const RATE: f64 = 200e6;
/// Runs in which a measured copy is looked for, newest first.
const LOOKED_AT: usize = 20;

/// Why standbys are not there.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum NoStandby {
    /// One could not be made.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Standby(#[from] StandbyError),
    /// Whoever uses the databases could not be told.
    #[error("no standby was made of {databases}, since a hook on `freeze` failed: {hooks}")]
    #[diagnostic(
        code("standby.freeze"),
        help("Mend the hook, or take it out of the plan, and run the same command again. Nobody was cut off.")
    )]
    NotFrozen {
        /// The databases.
        databases: String,
        /// Each hook that failed, with the reason.
        hooks: String,
    },
    /// The journal failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Journal(#[from] JournalError),
}

/// A standby that was not made: nothing was changed.
pub(super) fn failure(error: NoStandby) -> Failure {
    let interrupted = matches!(error, NoStandby::Standby(StandbyError::Interrupted(_)));
    Failure::untouched(if interrupted { Blame::Interrupted } else { Blame::Work }, error)
}

/// Makes the standbys that the plan wants of `databases`, between its hooks on freeze and unfreeze. `again` for a run that was cut
/// off before.
///
/// # Errors
/// The first failure. Those that were made stay. A hook on freeze that failed is one: nothing is changed yet, and whoever should
/// have stopped work is still at it.
pub(super) async fn make_all(
    told: &Told<'_>,
    databases: &[&Database],
    again: bool,
    report: &mut RunReport,
) -> Result<(), NoStandby> {
    let wanted: Vec<&Database> = databases.iter().copied().filter(|it| it.standby).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    told.world.tell(Event::Stage(Stage::Standbys));
    let names: Vec<DatabaseName> = wanted.iter().map(|it| it.name.clone()).collect();
    let frozen = told.freeze(names.clone(), report).await?;
    let made = match frozen.as_ref().map(|it| it.failures.join("; ")).filter(|it| !it.is_empty()) {
        Some(hooks) => Err(NoStandby::NotFrozen { databases: list(&names), hooks }),
        None => make_each(told.world, told.journal, &wanted, again, report).await,
    };
    let unfrozen = told.unfreeze(frozen, report).await;
    made.and(unfrozen.map_err(NoStandby::from))
}

/// One after the other: each copy cuts its applications off for as long as it takes, and side by side all would take longer.
async fn make_each(
    world: &World,
    journal: &Journal,
    wanted: &[&Database],
    again: bool,
    report: &mut RunReport,
) -> Result<(), NoStandby> {
    for database in wanted {
        if world.interrupt.requested() {
            return Err(StandbyError::from(Interrupted).into());
        }
        make_one(world, journal, database, again, report).await?;
    }
    Ok(())
}

async fn make_one(
    world: &World,
    journal: &Journal,
    database: &Database,
    again: bool,
    report: &mut RunReport,
) -> Result<(), NoStandby> {
    let name = &database.name;
    let bytes = size_of(database).await.map_err(|source| StandbyError::Database { database: name.clone(), source })?;
    let standby = name_beside(database.url.dbname(), "standby", journal.run());
    if again {
        // What an attempt left that was cut off before it was written down: nobody would use it.
        let left = drop_database(&database.url, &standby).await;
        left.map_err(|source| StandbyError::Database { database: name.clone(), source })?;
    }
    journal.write(Fact::StandbyStart { database: name.clone(), standby: standby.clone() }).await?;
    world.tell(Event::StandbyBegan { database: name.clone(), bytes });
    let made = standby::make(&world.interrupt, name, &database.url, journal.run(), &standby).await?;
    journal
        .write(Fact::StandbyMade {
            database: name.clone(),
            standby: standby.clone(),
            oid: made.oid,
            bytes: made.bytes,
            seconds: made.seconds,
            horizon: made.horizon,
        })
        .await?;
    let (bytes, seconds) = (made.bytes, made.seconds);
    world.tell(Event::StandbyMade { database: name.clone(), standby: standby.clone(), bytes, seconds });
    report.standbys.push(StandbyReport { database: name.clone(), dbname: standby, bytes, seconds });
    for note in made.notes {
        world.tell(Event::Noted(note.clone()));
        report.notes.push(note);
    }
    Ok(())
}

async fn size_of(database: &Database) -> Result<u64, PgError> {
    let mut session = connect(&database.url, "migrate standby").await?;
    standby::size(&mut session, database.url.dbname()).await
}

/// What a standby costs, before it is made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cost {
    /// The database.
    pub database: DatabaseName,
    /// Bytes on the server's disk, beside those of the database.
    pub bytes: u64,
    /// How long the copy will take, during which the database cannot be reached.
    pub seconds: f64,
    /// The run whose copy was measured; none: an estimate.
    pub measured: Option<RunId>,
}

/// What the standbys of the plan's databases (all, or only those named) will cost: their size now, at the rate of the latest copy of
/// the same database.
///
/// # Errors
/// A database cannot be reached.
pub async fn costs(
    plan: &Plan,
    store: Option<&Store>,
    names: Option<&BTreeSet<DatabaseName>>,
) -> Result<Vec<Cost>, PgError> {
    let wanted = |it: &&Database| it.standby && names.is_none_or(|names| names.contains(&it.name));
    let mut costs = Vec::new();
    for database in plan.databases.values().filter(wanted) {
        let bytes = size_of(database).await?;
        let measured = match store {
            Some(store) => latest(store, plan, &database.name).await,
            None => None,
        };
        let rate = measured.as_ref().map_or(RATE, |(_, rate)| *rate);
        costs.push(Cost {
            database: database.name.clone(),
            bytes,
            #[expect(clippy::cast_precision_loss, reason = "an amount in words")]
            seconds: bytes as f64 / rate,
            measured: measured.map(|(run, _)| run),
        });
    }
    Ok(costs)
}

/// Bytes a second of the latest copy of a database. A store that cannot be read has none: what it costs is told all the same.
async fn latest(store: &Store, plan: &Plan, database: &DatabaseName) -> Option<(RunId, f64)> {
    for run in journal::runs(store).await.ok()?.into_iter().take(LOOKED_AT) {
        let Ok(state) = journal::state(store, &run).await else { continue };
        if !state.is_release_of(&plan.target.name) {
            continue;
        }
        if let Some(Standby::Made(copy)) = state.databases.get(database).map(|it| &it.standby) {
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            return Some((run, copy.bytes as f64 / copy.seconds.max(0.001)));
        }
    }
    None
}
