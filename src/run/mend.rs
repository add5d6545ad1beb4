//! The operator's word about single migrations: that a changed file is accepted (`repair`), or what became of a migration that
//! was cut off (`resolve`). Both change ledger rows alone, and leave a record in the store.

use miette::Diagnostic;

use crate::failure::{Blame, Failure, OrFail};
use crate::journal::entry::{Command, Fact, Identity, Outcome};
use crate::journal::state::RunState;
use crate::journal::{self, Journal};
use crate::names::{DatabaseName, RunId, StepName};
use crate::outside::clock;
use crate::outside::postgres::{PgError, connect, query_error};
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

fn step<'a>(plan: &'a Plan, which: &Which) -> Result<&'a Step, Failure> {
    let found = plan.steps.iter().find(|step| step.name == which.step);
    found.ok_or_else(|| MendError::NoStep(which.step.clone())).or_blame(Blame::Usage)
}

async fn update(plan: &Plan, step: &Step, sql: &'static str, values: [&str; 3]) -> Result<u64, MendError> {
    let failed = |source| MendError::Database { database: step.database.clone(), source };
    let mut session = connect(&plan.databases[&step.database].url, "migrate").await.map_err(failed)?;
    let mut query = sqlx::query(sql);
    for value in values {
        query = query.bind(value.to_owned());
    }
    let done = query.execute(&mut session).await.map_err(query_error("changing the ledger")).map_err(failed)?;
    Ok(done.rows_affected())
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
    };
    let journal = Journal::begin(world, store, &run, first).await.or_fail()?;
    let sql = "update migrate.ledger set checksum = $3 where step = $1 and name = $2";
    update(plan, step, sql, [which.step.as_str(), &which.name, file]).await.or_fail()?;
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

/// Takes the operator's word for what became of a migration that was cut off in a run.
///
/// # Errors
/// The ledger does not say that it was cut off, somebody works on the database, or it failed.
pub async fn resolve(
    world: &World,
    plan: &Plan,
    store: &Store,
    state: &RunState,
    which: &Which,
    applied: bool,
) -> Result<(), Failure> {
    let step = step(plan, which)?;
    let mut locks = Locks::take(world, &state.run, &[&plan.databases[&step.database]]).await.map_err(refused)?;
    locks.end_leftovers(&state.run).await.or_fail()?;
    let sql = match applied {
        true => {
            "update migrate.ledger set state = 'applied', finished_at = clock_timestamp() where step = $1 and name = $2 and \
             run = $3 and state = 'started'"
        }
        false => "delete from migrate.ledger where step = $1 and name = $2 and run = $3 and state = 'started'",
    };
    let rows = update(plan, step, sql, [which.step.as_str(), &which.name, state.run.as_str()]).await.or_fail()?;
    if rows == 0 {
        let (database, which, run) = (step.database.clone(), which.clone(), state.run.clone());
        return Err(Failure::untouched(Blame::Usage, MendError::NotCutOff { database, which, run }));
    }
    let fact =
        Fact::Resolved { step: which.step.clone(), database: step.database.clone(), name: which.name.clone(), applied };
    let fresh = journal::state(store, &state.run).await.or_fail()?;
    Journal::go_on(world, store, &fresh).write(fact).await.or_fail()
}
