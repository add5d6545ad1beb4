//! `migrate runs`: the runs in the store.

use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt};
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::{Blame, Exit, Failure, OrFail};
use crate::journal::entry::{Command, Entry};
use crate::journal::state::RunState;
use crate::journal::{self, JournalError};
use crate::names::{RunId, TargetName};
use crate::outside::clock;
use crate::version::THIS;

use super::Ended;
use super::args::RunsCommand;
use super::context::Context;
use super::text::{seconds, table};

/// Journals that are read side by side.
const AT_ONCE: usize = 8;

#[derive(Serialize)]
struct Line {
    run: RunId,
    target: Option<TargetName>,
    command: &'static str,
    outcome: &'static str,
    started_at: DateTime<Utc>,
    seconds: f64,
    /// The version of `migrate` that wrote entries which this one does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    newer: Option<String>,
}

/// Runs it.
///
/// # Errors
/// The store cannot be read, or there is no such run.
pub async fn run(context: &Context<'_>, command: RunsCommand) -> Ended {
    match command {
        RunsCommand::List { store } => list(context, store.as_deref()).await,
        RunsCommand::Show { run, store } => show(context, &run, store.as_deref()).await,
    }
}

async fn list(context: &Context<'_>, store: Option<&str>) -> Ended {
    let store = &context.store_alone(store)?;
    let runs = journal::runs(store).await.or_fail()?;
    let states = stream::iter(runs).map(|run| async move { journal::state(store, &run).await });
    let mut lines = Vec::new();
    for state in states.buffered(AT_ONCE).collect::<Vec<_>>().await {
        match state {
            Ok(state) => lines.push(line(state)),
            Err(JournalError::NoRun { .. }) => {}
            Err(error) => return Err(Failure::untouched(Blame::Work, error)),
        }
    }
    if context.console.json {
        context.console.print_json(&json!({ "runs": lines }));
    } else {
        context.console.print(&text(&lines));
    }
    Ok(Exit::Done)
}

fn line(state: RunState) -> Line {
    Line {
        outcome: state.word(),
        command: match state.command {
            Some(Command::Apply) => "apply",
            Some(Command::Snapshot) => "snapshot",
            Some(Command::Baseline) => "baseline",
            Some(Command::Repair) => "repair",
            None => "unknown",
        },
        seconds: (state.ended_at.unwrap_or(state.last_at) - state.started_at).as_seconds_f64(),
        run: state.run,
        target: state.target,
        started_at: state.started_at,
        newer: state.newer,
    }
}

fn text(lines: &[Line]) -> String {
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|it| {
            let target = it.target.as_ref().map(ToString::to_string).unwrap_or_default();
            let cells = [it.run.to_string(), target, it.command.into(), it.outcome.into()];
            let times = [clock::readable(it.started_at), seconds(it.seconds)];
            cells.into_iter().chain(times).collect()
        })
        .collect();
    if rows.is_empty() {
        return "There are no runs.\n".into();
    }
    let newer = lines.iter().filter_map(|it| Some(of_another(&it.run, it.newer.as_ref()?)));
    table(&["RUN", "TARGET", "COMMAND", "OUTCOME", "STARTED", "TOOK"], &rows) + &newer.collect::<String>()
}

async fn show(context: &Context<'_>, run: &RunId, store: Option<&str>) -> Ended {
    let store = context.store_alone(store)?;
    let entries = journal::read(&store, run).await.map_err(|error| {
        let blame = if matches!(error, JournalError::NoRun { .. }) { Blame::Usage } else { Blame::Work };
        Failure::untouched(blame, error)
    })?;
    let state = RunState::fold(run.clone(), &entries);
    if context.console.json {
        let word = state.word();
        context.console.print_json(&json!({ "run": run, "target": state.target, "outcome": word, "entries": entries }));
        return Ok(Exit::Done);
    }
    let lines: String = entries.iter().map(entry).collect();
    let newer = state.newer.as_ref().map(|version| of_another(run, version)).unwrap_or_default();
    context.console.print(&format!("Run {run}: {}\n{lines}{newer}", state.word()));
    Ok(Exit::Done)
}

/// What is to be known of a run that holds entries which this version does not know.
fn of_another(run: &RunId, version: &str) -> String {
    format!("note: run {run} holds entries of migrate {version} that this version ({THIS}) does not know\n")
}

/// One entry on one line: the time, the event, and its fields.
fn entry(entry: &Entry) -> String {
    let fact = serde_json::to_value(&entry.fact).unwrap_or_default();
    let event = fact.get("event").and_then(Value::as_str).unwrap_or("unknown").replace('_', " ");
    let fields = fact.as_object().into_iter().flatten().filter(|(name, _)| *name != "event");
    let fields: Vec<String> = fields.map(|(name, value)| format!("{name}={}", short(value))).collect();
    format!("{:>4}  {}  {event}  {}\n", entry.seq, clock::exact(entry.at), fields.join(" ")).replace("  \n", "\n")
}

fn short(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace('\n', " "),
        Value::Array(items) => items.iter().map(short).collect::<Vec<_>>().join(","),
        Value::Number(number) if number.is_f64() => format!("{:.3}", number.as_f64().unwrap_or_default()),
        Value::Object(fields) if fields.contains_key("kept_as") => {
            format!("{} (kept as {})", short(&fields["database"]), short(&fields["kept_as"]))
        }
        Value::Object(fields) => fields.get("name").or(fields.get("database")).map_or_else(|| value.to_string(), short),
        other => other.to_string(),
    }
}
