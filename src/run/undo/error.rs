//! Why migrations are not undone.

use miette::Diagnostic;

use crate::kind::alembic::AlembicError;
use crate::kind::migration::MigrationError;
use crate::names::{DatabaseName, RunId};
use crate::outside::postgres::PgError;

use super::super::step::StepError;

/// Why a run was not taken back by down scripts.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum UndoError {
    /// Something has no way back of its own. Nothing was changed.
    #[error("run {run} cannot be undone:\n{}", .reasons.join("\n"))]
    #[diagnostic(code("rollback.no_way_down"), help("{help}"))]
    NoWay {
        /// The run.
        run: RunId,
        /// What stands in the way, each by its name.
        reasons: Vec<String>,
        /// What to do instead.
        help: String,
    },
    /// A migration, or its way back, was cut off. Nothing was changed.
    #[error("run {run} was cut off in {which}: whether it took effect is not known")]
    #[diagnostic(code("rollback.cut_off"), help("{help}"))]
    CutOff {
        /// The run.
        run: RunId,
        /// Each with its database.
        which: String,
        /// What to do.
        help: String,
    },
    /// Alembic cannot be asked for the way. Nothing was changed.
    #[error("{database}: {source}")]
    #[diagnostic(code("rollback.alembic"))]
    Alembic {
        /// The database.
        database: DatabaseName,
        /// Why.
        #[source]
        #[diagnostic_source]
        source: AlembicError,
    },
    /// One was not undone.
    #[error("{database}: {names} was not undone")]
    #[diagnostic(code("rollback.not_undone"), help("{help}"))]
    Failed {
        /// The database.
        database: DatabaseName,
        /// `STEP/NAME`.
        names: String,
        /// What is undone and what is not, and what leads out.
        help: String,
        /// Why.
        #[source]
        #[diagnostic_source]
        source: WhyNot,
    },
}

/// What went wrong while a migration was undone.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum WhyNot {
    /// Its down script.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Script(#[from] MigrationError),
    /// Alembic.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Program(#[from] StepError),
    /// No session.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Database(#[from] PgError),
}

impl WhyNot {
    /// What else helps: who was in the way, where a program's output is. That a file should be corrected does not.
    pub(super) fn advice(&self) -> String {
        let own = match self {
            Self::Script(MigrationError::Statement(it)) if it.blockers.is_empty() => None,
            _ => self.help().map(|help| help.to_string()),
        };
        own.map_or_else(String::new, |help| help + "\n")
    }
}

impl UndoError {
    /// Whether a signal to us was the cause.
    #[must_use]
    pub fn is_interruption(&self) -> bool {
        match self {
            Self::Alembic { source, .. } => source.is_interruption(),
            Self::Failed { source: WhyNot::Program(StepError::Program(it)), .. } => it.is_interruption(),
            _ => false,
        }
    }

    /// Whether what failed may have left something behind.
    #[must_use]
    pub fn may_have_changed(&self) -> bool {
        match self {
            Self::NoWay { .. } | Self::CutOff { .. } | Self::Alembic { .. } => false,
            Self::Failed { source: WhyNot::Script(MigrationError::Statement(it)), .. } => !it.transactional,
            Self::Failed { source: WhyNot::Database(_), .. } => false,
            Self::Failed { .. } => true,
        }
    }
}
