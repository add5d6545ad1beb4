//! The operator's word about single migrations: that a changed file is accepted (`repair`), or what became of a migration that
//! was cut off (`resolve`). Both change ledger rows alone, and leave a record in the store.

use miette::Diagnostic;
use sqlx::postgres::PgArguments;
use sqlx::{PgConnection, Postgres};

use crate::crash;
use crate::failure::{Blame, Failure, OrFail};
use crate::journal::entry::{Command, Fact, Identity, Outcome};
use crate::journal::state::RunState;
use crate::journal::{self, Journal, ledger};
use crate::names::{DatabaseName, RunId, StepName};
use crate::outside::clock;
use crate::outside::postgres::{DURABLE_SESSION, PgError, change, connect, made, query_error};
use crate::outside::store::Store;
use crate::plan::{Plan, Step};
use crate::world::World;

use super::apply::refused;
use super::drift::Drift;
use super::lock::Locks;
use super::survey::{Survey, survey};

/// One migration of the plan, as people write it: `STEP/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Which {
    /// The step.
    pub step: StepName,
    /// The migration.
    pub name: String,
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.step, self.name)
    }
}

impl std::str::FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').filter(|(_, name)| !name.is_empty());
        let (step, name) = parts.ok_or("write STEP/NAME, as `migrate plan` and `migrate status` show them")?;
        let step = StepName::new(step).map_err(|error| error.to_string())?;
        Ok(Self { step, name: name.to_owned() })
    }
}

/// Why a ledger row was left as it is.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum MendError {
    /// The plan has no such step.
    #[error("the plan has no step `{0}`")]
    #[diagnostic(code("mend.step"), help("`migrate status` shows the steps."))]
    NoStep(StepName),
    /// Ledger and file agree.
    #[error("`{0}` is not changed: ledger and file agree, or the ledger does not have it")]
    #[diagnostic(code("mend.not_changed"), help("`migrate status` shows what is changed."))]
    NotChanged(Which),
    /// It was not cut off in that run.
    #[error("{database}: the ledger does not say that `{which}` was begun in run {run} and not ended")]
    #[diagnostic(code("mend.not_cut_off"), help("`migrate status` shows what was cut off, and in which run."))]
    NotCutOff {
        /// Where.
        database: DatabaseName,
        /// The migration.
        which: Which,
        /// The run.
        run: RunId,
    },
    /// Nobody asks about that statement.
    #[error(
        "{database}: the ledger does not say that it is unclear whether statement {statement} of `{which}` took effect in run {run}"
    )]
    #[diagnostic(
        code("mend.not_unclear"),
        help("`migrate status` shows what is unclear, and which statement that is.")
    )]
    NotUnclear {
        /// Where.
        database: DatabaseName,
        /// The migration.
        which: Which,
        /// The statement, from 1.
        statement: u32,
        /// The run.
        run: RunId,
    },
    /// A database failed.
    #[error("{database}: {source}")]
    #[diagnostic(code("mend.database"))]
    Database {
        /// Which.
        database: DatabaseName,
        /// How.
        #[source]
        #[diagnostic_source]
        source: PgError,
    },
}

pub(super) fn step<'a>(plan: &'a Plan, which: &Which) -> Result<&'a Step, Failure> {
    let found = plan.steps.iter().find(|step| step.name == which.step);
    found.ok_or_else(|| MendError::NoStep(which.step.clone())).or_blame(Blame::Usage)
}

async fn open(plan: &Plan, step: &Step) -> Result<PgConnection, MendError> {
    let opened = async {
        let mut session = connect(&plan.databases[&step.database].url, "migrate").await?;
        change(&mut session, DURABLE_SESSION).await.map_err(query_error("preparing the session"))?;
        Ok(session)
    };
    opened.await.map_err(|source| MendError::Database { database: step.database.clone(), source })
}

/// Changes the ledger, and tells how many rows.
async fn run<'q>(
    session: &mut PgConnection,
    step: &Step,
    query: sqlx::query::Query<'q, Postgres, PgArguments>,
) -> Result<u64, MendError> {
    crash::point("change before", "migrate.ledger");
    let done = query.execute(session).await.map_err(query_error("changing the ledger"));
    crash::point("change after", "");
    done.map(|it| it.rows_affected()).map_err(|source| MendError::Database { database: step.database.clone(), source })
}

/// The drift that accepting a changed file would end.
///
/// # Errors
/// A database cannot be reached, or ledger and file agree.
pub async fn changed(world: &World, plan: &Plan, which: &Which) -> Result<(Survey, Drift), Failure> {
    let step = step(plan, which)?;
    let survey = survey(world, plan, None).await.whole(plan)?;
    let drift = survey.steps.get(&step.name).into_iter().flat_map(|state| &state.drift);
    let found = drift.into_iter().find(|it| matches!(it, Drift::Changed { name, .. } if *name == which.name)).cloned();
    let found = found.ok_or_else(|| MendError::NotChanged(which.clone())).or_blame(Blame::Usage)?;
    Ok((survey, found))
}

