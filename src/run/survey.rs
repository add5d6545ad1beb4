//! Plan against databases: what each has, what is pending, and where ledger and files disagree. Reads only.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use futures::future::join_all;
use sqlx::PgConnection;

use crate::failure::{Blame, Failure, OrFail, list};
use crate::journal::ledger::{self, Applied};
use crate::kind::alembic::{self, Alembic, AlembicError, Revisions};
use crate::kind::command::{Command, RunWhen};
use crate::kind::copy::{self, Pending as CopyPending};
use crate::kind::{Files, Kind, Migration, refinery_history, sql};
use crate::names::{DatabaseName, StepName};
use crate::outside::interrupt::Interrupted;
use crate::outside::postgres::{PgError, Server, connect, database_oid};
use crate::plan::segments::edges_to;
use crate::plan::{Database, EdgeError, Plan, Segment, Step};
use crate::sql::directives;
use crate::world::World;

use super::drift::{Drift, DriftError};
use super::going_on::{self, GoingOn};
use super::repair_index::all_left;

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
    /// The roles of its server.
    pub roles: Vec<String>,
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

/// A session for each database that is to be looked at, or why there is none.
pub struct Sessions(Vec<(DatabaseName, Result<PgConnection, PgError>)>);

/// Opens sessions to the databases of a plan (all, or only those named), side by side. Nothing is asked yet: what must be
/// looked at under a lock may be opened while the lock is taken.
pub async fn open(plan: &Plan, only: Option<&BTreeSet<DatabaseName>>) -> Sessions {
    let wanted = plan.databases.values().filter(|it| only.is_none_or(|only| only.contains(&it.name)));
    let open = |it: &Database| {
        let (name, url) = (it.name.clone(), it.url.clone());
        async move { (name, connect(&url, "migrate survey").await) }
    };
    Sessions(join_all(wanted.map(open)).await)
}

/// Looks at the databases of a plan (all, or only those named), side by side.
pub async fn survey(world: &World, plan: &Plan, only: Option<&BTreeSet<DatabaseName>>) -> Survey {
    let sessions = open(plan, only).await;
    look_through(world, plan, sessions).await
}

/// Looks at the databases to which there are sessions, side by side.
pub async fn look_through(world: &World, plan: &Plan, opened: Sessions) -> Survey {
    let looked_at: BTreeSet<DatabaseName> = opened.0.iter().map(|(name, _)| name.clone()).collect();
    let wanted = |name: &DatabaseName| looked_at.contains(name);
    let looks = opened.0.into_iter().map(|(name, session)| look(world, plan, name, session));
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
                Err(error) => drop(survey.databases.insert(step.database.clone(), Err(error))),
            }
        }
    }
    survey
}

type Looked = (Found, Vec<(StepName, StepState)>, PgConnection);

async fn look(
    world: &World,
    plan: &Plan,
    name: DatabaseName,
    session: Result<PgConnection, PgError>,
) -> (DatabaseName, Result<Looked, PgError>) {
    let looked = match session {
        Ok(session) => look_inside(world, plan, &plan.databases[&name], session).await,
        Err(error) => Err(error),
    };
    (name, looked)
}

async fn look_inside(
    world: &World,
    plan: &Plan,
    database: &Database,
    mut session: PgConnection,
) -> Result<Looked, PgError> {
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
                let state = compare(&files.migrations, &own);
                let mut state = with_texts(&mut session, &step.name, state, files).await?;
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
                let (state, more) = ask_alembic(world, plan, step, it, &mut session, &own).await?;
                applied += more;
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
        last_run: rows.iter().map(|row| row.run.as_str()).max().map(str::to_owned),
        runs: rows.iter().map(|row| row.run.as_str()).collect::<BTreeSet<_>>().into_iter().map(str::to_owned).collect(),
        applied,
        strange_steps: strange.into_iter().map(str::to_owned).collect(),
        roles: super::roles::all(&mut session).await?,
    };
    Ok((found, steps, session))
}

/// The pending migrations of a step, by its ledger rows alone.
fn compare(files: &[Migration], rows: &[&Applied]) -> StepState {
    let mut state = drift_of(files, rows);
    let rows: BTreeMap<&str, &Applied> = rows.iter().map(|row| (row.name.as_str(), *row)).collect();
    let row = |it: &Migration| rows.get(it.name.as_str()).copied();
    let last = files.iter().rposition(|it| !it.turn.repeatable && row(it).is_some());
    for (index, file) in files.iter().enumerate() {
        match (row(file), last) {
            (Some(row), _) if file.turn.repeatable && row.finished && row.checksum != file.checksum => {
                state.pending.push(index);
                let (checksum, run) = (row.checksum.clone(), row.run.clone());
                state.replaced.insert(index, Replaced { checksum, text: None, run });
            }
            (Some(_), _) => {}
            (None, Some(last)) if index < last => state.drift.push(Drift::OutOfOrder {
                name: file.name.clone(),
                path: file.path.clone(),
                applied: files[last].name.clone(),
            }),
            (None, _) => state.pending.push(index),
        }
    }
    state
}

