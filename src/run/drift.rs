//! Where ledger and files disagree, and how that is said.

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use crate::kind::decide::Question;
use crate::names::StepName;
use crate::outside::clock;

/// One disagreement between ledger and files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drift {
    /// A file is not what was applied.
    Changed {
        /// The migration.
        name: String,
        /// Its file.
        path: PathBuf,
        /// In the file now.
        file: String,
        /// In the ledger.
        ledger: String,
        /// When it was applied.
        at: DateTime<Utc>,
        /// In which run.
        run: String,
    },
    /// What was applied has no file any more.
    Missing {
        /// The migration.
        name: String,
    },
    /// A file is pending that sorts before one that is applied.
    OutOfOrder {
        /// The migration.
        name: String,
        /// Its file.
        path: PathBuf,
        /// The last one that is applied.
        applied: String,
    },
    /// It was begun outside a transaction, and nobody wrote that it ended.
    Interrupted {
        /// The migration.
        name: String,
        /// In which run.
        run: String,
        /// So many of its statements are known to have ended.
        ended: Option<i32>,
    },
    /// A statement of a file without a transaction, which has run, is not what it was, and the file did not end.
    Edited {
        /// The migration.
        name: String,
        /// Its file.
        path: PathBuf,
        /// In which run it was begun.
        run: String,
        /// The statement, from 1.
        statement: usize,
    },
    /// Whether a statement of a file without a transaction took effect is not known, and cannot be seen.
    Unclear {
        /// The migration.
        name: String,
        /// Its file.
        path: PathBuf,
        /// In which run it was begun.
        run: String,
        /// What there is to decide.
        question: Question,
    },
    /// What refinery itself says.
    Refinery(String),
    /// `alembic_version` and something else disagree.
    Alembic(String),
}

impl Drift {
    /// The migration, if it is about one.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Changed { name, .. }
            | Self::Missing { name }
            | Self::OutOfOrder { name, .. }
            | Self::Interrupted { name, .. }
            | Self::Edited { name, .. }
            | Self::Unclear { name, .. } => name,
            Self::Refinery(_) => "refinery_schema_history",
            Self::Alembic(_) => "alembic_version",
        }
    }

    /// One word for it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Changed { .. } => "changed",
            Self::Missing { .. } => "missing",
            Self::OutOfOrder { .. } => "out_of_order",
            Self::Interrupted { .. } | Self::Unclear { .. } => "interrupted",
            Self::Edited { .. } => "edited",
            Self::Refinery(_) => "refinery",
            Self::Alembic(_) => "alembic",
        }
    }
}

impl Drift {
    /// Whether its migration is not applied, or not to its end.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match self {
            Self::OutOfOrder { .. } | Self::Interrupted { .. } | Self::Edited { .. } | Self::Unclear { .. } => true,
            Self::Changed { .. } | Self::Missing { .. } | Self::Refinery(_) | Self::Alembic(_) => false,
        }
    }

    /// What a person can do about a migration that was cut off; none where the files are to be mended.
    #[must_use]
    pub fn way_out(&self, step: &StepName) -> Option<String> {
        match self {
            Self::Interrupted { run, .. } => Some(format!(
                "Take the run back: `migrate rollback {run}`. Or look, and say what became of it: `migrate resolve {run} \
                 STEP/NAME --applied` (or `--not-applied`)."
            )),
            Self::Edited { name, run, statement, .. } => Some(format!(
                "Restore the file up to statement {statement}; what comes after the statements that have run may be edited. \
                 Or say what became of the whole: `migrate resolve {run} {step}/{name} --applied` (or `--not-applied`)."
            )),
            Self::Unclear { name, run, question: it, .. } => Some(format!(
                "Look at the database, and say whether that statement took effect: `migrate resolve {run} {step}/{name} \
                 --statement {} --applied` (or `--not-applied`). The next `migrate apply` goes on from there.",
                it.statement
            )),
            _ => None,
        }
    }

    /// How a file that was edited is mended, or taken for what was applied.
    #[must_use]
    pub fn acceptance(&self, step: &StepName) -> Option<String> {
        match self {
            Self::Changed { name, .. } => Some(format!(
                "Restore the file as it was, and give what is new to a migration with a later number. Or, where the database has what \
                 the file says, accept it: `migrate repair checksum {step}/{name}`."
            )),
            _ => None,
        }
    }
}

impl std::fmt::Display for Drift {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Changed { name, path, file, ledger, at, run } => write!(
                f,
                "ledger and file disagree about `{name}`\n  ledger: sha256 {ledger}, applied {} in run {run}\n  file:   \
                 sha256 {file} ({})",
                clock::readable(*at),
                path.display()
            ),
            Self::Missing { name } => write!(f, "the ledger has `{name}`, and there is no file of that name"),
            Self::OutOfOrder { name, path, applied } => {
                write!(f, "`{name}` ({}) is pending, and sorts before `{applied}`, which is applied", path.display())
            }
            Self::Interrupted { name, run, ended } => {
                write!(f, "`{name}` was begun in run {run}, and the ledger does not say that it ended")?;
                ended.map_or(Ok(()), |ended| write!(f, "; statements known to have ended: {ended}"))
            }
            Self::Edited { name, path, run, statement } => write!(
                f,
                "`{name}` ({}) was begun in run {run} and did not end, and its statement {statement}, which has run, is not \
                 what it was",
                path.display()
            ),
            Self::Unclear { name, path, run, question: it } => write!(
                f,
                "`{name}` was begun in run {run} and cut off, and whether its statement {} took effect is not known: {}\n  \
                 {}:{}: {}",
                it.statement,
                it.seen,
                path.display(),
                it.line,
                it.text
            ),
            Self::Refinery(message) | Self::Alembic(message) => write!(f, "{message}"),
        }
    }
}

/// Files and databases disagree.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{}", .drift.join("\n"))]
#[diagnostic(code("drift"), help("{help}"))]
pub struct DriftError {
    /// One for each disagreement, with its database.
    drift: Vec<String>,
    help: String,
}

impl DriftError {
    /// Files can be mended; what was cut off in the middle can only be taken back.
    pub(super) fn new(drift: Vec<String>, way_out: Option<String>) -> Self {
        let help = way_out.unwrap_or_else(|| {
            "Restore each file as it was, or give a new migration a later number: an applied migration must not be edited, \
             removed or overtaken."
                .into()
        });
        Self { drift, help }
    }
}
