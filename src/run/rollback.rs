//! The story of `rollback`: prove the archives, restore them beside the live databases, exchange all databases of a server
//! at once. It begins from the journal and from nothing else, whether a second after a failure or next week.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use futures::stream::{self, StreamExt};
use serde::Serialize;

use crate::event::{Event, Stage};
use crate::failure::{Aftermath, Blame, Failure, OrFail, list};
use crate::journal::entry::{Fact, Identity, Outcome, Swap};
use crate::journal::ledger;
use crate::journal::state::{Changed, DatabaseState, Restore, RunState};
use crate::journal::{self, Journal, JournalError};
use crate::names::{DatabaseName, RunId};
use crate::outside::interrupt::Interrupted;
use crate::outside::postgres::{MAINTENANCE, PgError, Server, connect, database_oid};
use crate::outside::store::Store;
use crate::plan::Database;
use crate::snapshot::manifest::Manifest;
use crate::snapshot::restore::{self, SideDatabase, name_beside};
use crate::snapshot::swap::{self, SwapError};
use crate::snapshot::{self, SnapshotError, dump};
use crate::world::World;

use super::apply::refused;
use super::lock::Locks;
use super::report::RunReport;

/// Databases that are restored side by side. Each costs a few connections and the server's disk.
const AT_ONCE: usize = 4;

/// Why a rollback did not happen.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum RollbackError {
    /// It has no way back.
    #[error("run {run} changed {database} and has no snapshot of it")]
    #[diagnostic(
        code("rollback.no_snapshot"),
        help(
            "It was applied with --no-snapshot ({reason}). Mend the database by hand, or restore another backup of it."
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
    #[error("run {run} was written by migrate {version}, and holds entries that this version ({}) does not know", env!("CARGO_PKG_VERSION"))]
    #[diagnostic(code("rollback.newer"), help("Use migrate {version} or a later one."))]
    Newer {
        /// The run.
        run: RunId,
        /// The version that wrote it.
        version: String,
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

/// Which run is to be taken back, and why.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The run.
    pub state: &'a RunState,
    /// These databases alone.
    pub only: Option<&'a BTreeSet<DatabaseName>>,
    /// `failure` or `request`.
    pub why: &'static str,
    /// What is kept as the reason.
    pub message: Option<&'a str>,
}

/// What a rollback would do to one database.
#[derive(Debug, Clone, Serialize)]
pub struct Prospect {
    /// The database.
    pub name: DatabaseName,
    /// Its name on the server.
    pub dbname: String,
    /// The way: `snapshot`.
    pub via: &'static str,
    /// When the snapshot was taken: what was written since will be in the kept database alone.
    pub taken_at: chrono::DateTime<chrono::Utc>,
    /// Uncompressed.
    pub bytes: u64,
    /// To be read from the store.
    pub stored_bytes: u64,
    /// Rows to be restored.
    pub rows: u64,
    /// The name under which the replaced database will be kept; none if somebody has dropped it.
    pub kept_as: Option<String>,
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
    carry_back(world, store, &journal, databases, &request, &mut report).await?;
    report.outcome = Some(match report.databases.iter().any(|it| it.rolled_back) {
        true => Outcome::RolledBack,
        false => Outcome::NothingToDo,
    });
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// Closes a run that died and has no snapshots: nothing is taken back, and the next release may begin.
///
/// # Errors
/// Somebody works on it, or the store failed.
pub async fn give_up(
    world: &World,
    store: &Store,
    databases: &BTreeMap<DatabaseName, Database>,
    state: &RunState,
) -> Result<(), Failure> {
    let involved: Vec<&Database> = state.databases.keys().filter_map(|name| databases.get(name)).collect();
    let mut locks = Locks::take(world, &state.run, &involved).await.map_err(refused)?;
    locks.end_leftovers(&state.run).await.or_fail()?;
    let message = Some("it has no snapshots to go back to".to_owned());
    Journal::go_on(world, store, state).write(Fact::End { outcome: Outcome::Halted, message }).await.or_fail()
}

/// What a rollback would do, without doing it.
///
/// # Errors
/// What would stand in its way.
pub async fn prospects(
    store: &Store,
    databases: &BTreeMap<DatabaseName, Database>,
    request: &Request<'_>,
) -> Result<Vec<Prospect>, RollbackError> {
    let back = Back { store, databases, state: request.state };
    let names = back.to_restore(request.only).await?;
    let mut prospects = Vec::new();
    for name in &names {
        let manifest = back.manifest(name).await?;
        let it = &request.state.databases[name].identity;
        let live = database_oid(&mut back.maintenance(name).await?, &it.dbname).await.map_err(failed(name))?;
        prospects.push(Prospect {
            name: name.clone(),
            dbname: it.dbname.clone(),
            via: "snapshot",
            taken_at: manifest.taken_at,
            bytes: manifest.archive.digests.bytes,
            stored_bytes: manifest.archive.digests.stored_bytes,
            rows: manifest.rows(),
            kept_as: live.map(|_| name_beside(&it.dbname, "replaced", &request.state.run)),
        });
    }
    Ok(prospects)
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
        let both: Vec<&DatabaseName> =
            later.changed().map(|it| &it.identity.name).filter(|name| state.databases.contains_key(*name)).collect();
        if later.is_release_of(target) && !both.is_empty() {
            return Err(RollbackError::LaterRun { later: run, run: state.run.clone(), databases: list(&both) });
        }
    }
    Ok(())
}

fn newer(state: &RunState) -> RollbackError {
    let version = state.newer.clone().unwrap_or_else(|| state.last_by.version.clone());
    RollbackError::Newer { run: state.run.clone(), version }
}

/// Takes the databases of a run back, with the locks held.
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
    let back = Back { store, databases, state: request.state };
    for (name, it) in &request.state.databases {
        report.database(name).applied = it.applied;
    }
    let result = back.carry(world, journal, request, report).await;
    result.map_err(|error| left(request.state, report, error))
}

