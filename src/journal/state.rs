//! The state of a run, folded from its entries. Pure: the same entries give the same state on every machine.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use crate::names::{DatabaseName, RunId, StepName, TargetName};

use super::entry::{Command, Entry, Fact, Found, Identity, Outcome, Swap, Work, Writer};

/// What the journal of a run says.
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    /// The run.
    pub run: RunId,
    /// What it is. None: its first entry is of a newer version.
    pub command: Option<Command>,
    /// The plan's name.
    pub plan: String,
    /// The target.
    pub target: Option<TargetName>,
    /// When its first entry was written.
    pub started_at: DateTime<Utc>,
    /// When it ended for the first time: a rollback may come long after.
    pub ended_at: Option<DateTime<Utc>>,
    /// When its last entry was written.
    pub last_at: DateTime<Utc>,
    /// Who wrote the last entry.
    pub last_by: Writer,
    /// How many entries there are.
    pub entries: u64,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
    /// What was said at the end.
    pub message: Option<String>,
    /// Why it has no snapshots, if so.
    pub no_snapshot: Option<String>,
    /// The version of `migrate` that wrote entries which this one does not know.
    pub newer: Option<String>,
    /// Its databases.
    pub databases: BTreeMap<DatabaseName, DatabaseState>,
    /// Its steps, or the parts of those that were cut, in the order in which they began.
    pub begun: Vec<Begun>,
    /// What became of its migrations, by step: of those that it meant to apply, and of those that it began.
    pub units: BTreeMap<StepName, BTreeMap<String, Journaled>>,
    /// What it meant to apply. Empty: it was written by a version that did not say.
    pub work: Vec<Work>,
    /// What was said when a step failed last.
    pub said: BTreeMap<StepName, String>,
    /// The rollback that is under way.
    pub going_back: Option<GoingBack>,
    /// The databases whose users heard that they will be cut off, and not yet that they can come back.
    pub frozen: BTreeSet<DatabaseName>,
}

/// What the journal says of one migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Journaled {
    /// The run was to apply it; its step has not begun.
    Meant,
    /// Its step began, and the journal does not have it among what was applied.
    Begun,
    /// It was applied.
    Applied,
    /// It was about to be undone.
    Undoing,
    /// It was undone, or its database was taken back.
    Undone,
}

/// A rollback that began and did not end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoingBack {
    /// The databases that were to go back.
    pub databases: BTreeSet<DatabaseName>,
    /// `snapshot`, `down`; none in journals of versions that knew one way alone.
    pub via: Option<String>,
    /// Whether the operator asked for these databases alone.
    pub only: bool,
    /// What the run was before.
    pub before: Option<Outcome>,
}

/// A step, or a part of one, that began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// The step.
    pub step: StepName,
    /// The migrations that it was about to apply.
    pub pending: BTreeSet<String>,
    /// Those of them that the database had with another text.
    pub replaced: BTreeSet<String>,
}

/// What the journal says about one database.
#[derive(Debug, Clone, PartialEq)]
pub struct DatabaseState {
    /// The database, as the run found it.
    pub identity: Identity,
    /// Whether a proven snapshot of it is in the store.
    pub snapshot: bool,
    /// Whether it was changed.
    pub changed: Changed,
    /// Migrations that were applied and not rolled back.
    pub applied: u64,
    /// How far its restore got.
    pub restore: Restore,
    /// Its warm copy.
    pub standby: Standby,
    /// Whether a program of a step that was not meant for it changed it.
    pub strayed: bool,
    /// Steps on it that failed and may have left something.
    pub left_by: Vec<StepName>,
    /// Whether it was taken back by undoing every migration of the run.
    pub undone: bool,
    /// The roles of its server before the run, if a step has begun on it.
    pub roles: Vec<String>,
    /// Whether it was found changed when the run was taken up again.
    pub found_changed: bool,
}

/// Whether a run changed a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Changed {
    /// It is as it was before the run.
    No,
    /// A step was about to; only the database knows whether it did.
    Maybe,
    /// It was.
    Yes,
}

/// How far the restore of a database got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restore {
    /// Not begun.
    None,
    /// A side database of this name may exist, in any state.
    Begun(String),
    /// The side database of this name is whole.
    Ready(String),
    /// The exchange was about to be committed; only the server knows whether it was.
    Swapping(Swap),
    /// Exchanged.
    Swapped(Swap),
}

