//! Doing it, and being able to say how far it got. Only this module knows all stages.

pub mod apply;
mod back;
pub mod baseline;
pub mod choose;
mod copy_step;
pub mod doctor;
pub mod drift;
pub mod edges;
mod file_step;
mod freeze;
pub mod going_on;
pub mod hooks;
mod keep;
pub mod lock;
pub mod loss;
pub mod mend;
mod needs;
pub mod price;
pub mod program_step;
pub mod readable;
pub mod ready;
pub mod recover;
pub mod repair_index;
pub mod replaced;
pub mod report;
pub mod resume;
mod roles;
pub mod rollback;
pub mod saved;
pub mod selective;
pub mod snapshots;
pub mod standby;
pub mod step;
mod subject;
pub mod survey;
pub mod undo;
pub mod writes;

use crate::journal::state::RunState;
use crate::journal::{self, JournalError};
use crate::names::{RunId, TargetName};
use crate::outside::store::Store;
use crate::version::THIS;

/// The newest release of a target, if there is one. Runs that only took snapshots are passed over; one of which this version cannot
/// tell what it is, is not.
///
/// # Errors
/// The store failed.
pub async fn latest(store: &Store, target: &TargetName) -> Result<Option<RunState>, JournalError> {
    for run in journal::runs(store).await? {
        let state = journal::state(store, &run).await;
        // A folder without entries is what a run leaves that died before its first one: it did nothing.
        let state = match state {
            Ok(state) => state,
            Err(JournalError::NoRun { .. }) => continue,
            Err(error) => return Err(error),
        };
        if state.may_be_release_of(target) {
            return Ok(Some(state));
        }
    }
    Ok(None)
}

/// An earlier run needs somebody first.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum Unfinished {
    /// It was cut off, or halted.
    #[error("run {run} is {state}")]
    #[diagnostic(
        code("run.unfinished"),
        help(
            "Finish it with `migrate resume {run}`, or take its databases back with `migrate rollback {run}`; `migrate status` \
             says what each would do."
        )
    )]
    Open {
        /// Which.
        run: RunId,
        /// `unfinished` or `halted`.
        state: &'static str,
    },
    /// A later version carried it, and this one cannot tell how far it got.
    #[error("run {run} was written by migrate {version}, and this version ({THIS}) cannot tell whether it has ended")]
    #[diagnostic(code("run.newer"), help("Use migrate {version} or a later one."))]
    Newer {
        /// Which.
        run: RunId,
        /// The version that wrote it.
        version: String,
    },
}

/// Refuses where the latest release of a target is unfinished. Earlier ones cannot be: each was refused in its turn.
///
/// # Errors
/// The store failed.
pub async fn unfinished(store: &Store, target: &TargetName) -> Result<Option<Unfinished>, JournalError> {
    let latest = latest(store, target).await?.filter(RunState::unfinished);
    Ok(latest.map(|it| match it.newer.clone() {
        Some(version) => Unfinished::Newer { run: it.run, version },
        None => Unfinished::Open { run: it.run.clone(), state: it.word() },
    }))
}
