//! `--only` and migrations that wait for others: what waits for a database that is left out may only be applied if that database
//! has it already.

use std::collections::BTreeSet;

use crate::failure::{Blame, Failure};
use crate::names::DatabaseName;
use crate::plan::{Plan, Step};
use crate::sql::directives::Edge;
use crate::world::World;

use super::survey::{Survey, survey};

/// A migration waits for one that is left out.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{waiting} waits for {edge}, which {database} does not have, and --only leaves {database} out")]
#[diagnostic(code("usage.left_out"), help("Name {database} with --only as well, or apply to it first."))]
pub struct LeftOut {
    waiting: String,
    edge: Edge,
    database: DatabaseName,
}

/// That whatever is pending in the databases of `only` waits for nothing that the others lack. They are asked, and not locked.
///
/// # Errors
/// The first migration that waits in vain; a database that cannot be asked.
pub async fn only(world: &World, plan: &Plan, found: &Survey, only: &BTreeSet<DatabaseName>) -> Result<(), Failure> {
    let waits = outwards(plan, found, only);
    let databases: BTreeSet<DatabaseName> = waits.iter().map(|(_, other, _)| other.database.clone()).collect();
    if databases.is_empty() {
        return Ok(());
    }
    let others = survey(world, plan, Some(&databases)).await.whole(plan)?;
    for (waiting, other, edge) in waits {
        if !others.steps.get(&other.name).is_some_and(|state| state.has(other, &edge.name)) {
            let (edge, database) = (edge.clone(), other.database.clone());
            return Err(Failure::untouched(Blame::Usage, LeftOut { waiting, edge, database }));
        }
    }
    Ok(())
}

/// What is pending and waits for a step of another database than those of `only`.
fn outwards<'a>(plan: &'a Plan, found: &'a Survey, only: &BTreeSet<DatabaseName>) -> Vec<(String, &'a Step, &'a Edge)> {
    let mut waits = Vec::new();
    for step in &plan.steps {
        let Some(state) = found.steps.get(&step.name) else { continue };
        for it in state.pending.iter().map(|index| &state.migrations(step)[*index]) {
            for edge in &it.turn.after {
                let other = plan.steps.iter().find(|other| other.name.as_str() == edge.step);
                let other = other.filter(|other| !only.contains(&other.database));
                waits.extend(other.map(|other| (format!("{}/{}", step.name, it.name), other, edge)));
            }
        }
    }
    waits
}
