//! The hooks of a plan, called once something has happened. One that fails is reported, and changes nothing: databases that went
//! back stay where they are.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;
use serde_json::json;

use crate::event::Event;
use crate::outside::child::{self, Program};
use crate::outside::interrupt::Interrupt;
use crate::outside::secret::Secret;
use crate::outside::web;
use crate::plan::hooks::{Call, Hook, Moment};
use crate::world::World;

use super::report::RunReport;

/// What a program finds in its environment although the hook does not say so.
const PASSED_ON: [&str; 3] = ["PATH", "HOME", "LANG"];

/// What became of a hook.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HookReport {
    /// `rollback`, `success`, `failure`.
    pub on: &'static str,
    /// The program, or `http`.
    pub what: String,
    /// `passed` or `failed`.
    pub outcome: &'static str,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How long it took.
    pub seconds: f64,
}

/// Calls the hooks of a moment, in the order of the plan, and puts what became of them into the report.
pub(super) async fn call(world: &World, hooks: &[Hook], on: Moment, plan: &str, report: &mut RunReport) {
    for hook in hooks.iter().filter(|it| it.on == on) {
        let begun = Instant::now();
        let what = match &hook.call {
            Call::Program { argv, .. } => argv.first().cloned().unwrap_or_default(),
            Call::Http { .. } => "http".into(),
        };
        let detail = one(world, hook, plan, report).await.err();
        world.tell(Event::Hooked { on: on.word(), what: what.clone(), failed: detail.clone() });
        let outcome = if detail.is_none() { "passed" } else { "failed" };
        report.hooks.push(HookReport { on: on.word(), what, outcome, detail, seconds: begun.elapsed().as_secs_f64() });
    }
}

async fn one(world: &World, hook: &Hook, plan: &str, report: &RunReport) -> Result<(), String> {
    let run = report.run.as_ref().map(ToString::to_string).unwrap_or_default();
    let outcome = report.outcome.map_or("halted", crate::journal::entry::Outcome::word);
    let back: Vec<String> = report.databases.iter().filter(|it| it.rolled_back).map(|it| it.name.to_string()).collect();
    match &hook.call {
        Call::Http { url } => {
            let url = Secret::new(expand(url, &world.env)?);
            let body = json!({
                "on": hook.on.word(), "run": run, "plan": plan, "target": report.target, "outcome": outcome,
                "rolled_back": back,
            });
            web::post(&url, body.to_string(), hook.timeout).await.map_err(|error| error.to_string())
        }
        Call::Program { argv, env } => {
            let mut given: BTreeMap<String, Secret> = BTreeMap::new();
            for name in PASSED_ON {
                given.extend(world.env.get(name).map(|value| (name.to_owned(), Secret::new(value))));
            }
            let target = report.target.to_string();
            let facts = [("ON", hook.on.word()), ("RUN", &run), ("TARGET", &target), ("OUTCOME", outcome)];
            let facts = facts.map(|(name, value)| (format!("MIGRATE_{name}"), Secret::new(value)));
            given.extend(facts);
            given.insert("MIGRATE_ROLLED_BACK".into(), Secret::new(back.join(" ")));
            let mut secrets = Vec::new();
            for (name, template) in env {
                let value = Secret::new(expand(template, &world.env)?);
                secrets.push(value.clone());
                given.insert(name.clone(), value);
            }
            let argv = argv.iter().map(|it| expand(it, &world.env)).collect::<Result<_, _>>()?;
            let timeout = Some(hook.timeout).filter(|it| !it.is_zero());
            let program = Program { argv, dir: ".".into(), env: given, timeout, secrets };
            // A signal that stopped the run does not keep a channel from hearing of it.
            let (_, ended) = child::run(&program, &Interrupt::default()).await;
            ended.map_err(|error| match std::error::Error::source(&error) {
                Some(cause) => format!("{error}: {cause}"),
                None => error.to_string(),
            })
        }
    }
}

/// `text` with every `${NAME}` replaced.
fn expand(text: &str, env: &BTreeMap<String, String>) -> Result<String, String> {
    let (mut expanded, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        let (name, behind) = after.split_once('}').ok_or("a `${` has no `}`")?;
        let value =
            env.get(name).filter(|it| !it.is_empty()).ok_or_else(|| format!("the variable `{name}` is not set"))?;
        expanded += before;
        expanded += value;
        rest = behind;
    }
    Ok(expanded + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_looked_up_late_and_missed_by_name() {
        let env = BTreeMap::from([("A".to_owned(), "${B}".to_owned())]);
        assert_eq!(expand("x${A}y${A}", &env), Ok("x${B}y${B}".into()));
        assert_eq!(expand("${B}", &env), Err("the variable `B` is not set".into()));
        assert!(expand("${A", &env).is_err());
    }
}
