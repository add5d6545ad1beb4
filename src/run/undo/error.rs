//! Why migrations are not undone.

use miette::Diagnostic;

use crate::kind::migration::MigrationError;
use crate::names::{DatabaseName, RunId};
use crate::outside::postgres::PgError;

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
    /// No session.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Database(#[from] PgError),
}

impl UndoError {
    /// Whether a signal to us was the cause.
    #[must_use]
    pub fn is_interruption(&self) -> bool {
        false
    }

    /// Whether what failed may have left something behind.
    #[must_use]
    pub fn may_have_changed(&self) -> bool {
        match self {
            Self::NoWay { .. } | Self::CutOff { .. } => false,
            Self::Failed { source: WhyNot::Script(MigrationError::Statement(it)), .. } => !it.transactional,
            Self::Failed { source: WhyNot::Database(_), .. } => false,
            Self::Failed { .. } => true,
        }
    }
}
