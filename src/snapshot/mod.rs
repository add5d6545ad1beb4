//! How it was: the compressed `pg_dump` archive of one database in the store, with its manifest. Stock tools restore it.

pub mod archive;
pub mod custom;
pub mod drill;
pub mod dump;
pub mod effort;
pub mod elsewhere;
mod fill;
mod help;
pub(crate) mod inventory;
pub mod keys;
mod loading;
pub mod manifest;
pub mod obstacles;
pub mod parts;
mod passing;
pub mod prove;
pub mod prune;
pub mod restore;
pub mod role_map;
mod schedule;
mod scratch;
pub mod standby;
mod statistics;
pub mod swap;

use crate::journal::{self, JournalError};
use crate::names::{DatabaseName, RunId};
use crate::outside::interrupt::Interrupted;
use crate::outside::postgres::PgError;
use crate::outside::process::ToolError;
use crate::outside::store::{Store, StoreError};
use crate::version::{self, Newer};

use keys::KeysError;
use manifest::{Manifest, Part};
use role_map::RoleMapError;

/// Why a snapshot was not taken, verified or restored.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum SnapshotError {
    /// A database failed.
    #[error("{database}: {source}")]
    #[diagnostic(code("snapshot.database"))]
    Database {
        /// Which.
        database: DatabaseName,
        /// How.
        #[source]
        #[diagnostic_source]
        source: PgError,
    },
    /// `pg_dump` or `pg_restore` failed.
    #[error("{database}: {what}")]
    #[diagnostic(code("snapshot.program"), help("{help}"))]
    Program {
        /// Which database.
        database: DatabaseName,
        /// What is now the case.
        what: String,
        /// What to do.
        help: String,
        /// How it failed.
        #[source]
        source: ToolError,
    },
    /// `pg_dump` said that all was well, and gave something else.
    #[error("{database}: the snapshot is incomplete: {what}")]
    #[diagnostic(
        code("snapshot.incomplete"),
        help("Nothing was applied. Look at the pg_dump that is used: `migrate doctor` names its version.")
    )]
    Incomplete {
        /// Which database.
        database: DatabaseName,
        /// What is missing.
        what: String,
    },
    /// The pipe to or from a program broke.
    #[error("{database}: the stream between {program} and the store broke")]
    #[diagnostic(code("snapshot.stream"))]
    Stream {
        /// Which database.
        database: DatabaseName,
        /// `pg_dump` or `pg_restore`.
        program: &'static str,
        /// How.
        #[source]
        source: std::io::Error,
    },
    /// The store failed.
    #[error("{database}: {source}")]
    #[diagnostic(code("snapshot.store"))]
    Store {
        /// Which database.
        database: DatabaseName,
        /// How.
        #[source]
        #[diagnostic_source]
        source: StoreError,
    },
    /// There is no whole snapshot.
    #[error("run {run} has no snapshot of {database}")]
    #[diagnostic(
        code("snapshot.none"),
        help("`migrate snapshot list` shows what there is. A snapshot without a manifest was never finished.")
    )]
    None {
        /// The run.
        run: RunId,
        /// The database.
        database: DatabaseName,
    },
    /// The manifest cannot be read.
    #[error("{key} is not a manifest that this version of migrate can read")]
    #[diagnostic(
        code("snapshot.manifest"),
        help(
            "It was damaged or moved, or written by a newer migrate: restore the object, use that version, or restore by \
             hand as docs/restore-by-hand.md says."
        )
    )]
    Manifest {
        /// The object.
        key: String,
        /// How.
        #[source]
        source: serde_json::Error,
    },
    /// The manifest is of a later version.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Newer(#[from] Newer),
    /// What is in the store is not what was sent.
    #[error("{database}: the archive {key} is damaged: {what}")]
    #[diagnostic(
        code("snapshot.damaged"),
        help("Do not restore it. Look for another snapshot with `migrate snapshot list`.")
    )]
    Damaged {
        /// Which database.
        database: DatabaseName,
        /// The object.
        key: String,
        /// What differs.
        what: String,
    },
    /// The restored rows are not those of the snapshot.
    #[error("{database}: the restored database differs from the snapshot: {what}")]
    #[diagnostic(code("snapshot.differs"), help("The live database was not touched. {help}"))]
    Differs {
        /// Which database.
        database: DatabaseName,
        /// Tables and counts.
        what: String,
        /// What became of what was restored.
        help: String,
    },
    /// There is something already where the restore would go.
    #[error("the database {dbname} exists already")]
    #[diagnostic(code("snapshot.exists"), help("Give another name with `--as`. Nothing was touched."))]
    Exists {
        /// Its name on the server.
        dbname: String,
    },
    /// Somebody else makes it just now.
    #[error("the database {dbname} is being restored by somebody else just now")]
    #[diagnostic(code("snapshot.underway"), help("Give another name with `--as`, or wait. Nothing was touched."))]
    Underway {
        /// Its name on the server.
        dbname: String,
    },
    /// A restore into an older server fails at the first statement that it does not know.
    #[error("{database}: the snapshot is of PostgreSQL {of}, and the server is PostgreSQL {server}")]
    #[diagnostic(code("snapshot.older_server"), help("Restore it on a server of version {of} or later."))]
    OlderServer {
        /// Which database.
        database: DatabaseName,
        /// The major version of the snapshot's server.
        of: u32,
        /// The major version of the server.
        server: u32,
    },
    /// The server lacks roles.
    #[error("{database}: the server has no role {missing}, which the snapshot refers to")]
    #[diagnostic(
        code("snapshot.roles"),
        help(
            "Make them (`CREATE ROLE … NOLOGIN`). `migrate snapshot restore` makes them with --create-roles, puts others in their \
             places with --map-role OLD=NEW, as `migrate snapshot drill` does, and does without them with --no-owner."
        )
    )]
    Roles {
        /// Which database.
        database: DatabaseName,
        /// Which roles.
        missing: String,
    },
    /// Roles cannot be mapped as they were meant to be.
    #[error(transparent)]
    #[diagnostic(transparent)]
    RoleMap(#[from] RoleMapError),
    /// A snapshot of an earlier version does not say what is whose.
    #[error(
        "{database}: the snapshot was taken by an earlier version of migrate, and cannot be drilled under other roles"
    )]
    #[diagnostic(
        code("snapshot.no_holdings"),
        help(
            "Drill it without --map-role on a server that has its roles, or look at it with `migrate snapshot restore --map-role`."
        )
    )]
    NoHoldings {
        /// Which database.
        database: DatabaseName,
    },
    /// It is encrypted, and cannot be read here.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Keys(#[from] KeysError),
    /// A drill restored something else than was dumped.
    #[error("{database}: the snapshot of run {run}, restored in a drill, is not what was dumped: {what}")]
    #[diagnostic(
        code("snapshot.drill"),
        help("Do not rely on it. Take another with `migrate snapshot take`, and drill that one.")
    )]
    Drill {
        /// Which database.
        database: DatabaseName,
        /// The run that took it.
        run: RunId,
        /// What differs.
        what: String,
    },
    /// The journal could not be written or read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Journal(Box<JournalError>),
    /// A signal.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Interrupted(#[from] Interrupted),
}

