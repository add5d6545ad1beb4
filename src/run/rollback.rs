//! The story of `rollback`, whichever way: lock, read the journal anew, carry the databases back. It begins from the journal
//! and from nothing else, whether a second after a failure or next week. By snapshot (`back.rs`) archives are proven, restored
//! beside the live databases, and all databases of a server exchanged at once; by down scripts (`undo.rs`) each migration is
//! undone where it is. By standby, the warm copy that was made before the first change is what the exchange puts in place.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde::Serialize;

use crate::failure::{Aftermath, Blame, Failure, OrFail, list};
use crate::journal::entry::{Fact, Outcome};
use crate::journal::state::{RunState, Standby};
use crate::journal::{self, Journal, JournalError};
use crate::names::{DatabaseName, RunId};
use crate::outside::encryption::Recipient;
use crate::outside::interrupt::Interrupted;
use crate::outside::postgres::{PgError, database_oid};
use crate::outside::store::Store;
use crate::plan::hooks::Moment;
use crate::plan::{Database, Plan, RunSettings, When};
use crate::snapshot::SnapshotError;
use crate::snapshot::drill::Drilled;
use crate::snapshot::obstacles::{InTheWay, in_the_way};
use crate::snapshot::restore::name_beside;
use crate::snapshot::swap::SwapError;
use crate::version::THIS;
use crate::world::World;

use super::apply::{checks, refused};
use super::back::{Back, Found};
use super::choose::{Asked, Exchange};
use super::freeze::Told;
use super::hooks;
use super::lock::Locks;
use super::loss::Loss;
use super::price::{self, Offer, Time};
use super::report::RunReport;
use super::subject::{Subject, failed};
use super::undo::{Ahead, Undo, UndoError};
use super::writes::NotSaved;

/// Why a rollback did not happen.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum RollbackError {
    /// It has no way back.
    #[error("run {run} changed {database} and has no snapshot of it")]
    #[diagnostic(
        code("rollback.no_snapshot"),
        help(
            "It was applied with --no-snapshot ({reason}). Undo its migrations with `migrate rollback {run} --via down`, or restore \
             another backup of the database."
        )
    )]
    NoSnapshot {
        /// The run.
        run: RunId,
        /// The database.
        database: DatabaseName,
        /// What the operator gave as the reason.
        reason: String,
    },
    /// The URL leads somewhere else.
    #[error("{database}: run {run} was on another server")]
    #[diagnostic(
        code("rollback.other_server"),
        help("The server's system identifier is {found}, and the run's was {expected}. Check the database's URL.")
    )]
    OtherServer {
        /// The database.
        database: DatabaseName,
        /// The run.
        run: RunId,
        /// Of the server that answered.
        found: String,
        /// Of the run's server.
        expected: String,
    },
    /// A later run built on it.
    #[error("run {later} came after {run} and changed {databases}")]
    #[diagnostic(code("rollback.later_run"), help("Roll back {later} first: `migrate rollback {later}`."))]
    LaterRun {
        /// The later one.
        later: RunId,
        /// The one asked for.
        run: RunId,
        /// What both changed.
        databases: String,
    },
    /// The journal is of a newer version.
    #[error("run {run} was written by migrate {version}, and holds entries that this version ({THIS}) does not know")]
    #[diagnostic(code("rollback.newer"), help("Use migrate {version} or a later one."))]
    Newer {
        /// The run.
        run: RunId,
        /// The version that wrote it.
        version: String,
    },
    /// There is no warm copy.
    #[error("run {run} has no standby to go back to: {why}")]
    #[diagnostic(
        code("rollback.no_standby"),
        help("`migrate rollback {run}` takes each database back by what there is; `--dry-run` says by what.")
    )]
    NoStandby {
        /// The run.
        run: RunId,
        /// Each database with the reason.
        why: String,
    },
    /// The plan has no such database.
    #[error("the run has no database `{database}`")]
    #[diagnostic(code("rollback.unknown_database"), help("It has {known}."))]
    UnknownDatabase {
        /// As asked for.
        database: DatabaseName,
        /// What there is.
        known: String,
    },
    /// A database failed.
    #[error("{database}: {source}")]
    #[diagnostic(code("rollback.database"))]
    Database {
        /// Which.
        database: DatabaseName,
        /// How.
        #[source]
        #[diagnostic_source]
        source: PgError,
    },
    /// A snapshot cannot be restored.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Something holds a database.
    #[error("databases cannot be exchanged: {what}")]
    #[diagnostic(code("rollback.in_the_way"), help("Then run `migrate rollback {run}` again. Nothing was done yet."))]
    InTheWay {
        /// What, with the remedy of each.
        what: String,
        /// The run.
        run: RunId,
    },
    /// What was written since could not be saved.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Writes(#[from] NotSaved),
    /// Its migrations are not undone.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Undo(#[from] Box<UndoError>),
    /// The exchange did not take place.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Swap(#[from] SwapError),
    /// The journal failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Journal(#[from] JournalError),
    /// A signal.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Interrupted(#[from] Interrupted),
}

