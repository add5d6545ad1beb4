//! `kind = "sql"`: a folder of `*.sql`, each file once, by number and then by name; behind them, by name, those that are
//! repeatable.
//!
//! Reading a folder either understands every `*.sql` in it or fails by name: a migration that is silently skipped is the
//! worst failure there is.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use crate::kind::side_by_side::side_by_side;
use crate::kind::{Down, Migration, ReadError, Turn};
use crate::sql::checksum::{checksum, without_bom};
use crate::sql::directives::{self, Part, Parts};
use crate::sql::error::{Problem, SqlTextError};
use crate::sql::transaction;

const NAMING: &str = "Name it by its number, as in 017_add_threads.sql or 20260131120000_add_threads.sql; its way back is \
                      017_add_threads.down.sql. One that is applied anew whenever it changes may be R__views.sql.";
/// How the name of a repeatable migration begins, where its text does not have to say so.
pub const REPEATABLE: &str = "R__";

/// The migrations of a folder, in order of execution. `dir` is opened, `shown` stands in messages and paths.
///
/// Sub-folders, hidden files and files that do not end in `.sql` are passed over.
///
/// # Errors
/// Names the first file that cannot be understood.
pub fn read(dir: &Path, shown: &Path) -> Result<Vec<Migration>, ReadError> {
    let (migrations, errors) = read_all(dir, shown);
    errors.into_iter().next().map_or(Ok(migrations), Err)
}

/// [`read`] that goes on behind an error: what can be understood, and everything that cannot.
#[must_use]
pub fn read_all(dir: &Path, shown: &Path) -> (Vec<Migration>, Vec<ReadError>) {
    let folder = Folder { dir, shown };
    let mut errors = Vec::new();
    let names = folder.names().unwrap_or_else(|error| {
        errors.push(error);
        Vec::new()
    });
    let names = names.into_iter().filter_map(|name| folder.checked(name).map_err(|error| errors.push(error)).ok());
    let (downs, mut ups): (Vec<_>, Vec<_>) = names.partition(|name| name.ends_with(".down.sql"));
    let mut downs: BTreeSet<String> = downs.into_iter().collect();
    ups.sort_by(|a, b| order(a).cmp(&order(b)));
    let with_downs = ups.iter().map(|up| (up, downs.take(&format!("{}.down.sql", stem(up))))).collect::<Vec<_>>();
    errors.extend(downs.iter().map(|orphan| {
        let migration = format!("{}.sql", orphan.strip_suffix(".down.sql").unwrap_or(orphan));
        ReadError::OrphanDown { file: shown.join(orphan), migration }
    }));
    if ups.is_empty() && errors.is_empty() {
        errors.push(ReadError::NoFiles { dir: shown.to_owned(), example: "like 001_first.sql" });
    }
    let read = side_by_side(&with_downs, |(up, down)| folder.migration(up, down.as_deref())).into_iter();
    let migrations = read.filter_map(|it| it.map_err(|error| errors.push(error)).ok()).collect();
    (repeatable_last(migrations), errors)
}

fn repeatable_last(migrations: Vec<Migration>) -> Vec<Migration> {
    let (mut repeatable, mut all): (Vec<_>, Vec<_>) = migrations.into_iter().partition(|it| it.turn.repeatable);
    repeatable.sort_by(|a, b| a.name.cmp(&b.name));
    all.append(&mut repeatable);
    all
}

/// Numbers that several files carry, each with the names of those files. That is allowed, and worth a word. The number of a
/// repeatable migration means nothing.
#[must_use]
pub fn duplicate_numbers(migrations: &[Migration]) -> Vec<(String, Vec<String>)> {
    let migrations = &migrations[..migrations.iter().take_while(|it| !it.turn.repeatable).count()];
    let same = |a: &Migration, b: &Migration| number(&a.name).1 == number(&b.name).1;
    let groups = migrations.chunk_by(same).filter(|group| group.len() > 1);
    groups
        .filter_map(|group| {
            Some((digits(&group.first()?.name).to_owned(), group.iter().map(|it| it.name.clone()).collect()))
        })
        .collect()
}

/// The digits that a name starts with.
pub(super) fn digits(name: &str) -> &str {
    &name[..name.find(|c: char| !c.is_ascii_digit()).unwrap_or(name.len())]
}

/// A number of any length, in a form that sorts by value.
fn number(name: &str) -> (usize, &str) {
    let digits = digits(name).trim_start_matches('0');
    (digits.len(), digits)
}

fn order(name: &str) -> ((usize, &str), &[u8]) {
    (number(name), name.as_bytes())
}

/// By its name alone.
fn is_repeatable(name: &str) -> bool {
    name.strip_prefix(REPEATABLE).is_some_and(|rest| !rest.starts_with('.'))
}

fn stem(name: &str) -> &str {
    name.strip_suffix(".sql").unwrap_or(name)
}

struct Folder<'a> {
    dir: &'a Path,
    shown: &'a Path,
}