/// The ledger keeps the text of what is to be replaced; and by its text alone it knows whether a migration without a file was
/// repeatable.
async fn with_texts(
    session: &mut PgConnection,
    step: &StepName,
    mut state: StepState,
    files: &Files,
) -> Result<StepState, PgError> {
    let replaced = state.replaced.keys().map(|index| files.migrations[*index].name.as_str());
    let missing = state.drift.iter().filter(|it| matches!(it, Drift::Missing { .. })).map(Drift::name);
    let mut texts = ledger::texts(session, step, &replaced.chain(missing).collect::<Vec<_>>()).await?;
    for (index, it) in &mut state.replaced {
        it.text = texts.remove(&files.migrations[*index].name);
    }
    let was_repeatable = |name: &str| {
        let says = |text: &String| directives::read(text).is_ok_and(|parts| parts.repeatable.is_some());
        name.starts_with(sql::REPEATABLE) || texts.get(name).is_some_and(says)
    };
    let gone = |it: &Drift| matches!(it, Drift::Missing { name } if was_repeatable(name));
    let (gone, drift): (Vec<_>, Vec<_>) = state.drift.into_iter().partition(gone);
    state.gone = gone.iter().map(|it| it.name().to_owned()).collect();
    state.drift = drift;
    Ok(state)
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
        command_ran_in: row.filter(|row| row.finished).map(|row| row.run.clone()),
        ..StepState::default()
    }
}

/// What is pending by Alembic, and how many revisions are applied that have no row of ours.
async fn ask_alembic(
    world: &World,
    plan: &Plan,
    step: &Step,
    it: &Alembic,
    session: &mut PgConnection,
    own: &[&Applied],
) -> Result<(StepState, usize), PgError> {
    let limits = plan.limits(step);
    let unread = |error: UnreadError| StepState { unread: Some(Arc::new(error)), ..StepState::default() };
    let mut revisions = match it.revisions(&world.interrupt, &limits).await {
        Ok(revisions) => revisions,
        Err(error) => return Ok((unread(error.into()), 0)),
    };
    if let Err(error) = edges_to(&plan.steps, step, &revisions.migrations) {
        return Ok((unread(error.into()), 0));
    }
    let current = alembic::current(session, &revisions.version_table).await?;
    let mut state = look_at_alembic(it, &revisions, &current, own);
    if !state.drift.is_empty() {
        state.listed = Some(Arc::new(revisions));
        return Ok((state, 0));
    }
    if let Err(error) = it.add_ways_back(&mut revisions, &state.pending, &world.interrupt, &limits).await {
        return Ok((unread(error.into()), 0));
    }
    let has = revisions.migrations.len() - state.pending.len();
    state.listed = Some(Arc::new(revisions));
    Ok((state, has.saturating_sub(own.len())))
}

/// `alembic_version` says what is applied; ledger and files must not contradict it.
fn look_at_alembic(it: &Alembic, revisions: &Revisions, current: &[String], rows: &[&Applied]) -> StepState {
    let mut state = drift_of(&revisions.migrations, rows);
    // One that was cut off took effect or did not, together with its row in Alembic's table.
    state.drift.retain(|drift| !matches!(drift, Drift::Interrupted { .. }));
    match revisions.applied(current) {
        Err(unknown) => state.drift.push(Drift::Alembic(format!(
            "Alembic can't locate revision `{unknown}`, which {} has, in {}: the checkout is older than the database, or a \
             file is missing",
            revisions.version_table,
            it.shown.display()
        ))),
        Ok(applied) => {
            let denied = rows.iter().filter(|row| row.finished && !applied.contains(&row.name));
            state.drift.extend(denied.map(|row| {
                let (name, table) = (&row.name, &revisions.version_table);
                Drift::Alembic(format!("the ledger has `{name}`, and by {table} it is not applied"))
            }));
            // Of what took effect and is not said to have ended, that is still to be written down.
            let open: BTreeSet<&str> = rows.iter().filter(|row| !row.finished).map(|row| row.name.as_str()).collect();
            let is_pending = |it: &Migration| !applied.contains(&it.name) || open.contains(it.name.as_str());
            let pending = revisions.migrations.iter().enumerate().filter(|(_, it)| is_pending(it));
            state.pending = pending.map(|(index, _)| index).collect();
        }
    }
    state
}

fn drift_of(files: &[Migration], rows: &[&Applied]) -> StepState {
    let mut drift = Vec::new();
    let files: BTreeMap<&str, &Migration> = files.iter().map(|file| (file.name.as_str(), file)).collect();
    for row in rows {
        match files.get(row.name.as_str()) {
            None => drift.push(Drift::Missing { name: row.name.clone() }),
            Some(_) if !row.finished => {
                let (name, run, ended) = (row.name.clone(), row.run.clone(), row.progress);
                drift.push(Drift::Interrupted { name, run, ended });
            }
            Some(file) if file.checksum != row.checksum && !file.turn.repeatable => drift.push(Drift::Changed {
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
    use crate::kind::Turn;
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
            turn: Turn::default(),
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

    #[test]
    fn repeatable_ones_are_pending_when_they_are_new_or_changed() {
        let repeatable =
            |name, checksum| Migration { turn: Turn { repeatable: true, ..Turn::default() }, ..file(name, checksum) };
        let files = [file("1_a", "x"), file("2_b", "y"), repeatable("R__a", "z"), repeatable("R__b", "z")];
        let rows = [row("R__a", "other", true), row("R__b", "z", true), row("1_a", "x", true)];
        let state = compare(&files, &rows.iter().collect::<Vec<_>>());
        assert_eq!((state.pending, state.drift), (vec![1, 2], vec![]));
        assert_eq!(
            state.replaced,
            BTreeMap::from([(2, Replaced { checksum: "other".into(), text: None, run: "r".into() })])
        );
        let cut_off = row("R__a", "other", false);
        let state = compare(&files, &[&cut_off]);
        assert_eq!((state.pending, state.drift.len()), (vec![0, 1, 3], 1));
    }
}
