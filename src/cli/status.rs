//! `migrate status`: what each database has, what it lacks, which run was the last, and whether one needs somebody.

mod open;

use serde::Serialize;

use crate::failure::{Blame, Exit, Failure, OrFail};
use crate::journal::state::RunState;
use crate::names::{DatabaseName, RunId, TargetName};
use crate::outside::interrupt::Interrupted;
use crate::outside::postgres::{MAINTENANCE, connect};
use crate::plan::Plan;
use crate::run::lock::who_holds;
use crate::run::step;
use crate::run::survey::{Found, Survey, survey};
use crate::snapshot::obstacles::Prepared;

use super::Ended;
use super::context::Context;
use super::text::plural;
use open::Open;

#[derive(Serialize)]
struct Status {
    target: TargetName,
    databases: Vec<Line>,
    unfinished_run: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unfinished_state: Option<&'static str>,
    /// How far that run got, and what each way out would do.
    #[serde(skip_serializing_if = "Option::is_none")]
    unfinished: Option<Open>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock_held: Option<String>,
}

#[derive(Serialize)]
struct Line {
    name: DatabaseName,
    reachable: bool,
    applied: usize,
    pending: Vec<Item>,
    changed: Vec<Item>,
    last_run: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown_steps: Vec<String>,
    /// Repeatable migrations without a file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gone: Vec<Item>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    invalid_indexes: Vec<InvalidIndex>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    prepared_transactions: Vec<Prepared>,
}

#[derive(Serialize)]
struct InvalidIndex {
    index: String,
    left_by: String,
}