impl Folder<'_> {
    /// The names of the `*.sql` files, sorted, so that of several errors each process reports the same.
    fn names(&self) -> Result<Vec<OsString>, ReadError> {
        let fail = |source| ReadError::Folder { dir: self.shown.to_owned(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(self.dir).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if looks_like_sql(&entry.file_name().to_string_lossy()) && !is_folder(&entry).map_err(fail)? {
                names.push(entry.file_name());
            }
        }
        names.sort();
        Ok(names)
    }

    fn checked(&self, name: OsString) -> Result<String, ReadError> {
        let fail = |name: &OsStr, rule: &str| {
            Err(ReadError::Name { file: self.shown.join(name), rule: rule.to_owned(), help: NAMING })
        };
        match name.into_string() {
            Err(name) => fail(&name, "it is not Unicode"),
            Ok(name) if !name.ends_with(".sql") => fail(name.as_ref(), "its ending is not `.sql` in lower case"),
            Ok(name) if is_repeatable(&name) => Ok(name),
            Ok(name) if digits(&name).is_empty() => fail(name.as_ref(), "it does not start with a number"),
            Ok(name) => Ok(name),
        }
    }

    fn migration(&self, name: &str, down: Option<&str>) -> Result<Migration, ReadError> {
        let file = self.shown.join(name);
        let text = read_text(&self.dir.join(name), &file)?;
        let text = without_bom(&text);
        let fail = |error| ReadError::text(&file, text, error);
        let parts = directives::read(text).map_err(fail)?;
        let beside = down.map(|down| self.down_beside(down)).transpose()?;
        if let Some(beside) = &beside {
            agree(&file, &parts, beside)?;
        }
        let below = parts.down.as_ref().map(|part| down_part(&file, text, part, "its way back")).transpose()?;
        let whole = if below.is_some() { "the part above `-- migrate:down`" } else { "the file" };
        Ok(Migration {
            name: stem(name).to_owned(),
            up: match beside.is_none() && below.is_none() && parts.up.remark {
                // A file that was emptied, and says so.
                true => text.to_owned(),
                false => sendable(&file, text, &parts.up, whole)?,
            },
            checksum: checksum(&text[parts.up.range.clone()]),
            down: beside.or(below),
            irreversible: parts.irreversible.is_some(),
            transactional: !parts.up.no_transaction,
            budget: parts.up.budget,
            turn: Turn { repeatable: parts.repeatable.is_some() || is_repeatable(name), after: parts.after },
            path: file,
        })
    }

    fn down_beside(&self, name: &str) -> Result<Down, ReadError> {
        read_down(&self.dir.join(name), &self.shown.join(name))
    }
}

/// `NAME.down.sql`.
pub(super) fn read_down(path: &Path, file: &Path) -> Result<Down, ReadError> {
    let text = read_text(path, file)?;
    let text = without_bom(&text);
    let misplaced = |range: Range<usize>, name| {
        let problem = Problem::DirectiveMisplaced { name, place: "a file that is a way back" };
        ReadError::text(file, text, SqlTextError::new(text, range.start, range.end, problem))
    };
    let parts = directives::read(text).map_err(|error| ReadError::text(file, text, error))?;
    if let Some(down) = parts.down_directive {
        return Err(misplaced(down, "down"));
    }
    if let Some(irreversible) = parts.irreversible {
        return Err(misplaced(irreversible, "irreversible"));
    }
    if let Some(repeatable) = parts.repeatable {
        return Err(misplaced(repeatable, "repeatable"));
    }
    if let Some(edge) = parts.after.into_iter().next() {
        return Err(misplaced(edge.place, "after"));
    }
    down_part(file, text, &parts.up, "the file")
}

/// Does a file leave room for a way back beside it?
fn agree(file: &Path, parts: &Parts, beside: &Down) -> Result<(), ReadError> {
    let (file, down) = (file.to_owned(), beside.path.clone());
    match (&parts.down, &parts.irreversible) {
        (Some(_), _) => Err(ReadError::TwoWaysBack { file, down }),
        (None, Some(_)) => Err(ReadError::IrreversibleWithDown { file, down }),
        (None, None) => Ok(()),
    }
}

fn down_part(file: &Path, text: &str, part: &Part, whole: &'static str) -> Result<Down, ReadError> {
    Ok(Down {
        path: file.to_owned(),
        text: sendable(file, text, part, whole)?,
        checksum: checksum(&text[part.range.clone()]),
        first_line: part.first_line,
        transactional: !part.no_transaction,
        budget: part.budget,
    })
}

/// The text of a part as it is sent.
fn sendable(file: &Path, text: &str, part: &Part, whole: &'static str) -> Result<String, ReadError> {
    if !transaction::does_something(&part.statements) {
        return Err(ReadError::NoStatement { file: file.to_owned(), part: whole });
    }
    let at = part.range.start;
    transaction::blanked(&text[part.range.clone()], &part.statements, !part.no_transaction)
        .map_err(|error| SqlTextError::new(text, error.start + at, error.end + at, error.problem))
        .map_err(|error| ReadError::text(file, text, error))
}

/// A name that ends in `.sql` in any case and is not hidden.
pub(super) fn looks_like_sql(name: &str) -> bool {
    let ending = name.len().checked_sub(4).and_then(|at| name.get(at..));
    ending.is_some_and(|ending| ending.eq_ignore_ascii_case(".sql")) && !name.starts_with('.')
}

/// A folder, or a link to one.
fn is_folder(entry: &fs::DirEntry) -> io::Result<bool> {
    let kind = entry.file_type()?;
    // A link that leads nowhere is left to be opened, which says so by name.
    Ok(kind.is_dir() || kind.is_symlink() && fs::metadata(entry.path()).is_ok_and(|target| target.is_dir()))
}

/// A file as text that can be sent.
pub(super) fn read_text(path: &Path, shown: &Path) -> Result<String, ReadError> {
    let file = shown.to_owned();
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(source) => return Err(ReadError::File { file, source }),
    };
    let line = |before: &[u8]| before.iter().filter(|byte| **byte == b'\n').count() + 1;
    match String::from_utf8(bytes) {
        Err(error) => {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            Err(ReadError::NotUtf8 { file, line: line(before) })
        }
        Ok(text) => match text.find('\0') {
            Some(at) => Err(ReadError::Nul { file, line: line(&text.as_bytes()[..at]) }),
            None => Ok(text),
        },
    }
}

#[cfg(test)]
mod tests;
