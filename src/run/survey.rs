//! Plan against databases: what each has, what is pending, and where ledger and files disagree. Reads only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::future::join_all;
use sqlx::PgConnection;

use crate::failure::list;
use crate::journal::ledger::{self, Applied};
use crate::kind::alembic::{self, Alembic, AlembicError, Revisions};
use crate::kind::command::{Command, RunWhen};
use crate::kind::copy::{self, Pending as CopyPending};
use crate::kind::{Kind, Migration, refinery_history};
use crate::names::{DatabaseName, StepName};
use crate::outside::postgres::{PgError, Server, connect, database_oid};
use crate::plan::{Database, Plan, Step};
use crate::world::World;

use super::drift::{Drift, DriftError};
use super::going_on::{self, GoingOn};
use super::repair_index::all_left;

/// What a plan's databases have and lack.
#[derive(Debug)]
pub struct Survey {
    /// Each database that was looked at.
    pub databases: BTreeMap<DatabaseName, Result<Found, SurveyError>>,
    /// Each step on a database that answered, in the order of the plan.
    pub steps: BTreeMap<StepName, StepState>,
}

/// Why a database, or the source of a step on it, could not be looked at.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum SurveyError {
    /// The database.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Postgres(#[from] PgError),
    /// Alembic.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Alembic(#[from] AlembicError),
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
    /// Migrations in its ledger, and those that refinery itself applied.
    pub applied: usize,
    /// Steps that its ledger knows and the plan does not.
    pub strange_steps: Vec<String>,
    /// Invalid indexes that migrations left, each with the migration.
    pub invalid_indexes: Vec<(String, String)>,
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
}

