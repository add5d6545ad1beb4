//! What should be: the plan file, read once and checked whole before anything is touched.
//!
//! `file` is the TOML as typed, with the place of every value; `check` holds what must be true beyond that; `order` fixes
//! the order of the steps; `expand` puts environment variables in. After a [`Plan`] exists there is no file left to read and
//! no text left to parse.

mod check;
mod expand;
pub mod file;
pub mod hooks;
mod literal;
mod order;
pub mod outline;
mod problem;
mod programs;
mod section;
pub mod segments;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use self::file::PlanFile;
use self::hooks::Hook;
use self::problem::Problem;
pub use self::problem::{Invalid, PlanError};
pub use self::segments::{EdgeError, Segment};
use self::tables::{CheckTable, StepTable, TableTable, Time, Wait, Work};
use crate::kind::limits::Limits;
use crate::kind::{self, Copy, Files, Kind, Migration, TableRef};
use crate::lint::Allowed;
use crate::names::{DatabaseName, StepName, TargetName};
use crate::outside::encryption::Recipient;
use crate::outside::url::DatabaseUrl;
use crate::verify::sync::SyncCheck;

/// A plan for one target: names resolved, migration files read, checksums taken, order fixed.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `name` of the plan file.
    pub name: String,
    /// The plan file's path as given by the user.
    pub path: PathBuf,
    /// The plan file's text, kept with the run. It holds `${VAR}` references, never their values; a literal password in a
    /// comment is starred out.
    pub text: String,
    /// The target that this run is about.
    pub target: Target,
    /// `[store]`.
    pub store: StoreSettings,
    /// `[run]`.
    pub run: RunSettings,
    /// Every database of the target.
    pub databases: BTreeMap<DatabaseName, Database>,
    /// The steps in the order of execution: every step after all that it waits for, ties by place in the file. One that is
    /// cut stands where its first segment does.
    pub steps: Vec<Step>,
    /// The steps, cut where migrations wait for each other, in the order of execution.
    pub segments: Vec<Segment>,
    /// `[[checks]]`, in the order of the file.
    pub checks: Vec<Check>,
    /// `[[hooks]]`, in the order of the file.
    pub hooks: Vec<Hook>,
    /// `lint.allow`: rules whose findings are not wanted.
    pub allowed: Allowed,
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
    /// `gs://bucket/prefix`, `s3://bucket/prefix` or `file:///…`, expanded. None: the command line has to name one.
    pub url: Option<String>,
    /// How archives are compressed.
    pub compression: Compression,
    /// To whom archives are encrypted; to nobody: not at all.
    pub encrypt_to: Vec<Recipient>,
    /// Of a plan that was kept with a run: why it is not known here to whom.
    pub unknown_recipients: Option<String>,
    /// What `snapshot prune` keeps.
    pub retention: Retention,
}

/// `store.retention`. What neither limit covers may be pruned; without any limit, nothing may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// The latest so many runs.
    pub keep_last: Option<u32>,
    /// The runs of so many days.
    pub keep_days: Option<u32>,
}

/// `store.compression`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// `gzip`, the default: whatever machine there is can read it.
    #[default]
    Gzip,
    /// `zstd`: several times as fast, and smaller.
    Zstd,
}

impl Compression {
    /// What the name of a compressed file ends in.
    #[must_use]
    pub fn ending(self) -> &'static str {
        match self {
            Self::Gzip => "gz",
            Self::Zstd => "zst",
        }
    }
}

/// The least that `run.memory` can be, in bytes: one dump or restore at a time.
pub const LEAST_MEMORY: u64 = 84 << 20;
/// The default of `run.memory`.
const MEMORY: u64 = 256 << 20;

/// `[run]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSettings {
    /// What a failure after the first change leads to.
    pub on_failure: OnFailure,
    /// Databases that are worked on at once.
    pub parallel: usize,
    /// Dumps or restores at once, of all databases together; none is what the machine's cores are good for.
    pub jobs: Option<usize>,
    /// What this process may take for snapshots and restores, in bytes.
    pub memory: u64,
    /// Whether every snapshot is drilled before anything is changed.
    pub drill: bool,
    /// How long a statement may wait for a lock.
    pub lock_timeout: Duration,
    /// How often a transaction that did not get its lock is tried again.
    pub lock_retries: u32,
    /// How long a statement may run; zero is for ever.
    pub statement_timeout: Duration,
}

/// `run.on_failure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
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
    /// Whether a warm copy of it is made before the first change. Its applications are cut off for as long as that takes.
    pub standby: bool,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// A gate: it must hold before anything is changed.
    Before,
    /// It must hold before the run may be called succeeded; the default.
    #[default]
    After,
}

