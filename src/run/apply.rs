//! The story of `apply`: lock, look, snapshot, apply, check, and only then call it succeeded.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use miette::Diagnostic;

use crate::event::{Event, Stage};
use crate::failure::{Aftermath, Blame, Failure, OrFail};
use crate::journal::entry::{Command, Fact, Identity, Outcome, Work};
use crate::journal::{self, Journal, JournalError};
use crate::kind::Kind;
use crate::names::{DatabaseName, RunId};
use crate::outside::clock;
use crate::outside::interrupt::Interrupted;
use crate::outside::store::{Store, StoreError};
use crate::plan::hooks::Moment;
use crate::plan::{Database, OnFailure, Plan, Step, When};
use crate::sql::checksum::checksum;
use crate::verify::{self, CheckResult, ChecksFailed};
use crate::world::World;

use super::choose::Asked;
use super::doctor;
use super::freeze::Told;
use super::going_on::settled;
use super::hooks;
use super::keep::{self, Keeping};
use super::lock::{LockError, Locks};
use super::readable;
use super::ready::Ready;
use super::report::RunReport;
use super::rollback::{self, Request, Way};
use super::saved::SavedPlan;
use super::snapshots;
use super::standby;
use super::step::{self, Context, Ended};
use super::survey::{Sessions, Survey, look_through};

/// What the operator asked for.
#[derive(Debug, Clone, Default)]
pub struct ApplyOptions {
    /// These databases alone.
    pub only: Option<BTreeSet<DatabaseName>>,
    /// No snapshots, for this reason. There is then no way back.
    pub no_snapshot: Option<String>,
    /// The work must be exactly this.
    pub saved: Option<SavedPlan>,
}

/// How `apply` ended: a report in any case, and why it failed if it did.
#[derive(Debug)]
pub struct Applied {
    /// What was done.
    pub report: RunReport,
    /// Why it failed.
    pub failure: Option<Failure>,
}

/// Carries one release.
///
/// # Errors
/// What stood in the way before there was a run: no database was changed. Later failures are in [`Applied::failure`].
pub async fn apply(world: &World, plan: &Plan, store: &Store, options: &ApplyOptions) -> Result<Applied, Failure> {
    let begun = Instant::now();
    let mut report = RunReport::new(&plan.target.name);
    world.tell(Event::Stage(Stage::Preflight));
    let run = RunId::generate(clock::now());
    let (databases, only, application) = (databases(plan, options), options.only.as_ref(), step::application(&run));
    // Sessions take a while to open; what they are for waits for the locks.
    let (locks, sessions) =
        futures::join!(Locks::take(world, &run, &databases), Sessions::open(plan, only, &application));
    let mut locks = locks.map_err(refused)?;
    let (unfinished, looked) =
        futures::join!(super::unfinished(store, &plan.target.name), look_through(world, plan, sessions));
    if let Some(unfinished) = unfinished.or_fail()? {
        return Err(Failure::untouched(Blame::Busy, unfinished));
    }
    let (survey, sessions) = settled(world, plan, looked, &mut locks, &run).await?;
    survey.no_drift(plan).or_blame(Blame::Drift)?;
    if let Some(only) = &options.only {
        super::edges::only(world, plan, &survey, only).await?;
    }
    if let Some(saved) = &options.saved {
        saved.still_matches(plan, &survey, options.only.as_ref()).or_blame(Blame::Drift)?;
    }
    let ready = doctor::preflight(world, plan, &survey, sessions, options.no_snapshot.is_none()).await?;
    let failure = if survey.databases_with_work(plan).is_empty() {
        nothing_to_do(world, plan, &mut report).await
    } else {
        if options.no_snapshot.is_none() {
            readable::preflight(world, plan)?;
        }
        gates(world, plan, &mut report).await?;
        let journal = begin(world, plan, store, &run, &survey, options).await.or_fail()?;
        let so_far = SoFar::default();
        let release = Release { world, plan, store, journal: &journal, survey: &survey, options, so_far: &so_far };
        report.run = Some(run);
        release.carry_and_tell(&mut locks, ready, &mut report).await
    };
    report.seconds = begun.elapsed().as_secs_f64();
    Ok(Applied { report, failure })
}

fn databases<'a>(plan: &'a Plan, options: &ApplyOptions) -> Vec<&'a Database> {
    let wanted = |it: &&Database| options.only.as_ref().is_none_or(|only| only.contains(&it.name));
    plan.databases.values().filter(wanted).collect()
}