impl StepState {
    /// The list that `pending` points into.
    #[must_use]
    pub fn migrations<'a>(&'a self, step: &'a Step) -> &'a [Migration] {
        self.listed.as_ref().map_or(step.kind.migrations(), |listed| &listed.migrations)
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
    source: SurveyError,
}

/// Looks at the databases of a plan (all, or only those named), side by side.
pub async fn survey(world: &World, plan: &Plan, only: Option<&BTreeSet<DatabaseName>>) -> Survey {
    let wanted = |name: &DatabaseName| only.is_none_or(|only| only.contains(name));
    let looks = plan.databases.values().filter(|it| wanted(&it.name)).map(|it| look(world, plan, it));
    let mut survey = Survey { databases: BTreeMap::new(), steps: BTreeMap::new() };
    let mut sessions = BTreeMap::new();
    for (name, looked) in join_all(looks).await {
        let found = looked.map(|(found, steps, session)| {
            survey.steps.extend(steps);
            sessions.insert(name.clone(), session);
            found
        });
        survey.databases.insert(name, found);
    }
    for step in plan.steps.iter().filter(|step| wanted(&step.database)) {
        if let Kind::Copy(copy) = &step.kind {
            let state = look_at_copy(plan, &survey, &mut sessions, step, copy).await;
            match state {
                Ok(state) => drop(survey.steps.insert(step.name.clone(), state)),
                Err(error) => drop(survey.databases.insert(step.database.clone(), Err(error.into()))),
            }
        }
    }
    survey
}

type Looked = (Found, Vec<(StepName, StepState)>, PgConnection);

async fn look(world: &World, plan: &Plan, database: &Database) -> (DatabaseName, Result<Looked, SurveyError>) {
    (database.name.clone(), look_inside(world, plan, database).await)
}

async fn look_inside(world: &World, plan: &Plan, database: &Database) -> Result<Looked, SurveyError> {
    let mut session = connect(&database.url, "migrate survey").await?;
    let server = Server::of(&mut session).await?;
    let oid = database_oid(&mut session, database.url.dbname()).await?.unwrap_or_default();
    let rows = ledger::read(&mut session).await?;
    let mut steps = Vec::new();
    let here: Vec<&Step> = plan.steps.iter().filter(|step| step.database == database.name).collect();
    let has_ledger = rows.is_some();
    let rows = rows.unwrap_or_default();
    let mut applied = rows.iter().filter(|row| row.finished).count();
    for step in &here {
        let own: Vec<&Applied> = rows.iter().filter(|row| row.step == step.name.as_str()).collect();
        let state = match &step.kind {
            Kind::Sql(files) => {
                let mut state = compare(&files.migrations, &own);
                going_on::look(&mut session, &files.migrations, &own, &mut state).await?;
                state
            }
            Kind::Refinery(files) => {
                let mut state = drift_of(&files.migrations, &own);
                match refinery_history::history(&mut session, &files.migrations).await? {
                    Ok(history) => {
                        state.pending = history.pending.iter().map(|it| it.index).collect();
                        // What an application applied through refinery has no row of ours.
                        applied += (files.migrations.len() - state.pending.len()).saturating_sub(own.len());
                    }
                    Err(disagrees) => state.drift.push(Drift::Refinery(disagrees.to_string())),
                }
                state
            }
            Kind::Python(it) => compare(&it.migrations, &own),
            Kind::Command(it) => look_at_command(it, &own),
            Kind::Alembic(it) => {
                let current = alembic::current(&mut session).await?;
                let revisions = it.revisions(&world.interrupt, &plan.limits(step)).await?;
                let state = look_at_alembic(it, revisions, &current, &own);
                if state.drift.is_empty() {
                    // What Alembic applied by itself has no row of ours.
                    let has = state.migrations(step).len() - state.pending.len();
                    applied += has.saturating_sub(own.len());
                }
                state
            }
            Kind::Copy(_) => continue,
        };
        steps.push((step.name.clone(), state));
    }
    let strange: BTreeSet<&str> = rows
        .iter()
        .map(|row| row.step.as_str())
        .filter(|name| !here.iter().any(|step| step.name.as_str() == *name))
        .collect();
    let invalid_indexes = all_left(&mut session, &rows).await?;
    let found = Found {
        server,
        invalid_indexes,
        oid,
        has_ledger,
        last_run: rows.iter().map(|row| row.run.clone()).max(),
        applied,
        strange_steps: strange.into_iter().map(str::to_owned).collect(),
    };
    Ok((found, steps, session))
}

/// The pending migrations of a step, by its ledger rows alone.
fn compare(files: &[Migration], rows: &[&Applied]) -> StepState {
    let mut state = drift_of(files, rows);
    let has = |it: &Migration| rows.iter().any(|row| row.name == it.name);
    let last = files.iter().rposition(has);
    for (index, file) in files.iter().enumerate().filter(|(_, it)| !has(it)) {
        match last {
            Some(last) if index < last => state.drift.push(Drift::OutOfOrder {
                name: file.name.clone(),
                path: file.path.clone(),
                applied: files[last].name.clone(),
            }),
            _ => state.pending.push(index),
        }
    }
    state
}

/// A command has one unit, and no order to be out of. One that was cut off is asked about by its probe when it is run.
fn look_at_command(it: &Command, rows: &[&Applied]) -> StepState {
    let row = rows.first();
    let due = match it.run {
        RunWhen::Always => true,
        RunWhen::Once => !row.is_some_and(|row| row.finished),
        RunWhen::OnChange => !row
            .is_some_and(|row| row.finished && it.migrations.first().is_some_and(|unit| unit.checksum == row.checksum)),
    };
    let cut_off = row.filter(|row| !row.finished && it.probe.is_none());
    let drift =
        cut_off.map(|row| Drift::Interrupted { name: row.name.clone(), run: row.run.clone(), ended: row.progress });
    StepState {
        pending: if due { vec![0] } else { Vec::new() },
        drift: drift.into_iter().collect(),
        ..StepState::default()
    }
}

/// `alembic_version` says what is applied; ledger and files must not contradict it.
fn look_at_alembic(it: &Alembic, revisions: Revisions, current: &[String], rows: &[&Applied]) -> StepState {
    let mut state = drift_of(&revisions.migrations, rows);
    match revisions.applied(current) {
        Err(unknown) => state.drift.push(Drift::Alembic(format!(
            "Alembic can't locate revision `{unknown}`, which alembic_version has, in {}: the checkout is older than the \
             database, or a file is missing",
            it.shown.display()
        ))),
        Ok(applied) => {
            let denied = rows.iter().filter(|row| row.finished && !applied.contains(&row.name));
            state.drift.extend(denied.map(|row| {
                Drift::Alembic(format!("the ledger has `{}`, and by alembic_version it is not applied", row.name))
            }));
            let pending = revisions.migrations.iter().enumerate().filter(|(_, it)| !applied.contains(&it.name));
            state.pending = pending.map(|(index, _)| index).collect();
        }
    }
    state.listed = Some(Arc::new(revisions));
    state
}

fn drift_of(files: &[Migration], rows: &[&Applied]) -> StepState {
    let mut drift = Vec::new();
    for row in rows {
        match files.iter().find(|file| file.name == row.name) {
            None => drift.push(Drift::Missing { name: row.name.clone() }),
            Some(_) if !row.finished => {
                let (name, run, ended) = (row.name.clone(), row.run.clone(), row.progress);
                drift.push(Drift::Interrupted { name, run, ended });
            }
            Some(file) if file.checksum != row.checksum => drift.push(Drift::Changed {
                name: row.name.clone(),
                path: file.path.clone(),
                file: file.checksum.clone(),
                ledger: row.checksum.clone(),
                at: row.started_at,
                run: row.run.clone(),
            }),
            Some(_) => {}
        }
    }
    StepState { drift, ..StepState::default() }
}

/// A copy is pending if the tables differ, or if steps before it are about to change them.
async fn look_at_copy(
    plan: &Plan,
    survey: &Survey,
    sessions: &mut BTreeMap<DatabaseName, PgConnection>,
    step: &Step,
    copy: &crate::kind::Copy,
) -> Result<StepState, PgError> {
    let before: Vec<&str> = plan
        .steps
        .iter()
        .take_while(|it| it.name != step.name)
        .filter(|it| it.database == step.database || it.database == copy.from.database)
        .filter(|it| survey.steps.get(&it.name).is_some_and(StepState::has_work))
        .map(|it| it.name.as_str())
        .collect();
    let pending = |pending| StepState { copy: Some(pending), ..StepState::default() };
    if !before.is_empty() {
        return Ok(pending(CopyPending::Unknown(format!("it comes after {}", list(&before)))));
    }
    let mut own = None;
    let source_url = &plan.databases[&copy.from.database].url;
    let Some(mut target) = sessions.remove(&step.database) else {
        return Ok(pending(CopyPending::Unknown(format!("{} is unreachable", step.database))));
    };
    let source = match sessions.get_mut(&copy.from.database) {
        Some(session) => session,
        None => match connect(source_url, "migrate survey").await {
            Ok(session) => own.insert(session),
            Err(error) => {
                sessions.insert(step.database.clone(), target);
                return Ok(pending(CopyPending::Unknown(format!("{}: {error}", copy.from.database))));
            }
        },
    };
    let compared = copy::compare(source, &mut target, copy).await;
    sessions.insert(step.database.clone(), target);
    match compared {
        Ok(state) => Ok(pending(state)),
        Err(error) => Ok(pending(CopyPending::Unknown(error.to_string()))),
    }
}

impl Survey {
    /// The first database that did not answer.
    ///
    /// # Errors
    /// How it did not.
    pub fn all_reachable(self) -> Result<Self, Unreachable> {
        let mut databases = BTreeMap::new();
        for (database, found) in self.databases {
            match found {
                Ok(found) => drop(databases.insert(database, Ok(found))),
                Err(source) => return Err(Unreachable { database, source }),
            }
        }
        Ok(Self { databases, steps: self.steps })
    }

