//! `migrate snapshot restore`.

use std::collections::BTreeSet;
use std::time::Instant;

use serde_json::json;

use crate::failure::Exit;
use crate::names::{DatabaseName, RunId};
use crate::snapshot::effort::Effort;
use crate::snapshot::elsewhere::{Missing, Roles, restore_as};
use crate::snapshot::restore::Restoring;
use crate::snapshot::role_map::Mapping;

use super::super::Ended;
use super::super::context::{Context, only_of};
use super::super::text::{count, seconds};
use super::{not_verified, role_map, wanted};

pub(super) async fn run(
    context: &Context<'_>,
    run: Option<RunId>,
    name: DatabaseName,
    dbname: &str,
    missing: Missing,
    mappings: Vec<Mapping>,
) -> Ended {
    let begun = Instant::now();
    let plan = context.plan()?;
    only_of(&plan, vec![name.clone()])?;
    let store = context.store(Some(&plan), None)?;
    let manifests = wanted(&store, run.as_ref(), Some(&BTreeSet::from([name.clone()]))).await?;
    let manifest = manifests.first().expect("`wanted` gives at least one");
    let url = &plan.databases[&name].url;
    let roles = &Roles { map: role_map(mappings, &manifests)?, missing };
    let restoring = Restoring { world: context.world, store: &store, url, roles, effort: &Effort::of(&plan.run) };
    let restored = restore_as(&restoring, manifest, dbname).await.map_err(not_verified)?;
    let took = begun.elapsed().as_secs_f64();
    if context.console.json {
        context.console.print_json(&json!({
            "run": manifest.run, "database": name, "dbname": dbname, "rows": restored.rows,
            "created_roles": restored.created, "mapped_roles": roles.map.all(), "notes": restored.notes, "seconds": took,
        }));
        return Ok(Exit::Done);
    }
    let mut text = format!(
        "{name} of run {} is restored as {dbname} on the server of target {}: {} rows, in {}\n",
        manifest.run,
        plan.target.name,
        count(restored.rows),
        seconds(took)
    );
    if !roles.map.is_empty() {
        let all: Vec<String> = roles.map.all().iter().map(|(old, new)| format!("{old} is {new}")).collect();
        text += &format!("  mapped roles: {}\n", all.join(", "));
    }
    if !restored.created.is_empty() {
        text += &format!("  made roles without the right to log in: {}\n", restored.created.join(", "));
    }
    text.extend(restored.notes.iter().map(|note| format!("  note: {note}\n")));
    context.console.print(&text);
    Ok(Exit::Done)
}
