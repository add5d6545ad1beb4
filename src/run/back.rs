//! The ways back that exchange databases: which have to go back and by what, their warm copies or proven archives and side
//! databases, and the exchange.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use futures::stream::{self, StreamExt};

use crate::event::{Event, Stage};
use crate::journal::Journal;
use crate::journal::entry::{Fact, Swap};
use crate::journal::ledger;
use crate::journal::state::{Changed, DatabaseState, Restore, Standby};
use crate::names::DatabaseName;
use crate::outside::encryption::Recipient;
use crate::outside::interrupt::Interrupted;
use crate::outside::postgres::{connect, database_oid};
use crate::outside::store::Store;
use crate::snapshot::drill::{self, Drilled};
use crate::snapshot::effort::Effort;
use crate::snapshot::elsewhere::Roles;
use crate::snapshot::manifest::{Manifest, Properties};
use crate::snapshot::obstacles::in_the_way;
use crate::snapshot::restore::{self, Restoring, name_beside};
use crate::snapshot::swap;
use crate::snapshot::{self, SnapshotError, prove};
use crate::world::World;

use super::choose::{Asked, Choice, Exchange, Seen, SnapshotSeen, StandbySeen, choose};
use super::freeze::Told;
use super::report::RunReport;
use super::roles;
use super::rollback::{Request, RollbackError};
use super::subject::{Subject, failed, note};
use super::writes::Saving;

/// Databases that are restored side by side. Each costs a few connections and the server's disk.
const AT_ONCE: usize = 4;

/// A run on its way back.
pub(super) struct Back<'a> {
    pub(super) store: &'a Store,
    pub(super) subject: Subject<'a>,
    pub(super) asked: Asked,
}

/// A database that has to go back, and how.
pub(super) struct Found<'a> {
    pub(super) state: &'a DatabaseState,
    pub(super) choice: Choice,
    /// What its latest drill found, if that was looked for.
    pub(super) drilled: Option<Drilled>,
}

/// A database that is ready for the exchange.
struct Ready {
    name: DatabaseName,
    /// The name of what takes its place.
    side: String,
    side_oid: u32,
    /// What that has yet to be given.
    properties: Option<Properties>,
    /// The transactions that were over when it was copied or dumped.
    horizon: Option<String>,
}

impl<'a> Back<'a> {
    pub(super) async fn carry(
        &self,
        world: &World,
        journal: &Journal,
        request: &Request<'_>,
        report: &mut RunReport,
    ) -> Result<Vec<DatabaseName>, RollbackError> {
        let found = self.find_ways(request.only, false).await?;
        let by = |way: Exchange| found.iter().filter(move |it| it.choice.way == way);
        self.nothing_in_the_way(world, &found, report).await?;
        // Proven before the first entry: a rollback that cannot even begin leaves the run as it was, so that the next release
        // is not refused for it.
        let restored = by(Exchange::Snapshot).map(|it| it.state.identity.name.clone()).collect();
        let manifests = self.proven(world, &restored).await?;
        let names: BTreeSet<DatabaseName> = found.iter().map(|it| it.state.identity.name.clone()).collect();
        let ways: BTreeSet<&str> = found.iter().map(|it| it.choice.way.word()).collect();
        let via = Some(ways.into_iter().collect::<Vec<_>>().join(", ")).filter(|it| !it.is_empty());
        let why = request.why.to_owned();
        let (databases, only) = (names.iter().cloned().collect(), request.only.is_some());
        journal.write(Fact::RollbackStart { databases, why, via, only }).await?;
        self.subject.already_swapped(journal, report).await?;
        if !manifests.is_empty() {
            world.tell(Event::Stage(Stage::Restore));
        }
        let mut ready = self.restore_all(world, journal, manifests, &Effort::of(request.settings)).await?;
        ready.extend(by(Exchange::Standby).filter_map(|it| standby(it.state)));
        self.exchange(world, journal, request, &ready, report).await?;
        roles::tell(&self.subject, world, "Roles are in no snapshot", report).await?;
        self.subject.end(journal, request, &names).await?;
        let back = report.databases.iter().filter(|it| it.rolled_back && it.via != Some("down"));
        Ok(back.map(|it| it.name.clone()).collect())
    }

    /// Saves what was written since, if that is wanted, and exchanges, between the plan's hooks on freeze and unfreeze. One on freeze
    /// that fails is no reason to stay.
    async fn exchange(
        &self,
        world: &World,
        journal: &Journal,
        request: &Request<'_>,
        ready: &[Ready],
        report: &mut RunReport,
    ) -> Result<(), RollbackError> {
        let told = Told { world, journal, plan: request.hooks };
        let frozen = told.freeze(ready.iter().map(|it| it.name.clone()).collect(), report).await?;
        let exchanged = async {
            if let Some(recipients) = request.save_writes {
                self.save_writes(world, journal, ready, recipients, report).await?;
            }
            world.tell(Event::Stage(Stage::Swap));
            self.swap_all(world, journal, ready, report).await
        };
        let exchanged = exchanged.await;
        let unfrozen = told.unfreeze(frozen, report).await;
        exchanged.and(unfrozen.map_err(RollbackError::from))
    }

