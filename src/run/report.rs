//! What a run comes to, as `--json` gives it and as a person is told.

use serde::Serialize;

use crate::journal::entry::Outcome;
use crate::names::{DatabaseName, RunId, TargetName};
use crate::snapshot::dump::Taken;
use crate::verify::CheckResult;

use super::hooks::HookReport;
use super::writes::SavedWrites;

/// The result of `apply` or `rollback`.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// None: refused, or nothing to do, before there was a run.
    pub run: Option<RunId>,
    /// The target.
    pub target: TargetName,
    /// How it ended. None: its journal has no end, and it is left as it is, which in JSON is `halted` as well.
    #[serde(serialize_with = "word")]
    pub outcome: Option<Outcome>,
    /// Each database of the run.
    pub databases: Vec<DatabaseReport>,
    /// Each snapshot that was taken.
    pub snapshots: Vec<SnapshotReport>,
    /// Each warm copy that was made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub standbys: Vec<StandbyReport>,
    /// Each check that was made.
    pub checks: Vec<CheckResult>,
    /// What applications had written since, and is saved in the store.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub saved_writes: Vec<SavedWrites>,
    /// What became of the plan's hooks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookReport>,
    /// What a person should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

fn word<S: serde::Serializer>(outcome: &Option<Outcome>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(outcome.unwrap_or(Outcome::Halted).word())
}

/// What became of one database.
#[derive(Debug, Clone, Serialize)]
pub struct DatabaseReport {
    /// Its name in the plan.
    pub name: DatabaseName,
    /// Migrations applied in this run, whether or not they were rolled back.
    pub applied: u64,
    /// Whether it was taken back.
    pub rolled_back: bool,
    /// How: `standby`, `snapshot`, `down`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<&'static str>,
    /// The name on the server under which the replaced database is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_as: Option<String>,
}

/// One warm copy.
#[derive(Debug, Clone, Serialize)]
pub struct StandbyReport {
    /// The database.
    pub database: DatabaseName,
    /// The copy's name on the server.
    pub dbname: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// How long it took, and the database could not be reached.
    pub seconds: f64,
}

/// One snapshot.
#[derive(Debug, Clone, Serialize)]
pub struct SnapshotReport {
    /// The database.
    pub database: DatabaseName,
    /// Uncompressed.
    pub bytes: u64,
    /// As stored.
    pub stored_bytes: u64,
    /// Of the archive as stored; of several, as [`Manifest::sha256`](crate::snapshot::manifest::Manifest::sha256).
    pub sha256: String,
    /// How long it took.
    pub seconds: f64,
}

impl From<&Taken> for SnapshotReport {
    fn from(it: &Taken) -> Self {
        Self {
            database: it.manifest.database.clone(),
            bytes: it.manifest.bytes(),
            stored_bytes: it.manifest.stored_bytes(),
            sha256: it.manifest.sha256(),
            seconds: it.seconds,
        }
    }
}

impl RunReport {
    /// Nothing yet.
    #[must_use]
    pub fn new(target: &TargetName) -> Self {
        Self {
            run: None,
            target: target.clone(),
            outcome: None,
            databases: Vec::new(),
            snapshots: Vec::new(),
            standbys: Vec::new(),
            checks: Vec::new(),
            saved_writes: Vec::new(),
            hooks: Vec::new(),
            notes: Vec::new(),
            seconds: 0.0,
        }
    }

    /// The entry of a database, made if it is not there.
    pub fn database(&mut self, name: &DatabaseName) -> &mut DatabaseReport {
        let at = self.databases.iter().position(|it| it.name == *name).unwrap_or_else(|| {
            self.databases.push(DatabaseReport {
                name: name.clone(),
                applied: 0,
                rolled_back: false,
                via: None,
                kept_as: None,
            });
            self.databases.len() - 1
        });
        &mut self.databases[at]
    }
}
