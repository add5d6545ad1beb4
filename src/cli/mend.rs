//! `migrate repair` and `migrate resolve`: the operator's word about single migrations.

use serde_json::json;

use crate::failure::Exit;
use crate::run::mend::{Word, accept, changed, resolve};

use super::Ended;
use super::args::{RepairCommand, ResolveArgs};
use super::context::Context;

/// `migrate repair checksum`.
///
/// # Errors
/// What stood in the way.
pub async fn repair(context: &Context<'_>, command: RepairCommand) -> Ended {
    let RepairCommand::Checksum { which, yes } = command;
    let plan = context.plan()?;
    let store = context.store(Some(&plan), None)?;
    let (survey, drift) = changed(context.world, &plan, &which).await?;
    let question = format!("{drift}\nThe file as it is now would be what the ledger says was applied; nothing is run.");
    context.console.confirm(yes, &question, &[which.to_string()])?;
    let run = accept(context.world, &plan, &store, &survey, &which, &drift).await?;
    if context.console.json {
        context.console.print_json(&json!({ "run": run, "repaired": which.to_string() }));
    } else {
        context.console.print(&format!("Run {run}: the ledger has the checksum of `{which}` as its file is now.\n"));
    }
    Ok(Exit::Done)
}

/// `migrate resolve`.
///
/// # Errors
/// What stood in the way.
pub async fn resolved(context: &Context<'_>, args: ResolveArgs) -> Ended {
    let plan = context.plan()?;
    let store = context.store(Some(&plan), None)?;
    let state = context.run_state(&store, Some(&args.run), Some(&plan.target.name)).await?;
    let said = Word { applied: args.applied, statement: args.statement };
    resolve(context.world, &plan, &store, &state, &args.which, said).await?;
    let word = if args.applied { "applied" } else { "not applied" };
    if context.console.json {
        context
            .console
            .print_json(&json!({ "run": args.run, "resolved": args.which.to_string(), "applied": args.applied, "statement": args.statement }));
    } else {
        let of = args.statement.map_or(String::new(), |number| format!("statement {number} of "));
        context.console.print(&format!("The ledger says that {of}`{}` is {word}.\n", args.which));
        if state.unfinished() {
            context.console.print(&format!("Run {} is still {}: `migrate rollback {0}`.\n", args.run, state.word()));
        }
    }
    Ok(Exit::Done)
}
