//! The hooks of a plan, called once something has happened, or, on `freeze` and `unfreeze` (`freeze.rs`), around it. One that fails
//! is reported, and changes nothing: databases that went back stay where they are.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use crate::event::Event;
use crate::names::DatabaseName;
use crate::outside::child::{self, Program};
use crate::outside::interrupt::Interrupt;
use crate::outside::secret::Secret;
use crate::outside::web;
use crate::plan::Plan;
use crate::plan::hooks::{Call, Hook, Moment};
use crate::world::World;

use super::report::RunReport;

/// What a program finds in its environment although the hook does not say so.
const PASSED_ON: [&str; 3] = ["PATH", "HOME", "LANG"];

/// What became of a hook.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HookReport {
    /// `rollback`, `success`, `failure`, `freeze`, `unfreeze`.
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

/// Calls the hooks of a moment, in the order of the plan, puts what became of them into the report, and gives what failed.
/// `about` are the databases that are spoken of; none: all of the run.
pub(super) async fn call(
    world: &World,
    plan: &Plan,
    on: Moment,
    about: Option<&[DatabaseName]>,
    report: &mut RunReport,
) -> Vec<String> {
    let facts = Facts::new(plan, on, about, report);
    let mut failures = Vec::new();
    for hook in plan.hooks.iter().filter(|it| it.on == on) {
        let begun = Instant::now();
        let what = match &hook.call {
            Call::Program { argv, .. } => argv.first().cloned().unwrap_or_default(),
            Call::Http { .. } => "http".into(),
        };
        let detail = one(world, hook, &facts).await.err();
        world.tell(Event::Hooked { on: on.word(), what: what.clone(), failed: detail.clone() });
        failures.extend(detail.as_ref().map(|why| format!("{what}: {why}")));
        let outcome = if detail.is_none() { "passed" } else { "failed" };
        report.hooks.push(HookReport { on: on.word(), what, outcome, detail, seconds: begun.elapsed().as_secs_f64() });
    }
    failures
}

/// Why a hook could not be called from here as things are, if anything can be said before it is.
///
/// # Errors
/// What is missing, and the remedy.
pub(super) fn ready(world: &World, hook: &Hook) -> Result<(), (String, String)> {
    let set = |text: &str| expand(text, &world.env).map_err(|why| (why, "Set it before the run begins.".to_owned()));
    match &hook.call {
        Call::Http { url } => set(url).map(drop),
        Call::Program { argv, env } => {
            env.values().try_for_each(|it| set(it).map(drop))?;
            let argv = argv.iter().map(|it| set(it)).collect::<Result<Vec<_>, _>>()?;
            let (name, path) = (argv.first().map_or("", String::as_str), world.env.get("PATH"));
            match child::find(Path::new("."), name, path.map_or("", String::as_str)) {
                Some(_) => Ok(()),
                None if name.contains('/') => {
                    Err((format!("`{name}` is not there, or may not be run"), "Correct its path.".into()))
                }
                None => Err((format!("`{name}` is not in PATH"), "Install it, or write its whole path.".into())),
            }
        }
    }
}

/// What a hook is told.
#[derive(Serialize)]
struct Facts {
    on: &'static str,
    run: String,
    plan: String,
    target: String,
    /// None where nobody knows it yet.
    outcome: Option<&'static str>,
    databases: Vec<String>,
    rolled_back: Vec<String>,
}

impl Facts {
    fn new(plan: &Plan, on: Moment, about: Option<&[DatabaseName]>, report: &RunReport) -> Self {
        let outcome = match on {
            Moment::Freeze | Moment::Unfreeze => None,
            Moment::Rollback | Moment::Success | Moment::Failure => {
                Some(report.outcome.map_or("halted", crate::journal::entry::Outcome::word))
            }
        };
        let all = || report.databases.iter().map(|it| it.name.to_string()).collect();
        let back = report.databases.iter().filter(|it| it.rolled_back);
        Self {
            on: on.word(),
            run: report.run.as_ref().map(ToString::to_string).unwrap_or_default(),
            plan: plan.name.clone(),
            target: report.target.to_string(),
            outcome,
            databases: about.map_or_else(all, |names| names.iter().map(ToString::to_string).collect()),
            rolled_back: back.map(|it| it.name.to_string()).collect(),
        }
    }

    /// As a program finds them in its environment.
    fn variables(&self) -> impl Iterator<Item = (String, Secret)> {
        let facts = [
            ("ON", self.on.to_owned()),
            ("RUN", self.run.clone()),
            ("TARGET", self.target.clone()),
            ("OUTCOME", self.outcome.unwrap_or_default().to_owned()),
            ("DATABASES", self.databases.join(" ")),
            ("ROLLED_BACK", self.rolled_back.join(" ")),
        ];
        facts.into_iter().map(|(name, value)| (format!("MIGRATE_{name}"), Secret::new(value)))
    }
}

async fn one(world: &World, hook: &Hook, facts: &Facts) -> Result<(), String> {
    match &hook.call {
        Call::Http { url } => {
            let url = Secret::new(expand(url, &world.env)?);
            let body = serde_json::to_string(facts).expect("facts have no map with keys that are not text");
            web::post(&url, body, hook.timeout).await.map_err(|error| error.to_string())
        }
        Call::Program { argv, env } => {
            let mut given: BTreeMap<String, Secret> = facts.variables().collect();
            for name in PASSED_ON {
                given.extend(world.env.get(name).map(|value| (name.to_owned(), Secret::new(value))));
            }
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
