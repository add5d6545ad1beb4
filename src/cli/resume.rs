//! `migrate resume`: what a run meant that was cut off is finished; files and programs come from the checkout at hand.

use std::io::IsTerminal;

use crate::failure::{Blame, Failure};
use crate::journal::state::RunState;
use crate::plan::Plan;
use crate::run::recover::{Stand, outlook, stand};
use crate::run::report::RunReport;
use crate::run::resume::resume;
use crate::run::survey::survey;

use super::Ended;
use super::args::ResumeArgs;
use super::context::Context;

/// Runs it.
///
/// # Errors
/// The plan is invalid, there is no such run, or it was not confirmed. Everything else is told here, with a report.
pub async fn run(context: &Context<'_>, args: ResumeArgs) -> Ended {
    let plan = context.plan()?;
    let store = context.store(Some(&plan), None)?;
    let state = context.run_state(&store, args.run.as_ref(), Some(&plan.target.name)).await?;
    // What was meant was confirmed when the run began: without a terminal there is nobody to ask again.
    if !args.yes && std::io::stdin().is_terminal() && !matches!(stand(&state), Stand::Ended(_)) {
        let question = question(context, &plan, &state).await?;
        context.console.confirm(false, &question, &[state.run.to_string()])?;
    }
    let kept = context.stored_plan(&store, &state, None).await.ok();
    match resume(context.world, &plan, kept.as_ref(), &store, &state).await {
        Ok(applied) => super::apply::told(context.console, &applied.report, applied.failure),
        Err(failure) if failure.blame == Blame::Usage => Err(failure),
        Err(failure) => {
            let mut report = RunReport::new(&plan.target.name);
            report.run = Some(state.run.clone());
            report.outcome = super::apply::outcome_of(&failure);
            super::apply::told(context.console, &report, Some(failure))
        }
    }
}

async fn question(context: &Context<'_>, plan: &Plan, state: &RunState) -> Result<String, Failure> {
    if let Stand::GoingBack(it) = stand(state) {
        let via = it.via.as_deref().unwrap_or("snapshot");
        return Ok(format!("The rollback of run {} ({via}) was cut off, and will be finished.", state.run));
    }
    let survey = survey(context.world, plan, None).await.whole(plan)?;
    let ahead = outlook(state, plan, &survey).names;
    Ok(match ahead.as_slice() {
        [] => format!("Run {} has nothing left to apply: its checks are made, and it ends.", state.run),
        names => format!("Run {} goes on, and applies {}.", state.run, names.join(", ")),
    })
}
