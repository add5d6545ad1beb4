//! `migrate rollback`: from the journal and the store; the plan file is needed only to find the store.

mod price;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::event::Event;
use crate::failure::{Aftermath, Blame, Exit, Failure, OrFail};
use crate::journal::entry::Outcome;
use crate::journal::state::{Restore, RunState};
use crate::names::DatabaseName;
use crate::outside::clock;
use crate::outside::store::Store;
use crate::plan::Plan;
use crate::run::choose::Asked;
use crate::run::report::RunReport;
use crate::run::rollback::{
    Down, Look, Prospect, Prospects, Request, RollbackError, Way, give_up, known, no_later_run, prospects, rollback,
};
use crate::run::selective;
use crate::run::undo::Ahead;
use crate::verify::CheckResult;

use super::Ended;
use super::args::{RollbackArgs, Via};
use super::context::{Context, only};
use super::text::{bytes, count, seconds};

/// Runs it.
///
/// # Errors
/// What stood in the way, or what went wrong.
pub async fn run(context: &Context<'_>, args: RollbackArgs) -> Ended {
    // A plan that cannot be read must not stand between a responder and the way back: with --store it is not read at all.
    let plan = if args.store.is_none() { Some(context.plan()?) } else { None };
    let store = context.store(plan.as_ref(), args.store.as_deref())?;
    let target = plan.as_ref().map(|plan| &plan.target.name);
    let state = context.run_state(&store, args.run.as_ref(), target).await?;
    let only = only(args.only);
    known(&state).map_err(|error| still_changed(&state, error))?;
    no_later_run(&store, &state).await.or_blame(Blame::Drift)?;
    if state.changed().next().is_none() && state.outcome.is_some() {
        return nothing(context, &state);
    }
    let checkout = plan.clone();
    let plan = stored_plan(context, &store, &state, only.as_ref(), plan).await?;
    let way = match args.via {
        Via::Auto => Way::Exchange(Asked::Auto),
        Via::Standby => Way::Exchange(Asked::Standby),
        Via::Snapshot => Way::Exchange(Asked::Snapshot),
        Via::Down => Way::Down(Down { plan: &plan, checkout: checkout.as_ref() }),
    };
    if args.save_writes && matches!(args.via, Via::Down) {
        return Err(Failure::untouched(Blame::Usage, NothingToSave));
    }
    if let (true, Some(why)) = (args.save_writes, plan.store.unknown_recipients.clone()) {
        return Err(Failure::untouched(Blame::Usage, UnknownRecipients { why }));
    }
    let whole = match &only {
        Some(_) => context.stored_plan(&store, &state, None).await.ok(),
        None => None,
    };
    let (save_writes, checks) = (args.save_writes.then_some(&plan.store.encrypt_to[..]), whole.as_ref());
    let only_these = only.as_ref();
    let request = Request {
        state: &state,
        way,
        only: only_these,
        settings: &plan.run,
        why: "request",
        message: None,
        save_writes,
        checks,
        hooks: &plan,
    };
    let look = match args.yes && !args.dry_run {
        true => Look::Ways,
        false => Look::Price(Down { plan: &plan, checkout: checkout.as_ref() }),
    };
    let ahead = match prospects(context.world, &store, &plan.databases, &request, look).await {
        Ok(ahead) => ahead,
        Err(error) => {
            if matches!(error, RollbackError::NoSnapshot { .. }) && state.outcome.is_none() && !args.dry_run {
                context.console.confirm(args.yes, "It can only be closed.", &[state.run.to_string()])?;
                give_up(context.world, &store, &plan, &state).await?;
            }
            return Err(still_changed(&state, error));
        }
    };
    let back = ahead.names().into_iter().cloned().collect();
    let torn = if only.is_some() { selective::torn(&plan, &state, &back) } else { Vec::new() };
    if args.dry_run {
        return dry(context, &state, &ahead, &torn);
    }
    let question = text(&state, &ahead) + &inconsistent(&torn);
    let words: Vec<String> = match ahead.names().as_slice() {
        [] => vec![state.run.to_string()],
        names => names.iter().map(ToString::to_string).collect(),
    };
    context.console.confirm(args.yes, &question, &words)?;
    let mut report = rollback(context.world, &store, &plan.databases, &request).await?;
    let unmade = (only.is_some() && checks.is_none())
        .then(|| "the checks were not made: the URLs of the other databases are not at hand".to_owned());
    for note in torn.into_iter().chain(unmade) {
        context.world.tell(Event::Noted(note.clone()));
        report.notes.push(note);
    }
    let exit = super::apply::told(context.console, &report, None)?;
    Ok(if report.checks.iter().all(CheckResult::holds) { exit } else { Exit::CheckFailed })
}

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("--save-writes encrypts rows as the plan does its archives, and it is not known to whom: {why}")]
#[diagnostic(
    code("usage.save_writes"),
    help("Set what is missing, or leave --save-writes out: the replaced database keeps what was written.")
)]
struct UnknownRecipients {
    why: String,
}

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("--save-writes is for databases that are exchanged: down scripts keep what was written since")]
#[diagnostic(code("usage.save_writes"), help("Leave it out, or go back by another way."))]
struct NothingToSave;

