//! `migrate snapshot drill`.

use serde_json::json;

use crate::failure::Exit;
use crate::names::{DatabaseName, RunId};
use crate::snapshot::drill::{self, Drilled};
use crate::snapshot::effort::Effort;
use crate::snapshot::elsewhere::{Missing, Roles};
use crate::snapshot::manifest::Manifest;
use crate::snapshot::restore::Restoring;
use crate::snapshot::role_map::Mapping;

use super::super::context::{Context, only_of};
use super::super::text::{bytes, seconds};
use super::super::{Ended, trouble};
use super::{not_verified, role_map, wanted};

pub(super) async fn run(
    context: &Context<'_>,
    run: Option<RunId>,
    names: Vec<DatabaseName>,
    mappings: Vec<Mapping>,
) -> Ended {
    let plan = context.plan()?;
    let only = only_of(&plan, names)?;
    let store = context.store(Some(&plan), None)?;
    let effort = &Effort::of(&plan.run);
    let wanted = wanted(&store, run.as_ref(), only.as_ref()).await?;
    let roles = &Roles { map: role_map(mappings, &wanted)?, missing: Missing::Refuse };
    let (mut drills, mut failed): (Vec<(Manifest, Drilled)>, _) = (Vec::new(), None);
    for manifest in wanted {
        let Some(database) = plan.databases.get(&manifest.database) else { continue };
        let (world, url) = (context.world, &database.url);
        let drilled = drill::drill(&Restoring { world, store: &store, url, roles, effort }, &manifest).await;
        let verdict = drilled.as_ref().map_or(Ok(()), Drilled::verdict);
        failed = failed.or(verdict.err());
        match drilled {
            Ok(drilled) => drills.push((manifest, drilled)),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    let failure = failed.map(not_verified);
    if context.console.json {
        let drills: Vec<&Drilled> = drills.iter().map(|(_, drilled)| drilled).collect();
        let mut document = json!({ "drills": drills });
        trouble::add(&mut document, failure.as_ref());
        context.console.print_json(&document);
    } else {
        context.console.print(&drills.iter().map(|(manifest, drilled)| line(manifest, drilled)).collect::<String>());
    }
    let Some(failure) = failure else { return Ok(Exit::Done) };
    context.console.say(&trouble::text(context.console, &failure));
    Ok(failure.exit())
}

fn line(manifest: &Manifest, it: &Drilled) -> String {
    let (size, took) = (bytes(it.bytes), seconds(it.seconds));
    let (tables, rows, sequences) = (manifest.tables.len(), manifest.rows(), manifest.sequences.len());
    let verdict = if it.passed() { "passed" } else { "FAILED" };
    format!(
        "{} {}: {verdict}; {size} restored in {took}; compared: {tables} tables with {rows} rows, by content; every object; \
         {sequences} sequences\n",
        it.run, it.database
    )
}
