//! How a command fails: who is to blame, in which state the databases are, and the exit code that follows from the two.

use miette::Diagnostic;

use crate::journal::state::RunState;
use crate::names::{DatabaseName, RunId};

/// What went wrong, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The command line or the plan.
    Usage,
    /// Another run holds the lock, or an earlier run is unfinished.
    Busy,
    /// Ledger, files or saved plan disagree.
    Drift,
    /// A check did not hold, where checking was the job.
    Check,
    /// The work itself: a database, the store, a program.
    Work,
    /// A signal.
    Interrupted,
}

/// The state in which a failure left the databases. Every failure names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aftermath {
    /// No database was changed.
    Untouched,
    /// Every database that the run touched is as it was before.
    Restored(Vec<DatabaseName>),
    /// Some are changed, and not rolled back.
    Mixed {
        /// The run that changed them.
        run: RunId,
        /// Which.
        changed: Vec<DatabaseName>,
        /// Whether the run has snapshots of them.
        snapshots: bool,
        /// Whether it was being taken back: then there is no way forward any more.
        back: bool,
    },
}

impl Aftermath {
    /// What `state` says of databases that are still changed. `back`: by a rollback, or one that was cut off.
    #[must_use]
    pub fn changed(state: &RunState, changed: Vec<DatabaseName>, back: bool) -> Self {
        match changed.is_empty() {
            true => Self::Untouched,
            false => Self::Mixed { run: state.run.clone(), changed, snapshots: state.no_snapshot.is_none(), back },
        }
    }

    /// The same, where a rollback has begun.
    #[must_use]
    pub fn on_the_way_back(self) -> Self {
        match self {
            Self::Mixed { run, changed, snapshots, .. } => Self::Mixed { run, changed, snapshots, back: true },
            other => other,
        }
    }

    /// The last line of every failure.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::Untouched => "No database was changed.".into(),
            Self::Restored(databases) => format!("Rolled back, as before the run: {}.", list(databases)),
            Self::Mixed { run, changed, snapshots: false, back: false } => format!(
                "NOT rolled back: {}. Run {run} has no snapshots: `migrate resume {run}` goes on from what is there.",
                list(changed)
            ),
            Self::Mixed { run, changed, back: false, .. } => format!(
                "NOT rolled back: {}. Run `migrate resume {run}` to finish the release once the cause is mended, or `migrate \
                 rollback {run}` to take them back to their state before the run.",
                list(changed)
            ),
            Self::Mixed { run, changed, snapshots: false, .. } => format!(
                "NOT rolled back: {}. Run {run} has no snapshots: the next `migrate apply` goes on from what is there.",
                list(changed)
            ),
            Self::Mixed { run, changed, .. } => format!(
                "NOT rolled back: {}. Run `migrate rollback {run}` to take them back to their state before the run.",
                list(changed)
            ),
        }
    }
}

/// Names, joined for a sentence.
#[must_use]
pub fn list<T: ToString>(names: &[T]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The program's exit codes, as CONTRACT.md and the README give them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed; no database was changed.
    Failed = 1,
    /// `plan --detailed-exitcode`: there is work to do.
    WorkToDo = 2,
    /// Failed; everything that the run touched was rolled back.
    RolledBack = 3,
    /// Failed; something is not rolled back.
    NotRolledBack = 4,
    /// Refused: locked, or unfinished.
    Busy = 5,
    /// Refused: drift.
    Drift = 6,
    /// A check failed.
    CheckFailed = 7,
    /// Wrong usage, or an invalid plan.
    Usage = 64,
    /// Interrupted.
    Interrupted = 130,
}

/// A failure of a whole command.
#[derive(Debug)]
pub struct Failure {
    /// Who is to blame.
    pub blame: Blame,
    /// What state the databases are in.
    pub aftermath: Aftermath,
    /// What happened, with its causes and its help.
    pub error: Box<dyn Diagnostic + Send + Sync>,
}

impl Failure {
    /// A failure before anything was changed.
    pub fn untouched(blame: Blame, error: impl Diagnostic + Send + Sync + 'static) -> Self {
        Self { blame, aftermath: Aftermath::Untouched, error: Box::new(error) }
    }

    /// Interruption says so first, since whoever sent the signal waits for that; then a state that needs a person wins
    /// over every other reason.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match (self.blame, &self.aftermath) {
            (Blame::Interrupted, _) => Exit::Interrupted,
            (_, Aftermath::Mixed { .. }) => Exit::NotRolledBack,
            (_, Aftermath::Restored(_)) => Exit::RolledBack,
            (Blame::Usage, _) => Exit::Usage,
            (Blame::Busy, _) => Exit::Busy,
            (Blame::Drift, _) => Exit::Drift,
            (Blame::Check, _) => Exit::CheckFailed,
            (Blame::Work, _) => Exit::Failed,
        }
    }
}

/// Turns an error that can only occur before any change into a [`Failure`].
pub trait OrFail<T> {
    /// The failure is the work's.
    ///
    /// # Errors
    /// The error, as a failure that changed nothing.
    fn or_fail(self) -> Result<T, Failure>;

    /// The failure is of another kind.
    ///
    /// # Errors
    /// The error, as a failure that changed nothing.
    fn or_blame(self, blame: Blame) -> Result<T, Failure>;
}

impl<T, E: Diagnostic + Send + Sync + 'static> OrFail<T> for Result<T, E> {
    fn or_fail(self) -> Result<T, Failure> {
        self.or_blame(Blame::Work)
    }

    fn or_blame(self, blame: Blame) -> Result<T, Failure> {
        self.map_err(|error| Failure::untouched(blame, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error, Diagnostic)]
    #[error("it broke")]
    struct Broken;

    fn exit(blame: Blame, aftermath: Aftermath) -> u8 {
        Failure { blame, aftermath, error: Box::new(Broken) }.exit() as u8
    }

    #[test]
    fn the_exit_code_follows_from_blame_and_aftermath() {
        let names = || vec![DatabaseName::new("mobius").expect("a name")];
        let run = RunId::new("20261121-174311-482k3f").expect("a run id");
        for (blame, code) in [
            (Blame::Usage, 64),
            (Blame::Busy, 5),
            (Blame::Drift, 6),
            (Blame::Check, 7),
            (Blame::Work, 1),
            (Blame::Interrupted, 130),
        ] {
            assert_eq!(exit(blame, Aftermath::Untouched), code);
        }
        for blame in [Blame::Usage, Blame::Busy, Blame::Drift, Blame::Check, Blame::Work] {
            assert_eq!(exit(blame, Aftermath::Restored(names())), 3);
            assert_eq!(
                exit(blame, Aftermath::Mixed { run: run.clone(), changed: names(), snapshots: true, back: true }),
                4
            );
        }
    }
}
