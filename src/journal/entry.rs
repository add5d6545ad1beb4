//! One entry of a journal: versioned JSON. What a newer version wrote is kept as unknown, never mistaken for something
//! else.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::names::{DatabaseName, StepName, TargetName};
use crate::outside::clock;
use crate::version;
use crate::world::World;

/// The version of this format. A new sort of entry, or a new field, is none: whoever does not know it says so. It is raised where an
/// earlier version would take an entry for something else. Whatever comes, `format`, `seq`, `at` and `by` stay.
pub const FORMAT: u32 = 1;

/// One object of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The version of the format.
    pub format: u32,
    /// From 1, without gaps.
    pub seq: u64,
    /// When it was written.
    pub at: DateTime<Utc>,
    /// By whom.
    pub by: Writer,
    /// What happened, or is about to.
    pub fact: Fact,
}

impl Entry {
    /// An entry written now.
    #[must_use]
    pub fn new(seq: u64, by: Writer, fact: Fact) -> Self {
        Self { format: FORMAT, seq, at: clock::now(), by, fact }
    }

    /// Reads one. What a later version wrote in a later format, or in words that this one does not know, is [`Fact::Unknown`].
    ///
    /// # Errors
    /// It is no entry, or is damaged.
    pub fn read(text: &[u8]) -> Result<Self, serde_json::Error> {
        let read = serde_json::from_slice::<Self>(text);
        let Ok(Head { format, seq, at, by }) = serde_json::from_slice(text) else { return read };
        let newer = format > FORMAT || (read.is_err() && version::is_later(&by.version));
        if newer { Ok(Self { format, seq, at, by, fact: Fact::Unknown }) } else { read }
    }
}

/// What an entry of every format has.
#[derive(Deserialize)]
struct Head {
    format: u32,
    seq: u64,
    at: DateTime<Utc>,
    by: Writer,
}

/// The process that wrote an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// Its machine.
    pub host: String,
    /// The operating system's user.
    pub user: String,
    /// Its process id.
    pub pid: u32,
    /// The version of `migrate`.
    pub version: String,
}

impl Writer {
    /// This process.
    #[must_use]
    pub fn this_process(world: &World) -> Self {
        Self {
            host: world.host.clone(),
            user: world.user.clone(),
            pid: std::process::id(),
            version: version::THIS.into(),
        }
    }
}