impl RollbackError {
    /// Whether a signal to us was the cause.
    #[must_use]
    pub fn is_interruption(&self) -> bool {
        match self {
            Self::Interrupted(_) | Self::Snapshot(SnapshotError::Interrupted(_)) => true,
            Self::Undo(it) => it.is_interruption(),
            _ => false,
        }
    }
}

/// The way back.
#[derive(Debug, Clone, Copy)]
pub enum Way<'a> {
    /// Databases are exchanged: each for its warm copy, or for one restored from its snapshot.
    Exchange(Asked),
    /// Migrations are undone by their down scripts.
    Down(Down<'a>),
}

/// What undoing needs beside the journal and the ledgers.
#[derive(Debug, Clone, Copy)]
pub struct Down<'a> {
    /// The plan as the run kept it: the order of its steps, and how long they may wait.
    pub plan: &'a Plan,
    /// The plan of the checkout at hand, from which Alembic can be run.
    pub checkout: Option<&'a Plan>,
}

/// Which run is to be taken back, how and why.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The run.
    pub state: &'a RunState,
    /// How.
    pub way: Way<'a>,
    /// These databases alone.
    pub only: Option<&'a BTreeSet<DatabaseName>>,
    /// What restoring may cost.
    pub settings: &'a RunSettings,
    /// `failure` or `request`.
    pub why: &'static str,
    /// What is kept as the reason.
    pub message: Option<&'a str>,
    /// Whether what applications wrote since is saved in the store before databases are exchanged, and to whom it is encrypted; to
    /// nobody: not at all.
    pub save_writes: Option<&'a [Recipient]>,
    /// Whose checks are made afterwards: those of the run's plan, where some databases went back alone.
    pub checks: Option<&'a Plan>,
    /// The plan whose hooks are called: around an exchange, and, by [`rollback`], afterwards.
    pub hooks: &'a Plan,
}

/// What a rollback would do.
#[derive(Debug, Clone)]
pub enum Prospects {
    /// Exchange these databases.
    Exchange(Vec<Prospect>),
    /// Undo these migrations.
    Down(Ahead),
}

impl Prospects {
    /// The databases that would go back.
    #[must_use]
    pub fn names(&self) -> Vec<&DatabaseName> {
        match self {
            Self::Exchange(all) => all.iter().map(|it| &it.name).collect(),
            Self::Down(ahead) => ahead.databases.iter().collect(),
        }
    }
}

/// What a rollback by standby or snapshot would do to one database.
#[derive(Debug, Clone, Serialize)]
pub struct Prospect {
    /// The database.
    pub name: DatabaseName,
    /// Its name on the server.
    pub dbname: String,
    /// The way: `standby`, `snapshot`.
    pub via: &'static str,
    /// Why this one.
    pub why: String,
    /// When the copy or the snapshot was taken: what was written since will be in the kept database alone.
    pub taken_at: chrono::DateTime<chrono::Utc>,
    /// Of the copy on disk; of the snapshot, uncompressed.
    pub bytes: u64,
    /// To be read from the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
    /// Rows to be restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// What its latest drill found; none, if it was never drilled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drilled: Option<Drilled>,
    /// The name under which the replaced database will be kept; none if somebody has dropped it.
    pub kept_as: Option<String>,
    /// What has to be gone before it can be exchanged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub in_the_way: Vec<String>,
    /// What should be known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What it costs, where that was asked for.
    #[serde(flatten)]
    pub price: Option<Price>,
}

/// What it costs to take one database back.
#[derive(Debug, Clone, Serialize)]
pub struct Price {
    /// From the first byte read to the end of the exchange. Databases are restored side by side.
    pub takes: Time,
    /// How long it cannot be reached.
    pub unreachable: Time,
    /// What was written since, which will be in the replaced database alone; none if there is none, or it cannot be looked at.
    pub lost: Option<Loss>,
    /// Why what would be lost is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost_unknown: Option<String>,
    /// Every way, side by side.
    pub options: Vec<Offer>,
}

