//! Files that are not what was applied, by the ledgers alone: for `lint`, which no text can tell that.

use futures::future::try_join_all;

use crate::failure::{Failure, OrFail};
use crate::journal::ledger::{self, Applied};
use crate::kind::Kind;
use crate::lint::{self, Finding};
use crate::outside::clock;
use crate::outside::postgres::{PgError, connect};
use crate::plan::{Database, Plan, Step};

use super::super::drift::Drift;
use super::Unreachable;
use super::compare::drift_of;
use super::look::LOOKING;

/// Each SQL file of the plan that was edited after it was applied to a database of its target.
///
/// # Errors
/// The first database that did not answer.
pub async fn edited(plan: &Plan) -> Result<Vec<Finding>, Failure> {
    let looks = plan.databases.values().map(async |database| {
        let steps: Vec<&Step> = plan.steps.iter().filter(|it| it.database == database.name && of_files(it)).collect();
        let found = if steps.is_empty() { Ok(Vec::new()) } else { look(database, &steps).await };
        found.map_err(|source| Unreachable { database: database.name.clone(), source })
    });
    Ok(try_join_all(looks).await.or_fail()?.concat())
}

fn of_files(step: &Step) -> bool {
    matches!(step.kind, Kind::Sql(_) | Kind::Refinery(_))
}

async fn look(database: &Database, steps: &[&Step]) -> Result<Vec<Finding>, PgError> {
    let rows = ledger::read(&mut connect(&database.url, LOOKING).await?).await?.unwrap_or_default();
    let edited = |step: &&Step| {
        let own: Vec<&Applied> = rows.iter().filter(|row| row.step == step.name.as_str()).collect();
        drift_of(step.kind.migrations(), &own).drift
    };
    let finding = |it: Drift| match it {
        Drift::Changed { path, at, run, .. } => {
            let place = format!("{} {} in run {run}", database.name, clock::readable(at));
            Some(lint::edited_since(path, &format!("the file is not what was applied to {place}")))
        }
        _ => None,
    };
    Ok(steps.iter().flat_map(edited).filter_map(finding).collect())
}
