//! The way back by snapshot: which databases have to be restored, their proven archives, side databases, and the exchange.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use futures::stream::{self, StreamExt};

use crate::event::{Event, Stage};
use crate::journal::Journal;
use crate::journal::entry::{Fact, Swap};
use crate::journal::ledger;
use crate::journal::state::{Changed, DatabaseState, Restore};
use crate::names::DatabaseName;
use crate::outside::interrupt::Interrupted;
use crate::outside::postgres::{connect, database_oid};
use crate::outside::store::Store;
use crate::snapshot::effort::Effort;
use crate::snapshot::elsewhere::Roles;
use crate::snapshot::manifest::Manifest;
use crate::snapshot::restore::{self, Restoring, SideDatabase, name_beside};
use crate::snapshot::swap;
use crate::snapshot::{self, SnapshotError, prove};
use crate::world::World;

use super::report::RunReport;
use super::roles;
use super::rollback::{Request, RollbackError};
use super::subject::{Subject, failed, note};

/// Databases that are restored side by side. Each costs a few connections and the server's disk.
const AT_ONCE: usize = 4;

/// A run on its way back.
pub(super) struct Back<'a> {
    pub(super) store: &'a Store,
    pub(super) subject: Subject<'a>,
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
        let via = Some("snapshot".to_owned());
        let (databases, only) = (names.iter().cloned().collect(), request.only.is_some());
        journal.write(Fact::RollbackStart { databases, why, via, only }).await?;
        self.subject.already_swapped(journal, report).await?;
        world.tell(Event::Stage(Stage::Restore));
        let restored = self.restore_all(world, journal, manifests, &Effort::of(request.settings)).await?;
        world.tell(Event::Stage(Stage::Swap));
        self.swap_all(world, journal, &restored, report).await?;
        roles::tell(&self.subject, world, "Roles are in no snapshot", report).await?;
        self.subject.end(journal, request, &names).await?;
        let restored = report.databases.iter().filter(|it| it.rolled_back && it.via == Some("snapshot"));
        Ok(restored.map(|it| it.name.clone()).collect())
    }

    /// The databases that have to be restored: those that the run changed. Where only the database knows, it is asked.
    pub(super) async fn to_restore(
        &self,
        only: Option<&BTreeSet<DatabaseName>>,
    ) -> Result<BTreeSet<DatabaseName>, RollbackError> {
        let mut names = BTreeSet::new();
        for it in self.subject.changed(only).await? {
            if it.changed == Changed::Maybe && !self.was_changed(it).await? {
                continue;
            }
            if !it.snapshot {
                return Err(RollbackError::NoSnapshot {
                    run: self.subject.state.run.clone(),
                    database: it.identity.name.clone(),
                    reason: self.subject.state.no_snapshot.clone().unwrap_or_else(|| "no reason is recorded".into()),
                });
            }
            names.insert(it.identity.name.clone());
        }
        Ok(names)
    }

    /// Whether a step that was announced left anything: its ledger rows are committed with its changes. A database that
    /// somebody has dropped is not as it was.
    async fn was_changed(&self, it: &DatabaseState) -> Result<bool, RollbackError> {
        let name = &it.identity.name;
        let mut server = self.subject.maintenance(name).await?;
        if database_oid(&mut server, &it.identity.dbname).await.map_err(failed(name))?.is_none() {
            return Ok(true);
        }
        let url = &self.subject.database(name)?.url;
        let mut session = connect(url, "migrate rollback").await.map_err(failed(name))?;
        let rows = ledger::read(&mut session).await.map_err(failed(name))?.unwrap_or_default();
        Ok(rows.iter().any(|row| row.run == self.subject.state.run.as_str()))
    }

    pub(super) async fn manifest(&self, name: &DatabaseName) -> Result<Manifest, SnapshotError> {
        snapshot::manifest(self.store, &self.subject.state.run, name).await
    }

    /// The manifests, once every archive was read from end to end and is what was sent.
    async fn proven(&self, world: &World, names: &BTreeSet<DatabaseName>) -> Result<Vec<Manifest>, RollbackError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        world.tell(Event::Stage(Stage::Verification));
        let proofs = names.iter().map(|name| async move {
            let manifest = self.manifest(name).await?;
            prove::whole(world, self.store, &manifest).await?;
            let stored_bytes = manifest.stored_bytes();
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
        effort: &Effort,
    ) -> Result<Vec<Restored>, RollbackError> {
        let work = manifests.into_iter().map(|manifest| self.restore(world, journal, manifest, effort));
        let restored: Vec<Result<Restored, RollbackError>> = stream::iter(work).buffered(AT_ONCE).collect().await;
        restored.into_iter().collect()
    }

    async fn restore(
        &self,
        world: &World,
        journal: &Journal,
        manifest: Manifest,
        effort: &Effort,
    ) -> Result<Restored, RollbackError> {
        let (name, begun) = (manifest.database.clone(), Instant::now());
        let it = &self.subject.state.databases[&name];
        if let Restore::Ready(side) = &it.restore {
            let oid = database_oid(&mut self.subject.maintenance(&name).await?, side).await.map_err(failed(&name))?;
            if let Some(oid) = oid {
                let side = SideDatabase { name: side.clone(), oid, rows: manifest.rows() };
                return Ok(Restored { manifest, side });
            }
        }
        let side = name_beside(&it.identity.dbname, "restore", &self.subject.state.run);
        journal.write(Fact::RestoreStart { database: name.clone(), side: side.clone() }).await?;
        let url = &self.subject.database(&name)?.url;
        let restoring = Restoring { world, store: self.store, url, roles: Roles::MustExist, effort };
        let side = restore::into_side(&restoring, &manifest, &side).await?;
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
            let server = self.subject.state.databases[&it.manifest.database].identity.server.clone();
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
        let url = &self.subject.database(&group[0].manifest.database)?.url;
        let properties: Vec<_> = group.iter().map(|it| &it.manifest.properties).collect();
        let swapped = swap::swap(url, &self.subject.state.run, &swaps, &properties).await?;
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
        let dbname = self.subject.state.databases[name].identity.dbname.clone();
        let oid = database_oid(&mut self.subject.maintenance(name).await?, &dbname).await.map_err(failed(name))?;
        Ok(Swap {
            database: name.clone(),
            oid: oid.unwrap_or_default(),
            side: it.side.name.clone(),
            side_oid: it.side.oid,
            kept_as: name_beside(&dbname, "replaced", &self.subject.state.run),
            dbname,
        })
    }
}