impl SnapshotError {
    /// For `map_err`: a query on `database` failed.
    pub fn database(database: &DatabaseName) -> impl Fn(PgError) -> Self {
        move |source| Self::Database { database: database.clone(), source }
    }

    /// For `map_err`: the store failed on behalf of `database`.
    pub fn store(database: &DatabaseName) -> impl Fn(StoreError) -> Self {
        move |source| Self::Store { database: database.clone(), source }
    }
}

/// The folder of a snapshot, relative to the store.
#[must_use]
pub fn folder(run: &RunId, database: &DatabaseName) -> String {
    format!("{}/snapshots/{database}", journal::folder(run))
}

/// One archive of a snapshot, relative to the store.
#[must_use]
pub fn part_key(run: &RunId, database: &DatabaseName, part: &Part) -> String {
    format!("{}/{}", folder(run, database), part.key)
}

fn manifest_key(run: &RunId, database: &DatabaseName) -> String {
    format!("{}/manifest.json", folder(run, database))
}

/// The manifest of a snapshot. Without one, there is no snapshot.
///
/// # Errors
/// There is none, it cannot be read, or the store failed.
pub async fn manifest(store: &Store, run: &RunId, database: &DatabaseName) -> Result<Manifest, SnapshotError> {
    let key = manifest_key(run, database);
    let text = store.get(&key).await.map_err(SnapshotError::store(database))?;
    let text = text.ok_or_else(|| SnapshotError::None { run: run.clone(), database: database.clone() })?;
    let known = version::known(&text, &key, manifest::FORMAT);
    known.map_err(|it| it.or(", or restore by hand as docs/restore-by-hand.md says"))?;
    let read = Manifest::read(&text).and_then(|it| {
        let elsewhere = || format!("it is that of {} in run {}", it.database, it.run);
        // An object that came to lie in the wrong place would put one database's rows into another.
        if (&it.run, &it.database) == (run, database) { Ok(it) } else { Err(serde::de::Error::custom(elsewhere())) }
    });
    read.map_err(|source| SnapshotError::Manifest { key, source })
}

/// A snapshot that this version cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The run.
    pub run: RunId,
    /// The database.
    pub database: DatabaseName,
    /// Why.
    pub newer: Newer,
}

/// The snapshots of a run, by database: the manifests of those that this version can read, and the others.
///
/// # Errors
/// One is damaged, or the store failed.
pub async fn manifests(store: &Store, run: &RunId) -> Result<(Vec<Manifest>, Vec<Closed>), SnapshotError> {
    let folder = format!("{}/snapshots", journal::folder(run));
    let failed = |source| SnapshotError::Store { database: DatabaseName::new("store").expect("a name"), source };
    let (mut found, mut closed) = (Vec::new(), Vec::new());
    for name in store.folders(&folder).await.map_err(failed)? {
        let Ok(database) = DatabaseName::new(name) else { continue };
        match manifest(store, run, &database).await {
            Ok(manifest) => found.push(manifest),
            Err(SnapshotError::None { .. }) => {}
            Err(SnapshotError::Newer(newer)) => closed.push(Closed { run: run.clone(), database, newer }),
            Err(error) => return Err(error),
        }
    }
    Ok((found, closed))
}