/// A lock that cannot be had is a refusal; a server that cannot be reached is not.
pub fn refused(error: LockError) -> Failure {
    let blame = if matches!(error, LockError::Held { .. }) { Blame::Busy } else { Blame::Work };
    Failure::untouched(blame, error)
}

/// There is nothing to apply, but what should hold is looked at all the same: an empty table that nobody looked at is how
/// the chat once came to answer nothing.
async fn nothing_to_do(world: &World, plan: &Plan, report: &mut RunReport) -> Option<Failure> {
    report.checks = checks(world, plan, When::After).await;
    let failed = ChecksFailed::of(&report.checks);
    report.outcome = Some(if failed.is_none() { Outcome::NothingToDo } else { Outcome::Failed });
    failed.map(|failed| Failure::untouched(Blame::Work, failed))
}

pub(super) async fn gates(world: &World, plan: &Plan, report: &mut RunReport) -> Result<(), Failure> {
    if plan.checks.iter().any(|check| check.when == When::Before) {
        world.tell(Event::Stage(Stage::Gates));
    }
    report.checks = checks(world, plan, When::Before).await;
    match ChecksFailed::of(&report.checks) {
        Some(failed) => Err(Failure::untouched(Blame::Work, failed)),
        None => Ok(()),
    }
}

pub(super) async fn checks(world: &World, plan: &Plan, when: When) -> Vec<CheckResult> {
    let mut results = Vec::new();
    for check in plan.checks.iter().filter(|check| check.when == when) {
        results.push(verify::check(world, plan, check).await);
    }
    results
}

/// From here on the run exists: its journal begins, and what it is about to do is kept in the store.
async fn begin(
    world: &World,
    plan: &Plan,
    store: &Store,
    run: &RunId,
    survey: &Survey,
    options: &ApplyOptions,
) -> Result<Journal, JournalError> {
    let identity = |database: &Database| {
        let found = survey.found(&database.name)?;
        Some(Identity {
            name: database.name.clone(),
            dbname: database.url.dbname().to_owned(),
            server: found.server.system_identifier.clone(),
            oid: found.oid,
        })
    };
    let first = Fact::Begin {
        command: Command::Apply,
        plan: plan.name.clone(),
        target: plan.target.name.clone(),
        databases: databases(plan, options).into_iter().filter_map(identity).collect(),
        no_snapshot: options.no_snapshot.clone(),
        work: work(plan, survey),
    };
    let journal = Journal::begin(world, store, run, first).await?;
    world.tell(Event::RunBegan { run: run.clone(), store: store.url().to_owned() });
    Ok(journal)
}

/// What the run is about to apply, for whoever may have to finish it.
fn work(plan: &Plan, survey: &Survey) -> Vec<Work> {
    let of = |step: &Step| {
        let state = survey.steps.get(&step.name).filter(|state| state.has_work())?;
        let migrations = match &step.kind {
            Kind::Copy(copy) => BTreeMap::from([(copy.to.table.clone(), checksum(&copy.definition()))]),
            _ => {
                let files = state.pending.iter().map(|index| &state.migrations(step)[*index]);
                files.map(|file| (file.name.clone(), file.checksum.clone())).collect()
            }
        };
        Some(Work { step: step.name.clone(), database: step.database.clone(), migrations })
    };
    plan.steps.iter().filter_map(of).collect()
}

/// How far an earlier process got with a run that is taken up again; for a new run, nowhere.
#[derive(Debug, Default)]
pub(super) struct SoFar {
    /// Whether there was an earlier process.
    pub(super) again: bool,
    /// Whether a step has begun: everything that comes before the first change is done.
    pub(super) begun: bool,
    /// The databases of which there are proven snapshots.
    pub(super) snapshots: BTreeSet<DatabaseName>,
    /// The databases of which it has a warm copy.
    pub(super) standbys: BTreeSet<DatabaseName>,
    /// The databases that it has changed.
    pub(super) changed: BTreeSet<DatabaseName>,
}

/// A run under way, from wherever it stands.
pub(super) struct Release<'a> {
    pub(super) world: &'a World,
    pub(super) plan: &'a Plan,
    pub(super) store: &'a Store,
    pub(super) journal: &'a Journal,
    pub(super) survey: &'a Survey,
    pub(super) options: &'a ApplyOptions,
    pub(super) so_far: &'a SoFar,
}