/// A rollback that failed: what it did not take back is still changed.
fn left(state: &RunState, report: &RunReport, error: RollbackError) -> Failure {
    let blame = match error {
        RollbackError::Interrupted(_) | RollbackError::Snapshot(SnapshotError::Interrupted(_)) => Blame::Interrupted,
        _ => Blame::Work,
    };
    Failure { blame, aftermath: aftermath(state, report), error: Box::new(error) }
}

fn aftermath(state: &RunState, report: &RunReport) -> Aftermath {
    let back = |name: &DatabaseName| report.databases.iter().any(|it| it.name == *name && it.rolled_back);
    let changed = state.changed().map(|it| it.identity.name.clone()).filter(|name| !back(name)).collect();
    Aftermath::changed(state, changed)
}

struct Back<'a> {
    store: &'a Store,
    databases: &'a BTreeMap<DatabaseName, Database>,
    state: &'a RunState,
}

/// A database on its way back.
struct Restored {
    manifest: Manifest,
    side: SideDatabase,
}

impl Back<'_> {
    async fn carry(
        &self,
        world: &World,
        journal: &Journal,
        request: &Request<'_>,
        report: &mut RunReport,
    ) -> Result<Vec<DatabaseName>, RollbackError> {
        let names = self.to_restore(request.only).await?;
        // Proven before the first entry: a rollback that cannot even begin leaves the run as it was, so that the next release
        // is not refused for it.
        let manifests = self.proven(world, &names).await?;
        let why = request.why.to_owned();
        journal.write(Fact::RollbackStart { databases: names.iter().cloned().collect(), why }).await?;
        self.already_swapped(journal, report).await?;
        world.tell(Event::Stage(Stage::Restore));
        let restored = self.restore_all(world, journal, manifests).await?;
        world.tell(Event::Stage(Stage::Swap));
        self.swap_all(world, journal, &restored, report).await?;
        self.end(journal, request, &names).await?;
        Ok(report.databases.iter().filter(|it| it.rolled_back).map(|it| it.name.clone()).collect())
    }

    /// A run of which only some databases went back is what it was before: succeeded, or unfinished.
    async fn end(
        &self,
        journal: &Journal,
        request: &Request<'_>,
        names: &BTreeSet<DatabaseName>,
    ) -> Result<(), RollbackError> {
        let rest = self.state.changed().any(|it| !names.contains(&it.identity.name));
        let outcome = if request.only.is_some() && rest { self.state.outcome } else { Some(Outcome::RolledBack) };
        let Some(outcome) = outcome else { return Ok(()) };
        let message = request.only.map(|only| format!("{} alone went back", list(&only.iter().collect::<Vec<_>>())));
        let message = message.or_else(|| request.message.map(str::to_owned));
        Ok(journal.write(Fact::End { outcome, message }).await?)
    }

    /// The databases that have to be restored: those that the run changed. Where only the database knows, it is asked.
    async fn to_restore(&self, only: Option<&BTreeSet<DatabaseName>>) -> Result<BTreeSet<DatabaseName>, RollbackError> {
        if self.state.newer.is_some() || self.state.target.is_none() {
            return Err(newer(self.state));
        }
        if let Some(unknown) = only.into_iter().flatten().find(|name| !self.state.databases.contains_key(*name)) {
            let known = list(&self.state.databases.keys().collect::<Vec<_>>());
            return Err(RollbackError::UnknownDatabase { database: unknown.clone(), known });
        }
        let mut names = BTreeSet::new();
        for it in self.state.changed().filter(|it| only.is_none_or(|only| only.contains(&it.identity.name))) {
            self.same_server(&it.identity).await?;
            if self.is_swapped(it).await? || (it.changed == Changed::Maybe && !self.was_changed(it).await?) {
                continue;
            }
            if !it.snapshot {
                return Err(RollbackError::NoSnapshot {
                    run: self.state.run.clone(),
                    database: it.identity.name.clone(),
                    reason: self.state.no_snapshot.clone().unwrap_or_else(|| "no reason is recorded".into()),
                });
            }
            names.insert(it.identity.name.clone());
        }
        Ok(names)
    }

    fn database(&self, name: &DatabaseName) -> Result<&Database, RollbackError> {
        self.databases.get(name).ok_or_else(|| RollbackError::UnknownDatabase {
            database: name.clone(),
            known: list(&self.databases.keys().collect::<Vec<_>>()),
        })
    }

    async fn maintenance(&self, name: &DatabaseName) -> Result<sqlx::PgConnection, RollbackError> {
        let url = self.database(name)?.url.with_dbname(MAINTENANCE);
        connect(&url, "migrate rollback").await.map_err(failed(name))
    }

    async fn same_server(&self, it: &Identity) -> Result<(), RollbackError> {
        let mut session = self.maintenance(&it.name).await?;
        let found = Server::of(&mut session).await.map_err(failed(&it.name))?.system_identifier;
        if found == it.server {
            return Ok(());
        }
        let (database, run, expected) = (it.name.clone(), self.state.run.clone(), it.server.clone());
        Err(RollbackError::OtherServer { database, run, found, expected })
    }

    /// Whether a swap that was announced was committed.
    async fn is_swapped(&self, it: &DatabaseState) -> Result<bool, RollbackError> {
        let Restore::Swapping(swap) = &it.restore else { return Ok(false) };
        let mut session = self.maintenance(&it.identity.name).await?;
        swap::took_place(&mut session, std::slice::from_ref(swap)).await.map_err(failed(&it.identity.name))
    }

    /// Whether a step that was announced left anything: its ledger rows are committed with its changes. A database that
    /// somebody has dropped is not as it was.
    async fn was_changed(&self, it: &DatabaseState) -> Result<bool, RollbackError> {
        let name = &it.identity.name;
        let mut server = self.maintenance(name).await?;
        if database_oid(&mut server, &it.identity.dbname).await.map_err(failed(name))?.is_none() {
            return Ok(true);
        }
        let url = &self.database(name)?.url;
        let mut session = connect(url, "migrate rollback").await.map_err(failed(name))?;
        let rows = ledger::read(&mut session).await.map_err(failed(name))?.unwrap_or_default();
        Ok(rows.iter().any(|row| row.run == self.state.run.as_str()))
    }

    /// Writes down the swaps that a killed rollback committed without saying so.
    async fn already_swapped(&self, journal: &Journal, report: &mut RunReport) -> Result<(), RollbackError> {
        let mut swaps = Vec::new();
        for it in self.state.changed() {
            if let (Restore::Swapping(swap), true) = (&it.restore, self.is_swapped(it).await?) {
                swaps.push(swap.clone());
            }
        }
        if swaps.is_empty() {
            return Ok(());
        }
        note(report, &swaps);
        Ok(journal.write(Fact::Swapped { swaps }).await?)
    }

    async fn manifest(&self, name: &DatabaseName) -> Result<Manifest, SnapshotError> {
        snapshot::manifest(self.store, &self.state.run, name).await
    }

    /// The manifests, once every archive was read from end to end and is what was sent.
    async fn proven(&self, world: &World, names: &BTreeSet<DatabaseName>) -> Result<Vec<Manifest>, RollbackError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        world.tell(Event::Stage(Stage::Verification));
        let proofs = names.iter().map(|name| async move {
            let manifest = self.manifest(name).await?;
            dump::prove(world, self.store, &self.state.run, &manifest).await?;
            let stored_bytes = manifest.archive.digests.stored_bytes;
            world.tell(Event::SnapshotVerified { database: name.clone(), stored_bytes });
            Ok(manifest)
        });
        let proven: Vec<Result<Manifest, SnapshotError>> = stream::iter(proofs).buffered(AT_ONCE).collect().await;
        Ok(proven.into_iter().collect::<Result<_, _>>()?)
    }

    async fn restore_all(
        &self,
        world: &World,
        journal: &Journal,
        manifests: Vec<Manifest>,
    ) -> Result<Vec<Restored>, RollbackError> {
        let work = manifests.into_iter().map(|manifest| self.restore(world, journal, manifest));
        let restored: Vec<Result<Restored, RollbackError>> = stream::iter(work).buffered(AT_ONCE).collect().await;
        restored.into_iter().collect()
    }

    async fn restore(&self, world: &World, journal: &Journal, manifest: Manifest) -> Result<Restored, RollbackError> {
        let (name, begun) = (manifest.database.clone(), Instant::now());
        let it = &self.state.databases[&name];
        if let Restore::Ready(side) = &it.restore {
            let oid = database_oid(&mut self.maintenance(&name).await?, side).await.map_err(failed(&name))?;
            if let Some(oid) = oid {
                let side = SideDatabase { name: side.clone(), oid, rows: manifest.rows() };
                return Ok(Restored { manifest, side });
            }
        }
        let side = name_beside(&it.identity.dbname, "restore", &self.state.run);
        journal.write(Fact::RestoreStart { database: name.clone(), side: side.clone() }).await?;
        let side = restore::into_side(world, self.store, &manifest, &self.database(&name)?.url, &side).await?;
        let seconds = begun.elapsed().as_secs_f64();
        journal.write(Fact::Restored { database: name, side: side.name.clone(), seconds }).await?;
        Ok(Restored { manifest, side })
    }

    /// One transaction for each server.
    async fn swap_all(
        &self,
        world: &World,
        journal: &Journal,
        restored: &[Restored],
        report: &mut RunReport,
    ) -> Result<(), RollbackError> {
        let mut servers: BTreeMap<String, Vec<&Restored>> = BTreeMap::new();
        for it in restored {
            let server = self.state.databases[&it.manifest.database].identity.server.clone();
            servers.entry(server).or_default().push(it);
        }
        for group in servers.values() {
            if world.interrupt.requested() {
                return Err(Interrupted.into());
            }
            self.swap_server(world, journal, group, report).await?;
        }
        Ok(())
    }

    async fn swap_server(
        &self,
        world: &World,
        journal: &Journal,
        group: &[&Restored],
        report: &mut RunReport,
    ) -> Result<(), RollbackError> {
        let mut swaps = Vec::new();
        for it in group {
            swaps.push(self.planned(it).await?);
        }
        journal.write(Fact::SwapStart { swaps: swaps.clone() }).await?;
        let url = &self.database(&group[0].manifest.database)?.url;
        let properties: Vec<_> = group.iter().map(|it| &it.manifest.properties).collect();
        let swapped = swap::swap(url, &self.state.run, &swaps, &properties).await?;
        note(report, &swaps);
        let kept =
            swaps.iter().filter(|swap| swap.replaces()).map(|swap| (swap.database.clone(), swap.kept_as.clone()));
        world.tell(Event::Swapped { databases: kept.collect(), seconds: swapped.seconds });
        for text in swapped.notes {
            world.tell(Event::Noted(text));
        }
        Ok(journal.write(Fact::Swapped { swaps }).await?)
    }

    async fn planned(&self, it: &Restored) -> Result<Swap, RollbackError> {
        let name = &it.manifest.database;
        let dbname = self.state.databases[name].identity.dbname.clone();
        let oid = database_oid(&mut self.maintenance(name).await?, &dbname).await.map_err(failed(name))?;
        Ok(Swap {
            database: name.clone(),
            oid: oid.unwrap_or_default(),
            side: it.side.name.clone(),
            side_oid: it.side.oid,
            kept_as: name_beside(&dbname, "replaced", &self.state.run),
            dbname,
        })
    }
}

fn failed(name: &DatabaseName) -> impl Fn(PgError) -> RollbackError {
    move |source| RollbackError::Database { database: name.clone(), source }
}

fn note(report: &mut RunReport, swaps: &[Swap]) {
    for swap in swaps {
        let it = report.database(&swap.database);
        it.rolled_back = true;
        it.via = Some("snapshot");
        it.kept_as = swap.replaces().then(|| swap.kept_as.clone());
    }
}
