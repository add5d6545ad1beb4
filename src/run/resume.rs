//! The story of `resume`: lock, read the journal anew, look at the databases, and finish what was meant, by the code of `apply`
//! or of `rollback`. What is to become of each migration is decided in `recover.rs`.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::event::Event;
use crate::failure::{Aftermath, Blame, Failure, OrFail, list};
use crate::journal::entry::{Command, Fact, Outcome};
use crate::journal::state::{RunState, Standby};
use crate::journal::{self, Journal};
use crate::names::{DatabaseName, RunId};
use crate::outside::clock;
use crate::outside::store::Store;
use crate::plan::{Database, Plan};
use crate::world::World;

use super::apply::{Applied, ApplyOptions, Release, SoFar, gates, refused};
use super::choose::Asked;
use super::doctor;
use super::freeze::Told;
use super::going_on::settled;
use super::lock::Locks;
use super::recover::{Obstacle, Outlook, Stand, outlook, stand};
use super::report::RunReport;
use super::rollback::{self, Down, Request, RollbackError, Way, no_later_run};
use super::step;
use super::survey::{Sessions, Survey, look_through};

/// Why a run is not taken up again.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ResumeError {
    /// It carried no release.
    #[error("run {run} is no release: there is nothing to resume")]
    #[diagnostic(
        code("resume.no_release"),
        help("Run its command again. `migrate runs show {run}` shows what it was.")
    )]
    NoRelease {
        /// The run.
        run: RunId,
    },
    /// The plan has changed.
    #[error("run {run} is about {databases}, which the plan does not have any more")]
    #[diagnostic(
        code("resume.plan"),
        help("Use the plan of the run, which is kept in the store as runs/{run}/plan.toml.")
    )]
    NotInPlan {
        /// The run.
        run: RunId,
        /// Its databases that are missing.
        databases: String,
    },
    /// What only a person can say.
    #[error("{}", .what.join("\n"))]
    #[diagnostic(code("resume.asks"), help("{help}"))]
    Asks {
        /// One for each migration.
        what: Vec<String>,
        /// The words to say.
        help: String,
    },
    /// Files or databases are not what they were.
    #[error("{}", .what.join("\n"))]
    #[diagnostic(
        code("resume.refused"),
        help(
            "Mend what is named, then run `migrate resume {run}` again; or take the run back: `migrate rollback {run}`. What is not \
             applied yet may be edited, and what is applied may not."
        )
    )]
    Refused {
        /// The run.
        run: RunId,
        /// One for each migration.
        what: Vec<String>,
    },
    /// Somebody else was faster.
    #[error("run {run} was taken up by somebody else meanwhile")]
    #[diagnostic(code("resume.overtaken"), help("`migrate status` says where it stands now."))]
    Overtaken {
        /// The run.
        run: RunId,
    },
    /// A rollback by a way that this version does not know.
    #[error("run {run} was being rolled back by the way `{via}`, which this version does not know")]
    #[diagnostic(code("resume.way"), help("Use the version that began it, or `migrate rollback {run}`."))]
    UnknownWay {
        /// The run.
        run: RunId,
        /// The word in the journal.
        via: String,
    },
}

/// Finishes what a run meant that was cut off or halted. `kept` is the plan as the run kept it, if it did.
///
/// # Errors
/// Why it was not taken up. Later failures are in [`Applied::failure`].
pub async fn resume(
    world: &World,
    plan: &Plan,
    kept: Option<&Plan>,
    store: &Store,
    state: &RunState,
) -> Result<Applied, Failure> {
    rollback::known(state).or_fail().map_err(|failure| still(state, failure))?;
    if state.command != Some(Command::Apply) {
        return Err(ResumeError::NoRelease { run: state.run.clone() }).or_blame(Blame::Usage);
    }
    match stand(state) {
        Stand::Ended(outcome) => Ok(ended(world, plan, state, outcome)),
        Stand::GoingBack(_) => back(world, plan, kept, store, state).await,
        Stand::Forward => forward(world, plan, store, state).await,
    }
}

fn ended(world: &World, plan: &Plan, state: &RunState, outcome: Outcome) -> Applied {
    let mut report = RunReport::new(&plan.target.name);
    report.run = Some(state.run.clone());
    report.outcome = Some(Outcome::NothingToDo);
    let when = clock::readable(state.last_at);
    let how = outcome.word().replace('_', " ");
    let note = format!("run {} needs nobody: it ended as {how}, at {when}", state.run);
    world.tell(Event::Noted(note.clone()));
    report.notes.push(note);
    Applied { report, failure: None }
}

