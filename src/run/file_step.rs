//! Steps whose migrations are files of SQL: each one transaction with its ledger row, or statement by statement.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::event::Event;
use crate::kind::Migration;
use crate::kind::blockers::Blocker;
use crate::kind::migration::{self, Direction, Session, Setting};
use crate::kind::refinery_history;
use crate::names::DatabaseName;
use crate::outside::interrupt::Interrupt;
use crate::plan::Step;
use crate::world::World;

use super::going_on::GoingOn;
use super::ready::Ready;
use super::step::{Context, Partly, StepError};

/// The session for a step: the one that preflight left, or a new one.
pub(super) async fn session<'a>(step: &Step, context: &Context<'a>) -> Partly<Session<'a>> {
    let (url, application) = (&context.plan.databases[&step.database].url, context.application());
    if let Some(spare) = context.ready(&step.database, Ready::session).flatten()
        && let Some(mut session) = spare.into_session(url, &application).await
    {
        // A program may have made a function since preflight asked for them.
        if context.plan.steps.iter().any(|it| it.kind.runs_alone()) {
            session.leftovers.expect();
        }
        return Ok(session);
    }
    let opened = Session::open(url, &application).await;
    opened.map_err(|source| (StepError::Database { database: step.database.clone(), source }, false))
}

/// Applies files, each with its place in its step's list.
pub(super) async fn apply_files(
    context: &Context<'_>,
    step: &Step,
    files: &[(usize, &Migration)],
    going_on: &BTreeMap<String, GoingOn>,
    stop: &Interrupt,
    mine: &mut Vec<String>,
) -> Partly<()> {
    let mut session = session(step, context).await?;
    let around = |it: &Migration| Around { going_on: going_on.get(&it.name), ..Around::default() };
    let files = files.iter().map(|(place, file)| (*place, *file, around(file))).collect();
    apply_each(context, step, &mut session, files, stop, mine).await
}

/// Applies one after the other, until somebody wants to stop. The last commit waits for the disk, and all before it are there with it.
async fn apply_each(
    context: &Context<'_>,
    step: &Step,
    session: &mut Session<'_>,
    files: Vec<(usize, &Migration, Around<'_>)>,
    stop: &Interrupt,
    mine: &mut Vec<String>,
) -> Partly<()> {
    let count = files.len();
    let ended = async {
        for (at, (place, file, around)) in files.into_iter().enumerate() {
            if !context.may_begin(place, stop).await {
                break;
            }
            let durable = at + 1 == count;
            apply_file(context, step, session, file, &Around { durable, ..around }).await?;
            mine.push(file.name.clone());
        }
        Ok(())
    };
    let ended = ended.await;
    if (1..count).contains(&mine.len()) {
        migration::settle(session).await;
    }
    ended
}

/// What a migration is surrounded by, besides the ledger.
#[derive(Default)]
struct Around<'a> {
    before: &'a [String],
    also: &'a [String],
    going_on: Option<&'a GoingOn>,
    durable: bool,
}

/// Tells whoever listens that a migration did not get its lock.
pub(super) fn told_of_retries<'a>(
    world: &'a World,
    database: &'a DatabaseName,
    name: &'a str,
) -> impl Fn(u32, Duration, &[Blocker]) + Send + Sync + 'a {
    move |attempt, wait, blockers| {
        world.tell(Event::LockMissed {
            database: database.clone(),
            name: name.to_owned(),
            attempt,
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            blockers: blockers.iter().map(Blocker::to_string).collect(),
        });
    }
}

/// Tells whoever listens that a migration waits for older transactions.
pub(super) fn told_of_older<'a>(
    world: &'a World,
    database: &'a DatabaseName,
    name: &'a str,
) -> impl Fn(&[Blocker]) + Send + Sync + 'a {
    move |older| {
        world.tell(Event::OlderTransactions {
            database: database.clone(),
            name: name.to_owned(),
            transactions: older.iter().map(Blocker::to_string).collect(),
        });
    }
}

async fn apply_file(
    context: &Context<'_>,
    step: &Step,
    session: &mut Session<'_>,
    file: &Migration,
    around: &Around<'_>,
) -> Partly<()> {
    if let Some(it) = around.going_on {
        let (database, name) = (step.database.clone(), file.name.clone());
        context.world.tell(Event::GoingOn { database, name, how: it.to_string() });
    }
    let (author, has_ledger) = (context.author(step), context.has_ledger(&step.database));
    let setting = Setting {
        direction: Direction::Forward { author: &author, has_ledger },
        before: around.before,
        also: around.also,
        meant: around.going_on.map(|it| &it.meant),
        durable: around.durable,
        limits: context.plan.limits(step).with(file.budget),
        on_retry: &told_of_retries(context.world, &step.database, &file.name),
        on_older: &told_of_older(context.world, &step.database, &file.name),
    };
    match migration::carry(session, file, &setting).await {
        Ok(took) => {
            context.record(step, &file.name);
            context.world.tell(Event::MigrationApplied {
                database: step.database.clone(),
                step: step.name.clone(),
                name: file.name.clone(),
                seconds: took.as_secs_f64(),
            });
            Ok(())
        }
        Err(source) => {
            let changed = source.may_have_changed(file);
            Err((StepError::Migration { database: step.database.clone(), source }, changed))
        }
    }
}

/// Applies files as refinery would, with its history.
pub(super) async fn apply_refinery(
    context: &Context<'_>,
    step: &Step,
    files: &[Migration],
    wanted: &[usize],
    stop: &Interrupt,
    mine: &mut Vec<String>,
) -> Partly<()> {
    let database = || step.database.clone();
    let mut session = session(step, context).await?;
    let history = refinery_history::history(&mut session.connection, files).await;
    let history = history.map_err(|source| (StepError::Database { database: database(), source }, false))?;
    let history = history.map_err(|source| (StepError::Refinery { database: database(), source }, false))?;
    let wanted: BTreeSet<&usize> = wanted.iter().collect();
    let around = |row| Around {
        before: std::slice::from_ref(&history.create_table),
        also: std::slice::from_ref(row),
        ..Around::default()
    };
    let pending = history.pending.iter().filter(|it| wanted.contains(&it.index));
    let files = pending.map(|it| (it.index, &files[it.index], around(&it.insert_row))).collect();
    apply_each(context, step, &mut session, files, stop, mine).await
}
