//! Why a folder of migrations cannot be used. Each error names the file; one about a place in it shows the line.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

use crate::sql::error::{Problem, SqlTextError};
use crate::sql::place::line_column;

/// Why a folder of migrations cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum ReadError {
    /// The folder cannot be listed.
    #[error("cannot read the folder {}", dir.display())]
    #[diagnostic(code("files.folder"), help("`dir` in the plan is relative to the project root."))]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder has nothing to run.
    #[error("{} holds no migration", dir.display())]
    #[diagnostic(
        code("files.none"),
        help("A step needs at least one file named {example}; is `dir` the right folder?")
    )]
    NoFiles {
        /// The folder.
        dir: PathBuf,
        /// How a migration is named.
        example: &'static str,
    },
    /// A file cannot be read.
    #[error("cannot read {}", file.display())]
    #[diagnostic(code("files.unreadable"), help("Make it a file that can be read, or remove it."))]
    File {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that looks like a migration and has a name that says nothing.
    #[error("{}: the name is not understood: {rule}", file.display())]
    #[diagnostic(code("files.name"), help("{help}"))]
    Name {
        /// The file.
        file: PathBuf,
        /// What the name breaks.
        rule: String,
        /// How to name it.
        help: &'static str,
    },
    /// A way back without its migration.
    #[error("{}: there is no {migration} that this would be the way back of", file.display())]
    #[diagnostic(
        code("files.orphan_down"),
        help("NAME.down.sql is the way back of NAME.sql: rename one, or remove this.")
    )]
    OrphanDown {
        /// The file.
        file: PathBuf,
        /// The name of the file that is missing.
        migration: String,
    },
    /// A way back in the file and another beside it.
    #[error("{} has two ways back: its own `-- migrate:down`, and {}", file.display(), down.display())]
    #[diagnostic(code("files.two_ways_back"), help("Keep one of the two."))]
    TwoWaysBack {
        /// The migration.
        file: PathBuf,
        /// The file beside it.
        down: PathBuf,
    },
    /// Irreversible, with a way back beside it.
    #[error("{} says `migrate:irreversible`, and {} is a way back", file.display(), down.display())]
    #[diagnostic(code("files.irreversible_with_down"), help("Remove the directive or the way back."))]
    IrreversibleWithDown {
        /// The migration.
        file: PathBuf,
        /// The file beside it.
        down: PathBuf,
    },
    /// Not text.
    #[error("{}:{line}: not UTF-8", file.display())]
    #[diagnostic(code("files.not_utf8"), help("Save the file as UTF-8."))]
    NotUtf8 {
        /// The file.
        file: PathBuf,
        /// The line of the first byte that is not.
        line: usize,
    },
    /// A NUL byte, which no SQL can hold.
    #[error("{}:{line}: a NUL byte", file.display())]
    #[diagnostic(code("files.nul"), help("Save the file as UTF-8 text; UTF-16 has such bytes."))]
    Nul {
        /// The file.
        file: PathBuf,
        /// Its line.
        line: usize,
    },
    /// Nothing to run.
    #[error("{}: {part} holds no statement", file.display())]
    #[diagnostic(
        code("files.no_statement"),
        help(
            "Write the statement, or remove the file. One that was emptied after it had been applied stays, with a comment that \
         says why."
        )
    )]
    NoStatement {
        /// The file.
        file: PathBuf,
        /// `the file`, or the part of it.
        part: &'static str,
    },
    /// A refinery migration in Rust.
    #[error("{}: a refinery migration in Rust is part of the application that embeds it, and cannot be run here", file.display())]
    #[diagnostic(code("refinery.rust"), help("Write it in SQL, or leave this folder to the application."))]
    RefineryRust {
        /// The file.
        file: PathBuf,
    },
    /// Two refinery migrations of one version.
    #[error("{} and {} both have version {version}", first.display(), second.display())]
    #[diagnostic(
        code("refinery.version_repeated"),
        help("A version is used once: give the newer file the next free one.")
    )]
    RefineryVersion {
        /// The version.
        version: String,
        /// The file that comes first.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// Something about the text.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Text(Box<InFile>),
}

impl ReadError {
    /// An error about a place in the text of a file.
    #[must_use]
    pub fn text(file: &Path, text: &str, error: SqlTextError) -> Self {
        let (line, column) = line_column(text, error.start);
        let source = NamedSource::new(file.display().to_string(), text.to_owned()).with_language("SQL");
        Self::Text(Box::new(InFile { file: file.to_owned(), line, column, source, error }))
    }

    /// The file that it is about, or the folder.
    #[must_use]
    pub fn file(&self) -> &Path {
        match self {
            Self::Folder { dir, .. } | Self::NoFiles { dir, .. } => dir,
            Self::File { file, .. }
            | Self::Name { file, .. }
            | Self::OrphanDown { file, .. }
            | Self::TwoWaysBack { file, .. }
            | Self::IrreversibleWithDown { file, .. }
            | Self::NotUtf8 { file, .. }
            | Self::Nul { file, .. }
            | Self::NoStatement { file, .. }
            | Self::RefineryRust { file } => file,
            Self::RefineryVersion { second, .. } => second,
            Self::Text(it) => &it.file,
        }
    }

    /// Line and column, from 1: the start of the file, if it is about no place in it.
    #[must_use]
    pub fn line_column(&self) -> (usize, usize) {
        match self {
            Self::NotUtf8 { line, .. } | Self::Nul { line, .. } => (*line, 1),
            Self::Text(it) => (it.line, it.column),
            _ => (1, 1),
        }
    }
}

/// A [`Problem`] in a file.
#[derive(Debug)]
pub struct InFile {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    source: NamedSource<String>,
    error: SqlTextError,
}

impl InFile {
    /// What is wrong.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.error.problem
    }
}

impl fmt::Display for InFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file.display(), self.line, self.column, self.error.problem)
    }
}

impl std::error::Error for InFile {}

impl Diagnostic for InFile {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.error.problem.code()
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.error.problem.help()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    /// The first line of the place: a string that is never closed would underline the rest of the file.
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = self.source.inner().get(self.error.start..self.error.end);
        let length = place.and_then(|place| place.lines().next()).map_or(0, str::len);
        let label = LabeledSpan::new(Some("here".to_owned()), self.error.start, length);
        Some(Box::new(std::iter::once(label)))
    }
}