    /// The databases that have to go back, those that the run changed, and how each will. Where only the database knows, it is
    /// asked. Drills are looked for where somebody wants to know of them: they decide nothing.
    pub(super) async fn find_ways(
        &self,
        only: Option<&BTreeSet<DatabaseName>>,
        drills: bool,
    ) -> Result<Vec<Found<'a>>, RollbackError> {
        let (mut found, mut without) = (Vec::new(), Vec::new());
        for it in self.subject.changed(only).await? {
            if it.changed == Changed::Maybe && !self.was_changed(it).await? {
                continue;
            }
            let name = &it.identity.name;
            let drilled = match it.snapshot && drills {
                true => drill::latest(self.store, &self.subject.state.run, name).await?,
                false => None,
            };
            let seen = Seen { standby: self.see_standby(it).await?, snapshot: see_snapshot(it, drilled.as_ref()) };
            match choose(self.asked, &seen) {
                Ok(choice) => found.push(Found { state: it, choice, drilled }),
                Err(why) => without.push((name.clone(), why)),
            }
        }
        if without.is_empty() { Ok(found) } else { Err(self.no_way(without)) }
    }

    fn no_way(&self, without: Vec<(DatabaseName, String)>) -> RollbackError {
        let state = self.subject.state;
        let run = state.run.clone();
        if self.asked == Asked::Standby {
            let why: Vec<String> = without.iter().map(|(name, why)| format!("{name}: {why}")).collect();
            return RollbackError::NoStandby { run, why: why.join("; ") };
        }
        let database = without[0].0.clone();
        let reason = state.no_snapshot.clone().unwrap_or_else(|| "no reason is recorded".into());
        RollbackError::NoSnapshot { run, database, reason }
    }

    pub(super) async fn see_standby(&self, it: &DatabaseState) -> Result<StandbySeen, RollbackError> {
        let copy = match &it.standby {
            Standby::None => return Ok(StandbySeen::None),
            Standby::Begun(_) => return Ok(StandbySeen::Unfinished),
            Standby::Made(copy) => copy,
        };
        let name = &it.identity.name;
        let mut session = self.subject.maintenance(name).await?;
        let there = database_oid(&mut session, &copy.name).await.map_err(failed(name))? == Some(copy.oid);
        Ok(if there { StandbySeen::There } else { StandbySeen::Gone })
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
    ) -> Result<Vec<Ready>, RollbackError> {
        let work = manifests.into_iter().map(|manifest| self.restore(world, journal, manifest, effort));
        let restored: Vec<Result<Ready, RollbackError>> = stream::iter(work).buffered(AT_ONCE).collect().await;
        restored.into_iter().collect()
    }

    async fn restore(
        &self,
        world: &World,
        journal: &Journal,
        manifest: Manifest,
        effort: &Effort,
    ) -> Result<Ready, RollbackError> {
        let (name, begun) = (manifest.database.clone(), Instant::now());
        let it = &self.subject.state.databases[&name];
        if let Restore::Ready(side) = &it.restore {
            let oid = database_oid(&mut self.subject.maintenance(&name).await?, side).await.map_err(failed(&name))?;
            if let Some(oid) = oid {
                let (side, properties, horizon) = (side.clone(), Some(manifest.properties), manifest.horizon);
                return Ok(Ready { name, side, side_oid: oid, properties, horizon });
            }
        }
        let side = name_beside(&it.identity.dbname, "restore", &self.subject.state.run);
        journal.write(Fact::RestoreStart { database: name.clone(), side: side.clone() }).await?;
        let url = &self.subject.database(&name)?.url;
        let restoring = Restoring { world, store: self.store, url, roles: &Roles::default(), effort };
        let side = restore::into_side(&restoring, &manifest, &side).await?;
        let seconds = begun.elapsed().as_secs_f64();
        journal.write(Fact::Restored { database: name.clone(), side: side.name.clone(), seconds }).await?;
        let (properties, horizon) = (Some(manifest.properties), manifest.horizon);
        Ok(Ready { name, side: side.name, side_oid: side.oid, properties, horizon })
    }

    /// That no prepared transaction, subscription or reader of a slot holds a database; what should be known is told.
    async fn nothing_in_the_way(
        &self,
        world: &World,
        found: &[Found<'_>],
        report: &mut RunReport,
    ) -> Result<(), RollbackError> {
        let mut blocks = Vec::new();
        for it in found {
            let name = &it.state.identity.name;
            let mut session = self.subject.maintenance(name).await?;
            let met = in_the_way(&mut session, &it.state.identity.dbname).await.map_err(failed(name))?;
            blocks.extend(met.blocks.into_iter().map(|it| format!("{name}: {it}")));
            for note in met.notes {
                world.tell(Event::Noted(format!("{name}: {note}")));
                report.notes.push(format!("{name}: {note}"));
            }
        }
        let run = self.subject.state.run.clone();
        if blocks.is_empty() { Ok(()) } else { Err(RollbackError::InTheWay { what: blocks.join("; "), run }) }
    }

    /// What applications wrote since, into the store.
    async fn save_writes(
        &self,
        world: &World,
        journal: &Journal,
        ready: &[Ready],
        recipients: &[Recipient],
        report: &mut RunReport,
    ) -> Result<(), RollbackError> {
        for it in ready {
            let url = &self.subject.database(&it.name)?.url;
            let dbname = &self.subject.state.databases[&it.name].identity.dbname;
            let live = database_oid(&mut self.subject.maintenance(&it.name).await?, dbname).await;
            let there = live.map_err(failed(&it.name))?.is_some();
            let Some(horizon) = it.horizon.as_ref().filter(|_| there) else {
                let note = format!("{}: what was written since cannot be told apart, and is not saved", it.name);
                world.tell(Event::Noted(note.clone()));
                report.notes.push(note);
                continue;
            };
            let side = url.with_dbname(&it.side);
            let (store, run, database) = (self.store, &self.subject.state.run, &it.name);
            let saved = Saving { store, run, database, recipients }.save((url, &side), horizon).await?;
            let (database, folder, rows) = (saved.database.clone(), saved.folder.clone(), saved.rows);
            world.tell(Event::WritesSaved { database: database.clone(), folder: folder.clone(), rows });
            journal.write(Fact::WritesSaved { database, folder, rows }).await?;
            report.saved_writes.push(saved);
        }
        Ok(())
    }

    /// One transaction for each server.
    async fn swap_all(
        &self,
        world: &World,
        journal: &Journal,
        ready: &[Ready],
        report: &mut RunReport,
    ) -> Result<(), RollbackError> {
        let mut servers: BTreeMap<String, Vec<&Ready>> = BTreeMap::new();
        for it in ready {
            let server = self.subject.state.databases[&it.name].identity.server.clone();
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
        group: &[&Ready],
        report: &mut RunReport,
    ) -> Result<(), RollbackError> {
        let mut swaps = Vec::new();
        for it in group {
            swaps.push(self.planned(it).await?);
        }
        journal.write(Fact::SwapStart { swaps: swaps.clone() }).await?;
        let url = &self.subject.database(&group[0].name)?.url;
        let properties: Vec<_> = group.iter().map(|it| it.properties.as_ref()).collect();
        let swapped = swap::swap(url, &self.subject.state.run, &swaps, &properties).await?;
        note(self.subject.state, report, &swaps);
        let kept =
            swaps.iter().filter(|swap| swap.replaces()).map(|swap| (swap.database.clone(), swap.kept_as.clone()));
        world.tell(Event::Swapped { databases: kept.collect(), seconds: swapped.seconds });
        for text in swapped.notes {
            world.tell(Event::Noted(text.clone()));
            report.notes.push(text);
        }
        Ok(journal.write(Fact::Swapped { swaps, seconds: Some(swapped.seconds) }).await?)
    }

    async fn planned(&self, it: &Ready) -> Result<Swap, RollbackError> {
        let name = &it.name;
        let dbname = self.subject.state.databases[name].identity.dbname.clone();
        let oid = database_oid(&mut self.subject.maintenance(name).await?, &dbname).await.map_err(failed(name))?;
        Ok(Swap {
            database: name.clone(),
            oid: oid.unwrap_or_default(),
            side: it.side.clone(),
            side_oid: it.side_oid,
            kept_as: name_beside(&dbname, "replaced", &self.subject.state.run),
            dbname,
        })
    }
}

/// What is known of the snapshot of a database.
pub(super) fn see_snapshot(it: &DatabaseState, drilled: Option<&Drilled>) -> SnapshotSeen {
    match drilled {
        _ if !it.snapshot => SnapshotSeen::None,
        None => SnapshotSeen::NotDrilled,
        Some(it) if it.passed() => SnapshotSeen::Drilled,
        Some(it) => SnapshotSeen::Failed(it.differences.join("; ")),
    }
}

/// The warm copy of a database takes its place as it is: it was given all that belongs to it when it was made.
fn standby(it: &DatabaseState) -> Option<Ready> {
    let Standby::Made(copy) = &it.standby else { return None };
    let (name, horizon) = (it.identity.name.clone(), Some(copy.horizon.clone()));
    Some(Ready { name, side: copy.name.clone(), side_oid: copy.oid, properties: None, horizon })
}