/// Accepts a changed file: its checksum becomes the ledger's.
///
/// # Errors
/// Somebody works on the database, or it failed.
pub async fn accept(
    world: &World,
    plan: &Plan,
    store: &Store,
    survey: &Survey,
    which: &Which,
    drift: &Drift,
) -> Result<RunId, Failure> {
    let Drift::Changed { file, ledger, .. } = drift else {
        return Err(Failure::untouched(Blame::Usage, MendError::NotChanged(which.clone())));
    };
    let step = step(plan, which)?;
    let (run, database) = (RunId::generate(clock::now()), &plan.databases[&step.database]);
    let _locks = Locks::take(world, &run, &[database]).await.map_err(refused)?;
    let identity = survey.found(&step.database).map(|found| Identity {
        name: step.database.clone(),
        dbname: database.url.dbname().to_owned(),
        server: found.server.system_identifier.clone(),
        oid: found.oid,
    });
    let first = Fact::Begin {
        command: Command::Repair,
        plan: plan.name.clone(),
        target: plan.target.name.clone(),
        databases: identity.into_iter().collect(),
        no_snapshot: None,
        work: Vec::new(),
    };
    let journal = Journal::begin(world, store, &run, first).await.or_fail()?;
    let query = sqlx::query("update migrate.ledger set checksum = $3 where step = $1 and name = $2");
    let query = query.bind(step.name.as_str()).bind(&which.name).bind(file);
    self::run(&mut open(plan, step).await.or_fail()?, step, query).await.or_fail()?;
    let fact = Fact::Repaired {
        step: which.step.clone(),
        database: step.database.clone(),
        name: which.name.clone(),
        before: ledger.clone(),
        after: file.clone(),
    };
    journal.write(fact).await.or_fail()?;
    journal.write(Fact::End { outcome: Outcome::Succeeded, message: None }).await.or_fail()?;
    Ok(run)
}

/// What became of a migration that was cut off.
#[derive(Debug, Clone, Copy)]
pub struct Word {
    /// Whether it took effect.
    pub applied: bool,
    /// It is about this statement alone, from 1, of a file without a transaction.
    pub statement: Option<u32>,
}

impl Word {
    fn sql(self) -> String {
        let done = i64::from(self.statement.unwrap_or_default());
        let ended = if self.applied { done } else { done - 1 };
        let row = "step = $1 and name = $2 and run = $3 and state = 'started'";
        match (self.statement, self.applied) {
            // A ledger of an earlier version has no such columns: what it leaves open is unclear.
            (Some(_), _) => format!(
                "update migrate.ledger l set progress = {ended}, unclear = false, before = null where {row} and \
                 coalesce(progress, 0) = {done} - 1 and coalesce(unclear, true) and undoing is not true"
            ),
            (None, true) => {
                format!("update migrate.ledger set state = 'applied', finished_at = clock_timestamp() where {row}")
            }
            (None, false) => format!("delete from migrate.ledger where {row}"),
        }
    }
}

/// Takes the operator's word for what became of a migration that was cut off in a run, or of one statement of it.
///
/// # Errors
/// The ledger does not say that it was cut off, somebody works on the database, or it failed.
pub async fn resolve(
    world: &World,
    plan: &Plan,
    store: &Store,
    state: &RunState,
    which: &Which,
    word: Word,
) -> Result<(), Failure> {
    let step = step(plan, which)?;
    let mut locks = Locks::take(world, &state.run, &[&plan.databases[&step.database]]).await.map_err(refused)?;
    locks.end_leftovers(&state.run).await.or_fail()?;
    let mut session = open(plan, step).await.or_fail()?;
    if word.statement.is_some() {
        run(&mut session, step, sqlx::query(ledger::ADD_COLUMNS)).await.or_fail()?;
    }
    let query = sqlx::query(made(word.sql())).bind(step.name.as_str()).bind(&which.name).bind(state.run.as_str());
    if run(&mut session, step, query).await.or_fail()? == 0 {
        let (database, which, run) = (step.database.clone(), which.clone(), state.run.clone());
        return Err(Failure::untouched(
            Blame::Usage,
            match word.statement {
                Some(statement) => MendError::NotUnclear { database, which, statement, run },
                None => MendError::NotCutOff { database, which, run },
            },
        ));
    }
    let fact = Fact::Resolved {
        step: which.step.clone(),
        database: step.database.clone(),
        name: which.name.clone(),
        applied: word.applied,
        statement: word.statement,
    };
    let fresh = journal::state(store, &state.run).await.or_fail()?;
    Journal::go_on(world, store, &fresh).write(fact).await.or_fail()
}
