//! Plan against databases: what each has, what is pending, and where ledger and files disagree. Reads only. `look` asks the
//! databases, `sources` what else a step has, and `compare` holds the answers against the files.

mod compare;
mod edited;
mod look;
mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::failure::{Blame, Failure, OrFail};
use crate::kind::Migration;
use crate::kind::alembic::{AlembicError, Revisions};
use crate::kind::copy::Pending as CopyPending;
use crate::names::{DatabaseName, StepName};
use crate::outside::interrupt::Interrupted;
use crate::outside::postgres::{PgError, Server};
use crate::plan::{Database, EdgeError, Plan, Segment, Step};
use crate::snapshot::obstacles::Prepared;

use super::drift::{Drift, DriftError};
use super::going_on::GoingOn;

pub use self::edited::edited;
pub use self::look::{Sessions, look_through, survey};

/// What a plan's databases have and lack.
#[derive(Debug)]
pub struct Survey {
    /// Each database that was looked at.
    pub databases: BTreeMap<DatabaseName, Result<Found, PgError>>,
    /// Each step on a database that answered, in the order of the plan.
    pub steps: BTreeMap<StepName, StepState>,
}

/// Why the source of a step could not be read.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum UnreadError {
    /// Alembic.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Alembic(#[from] AlembicError),
    /// A migration waits for a revision that there is not.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Edge(#[from] EdgeError),
}

impl UnreadError {
    fn is_interruption(&self) -> bool {
        matches!(self, Self::Alembic(it) if it.is_interruption())
    }

    fn is_about_files(&self) -> bool {
        match self {
            Self::Alembic(it) => it.is_about_files(),
            Self::Edge(_) => true,
        }
    }
}

/// A database that answered.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its server.
    pub server: Server,
    /// Its oid.
    pub oid: u32,
    /// Whether it has a ledger.
    pub has_ledger: bool,
    /// The newest run that its ledger names.
    pub last_run: Option<String>,
    /// Every run that its ledger names.
    pub runs: BTreeSet<String>,
    /// Migrations in its ledger, and those that refinery itself applied.
    pub applied: usize,
    /// Steps that its ledger knows and the plan does not.
    pub strange_steps: Vec<String>,
    /// Invalid indexes that migrations left, each with the migration.
    pub invalid_indexes: Vec<(String, String)>,
    /// Transactions that were prepared in it and neither committed nor rolled back.
    pub prepared: Vec<Prepared>,
}

/// What is to be done for a step.
#[derive(Debug, Clone, Default)]
pub struct StepState {
    /// Places in the step's list of migrations.
    pub pending: Vec<usize>,
    /// The list itself, where it was not read with the plan: Alembic's revisions.
    pub listed: Option<Arc<Revisions>>,
    /// For a copy: whether there is anything to carry over.
    pub copy: Option<CopyPending>,
    /// Of what is pending, what an earlier run began, by name.
    pub going_on: BTreeMap<String, GoingOn>,
    /// Where ledger and files disagree.
    pub drift: Vec<Drift>,
    /// Why the step's source could not be read.
    pub unread: Option<Arc<UnreadError>>,
    /// What the ledger has of those pending ones that are applied anew, by their place in the list.
    pub replaced: BTreeMap<usize, Replaced>,
    /// Repeatable migrations that the ledger has and that have no file any more. That is no drift.
    pub gone: Vec<String>,
    /// Of a command: the run in which it ended last.
    pub command_ran_in: Option<String>,
}

/// What a repeatable migration was when it was last applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    /// Its checksum.
    pub checksum: String,
    /// Its text.
    pub text: Option<String>,
    /// The run that applied it.
    pub run: String,
}

impl StepState {
    /// The list that `pending` points into.
    #[must_use]
    pub fn migrations<'a>(&'a self, step: &'a Step) -> &'a [Migration] {
        self.listed.as_ref().map_or(step.kind.migrations(), |listed| &listed.migrations)
    }

    /// Of a pending migration that is repeatable, why it is to be applied: `new` or `changed`.
    #[must_use]
    pub fn repeatable(&self, step: &Step, index: usize) -> Option<&'static str> {
        let why = if self.replaced.contains_key(&index) { "changed" } else { "new" };
        self.migrations(step)[index].turn.repeatable.then_some(why)
    }

    /// The run in which something was applied last that is applied again and again, and is due again.
    #[must_use]
    pub fn last_run(&self, index: usize) -> Option<&str> {
        self.replaced.get(&index).map(|it| it.run.as_str()).or(self.command_ran_in.as_deref())
    }

    /// The same, of a stretch of the list alone.
    fn within(&self, range: &Range<usize>) -> Self {
        let pending = self.pending.iter().copied().filter(|at| range.contains(at)).collect();
        let replaced = self.replaced.range(range.clone()).map(|(at, it)| (*at, it.clone())).collect();
        let (listed, going_on) = (self.listed.clone(), self.going_on.clone());
        Self { pending, replaced, listed, going_on, ..Self::default() }
    }

    /// Whether `apply` has applied a migration of this name, or would not apply it again.
    #[must_use]
    pub fn has(&self, step: &Step, name: &str) -> bool {
        let open = |it: &&Drift| it.is_open() && it.name() == name;
        !super::step::names(step, self).iter().any(|it| it == name) && !self.drift.iter().any(|it| open(&it))
    }

    /// Whether `apply` has anything to do here.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.pending.is_empty() || self.copy.as_ref().is_some_and(|it| !matches!(it, CopyPending::InSync))
    }
}

