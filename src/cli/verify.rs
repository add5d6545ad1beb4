//! `migrate verify`: the checks alone.

use serde_json::json;

use crate::failure::{Blame, Exit, Failure, list};
use crate::verify::{CheckResult, ChecksFailed, check};

use super::args::VerifyArgs;
use super::context::Context;
use super::text::count;
use super::{Ended, trouble};

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("the plan has no check `{name}`")]
#[diagnostic(code("usage.check"), help("It has {known}."))]
struct UnknownCheck {
    name: String,
    known: String,
}

/// Runs it.
///
/// # Errors
/// A check does not exist. Checks that do not hold are told here.
pub async fn run(context: &Context<'_>, args: &VerifyArgs) -> Ended {
    let plan = context.plan()?;
    let names: Vec<&str> = plan.checks.iter().map(|check| check.name.as_str()).collect();
    if let Some(name) = args.checks.iter().find(|name| !names.contains(&name.as_str())) {
        let error =
            UnknownCheck { name: name.clone(), known: if names.is_empty() { "none".into() } else { list(&names) } };
        return Err(Failure::untouched(Blame::Usage, error));
    }
    let mut results = Vec::new();
    for it in plan.checks.iter().filter(|it| args.checks.is_empty() || args.checks.contains(&it.name)) {
        results.push(check(context.world, &plan, it).await);
    }
    let failure = ChecksFailed::of(&results).map(|failed| Failure::untouched(Blame::Check, failed));
    if context.console.json {
        let mut document = json!({ "checks": results });
        trouble::add(&mut document, failure.as_ref());
        context.console.print_json(&document);
    } else {
        context.console.print(&text(&results));
    }
    let Some(failure) = failure else { return Ok(Exit::Done) };
    context.console.say(&trouble::text(context.console, &failure));
    Ok(failure.exit())
}

fn text(results: &[CheckResult]) -> String {
    let mut text = String::new();
    for it in results {
        text += &format!("{}: {}, {}\n", it.name, it.outcome, it.detail);
        let Some(report) = &it.report else { continue };
        text += &format!(
            "  {} rows at the source, {} at the target; missing {}, extra {}, different {}\n",
            count(report.source_rows),
            count(report.target_rows),
            count(report.missing),
            count(report.extra),
            count(report.different)
        );
        for sample in &report.sample {
            text += &format!("    {}: {}\n", sample.key, sample.reason);
        }
    }
    if results.is_empty() { "The plan has no checks.\n".into() } else { text }
}