/// A rollback that was cut off goes on by the way that it had taken.
async fn back(
    world: &World,
    plan: &Plan,
    kept: Option<&Plan>,
    store: &Store,
    state: &RunState,
) -> Result<Applied, Failure> {
    let Stand::GoingBack(it) = stand(state) else { return Err(overtaken(state)) };
    no_later_run(store, state).await.or_blame(Blame::Drift)?;
    let way = match it.via.as_deref() {
        None | Some("snapshot") => Way::Exchange(Asked::Snapshot),
        Some("standby") => Way::Exchange(Asked::Standby),
        // By both: each database as it was decided, from the same facts.
        Some("snapshot, standby") => Way::Exchange(Asked::Auto),
        Some("down") => Way::Down(Down { plan: kept.unwrap_or(plan), checkout: Some(plan) }),
        Some(via) => {
            let error = ResumeError::UnknownWay { run: state.run.clone(), via: via.to_owned() };
            return Err(error).or_fail();
        }
    };
    let only = it.only.then_some(&it.databases);
    let settings = &plan.run;
    let (why, hooks) = ("request", kept.unwrap_or(plan));
    let request = Request { state, way, only, settings, why, message: None, save_writes: None, checks: None, hooks };
    let note = format!("run {} was being rolled back, and that is finished", state.run);
    world.tell(Event::Noted(note));
    let report = rollback::rollback(world, store, &plan.databases, &request).await?;
    Ok(Applied { report, failure: None })
}

async fn forward(world: &World, plan: &Plan, store: &Store, state: &RunState) -> Result<Applied, Failure> {
    let begun = Instant::now();
    no_later_run(store, state).await.or_blame(Blame::Drift)?;
    let databases = databases(plan, state)?;
    let mut locks = Locks::take(world, &state.run, &databases).await.map_err(refused)?;
    locks.end_leftovers(&state.run).await.or_fail().map_err(|failure| still(state, failure))?;
    // Somebody may have finished it while this process waited for its locks.
    let fresh = journal::state(store, &state.run).await.or_fail()?;
    if stand(&fresh) != Stand::Forward {
        return Err(overtaken(&fresh));
    }
    let mut report = RunReport::new(&plan.target.name);
    report.run = Some(fresh.run.clone());
    let journal = Journal::go_on(world, store, &fresh);
    let paid = Told { world, journal: &journal, plan }.pay(&fresh, &mut report).await.or_fail();
    paid.map_err(|failure| still(&fresh, failure))?;
    let run = Unfinished { world, plan, store, journal: &journal, state: &fresh };
    let failure = run.go_on(&mut locks, &mut report).await.map_err(|failure| still(&fresh, failure))?;
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(Applied { report, failure })
}

/// The databases of the run, as the plan has them today.
fn databases<'a>(plan: &'a Plan, state: &RunState) -> Result<Vec<&'a Database>, Failure> {
    let missing: Vec<&DatabaseName> = state.databases.keys().filter(|it| !plan.databases.contains_key(*it)).collect();
    if !missing.is_empty() {
        let error = ResumeError::NotInPlan { run: state.run.clone(), databases: list(&missing) };
        return Err(error).or_blame(Blame::Usage);
    }
    Ok(state.databases.keys().filter_map(|it| plan.databases.get(it)).collect())
}

fn overtaken(state: &RunState) -> Failure {
    Failure::untouched(Blame::Busy, ResumeError::Overtaken { run: state.run.clone() })
}

/// A failure of ours changed nothing; what the run changed is still changed.
fn still(state: &RunState, failure: Failure) -> Failure {
    if failure.aftermath != Aftermath::Untouched {
        return failure;
    }
    let changed = state.changed().map(|it| it.identity.name.clone()).collect();
    Failure { aftermath: Aftermath::changed(state, changed, false), ..failure }
}

/// A run on its way forward, with its locks held.
struct Unfinished<'a> {
    world: &'a World,
    plan: &'a Plan,
    store: &'a Store,
    journal: &'a Journal,
    state: &'a RunState,
}

