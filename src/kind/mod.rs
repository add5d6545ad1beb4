//! The kinds of step: files in, effect on a database out.

pub mod copy;

use std::path::PathBuf;

use crate::names::DatabaseName;

/// What a step does. A closed set: the compiler lists every place to visit when another kind arrives.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A folder of `*.sql`, each file once.
    Sql(Files),
    /// A folder of refinery's `V1__name.sql`.
    Refinery(Files),
    /// One table from one database to another.
    Copy(Copy),
}

/// A folder of migration files.
#[derive(Debug, Clone)]
pub struct Files {
    /// The folder, relative to the project root as typed in the plan.
    pub dir: PathBuf,
    /// What was found in it, in order of execution.
    pub migrations: Vec<Migration>,
}

/// One file of a step, read and checked.
#[derive(Debug, Clone)]
pub struct Migration {
    /// Its name in the ledger: the file name without `.sql`.
    pub name: String,
    /// The file, as shown in messages.
    pub path: PathBuf,
    /// SHA-256 of the text with line ends and byte-order mark normalised, in hex.
    pub checksum: String,
    /// The script's text as read, which is what is sent.
    pub up: String,
    /// The way back, if there is one.
    pub down: Option<Down>,
    /// False after `-- migrate:no-transaction`.
    pub transactional: bool,
}

/// The way back of a migration.
#[derive(Debug, Clone)]
pub struct Down {
    /// Where it is written.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// `kind = "copy"`.
#[derive(Debug, Clone)]
pub struct Copy {
    /// Where the rows come from.
    pub from: TableRef,
    /// Where they go; its database is the step's.
    pub to: TableRef,
    /// Columns that tell rows apart.
    pub key: Vec<String>,
    /// Columns of the source that stay behind.
    pub omit: Vec<String>,
}

/// A table in a database of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRef {
    /// The database, by its name in the plan.
    pub database: DatabaseName,
    /// `table` or `schema.table`, as typed.
    pub table: String,
}
