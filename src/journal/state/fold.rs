//! Entries, folded one by one into the state of their run.

use std::collections::{BTreeMap, BTreeSet};

use crate::names::{DatabaseName, RunId, StepName};

use super::super::entry::{Entry, Fact, Found, Swap};
use super::{Begun, Changed, DatabaseState, GoingBack, Journaled, Restore, RunState, Standby, WarmCopy};

impl RunState {
    /// Folds the entries of a run. `entries` must not be empty.
    #[must_use]
    pub fn fold(run: RunId, entries: &[Entry]) -> Self {
        let (first, last) = (&entries[0], &entries[entries.len() - 1]);
        let mut state = Self {
            run,
            command: None,
            plan: String::new(),
            target: None,
            started_at: first.at,
            ended_at: None,
            last_at: last.at,
            last_by: last.by.clone(),
            entries: last.seq,
            outcome: None,
            message: None,
            no_snapshot: None,
            newer: None,
            databases: BTreeMap::new(),
            begun: Vec::new(),
            units: BTreeMap::new(),
            work: Vec::new(),
            said: BTreeMap::new(),
            going_back: None,
            frozen: BTreeSet::new(),
        };
        for entry in entries {
            state.take(entry);
        }
        state
    }

    fn take(&mut self, entry: &Entry) {
        match &entry.fact {
            Fact::Begin { command, plan, target, databases, no_snapshot, work } => {
                self.command = Some(*command);
                self.plan.clone_from(plan);
                self.target = Some(target.clone());
                self.no_snapshot.clone_from(no_snapshot);
                self.databases = databases.iter().map(|it| (it.name.clone(), DatabaseState::new(it))).collect();
                self.work.clone_from(work);
                work.iter().for_each(|it| self.units(&it.step, it.migrations.keys(), Journaled::Meant));
            }
            Fact::ResumeStart { found, changed } => self.resumed(found, changed),
            Fact::SnapshotTaken { database, .. } => self.with(database, |it| it.snapshot = true),
            Fact::StandbyStart { database, standby } => {
                self.with(database, |it| it.standby = Standby::Begun(standby.clone()));
            }
            Fact::StandbyMade { database, standby, oid, bytes, seconds, horizon } => {
                let (name, horizon) = (standby.clone(), horizon.clone());
                let (oid, bytes, seconds, at) = (*oid, *bytes, *seconds, entry.at);
                let copy = WarmCopy { name, oid, bytes, seconds, horizon, at };
                self.with(database, |it| it.standby = Standby::Made(copy));
            }
            Fact::FreezeStart { databases } => self.frozen.extend(databases.iter().cloned()),
            Fact::Unfrozen { databases } => self.frozen.retain(|it| !databases.contains(it)),
            Fact::StepStart { step, database, pending, replaced, roles } => {
                let (pending, replaced) = (pending.iter().cloned().collect(), replaced.keys().cloned().collect());
                self.begun.push(Begun { step: step.clone(), pending, replaced });
                let pending: Vec<String> = self.begun[self.begun.len() - 1].pending.iter().cloned().collect();
                self.units(step, &pending, Journaled::Begun);
                self.with(database, |it| it.step_began(roles));
            }
            Fact::StepDone { step, database, applied, .. } => {
                self.units(step, applied, Journaled::Applied);
                self.with(database, |it| it.step_ended(applied.len(), false));
            }
            Fact::StepFailed { step, database, applied, left_something, message } => {
                self.units(step, applied, Journaled::Applied);
                self.said.insert(step.clone(), message.clone());
                self.with(database, |it| it.step_failed(step, applied.len(), *left_something));
            }
            Fact::Strayed { databases, .. } => {
                databases.iter().for_each(|name| self.with(name, DatabaseState::strayed));
            }
            Fact::UndoStart { step, migrations, .. } => self.units(step, migrations, Journaled::Undoing),
            Fact::Undone { step, database, migrations, .. } => {
                self.units(step, migrations, Journaled::Undone);
                self.with(database, |it| it.applied = it.applied.saturating_sub(migrations.len() as u64));
            }
            Fact::AllUndone { database } => {
                self.taken_back(database);
                self.with(database, DatabaseState::all_undone);
            }
            Fact::RollbackStart { databases, via, only, .. } => self.rollback_began(databases, via.as_ref(), *only),
            Fact::RestoreStart { database, side } => {
                self.with(database, |it| it.restore = Restore::Begun(side.clone()))
            }
            Fact::Restored { database, side, .. } => {
                self.with(database, |it| it.restore = Restore::Ready(side.clone()))
            }
            Fact::SwapStart { swaps } => self.swaps(swaps, |it, swap| it.restore = Restore::Swapping(swap)),
            Fact::Swapped { swaps, .. } => {
                swaps.iter().for_each(|it| self.taken_back(&it.database));
                self.swaps(swaps, DatabaseState::swapped);
            }
            Fact::Resolved { step, name, applied, statement: None, .. } => {
                let what = if *applied { Journaled::Applied } else { Journaled::Begun };
                self.units(step, [name], what);
            }
            Fact::End { outcome, message } => {
                self.going_back = None;
                self.ended_at.get_or_insert(entry.at);
                (self.outcome, self.message) = (Some(*outcome), message.clone());
            }
            Fact::SnapshotStart { .. }
            | Fact::WritesSaved { .. }
            | Fact::UndoFailed { .. }
            | Fact::Checked { .. }
            | Fact::Adopted { .. }
            | Fact::IndexDropped { .. }
            | Fact::Repaired { .. }
            | Fact::Resolved { .. } => {}
            Fact::Unknown => self.newer = Some(entry.by.version.clone()),
        }
    }

