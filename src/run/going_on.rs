//! Files without a transaction that an earlier run began and did not end: those that can be gone on with are pending, and
//! the others are a matter for a person.

use std::collections::BTreeSet;

use sqlx::PgConnection;

use crate::failure::{Failure, OrFail};
use crate::journal::ledger::Applied;
use crate::kind::Migration;
use crate::kind::cut_off;
use crate::kind::decide::{Decision, GoOn, Meant, decide};
use crate::kind::migration::sendable;
use crate::names::RunId;
use crate::outside::postgres::{PgError, query_error};
use crate::plan::Plan;
use crate::world::World;

use super::drift::Drift;
use super::lock::Locks;
use super::survey::{Sessions, StepState, Survey, look_through};

/// A file that is gone on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoingOn {
    /// What the ledger says of it.
    pub meant: Meant,
    /// Where it goes on.
    pub go_on: GoOn,
}

impl std::fmt::Display for GoingOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (statement, run) = (self.go_on.from + 1, &self.meant.run);
        match self.go_on.line {
            Some(line) => write!(f, "begun in run {run}, goes on at statement {statement} on line {line}")?,
            None => write!(f, "begun in run {run}, every statement has ended")?,
        }
        let dropped = self.go_on.drop.as_ref();
        dropped.map_or(Ok(()), |index| write!(f, ", and drops the invalid index {index} first"))
    }
}

/// The survey of a target whose locks are held for `own`, and its sessions, once what other runs left behind is over: a server
/// works on after its client has died. Where there is such a run, it is looked at again. Those of `own` are the sessions at hand.
///
/// # Errors
/// A database cannot be reached, or a session of such a run does not end.
pub(super) async fn settled(
    world: &World,
    plan: &Plan,
    (found, sessions): (Survey, Sessions),
    locks: &mut Locks,
    own: &RunId,
) -> Result<(Survey, Sessions), Failure> {
    let found = found.whole(plan)?;
    let runs: BTreeSet<&str> = found.steps.values().flat_map(begun_in).collect();
    let runs: Vec<RunId> = runs.into_iter().filter_map(|run| RunId::new(run).ok()).filter(|run| run != own).collect();
    if runs.is_empty() {
        return Ok((found, sessions));
    }
    for run in &runs {
        locks.end_leftovers(run).await.or_fail()?;
    }
    let (found, sessions) = look_through(world, plan, sessions).await;
    Ok((found.whole(plan)?, sessions))
}

fn begun_in(state: &StepState) -> impl Iterator<Item = &str> {
    let asked = state.drift.iter().filter_map(|drift| match drift {
        Drift::Unclear { run, .. } => Some(run.as_str()),
        _ => None,
    });
    state.going_on.values().map(|it| it.meant.run.as_str()).chain(asked)
}

/// Looks at what ledger and database have of every file of a step that did not end.
///
/// # Errors
/// A query failed.
pub(super) async fn look(
    session: &mut PgConnection,
    files: &[Migration],
    rows: &[&Applied],
    state: &mut StepState,
) -> Result<(), PgError> {
    for row in rows {
        let Some(meant) = meant(row) else { continue };
        let Some(index) = files.iter().position(|file| file.name == row.name) else { continue };
        let file = &files[index];
        // Where nothing took effect, the file may have become one with a transaction.
        if file.transactional && (meant.ended > 0 || meant.unclear) {
            continue;
        }
        let shown = cut_off::look(session, &meant).await.map_err(query_error("looking at what was cut off"))?;
        let (name, path, run) = (file.name.clone(), file.path.clone(), meant.run.clone());
        state.drift.retain(|drift| !matches!(drift, Drift::Interrupted { name, .. } if *name == file.name));
        match decide(&meant, &sendable(file), &shown) {
            Decision::Edited { statement } => state.drift.push(Drift::Edited { name, path, run, statement }),
            Decision::Ask(question) => state.drift.push(Drift::Unclear { name, path, run, question }),
            Decision::GoOn(go_on) => {
                state.pending.push(index);
                state.going_on.insert(name, GoingOn { meant, go_on });
            }
        }
    }
    state.pending.sort_unstable();
    Ok(())
}

/// None, if it ended, or if the ledger does not say enough.
pub(super) fn meant(row: &Applied) -> Option<Meant> {
    let begun = row.begun.as_ref()?;
    Some(Meant {
        run: row.run.clone(),
        text: begun.text.clone()?,
        ended: usize::try_from(row.progress.unwrap_or(0)).ok()?,
        unclear: begun.unclear,
        before: begun.before.as_deref().and_then(|it| serde_json::from_str(it).ok()),
    })
}