#[derive(Serialize)]
struct Item {
    step: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// Runs it. Databases that cannot be reached are shown as such; that is no failure of `status`.
///
/// # Errors
/// The plan is invalid, or the store cannot be read.
pub async fn run(context: &Context<'_>) -> Ended {
    let plan = context.plan()?;
    let store = context.store(Some(&plan), None)?;
    let (survey, unfinished) =
        tokio::join!(survey(context.world, &plan, None), crate::run::latest(&store, &plan.target.name));
    if context.world.interrupt.requested() {
        return Err(Failure::untouched(Blame::Interrupted, Interrupted));
    }
    let unfinished = unfinished.or_fail()?.filter(RunState::unfinished);
    let status = Status {
        target: plan.target.name.clone(),
        databases: plan.databases.keys().map(|name| line(&plan, &survey, name)).collect(),
        unfinished_state: unfinished.as_ref().map(RunState::word),
        unfinished: unfinished.as_ref().map(|it| Open::of(it, &plan, &survey)),
        unfinished_run: unfinished.map(|it| it.run),
        lock_held: lock_holder(&plan).await,
    };
    if context.console.json {
        context.console.print_json(&status);
    } else {
        context.console.print(&text(&status));
    }
    Ok(Exit::Done)
}

/// Who holds the lock of a database of the plan. What cannot be asked is shown as unreachable elsewhere.
async fn lock_holder(plan: &Plan) -> Option<String> {
    for database in plan.databases.values() {
        let Ok(mut session) = connect(&database.url.with_dbname(MAINTENANCE), "migrate status").await else { continue };
        if let Ok(Some(holder)) = who_holds(&mut session, database.url.dbname()).await {
            return Some(format!("{}: the lock is held {holder}", database.name));
        }
    }
    None
}

fn line(plan: &Plan, survey: &Survey, name: &DatabaseName) -> Line {
    let found = survey.found(name);
    let error = survey.databases.get(name).and_then(|it| it.as_ref().err());
    let mut errors: Vec<String> = error.map(|error| with_cause(error)).into_iter().collect();
    let (mut pending, mut changed, mut gone) = (Vec::new(), Vec::new(), Vec::new());
    for step in plan.steps.iter().filter(|step| step.database == *name) {
        let Some(state) = survey.steps.get(&step.name) else { continue };
        errors
            .extend(state.unread.as_ref().map(|error| format!("step `{}`: {}", step.name, with_cause(error.as_ref()))));
        let item = |name: &str| Item { step: step.name.to_string(), name: name.into(), reason: None, detail: None };
        let note = state.copy.as_ref().filter(|_| state.has_work()).map(ToString::to_string);
        let repeatable = |at: usize| Some(format!("repeatable, {}", state.repeatable(step, *state.pending.get(at)?)?));
        let going_on = |name: &str| state.going_on.get(name).map(ToString::to_string);
        let detail = |at: usize, name: &str| going_on(name).or_else(|| note.clone()).or_else(|| repeatable(at));
        let names = step::names(step, state);
        pending.extend(names.iter().enumerate().map(|(at, name)| Item { detail: detail(at, name), ..item(name) }));
        gone.extend(state.gone.iter().map(|name| item(name)));
        changed.extend(state.drift.iter().map(|drift| Item {
            reason: Some(drift.reason()),
            detail: Some(drift.to_string()),
            ..item(drift.name())
        }));
    }
    Line {
        name: name.clone(),
        reachable: found.is_some(),
        applied: found.map_or(0, |it| it.applied),
        pending,
        changed,
        gone,
        last_run: found.and_then(|it| it.last_run.clone()),
        error: (!errors.is_empty()).then(|| errors.join("\n")),
        unknown_steps: found.map(|it| it.strange_steps.clone()).unwrap_or_default(),
        invalid_indexes: found.map(invalid_indexes).unwrap_or_default(),
        prepared_transactions: found.map(|it| it.prepared.clone()).unwrap_or_default(),
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

fn invalid_indexes(found: &Found) -> Vec<InvalidIndex> {
    let indexes = found.invalid_indexes.iter().cloned();
    indexes.map(|(index, left_by)| InvalidIndex { index, left_by }).collect()
}

fn text(status: &Status) -> String {
    let mut text = format!("Target `{}`\n", status.target);
    for it in &status.databases {
        if let (false, Some(error)) = (it.reachable, &it.error) {
            text += &format!("{}: unreachable, {error}\n", it.name);
            continue;
        }
        let last = it.last_run.as_ref().map(|run| format!(", last changed by run {run}")).unwrap_or_default();
        text += &format!("{}: {} applied, {} pending{last}\n", it.name, it.applied, it.pending.len());
        for error in it.error.iter().flat_map(|error| error.lines()) {
            text += &format!("  ERROR    {error}\n");
        }
        for item in &it.pending {
            let note = item.detail.as_ref().map(|detail| format!("  [{detail}]")).unwrap_or_default();
            text += &format!("  pending  {}/{}{note}\n", item.step, item.name);
        }
        for item in &it.changed {
            text +=
                &format!("  CHANGED  {}\n", item.detail.as_deref().unwrap_or_default().replace('\n', "\n         "));
        }
        for item in &it.gone {
            text += &format!("  note: {}/{} is repeatable and has no file any more\n", item.step, item.name);
        }
        for InvalidIndex { index, left_by } in &it.invalid_indexes {
            text += &format!(
                "  note: the index {index}, which {left_by} left, is invalid: `migrate repair index {left_by}` drops it\n"
            );
        }
        for prepared in &it.prepared_transactions {
            text += &format!(
                "  note: {prepared}, holds its locks, and keeps the database from being exchanged or copied; {}\n",
                prepared.remedy()
            );
        }
        if !it.unknown_steps.is_empty() {
            let steps = plural(it.unknown_steps.len(), "step");
            text +=
                &format!("  note: its ledger knows {steps} that this plan does not: {}\n", it.unknown_steps.join(", "));
        }
    }
    if let Some(held) = &status.lock_held {
        text += &format!("{held}\n");
    }
    match (&status.unfinished_run, &status.lock_held) {
        (Some(run), Some(_)) => text + &format!("Run {run} is at work.\n"),
        (Some(_), None) => text + &status.unfinished.as_ref().map(Open::text).unwrap_or_default(),
        (None, _) => text + "No run is unfinished.\n",
    }
}