/// What the journal says about the warm copy of a database.
#[derive(Debug, Clone, PartialEq)]
pub enum Standby {
    /// None was begun.
    None,
    /// One of this name may be there; nobody would use it.
    Begun(String),
    /// It was made.
    Made(WarmCopy),
}

/// A warm copy that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct WarmCopy {
    /// Its name on the server.
    pub name: String,
    /// Its oid.
    pub oid: u32,
    /// Bytes on disk.
    pub bytes: u64,
    /// How long it took to make.
    pub seconds: f64,
    /// `txid_current_snapshot()` before it was made.
    pub horizon: String,
    /// When it was there.
    pub at: DateTime<Utc>,
}

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

    /// Whether this is a release that needs somebody before the next one may begin. One that was halted and has no snapshots
    /// can only be gone on from.
    #[must_use]
    pub fn unfinished(&self) -> bool {
        let open = match self.outcome {
            None => true,
            Some(Outcome::Halted) => self.no_snapshot.is_none(),
            Some(_) => false,
        };
        self.may_be_release() && open
    }

    /// Whether this is a release, or was begun by a version whose words this one does not know.
    fn may_be_release(&self) -> bool {
        self.command.is_none_or(|it| it == Command::Apply)
    }

    /// Whether this is a release of `target`.
    #[must_use]
    pub fn is_release_of(&self, target: &TargetName) -> bool {
        self.command == Some(Command::Apply) && self.target.as_ref() == Some(target)
    }

    /// Whether this is a release of `target`, or may be one: a later version began it, in words that this one does not know.
    #[must_use]
    pub fn may_be_release_of(&self, target: &TargetName) -> bool {
        self.may_be_release() && self.target.as_ref().is_none_or(|it| it == target)
    }

    /// The word for its state, as in JSON.
    #[must_use]
    pub fn word(&self) -> &'static str {
        self.outcome.map_or("unfinished", Outcome::word)
    }

    /// Databases that are, or may be, changed by this run.
    pub fn changed(&self) -> impl Iterator<Item = &DatabaseState> {
        self.databases.values().filter(|it| it.changed != Changed::No)
    }
}

impl DatabaseState {
    fn new(identity: &Identity) -> Self {
        Self {
            identity: identity.clone(),
            snapshot: false,
            changed: Changed::No,
            applied: 0,
            restore: Restore::None,
            standby: Standby::None,
            strayed: false,
            left_by: Vec::new(),
            undone: false,
            roles: Vec::new(),
            found_changed: false,
        }
    }