    /// A database that answered.
    #[must_use]
    pub fn found(&self, database: &DatabaseName) -> Option<&Found> {
        self.databases.get(database)?.as_ref().ok()
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
        let way_out = first.filter_map(|(step, drift)| drift.way_out(step)).next();
        if drift.is_empty() { Ok(()) } else { Err(DriftError::new(drift, way_out)) }
    }

    /// The databases that a run may change, by name: those with work, and all of them if a program is to be run.
    #[must_use]
    pub fn databases_at_risk<'a>(&self, plan: &'a Plan) -> Vec<&'a Database> {
        let has_work = |step: &Step| self.steps.get(&step.name).is_some_and(StepState::has_work);
        if plan.steps.iter().any(|step| step.kind.runs_alone() && has_work(step)) {
            return self.databases.keys().filter_map(|name| plan.databases.get(name)).collect();
        }
        self.databases_with_work(plan)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::directives::Budget;

    fn file(name: &str, checksum: &str) -> Migration {
        Migration {
            name: name.into(),
            path: format!("m/{name}.sql").into(),
            checksum: checksum.into(),
            up: String::new(),
            down: None,
            irreversible: false,
            transactional: true,
            budget: Budget::default(),
        }
    }

    fn row(name: &str, checksum: &str, finished: bool) -> Applied {
        Applied {
            step: "s".into(),
            name: name.into(),
            checksum: checksum.into(),
            run: "r".into(),
            finished,
            started_at: chrono::DateTime::UNIX_EPOCH,
            progress: None,
            begun: None,
        }
    }

    #[track_caller]
    fn check(files: &[(&str, &str)], rows: &[(&str, &str, bool)], pending: &[usize], drift: &[(&str, &str)]) {
        let files: Vec<Migration> = files.iter().map(|(name, checksum)| file(name, checksum)).collect();
        let rows: Vec<Applied> = rows.iter().map(|(name, checksum, finished)| row(name, checksum, *finished)).collect();
        let state = compare(&files, &rows.iter().collect::<Vec<_>>());
        assert_eq!(state.pending, pending);
        let found: Vec<_> = state.drift.iter().map(|it| (it.reason(), it.name())).collect();
        assert_eq!(found, drift);
    }

    #[test]
    fn what_is_pending_and_what_disagrees() {
        let files = [("1_a", "x"), ("2_b", "y"), ("3_c", "z")];
        check(&files, &[], &[0, 1, 2], &[]);
        check(&files, &[("1_a", "x", true), ("2_b", "y", true)], &[2], &[]);
        check(&files, &[("1_a", "other", true)], &[1, 2], &[("changed", "1_a")]);
        check(&files, &[("0_gone", "x", true)], &[0, 1, 2], &[("missing", "0_gone")]);
        check(&files, &[("2_b", "y", true)], &[2], &[("out_of_order", "1_a")]);
        check(&files, &[("1_a", "x", false)], &[1, 2], &[("interrupted", "1_a")]);
    }
}
