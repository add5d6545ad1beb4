//! `migrate repair` and `migrate resolve`: the operator's word about single migrations.

use serde_json::json;

use crate::failure::{Exit, OrFail};
use crate::run::mend::{Which, Word, accept, changed, resolve};
use crate::run::repair_index;
use crate::run::rollback::known;

use super::Ended;
use super::args::{RepairCommand, RepairIndexArgs, ResolveArgs};
use super::context::Context;

/// `migrate repair`.
///
/// # Errors
/// What stood in the way.
pub async fn repair(context: &Context<'_>, command: RepairCommand) -> Ended {
    match command {
        RepairCommand::Checksum { which, yes } => checksum(context, which, yes).await,
        RepairCommand::Index(args) => index(context, args).await,
    }
}

async fn index(context: &Context<'_>, args: RepairIndexArgs) -> Ended {
    let plan = context.plan()?;
    let left = repair_index::find(&plan, &args.which).await?;
    let shown = format!("{}: {} (left by {})", left.database, left.indexes.join(", "), left.which);
    if args.dry_run {
        if context.console.json {
            context.console.print_json(&json!({ "database": left.database, "would_drop": left.indexes }));
        } else {
            context.console.print(&format!("Would drop {shown}\n"));
        }
        return Ok(Exit::Done);
    }
    let store = context.store(Some(&plan), None)?;
    context.console.confirm(args.yes, &format!("Invalid, and to be dropped: {shown}"), &[args.which.to_string()])?;
    let (run, left) = repair_index::drop_left(context.world, &plan, &store, &args.which).await?;
    if context.console.json {
        context.console.print_json(&json!({ "run": run, "database": left.database, "dropped": left.indexes }));
    } else {
        context.console.print(&format!("Run {run}: dropped {shown}\n"));
    }
    Ok(Exit::Done)
}

async fn checksum(context: &Context<'_>, which: Which, yes: bool) -> Ended {
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
    known(&state).or_fail()?;
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
            let (run, word) = (&args.run, state.word());
            context
                .console
                .print(&format!("Run {run} is still {word}: `migrate resume {run}`, or `migrate rollback {run}`.\n"));
        }
    }
    Ok(Exit::Done)
}