/// What does not fit together afterwards, for people.
fn inconsistent(torn: &[String]) -> String {
    if torn.is_empty() {
        return String::new();
    }
    let lines: String = torn.iter().map(|it| format!("  {it}\n")).collect();
    format!("Inconsistent afterwards, since these go back alone:\n{lines}")
}

/// The run's own plan, with the URLs of today's environment. A run that died before it kept its plan has changed nothing;
/// closing it needs the plan file's databases for their locks alone.
async fn stored_plan(
    context: &Context<'_>,
    store: &Store,
    state: &RunState,
    only: Option<&BTreeSet<DatabaseName>>,
    plan: Option<Plan>,
) -> Result<Plan, Failure> {
    // Only what is to be restored has to be reached. A run that may be under way is told by the locks of all its databases.
    let changed: BTreeSet<DatabaseName> = state.changed().map(|it| it.identity.name.clone()).collect();
    let needed = only.or(Some(&changed).filter(|changed| !changed.is_empty()));
    match (context.stored_plan(store, state, needed).await, plan) {
        (Err(_), Some(plan)) if state.changed().next().is_none() => Ok(plan),
        // It cannot be taken back here: that is no wrong usage, and what the run changed stays changed.
        (Err(failure), _) if failure.blame == Blame::Work => {
            let changed = state.changed().map(|it| it.identity.name.clone()).collect();
            Err(Failure { aftermath: Aftermath::changed(state, changed, true), ..failure })
        }
        (stored, _) => stored,
    }
}

fn still_changed(state: &RunState, error: RollbackError) -> Failure {
    let changed: Vec<DatabaseName> = state.changed().map(|it| it.identity.name.clone()).collect();
    if matches!(error, RollbackError::UnknownDatabase { .. }) {
        return Failure::untouched(Blame::Usage, error);
    }
    let blame = if error.is_interruption() { Blame::Interrupted } else { Blame::Work };
    Failure { blame, aftermath: Aftermath::changed(state, changed, true), error: Box::new(error) }
}

fn nothing(context: &Context<'_>, state: &RunState) -> Ended {
    let target = state.target.as_ref().expect("a run without a target is of a newer version, which was refused");
    let mut report = RunReport::new(target);
    report.run = Some(state.run.clone());
    for (name, it) in &state.databases {
        if let Restore::Swapped(swap) = &it.restore {
            let line = report.database(name);
            (line.rolled_back, line.via, line.kept_as) = (true, Some(it.via(swap)), Some(swap.kept_as.clone()));
        } else if it.undone {
            let line = report.database(name);
            (line.rolled_back, line.via) = (true, Some("down"));
        }
    }
    if state.outcome == Some(Outcome::RolledBack) {
        let when = clock::readable(state.last_at);
        context.world.tell(Event::Noted(format!("run {} was rolled back already, at {when}", state.run)));
    }
    report.outcome = Some(Outcome::NothingToDo);
    super::apply::told(context.console, &report, None)
}

