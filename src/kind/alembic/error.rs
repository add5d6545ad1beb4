//! Why Alembic could not say what there is.

use std::path::PathBuf;

use crate::outside::child::ChildError;

/// Why there are no revisions to apply.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum AlembicError {
    /// Alembic could not be asked.
    #[error("Alembic cannot be asked for its revisions in {}", shown.display())]
    #[diagnostic(
        code("alembic.list"),
        help("Check `dir`, `config`, `interpreter` and `env`: `python -m alembic heads` must work there.")
    )]
    List {
        /// The folder.
        shown: PathBuf,
        /// Why.
        #[source]
        source: ChildError,
    },
    /// Alembic answered, but not what was asked.
    #[error("Alembic's answer in {} cannot be understood", shown.display())]
    #[diagnostic(code("alembic.answer"), help("Alembic 1.5 or later is needed."))]
    Answer {
        /// The folder.
        shown: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// There is more than one end.
    #[error("Alembic has several heads in {}: {heads}", shown.display())]
    #[diagnostic(code("alembic.heads"), help("Join them with `alembic merge heads`."))]
    Heads {
        /// The folder.
        shown: PathBuf,
        /// Which.
        heads: String,
    },
    /// A file is not what Alembic understands.
    #[error("Alembic cannot read its revisions in {}: {message}", shown.display())]
    #[diagnostic(code("alembic.broken"), help("Correct the file: `python -m alembic history` must work there."))]
    Broken {
        /// The folder.
        shown: PathBuf,
        /// What Python said.
        message: String,
    },
    /// What a database has cannot be known.
    #[error("{}: it cannot be told in which table Alembic keeps its version: {reason}", shown.join("env.py").display())]
    #[diagnostic(
        code("alembic.version_table"),
        help(
            "Give `version_table` and `version_table_schema` as the same constants to every `context.configure` in `env.py`, \
             offline and online."
        )
    )]
    VersionTable {
        /// The folder.
        shown: PathBuf,
        /// Why.
        reason: String,
    },
    /// What Alembic renders for a revision depends on more than one parent.
    #[error("revision `{revision}` cannot be rendered as SQL: it does not follow `{before}` alone")]
    #[diagnostic(
        code("alembic.not_linear"),
        help("Leave `mode = \"sql\"` away: Alembic itself knows its way through branches.")
    )]
    NotLinear {
        /// The revision.
        revision: String,
        /// The one before it.
        before: String,
    },
    /// No file for the answer.
    #[error("there is no temporary file for Alembic's answer")]
    #[diagnostic(code("alembic.exchange"), help("Check that the folder for temporary files can be written."))]
    Exchange {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file of a revision cannot be read.
    #[error("{} cannot be read", path.display())]
    #[diagnostic(code("alembic.file"))]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl AlembicError {
    /// Whether a signal to us ended the question.
    #[must_use]
    pub fn is_interruption(&self) -> bool {
        matches!(self, Self::List { source: ChildError::Interrupted(_), .. })
    }

    /// Whether the folder is to blame, as a bad file of any other kind would be.
    #[must_use]
    pub fn is_about_files(&self) -> bool {
        matches!(self, Self::Heads { .. } | Self::Broken { .. } | Self::VersionTable { .. } | Self::File { .. })
    }
}
