//! Steps that run a program: intent into the ledger, the program, its output into the store, and then the proof that it changed
//! no database but its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use miette::Diagnostic;
use sqlx::PgConnection;

use crate::event::Event;
use crate::journal;
use crate::journal::entry::Fact;
use crate::journal::ledger::CREATE;
use crate::kind::alembic::{self, Alembic, AlembicError, AlembicMode, Revisions};
use crate::kind::command::Command;
use crate::kind::{Kind, Migration, ReadError};
use crate::names::{DatabaseName, StepName};
use crate::outside::child::{self, ChildError, Program};
use crate::outside::interrupt::Interrupt;
use crate::outside::postgres::{PgError, change, connect, made, query_error};
use crate::plan::Step;
use crate::sql::transaction::sendable;
use crate::verify::catalog::Catalog;

use super::file_step::{apply_files, session};
use super::step::{Context, Partly, StepError};
use super::survey::StepState;

/// Why a step that runs a program failed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ProgramFailed {
    /// The program did not do its work.
    #[error("{database}: `{name}` failed")]
    #[diagnostic(code("program.failed"), help("Its whole output is in the store, as {output}."))]
    Program {
        /// The database.
        database: DatabaseName,
        /// The migration.
        name: String,
        /// The object that holds the output.
        output: String,
        /// How.
        #[source]
        source: ChildError,
    },
    /// Alembic could not be asked.
    #[error("{database}: {source}")]
    #[diagnostic(code("program.alembic"))]
    Alembic {
        /// The database.
        database: DatabaseName,
        /// Why.
        #[source]
        #[diagnostic_source]
        source: AlembicError,
    },
    /// Alembic ended well, and the database is not where it should be.
    #[error("{database}: Alembic exited with 0, and {table} does not have `{missing}`")]
    #[diagnostic(
        code("program.not_applied"),
        help("Alembic went to another database, or does not commit: look at `env.py` and at `env` of the step.")
    )]
    NotApplied {
        /// The database.
        database: DatabaseName,
        /// The table that should.
        table: String,
        /// The first revision that is missing.
        missing: String,
    },
    /// Alembic ended well, and the database is not back where it should be.
    #[error("{database}: Alembic exited with 0, and {table} still has {left}")]
    #[diagnostic(
        code("program.not_undone"),
        help("Alembic went to another database, or does not commit: look at `env.py` and at `env` of the step.")
    )]
    NotUndone {
        /// The database.
        database: DatabaseName,
        /// The table that should not.
        table: String,
        /// What is left.
        left: String,
    },
    /// It changed what it was not meant to change.
    #[error("step `{step}` is for {meant}, and changed another database: {what}")]
    #[diagnostic(
        code("program.wrong_database"),
        help("Declare every variable that its program reads in `env`, with `${{url}}` and its parts as the database.")
    )]
    WrongDatabase {
        /// The step.
        step: StepName,
        /// Its database.
        meant: DatabaseName,
        /// What it did where.
        what: String,
        /// What else went wrong.
        #[source]
        also: Option<Box<StepError>>,
    },
    /// What Alembic rendered cannot be sent.
    #[error("{database}: {source}")]
    #[diagnostic(
        code("program.rendered"),
        help("Leave `mode = \"sql\"` away, so that Alembic itself applies the revision.")
    )]
    Rendered {
        /// The database.
        database: DatabaseName,
        /// Why.
        #[source]
        #[diagnostic_source]
        source: ReadError,
    },
}

impl ProgramFailed {
    /// Whether a signal to us ended the program.
    #[must_use]
    pub fn is_interruption(&self) -> bool {
        let source = match self {
            Self::Program { source, .. } | Self::Alembic { source: AlembicError::List { source, .. }, .. } => source,
            _ => return false,
        };
        matches!(source, ChildError::Interrupted(_))
    }
}

