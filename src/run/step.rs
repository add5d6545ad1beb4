//! One step of a run, and all of them: side by side on different databases, one after the other on each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Instant;

use futures::stream::{FuturesUnordered, StreamExt};
use miette::Diagnostic;

use crate::event::Event;
use crate::journal::entry::Fact;
use crate::journal::ledger::Author;
use crate::journal::{Journal, JournalError};
use crate::kind::Kind;
use crate::kind::copy::CopyError;
use crate::kind::migration::MigrationError;
use crate::kind::refinery_history::Disagrees;
use crate::names::{DatabaseName, RunId, StepName};
use crate::outside::interrupt::Interrupt;
use crate::outside::postgres::PgError;
use crate::outside::store::Store;
use crate::plan::{Plan, Step};
use crate::world::World;

use super::copy_step::apply_copy;
use super::file_step::{apply_files, apply_refinery};
use super::keep::Kept;
use super::program_step::{self, ProgramFailed};
use super::ready::Ready;
use super::survey::{StepState, Survey};

/// Why a step failed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum StepError {
    /// A migration was not applied.
    #[error("{database}: {source}")]
    Migration {
        /// The database.
        database: DatabaseName,
        /// Why.
        #[source]
        #[diagnostic_source]
        source: MigrationError,
    },
    /// A copy was not made.
    #[error("{database}: step `{step}` did not copy: {source}")]
    #[diagnostic(code("step.copy"))]
    Copy {
        /// The database.
        database: DatabaseName,
        /// The step.
        step: StepName,
        /// Why.
        #[source]
        #[diagnostic_source]
        source: CopyError,
    },
    /// No session, or a query of our own failed.
    #[error("{database}: {source}")]
    #[diagnostic(code("step.database"))]
    Database {
        /// The database.
        database: DatabaseName,
        /// Why.
        #[source]
        #[diagnostic_source]
        source: PgError,
    },
    /// A program of a step.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Program(Box<ProgramFailed>),
    /// refinery refuses.
    #[error("{database}: {source}")]
    #[diagnostic(code("step.refinery"))]
    Refinery {
        /// The database.
        database: DatabaseName,
        /// Why.
        #[source]
        source: Disagrees,
    },
    /// The journal could not be written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Journal(#[from] JournalError),
}

/// How the steps of a run ended.
#[derive(Debug, Default)]
pub struct Ended {
    /// Migrations that were applied, in the order of their commits.
    pub applied: Vec<(DatabaseName, StepName, String)>,
    /// Databases that are, or may be, changed.
    pub changed: BTreeSet<DatabaseName>,
    /// The first failure.
    pub failed: Option<StepError>,
    /// Whether a wish to stop left something undone.
    pub cut_short: bool,
}

/// What steps share.
pub struct Context<'a> {
    /// The world.
    pub world: &'a World,
    /// The plan.
    pub plan: &'a Plan,
    /// The run's journal.
    pub journal: &'a Journal,
    /// Where the output of programs is kept.
    pub store: &'a Store,
    /// Databases that the run may change, as preflight left them.
    ready: Mutex<BTreeMap<DatabaseName, Ready>>,
    /// Which files may be applied.
    kept: Kept,
    has_ledger: Mutex<BTreeSet<DatabaseName>>,
    ended: Mutex<Ended>,
}

impl<'a> Context<'a> {
    /// For a run over what `survey` found, and preflight made ready.
    #[must_use]
    pub(super) fn new(
        world: &'a World,
        plan: &'a Plan,
        store: &'a Store,
        journal: &'a Journal,
        survey: &Survey,
        ready: BTreeMap<DatabaseName, Ready>,
        kept: Kept,
    ) -> Self {
        let has = |name: &&DatabaseName| survey.found(name).is_some_and(|it| it.has_ledger);
        let has_ledger = survey.databases.keys().filter(has).cloned().collect();
        let (ready, has_ledger) = (Mutex::new(ready), Mutex::new(has_ledger));
        Self { world, plan, journal, store, ready, kept, has_ledger, ended: Mutex::default() }
    }

