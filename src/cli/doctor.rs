//! `migrate doctor`: everything that apply needs, tested.

use serde_json::json;

use crate::failure::Exit;
use crate::run::doctor::{Finding, Verdict, examine};
use crate::run::survey::{Sessions, look_through};

use super::Ended;
use super::context::Context;

/// Runs it.
///
/// # Errors
/// The plan is invalid. Findings are told here.
pub async fn run(context: &Context<'_>) -> Ended {
    let plan = context.plan()?;
    let store = context.store(Some(&plan), None).map_err(|failure| failure.error.to_string());
    let sessions = Sessions::open(&plan, None, "migrate doctor").await;
    let (survey, sessions) = look_through(context.world, &plan, sessions).await;
    let findings = examine(context.world, &plan, &survey, sessions, store.as_ref().map_err(Clone::clone)).await;
    if context.console.json {
        context.console.print_json(&json!({ "target": plan.target.name, "checks": findings }));
    } else {
        context.console.print(&text(&findings));
    }
    let bad = findings.iter().any(|it| it.outcome == Verdict::Failed);
    Ok(if bad { Exit::Failed } else { Exit::Done })
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for it in findings {
        let mark = match it.outcome {
            Verdict::Passed => "ok    ",
            Verdict::Warned => "note  ",
            Verdict::Failed => "FAILED",
        };
        let place = it.database.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        text += &format!("{mark}  {place}{}: {}\n", it.name, it.detail);
        if let Some(help) = &it.help {
            text += &format!("          help: {help}\n");
        }
    }
    let bad = findings.iter().filter(|it| it.outcome == Verdict::Failed).count();
    text + &if bad == 0 {
        "Everything that apply needs is there.\n".into()
    } else {
        format!("{bad} of {} failed.\n", findings.len())
    }
}