/// Applies what is pending in a step that runs a program.
pub(super) async fn apply(
    context: &Context<'_>,
    step: &Step,
    state: &StepState,
    stop: &Interrupt,
    mine: &mut Vec<String>,
) -> Partly<()> {
    let before = others(context, step).await.map_err(|error| (error, false))?;
    let done = match (&step.kind, state.listed.as_deref()) {
        (Kind::Alembic(it), Some(revisions)) => {
            alembic_step(context, step, it, revisions, &state.pending, stop, mine).await
        }
        (Kind::Command(it), _) => command(context, step, it, mine).await,
        (kind, _) => modules(context, step, kind, state, stop, mine).await,
    };
    // What it did elsewhere matters whether or not it did its own work.
    match (done, strayed(context, step, &before).await) {
        (done, Ok(None)) => done,
        (Ok(()), Err(error)) => Err((error, true)),
        (Err((first, _)), Err(_)) => Err((first, true)),
        (done, Ok(Some(what))) => {
            let (step, meant) = (step.name.clone(), step.database.clone());
            let also = done.err().map(|(error, _)| Box::new(error));
            Err((StepError::Program(Box::new(ProgramFailed::WrongDatabase { step, meant, what, also })), true))
        }
    }
}

/// The catalogs of the plan's other databases.
pub(super) async fn others(context: &Context<'_>, step: &Step) -> Result<BTreeMap<DatabaseName, Catalog>, StepError> {
    let mut catalogs = BTreeMap::new();
    for (name, database) in context.plan.databases.iter().filter(|(name, _)| **name != step.database) {
        let failed = |source| StepError::Database { database: name.clone(), source };
        let mut session = connect(&database.url, "migrate catalog").await.map_err(failed)?;
        catalogs.insert(name.clone(), Catalog::read(&mut session).await.map_err(failed)?.without_ledger());
    }
    Ok(catalogs)
}

/// What has changed in the plan's other databases, in words.
pub(super) async fn strayed(
    context: &Context<'_>,
    step: &Step,
    before: &BTreeMap<DatabaseName, Catalog>,
) -> Result<Option<String>, StepError> {
    let (mut what, mut databases) = (Vec::new(), Vec::new());
    for (name, after) in others(context, step).await? {
        let changes = before.get(&name).map(|before| after.changes_since(before)).unwrap_or_default();
        if !changes.is_empty() {
            context.mark_changed(&name);
            databases.push(name.clone());
            what.push(format!("{name}: {}", changes.join(", ")));
        }
    }
    if what.is_empty() {
        return Ok(None);
    }
    let what = what.join("; ");
    context.journal.write(Fact::Strayed { step: step.name.clone(), databases, what: what.clone() }).await?;
    Ok(Some(what))
}

pub(super) async fn sql(session: &mut PgConnection, step: &Step, what: &str, sql: String) -> Partly<()> {
    let failed = |source| (StepError::Database { database: step.database.clone(), source }, true);
    let done = change(session, sql).await.map_err(query_error(what));
    done.map(drop).map_err(failed)
}

/// Runs a program and keeps its output with the run, in a file called `log`.
pub(super) async fn run(context: &Context<'_>, step: &Step, name: &str, log: &str, program: &Program) -> Partly<()> {
    let (output, result) = child::run(program, &context.world.interrupt).await;
    let stem = format!("{}/output/{}/{log}", journal::folder(context.journal.run()), step.name);
    let kept = context.store.put_beside(&stem, "log", output.0).await;
    let key = kept.as_ref().map_or_else(|_| format!("{stem}.log"), Clone::clone);
    let failed = |error: ProgramFailed| (StepError::Program(Box::new(error)), true);
    result.map_err(|source| {
        failed(ProgramFailed::Program {
            database: step.database.clone(),
            name: name.to_owned(),
            output: key.clone(),
            source,
        })
    })?;
    kept.map(drop).map_err(|error| (StepError::Journal(error.into()), true))
}