/// What happened, or is about to. Facts in the past tense are written after, the others before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Fact {
    /// The first entry of every run.
    Begin {
        /// `apply`, or `snapshot` for snapshots taken alone.
        command: Command,
        /// The plan's name.
        plan: String,
        /// The target.
        target: TargetName,
        /// The databases that the run is about.
        databases: Vec<Identity>,
        /// Why there are no snapshots, if the operator wanted none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        no_snapshot: Option<String>,
        /// What a release is about to apply. Versions that could not resume a run did not say.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        work: Vec<Work>,
    },
    /// A run that was cut off, or halted, is taken up again, by whoever wrote this entry: it is open until [`Fact::End`].
    ResumeStart {
        /// What the databases show to have been applied by then.
        found: Vec<Found>,
        /// The databases that the run has changed by then.
        changed: Vec<DatabaseName>,
    },
    /// `pg_dump` is about to start.
    SnapshotStart {
        /// The database.
        database: DatabaseName,
    },
    /// Archive and manifest are in the store, and proven.
    SnapshotTaken {
        /// The database.
        database: DatabaseName,
        /// Uncompressed.
        bytes: u64,
        /// Compressed.
        stored_bytes: u64,
        /// Of the compressed bytes.
        sha256: String,
        /// How long it took.
        seconds: f64,
    },
    /// A warm copy of a database is about to be made.
    StandbyStart {
        /// The database.
        database: DatabaseName,
        /// The copy's name on the server.
        standby: String,
    },
    /// It is there, with what belongs to the database itself.
    StandbyMade {
        /// The database.
        database: DatabaseName,
        /// The copy's name on the server.
        standby: String,
        /// Its oid.
        oid: u32,
        /// Bytes on disk.
        bytes: u64,
        /// How long it took, and the database could not be reached.
        seconds: f64,
        /// `txid_current_snapshot()` before the copy: what is not visible in it was written later.
        horizon: String,
    },
    /// Whoever uses these databases is about to hear, by the plan's hooks, that they will be cut off: they are owed another word.
    FreezeStart {
        /// The databases.
        databases: Vec<DatabaseName>,
    },
    /// They were told that these databases can be reached again.
    Unfrozen {
        /// The databases.
        databases: Vec<DatabaseName>,
    },
    /// A step is about to change its database.
    StepStart {
        /// The step.
        step: StepName,
        /// The database.
        database: DatabaseName,
        /// The migrations that are about to be applied.
        pending: Vec<String>,
        /// Those of them that are applied anew, with the checksums that the ledger had for them.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        replaced: BTreeMap<String, String>,
        /// The roles of the server before the run: no snapshot has roles.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        roles: Vec<String>,
    },
    /// A step is done and committed.
    StepDone {
        /// The step.
        step: StepName,
        /// The database.
        database: DatabaseName,
        /// The migrations that were applied.
        applied: Vec<String>,
        /// How long it took.
        seconds: f64,
    },
    /// A step failed.
    StepFailed {
        /// The step.
        step: StepName,
        /// The database.
        database: DatabaseName,
        /// The migrations that were applied before.
        applied: Vec<String>,
        /// Whether what failed may have left something behind. The first versions said whether the database was changed at all.
        #[serde(alias = "changed")]
        left_something: bool,
        /// What went wrong.
        message: String,
    },
    /// A program changed databases that its step was not meant for.
    Strayed {
        /// The step.
        step: StepName,
        /// The databases that it was not meant for.
        databases: Vec<DatabaseName>,
        /// What it did, in words.
        what: String,
    },
    /// Migrations that a database had already got their ledger rows.
    Adopted {
        /// The step.
        step: StepName,
        /// The database.
        database: DatabaseName,
        /// The migrations.
        adopted: Vec<String>,
    },
    /// An invalid index that a migration left was dropped.
    IndexDropped {
        /// The step.
        step: StepName,
        /// The database.
        database: DatabaseName,
        /// The migration.
        name: String,
        /// Quoted, with its schema.
        index: String,
    },
    /// A changed file was accepted.
    Repaired {
        /// The step.
        step: StepName,
        /// The database.
        database: DatabaseName,
        /// The migration.
        name: String,
        /// The checksum that the ledger had.
        before: String,
        /// The checksum of the file.
        after: String,
    },
    /// The operator said what became of a migration that was cut off.
    Resolved {
        /// The step.
        step: StepName,
        /// The database.
        database: DatabaseName,
        /// The migration.
        name: String,
        /// What was said.
        applied: bool,
        /// Of this statement alone, from 1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        statement: Option<u32>,
    },
    /// A check gave its result.
    Checked {
        /// The check.
        check: String,
        /// `passed` or `failed`.
        outcome: String,
        /// In words.
        detail: String,
    },
    /// A rollback is about to start. The run is unfinished until [`Fact::End`].
    RollbackStart {
        /// The databases that will go back.
        databases: Vec<DatabaseName>,
        /// `failure` within the run, `request` by an operator.
        why: String,
        /// `standby`, `snapshot`, both, or `down`. Versions that knew one way alone did not say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        via: Option<String>,
        /// Whether the operator asked for these databases alone.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        only: bool,
    },
    /// Migrations are about to be undone, in one go.
    UndoStart {
        /// The step.
        step: StepName,
        /// The database.
        database: DatabaseName,
        /// The migrations, the last one first.
        migrations: Vec<String>,
    },
    /// They were undone, and their ledger rows are gone.
    Undone {
        /// The step.
        step: StepName,
        /// The database.
        database: DatabaseName,
        /// The migrations, the last one first.
        migrations: Vec<String>,
        /// How long it took.
        seconds: f64,
    },
    /// They were not, or not all of them.
    UndoFailed {
        /// The step.
        step: StepName,
        /// The database.
        database: DatabaseName,
        /// Those that are still applied, or of which it is not known.
        migrations: Vec<String>,
        /// What went wrong.
        message: String,
    },
    /// Every migration of the run on a database is undone.
    AllUndone {
        /// The database.
        database: DatabaseName,
    },
    /// A side database is about to be made.
    RestoreStart {
        /// The database.
        database: DatabaseName,
        /// The side database's name on the server.
        side: String,
    },
    /// The side database holds what the snapshot holds.
    Restored {
        /// The database.
        database: DatabaseName,
        /// The side database's name on the server.
        side: String,
        /// How long it took.
        seconds: f64,
    },
    /// What applications wrote since is in the store.
    WritesSaved {
        /// The database.
        database: DatabaseName,
        /// The folder in the store.
        folder: String,
        /// How many rows.
        rows: u64,
    },
    /// The databases of one server are about to be exchanged in one transaction.
    SwapStart {
        /// All databases of that server.
        swaps: Vec<Swap>,
    },
    /// They were exchanged.
    Swapped {
        /// All databases of that server.
        swaps: Vec<Swap>,
        /// How long they were unreachable; none where a rollback found that an earlier one had exchanged them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<f64>,
    },
    /// The last entry of a run, or of a rollback of it.
    End {
        /// How it ended.
        outcome: Outcome,
        /// In words, where there is something to say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// Written by a newer version of `migrate`.
    #[serde(other)]
    Unknown,
}