    /// For a run that is taken back.
    pub(super) fn back(world: &'a World, plan: &'a Plan, store: &'a Store, journal: &'a Journal) -> Self {
        Self {
            world,
            plan,
            journal,
            store,
            ready: Mutex::default(),
            kept: Kept::all(),
            has_ledger: Mutex::default(),
            ended: Mutex::default(),
        }
    }

    /// What our sessions call themselves.
    pub(super) fn application(&self) -> String {
        application(self.journal.run())
    }

    /// Of a database that the run may change, what preflight left.
    pub(super) fn ready<T>(&self, database: &DatabaseName, of: impl FnOnce(&mut Ready) -> T) -> Option<T> {
        self.ready.lock().expect("nobody panics while holding this").get_mut(database).map(of)
    }

    pub(super) fn author(&self, step: &Step) -> Author {
        Author {
            run: self.journal.run().clone(),
            step: step.name.clone(),
            kind: step.kind.word(),
            applied_by: format!("{}@{}", self.world.user, self.world.host),
        }
    }

    fn ended(&self) -> std::sync::MutexGuard<'_, Ended> {
        self.ended.lock().expect("nobody panics while holding this")
    }

    pub(super) fn record(&self, step: &Step, name: &str) {
        let mut ended = self.ended();
        ended.changed.insert(step.database.clone());
        ended.applied.push((step.database.clone(), step.name.clone(), name.to_owned()));
        self.has_ledger.lock().expect("nobody panics while holding this").insert(step.database.clone());
    }

    /// A wish to stop left something undone.
    pub(super) fn cut_short(&self) {
        self.ended().cut_short = true;
    }

    /// A database that was changed by something else than a migration of its own.
    pub(super) fn mark_changed(&self, database: &DatabaseName) {
        self.ended().changed.insert(database.clone());
    }

    /// Whether a migration may begin, by its place in its step's list: nobody wants to stop, and its file is kept. If not,
    /// something is left undone.
    pub(super) async fn may_begin(&self, place: usize, stop: &Interrupt) -> bool {
        let may = !stop.requested() && self.kept.has(place).await;
        if !may {
            self.cut_short();
        }
        may
    }

    pub(super) fn has_ledger(&self, database: &DatabaseName) -> bool {
        self.has_ledger.lock().expect("nobody panics while holding this").contains(database)
    }
}

/// Runs every segment that has work. After the first failure, or a wish to stop, nothing new is begun, and what is under way
/// ends with its current migration.
pub async fn run_all(context: Context<'_>, survey: &Survey) -> Ended {
    let plan = context.plan;
    let stop = context.world.interrupt.part();
    let pending: BTreeMap<usize, StepState> =
        plan.segments.iter().enumerate().filter_map(|(at, it)| Some((at, survey.part(plan, it)?))).collect();
    let mut waiting: Vec<usize> = pending.keys().copied().collect();
    // What waits and what runs.
    let mut open: BTreeSet<usize> = waiting.iter().copied().collect();
    let mut busy: BTreeSet<&DatabaseName> = BTreeSet::new();
    let mut running = FuturesUnordered::new();
    let mut alone = false;
    loop {
        while running.len() < plan.run.parallel && !stop.requested() && !alone {
            let Some(at) = next(plan, &waiting, &open, &busy, running.is_empty()) else { break };
            let segment = waiting.remove(at);
            let step = &plan.steps[plan.segments[segment].step];
            busy.insert(&step.database);
            alone = step.kind.runs_alone();
            let (context, state, stop) = (&context, &pending[&segment], &stop);
            running.push(async move { (segment, run_one(context, step, state, stop).await) });
        }
        let Some((segment, result)) = running.next().await else { break };
        open.remove(&segment);
        busy.remove(&plan.steps[plan.segments[segment].step].database);
        alone = false;
        if let Err(error) = result {
            stop.request();
            context.world.tell(Event::Failed { message: error.to_string() });
            context.ended().failed.get_or_insert(error);
        }
    }
    drop(running);
    context.ended().cut_short |= !waiting.is_empty();
    context.ended.into_inner().expect("nobody panicked while holding this")
}