/// Between the row that says what is intended and the row that says that it is done.
async fn modules(
    context: &Context<'_>,
    step: &Step,
    kind: &Kind,
    state: &StepState,
    stop: &Interrupt,
    mine: &mut Vec<String>,
) -> Partly<()> {
    let Kind::Python(it) = kind else { return Ok(()) };
    for index in &state.pending {
        if stop.requested() {
            context.cut_short();
            break;
        }
        let unit = &it.migrations[*index];
        let program =
            it.surroundings.program(it.argv(&unit.name), &context.plan.limits(step), Some(context.journal.run()));
        one(context, step, unit, &program).await?;
        mine.push(unit.name.clone());
    }
    Ok(())
}

async fn one(context: &Context<'_>, step: &Step, unit: &Migration, program: &Program) -> Partly<()> {
    let begun = Instant::now();
    let mut session = session(step, context).await?;
    let author = context.author(step);
    let create = if context.has_ledger(&step.database) { "" } else { CREATE };
    let intent = match step.kind {
        Kind::Command(_) => author.started_again(unit.into()),
        _ => author.started(unit.into()),
    };
    sql(&mut session.connection, step, "recording what is intended", create.to_owned() + &intent).await?;
    run(context, step, &unit.name, &unit.name, program).await?;
    sql(&mut session.connection, step, "recording what was done", author.finished(&unit.name)).await?;
    applied(context, step, unit, begun);
    Ok(())
}

fn applied(context: &Context<'_>, step: &Step, unit: &Migration, begun: Instant) {
    context.record(step, &unit.name);
    context.world.tell(Event::MigrationApplied {
        database: step.database.clone(),
        step: step.name.clone(),
        name: unit.name.clone(),
        seconds: begun.elapsed().as_secs_f64(),
    });
}

/// A command that an earlier run began, and nobody knows to have ended, is not run again if its probe says that it took effect.
async fn command(context: &Context<'_>, step: &Step, it: &Command, mine: &mut Vec<String>) -> Partly<()> {
    let Some(unit) = it.migrations.first() else { return Ok(()) };
    let begun = Instant::now();
    if took_effect(context, step, it, unit).await? {
        sql(
            &mut session(step, context).await?.connection,
            step,
            "recording what was done",
            context.author(step).finished(&unit.name),
        )
        .await?;
        applied(context, step, unit, begun);
    } else {
        let limits = context.plan.limits(step);
        let program = it.surroundings.program(it.argv.clone(), &limits, Some(context.journal.run()));
        one(context, step, unit, &program).await?;
    }
    mine.push(unit.name.clone());
    Ok(())
}

async fn took_effect(context: &Context<'_>, step: &Step, it: &Command, unit: &Migration) -> Partly<bool> {
    let Some(probe) = it.probe.as_ref().filter(|_| context.has_ledger(&step.database)) else { return Ok(false) };
    let failed = |source: PgError| (StepError::Database { database: step.database.clone(), source }, false);
    let mut session = session(step, context).await?;
    let cut_off: bool = sqlx::query_scalar(
        "select exists (select from migrate.ledger where step = $1 and name = $2 and state = 'started')",
    )
    .bind(step.name.as_str())
    .bind(&unit.name)
    .fetch_one(&mut session.connection)
    .await
    .map_err(query_error("looking for a command that was cut off"))
    .map_err(failed)?;
    if !cut_off {
        return Ok(false);
    }
    let answer: Option<bool> = sqlx::query_scalar(made(probe.clone()))
        .fetch_one(&mut session.connection)
        .await
        .map_err(query_error(format!("the probe of step `{}`", step.name)))
        .map_err(failed)?;
    Ok(answer == Some(true))
}

async fn alembic_step(
    context: &Context<'_>,
    step: &Step,
    it: &Alembic,
    revisions: &Revisions,
    pending: &[usize],
    stop: &Interrupt,
    mine: &mut Vec<String>,
) -> Partly<()> {
    let units: Vec<&Migration> = pending.iter().map(|index| &revisions.migrations[*index]).collect();
    match it.mode {
        AlembicMode::Online => online(context, step, it, revisions, &units, mine).await,
        AlembicMode::Sql => rendered(context, step, it, revisions, &units, stop, mine).await,
    }
}

