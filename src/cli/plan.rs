//! `migrate plan`: what apply would do, in order.

use std::path::{Path, PathBuf};

use chrono::TimeDelta;

use crate::failure::{Blame, Exit, OrFail};
use crate::outside::clock;
use crate::outside::store::Store;
use crate::run::saved::{Place, Prospectus, Stretch, Unit, Work};
use crate::run::standby::Cost;
use crate::run::survey::survey;

use super::Ended;
use super::args::PlanArgs;
use super::context::Context;
use super::text::{bytes, plural, seconds};

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{} cannot be written", path.display())]
#[diagnostic(code("plan.out"), help("Name another file with --out."))]
struct CannotSave {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// Runs it.
///
/// # Errors
/// The plan is invalid, a database is unreachable, or files and ledgers disagree.
pub async fn run(context: &Context<'_>, args: &PlanArgs) -> Ended {
    let plan = context.plan()?;
    let survey = survey(context.world, &plan, None).await.whole(&plan)?;
    survey.no_drift(&plan).or_blame(Blame::Drift)?;
    let store = context.store(Some(&plan), None).ok();
    let prospectus = Prospectus::new(&plan, &survey, None).with_hazards(&plan, &survey);
    let prospectus = prospectus.with_standbys(&plan, store.as_ref()).await.or_fail()?;
    if let Some(path) = &args.out {
        save(path, &prospectus).or_blame(Blame::Usage)?;
    }
    let prospectus = measured(context, plan.store.url.as_deref(), prospectus).await;
    if context.console.json {
        context.console.print_json(&prospectus);
    } else {
        context.console.print(&text(&prospectus));
        if let Some(path) = &args.out {
            context
                .console
                .print(&format!("Saved as {0}: apply exactly this with `migrate apply {0}`.\n", path.display()));
        }
    }
    Ok(if args.detailed_exitcode && prospectus.has_work() { Exit::WorkToDo } else { Exit::Done })
}

/// With what drills have measured. A plan is shown whether or not the store can be read: one that is not there yet has no drills.
async fn measured(context: &Context<'_>, store: Option<&str>, prospectus: Prospectus) -> Prospectus {
    let store = store.map(|url| Store::open_existing(url, &context.world.env));
    let Some(Ok(store)) = store else { return prospectus };
    match prospectus.clone().with_drills(&store).await {
        Ok(with) => with,
        Err(error) => {
            context.console.say(&format!("note: what drills have measured is not known: {error}\n"));
            prospectus
        }
    }
}

fn save(path: &Path, prospectus: &Prospectus) -> Result<(), CannotSave> {
    let text = serde_json::to_string_pretty(prospectus).expect("results have no map with keys that are not text");
    std::fs::write(path, text + "\n").map_err(|source| CannotSave { path: path.into(), source })
}

/// The prospectus for people.
#[must_use]
pub fn text(it: &Prospectus) -> String {
    let mut text = format!("Plan `{}` on target `{}`\n", it.plan, it.target);
    let pending: usize = it.steps.iter().map(|step| step.pending.len()).sum();
    if pending == 0 {
        text += "Nothing is pending.\n";
    }
    for (number, step) in it.steps.iter().enumerate() {
        text += &step_text(number + 1, step);
    }
    if !it.segments.is_empty() {
        let stretch = |it: &Stretch| match it.pending {
            1 => format!("{}/{}", it.step, it.first),
            _ => format!("{}/{} to {}", it.step, it.first, it.last),
        };
        text += &format!("In this order: {}\n", it.segments.iter().map(stretch).collect::<Vec<_>>().join(", "));
    }
    for check in &it.checks {
        text += &format!("Check {}: {} ({})\n", check.when, check.name, check.kind);
    }
    if pending > 0 {
        let snapshots: Vec<&str> = it.databases.iter().filter(|it| it.snapshot).map(|it| it.name.as_str()).collect();
        text += &format!("{} pending; snapshots first of: {}\n", plural(pending, "migration"), snapshots.join(", "));
        text.extend(it.databases.iter().filter(|it| it.snapshot).map(way_back));
    }
    text += &it.standbys.iter().map(|it| format!("Standby of {}: {}\n", it.database, cost(it))).collect::<String>();
    text + &format!("Digest {}\n", it.digest)
}

/// What a standby costs, in words.
pub(super) fn cost(it: &Cost) -> String {
    let how = match &it.measured {
        Some(run) => format!("at the rate measured in run {run}"),
        None => "an estimate: none was made yet".into(),
    };
    let (size, time) = (bytes(it.bytes), seconds(it.seconds));
    format!(
        "{size} more on the server's disk; its sessions are ended, and it cannot be reached for about {time} ({how})"
    )
}

/// How long a database would be on its way back, as far as it was measured.
fn way_back(it: &Place) -> String {
    let name = &it.name;
    match &it.drilled {
        None => format!("  restoring {name} was not measured: no drill was made\n"),
        Some(drill) if drill.passed() => {
            let (took, run, ago) = (seconds(drill.seconds), &drill.run, ago(clock::now() - drill.at));
            format!("  restoring {name} took {took} in the drill of run {run}, {ago}\n")
        }
        Some(drill) => format!("  the drill of {name} of run {} FAILED: {}\n", drill.run, drill.differences.join("; ")),
    }
}

/// In the largest unit that there is one of.
fn ago(time: TimeDelta) -> String {
    let units = [(time.num_days(), "day"), (time.num_hours(), "hour"), (time.num_minutes(), "minute")];
    match units.into_iter().find(|(number, _)| *number > 0) {
        Some((number, unit)) => format!("{} ago", plural(usize::try_from(number).unwrap_or(0), unit)),
        None => "just now".into(),
    }
}

fn step_text(number: usize, step: &Work) -> String {
    let after: Vec<&str> = step.after.iter().map(|name| name.as_str()).collect();
    let after = if after.is_empty() { String::new() } else { format!(", after {}", after.join(", ")) };
    let state = if step.pending.is_empty() { ": nothing pending" } else { "" };
    let mut text = format!("{number}. {} on {} ({}{after}){state}\n", step.name, step.database, step.kind);
    for duplicate in step.duplicate_numbers.iter().filter(|_| !step.pending.is_empty()) {
        text += &format!("   note: a number stands more than once, {duplicate}\n");
    }
    for name in &step.gone {
        text += &format!("   note: {name} is repeatable and was applied, and has no file any more\n");
    }
    for unit in &step.pending {
        text += &format!("   {}{}{}\n", unit.name, origin(step, unit), remarks(step, unit));
        for it in &unit.hazards {
            text += &format!("     {}[{}] line {}: {}\n", it.severity, it.rule, it.line, it.message);
        }
    }
    text
}

/// A revision's number says nothing of where it is written.
fn origin(step: &Work, unit: &Unit) -> String {
    match &unit.file {
        Some(file) if step.kind == "alembic" => format!("  {file}, sha256 {:.12}…", unit.checksum),
        _ => String::new(),
    }
}

fn remarks(step: &Work, unit: &Unit) -> String {
    let mut remarks: Vec<&str> = Vec::new();
    let repeatable = unit.repeatable.map(|why| format!("repeatable, {why}"));
    remarks.extend(repeatable.as_deref());
    if !unit.transactional {
        remarks.push("no transaction");
    }
    if step.kind != "copy" {
        remarks.push(if unit.reversible { "has a down" } else { "back by snapshot only" });
    }
    let after = (!unit.after.is_empty()).then(|| format!("after {}", unit.after.join(", ")));
    remarks.extend(after.as_deref());
    remarks.extend(unit.note.as_deref());
    if remarks.is_empty() { String::new() } else { format!("  [{}]", remarks.join("; ")) }
}
