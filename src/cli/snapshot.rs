//! `migrate snapshot take | list | verify | drill | restore | prune`.

mod drill;
mod prune;
mod replaced;
mod restore;

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt};
use serde::Serialize;
use serde_json::json;

use crate::failure::{Blame, Exit, Failure, OrFail};
use crate::journal;
use crate::names::{DatabaseName, RunId};
use crate::outside::clock;
use crate::outside::store::Store;
use crate::run::snapshots;
use crate::snapshot::drill::Drilled;
use crate::snapshot::elsewhere::Missing;
use crate::snapshot::manifest::Manifest;
use crate::snapshot::role_map::{Mapping, RoleMap};
use crate::snapshot::{self, Closed, SnapshotError, prove};

use super::args::SnapshotCommand;
use super::context::{Context, only, only_of};
use super::text::{bytes, seconds, table};
use super::{Ended, trouble};

/// What is said of an encrypted snapshot that was verified without an identity.
const CLOSED: &str =
    "as it is stored; its content was not looked at: it is encrypted, and MIGRATE_AGE_IDENTITY_FILE is not set";
/// Manifests that are read side by side.
const AT_ONCE: usize = 8;

#[derive(Serialize)]
struct Line {
    run: RunId,
    database: DatabaseName,
    taken_at: DateTime<Utc>,
    bytes: u64,
    stored_bytes: u64,
    sha256: String,
    encrypted: bool,
    /// Whether the latest drill passed.
    drilled: bool,
    /// Seconds that it took to restore.
    #[serde(skip_serializing_if = "Option::is_none")]
    restored_in: Option<f64>,
}

/// Runs it.
///
/// # Errors
/// What failed.
pub async fn run(context: &Context<'_>, command: SnapshotCommand) -> Ended {
    match command {
        SnapshotCommand::Take { only } => take(context, only).await,
        SnapshotCommand::List { store } => list(context, store.as_deref()).await,
        SnapshotCommand::Drill { run, only, map_role } => drill::run(context, run, only, map_role).await,
        SnapshotCommand::Restore { run, only, dbname, create_roles, no_owner, map_role } => {
            let missing = match (create_roles, no_owner) {
                (true, _) => Missing::Create,
                (_, true) => Missing::Ours,
                _ => Missing::Refuse,
            };
            restore::run(context, run, only, &dbname, missing, map_role).await
        }
        SnapshotCommand::Prune { replaced: true, dry_run, yes } => replaced::run(context, dry_run, yes).await,
        SnapshotCommand::Prune { replaced: false, dry_run, yes } => prune::run(context, dry_run, yes).await,
        SnapshotCommand::Verify { run, only: names, store } => {
            verify(context, run, only(names), store.as_deref()).await
        }
    }
}

async fn take(context: &Context<'_>, names: Vec<DatabaseName>) -> Ended {
    let plan = context.plan()?;
    let only = only_of(&plan, names)?;
    let store = context.store(Some(&plan), None)?;
    let (run, taken) = snapshots::take(context.world, &plan, &store, only.as_ref()).await?;
    if context.console.json {
        context.console.print_json(&json!({ "run": run, "target": plan.target.name, "snapshots": taken }));
        return Ok(Exit::Done);
    }
    let mut text = format!("Run {run}: snapshots taken, read back and proven\n");
    for it in &taken {
        let (all, stored) = (bytes(it.bytes), bytes(it.stored_bytes));
        text += &format!("  {}: {all} as {stored}, in {}, sha256 {}\n", it.database, seconds(it.seconds), it.sha256);
    }
    context.console.print(&text);
    Ok(Exit::Done)
}

async fn manifests(store: &Store) -> Result<(Vec<Manifest>, Vec<Closed>), Failure> {
    let runs = journal::runs(store).await.or_fail()?;
    let read = stream::iter(runs).map(|run| async move { snapshot::manifests(store, &run).await });
    let (mut all, mut closed) = (Vec::new(), Vec::new());
    for some in read.buffered(AT_ONCE).collect::<Vec<_>>().await {
        let (read, unread) = some.or_fail()?;
        all.extend(read);
        closed.extend(unread);
    }
    Ok((all, closed))
}

async fn list(context: &Context<'_>, store: Option<&str>) -> Ended {
    let store = context.store_alone(store)?;
    let mut lines = Vec::new();
    let (readable, closed) = manifests(&store).await?;
    for manifest in readable {
        let drilled = crate::snapshot::drill::latest(&store, &manifest.run, &manifest.database).await.or_fail()?;
        lines.push(line(manifest, drilled));
    }
    if context.console.json {
        let closed =
            closed.iter().map(|it| json!({ "run": it.run, "database": it.database, "why": it.newer.to_string() }));
        context.console.print_json(&json!({ "snapshots": lines, "unreadable": closed.collect::<Vec<_>>() }));
        return Ok(Exit::Done);
    }
    if lines.is_empty() && closed.is_empty() {
        context.console.print("There are no snapshots.\n");
    }
    if !lines.is_empty() {
        let rows: Vec<Vec<String>> = lines
            .iter()
            .map(|it| {
                let sizes = [bytes(it.bytes), bytes(it.stored_bytes)];
                let first = [it.run.to_string(), it.database.to_string(), clock::readable(it.taken_at)];
                let drilled = match (it.drilled, it.restored_in) {
                    (true, Some(took)) => format!("in {}", seconds(took)),
                    (_, Some(_)) => "FAILED".into(),
                    (_, None) => "no".into(),
                };
                first.into_iter().chain(sizes).chain([drilled, it.sha256.clone()]).collect()
            })
            .collect();
        context.console.print(&table(&["RUN", "DATABASE", "TAKEN", "HOLDS", "STORED", "DRILLED", "SHA-256"], &rows));
    }
    context.console.print(&closed.iter().map(|it| format!("note: {}\n", it.newer)).collect::<String>());
    Ok(Exit::Done)
}