/// The place in `waiting` of what may begin: the first of its database, which is free, with nothing open that it is behind.
fn next(
    plan: &Plan,
    waiting: &[usize],
    open: &BTreeSet<usize>,
    busy: &BTreeSet<&DatabaseName>,
    idle: bool,
) -> Option<usize> {
    let mut seen: BTreeSet<&DatabaseName> = busy.clone();
    waiting.iter().position(|at| {
        let segment = &plan.segments[*at];
        let step = &plan.steps[segment.step];
        seen.insert(&step.database) && segment.behind.is_disjoint(open) && (idle || !step.kind.runs_alone())
    })
}

async fn run_one(context: &Context<'_>, step: &Step, state: &StepState, stop: &Interrupt) -> Result<(), StepError> {
    let begun = Instant::now();
    let (pending, replaced) = (names(step, state), replaced(step, state));
    let roles = context.ready(&step.database, |it| it.roles.clone()).unwrap_or_default();
    let (name, database) = (step.name.clone(), step.database.clone());
    context.journal.write(Fact::StepStart { step: name, database, pending, replaced, roles }).await?;
    let mut mine = Vec::new();
    let result = match &step.kind {
        Kind::Sql(files) => {
            let files: Vec<_> = state.pending.iter().map(|index| (*index, &files.migrations[*index])).collect();
            apply_files(context, step, &files, &state.going_on, stop, &mut mine).await
        }
        Kind::Refinery(files) => {
            apply_refinery(context, step, &files.migrations, &state.pending, stop, &mut mine).await
        }
        Kind::Copy(copy) => apply_copy(context, step, copy, &mut mine).await,
        Kind::Alembic(_) | Kind::Python(_) | Kind::Command(_) => {
            match context.may_begin(state.pending.last().copied().unwrap_or_default(), stop).await {
                true => program_step::apply(context, step, state, stop, &mut mine).await,
                false => Ok(()),
            }
        }
    };
    let (step_name, database, seconds) = (step.name.clone(), step.database.clone(), begun.elapsed().as_secs_f64());
    let Err((error, changed)) = result else {
        return Ok(context.journal.write(Fact::StepDone { step: step_name, database, applied: mine, seconds }).await?);
    };
    if changed {
        context.ended().changed.insert(step.database.clone());
    }
    let message = error.to_string();
    let fact = Fact::StepFailed { step: step_name, database, applied: mine, left_something: changed, message };
    // What went wrong with the database matters more than what then goes wrong with the journal.
    let _ = context.journal.write(fact).await;
    // A program that was ended because we were asked to stop is no failure of its own.
    if matches!(&error, StepError::Program(it) if it.is_interruption()) {
        context.cut_short();
        return Ok(());
    }
    Err(error)
}

/// The units that a step is about to apply.
#[must_use]
pub fn names(step: &Step, state: &StepState) -> Vec<String> {
    match &step.kind {
        Kind::Copy(copy) if state.has_work() => vec![copy.to.table.clone()],
        _ => state.pending.iter().map(|index| state.migrations(step)[*index].name.clone()).collect(),
    }
}

/// The checksums of those that are applied anew: their ledger rows will be overwritten.
fn replaced(step: &Step, state: &StepState) -> BTreeMap<String, String> {
    let name = |index: &usize| state.migrations(step)[*index].name.clone();
    state.replaced.iter().map(|(index, it)| (name(index), it.checksum.clone())).collect()
}

/// An error, and whether the database may have been changed by what failed.
pub(super) type Partly<T> = Result<T, (StepError, bool)>;

/// What the sessions of a run call themselves.
pub(super) fn application(run: &RunId) -> String {
    format!("migrate {run}")
}
