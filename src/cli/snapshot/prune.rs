//! `migrate snapshot prune`.

use serde_json::{Value, json};

use crate::failure::{Exit, Failure, OrFail};
use crate::journal;
use crate::names::DatabaseName;
use crate::outside::clock;
use crate::outside::store::{Removal, Store};
use crate::snapshot::prune::{Held, Verdict, decide, lock, remove};
use crate::snapshot::{self, SnapshotError, drill};

use super::super::Ended;
use super::super::context::Context;
use super::super::text::{bytes, table};

pub(super) async fn run(context: &Context<'_>, dry_run: bool, yes: bool) -> Ended {
    let plan = context.plan()?;
    let store = context.store(Some(&plan), None)?;
    let all = held(&store).await?;
    let mut verdicts = decide(&all, &plan.store.retention, clock::now());
    let mut going: Vec<usize> = (0..all.len()).filter(|at| verdicts[*at] == Verdict::Prune).collect();
    for at in &going {
        if let Some(why) = lock(&store, &all[*at]).await.or_fail()? {
            verdicts[*at] = Verdict::Keep(why);
        }
    }
    going.retain(|at| verdicts[*at] == Verdict::Prune);
    if !dry_run && !going.is_empty() {
        let question = text(&all, &verdicts, "to be removed");
        context.console.confirm(yes, &question, &["prune".into()])?;
        for at in going {
            if let Removal::Refused(why) = remove(&store, &all[at]).await.or_fail()? {
                verdicts[at] = Verdict::Keep(format!("the store does not let it go ({why})"));
            }
        }
    }
    if context.console.json {
        context.console.print_json(&document(&all, &verdicts, dry_run));
    } else {
        let word = if dry_run { "would be removed" } else { "removed" };
        context.console.print(&text(&all, &verdicts, word));
    }
    Ok(Exit::Done)
}

/// Every snapshot in the store, and what is left of those that were never finished.
async fn held(store: &Store) -> Result<Vec<Held>, Failure> {
    let mut all = Vec::new();
    for run in journal::runs(store).await.or_fail()? {
        let state = match journal::state(store, &run).await {
            // A folder without a journal is not ours to judge.
            Err(journal::JournalError::NoRun { .. }) => continue,
            state => state.or_fail()?,
        };
        for name in store.folders(&format!("{}/snapshots", journal::folder(&run))).await.or_fail()? {
            let Ok(database) = DatabaseName::new(name) else { continue };
            let mut known = state.newer.is_none();
            let taken_at = match snapshot::manifest(store, &run, &database).await {
                Ok(manifest) => Some(manifest.taken_at),
                Err(SnapshotError::None { .. }) => None,
                Err(SnapshotError::Newer(_)) => {
                    known = false;
                    None
                }
                Err(error) => return Err(error).or_fail(),
            };
            let objects = store.list(&snapshot::folder(&run, &database)).await.or_fail()?;
            // A folder on a disk stays when it is empty.
            if objects.is_empty() {
                continue;
            }
            let drilled = drill::latest(store, &run, &database).await.or_fail()?.is_some_and(|it| it.passed());
            all.push(Held {
                run: run.clone(),
                database,
                target: state.target.clone().filter(|_| known),
                taken_at,
                begun_at: state.started_at,
                stored_bytes: objects.iter().map(|it| it.size).sum(),
                unfinished: state.unfinished() || state.outcome.is_none(),
                drilled,
            });
        }
    }
    Ok(all)
}

fn text(all: &[Held], verdicts: &[Verdict], word: &str) -> String {
    if all.is_empty() {
        return "There are no snapshots.\n".into();
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .zip(verdicts)
        .map(|(it, verdict)| {
            let taken = it.taken_at.map_or_else(|| "never finished".into(), clock::readable);
            let what = match verdict {
                Verdict::Keep(reason) => format!("kept: {reason}"),
                Verdict::Prune => word.to_owned(),
            };
            vec![it.run.to_string(), it.database.to_string(), taken, bytes(it.stored_bytes), what]
        })
        .collect();
    let gone: u64 =
        all.iter().zip(verdicts).filter(|(_, it)| **it == Verdict::Prune).map(|(it, _)| it.stored_bytes).sum();
    format!("{}{} {word}.\n", table(&["RUN", "DATABASE", "TAKEN", "STORED", "WHAT"], &rows), bytes(gone))
}

fn document(all: &[Held], verdicts: &[Verdict], dry_run: bool) -> Value {
    let (mut pruned, mut kept) = (Vec::new(), Vec::new());
    for (it, verdict) in all.iter().zip(verdicts) {
        let mut line =
            json!({ "run": it.run, "database": it.database, "taken_at": it.taken_at, "stored_bytes": it.stored_bytes });
        match verdict {
            Verdict::Prune => pruned.push(line),
            Verdict::Keep(reason) => {
                line["reason"] = json!(reason);
                kept.push(line);
            }
        }
    }
    json!({ "pruned": pruned, "kept": kept, "dry_run": dry_run })
}
