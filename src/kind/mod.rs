//! The kinds of step: files in, effect on a database out.

pub mod alembic;
mod bare;
pub mod blockers;
pub mod command;
pub mod concurrently;
pub mod copy;
pub mod cut_off;
pub mod decide;
pub mod fresh;
pub mod leftover;
pub mod limits;
mod message;
pub mod migration;
pub mod next;
pub mod program;
pub mod python;
pub mod read_error;
pub mod refinery;
pub mod refinery_history;
pub(crate) mod side_by_side;
pub mod sql;

use std::path::PathBuf;

pub use read_error::ReadError;

use crate::journal::ledger::Unit;
use crate::names::DatabaseName;
use crate::sql::directives::{Budget, Edge};

/// What a step does. A closed set: the compiler lists every place to visit when another kind arrives.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A folder of `*.sql`, each file once.
    Sql(Files),
    /// A folder of refinery's `V1__name.sql`.
    Refinery(Files),
    /// One table from one database to another.
    Copy(Copy),
    /// Revisions that Alembic applies.
    Alembic(alembic::Alembic),
    /// Python modules, each run once.
    Python(python::Python),
    /// A program.
    Command(command::Command),
}

impl Kind {
    /// The word for it in a plan.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Sql(_) => "sql",
            Self::Refinery(_) => "refinery",
            Self::Copy(_) => "copy",
            Self::Alembic(_) => "alembic",
            Self::Python(_) => "python",
            Self::Command(_) => "command",
        }
    }

    /// How the files of its migrations end.
    #[must_use]
    pub fn file_ending(&self) -> &'static str {
        match self {
            Self::Sql(_) | Self::Refinery(_) | Self::Copy(_) => "sql",
            Self::Alembic(_) | Self::Python(_) => "py",
            Self::Command(_) => "txt",
        }
    }

    /// Whether nothing else may run meanwhile: a program may change a database that it was not meant for, and that it did not
    /// can be seen only where nobody else does.
    #[must_use]
    pub fn runs_alone(&self) -> bool {
        matches!(self, Self::Alembic(_) | Self::Python(_) | Self::Command(_))
    }

    /// The program that it runs, and where; none runs within us.
    #[must_use]
    pub fn program(&self) -> Option<(&program::Surroundings, &str)> {
        match self {
            Self::Sql(_) | Self::Refinery(_) | Self::Copy(_) => None,
            Self::Alembic(it) => Some((&it.surroundings, &it.interpreter)),
            Self::Python(it) => Some((&it.surroundings, &it.interpreter)),
            Self::Command(it) => Some((&it.surroundings, it.argv.first()?)),
        }
    }

    /// What was read when the plan was loaded, in order. Alembic's revisions are asked for later.
    #[must_use]
    pub fn migrations(&self) -> &[Migration] {
        match self {
            Self::Sql(it) | Self::Refinery(it) => &it.migrations,
            Self::Python(it) => &it.migrations,
            Self::Command(it) => &it.migrations,
            Self::Copy(_) | Self::Alembic(_) => &[],
        }
    }
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
    /// SHA-256 of the text with line ends and byte-order mark normalised, in hex: see [`crate::sql::checksum::checksum`].
    pub checksum: String,
    /// The script's text, which is what is sent: without its way back, a byte-order mark, and a BEGIN … COMMIT of its own.
    /// That of a refinery migration is as it was read, since refinery's checksum is over that; it goes through
    /// [`crate::sql::transaction::sendable`] on its way to the server.
    pub up: String,
    /// The way back, if there is one.
    pub down: Option<Down>,
    /// The file says `-- migrate:irreversible`.
    pub irreversible: bool,
    /// False after `-- migrate:no-transaction`, or because of a statement that cannot run in one.
    pub transactional: bool,
    /// Limits of its own.
    pub budget: Budget,
    /// When it is its turn.
    pub turn: Turn,
}

/// What a migration says about when it is its turn.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Turn {
    /// It comes after all that are not, and is applied anew whenever its file has changed.
    pub repeatable: bool,
    /// The migrations of other steps that it waits for.
    pub after: Vec<Edge>,
}

impl<'a> From<&'a Migration> for Unit<'a> {
    fn from(it: &'a Migration) -> Self {
        Self {
            name: &it.name,
            checksum: &it.checksum,
            up: Some(&it.up),
            down: it.down.as_ref().map(|down| down.text.as_str()),
        }
    }
}

/// The way back of a migration.
#[derive(Debug, Clone)]
pub struct Down {
    /// Where it is written.
    pub path: PathBuf,
    /// Its text, which is what is sent.
    pub text: String,
    /// SHA-256 of the text as written, in hex.
    pub checksum: String,
    /// The line of the file on which `text` starts: more than 1 below `-- migrate:down`.
    pub first_line: usize,
    /// False after a `-- migrate:no-transaction` in the way back itself, or because of a statement in it.
    pub transactional: bool,
    /// Limits of its own.
    pub budget: Budget,
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

impl Copy {
    /// What it does, as text: what its ledger row keeps and its checksum is over.
    #[must_use]
    pub fn definition(&self) -> String {
        let omit = if self.omit.is_empty() { String::new() } else { format!(", without {}", self.omit.join(", ")) };
        format!(
            "copy {}.{} to {}.{} by key {}{omit}\n",
            self.from.database,
            self.from.table,
            self.to.database,
            self.to.table,
            self.key.join(", ")
        )
    }
}

/// A table in a database of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRef {
    /// The database, by its name in the plan.
    pub database: DatabaseName,
    /// `table` or `schema.table`, as typed.
    pub table: String,
}