/// Alembic renders the SQL, `alembic_version` included; each revision is one transaction with its ledger row.
async fn rendered(
    context: &Context<'_>,
    step: &Step,
    it: &Alembic,
    revisions: &Revisions,
    units: &[&Migration],
    stop: &Interrupt,
    mine: &mut Vec<String>,
) -> Partly<()> {
    let names: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
    let limits = context.plan.limits(step);
    let failed = |error: ProgramFailed| (StepError::Program(Box::new(error)), false);
    let texts = it.render(revisions, &names, &context.world.interrupt, &limits).await;
    let texts = texts.map_err(|source| failed(ProgramFailed::Alembic { database: step.database.clone(), source }))?;
    let mut files = Vec::new();
    for (unit, text) in units.iter().zip(texts) {
        let file = Migration { path: unit.path.with_extension("py.sql"), up: text, ..(*unit).clone() };
        // All of them before the first is sent: Alembic may have put a COMMIT into the middle of one.
        sendable(&file.up, true).map_err(|error| {
            let source = ReadError::text(&file.path, &file.up, error);
            failed(ProgramFailed::Rendered { database: step.database.clone(), source })
        })?;
        let stem = format!("{}/migrations/{}/{}", journal::folder(context.journal.run()), step.name, unit.name);
        context
            .store
            .put_beside(&stem, "sql", file.up.clone())
            .await
            .map_err(|it| (StepError::Journal(it.into()), false))?;
        files.push(file);
    }
    // All of the step was kept before it began.
    let files: Vec<_> = files.iter().map(|it| (0, it)).collect();
    apply_files(context, step, &files, &BTreeMap::new(), stop, mine).await
}

/// Alembic goes to its head by itself; `alembic_version` tells how far it got, and the ledger follows it.
async fn online(
    context: &Context<'_>,
    step: &Step,
    it: &Alembic,
    revisions: &Revisions,
    units: &[&Migration],
    mine: &mut Vec<String>,
) -> Partly<()> {
    let Some(last) = units.last() else { return Ok(()) };
    let begun = Instant::now();
    let mut session = session(step, context).await?;
    let author = context.author(step);
    let create = if context.has_ledger(&step.database) { "" } else { CREATE };
    let had = has_now(context, step, revisions).await.map_err(|(error, _)| (error, false))?;
    let intents: Vec<String> = units.iter().map(|unit| author.started_again((*unit).into())).collect();
    sql(&mut session.connection, step, "recording what is intended", create.to_owned() + &intents.join(";\n")).await?;
    let limits = context.plan.limits(step);
    let program = it.surroundings.program(it.upgrade(&last.name), &limits, Some(context.journal.run()));
    // What an earlier process saw through to Alembic's table alone is only to be written down.
    let is_through = units.iter().all(|unit| had.contains(&unit.name));
    let result = if is_through { Ok(()) } else { run(context, step, &last.name, &last.name, &program).await };
    let has = has_now(context, step, revisions).await?;
    let mut rows = Vec::new();
    for unit in units {
        rows.push(if has.contains(&unit.name) { author.finished(&unit.name) } else { author.not_done(&unit.name) });
    }
    sql(&mut session.connection, step, "recording what was done", rows.join(";\n")).await?;
    for unit in units.iter().filter(|unit| has.contains(&unit.name)) {
        applied(context, step, unit, begun);
        mine.push(unit.name.clone());
    }
    result?;
    match units.iter().find(|unit| !has.contains(&unit.name)) {
        None => Ok(()),
        Some(missing) => {
            let (database, missing) = (step.database.clone(), missing.name.clone());
            let table = revisions.version_table.to_string();
            Err((StepError::Program(Box::new(ProgramFailed::NotApplied { database, table, missing })), true))
        }
    }
}

async fn has_now(context: &Context<'_>, step: &Step, revisions: &Revisions) -> Partly<BTreeSet<String>> {
    let failed = |source| (StepError::Database { database: step.database.clone(), source }, true);
    let mut session = session(step, context).await?;
    let current = alembic::current(&mut session.connection, &revisions.version_table).await.map_err(failed)?;
    Ok(revisions.applied(&current).unwrap_or_default())
}