    fn units<'n>(&mut self, step: &StepName, names: impl IntoIterator<Item = &'n String>, what: Journaled) {
        let units = self.units.entry(step.clone()).or_default();
        units.extend(names.into_iter().map(|name| (name.clone(), what)));
    }

    /// A run that was cut off, or halted, is open again.
    fn resumed(&mut self, found: &[Found], changed: &[DatabaseName]) {
        (self.outcome, self.message, self.ended_at, self.going_back) = (None, None, None, None);
        for name in changed {
            self.with(name, |it| (it.changed, it.found_changed) = (Changed::Yes, true));
        }
        for it in found {
            let known = self.units.get(&it.step).map_or(0, |units| {
                it.applied.iter().filter(|name| units.get(*name) == Some(&Journaled::Applied)).count()
            });
            self.with(&it.database, |database| database.applied += (it.applied.len() - known) as u64);
            self.units(&it.step, &it.applied, Journaled::Applied);
        }
    }

    fn rollback_began(&mut self, databases: &[DatabaseName], via: Option<&String>, only: bool) {
        // One that was cut off itself does not count as what the run was before.
        let before = self.going_back.as_ref().map_or(self.outcome, |earlier| earlier.before);
        let databases = databases.iter().cloned().collect();
        self.going_back = Some(GoingBack { databases, via: via.cloned(), only, before });
        (self.outcome, self.message) = (None, None);
    }

    /// Nothing of the run is left in a database.
    fn taken_back(&mut self, database: &DatabaseName) {
        let steps = self.work.iter().filter(|it| it.database == *database).map(|it| &it.step);
        for step in steps {
            self.units.entry(step.clone()).or_default().values_mut().for_each(|it| *it = Journaled::Undone);
        }
    }

    fn with(&mut self, database: &DatabaseName, change: impl FnOnce(&mut DatabaseState)) {
        if let Some(it) = self.databases.get_mut(database) {
            change(it);
        }
    }

    fn swaps(&mut self, swaps: &[Swap], change: impl Fn(&mut DatabaseState, Swap)) {
        for swap in swaps {
            self.with(&swap.database, |it| change(it, swap.clone()));
        }
    }
}
