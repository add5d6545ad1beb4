//! What is to become of a run that was cut off or halted: of each migration, from what the journal meant and what the
//! database shows. Pure: `resume` does what this says, and `status` tells it.

use std::collections::{BTreeMap, BTreeSet};

use crate::journal::entry::{Found, Outcome};
use crate::journal::state::{GoingBack, Journaled, RunState};
use crate::kind::{Kind, Migration};
use crate::names::{DatabaseName, StepName};
use crate::plan::{Plan, Step};

use super::drift::Drift;
use super::survey::{StepState, Survey};

/// Where a run stands, by its journal alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stand<'a> {
    /// It is over; nothing is to be finished.
    Ended(Outcome),
    /// It was being taken back.
    GoingBack(&'a GoingBack),
    /// It was on its way forward, or was halted there.
    Forward,
}

/// Where a run stands.
#[must_use]
pub fn stand(state: &RunState) -> Stand<'_> {
    match (&state.going_back, state.outcome) {
        (Some(back), None) => Stand::GoingBack(back),
        (_, None | Some(Outcome::Halted)) => Stand::Forward,
        (
            _,
            Some(
                it @ (Outcome::Succeeded
                | Outcome::Failed
                | Outcome::RolledBack
                | Outcome::Refused
                | Outcome::NothingToDo),
            ),
        ) => Stand::Ended(it),
    }
}

/// What a database shows of one migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// It has not got it.
    Absent,
    /// A file without a transaction that can be gone on with.
    Halfway,
    /// It has it.
    Present,
    /// Of a copy: the tables differ, or may.
    Differs,
    /// That cannot be told.
    Unclear,
    /// Ledger, files and database disagree.
    Disagrees,
}

/// What is to become of one migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is applied, or gone on with.
    Apply,
    /// It took effect, and stays as it is.
    Leave,
    /// It is not this run's: the next release has it.
    Later,
    /// A person has to say whether it took effect.
    Ask,
    /// Somebody else changed files or database: the run cannot go on.
    Refuse,
}

/// Decides. `journaled` is none for what the run did not mean to apply.
#[must_use]
pub fn decide(journaled: Option<Journaled>, observed: Observed) -> Decision {
    use Observed::{Absent, Differs, Disagrees, Halfway, Present, Unclear};
    match (journaled, observed) {
        (_, Unclear) => Decision::Ask,
        (_, Disagrees) => Decision::Refuse,
        (None, Present) => Decision::Leave,
        (None, Absent | Halfway | Differs) => Decision::Later,
        // Present though its step never began: an application that migrates by itself has done it meanwhile.
        (Some(Journaled::Meant | Journaled::Begun | Journaled::Applied), Present) => Decision::Leave,
        (Some(Journaled::Meant | Journaled::Begun), Absent | Halfway | Differs) => Decision::Apply,
        // A copy is made again for as long as its tables differ.
        (Some(Journaled::Applied), Differs) => Decision::Apply,
        // Somebody took back what the journal knows to have been applied.
        (Some(Journaled::Applied), Absent | Halfway) => Decision::Refuse,
        // One database alone was taken back: the rest must follow it, and not the other way round.
        (Some(Journaled::Undoing | Journaled::Undone), Absent | Halfway | Present | Differs) => Decision::Refuse,
    }
}

/// Something that keeps a run from going on, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The step.
    pub step: StepName,
    /// The migration.
    pub name: String,
    /// With the database, in words.
    pub what: String,
    /// Whether a person's word is what is missing.
    pub asks: bool,
    /// About this statement alone, from 1, of a file without a transaction.
    pub statement: Option<usize>,
}

/// What is to become of a whole run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outlook {
    /// What took effect, by step.
    pub took: BTreeMap<StepName, Vec<String>>,
    /// What is to be applied, by step: places in its list; of a copy, none.
    pub ahead: BTreeMap<StepName, BTreeSet<usize>>,
    /// What is to be applied, as `STEP/NAME`, in order.
    pub names: Vec<String>,
    /// What is pending and not this run's, as `STEP/NAME`.
    pub later: Vec<String>,
    /// What was edited since the run began and is to be applied, as `STEP/NAME`.
    pub edited: Vec<String>,
    /// What keeps it from going on.
    pub obstacles: Vec<Obstacle>,
}

/// Decides about every migration of a run, in the order of the plan.
#[must_use]
pub fn outlook(run: &RunState, plan: &Plan, survey: &Survey) -> Outlook {
    let mut outlook = Outlook::default();
    for step in plan.steps.iter().filter(|step| run.databases.contains_key(&step.database)) {
        if let Some(state) = survey.steps.get(&step.name) {
            Look { run, step, state }.add_to(&mut outlook);
        }
    }
    for work in run.work.iter().filter(|it| !plan.steps.iter().any(|step| step.name == it.step)) {
        let what =
            format!("{}: the run has the step `{}`, which the plan does not have any more", work.database, work.step);
        outlook.obstacles.push(Obstacle {
            step: work.step.clone(),
            name: String::new(),
            what,
            asks: false,
            statement: None,
        });
    }
    outlook
}

