//! What should be: the plan file, read once and checked whole before anything is touched.
//!
//! `file` is the TOML as typed, with the place of every value; `expand` puts environment variables in; `order` fixes the
//! order of the steps. After a [`Plan`] exists there is no file left to read and no text left to parse.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::kind::Kind;
use crate::names::{DatabaseName, StepName, TargetName};
use crate::outside::url::DatabaseUrl;

/// A plan for one target: names resolved, migration files read, checksums taken, order fixed.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `name` of the plan file.
    pub name: String,
    /// The plan file's path as given by the user.
    pub path: PathBuf,
    /// The plan file's text, kept with the run. It holds `${VAR}` references, never their values.
    pub text: String,
    /// The target that this run is about.
    pub target: Target,
    /// `[store]`.
    pub store: StoreSettings,
    /// `[run]`.
    pub run: RunSettings,
    /// Every database of the target.
    pub databases: BTreeMap<DatabaseName, Database>,
    /// The steps in the order of execution: every step after all that it waits for, ties by place in the file.
    pub steps: Vec<Step>,
    /// `[[checks]]`, in the order of the file.
    pub checks: Vec<Check>,
}

/// `[targets.NAME]`.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name.
    pub name: TargetName,
    /// `apply` wants a saved plan.
    pub protected: bool,
    /// Rehearsals may write, restore and drop here.
    pub disposable: bool,
}

/// `[store]`.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// `gs://bucket/prefix` or `file:///…`, expanded. None: the command line has to name one.
    pub url: Option<String>,
    /// How archives are compressed.
    pub compression: Compression,
}

/// `store.compression`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// `gzip`, the default.
    #[default]
    Gzip,
}

/// `[run]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSettings {
    /// What a failure after the first change leads to.
    pub on_failure: OnFailure,
    /// Databases that are worked on at once.
    pub parallel: usize,
    /// How long a statement may wait for a lock.
    pub lock_timeout: Duration,
    /// How often a transaction that did not get its lock is tried again.
    pub lock_retries: u32,
    /// How long a statement may run; zero is for ever.
    pub statement_timeout: Duration,
}

/// `run.on_failure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Every database that the run touched goes back to its snapshot.
    Rollback,
    /// The databases stay as they are, for a person to look.
    Halt,
}

/// One database of the target.
#[derive(Debug, Clone)]
pub struct Database {
    /// Its name in the plan.
    pub name: DatabaseName,
    /// Where it is.
    pub url: DatabaseUrl,
    /// The people who answer for it.
    pub owner: Option<String>,
    /// Extensions that must be available.
    pub extensions: Vec<String>,
}

/// `[[steps]]`: the migrations of one source on one database, or a copy between two.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its name.
    pub name: StepName,
    /// The database that it changes.
    pub database: DatabaseName,
    /// Steps that come first.
    pub after: Vec<StepName>,
    /// In place of the run's.
    pub lock_timeout: Option<Duration>,
    /// In place of the run's.
    pub statement_timeout: Option<Duration>,
    /// What it does.
    pub kind: Kind,
}

/// `[[checks]]`.
#[derive(Debug, Clone)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Before or after the migrations.
    pub when: When,
    /// The people who answer for it.
    pub owner: Option<String>,
    /// What it compares. Later kinds (`sql`, `http`, …) make this an enum.
    pub sync: crate::verify::sync::SyncCheck,
}

/// `checks.when`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// A gate: it must hold before anything is changed.
    Before,
    /// It must hold before the run may be called succeeded.
    After,
}