/// How closely a rollback is looked at beforehand.
#[derive(Debug, Clone, Copy)]
pub enum Look<'a> {
    /// Which databases, by which way: a person who said yes already does not wait for more.
    Ways,
    /// What each would cost as well, and what the down scripts would do.
    Price(Down<'a>),
}

/// `migrate rollback` of a run that nobody else is working on.
///
/// # Errors
/// Why it did not happen, and which databases are still changed.
pub async fn rollback(
    world: &World,
    store: &Store,
    databases: &BTreeMap<DatabaseName, Database>,
    request: &Request<'_>,
) -> Result<RunReport, Failure> {
    let (begun, state) = (Instant::now(), request.state);
    let target = state.target.clone().ok_or_else(|| newer(state)).or_fail()?;
    let mut report = RunReport::new(&target);
    report.run = Some(state.run.clone());
    let involved: Vec<&Database> = state.databases.keys().filter_map(|name| databases.get(name)).collect();
    let mut locks = Locks::take(world, &state.run, &involved).await.map_err(refused)?;
    locks.end_leftovers(&state.run).await.map_err(|error| Failure {
        blame: Blame::Work,
        aftermath: aftermath(state, &report),
        error: Box::new(error),
    })?;
    // Somebody may have finished it while this process waited for the operator's word.
    let fresh = journal::state(store, &state.run).await.or_fail()?;
    let request = Request { state: &fresh, ..*request };
    let journal = Journal::go_on(world, store, &fresh);
    let told = Told { world, journal: &journal, plan: request.hooks };
    told.pay(&fresh, &mut report).await.map_err(|error| left(&fresh, &report, error.into()))?;
    let went_back = carry_back(world, store, &journal, databases, &request, &mut report).await?;
    if let Some(plan) = request.checks {
        report.checks = checks(world, plan, When::After).await;
        for check in &report.checks {
            let (name, outcome, detail) = (check.name.clone(), check.outcome.into(), check.detail.clone());
            journal.write(Fact::Checked { check: name, outcome, detail }).await.or_fail()?;
        }
    }
    // A rollback that was killed after its last database has only its end to write.
    let only_ended = fresh.outcome.is_none() && report.databases.iter().any(|it| it.rolled_back);
    report.outcome = Some(match !went_back.is_empty() || only_ended {
        true => Outcome::RolledBack,
        false => Outcome::NothingToDo,
    });
    if report.outcome == Some(Outcome::RolledBack) {
        hooks::call(world, request.hooks, Moment::Rollback, None, &mut report).await;
    }
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// Closes a run that died and has no snapshots: nothing is taken back, and the next release may begin.
///
/// # Errors
/// Somebody works on it, or the store failed.
pub async fn give_up(world: &World, store: &Store, plan: &Plan, state: &RunState) -> Result<(), Failure> {
    let involved: Vec<&Database> = state.databases.keys().filter_map(|name| plan.databases.get(name)).collect();
    let mut locks = Locks::take(world, &state.run, &involved).await.map_err(refused)?;
    locks.end_leftovers(&state.run).await.or_fail()?;
    let journal = Journal::go_on(world, store, state);
    let mut report = RunReport::new(&plan.target.name);
    report.run = Some(state.run.clone());
    Told { world, journal: &journal, plan }.pay(state, &mut report).await.or_fail()?;
    let message = Some("it has no snapshots to go back to".to_owned());
    journal.write(Fact::End { outcome: Outcome::Halted, message }).await.or_fail()
}

/// What a rollback would do, without doing it.
///
/// # Errors
/// What would stand in its way.
pub async fn prospects(
    world: &World,
    store: &Store,
    databases: &BTreeMap<DatabaseName, Database>,
    request: &Request<'_>,
    look: Look<'_>,
) -> Result<Prospects, RollbackError> {
    let subject = Subject { databases, state: request.state };
    match request.way {
        Way::Exchange(asked) => {
            let back = Back { store, subject, asked };
            let mut all = by_exchange(&back, request).await?;
            if let Look::Price(down) = look {
                let undo = Undo::new(world, store, subject, down);
                all = price::of_all(&back, &undo, request, all).await?;
            }
            Ok(Prospects::Exchange(all))
        }
        Way::Down(down) => Ok(Prospects::Down(Undo::new(world, store, subject, down).look(request.only).await?)),
    }
}

async fn by_exchange(back: &Back<'_>, request: &Request<'_>) -> Result<Vec<Prospect>, RollbackError> {
    let mut prospects = Vec::new();
    for found in back.find_ways(request.only, true).await? {
        prospects.push(prospect(back, found).await?);
    }
    Ok(prospects)
}

async fn prospect(back: &Back<'_>, found: Found<'_>) -> Result<Prospect, RollbackError> {
    let (name, it) = (&found.state.identity.name, &found.state.identity);
    let mut session = back.subject.maintenance(name).await?;
    let live = database_oid(&mut session, &it.dbname).await.map_err(failed(name))?;
    let InTheWay { blocks, notes } = in_the_way(&mut session, &it.dbname).await.map_err(failed(name))?;
    let (way, why) = (found.choice.way, found.choice.why);
    let (taken_at, bytes, stored_bytes, rows) = match (way, &found.state.standby) {
        (Exchange::Standby, Standby::Made(copy)) => (copy.at, copy.bytes, None, None),
        _ => {
            let manifest = back.manifest(name).await?;
            (manifest.taken_at, manifest.bytes(), Some(manifest.stored_bytes()), Some(manifest.rows()))
        }
    };
    Ok(Prospect {
        name: name.clone(),
        dbname: it.dbname.clone(),
        via: way.word(),
        why,
        taken_at,
        bytes,
        stored_bytes,
        rows,
        drilled: found.drilled,
        kept_as: live.map(|_| name_beside(&it.dbname, "replaced", &back.subject.state.run)),
        in_the_way: blocks,
        notes,
        price: None,
    })
}

/// Refuses if a later release changed what this one changed.
///
/// # Errors
/// [`RollbackError::LaterRun`], or the store failed.
pub async fn no_later_run(store: &Store, state: &RunState) -> Result<(), RollbackError> {
    let Some(target) = &state.target else { return Err(newer(state)) };
    for run in journal::runs(store).await?.into_iter().take_while(|run| *run > state.run) {
        let later = match journal::state(store, &run).await {
            Err(JournalError::NoRun { .. }) => continue,
            later => later?,
        };
        // What it changed cannot be known, unless it ended as it began.
        let harmless = matches!(later.outcome, Some(Outcome::RolledBack | Outcome::Failed));
        if later.newer.is_some() && later.may_be_release_of(target) && !harmless {
            return Err(newer(&later));
        }
        let both: Vec<&DatabaseName> =
            later.changed().map(|it| &it.identity.name).filter(|name| state.databases.contains_key(*name)).collect();
        if later.is_release_of(target) && !both.is_empty() {
            return Err(RollbackError::LaterRun { later: run, run: state.run.clone(), databases: list(&both) });
        }
    }
    Ok(())
}

/// Refuses a run of which this version does not know everything.
///
/// # Errors
/// [`RollbackError::Newer`].
pub fn known(state: &RunState) -> Result<(), RollbackError> {
    if state.newer.is_some() || state.target.is_none() { Err(newer(state)) } else { Ok(()) }
}

fn newer(state: &RunState) -> RollbackError {
    let version = state.newer.clone().unwrap_or_else(|| state.last_by.version.clone());
    RollbackError::Newer { run: state.run.clone(), version }
}

/// Takes the databases of a run back, with the locks held, and gives those that went back now.
///
/// # Errors
/// Why it did not, and which databases are still changed.
pub async fn carry_back(
    world: &World,
    store: &Store,
    journal: &Journal,
    databases: &BTreeMap<DatabaseName, Database>,
    request: &Request<'_>,
    report: &mut RunReport,
) -> Result<Vec<DatabaseName>, Failure> {
    let subject = Subject { databases, state: request.state };
    for (name, it) in &request.state.databases {
        let line = report.database(name);
        line.applied = it.applied;
        if it.undone {
            (line.rolled_back, line.via) = (true, Some("down"));
        }
    }
    let result = match request.way {
        Way::Exchange(asked) => Back { store, subject, asked }.carry(world, journal, request, report).await,
        Way::Down(down) => Undo::new(world, store, subject, down).carry(journal, request, report).await,
    };
    result.map_err(|error| left(request.state, report, error))
}

/// A rollback that failed: what it did not take back is still changed.
fn left(state: &RunState, report: &RunReport, error: RollbackError) -> Failure {
    let blame = if error.is_interruption() { Blame::Interrupted } else { Blame::Work };
    Failure { blame, aftermath: aftermath(state, report), error: Box::new(error) }
}

fn aftermath(state: &RunState, report: &RunReport) -> Aftermath {
    let back = |name: &DatabaseName| report.databases.iter().any(|it| it.name == *name && it.rolled_back);
    let changed = state.changed().map(|it| it.identity.name.clone()).filter(|name| !back(name)).collect();
    Aftermath::changed(state, changed, true)
}
