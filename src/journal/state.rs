//! The state of a run, folded from its entries. Pure: the same entries give the same state on every machine.

mod database;
mod fold;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use crate::names::{DatabaseName, RunId, StepName, TargetName};

use super::entry::{Command, Outcome, Work, Writer};

pub use database::{Changed, DatabaseState, Restore, Standby, WarmCopy};

/// What the journal of a run says.
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    /// The run.
    pub run: RunId,
    /// What it is. None: its first entry is of a newer version.
    pub command: Option<Command>,
    /// The plan's name.
    pub plan: String,
    /// The target.
    pub target: Option<TargetName>,
    /// When its first entry was written.
    pub started_at: DateTime<Utc>,
    /// When it ended for the first time: a rollback may come long after.
    pub ended_at: Option<DateTime<Utc>>,
    /// When its last entry was written.
    pub last_at: DateTime<Utc>,
    /// Who wrote the last entry.
    pub last_by: Writer,
    /// How many entries there are.
    pub entries: u64,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
    /// What was said at the end.
    pub message: Option<String>,
    /// Why it has no snapshots, if so.
    pub no_snapshot: Option<String>,
    /// The version of `migrate` that wrote entries which this one does not know.
    pub newer: Option<String>,
    /// Its databases.
    pub databases: BTreeMap<DatabaseName, DatabaseState>,
    /// Its steps, or the parts of those that were cut, in the order in which they began.
    pub begun: Vec<Begun>,
    /// What became of its migrations, by step: of those that it meant to apply, and of those that it began.
    pub units: BTreeMap<StepName, BTreeMap<String, Journaled>>,
    /// What it meant to apply. Empty: it was written by a version that did not say.
    pub work: Vec<Work>,
    /// What was said when a step failed last.
    pub said: BTreeMap<StepName, String>,
    /// The rollback that is under way.
    pub going_back: Option<GoingBack>,
    /// The databases whose users heard that they will be cut off, and not yet that they can come back.
    pub frozen: BTreeSet<DatabaseName>,
}

/// What the journal says of one migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Journaled {
    /// The run was to apply it; its step has not begun.
    Meant,
    /// Its step began, and the journal does not have it among what was applied.
    Begun,
    /// It was applied.
    Applied,
    /// It was about to be undone.
    Undoing,
    /// It was undone, or its database was taken back.
    Undone,
}

/// A rollback that began and did not end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoingBack {
    /// The databases that were to go back.
    pub databases: BTreeSet<DatabaseName>,
    /// `snapshot`, `down`; none in journals of versions that knew one way alone.
    pub via: Option<String>,
    /// Whether the operator asked for these databases alone.
    pub only: bool,
    /// What the run was before.
    pub before: Option<Outcome>,
}

/// A step, or a part of one, that began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// The step.
    pub step: StepName,
    /// The migrations that it was about to apply.
    pub pending: BTreeSet<String>,
    /// Those of them that the database had with another text.
    pub replaced: BTreeSet<String>,
}

impl RunState {
    /// Whether this is a release that needs somebody before the next one may begin. One that was halted and has no snapshots
    /// can only be gone on from.
    #[must_use]
    pub fn unfinished(&self) -> bool {
        let open = match self.outcome {
            None => true,
            Some(Outcome::Halted) => self.no_snapshot.is_none(),
            Some(_) => false,
        };
        self.may_be_release() && open
    }

    /// Whether this is a release, or was begun by a version whose words this one does not know.
    fn may_be_release(&self) -> bool {
        self.command.is_none_or(|it| it == Command::Apply)
    }

    /// Whether this is a release of `target`.
    #[must_use]
    pub fn is_release_of(&self, target: &TargetName) -> bool {
        self.command == Some(Command::Apply) && self.target.as_ref() == Some(target)
    }

    /// Whether this is a release of `target`, or may be one: a later version began it, in words that this one does not know.
    #[must_use]
    pub fn may_be_release_of(&self, target: &TargetName) -> bool {
        self.may_be_release() && self.target.as_ref().is_none_or(|it| it == target)
    }

    /// The word for its state, as in JSON.
    #[must_use]
    pub fn word(&self) -> &'static str {
        self.outcome.map_or("unfinished", Outcome::word)
    }

    /// Databases that are, or may be, changed by this run.
    pub fn changed(&self) -> impl Iterator<Item = &DatabaseState> {
        self.databases.values().filter(|it| it.changed != Changed::No)
    }
}
