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
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    fn read_files(files: &[(&str, &str)]) -> Result<Vec<Migration>, ReadError> {
        read(folder(files).path(), Path::new("m"))
    }

    /// Files, and the migrations they make: `name`, `name+` with a way back.
    #[track_caller]
    fn check(files: &[(&str, &str)], expected: &[&str]) {
        let migrations = read_files(files).unwrap_or_else(|error| panic!("{files:?}: {error}"));
        let name = |it: &Migration| format!("{}{}", it.name, if it.down.is_some() { "+" } else { "" });
        assert_eq!(migrations.iter().map(name).collect::<Vec<_>>(), expected);
    }

    #[track_caller]
    fn check_error(files: &[(&str, &str)], message: &str, code: &str) {
        let error = read_files(files).expect_err(message);
        assert_eq!(error.to_string(), message);
        assert_eq!(miette::Diagnostic::code(&error).unwrap().to_string(), code);
        assert!(miette::Diagnostic::help(&error).is_some(), "{message}");
    }

    #[track_caller]
    fn one(text: &str) -> Migration {
        read_files(&[("1_a.sql", text)]).unwrap().remove(0)
    }

    #[test]
    fn files_run_by_number_then_by_name() {
        let sql = "select 1;";
        check(
            &[("10_a.sql", sql), ("9_b.sql", sql), ("009_a.sql", sql), ("20260131120000_z.sql", sql)],
            &["009_a", "9_b", "10_a", "20260131120000_z"],
        );
        check(&[("1_a.sql", sql), ("1.sql", sql), ("1-a.sql", sql), ("0_z.sql", sql)], &["0_z", "1-a", "1", "1_a"]);
        check(
            &[("99999999999999999999999999_b.sql", sql), ("100000000000000000000000000_a.sql", sql)],
            &["99999999999999999999999999_b", "100000000000000000000000000_a"],
        );
    }

    #[test]
    fn numbers_may_stand_twice_and_are_reported() {
        let sql = "select 1;";
        let files = [("017_b.sql", sql), ("017_a.sql", sql), ("18.sql", sql), ("018_x.sql", sql), ("019.sql", sql)];
        let migrations = read_files(&files).unwrap();
        let names = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            duplicate_numbers(&migrations),
            [("017".to_owned(), names(&["017_a", "017_b"])), ("018".to_owned(), names(&["018_x", "18"])),]
        );
    }

    #[test]
    fn other_files_are_passed_over() {
        let sql = "select 1;";
        let dir = folder(&[("1_a.sql", sql), ("README.md", ""), ("._1_a.sql", "\0"), ("1_a.sql~", ""), ("sql", "")]);
        fs::create_dir(dir.path().join("2_sub.sql")).unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/not_read.sql"), "").unwrap();
        let migrations = read(dir.path(), Path::new("m")).unwrap();
        assert_eq!(migrations.len(), 1);
        assert_eq!(migrations[0].path, Path::new("m/1_a.sql"));
    }

    #[test]
    fn names_that_say_nothing_are_errors() {
        let sql = "select 1;";
        let no_number = "the name is not understood: it does not start with a number";
        check_error(&[("1.sql", sql), ("fix.sql", sql)], &format!("m/fix.sql: {no_number}"), "files.name");
        check_error(&[("V1__a.sql", sql)], &format!("m/V1__a.sql: {no_number}"), "files.name");
        check_error(&[(".sql", "")], "m holds no migration", "files.none");
        let ending = "the name is not understood: its ending is not `.sql` in lower case";
        check_error(&[("1_a.SQL", sql)], &format!("m/1_a.SQL: {ending}"), "files.name");
        check_error(&[], "m holds no migration", "files.none");
        let missing = read(Path::new("/nowhere/at/all"), Path::new("m")).unwrap_err();
        assert_eq!(missing.to_string(), "cannot read the folder m");
    }

    #[test]
    fn a_way_back_may_stand_beside_or_below() {
        let (up, down) = ("select 1;", "select 2;");
        check(&[("1_a.sql", up), ("1_a.down.sql", down), ("2_b.sql", up)], &["1_a+", "2_b"]);
        check(&[("1_a.sql", "select 1;\n-- migrate:down\nselect 2;")], &["1_a+"]);
        let beside =
            read_files(&[("1_a.sql", up), ("1_a.down.sql", "-- x\nselect 2;")]).unwrap().remove(0).down.unwrap();
        assert_eq!((beside.path.as_path(), beside.first_line), (Path::new("m/1_a.down.sql"), 1));
        let below = one("select 1;\n\n-- migrate:down\nselect 2;").down.unwrap();
        assert_eq!((below.path.as_path(), below.first_line), (Path::new("m/1_a.sql"), 4));
        assert_eq!((below.text.as_str(), below.checksum), ("select 2;", checksum("select 2;")));
    }

    #[test]
    fn ways_back_that_contradict_are_errors() {
        let (up, down) = ("select 1;", "select 2;");
        let orphan = "m/2_b.down.sql: there is no 2_b.sql that this would be the way back of";
        check_error(&[("1_a.sql", up), ("2_b.down.sql", down)], orphan, "files.orphan_down");
        check_error(
            &[("1_a.sql", "select 1;\n-- migrate:down\nselect 2;"), ("1_a.down.sql", down)],
            "m/1_a.sql has two ways back: its own `-- migrate:down`, and m/1_a.down.sql",
            "files.two_ways_back",
        );
        check_error(
            &[("1_a.sql", "-- migrate:irreversible\nselect 1;"), ("1_a.down.sql", down)],
            "m/1_a.sql says `migrate:irreversible`, and m/1_a.down.sql is a way back",
            "files.irreversible_with_down",
        );
        check_error(
            &[("1_a.sql", up), ("1_a.down.sql", "select 2;\n-- migrate:down\nselect 3;")],
            "m/1_a.down.sql:2:1: `migrate:down` has no place in a file that is a way back",
            "sql.directive_misplaced",
        );
        check_error(
            &[("1_a.sql", up), ("1_a.down.sql", "-- migrate:irreversible\nselect 3;")],
            "m/1_a.down.sql:1:1: `migrate:irreversible` has no place in a file that is a way back",
            "sql.directive_misplaced",
        );
    }

    #[test]
    fn files_that_hold_nothing_are_errors() {
        for empty in ["", "\u{feff}", "--\n", ";;", "begin; commit;", "-- migrate:no-transaction\n"] {
            check_error(&[("1_a.sql", empty)], "m/1_a.sql: the file holds no statement", "files.no_statement");
        }
        check_error(
            &[("1_a.sql", "select 1;\n-- migrate:down\n-- nothing\n")],
            "m/1_a.sql: its way back holds no statement",
            "files.no_statement",
        );
        check_error(
            &[("1_a.sql", "-- migrate:down\nselect 1;")],
            "m/1_a.sql: the part above `-- migrate:down` holds no statement",
            "files.no_statement",
        );
    }

    #[test]
    fn a_file_that_was_emptied_says_so() {
        let emptied = one("-- Moved to 2_b.\n");
        assert_eq!((emptied.up.as_str(), emptied.checksum), ("-- Moved to 2_b.\n", checksum("-- Moved to 2_b.\n")));
        let whole = "m/1_a.sql: the file holds no statement";
        check_error(&[("1_a.sql", "-- moved\n"), ("1_a.down.sql", "select 1;")], whole, "files.no_statement");
    }

    #[test]
    fn repeatable_files_come_last_by_name() {
        let sql = "select 1;";
        let files = [
            ("R__b.sql", "-- migrate:repeatable\nselect 1;\n-- migrate:down\nselect 2;"),
            ("2_z.sql", "-- migrate:repeatable\nselect 1;"),
            ("R__a.sql", sql),
            ("R__a.down.sql", sql),
            ("10_y.sql", "-- migrate:repeatable\nselect 1;"),
            ("2_a.sql", sql),
            ("11_x.sql", sql),
        ];
        check(&files, &["2_a", "11_x", "10_y", "2_z", "R__a+", "R__b+"]);
        let migrations = read_files(&files).unwrap();
        assert_eq!(
            migrations.iter().map(|it| it.turn.repeatable).collect::<Vec<_>>(),
            [false, false, true, true, true, true]
        );
        assert_eq!(duplicate_numbers(&migrations), []);
        for bad in ["R__.sql", "r__a.sql", "R_a.sql"] {
            let message = format!("m/{bad}: the name is not understood: it does not start with a number");
            check_error(&[(bad, sql)], &message, "files.name");
        }
        check_error(
            &[("1_a.sql", sql), ("1_a.down.sql", "-- migrate:repeatable\nselect 3;")],
            "m/1_a.down.sql:1:1: `migrate:repeatable` has no place in a file that is a way back",
            "sql.directive_misplaced",
        );
    }

    #[test]
    fn files_that_are_no_text_are_errors() {
        let dir = folder(&[]);
        let fails = |bytes: &[u8]| {
            fs::write(dir.path().join("1_a.sql"), bytes).unwrap();
            read(dir.path(), Path::new("m")).unwrap_err().to_string()
        };
        assert_eq!(fails(b"select 1;\nselect '\xff';"), "m/1_a.sql:2: not UTF-8");
        assert_eq!(fails(b"select 1;\n\nselect '\0';"), "m/1_a.sql:3: a NUL byte");
    }

    #[test]
    fn text_is_sent_without_what_the_server_does_not_need() {
        let migration = one("\u{feff}BEGIN;\nselect 1;\nCOMMIT;\n");
        assert_eq!(migration.up, "     ;\nselect 1;\n      ;\n");
        assert_eq!(migration.checksum, checksum("BEGIN;\nselect 1;\nCOMMIT;\n"));
        assert!(migration.transactional && !migration.irreversible);
        let migration = one("-- migrate:no-transaction\nvacuum;");
        assert!(!migration.transactional);
        assert!(one("-- migrate:irreversible\ndrop table t;").irreversible);
        let down = one("select 1;\n-- migrate:down\n-- migrate:no-transaction\nvacuum;").down.unwrap();
        assert!(!down.transactional);
    }

    #[test]
    fn a_way_back_is_no_part_of_the_checksum() {
        let plain = one("select 1;\n").checksum;
        assert_eq!(one("select 1;\n\n-- migrate:down\nselect 2;\n").checksum, plain);
        assert_eq!(one("select 1;\n-- migrate:down\nselect 3;\n").checksum, plain);
        assert_ne!(one("select 2;\n-- migrate:down\nselect 3;\n").checksum, plain);
    }

    #[test]
    fn errors_in_the_text_name_file_line_and_column() {
        check_error(
            &[("1_a.sql", "select 1;\n  -- migrate:xyz\n")],
            "m/1_a.sql:2:3: `migrate:xyz` is not a directive",
            "sql.directive_unknown",
        );
        check_error(
            &[("1_a.sql", "\u{feff}select 'ü'; commit;")],
            "m/1_a.sql:1:13: COMMIT in a migration that runs in a transaction of its own",
            "sql.transaction_command",
        );
        check_error(
            &[("1_a.sql", "select 1;\n-- migrate:down\nselect 1;\n drop index concurrently i;")],
            "m/1_a.sql:4:2: DROP INDEX CONCURRENTLY cannot run inside a transaction",
            "sql.cannot_run_in_transaction",
        );
        check_error(
            &[("1_a.sql", "select 1;\n\\i x")],
            "m/1_a.sql:2:1: `\\i` is a command of psql, not SQL",
            "sql.psql_command",
        );
    }

    #[test]
    fn the_line_is_shown() {
        let error = read_files(&[("1_a.sql", "select 1;\nselect 'ü'; create database d;")]).unwrap_err();
        let mut shown = String::new();
        let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::none());
        handler.render_report(&mut shown, &error).unwrap();
        for part in ["m/1_a.sql:2:13", "select 'ü'; create database d;", "here", "migrate:no-transaction"] {
            assert!(shown.contains(part), "{part} is not in:\n{shown}");
        }
    }

    #[test]
    fn ten_thousand_files_are_read_in_moments() {
        let dir = folder(&[]);
        for number in 0..10_000 {
            let text = format!("-- {number}\ncreate table t{number} (id bigint primary key, name text);\n");
            fs::write(dir.path().join(format!("{number:05}_t.sql")), text).unwrap();
        }
        let start = std::time::Instant::now();
        assert_eq!(read(dir.path(), Path::new("m")).unwrap().len(), 10_000);
        // Well under a second when optimised; the limit leaves room for a debug build on a busy machine.
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }
}