impl Plan {
    /// How long the statements of a step may wait and run: as it says itself, else as the run does.
    #[must_use]
    pub fn limits(&self, step: &Step) -> Limits {
        Limits {
            lock_timeout: step.lock_timeout.unwrap_or(self.run.lock_timeout),
            lock_retries: self.run.lock_retries,
            statement_timeout: step.statement_timeout.unwrap_or(self.run.statement_timeout),
        }
    }

    /// Reads the plan file at `path` for `target`, or for the plan's default target, and all migration folders that it names.
    /// `env` is where `${NAME}` is looked up.
    ///
    /// # Errors
    /// The first thing that is wrong with the file, the target, a variable, a URL, or a migration.
    pub fn load(path: &Path, target: Option<&str>, env: &BTreeMap<String, String>) -> Result<Self, PlanError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| PlanError::Unreadable { path: path.to_owned(), source })?;
        let file = PlanFile::parse(path, &text)?;
        let target = file.target(target)?;
        let databases = file.databases(&target.name, env, None)?;
        let store = Self::store_settings(&file, file.store_url(env)?, file.encrypt_to(env)?);
        let root = project_root(path);
        let (mut steps, mut folders) = (Vec::with_capacity(file.steps.len()), Folders::new());
        for table in &file.steps {
            let url = &databases[table.database.get_ref()].url;
            let kind = match file.read_program(&root, table, url, env)? {
                Some(program) => program,
                None => file.read_work(&root, table, &mut folders)?,
            };
            steps.push(Step { kind, ..step(table) });
        }
        let (steps, segments) = segments::cut(steps)?;
        Ok(Self { segments, ..Self::of(file, path, target, databases, store, steps) })
    }

    /// Makes a plan of the text that is kept with a run, called `name` in messages, where no migration folder exists: its steps
    /// have no migrations and no segments. `only` limits the databases, so that the variables of the others need not be set. The
    /// store is the one the text came from, so a store of the plan that cannot be expanded is left out.
    ///
    /// # Errors
    /// The first thing that is wrong with the text, the target, a variable, or a URL.
    pub fn load_stored(
        text: &str,
        name: &str,
        target: &str,
        env: &BTreeMap<String, String>,
        only: Option<&BTreeSet<DatabaseName>>,
    ) -> Result<Self, PlanError> {
        let path = Path::new(name);
        let file = PlanFile::parse(path, text)?;
        let target = file.target(Some(target))?;
        let databases = file.databases(&target.name, env, only)?;
        let (url, recipients) = (file.store_url(env).unwrap_or_default(), file.encrypt_to(env));
        let unknown_recipients = recipients.as_ref().err().map(ToString::to_string);
        let store = Self::store_settings(&file, url, recipients.unwrap_or_default());
        let store = StoreSettings { unknown_recipients, ..store };
        let steps = file.steps.iter().map(step).collect();
        Ok(Self::of(file, path, target, databases, store, steps))
    }

    fn store_settings(file: &PlanFile, url: Option<String>, encrypt_to: Vec<Recipient>) -> StoreSettings {
        let compression = file.store.compression.unwrap_or_default();
        StoreSettings { url, compression, encrypt_to, unknown_recipients: None, retention: file.store.retention }
    }

    fn of(
        file: PlanFile,
        path: &Path,
        target: Target,
        databases: BTreeMap<DatabaseName, Database>,
        store: StoreSettings,
        steps: Vec<Step>,
    ) -> Self {
        Self {
            text: file.source.text().to_owned(),
            path: path.to_owned(),
            target,
            store,
            run: file.run_settings(),
            allowed: file.allowed(),
            databases,
            steps,
            segments: Vec::new(),
            checks: file.checks.into_iter().map(check_of).collect(),
            hooks: hooks::of(file.hooks),
            name: file.name,
        }
    }
}

/// The folder that paths in the plan file at `path` are relative to: its own, or the one above if its own is called `plans`.
#[must_use]
pub fn project_root(path: &Path) -> PathBuf {
    // Absolute first: from within `plans`, the plan file is named without its folder.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = absolute.parent().unwrap_or(Path::new(""));
    let plans = folder.file_name().is_some_and(|name| name == "plans");
    folder.parent().filter(|_| plans).unwrap_or(folder).to_owned()
}

/// Reads the folder of the first path; messages call it by the second.
type ReadFolder = fn(&Path, &Path) -> Result<Vec<Migration>, kind::ReadError>;