fn dry(context: &Context<'_>, state: &RunState, ahead: &Prospects, torn: &[String]) -> Ended {
    if context.console.json {
        let mut document = json!({ "run": state.run, "target": state.target, "dry_run": true, "inconsistent": torn });
        match ahead {
            Prospects::Exchange(all) => document["databases"] = json!(all),
            Prospects::Down(ahead) => {
                document["databases"] = ahead.databases.iter().map(|name| database(state, ahead, name)).collect();
                document["undo"] = json!(ahead.units);
            }
        }
        context.console.print_json(&document);
    } else {
        context.console.print(&(text(state, ahead) + &inconsistent(torn) + "Nothing was done.\n"));
    }
    Ok(Exit::Done)
}

fn database(state: &RunState, ahead: &Ahead, name: &DatabaseName) -> Value {
    let here = ahead.units.iter().filter(|unit| unit.database == *name);
    let undo: Vec<String> = here.flat_map(|unit| unit.names()).collect();
    json!({ "name": name, "dbname": state.databases[name].identity.dbname, "via": "down", "undo": undo })
}

fn text(state: &RunState, ahead: &Prospects) -> String {
    let mut text = format!("Rollback of run {} ({})\n", state.run, state.word());
    if ahead.names().is_empty() {
        text += "  No database is changed by it; it will be closed as rolled back.\n";
    }
    text + &match ahead {
        Prospects::Exchange(all) => exchanges(all),
        Prospects::Down(ahead) => undoes(ahead),
    }
}

fn undoes(ahead: &Ahead) -> String {
    let mut text = String::new();
    for (at, unit) in ahead.units.iter().enumerate() {
        text += &format!("{}. on {}: undo {}\n", at + 1, unit.database, unit.names().join(", "));
    }
    if !ahead.units.is_empty() {
        text += "What was written to the databases since stays in them, as far as the down scripts leave it.\n";
    }
    text
}

fn exchanges(ahead: &[Prospect]) -> String {
    price::summary(ahead) + &ahead.iter().map(exchange).collect::<String>()
}

fn exchange(it: &Prospect) -> String {
    let called = if it.name.as_str() == it.dbname { String::new() } else { format!(" (database {})", it.dbname) };
    let mut text = format!("  {}{called}: {}\n    why: {}\n", it.name, what(it), it.why);
    text += &match &it.kept_as {
        Some(kept) => format!("    kept: the database as it is now, as {kept}\n"),
        None => "    kept: nothing, the database is gone\n".into(),
    };
    text += &it.in_the_way.iter().map(|it| format!("    IN THE WAY: {it}\n")).collect::<String>();
    text += &it.notes.iter().map(|it| format!("    note: {it}\n")).collect::<String>();
    text + &it.price.as_ref().map(price::text).unwrap_or_default()
}

/// What would be done.
fn what(it: &Prospect) -> String {
    let at = clock::readable(it.taken_at);
    let (Some(rows), Some(stored)) = (it.rows, it.stored_bytes) else {
        return format!("exchange it for its standby of {at}, {}", bytes(it.bytes));
    };
    let (rows, stored, all) = (count(rows), bytes(stored), bytes(it.bytes));
    let drilled = it.drilled.as_ref().filter(|it| it.passed());
    let drilled =
        drilled.map(|it| format!("; restored in {} by a drill at {}", seconds(it.seconds), clock::readable(it.at)));
    format!(
        "restore the snapshot of {at}, {rows} rows, {stored} to read, {all} to write{}",
        drilled.unwrap_or_default()
    )
}
