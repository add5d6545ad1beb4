//! A folder of migrations: its files are read as the plan reads them, but past the first error, and all are looked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::rules::{self, Rule};
use super::{Allowed, Finding, text};
use crate::kind::side_by_side::side_by_side;
use crate::kind::{Migration, ReadError, refinery, sql};
use crate::sql::error::Problem;

/// Whose folder it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Style {
    /// That of a step of kind `sql`.
    Sql,
    /// That of a step of kind `refinery`.
    Refinery,
}

/// A folder to look at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Folder {
    /// Whose it is.
    pub style: Style,
    /// What is opened.
    pub dir: PathBuf,
    /// What messages call it.
    pub shown: PathBuf,
}

/// What was found in a folder.
#[derive(Debug, Default)]
pub struct Looked {
    /// How many files were looked at.
    pub files: usize,
    /// What was found, by file and line.
    pub findings: Vec<Finding>,
}

/// Looks at the files of a folder, or at those of `only` among them.
#[must_use]
pub fn look(folder: &Folder, only: Option<&[PathBuf]>, allowed: &Allowed) -> Looked {
    let (migrations, errors) = match folder.style {
        Style::Sql => sql::read_all(&folder.dir, &folder.shown),
        Style::Refinery => refinery::read_all(&folder.dir, &folder.shown),
    };
    let of_migration = |it: &Migration| {
        [Some(&it.path), it.down.as_ref().map(|down| &down.path)].into_iter().flatten().any(|path| wanted(only, path))
    };
    let chosen: Vec<&Migration> = migrations.iter().filter(|it| of_migration(it)).collect();
    let mut findings: Vec<Finding> = side_by_side(&chosen, |it| text::findings(it, allowed)).concat();
    if folder.style == Style::Sql {
        findings.extend(chosen.iter().filter_map(|it| text::way_back(it, allowed)));
        findings.extend(duplicates(&migrations, allowed).into_iter().filter(|it| wanted(only, &it.file)));
    }
    let errors: Vec<Finding> = errors.iter().filter(|it| wanted(only, it.file())).map(unread).collect();
    let files = chosen.len() + errors.len();
    findings.extend(errors);
    // What was not understood has no place in the order of execution, and comes last.
    let order: BTreeMap<&Path, usize> = migrations.iter().enumerate().map(|(at, it)| (it.path.as_path(), at)).collect();
    let place = |it: &Finding| order.get(it.file.as_path()).copied().unwrap_or(usize::MAX);
    findings.sort_by(|a, b| (place(a), &a.file, a.line, a.column).cmp(&(place(b), &b.file, b.line, b.column)));
    Looked { files, findings }
}

fn wanted(only: Option<&[PathBuf]>, path: &Path) -> bool {
    only.is_none_or(|only| only.iter().any(|it| it == path))
}

fn duplicates(migrations: &[Migration], allowed: &Allowed) -> Vec<Finding> {
    let mut found = Vec::new();
    let by_name: BTreeMap<&str, &Migration> = migrations.iter().map(|it| (it.name.as_str(), it)).collect();
    for (_, names) in sql::duplicate_numbers(migrations) {
        for it in names.iter().filter_map(|name| by_name.get(name.as_str())) {
            let others: Vec<&str> = names.iter().map(String::as_str).filter(|name| *name != it.name).collect();
            found.extend(text::duplicate(it, &others, allowed));
        }
    }
    found
}

/// What `apply` would say of a file that it cannot read.
fn unread(error: &ReadError) -> Finding {
    let name = match error {
        ReadError::NoStatement { .. } => rules::NO_STATEMENT,
        ReadError::Text(it) => match it.problem() {
            Problem::CannotRunInTransaction(_) => rules::CANNOT_RUN,
            Problem::TransactionCommand(_) | Problem::TransactionWithout(_) => rules::TRANSACTION_COMMAND,
            _ => rules::UNREADABLE,
        },
        _ => rules::UNREADABLE,
    };
    let rule: &'static Rule = rules::named(name).expect("every name here is in the table");
    let message = match error {
        ReadError::Text(it) => it.problem().to_string(),
        _ => {
            let (text, file) = (error.to_string(), error.file().display().to_string());
            text.strip_prefix(&format!("{file}: ")).map_or(text.clone(), str::to_owned)
        }
    };
    let mut finding = Finding::new(rule, error.file().to_owned(), error.line_column(), message);
    if let Some(help) = miette::Diagnostic::help(error) {
        finding.help = help.to_string();
    }
    finding
}