/// A database could not be looked at.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{database}: {source}")]
#[diagnostic(code("survey.unreachable"))]
pub struct Unreachable {
    database: DatabaseName,
    #[source]
    #[diagnostic_source]
    source: PgError,
}

/// The source of a step could not be read.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{database}: {source}")]
#[diagnostic(code("survey.unread"), help("{help}"))]
struct Unread {
    database: DatabaseName,
    help: String,
    #[source]
    source: Arc<UnreadError>,
}

impl Survey {
    /// The survey, if every database answered and the source of every step could be read.
    ///
    /// # Errors
    /// The first that did not, or could not; or a signal kept it from being read.
    pub fn whole(self, plan: &Plan) -> Result<Self, Failure> {
        let mut databases = BTreeMap::new();
        for (database, found) in self.databases {
            match found {
                Ok(found) => drop(databases.insert(database, Ok(found))),
                Err(source) => return Err(Unreachable { database, source }).or_fail(),
            }
        }
        let unread = plan.steps.iter().find_map(|step| Some((step, self.steps.get(&step.name)?.unread.clone()?)));
        match unread {
            None => Ok(Self { databases, steps: self.steps }),
            Some((_, error)) if error.is_interruption() => Err(Failure::untouched(Blame::Interrupted, Interrupted)),
            Some((step, source)) => {
                let blame = if source.is_about_files() { Blame::Usage } else { Blame::Work };
                let help = miette::Diagnostic::help(source.as_ref()).map(|help| help.to_string()).unwrap_or_default();
                Err(Failure::untouched(blame, Unread { database: step.database.clone(), help, source }))
            }
        }
    }

    /// A database that answered.
    #[must_use]
    pub fn found(&self, database: &DatabaseName) -> Option<&Found> {
        self.databases.get(database)?.as_ref().ok()
    }

    /// What is to be done in a segment; none if that is nothing.
    #[must_use]
    pub fn part(&self, plan: &Plan, segment: &Segment) -> Option<StepState> {
        let step = &plan.steps[segment.step];
        let whole = self.steps.get(&step.name)?;
        let cut = plan.segments.iter().filter(|it| it.step == segment.step).count() > 1;
        let state = if cut { whole.within(&segment.range) } else { whole.clone() };
        state.has_work().then_some(state)
    }

    /// Whether files and ledgers agree everywhere.
    ///
    /// # Errors
    /// Every disagreement, by name.
    pub fn no_drift(&self, plan: &Plan) -> Result<(), DriftError> {
        let drift: Vec<String> = plan
            .steps
            .iter()
            .filter_map(|step| Some((step, self.steps.get(&step.name)?)))
            .flat_map(|(step, state)| state.drift.iter().map(move |drift| format!("{}: {drift}", step.database)))
            .collect();
        let first = self.steps.iter().flat_map(|(step, state)| state.drift.iter().map(move |drift| (step, drift)));
        let cut_off = first.clone().find_map(|(step, drift)| drift.way_out(step));
        let way_out = cut_off.or_else(|| first.clone().find_map(|(step, drift)| drift.acceptance(step)));
        if drift.is_empty() { Ok(()) } else { Err(DriftError::new(drift, way_out)) }
    }

    /// The databases that a run may change, by name: those with work, and all of them if a program is to be run.
    #[must_use]
    pub fn databases_at_risk<'a>(&self, plan: &'a Plan) -> Vec<&'a Database> {
        if self.runs_programs(plan) {
            return self.databases.keys().filter_map(|name| plan.databases.get(name)).collect();
        }
        self.databases_with_work(plan)
    }

    /// Whether a step with work runs a program.
    #[must_use]
    pub fn runs_programs(&self, plan: &Plan) -> bool {
        let has_work = |step: &Step| self.steps.get(&step.name).is_some_and(StepState::has_work);
        plan.steps.iter().any(|step| step.kind.runs_alone() && has_work(step))
    }

    /// The databases that a run would change, by name.
    #[must_use]
    pub fn databases_with_work<'a>(&self, plan: &'a Plan) -> Vec<&'a Database> {
        let busy: BTreeSet<&DatabaseName> = plan
            .steps
            .iter()
            .filter(|step| self.steps.get(&step.name).is_some_and(StepState::has_work))
            .map(|step| &step.database)
            .collect();
        busy.into_iter().filter_map(|name| plan.databases.get(name)).collect()
    }
}
