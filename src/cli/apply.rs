//! `migrate apply`.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::failure::{Aftermath, Blame, Exit, Failure, OrFail};
use crate::journal::entry::Outcome;
use crate::plan::Plan;
use crate::plan::hooks::Moment;
use crate::run::apply::{Applied, ApplyOptions, apply};
use crate::run::report::{DatabaseReport, RunReport};
use crate::run::saved::{Prospectus, SavedPlan};
use crate::run::survey::survey;

use super::args::ApplyArgs;
use super::console::Console;
use super::context::{Context, only_of};
use super::text::{bytes, seconds};
use super::{Ended, trouble};

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("the target `{0}` is protected: apply wants a saved plan")]
#[diagnostic(
    code("usage.protected"),
    help("Run `migrate plan -t {0} --out release.json`, read it, then `migrate apply -t {0} release.json`.")
)]
struct Protected(String);

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("--no-snapshot is not for the protected target `{0}`")]
#[diagnostic(code("usage.protected"), help("A protected target always keeps a way back."))]
struct ProtectedSnapshot(String);

/// Runs it.
///
/// # Errors
/// The plan is invalid. Everything else is told here, with a report.
pub async fn run(context: &Context<'_>, args: ApplyArgs) -> Ended {
    let plan = context.plan()?;
    let target = plan.target.name.clone();
    match prepared(context, &plan, args).await {
        Ok(applied) => told(context.console, &applied.report, applied.failure),
        Err(failure) if failure.blame == Blame::Usage => Err(failure),
        Err(failure) => {
            let mut report = RunReport::new(&target);
            report.outcome = outcome_of(&failure);
            told(context.console, &report, Some(failure))
        }
    }
}

/// The outcome of a command that did not get to work.
#[must_use]
pub fn outcome_of(failure: &Failure) -> Option<Outcome> {
    match (&failure.aftermath, failure.blame) {
        // What an earlier process left is as it was.
        (Aftermath::Mixed { .. }, _) => None,
        (_, Blame::Busy | Blame::Drift) => Some(Outcome::Refused),
        _ => Some(Outcome::Failed),
    }
}

async fn prepared(context: &Context<'_>, plan: &Plan, args: ApplyArgs) -> Result<Applied, Failure> {
    protection(plan, &args)?;
    let options = ApplyOptions {
        only: only_of(plan, args.only)?,
        no_snapshot: args.reason,
        saved: args.saved_plan.as_deref().map(read_saved).transpose()?,
    };
    let store = context.store(Some(plan), None)?;
    if !args.yes {
        let survey = survey(context.world, plan, options.only.as_ref()).await.whole(plan)?;
        let prospectus = Prospectus::new(plan, &survey, options.only.as_ref()).with_hazards(plan, &survey);
        let prospectus = prospectus.with_standbys(plan, Some(&store)).await.or_fail()?;
        let question = super::plan::text(&prospectus);
        context.console.confirm(false, &question, &[plan.target.name.to_string()])?;
    }
    apply(context.world, plan, &store, &options).await
}

fn protection(plan: &Plan, args: &ApplyArgs) -> Result<(), Failure> {
    let name = plan.target.name.to_string();
    if plan.target.protected && args.no_snapshot {
        return Err(Failure::untouched(Blame::Usage, ProtectedSnapshot(name)));
    }
    if plan.target.protected && args.saved_plan.is_none() {
        return Err(Failure::untouched(Blame::Usage, Protected(name)));
    }
    Ok(())
}

fn read_saved(path: &Path) -> Result<SavedPlan, Failure> {
    SavedPlan::read(path).or_blame(Blame::Usage)
}

/// A report, and the error if there is one.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    report: &'a RunReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
}

/// Prints what a run came to.
///
/// # Errors
/// Never: the failure is told here, with the report.
pub fn told(console: &Console, report: &RunReport, failure: Option<Failure>) -> Ended {
    if console.json {
        console.print_json(&Document { report, error: failure.as_ref().map(trouble::json) });
    } else if report.run.is_some() || failure.is_none() {
        console.print(&text(report));
    }
    Ok(match failure {
        None => Exit::Done,
        Some(failure) => {
            console.say(&trouble::text(console, &failure));
            failure.exit()
        }
    })
}

/// The report for people.
#[must_use]
pub fn text(report: &RunReport) -> String {
    let run = report.run.as_ref().map_or_else(|| format!("Target `{}`", report.target), |run| format!("Run {run}"));
    let outcome = report.outcome.map_or("left unfinished", |outcome| match outcome {
        Outcome::Succeeded => "succeeded",
        Outcome::Failed => "failed",
        Outcome::RolledBack => "rolled back",
        Outcome::Halted => "halted, as the plan says",
        Outcome::Refused => "refused",
        Outcome::NothingToDo => "nothing to do",
    });
    let stays = |it: &DatabaseReport| it.applied > 0 && !it.rolled_back;
    let in_part = report.outcome == Some(Outcome::RolledBack) && report.databases.iter().any(stays);
    let part = if in_part { " in part" } else { "" };
    let mut text = format!("{run}: {outcome}{part}, in {}\n", seconds(report.seconds));
    for it in report.databases.iter().filter(|it| it.applied > 0 || it.rolled_back) {
        let back = match (&it.kept_as, it.rolled_back) {
            (None, true) if it.via == Some("down") => ", rolled back by undoing them; nothing else was touched".into(),
            (Some(kept), true) => {
                let way = if it.via == Some("standby") { "by its standby" } else { "from its snapshot" };
                format!(", rolled back {way}; the replaced database is kept as {kept}")
            }
            (None, true) => ", rolled back".into(),
            (_, false) if in_part => ", and not rolled back".into(),
            _ => String::new(),
        };
        text += &format!("  {}: {} applied{back}\n", it.name, it.applied);
    }
    if report.databases.iter().any(|it| it.kept_as.is_some()) {
        text += "  Replaced databases take up disk space until you drop them: `migrate snapshot prune --replaced`.\n";
    }
    for it in &report.standbys {
        let (size, took) = (bytes(it.bytes), seconds(it.seconds));
        text += &format!(
            "  {}: standby {}, {size}, copied in {took}, kept until `migrate snapshot prune --replaced`\n",
            it.database, it.dbname
        );
    }
    for it in &report.saved_writes {
        text += &format!("  {}: {} rows that were written since are in {}\n", it.database, it.rows, it.folder);
    }
    for it in &report.hooks {
        let detail = it.detail.as_ref().map(|why| format!(", {why}")).unwrap_or_default();
        let waits = it.on == Moment::Unfreeze.word() && it.detail.is_some();
        let waits = if waits { "; whoever it should tell to go on was not told" } else { "" };
        text += &format!("  hook on {}: {} {}{detail}{waits}\n", it.on, it.what, it.outcome);
    }
    for it in &report.checks {
        text += &format!("  check {}: {}, {}\n", it.name, it.outcome, it.detail);
    }
    text
}