/// What was read already, by the word for its kind and the path: where several databases have the same migrations, these are
/// read once.
type Folders = BTreeMap<(&'static str, String), Vec<Migration>>;

fn count(number: Option<&toml::Spanned<u32>>) -> Option<usize> {
    number.map(|it| usize::try_from(*it.get_ref()).unwrap_or(usize::MAX))
}

impl PlanFile {
    fn allowed(&self) -> Allowed {
        self.lint.allow.iter().map(|it| it.get_ref().clone()).collect()
    }

    fn run_settings(&self) -> RunSettings {
        let run = &self.run;
        RunSettings {
            on_failure: run.on_failure.unwrap_or(OnFailure::Rollback),
            parallel: count(run.parallel.as_ref()).unwrap_or(4),
            jobs: count(run.jobs.as_ref()),
            memory: run.memory.as_ref().map_or(MEMORY, |it| it.get_ref().0),
            drill: run.drill,
            lock_timeout: run.lock_timeout.map_or(Duration::from_secs(4), |Wait(it)| it),
            lock_retries: run.lock_retries.unwrap_or(8),
            statement_timeout: run.statement_timeout.map_or(Duration::ZERO, |Time(it)| it),
        }
    }

    /// The step's work with its files read.
    fn read_work(&self, root: &Path, table: &StepTable, read_before: &mut Folders) -> Result<Kind, PlanError> {
        let (dir, word, read): (_, _, ReadFolder) = match &table.work {
            Work::Sql { dir } => (dir, "sql", kind::sql::read),
            Work::Refinery { dir } => (dir, "refinery", kind::refinery::read),
            _ => return Ok(kind(table, Vec::new())),
        };
        let place = (word, dir.get_ref().clone());
        if let Some(migrations) = read_before.get(&place) {
            return Ok(kind(table, migrations.clone()));
        }
        let folder = self.folder(root, table, dir)?;
        let migrations = read(&folder, Path::new(dir.get_ref()))?;
        read_before.insert(place, migrations.clone());
        Ok(kind(table, migrations))
    }

    /// The folder of a step, which must be there.
    fn folder(&self, root: &Path, table: &StepTable, dir: &Spanned<String>) -> Result<PathBuf, PlanError> {
        let folder = root.join(dir.get_ref());
        if folder.is_dir() {
            return Ok(folder);
        }
        let (step, dir_text, root) = (table.name.to_string(), dir.get_ref().clone(), root.to_owned());
        Err(PlanError::new(&self.source, dir.span(), Problem::NoFolder { step, dir: dir_text, root }))
    }
}

/// The step without its migrations.
fn step(table: &StepTable) -> Step {
    Step {
        name: table.name.get_ref().clone(),
        database: table.database.get_ref().clone(),
        after: table.after.iter().map(|it| it.get_ref().clone()).collect(),
        lock_timeout: table.lock_timeout.map(|Wait(it)| it),
        statement_timeout: table.statement_timeout.map(|Time(it)| it),
        kind: kind(table, Vec::new()),
    }
}

fn kind(table: &StepTable, migrations: Vec<Migration>) -> Kind {
    match &table.work {
        Work::Sql { dir } => Kind::Sql(Files { dir: dir.get_ref().into(), migrations }),
        Work::Refinery { dir } => Kind::Refinery(Files { dir: dir.get_ref().into(), migrations }),
        // Without its surroundings, which only a target gives it.
        Work::Alembic { mode, .. } => {
            Kind::Alembic(kind::alembic::Alembic { mode: *mode, ..kind::alembic::Alembic::default() })
        }
        Work::Python { .. } => Kind::Python(kind::python::Python::default()),
        Work::Command { .. } => Kind::Command(kind::command::Command::default()),
        Work::Copy { from, to, key, omit } => Kind::Copy(Copy {
            from: table_ref(from),
            to: TableRef { database: table.database.get_ref().clone(), table: to.get_ref().clone() },
            key: key.get_ref().clone(),
            omit: omit.iter().map(|it| it.get_ref().clone()).collect(),
        }),
    }
}

fn table_ref(table: &TableTable) -> TableRef {
    TableRef { database: table.database.get_ref().clone(), table: table.table.get_ref().clone() }
}

fn check_of(table: CheckTable) -> Check {
    let sync = SyncCheck {
        source: table_ref(&table.source),
        target: table_ref(&table.target),
        key: table.key.into_inner(),
        compare: table.compare,
        min_rows: table.min_rows.unwrap_or(1),
    };
    Check { name: table.name.into_inner(), when: table.when, owner: table.owner, sync }
}

#[cfg(test)]
mod tests;
