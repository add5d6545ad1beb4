//! Two tables in two databases: what shape they have, a canonical text for every value in them, and where they differ.
//!
//! [`end`] is one side: a connection and the table in it; [`shape`] asks the catalog; `canonical` writes a value so that
//! equal values are equal text whatever their types; [`pair`] puts two tables side by side; `merge` walks both in the
//! order of their keys. Nothing here judges: a check (`verify::sync`) and a step (`kind::copy`) say what a difference
//! means.

mod canonical;
pub mod end;
pub mod merge;
pub mod pair;
pub mod shape;

use crate::names::DatabaseName;

/// Why two tables could not be compared.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum TablesError {
    /// They are not fit for it; asking again gives the same answer.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Unfit(#[from] Unfit),
    /// A database did not do what it was asked.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Sql(#[from] SqlError),
}

/// A statement that failed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{database}: cannot {doing}")]
pub struct SqlError {
    /// Where, by the plan's name.
    pub database: DatabaseName,
    /// What it was for.
    pub doing: &'static str,
    /// What the server or the driver says.
    #[source]
    pub cause: sqlx::Error,
}

/// What makes a table unfit to be compared or copied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum Unfit {
    /// It is not there.
    #[error("{database}: there is no table {table}")]
    NoTable {
        /// The database.
        database: DatabaseName,
        /// The table, as typed.
        table: String,
    },
    /// The name belongs to an index, a sequence or a type.
    #[error("{database}: {table} is not a table")]
    NotATable {
        /// The database.
        database: DatabaseName,
        /// The name, as typed.
        table: String,
    },
    /// A column is not there.
    #[error("{database}: table {table} has no column {column}")]
    NoColumn {
        /// The database.
        database: DatabaseName,
        /// The table, as typed.
        table: String,
        /// The column, as typed.
        column: String,
    },
    /// No key was given.
    #[error("{database}: no key is given for table {table}")]
    #[diagnostic(help("name the columns that tell its rows apart: `key = [\"id\"]`"))]
    NoKey {
        /// The database.
        database: DatabaseName,
        /// The table, as typed.
        table: String,
    },
    /// A key column may be NULL.
    #[error("{database}: table {table}: key column {column} may be NULL")]
    #[diagnostic(help("take columns that are NOT NULL for the key"))]
    NullableKey {
        /// The database.
        database: DatabaseName,
        /// The table, as typed.
        table: String,
        /// The column.
        column: String,
    },
    /// Two rows have the same key.
    #[error("{database}: table {table}: key ({columns}) is not unique: ({key}) stands more than once")]
    RepeatedKey {
        /// The database.
        database: DatabaseName,
        /// The table, as typed.
        table: String,
        /// The key's columns.
        columns: String,
        /// One such key.
        key: String,
    },
    /// Two names of the plan lead to one database.
    #[error("{source_database} and {target_database} are one and the same database ({dbname})")]
    #[diagnostic(help("correct the URL of one of them: a table compared with itself is always in sync"))]
    OneDatabase {
        /// The plan's name for the source.
        source_database: DatabaseName,
        /// The plan's name for the target.
        target_database: DatabaseName,
        /// Its name on the server.
        dbname: String,
    },
    /// Source and target are one table.
    #[error("{database}: source and target are one and the same table {table}")]
    OneTable {
        /// The database.
        database: DatabaseName,
        /// The table, as typed.
        table: String,
    },
}
