//! What happened, as past-tense facts sent only once they are true. How they look is decided by whoever receives them.

use crate::names::{DatabaseName, RunId, StepName};

/// A fact about a run under way.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The locks are held and the journal has its first entry.
    RunBegan {
        /// Its id.
        run: RunId,
        /// Where its record is.
        store: String,
    },
    /// A run that was cut off, or halted, is open again, and its locks are held.
    RunResumed {
        /// Its id.
        run: RunId,
        /// Where its record is.
        store: String,
    },
    /// A stage of the run began.
    Stage(Stage),
    /// `pg_dump` of a database is under way.
    SnapshotProgressed {
        /// The database.
        database: DatabaseName,
        /// Bytes that `pg_dump` gave so far.
        bytes: u64,
    },
    /// A snapshot is in the store, read back and proven equal.
    SnapshotTaken {
        /// The database.
        database: DatabaseName,
        /// Uncompressed.
        bytes: u64,
        /// Compressed.
        stored_bytes: u64,
        /// Rows in all tables.
        rows: u64,
        /// How long it took.
        seconds: f64,
    },
    /// A warm copy of a database is being made: its sessions are ended, and new ones wait.
    StandbyBegan {
        /// The database.
        database: DatabaseName,
        /// Bytes to be copied.
        bytes: u64,
    },
    /// It is there.
    StandbyMade {
        /// The database.
        database: DatabaseName,
        /// Its name on the server.
        standby: String,
        /// Bytes on disk.
        bytes: u64,
        /// How long the database could not be reached.
        seconds: f64,
    },
    /// A migration is committed with its ledger row.
    MigrationApplied {
        /// The database.
        database: DatabaseName,
        /// The step.
        step: StepName,
        /// The migration.
        name: String,
        /// How long it took.
        seconds: f64,
    },
    /// A lock was not to be had in time; the whole transaction is tried again.
    LockMissed {
        /// The database.
        database: DatabaseName,
        /// The migration.
        name: String,
        /// The attempt that failed, from 1.
        attempt: u32,
        /// Milliseconds until the next.
        wait_ms: u64,
        /// Who was in the way, each in words; nobody if that could not be seen.
        blockers: Vec<String>,
    },
    /// A migration was taken up that an earlier run had begun and not ended.
    GoingOn {
        /// The database.
        database: DatabaseName,
        /// The migration.
        name: String,
        /// Where, in words.
        how: String,
    },
    /// A statement was sent that waits until every older transaction has ended, and there were some.
    OlderTransactions {
        /// The database.
        database: DatabaseName,
        /// The migration.
        name: String,
        /// Each in words.
        transactions: Vec<String>,
    },
    /// Rows of a copy went over.
    CopyProgressed {
        /// The step.
        step: StepName,
        /// The database.
        database: DatabaseName,
        /// So far.
        rows: u64,
        /// So far.
        bytes: u64,
    },
    /// A copy is committed.
    Copied {
        /// The step.
        step: StepName,
        /// The database.
        database: DatabaseName,
        /// Rows read at the source.
        read: u64,
        /// Rows that were new.
        inserted: u64,
        /// Rows that differed.
        updated: u64,
        /// Rows that were gone at the source.
        deleted: u64,
        /// How long it took.
        seconds: f64,
    },
    /// A check gave its result.
    Checked {
        /// The check.
        check: String,
        /// Whether it holds.
        holds: bool,
        /// In words.
        detail: String,
    },
    /// Something failed; what follows depends on the failure policy.
    Failed {
        /// In words.
        message: String,
    },
    /// The archive of a snapshot was read from end to end and is what the manifest says.
    SnapshotVerified {
        /// The database.
        database: DatabaseName,
        /// Compressed bytes read.
        stored_bytes: u64,
    },
    /// A snapshot was restored into a scratch database and compared.
    Drilled {
        /// The database.
        database: DatabaseName,
        /// Whether it was what the snapshot says.
        passed: bool,
        /// How long the restore took.
        seconds: f64,
    },
    /// A restore into a side database is under way.
    RestoreProgressed {
        /// The database.
        database: DatabaseName,
        /// Compressed bytes read.
        stored_bytes: u64,
        /// Of so many.
        of: u64,
    },
    /// A side database holds what the snapshot holds, by row counts.
    Restored {
        /// The database.
        database: DatabaseName,
        /// The side database's name on the server.
        side: String,
        /// Rows compared.
        rows: u64,
        /// How long it took.
        seconds: f64,
    },
    /// The side databases of one server took their places, in one transaction.
    Swapped {
        /// Each database with the name under which the replaced one is kept.
        databases: Vec<(DatabaseName, String)>,
        /// How long the databases were unreachable.
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
    /// Migrations are undone, and their ledger rows gone.
    Undone {
        /// The database.
        database: DatabaseName,
        /// The step.
        step: StepName,
        /// The migrations, the last one first.
        migrations: Vec<String>,
        /// How long it took.
        seconds: f64,
    },
    /// A hook was called.
    Hooked {
        /// When: `rollback`, `success`, `failure`, `freeze`, `unfreeze`.
        on: &'static str,
        /// The program, or `http`.
        what: String,
        /// What went wrong.
        failed: Option<String>,
    },
    /// Something that a person should know.
    Noted(String),
}

/// The stages of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Connecting, locking, reading ledgers.
    Preflight,
    /// Checks before.
    Gates,
    /// Dumping to the store.
    Snapshots,
    /// The snapshots are restored into scratch databases and compared.
    Drill,
    /// Databases are copied on their servers, for the way back.
    Standbys,
    /// Applying.
    Migrations,
    /// Checks after.
    Checks,
    /// Reading archives back before a restore.
    Verification,
    /// Restoring side databases.
    Restore,
    /// Exchanging databases.
    Swap,
    /// Undoing migrations one by one.
    Undo,
}

/// Somebody who wants to know. Called from several tasks at once.
pub trait Report: Send + Sync {
    /// Takes one fact.
    fn event(&self, event: &Event);
}

/// Nobody who wants to know.
pub struct Silent;

impl Report for Silent {
    fn event(&self, _: &Event) {}
}