impl Outlook {
    /// What the databases have of the run, for its journal.
    #[must_use]
    pub fn found(&self, plan: &Plan) -> Vec<Found> {
        let found = plan.steps.iter().filter_map(|step| {
            let applied = self.took.get(&step.name)?.clone();
            Some(Found { step: step.name.clone(), database: step.database.clone(), applied })
        });
        found.collect()
    }

    /// Migrations that took effect on a database.
    #[must_use]
    pub fn count(&self, plan: &Plan, database: &DatabaseName) -> u64 {
        let here = plan.steps.iter().filter(|step| step.database == *database);
        here.filter_map(|step| self.took.get(&step.name)).map(|names| names.len() as u64).sum()
    }

    /// The survey with nothing pending but what is to be applied.
    #[must_use]
    pub fn narrow(&self, mut survey: Survey) -> Survey {
        for (name, state) in &mut survey.steps {
            match self.ahead.get(name) {
                Some(ahead) => state.pending.retain(|index| ahead.contains(index)),
                None => (state.pending, state.copy) = (Vec::new(), None),
            }
        }
        survey
    }
}

/// One step of a run.
struct Look<'a> {
    run: &'a RunState,
    step: &'a Step,
    state: &'a StepState,
}

impl Look<'_> {
    fn journaled(&self, name: &str) -> Option<Journaled> {
        // A journal that does not say what was meant means what there is.
        let unsaid = self.run.work.is_empty().then_some(Journaled::Meant);
        self.run.units.get(&self.step.name).and_then(|units| units.get(name)).copied().or(unsaid)
    }

    fn add_to(&self, outlook: &mut Outlook) {
        if let Kind::Copy(copy) = &self.step.kind {
            let observed = if self.state.has_work() { Observed::Differs } else { Observed::Present };
            return self.decided(outlook, &copy.to.table, None, observed);
        }
        let files = self.state.migrations(self.step);
        for drift in self.state.drift.iter().filter(|drift| !files.iter().any(|it| it.name == drift.name())) {
            self.obstacle(outlook, drift.name(), drift.to_string(), false);
        }
        for (index, file) in files.iter().enumerate() {
            self.decided(outlook, &file.name, Some(index), self.observed(index, file));
        }
        self.gone(outlook, files);
        self.along(outlook, files);
    }

    fn observed(&self, index: usize, file: &Migration) -> Observed {
        let drift = self.state.drift.iter().find(|it| it.name() == file.name);
        match drift {
            Some(Drift::Interrupted { .. } | Drift::Unclear { .. }) => return Observed::Unclear,
            Some(_) => return Observed::Disagrees,
            None => {}
        }
        let again = self.state.last_run(index).is_some_and(|run| run == self.run.run.as_str());
        if self.state.going_on.contains_key(&file.name) {
            Observed::Halfway
        } else if self.state.pending.contains(&index) && !again {
            Observed::Absent
        } else {
            Observed::Present
        }
    }

    fn decided(&self, outlook: &mut Outlook, name: &str, index: Option<usize>, observed: Observed) {
        let (step, journaled) = (&self.step.name, self.journaled(name));
        let full = format!("{step}/{name}");
        match decide(journaled, observed) {
            Decision::Apply => self.apply(outlook, name, index),
            Decision::Leave if self.is_ours(journaled) => {
                outlook.took.entry(step.clone()).or_default().push(name.to_owned());
            }
            Decision::Leave => {}
            Decision::Later => outlook.later.push(full),
            Decision::Ask | Decision::Refuse => {
                let drift = self.state.drift.iter().find(|it| it.name() == name);
                let what = drift.map_or_else(|| self.taken_back(&full, journaled), Drift::to_string);
                self.obstacle(outlook, name, what, observed == Observed::Unclear);
            }
        }
    }

    /// Where nothing says what was meant, what is there may be anybody's.
    fn is_ours(&self, journaled: Option<Journaled>) -> bool {
        journaled.is_some() && !(self.run.work.is_empty() && journaled == Some(Journaled::Meant))
    }

    fn apply(&self, outlook: &mut Outlook, name: &str, index: Option<usize>) {
        let (step, full) = (&self.step.name, format!("{}/{name}", self.step.name));
        let meant = self.run.work.iter().find(|it| it.step == *step).and_then(|it| it.migrations.get(name));
        let now = index.map(|index| &self.state.migrations(self.step)[index].checksum);
        if meant.zip(now).is_some_and(|(meant, now)| meant != now) {
            outlook.edited.push(full.clone());
        }
        outlook.names.push(full);
        outlook.ahead.entry(step.clone()).or_default().extend(index);
    }

    fn taken_back(&self, full: &str, journaled: Option<Journaled>) -> String {
        match journaled {
            Some(Journaled::Undoing | Journaled::Undone) => {
                format!("`{full}` was taken back: its database went back alone")
            }
            _ => format!("the journal says that `{full}` was applied, and the database does not have it"),
        }
    }

    fn obstacle(&self, outlook: &mut Outlook, name: &str, what: String, asks: bool) {
        let said = self.run.said.get(&self.step.name).map(|it| format!("\n  the run said: {it}")).unwrap_or_default();
        let what = format!("{}: {what}{}", self.step.database, if asks { said } else { String::new() });
        let drift = self.state.drift.iter().find(|it| it.name() == name);
        let statement = drift.and_then(|it| match it {
            Drift::Unclear { question, .. } => Some(question.statement),
            _ => None,
        });
        let (step, name) = (self.step.name.clone(), name.to_owned());
        outlook.obstacles.push(Obstacle { step, name, what, asks, statement });
    }

    /// What was to be applied and has no file any more.
    fn gone(&self, outlook: &mut Outlook, files: &[Migration]) {
        let has =
            |name: &str| files.iter().any(|it| it.name == name) || self.state.drift.iter().any(|it| it.name() == name);
        let Some(units) = self.run.units.get(&self.step.name) else { return };
        for name in units.keys().filter(|name| !has(name)) {
            let what = format!("`{}/{name}` was to be applied, and its file is gone", self.step.name);
            self.obstacle(outlook, name, what, false);
        }
    }

    /// What is new and stands before something of the run was put there to mend it, and comes along: it could not come later.
    fn along(&self, outlook: &mut Outlook, files: &[Migration]) {
        let Some(last) = outlook.ahead.get(&self.step.name).and_then(BTreeSet::last).copied() else { return };
        for (index, file) in files.iter().enumerate().take(last) {
            let full = format!("{}/{}", self.step.name, file.name);
            let Some(at) = outlook.later.iter().position(|it| *it == full) else { continue };
            outlook.later.remove(at);
            outlook.names.push(full.clone());
            outlook.edited.push(full);
            outlook.ahead.entry(self.step.name.clone()).or_default().insert(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JOURNALED: [Option<Journaled>; 6] = [
        None,
        Some(Journaled::Meant),
        Some(Journaled::Begun),
        Some(Journaled::Applied),
        Some(Journaled::Undoing),
        Some(Journaled::Undone),
    ];
    const OBSERVED: [Observed; 6] = [
        Observed::Absent,
        Observed::Halfway,
        Observed::Present,
        Observed::Differs,
        Observed::Unclear,
        Observed::Disagrees,
    ];

    #[test]
    fn nothing_that_took_effect_is_repeated_and_nothing_that_did_not_is_skipped() {
        for journaled in JOURNALED {
            for observed in OBSERVED {
                let decision = decide(journaled, observed);
                let case = format!("{journaled:?}, {observed:?}: {decision:?}");
                assert!(decision != Decision::Apply || observed != Observed::Present, "{case}");
                assert!(decision != Decision::Leave || observed == Observed::Present, "{case}");
                assert!(decision != Decision::Later || journaled.is_none(), "{case}");
                assert!(decision != Decision::Apply || journaled.is_some(), "{case}");
                assert_eq!(decision == Decision::Ask, observed == Observed::Unclear, "{case}");
            }
        }
    }

    /// One migration in a model of the world: a journal that may lag behind the database, and never runs ahead of it.
    #[derive(Debug, Clone, Copy)]
    enum Event {
        Begin,
        Commit,
        Write,
        Die,
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![Just(Event::Begin), Just(Event::Commit), Just(Event::Write), Just(Event::Die)]
    }

    proptest! {
        /// However often a run dies, and wherever: what only our own steps did is never refused, and going on ends with the
        /// migration applied exactly once.
        #[test]
        fn going_on_ends_with_each_migration_applied_once(events in proptest::collection::vec(any_event(), 0..40)) {
            let (mut journal, mut times, mut at_work) = (Journaled::Meant, 0, true);
            for event in events.into_iter().chain([Event::Die, Event::Begin, Event::Commit, Event::Write]) {
                let observed = if times > 0 { Observed::Present } else { Observed::Absent };
                match event {
                    Event::Die => at_work = false,
                    Event::Begin if !at_work => {
                        let decision = decide(Some(journal), observed);
                        prop_assert!(matches!(decision, Decision::Apply | Decision::Leave), "{decision:?}");
                        at_work = true;
                        journal = if decision == Decision::Leave { Journaled::Applied } else { Journaled::Begun };
                    }
                    Event::Begin if journal == Journaled::Meant => journal = Journaled::Begun,
                    Event::Commit if at_work && journal == Journaled::Begun && times == 0 => times += 1,
                    Event::Write if at_work && times > 0 => journal = Journaled::Applied,
                    Event::Begin | Event::Commit | Event::Write => {}
                }
            }
            prop_assert_eq!((journal, times), (Journaled::Applied, 1));
        }
    }
}
