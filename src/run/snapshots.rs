//! Snapshots taken side by side: within a release, or alone.

use std::collections::BTreeSet;

use futures::stream::{self, StreamExt};

use crate::event::{Event, Stage};
use crate::failure::{Aftermath, Blame, Failure, OrFail};
use crate::journal::entry::{Command, Fact, Identity, Outcome};
use crate::journal::{Journal, JournalError};
use crate::names::{DatabaseName, RunId};
use crate::outside::clock;
use crate::outside::postgres::{PgError, Server, connect, database_oid};
use crate::outside::store::Store;
use crate::plan::{Database, Plan};
use crate::snapshot::dump::{self, Dumping, Taken};
use crate::snapshot::effort::Effort;
use crate::snapshot::elsewhere::Roles;
use crate::snapshot::restore::Restoring;
use crate::snapshot::{self, SnapshotError, drill};
use crate::world::World;

use super::report::SnapshotReport;

/// Takes the snapshots of `databases`; `again`, if an earlier process of the run may have begun to. The first failure stops the
/// others, each at the end of what it is writing.
///
/// # Errors
/// The first failure.
pub async fn take_all(
    world: &World,
    store: &Store,
    journal: &Journal,
    plan: &Plan,
    databases: &[&Database],
    again: bool,
) -> Result<Vec<SnapshotReport>, SnapshotError> {
    world.tell(Event::Stage(Stage::Snapshots));
    let stop = world.interrupt.part();
    let world = &World { interrupt: stop.clone(), ..world.clone() };
    let (run, effort, settings) = (journal.run(), &Effort::of(&plan.run), &plan.store);
    let dumping = Dumping { world, store, run, effort, settings, again };
    let (mut taken, mut failed) = (Vec::new(), None);
    let work = databases.iter().map(|database| take_one(&dumping, journal, database));
    let mut results = stream::iter(work).buffer_unordered(plan.run.parallel);
    while let Some(result) = results.next().await {
        match result {
            Ok(report) => taken.push(report),
            Err(error) => {
                // What the first failure stops says that it was interrupted: that is not why this failed.
                failed.get_or_insert(error);
                stop.request();
            }
        }
    }
    taken.sort_by(|a, b| a.database.cmp(&b.database));
    failed.map_or(Ok(taken), Err)
}

/// One snapshot, between the two journal entries that say so.
async fn take_one(
    dumping: &Dumping<'_>,
    journal: &Journal,
    database: &Database,
) -> Result<SnapshotReport, SnapshotError> {
    let name = database.name.clone();
    // A manifest is written last of all: with it, the snapshot is whole, and only the journal does not say so.
    if dumping.again
        && let Ok(manifest) = snapshot::manifest(dumping.store, dumping.run, &name).await
    {
        return written(journal, SnapshotReport::from(&Taken { manifest, seconds: 0.0 })).await;
    }
    journal.write(Fact::SnapshotStart { database: name }).await.map_err(noted)?;
    let taken = dump::take(dumping, database).await?;
    written(journal, SnapshotReport::from(&taken)).await
}

async fn written(journal: &Journal, report: SnapshotReport) -> Result<SnapshotReport, SnapshotError> {
    let fact = Fact::SnapshotTaken {
        database: report.database.clone(),
        bytes: report.bytes,
        stored_bytes: report.stored_bytes,
        sha256: report.sha256.clone(),
        seconds: report.seconds,
    };
    journal.write(fact).await.map_err(noted)?;
    Ok(report)
}

fn noted(error: JournalError) -> SnapshotError {
    SnapshotError::Journal(Box::new(error))
}

/// Restores the snapshots of this run into scratch databases and compares them, one after the other: they are on the servers of the
/// live databases, whose disks they need.
///
/// # Errors
/// One cannot be restored, or is not what was dumped.
pub async fn drill_all(
    world: &World,
    store: &Store,
    run: &RunId,
    plan: &Plan,
    databases: &[&Database],
) -> Result<(), SnapshotError> {
    world.tell(Event::Stage(Stage::Drill));
    let effort = &Effort::of(&plan.run);
    for database in databases {
        let manifest = snapshot::manifest(store, run, &database.name).await?;
        let restoring = Restoring { world, store, url: &database.url, roles: &Roles::default(), effort };
        drill::drill(&restoring, &manifest).await?.verdict()?;
    }
    Ok(())
}

/// `migrate snapshot take`: a run of its own, which changes nothing.
///
/// # Errors
/// What failed.
pub async fn take(
    world: &World,
    plan: &Plan,
    store: &Store,
    only: Option<&BTreeSet<DatabaseName>>,
) -> Result<(RunId, Vec<SnapshotReport>), Failure> {
    let run = RunId::generate(clock::now());
    let wanted = |it: &&Database| only.is_none_or(|only| only.contains(&it.name));
    let databases: Vec<&Database> = plan.databases.values().filter(wanted).collect();
    let mut identities = Vec::new();
    for database in &databases {
        identities.push(identity(database).await.or_fail()?);
    }
    let first = Fact::Begin {
        command: Command::Snapshot,
        plan: plan.name.clone(),
        target: plan.target.name.clone(),
        databases: identities,
        no_snapshot: None,
        work: Vec::new(),
    };
    let journal = Journal::begin(world, store, &run, first).await.or_fail()?;
    world.tell(Event::RunBegan { run: run.clone(), store: store.url().to_owned() });
    let taken = take_all(world, store, &journal, plan, &databases, false).await;
    let (outcome, message) = match &taken {
        Ok(_) => (Outcome::Succeeded, None),
        Err(error) => (Outcome::Failed, Some(error.to_string())),
    };
    let ended = journal.write(Fact::End { outcome, message }).await;
    let taken = taken.map_err(failure)?;
    ended.or_fail()?;
    Ok((run, taken))
}

/// A snapshot that failed changed nothing.
#[must_use]
pub fn failure(error: SnapshotError) -> Failure {
    let blame = if matches!(error, SnapshotError::Interrupted(_)) { Blame::Interrupted } else { Blame::Work };
    Failure { blame, aftermath: Aftermath::Untouched, error: Box::new(error) }
}

async fn identity(database: &Database) -> Result<Identity, PgError> {
    let mut session = connect(&database.url, "migrate snapshot").await?;
    let server = Server::of(&mut session).await?;
    let dbname = database.url.dbname().to_owned();
    let oid = database_oid(&mut session, &dbname).await?.unwrap_or_default();
    Ok(Identity { name: database.name.clone(), dbname, server: server.system_identifier, oid })
}