fn line(it: Manifest, drilled: Option<Drilled>) -> Line {
    Line {
        bytes: it.bytes(),
        stored_bytes: it.stored_bytes(),
        sha256: it.sha256(),
        encrypted: !it.encrypted_to.is_empty(),
        run: it.run,
        database: it.database,
        taken_at: it.taken_at,
        drilled: drilled.as_ref().is_some_and(Drilled::passed),
        restored_in: drilled.map(|it| it.seconds),
    }
}

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("there is no such snapshot")]
#[diagnostic(code("snapshot.none"), help("`migrate snapshot list` shows what there is."))]
struct NoneThere;

#[derive(Serialize)]
struct Verified {
    run: RunId,
    database: DatabaseName,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// The snapshots that are meant: of `run`, or of the newest run that has any.
async fn wanted(
    store: &Store,
    run: Option<&RunId>,
    only: Option<&BTreeSet<DatabaseName>>,
) -> Result<Vec<Manifest>, Failure> {
    let (mut found, mut closed) = match run {
        Some(run) => snapshot::manifests(store, run).await.or_fail()?,
        None => latest(manifests(store).await?),
    };
    let wanted = |name: &DatabaseName| only.is_none_or(|only| only.contains(name));
    found.retain(|it| wanted(&it.database));
    closed.retain(|it| wanted(&it.database));
    if let Some(closed) = closed.into_iter().next() {
        return Err(SnapshotError::from(closed.newer)).or_fail();
    }
    if found.is_empty() { Err(Failure::untouched(Blame::Check, NoneThere)) } else { Ok(found) }
}

/// What `--map-role` says, which has to speak of roles of the snapshots.
fn role_map(mappings: Vec<Mapping>, manifests: &[Manifest]) -> Result<Arc<RoleMap>, Failure> {
    let map = RoleMap::new(mappings).or_blame(Blame::Usage)?;
    map.known_to(manifests).or_blame(Blame::Usage)?;
    Ok(Arc::new(map))
}

async fn verify(
    context: &Context<'_>,
    run: Option<RunId>,
    only: Option<BTreeSet<DatabaseName>>,
    store: Option<&str>,
) -> Ended {
    let store = context.store_alone(store)?;
    let wanted = wanted(&store, run.as_ref(), only.as_ref()).await?;
    let (mut lines, mut failed) = (Vec::new(), None);
    for manifest in wanted {
        let closed = !manifest.encrypted_to.is_empty() && context.world.identity_file.is_none();
        let result = match closed {
            true => prove::as_stored(context.world, &store, &manifest).await,
            false => prove::whole(context.world, &store, &manifest).await,
        };
        lines.push(Verified {
            outcome: if result.is_ok() { "passed" } else { "failed" },
            detail: result.as_ref().err().map(ToString::to_string).or_else(|| closed.then(|| CLOSED.to_owned())),
            run: manifest.run,
            database: manifest.database,
        });
        failed = failed.or(result.err());
    }
    let failure = failed.map(not_verified);
    if context.console.json {
        let mut document = json!({ "snapshots": lines });
        trouble::add(&mut document, failure.as_ref());
        context.console.print_json(&document);
    } else {
        let text: String = lines
            .iter()
            .map(|it| {
                format!(
                    "{} {}: {}{}\n",
                    it.run,
                    it.database,
                    it.outcome,
                    it.detail.as_ref().map(|d| format!(", {d}")).unwrap_or_default()
                )
            })
            .collect();
        context.console.print(&text);
    }
    let Some(failure) = failure else { return Ok(Exit::Done) };
    context.console.say(&trouble::text(context.console, &failure));
    Ok(failure.exit())
}

fn not_verified(error: SnapshotError) -> Failure {
    let blame = match error {
        SnapshotError::Damaged { .. } | SnapshotError::Drill { .. } => Blame::Check,
        SnapshotError::Interrupted(_) => Blame::Interrupted,
        _ => Blame::Work,
    };
    Failure::untouched(blame, error)
}

/// The snapshots of the newest run that has any.
fn latest((mut all, mut closed): (Vec<Manifest>, Vec<Closed>)) -> (Vec<Manifest>, Vec<Closed>) {
    let newest = all.iter().map(|it| &it.run).chain(closed.iter().map(|it| &it.run)).max().cloned();
    all.retain(|it| Some(&it.run) == newest.as_ref());
    closed.retain(|it| Some(&it.run) == newest.as_ref());
    (all, closed)
}
