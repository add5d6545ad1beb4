//! `migrate baseline`: taking over databases that have their migrations already.

use serde_json::json;

use crate::failure::{Blame, Exit, Failure};
use crate::names::StepName;
use crate::run::baseline::{Adoption, Through, adopt, look, prove};

use super::Ended;
use super::args::BaselineArgs;
use super::context::Context;
use super::text::plural;

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("`{0}` is not STEP/NAME")]
#[diagnostic(
    code("usage.through"),
    help("Write the step and the migration, as `migrate plan` shows them: `chat-schema/020_llm_calls`.")
)]
struct NotThrough(String);

/// Runs it.
///
/// # Errors
/// What stood in the way; nothing was written then.
pub async fn run(context: &Context<'_>, args: BaselineArgs) -> Ended {
    let through = through(&args)?;
    let plan = context.plan()?;
    let store = context.store(Some(&plan), None)?;
    let (survey, adoptions) = look(context.world, &plan, &through).await?;
    if args.prove {
        prove(context.world, &plan, &survey, &adoptions).await?;
    }
    let nothing = adoptions.iter().all(|it| it.adopted.is_empty());
    if nothing || args.dry_run {
        return Ok(told(context, None, &adoptions, args.prove));
    }
    let target = plan.target.name.to_string();
    context.console.confirm(args.yes, &text(&adoptions), &[target])?;
    let run = adopt(context.world, &plan, &store, &survey, &adoptions).await?;
    Ok(told(context, Some(run.as_str()), &adoptions, args.prove))
}

fn through(args: &BaselineArgs) -> Result<Through, Failure> {
    let Some(text) = &args.through else { return Ok(if args.all { Through::All } else { Through::Ledgers }) };
    let parts = text.split_once('/').and_then(|(step, name)| Some((StepName::new(step).ok()?, name.to_owned())));
    let (step, name) = parts.ok_or_else(|| Failure::untouched(Blame::Usage, NotThrough(text.clone())))?;
    Ok(Through::Migration(step, name))
}

fn told(context: &Context<'_>, run: Option<&str>, adoptions: &[Adoption], proven: bool) -> Exit {
    if context.console.json {
        context.console.print_json(&json!({ "run": run, "proven": proven, "adopted": adoptions }));
        return Exit::Done;
    }
    let end = match run {
        Some(run) => format!("Adopted in run {run}; none of them was run.\n"),
        None => "Nothing was written.\n".into(),
    };
    let proof = if proven { "The files make what the databases are.\n" } else { "" };
    context.console.print(&(text(adoptions) + proof + &end));
    Exit::Done
}

fn text(adoptions: &[Adoption]) -> String {
    let mut text = String::new();
    for it in adoptions {
        let count = plural(it.adopted.len(), "migration");
        text += &format!("{}: {count} of step {} to be adopted, from {}\n", it.database, it.step, it.from);
        for name in &it.adopted {
            text += &format!("  {name}\n");
        }
        for name in &it.without_file {
            text += &format!("  note: {} has `{name}`, and there is no file of that name\n", it.from);
        }
    }
    if text.is_empty() { "There is nothing to adopt.\n".into() } else { text }
}
