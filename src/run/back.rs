//! The parts of a rollback: which databases have to go back, their proven archives, side databases, and the exchange.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use futures::stream::{self, StreamExt};

use crate::event::{Event, Stage};
use crate::failure::list;
use crate::journal::Journal;
use crate::journal::entry::{Fact, Identity, Outcome, Swap};
use crate::journal::ledger;
use crate::journal::state::{Changed, DatabaseState, Restore, RunState};
use crate::names::DatabaseName;
use crate::outside::interrupt::Interrupted;
use crate::outside::postgres::{MAINTENANCE, PgError, Server, connect, database_oid};
use crate::outside::store::Store;
use crate::plan::Database;
use crate::snapshot::manifest::Manifest;
use crate::snapshot::restore::{self, SideDatabase, name_beside};
use crate::snapshot::swap;
use crate::snapshot::{self, SnapshotError, dump};
use crate::world::World;

use super::report::RunReport;
use super::roles;
use super::rollback::{Request, RollbackError, newer};

/// Databases that are restored side by side. Each costs a few connections and the server's disk.
const AT_ONCE: usize = 4;

/// A run on its way back.
pub(super) struct Back<'a> {
    pub(super) store: &'a Store,
    pub(super) databases: &'a BTreeMap<DatabaseName, Database>,
    pub(super) state: &'a RunState,
}

/// A database on its way back.
struct Restored {
    manifest: Manifest,
    side: SideDatabase,
}

impl Back<'_> {
    pub(super) async fn carry(
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
        roles::tell(self, world, report).await?;
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
    pub(super) async fn to_restore(
        &self,
        only: Option<&BTreeSet<DatabaseName>>,
    ) -> Result<BTreeSet<DatabaseName>, RollbackError> {
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

    pub(super) async fn maintenance(&self, name: &DatabaseName) -> Result<sqlx::PgConnection, RollbackError> {
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

    pub(super) async fn manifest(&self, name: &DatabaseName) -> Result<Manifest, SnapshotError> {
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
            world.tell(Event::Noted(text.clone()));
            report.notes.push(text);
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

pub(super) fn failed(name: &DatabaseName) -> impl Fn(PgError) -> RollbackError {
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