    /// By which way an exchange took it back: `standby` or `snapshot`.
    #[must_use]
    pub fn via(&self, swap: &Swap) -> &'static str {
        match &self.standby {
            Standby::Made(copy) if copy.name == swap.side => "standby",
            _ => "snapshot",
        }
    }

    /// Whether the journal alone says that it is changed.
    #[must_use]
    pub fn is_known_changed(&self) -> bool {
        self.changed == Changed::Yes
    }

    fn strayed(&mut self) {
        (self.changed, self.strayed) = (Changed::Yes, true);
    }

    fn all_undone(&mut self) {
        (self.changed, self.applied, self.undone, self.found_changed) = (Changed::No, 0, true, false);
        self.left_by.clear();
    }

    fn step_began(&mut self, roles: &[String]) {
        self.changed = self.changed.max(Changed::Maybe);
        // Once: a run that is taken up again has made some of those that it finds.
        if self.roles.is_empty() {
            self.roles = roles.to_vec();
        }
    }

    fn step_ended(&mut self, applied: usize, changed: bool) {
        self.applied += applied as u64;
        let earlier = self.applied > 0 || self.strayed || self.found_changed || !self.left_by.is_empty();
        self.changed = if earlier || changed { Changed::Yes } else { Changed::No };
    }

    fn step_failed(&mut self, step: &StepName, applied: usize, left_something: bool) {
        self.step_ended(applied, left_something);
        if left_something {
            self.left_by.push(step.clone());
        }
    }

    fn swapped(&mut self, swap: Swap) {
        (self.changed, self.applied, self.strayed, self.found_changed) = (Changed::No, 0, false, false);
        self.left_by.clear();
        self.restore = Restore::Swapped(swap);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> DatabaseName {
        DatabaseName::new(text).expect("a name")
    }

    fn begin() -> Fact {
        let migrations = BTreeMap::from([("001".to_owned(), "a".to_owned())]);
        let identity =
            |database| Identity { name: name(database), dbname: database.into(), server: "1".into(), oid: 5 };
        Fact::Begin {
            command: Command::Apply,
            plan: "mobius".into(),
            target: TargetName::new("local").expect("a name"),
            databases: vec![identity("rag"), identity("chat")],
            no_snapshot: None,
            work: vec![Work { step: step("s"), database: name("rag"), migrations }],
        }
    }

    fn step(text: &str) -> StepName {
        StepName::new(text).expect("a name")
    }

    fn swap(database: &str) -> Swap {
        Swap {
            database: name(database),
            dbname: database.into(),
            oid: 5,
            side: "side".into(),
            side_oid: 6,
            kept_as: "kept".into(),
        }
    }

    fn fold(facts: impl IntoIterator<Item = Fact>) -> RunState {
        let by = Writer { host: "h".into(), user: "u".into(), pid: 1, version: "0".into() };
        let entries: Vec<Entry> = std::iter::once(begin())
            .chain(facts)
            .zip(1..)
            .map(|(fact, seq)| Entry { format: 1, seq, at: DateTime::UNIX_EPOCH, by: by.clone(), fact })
            .collect();
        RunState::fold(RunId::new("20261121-174311-482k3f").expect("an id"), &entries)
    }

    fn started() -> Fact {
        let (pending, replaced) = (vec!["001".into()], BTreeMap::new());
        Fact::StepStart { step: step("s"), database: name("rag"), pending, replaced, roles: vec!["app".into()] }
    }

    fn failed(left_something: bool) -> Fact {
        Fact::StepFailed {
            step: step("s"),
            database: name("rag"),
            applied: vec![],
            left_something,
            message: String::new(),
        }
    }

    fn done() -> Fact {
        Fact::StepDone { step: step("s"), database: name("rag"), applied: vec!["001".into()], seconds: 0.0 }
    }

    #[test]
    fn a_step_that_started_may_have_changed_its_database() {
        assert_eq!(fold([]).databases[&name("rag")].changed, Changed::No);
        assert_eq!(fold([started()]).databases[&name("rag")].changed, Changed::Maybe);
        assert_eq!(fold([started(), failed(false)]).databases[&name("rag")].changed, Changed::No);
        assert_eq!(fold([started(), failed(true)]).databases[&name("rag")].changed, Changed::Yes);
        assert_eq!(fold([started(), done(), started(), failed(false)]).databases[&name("rag")].changed, Changed::Yes);
        assert_eq!(fold([started(), done()]).databases[&name("chat")].changed, Changed::No);
        // A step that is cut starts once for each of its segments; what one of them did stays done.
        assert_eq!(fold([started(), done(), started()]).databases[&name("rag")].changed, Changed::Yes);
        assert_eq!(fold([started(), done(), started(), done()]).databases[&name("rag")].applied, 2);
    }

    fn rollback(only: bool) -> Fact {
        Fact::RollbackStart { databases: vec![name("rag")], why: "request".into(), via: Some("down".into()), only }
    }

    fn resumed(found: bool) -> Fact {
        let it = Found { step: step("s"), database: name("rag"), applied: vec!["001".into()] };
        let changed = if found { vec![name("rag")] } else { vec![] };
        Fact::ResumeStart { found: Vec::from_iter(found.then_some(it)), changed }
    }

    fn ended(outcome: Outcome) -> Fact {
        Fact::End { outcome, message: None }
    }

    #[test]
    fn what_was_found_when_a_run_was_taken_up_stays_changed() {
        let state = fold([started(), ended(Outcome::Halted), resumed(true)]);
        assert_eq!((state.outcome, state.ended_at, state.unfinished()), (None, None, true));
        assert_eq!(state.units[&step("s")]["001"], Journaled::Applied);
        let rag = |facts: Vec<Fact>| {
            let rag = &fold(facts).databases[&name("rag")];
            (rag.changed, rag.applied)
        };
        // The rest of the step fails and leaves nothing: what an earlier process did is there all the same.
        assert_eq!(rag(vec![started(), resumed(true), started(), failed(false)]), (Changed::Yes, 1));
        assert_eq!(rag(vec![started(), resumed(false), started(), failed(false)]), (Changed::No, 0));
        // What the journal knew already is not counted twice.
        assert_eq!(rag(vec![started(), done(), resumed(true)]), (Changed::Yes, 1));
        // What a step left stays, whatever becomes of the step when it is tried again.
        assert_eq!(rag(vec![started(), failed(true), resumed(false), started(), failed(false)]), (Changed::Yes, 0));
    }

    #[test]
    fn a_rollback_that_was_cut_off_is_known_with_its_way() {
        let back = |facts: Vec<Fact>| fold(facts).going_back.map(|it| (it.via, it.only, it.before));
        assert_eq!(back(vec![done()]), None);
        let down = Some("down".to_owned());
        let once = vec![done(), ended(Outcome::Succeeded), rollback(true)];
        assert_eq!(back(once.clone()), Some((down.clone(), true, Some(Outcome::Succeeded))));
        // Begun a second time, it is still what it was before the first.
        assert_eq!(back([once.clone(), vec![rollback(false)]].concat()), Some((down, false, Some(Outcome::Succeeded))));
        assert_eq!(back([once, vec![ended(Outcome::RolledBack)]].concat()), None);
    }

    #[test]
    fn what_became_of_each_migration_is_known() {
        let unit = |facts: Vec<Fact>| fold(facts).units[&step("s")]["001"];
        assert_eq!(unit(vec![]), Journaled::Meant);
        assert_eq!(unit(vec![started()]), Journaled::Begun);
        assert_eq!(unit(vec![started(), failed(true)]), Journaled::Begun);
        assert_eq!(unit(vec![started(), done()]), Journaled::Applied);
        assert_eq!(unit(vec![started(), done(), Fact::AllUndone { database: name("rag") }]), Journaled::Undone);
        assert_eq!(
            unit(vec![started(), done(), Fact::Swapped { swaps: vec![swap("rag")], seconds: None }]),
            Journaled::Undone
        );
    }

    #[test]
    fn a_swap_makes_a_database_unchanged_and_keeps_where_the_replaced_one_is() {
        let state = fold([started(), done(), Fact::SwapStart { swaps: vec![swap("rag")] }]);
        assert_eq!(state.databases[&name("rag")].restore, Restore::Swapping(swap("rag")));
        let state = fold([started(), done(), Fact::Swapped { swaps: vec![swap("rag")], seconds: None }]);
        assert_eq!(state.databases[&name("rag")].changed, Changed::No);
        assert_eq!(state.changed().count(), 0);
    }

    #[test]
    fn a_warm_copy_is_one_once_it_was_made_and_tells_the_way() {
        let (standby, database) = ("side".to_owned(), name("rag"));
        let begun = Fact::StandbyStart { database: database.clone(), standby: standby.clone() };
        let horizon = "10:10:".to_owned();
        let made = Fact::StandbyMade { database, standby, oid: 6, bytes: 1, seconds: 0.5, horizon };
        let rag = |facts: Vec<Fact>| fold(facts).databases[&name("rag")].clone();
        assert_eq!(rag(vec![begun.clone()]).standby, Standby::Begun("side".into()));
        assert_eq!(rag(vec![begun.clone()]).via(&swap("rag")), "snapshot");
        let state = rag(vec![begun, made]);
        assert!(matches!(&state.standby, Standby::Made(copy) if copy.oid == 6), "{state:?}");
        assert_eq!((state.via(&swap("rag")), state.changed), ("standby", Changed::No));
    }

    #[test]
    fn who_heard_of_a_freeze_is_owed_its_end_whatever_came_between() {
        let of = |names: &[&str]| names.iter().map(|it| name(it)).collect::<Vec<_>>();
        let freeze = |names: &[&str]| Fact::FreezeStart { databases: of(names) };
        let unfrozen = |names: &[&str]| Fact::Unfrozen { databases: of(names) };
        let owed = |facts: Vec<Fact>| fold(facts).frozen.into_iter().collect::<Vec<_>>();
        assert_eq!(owed(vec![started()]), of(&[]));
        assert_eq!(owed(vec![freeze(&["rag", "chat"])]), of(&["chat", "rag"]));
        assert_eq!(owed(vec![freeze(&["rag", "chat"]), unfrozen(&["chat"])]), of(&["rag"]));
        assert_eq!(owed(vec![freeze(&["rag"]), unfrozen(&["rag"]), freeze(&["rag"])]), of(&["rag"]));
        assert_eq!(owed(vec![freeze(&["rag"]), resumed(false), rollback(false)]), of(&["rag"]));
    }

    #[test]
    fn a_database_is_unchanged_once_all_is_undone_and_not_before() {
        let undone =
            || Fact::Undone { step: step("s"), database: name("rag"), migrations: vec!["001".into()], seconds: 0.0 };
        let state = fold([started(), done(), undone()]);
        let rag = &state.databases[&name("rag")];
        assert_eq!((rag.changed, rag.applied, rag.undone), (Changed::Yes, 0, false));
        let state = fold([started(), done(), undone(), Fact::AllUndone { database: name("rag") }]);
        assert_eq!((state.changed().count(), state.databases[&name("rag")].undone), (0, true));
    }

    #[test]
    fn what_strayed_is_known_until_its_database_was_exchanged() {
        let astray = || Fact::Strayed { step: step("s"), databases: vec![name("chat")], what: String::new() };
        let chat = |state: RunState| (state.databases[&name("chat")].changed, state.databases[&name("chat")].strayed);
        assert_eq!(chat(fold([astray()])), (Changed::Yes, true));
        assert_eq!(
            chat(fold([astray(), Fact::Swapped { swaps: vec![swap("chat")], seconds: None }])),
            (Changed::No, false)
        );
    }

    #[test]
    fn a_rollback_makes_a_finished_run_unfinished_until_it_ends() {
        let end = |outcome| Fact::End { outcome, message: None };
        let rollback = || rollback(false);
        assert!(fold([]).unfinished());
        assert!(!fold([end(Outcome::Succeeded)]).unfinished());
        assert!(fold([end(Outcome::Halted)]).unfinished());
        assert!(fold([end(Outcome::Succeeded), rollback()]).unfinished());
        assert!(!fold([end(Outcome::Succeeded), rollback(), end(Outcome::RolledBack)]).unfinished());
    }

    #[test]
    fn an_entry_of_a_newer_version_is_seen() {
        assert_eq!(fold([Fact::Unknown]).newer.as_deref(), Some("0"));
        // One that cannot even be told whose it is stands in everybody's way.
        let by = Writer { host: "h".into(), user: "u".into(), pid: 1, version: "9".into() };
        let only = Entry { format: 2, seq: 1, at: DateTime::UNIX_EPOCH, by, fact: Fact::Unknown };
        let state = RunState::fold(RunId::new("20261121-174311-482k3f").expect("an id"), &[only]);
        let local = TargetName::new("local").expect("a name");
        assert!(state.unfinished() && state.may_be_release_of(&local) && !state.is_release_of(&local));
    }

    fn any_fact() -> impl Strategy<Value = Fact> {
        prop_oneof![
            Just(started()),
            Just(done()),
            any::<bool>().prop_map(failed),
            Just(Fact::SwapStart { swaps: vec![swap("rag"), swap("chat")] }),
            Just(Fact::Swapped { swaps: vec![swap("rag")], seconds: None }),
            Just(Fact::Unknown),
            any::<bool>().prop_map(resumed),
            any::<bool>().prop_map(rollback),
            Just(Fact::RestoreStart { database: name("nobody"), side: "x".into() }),
            Just(Fact::End { outcome: Outcome::Failed, message: None }),
        ]
    }

    proptest! {
        /// What was certain does not become uncertain by a step that ends, and every entry is counted.
        #[test]
        fn folding_any_entries_gives_a_state(facts in proptest::collection::vec(any_fact(), 0..30)) {
            let state = fold(facts.clone());
            prop_assert_eq!(state.entries, facts.len() as u64 + 1);
            prop_assert_eq!(state.databases.len(), 2);
            prop_assert_eq!(state.newer.is_some(), facts.contains(&Fact::Unknown));
        }
    }
}
