//! Is it right: the checks of a plan.

pub mod catalog;
pub mod sync;

use std::time::Instant;

use serde::Serialize;

use crate::event::Event;
use crate::outside::postgres::{PgError, connect};
use crate::plan::{Check, Plan};
use crate::world::World;

use sync::{SyncError, SyncReport};

/// What a check found.
#[derive(Debug, Clone, Serialize)]
pub struct CheckResult {
    /// The check.
    pub name: String,
    /// `sync`.
    pub kind: &'static str,
    /// `passed` or `failed`.
    pub outcome: &'static str,
    /// In words.
    pub detail: String,
    /// Who answers for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The numbers.
    #[serde(flatten)]
    pub report: Option<SyncReport>,
    /// How long it took.
    pub seconds: f64,
}

impl CheckResult {
    /// Whether it holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.outcome == "passed"
    }
}

/// A check could not be made, which is not the same as failing.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum Unmade {
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error(transparent)]
    Sync(#[from] SyncError),
}

/// Makes one check. One that cannot be made does not hold.
pub async fn check(world: &World, plan: &Plan, check: &Check) -> CheckResult {
    let begun = Instant::now();
    let (report, detail) = match compare(plan, check).await {
        Ok(report) => (Some(report.clone()), report.detail),
        Err(error) => (None, said(&error)),
    };
    let holds = report.as_ref().is_some_and(|it| it.holds);
    world.tell(Event::Checked { check: check.name.clone(), holds, detail: detail.clone() });
    CheckResult {
        name: check.name.clone(),
        kind: "sync",
        outcome: if holds { "passed" } else { "failed" },
        detail,
        owner: check.owner.clone(),
        report,
        seconds: begun.elapsed().as_secs_f64(),
    }
}

async fn compare(plan: &Plan, check: &Check) -> Result<SyncReport, Unmade> {
    let url = |name| &plan.databases[name].url;
    let (source, target) = tokio::join!(
        connect(url(&check.sync.source.database), "migrate check"),
        connect(url(&check.sync.target.database), "migrate check"),
    );
    Ok(sync::compare(&mut source?, &mut target?, &check.sync).await?)
}

fn said(error: &dyn std::error::Error) -> String {
    let mut text = format!("the check could not be made: {error}");
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}

/// Checks did not hold.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{}", .failed.join("\n"))]
#[diagnostic(code("check.failed"), help("{help}"))]
pub struct ChecksFailed {
    failed: Vec<String>,
    help: String,
}

impl ChecksFailed {
    /// None, if all of them hold.
    #[must_use]
    pub fn of(results: &[CheckResult]) -> Option<Self> {
        let bad: Vec<&CheckResult> = results.iter().filter(|it| !it.holds()).collect();
        if bad.is_empty() {
            return None;
        }
        let failed = bad.iter().map(|it| format!("check `{}` does not hold: {}", it.name, it.detail)).collect();
        let mut owners: Vec<&str> = bad.iter().filter_map(|it| it.owner.as_deref()).collect();
        owners.dedup();
        let names: Vec<&str> = bad.iter().map(|it| it.name.as_str()).collect();
        let asked = if owners.is_empty() { String::new() } else { format!(" Its owner is {}.", owners.join(", ")) };
        Some(Self { failed, help: format!("`migrate verify {}` shows the keys.{asked}", names.join(" ")) })
    }
}