impl Release<'_> {
    /// Carries the release, and calls the plan's hooks once the databases are where they stay.
    pub(super) async fn carry_and_tell(
        &self,
        locks: &mut Locks,
        ready: BTreeMap<DatabaseName, Ready>,
        report: &mut RunReport,
    ) -> Option<Failure> {
        let failure = self.carry(locks, ready, report).await.err();
        let mut moments = if failure.is_none() { vec![Moment::Success] } else { vec![Moment::Failure] };
        if report.outcome == Some(Outcome::RolledBack) {
            moments.insert(0, Moment::Rollback);
        }
        for on in moments {
            hooks::call(self.world, self.plan, on, None, report).await;
        }
        failure
    }

    async fn carry(
        &self,
        locks: &mut Locks,
        ready: BTreeMap<DatabaseName, Ready>,
        report: &mut RunReport,
    ) -> Result<(), Failure> {
        for database in databases(self.plan, self.options) {
            report.database(&database.name);
        }
        let (files, kept) = Keeping::new(self.store, self.journal.run(), self.plan, self.survey, self.so_far.again);
        // A session of our own on a database that is about to be copied would be in the way of that.
        let copied = |name: &DatabaseName| self.plan.databases.get(name).is_some_and(|it| it.standby);
        let ready = ready.into_iter().map(|(name, it)| match copied(&name) {
            true => (name, it.without_session()),
            false => (name, it),
        });
        let ready = ready.collect();
        let work = async {
            self.before_changes(locks, report).await?;
            self.world.tell(Event::Stage(Stage::Migrations));
            let context = Context::new(self.world, self.plan, self.store, self.journal, self.survey, ready, kept);
            self.so_far.changed.iter().for_each(|name| context.mark_changed(name));
            Ok(step::run_all(context, self.survey).await)
        };
        let (kept, ended) = futures::join!(files.keep(), work);
        self.after_changes(kept, ended?, report).await
    }

    /// What follows the migrations, however they ended.
    async fn after_changes(
        &self,
        kept: Result<(), StoreError>,
        ended: Ended,
        report: &mut RunReport,
    ) -> Result<(), Failure> {
        for (database, ..) in &ended.applied {
            report.database(database).applied += 1;
        }
        if let Some(error) = ended.failed {
            return Err(self.settle(Box::new(error), ended.changed, report).await);
        }
        if let Err(error) = kept {
            return Err(self.settle(Box::new(error), ended.changed, report).await);
        }
        if ended.cut_short {
            return Err(self.interrupted(ended.changed, report).await);
        }
        self.world.tell(Event::Stage(Stage::Checks));
        let checked = checks(self.world, self.plan, When::After).await;
        report.checks.extend(checked.iter().cloned());
        let failed = self.record(&checked).await.err();
        if let Some(failed) = failed.or_else(|| Some(Box::new(ChecksFailed::of(&checked)?))) {
            return Err(self.settle(failed, ended.changed, report).await);
        }
        match self.end(Outcome::Succeeded, None).await {
            Ok(()) => report.outcome = Some(Outcome::Succeeded),
            Err(error) => return Err(self.settle(error.into(), ended.changed, report).await),
        }
        Ok(())
    }

    /// Everything up to the first change: the plan is kept in the store, the snapshots, and, as the last of all, the warm copies.
    async fn before_changes(&self, locks: &mut Locks, report: &mut RunReport) -> Result<(), Failure> {
        let databases = self.survey.databases_at_risk(self.plan);
        let prepared = async {
            let run = self.journal.run();
            keep::plan(self.store, run, self.plan, self.options.saved.as_ref()).await.or_fail()?;
            if self.options.no_snapshot.is_none() && !self.so_far.begun {
                let mut databases = databases.clone();
                databases.retain(|it| !self.so_far.snapshots.contains(&it.name));
                let (world, store, again) = (self.world, self.store, self.so_far.again);
                let taken = snapshots::take_all(world, store, self.journal, self.plan, &databases, again).await;
                report.snapshots = taken.map_err(snapshots::failure)?;
                if self.plan.run.drill {
                    let run = self.journal.run();
                    let drilled = snapshots::drill_all(self.world, self.store, run, self.plan, &databases).await;
                    drilled.map_err(snapshots::failure)?;
                }
            }
            if !self.so_far.begun {
                let wanted: Vec<&Database> =
                    databases.iter().copied().filter(|it| !self.so_far.standbys.contains(&it.name)).collect();
                let told = Told { world: self.world, journal: self.journal, plan: self.plan };
                let copied = standby::make_all(&told, &wanted, self.so_far.again, report).await;
                copied.map_err(standby::failure)?;
            }
            locks.still_held().await.or_blame(Blame::Busy)?;
            if self.world.interrupt.requested() {
                return Err(Failure::untouched(Blame::Interrupted, Interrupted));
            }
            Ok(())
        };
        let Err(failure) = prepared.await else { return Ok(()) };
        if !self.so_far.changed.is_empty() {
            return Err(Failure { aftermath: self.mixed(self.so_far.changed.iter().cloned().collect()), ..failure });
        }
        report.outcome = Some(Outcome::Failed);
        // Nothing was changed: a journal without an end would be wrong about nothing else.
        let _ = self.end(Outcome::Failed, Some(failure.error.to_string())).await;
        Err(failure)
    }

    async fn record(&self, checked: &[CheckResult]) -> Result<(), Box<dyn Diagnostic + Send + Sync>> {
        for check in checked {
            let fact = Fact::Checked {
                check: check.name.clone(),
                outcome: check.outcome.into(),
                detail: check.detail.clone(),
            };
            self.journal.write(fact).await?;
        }
        Ok(())
    }

    async fn end(&self, outcome: Outcome, message: Option<String>) -> Result<(), JournalError> {
        self.journal.write(Fact::End { outcome, message }).await
    }

    /// A failure after migrations began: what was changed goes back, or stays, as the plan says.
    async fn settle(
        &self,
        error: Box<dyn Diagnostic + Send + Sync>,
        changed: BTreeSet<DatabaseName>,
        report: &mut RunReport,
    ) -> Failure {
        let message = error.to_string();
        if changed.is_empty() {
            report.outcome = Some(Outcome::Failed);
            let _ = self.end(Outcome::Failed, Some(message)).await;
            return Failure { blame: Blame::Work, aftermath: Aftermath::Untouched, error };
        }
        let mixed =
            |error| Failure { blame: Blame::Work, aftermath: self.mixed(changed.iter().cloned().collect()), error };
        if self.plan.run.on_failure == OnFailure::Halt || self.options.no_snapshot.is_some() {
            report.outcome = Some(Outcome::Halted);
            let _ = self.end(Outcome::Halted, Some(message)).await;
            return mixed(error);
        }
        match self.take_back(&message, report).await {
            Ok(databases) => {
                report.outcome = Some(Outcome::RolledBack);
                Failure { blame: Blame::Work, aftermath: Aftermath::Restored(databases), error }
            }
            Err(also) => {
                report.outcome = None;
                let left = mixed(Box::new(AndRollbackFailed { first: error, rollback: also.error }));
                Failure { aftermath: left.aftermath.on_the_way_back(), ..left }
            }
        }
    }

    /// A rollback a second after the failure is the same code as one next week: it begins from the journal.
    async fn take_back(&self, why: &str, report: &mut RunReport) -> Result<Vec<DatabaseName>, Failure> {
        let state = journal::state(self.store, self.journal.run()).await.or_fail()?;
        let way = Way::Exchange(Asked::Auto);
        let request = Request {
            state: &state,
            way,
            only: None,
            settings: &self.plan.run,
            why: "failure",
            message: Some(why),
            save_writes: None,
            checks: None,
            hooks: self.plan,
        };
        rollback::carry_back(self.world, self.store, self.journal, &self.plan.databases, &request, report).await
    }

    async fn interrupted(&self, changed: BTreeSet<DatabaseName>, report: &mut RunReport) -> Failure {
        let error = Box::new(Interrupted);
        if changed.is_empty() {
            report.outcome = Some(Outcome::Failed);
            let _ = self.end(Outcome::Failed, Some(Interrupted.to_string())).await;
            return Failure { blame: Blame::Interrupted, aftermath: Aftermath::Untouched, error };
        }
        Failure { blame: Blame::Interrupted, aftermath: self.mixed(changed.into_iter().collect()), error }
    }

    fn mixed(&self, changed: Vec<DatabaseName>) -> Aftermath {
        let snapshots = self.options.no_snapshot.is_none();
        Aftermath::Mixed { run: self.journal.run().clone(), changed, snapshots, back: false }
    }
}

/// Two failures, of which the first led to the second.
#[derive(Debug, thiserror::Error)]
#[error("{first}\nand the rollback failed: {rollback}")]
struct AndRollbackFailed {
    first: Box<dyn Diagnostic + Send + Sync>,
    rollback: Box<dyn Diagnostic + Send + Sync>,
}

impl Diagnostic for AndRollbackFailed {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new("run.rollback_failed"))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.rollback.help()
    }
}