/// What a run is about to apply in one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// The step.
    pub step: StepName,
    /// The database.
    pub database: DatabaseName,
    /// The migrations, each with the checksum of its file as the run found it.
    pub migrations: BTreeMap<String, String>,
}

/// What was applied in one step, by what its database shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The step.
    pub step: StepName,
    /// The database.
    pub database: DatabaseName,
    /// The migrations of this run that it has.
    pub applied: Vec<String>,
}

/// What a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// A release.
    Apply,
    /// Snapshots taken alone.
    Snapshot,
    /// Ledger rows for what databases had already.
    Baseline,
    /// A changed file, accepted.
    Repair,
}

/// A database, as the run found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its name in the plan.
    pub name: DatabaseName,
    /// Its name on the server.
    pub dbname: String,
    /// The server's system identifier.
    pub server: String,
    /// Its oid.
    pub oid: u32,
}

/// The exchange of one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// The database.
    pub database: DatabaseName,
    /// Its name on the server.
    pub dbname: String,
    /// The oid of the database that is replaced; 0 if there is none any more.
    pub oid: u32,
    /// The side database's name before.
    pub side: String,
    /// The oid of the side database.
    pub side_oid: u32,
    /// The replaced database's name after.
    pub kept_as: String,
}

impl Swap {
    /// Whether there is a database to be replaced: somebody may have dropped it.
    #[must_use]
    pub fn replaces(&self) -> bool {
        self.oid != 0
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Applied, and every check holds.
    Succeeded,
    /// Failed before anything was changed.
    Failed,
    /// Every touched database is as it was before.
    RolledBack,
    /// Failed, and left as it is, as the plan says.
    Halted,
    /// Another run holds the lock, or files and databases disagree.
    Refused,
    /// There was nothing pending.
    NothingToDo,
}

impl Outcome {
    /// The word for it, as in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::RolledBack => "rolled_back",
            Self::Halted => "halted",
            Self::Refused => "refused",
            Self::NothingToDo => "nothing_to_do",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: u32, version: &str, fact: &str) -> Result<Fact, serde_json::Error> {
        let text = format!(
            r#"{{"format":{format},"seq":7,"at":"2027-01-01T00:00:00Z","fact":{fact},
            "by":{{"host":"h","user":"u","pid":1,"version":"{version}","mood":"good"}}}}"#
        );
        Entry::read(text.as_bytes()).map(|it| it.fact)
    }

    #[test]
    fn what_a_newer_version_wrote_is_unknown_and_no_error() {
        let unknown =
            |format, version, fact| assert_eq!(read(format, version, fact).ok(), Some(Fact::Unknown), "{fact}");
        unknown(1, version::THIS, r#"{"event":"teleported","to":"mars"}"#);
        // An event that is known, in a format that is not: it may mean something else.
        unknown(2, "9.0.0", r#"{"event":"end","outcome":"succeeded"}"#);
        unknown(2, "9.0.0", r#"["end", "succeeded"]"#);
        // A word that is not known, in an event that is.
        unknown(1, "9.0.0", r#"{"event":"end","outcome":"postponed"}"#);
        assert!(read(1, version::THIS, r#"{"event":"end","outcome":"postponed"}"#).is_err(), "that is damage");
    }

    #[test]
    fn what_the_first_versions_wrote_is_read() {
        let failed = r#"{"event":"step_failed","step":"s","database":"rag","applied":[],"changed":true,"message":"m"}"#;
        assert!(matches!(read(1, "0.1.0", failed), Ok(Fact::StepFailed { left_something: true, .. })));
        let swapped = r#"{"event":"swapped","swaps":[]}"#;
        assert!(matches!(read(1, "0.1.0", swapped), Ok(Fact::Swapped { seconds: None, .. })));
    }

    #[test]
    fn the_words_of_outcomes_are_those_of_the_json() {
        for outcome in [
            Outcome::Succeeded,
            Outcome::Failed,
            Outcome::RolledBack,
            Outcome::Halted,
            Outcome::Refused,
            Outcome::NothingToDo,
        ] {
            assert_eq!(serde_json::to_value(outcome).expect("plain"), outcome.word());
        }
    }
}
