//! A rollback of some databases alone: what becomes inconsistent with those that stay, by the edges of the plan. Pure.

use std::collections::BTreeSet;

use crate::journal::state::{Changed, RunState};
use crate::kind::Kind;
use crate::names::{DatabaseName, StepName};
use crate::plan::{Plan, Step};

/// What no longer fits together once `back` went back and the other databases of the run stay: steps that came after, copies,
/// checks that compare. Each in words; nothing, if everything that hangs together goes back together.
#[must_use]
pub fn torn(plan: &Plan, state: &RunState, back: &BTreeSet<DatabaseName>) -> Vec<String> {
    let begun: BTreeSet<&StepName> = state.begun.iter().map(|it| &it.step).collect();
    let changed = |name: &DatabaseName| state.databases.get(name).is_some_and(|it| it.changed != Changed::No);
    let stays = |name: &DatabaseName| !back.contains(name);
    let mut torn = Vec::new();
    for step in plan.steps.iter().filter(|it| begun.contains(&it.name)) {
        if stays(&step.database) && changed(&step.database) {
            torn.extend(after(plan, step, back, &begun));
        }
        let Kind::Copy(copy) = &step.kind else { continue };
        let (from, to) = (&copy.from.database, &step.database);
        if back.contains(to) && stays(from) {
            torn.push(format!(
                "step `{}` copied {from}.{} into {to}, which goes back without what was copied",
                step.name, copy.from.table
            ));
        } else if back.contains(from) && stays(to) && changed(to) {
            torn.push(format!(
                "step `{}` copied {from}.{} into {to}, which keeps the rows as they were copied",
                step.name, copy.from.table
            ));
        }
    }
    for check in &plan.checks {
        let (source, target) = (&check.sync.source, &check.sync.target);
        if back.contains(&source.database) != back.contains(&target.database) {
            torn.push(format!(
                "check `{}` compares {}.{} with {}.{}",
                check.name, source.database, source.table, target.database, target.table
            ));
        }
    }
    torn
}

/// The steps on databases that go back, after which `step` came.
fn after<'a>(
    plan: &'a Plan,
    step: &'a Step,
    back: &'a BTreeSet<DatabaseName>,
    begun: &'a BTreeSet<&StepName>,
) -> impl Iterator<Item = String> + 'a {
    let first = |name: &&StepName| plan.steps.iter().find(|it| it.name == **name);
    let first = step.after.iter().filter(|name| begun.contains(name)).filter_map(move |name| first(&name));
    first.filter(|it| back.contains(&it.database)).map(|it| {
        let (name, database) = (&step.name, &step.database);
        format!("step `{name}` on {database} came after step `{}` on {}, which goes back", it.name, it.database)
    })
}