impl Unfinished<'_> {
    /// Failures after the run is open again are given, not returned.
    async fn go_on(&self, locks: &mut Locks, report: &mut RunReport) -> Result<Option<Failure>, Failure> {
        let Self { world, plan, store, journal, state } = *self;
        let only: BTreeSet<DatabaseName> = state.databases.keys().cloned().collect();
        let sessions = Sessions::open(plan, Some(&only), &step::application(&state.run)).await;
        let looked = look_through(world, plan, sessions).await;
        let (survey, sessions) = settled(world, plan, looked, locks, &state.run).await?;
        self.same_servers(&survey)?;
        let outlook = outlook(state, plan, &survey);
        self.can_go_on(&outlook)?;
        self.tell(&outlook, report);
        let so_far = self.so_far(&survey);
        let survey = outlook.narrow(survey);
        let takes_snapshots = state.no_snapshot.is_none() && !so_far.begun;
        let ready = doctor::preflight(world, plan, &survey, sessions, takes_snapshots).await?;
        if !so_far.begun {
            gates(world, plan, report).await?;
        }
        let changed = so_far.changed.iter().cloned().collect();
        journal.write(Fact::ResumeStart { found: outlook.found(plan), changed }).await.or_fail()?;
        world.tell(Event::RunResumed { run: state.run.clone(), store: store.url().to_owned() });
        for name in &only {
            report.database(name).applied = outlook.count(plan, name);
        }
        let options = ApplyOptions { only: Some(only), no_snapshot: state.no_snapshot.clone(), saved: None };
        let release = Release { world, plan, store, journal, survey: &survey, options: &options, so_far: &so_far };
        Ok(release.carry_and_tell(locks, ready, report).await)
    }

    /// Each database is on the server that the run found it on.
    fn same_servers(&self, survey: &Survey) -> Result<(), Failure> {
        for it in self.state.databases.values() {
            let Some(found) = survey.found(&it.identity.name) else { continue };
            if found.server.system_identifier != it.identity.server {
                let (database, run) = (it.identity.name.clone(), self.state.run.clone());
                let (found, expected) = (found.server.system_identifier.clone(), it.identity.server.clone());
                return Err(RollbackError::OtherServer { database, run, found, expected }).or_fail();
            }
        }
        Ok(())
    }

    fn can_go_on(&self, outlook: &Outlook) -> Result<(), Failure> {
        let run = self.state.run.clone();
        let of = |asks: bool| {
            let obstacles = outlook.obstacles.iter().filter(|it| it.asks == asks);
            obstacles.map(|it| it.what.clone()).collect::<Vec<String>>()
        };
        let (refused, asked) = (of(false), of(true));
        if !refused.is_empty() {
            return Err(ResumeError::Refused { run, what: refused }).or_blame(Blame::Drift);
        }
        if asked.is_empty() {
            return Ok(());
        }
        let words: Vec<String> =
            outlook.obstacles.iter().map(|it| format!("`{}` (or `--not-applied`)", word(&run, it))).collect();
        let help = format!(
            "Look at the database, and say what became of it: {}; then `migrate resume {run}`. Or take the run back: `migrate rollback \
             {run}`.",
            words.join(", ")
        );
        Err(ResumeError::Asks { what: asked, help }).or_fail()
    }

    fn tell(&self, outlook: &Outlook, report: &mut RunReport) {
        let mut notes = Vec::new();
        if !outlook.edited.is_empty() {
            notes.push(format!("edited since the run began, and applied as it is now: {}", outlook.edited.join(", ")));
        }
        if !outlook.later.is_empty() {
            notes.push(format!("new since the run began, and left for the next release: {}", outlook.later.join(", ")));
        }
        for note in notes {
            self.world.tell(Event::Noted(note.clone()));
            report.notes.push(note);
        }
    }

    fn so_far(&self, survey: &Survey) -> SoFar {
        let has_rows =
            |name: &DatabaseName| survey.found(name).is_some_and(|it| it.runs.contains(self.state.run.as_str()));
        let databases = &self.state.databases;
        let changed = databases.iter().filter(|(name, it)| it.is_known_changed() || has_rows(name));
        let snapshots = databases.iter().filter(|(_, it)| it.snapshot);
        let standbys = databases.iter().filter(|(_, it)| matches!(it.standby, Standby::Made(_)));
        SoFar {
            again: true,
            begun: !self.state.begun.is_empty(),
            snapshots: snapshots.map(|(name, _)| name.clone()).collect(),
            standbys: standbys.map(|(name, _)| name.clone()).collect(),
            changed: changed.map(|(name, _)| name.clone()).collect(),
        }
    }
}

/// What is to be said about a migration of which nobody knows what became.
#[must_use]
pub fn word(run: &RunId, it: &Obstacle) -> String {
    let statement = it.statement.map(|number| format!(" --statement {number}")).unwrap_or_default();
    format!("migrate resolve {run} {}/{}{statement} --applied", it.step, it.name)
}
