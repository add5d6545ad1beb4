//! `kind = "refinery"`: a folder of refinery's `V1__name.sql`, read by refinery itself, so that an application that embeds
//! it sees the same migrations in the same order. What refinery passes over in silence is an error here, but for
//! `V1__name.down.sql`: refinery knows no way back, and passing over ours is what it should do.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use refinery_core::MigrationType;

use crate::kind::side_by_side::side_by_side;
use crate::kind::sql::{looks_like_sql, read_down, read_text};
use crate::kind::{Migration, ReadError, Turn};
use crate::sql::checksum::{checksum, without_bom};
use crate::sql::error::{Problem, SqlTextError};
use crate::sql::statements::StatementKind;
use crate::sql::{directives, statements, transaction};

const NAMING: &str = "refinery passes over the file in silence: name it V{version}__{name}.sql, as in V3__add_threads.sql, \
                      with letters, digits and `_` in the name and a version below 2147483648.";

/// The migrations of a folder and its sub-folders, in refinery's order. `dir` is opened, `shown` stands in messages and
/// paths.
///
/// # Errors
/// Names the first file that cannot be understood, or that refinery would pass over.
pub fn read(dir: &Path, shown: &Path) -> Result<Vec<Migration>, ReadError> {
    let (migrations, errors) = read_all(dir, shown);
    errors.into_iter().next().map_or(Ok(migrations), Err)
}

/// [`read`] that goes on behind an error: what can be understood, and everything that cannot.
#[must_use]
pub fn read_all(dir: &Path, shown: &Path) -> (Vec<Migration>, Vec<ReadError>) {
    let found = dir.canonicalize().and_then(|dir| Found::look(dir, shown));
    found.map_or_else(
        |source| (Vec::new(), vec![ReadError::Folder { dir: shown.to_owned(), source }]),
        |found| found.read(),
    )
}

/// What is in a folder, by path.
struct Found<'a> {
    dir: PathBuf,
    shown: &'a Path,
    sql: BTreeSet<PathBuf>,
    downs: BTreeSet<PathBuf>,
    passed_over: BTreeSet<PathBuf>,
    rust: Vec<PathBuf>,
}

impl<'a> Found<'a> {
    fn look(dir: PathBuf, shown: &'a Path) -> io::Result<Self> {
        let sql = found_by_refinery(&dir, MigrationType::Sql)?;
        let mut files = BTreeSet::new();
        sql_files(&dir, &mut files)?;
        let is_down = |path: &PathBuf| path.to_string_lossy().ends_with(".down.sql");
        let (downs, passed_over) = files.difference(&sql).cloned().partition(is_down);
        let rust = found_by_refinery(&dir, MigrationType::All)?.difference(&sql).cloned().collect();
        Ok(Self { dir, shown, sql, downs, passed_over, rust })
    }

    fn shown_as(&self, path: &Path) -> PathBuf {
        self.shown.join(path.strip_prefix(&self.dir).unwrap_or(path))
    }

    fn read(&self) -> (Vec<Migration>, Vec<ReadError>) {
        let rule = "it is not V{version}__{name}.sql";
        let repeatable = |path: &Path| path.file_name().is_some_and(|it| it.to_string_lossy().starts_with("R__"));
        let rule = |path: &Path| if repeatable(path) { "refinery knows no repeatable migrations" } else { rule };
        let named = |path: &Path| ReadError::Name { file: self.shown_as(path), rule: rule(path).into(), help: NAMING };
        let mut errors: Vec<ReadError> = self.passed_over.iter().map(|path| named(path)).collect();
        errors.extend(self.rust.iter().map(|path| ReadError::RefineryRust { file: self.shown_as(path) }));
        if self.sql.is_empty() && errors.is_empty() {
            errors.push(ReadError::NoFiles { dir: self.shown.to_owned(), example: "like V1__first.sql" });
        }
        errors.extend(self.orphans());
        let files: Vec<&PathBuf> = self.sql.iter().collect();
        let read = side_by_side(&files, |path| self.with_down(path)).into_iter();
        let read: Vec<_> = read.filter_map(|it| it.map_err(|error| errors.push(error)).ok()).collect();
        let migrations = in_order(read).unwrap_or_else(|error| {
            errors.push(error);
            Vec::new()
        });
        (migrations, errors)
    }
}

impl Found<'_> {
    /// Ways back without their migrations.
    fn orphans(&self) -> impl Iterator<Item = ReadError> {
        let orphans =
            self.downs.iter().filter(|down| !self.sql.iter().any(|path| path.with_extension("down.sql") == **down));
        orphans.map(|down| {
            let name = down.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let migration = format!("{}.sql", name.strip_suffix(".down.sql").unwrap_or(&name));
            ReadError::OrphanDown { file: self.shown_as(down), migration }
        })
    }

    fn with_down(&self, path: &Path) -> Result<(refinery_core::Migration, Migration), ReadError> {
        let (parsed, mut migration) = migration(path, self.shown_as(path))?;
        let beside = path.with_extension("down.sql");
        if self.downs.contains(&beside) {
            migration.down = Some(read_down(&beside, &self.shown_as(&beside))?);
        }
        Ok((parsed, migration))
    }
}

/// What refinery finds; its own order of files is not needed, since versions are unique.
fn found_by_refinery(dir: &Path, kind: MigrationType) -> io::Result<BTreeSet<PathBuf>> {
    let files = refinery_core::find_migration_files(dir, kind).map_err(io::Error::other)?;
    Ok(files.collect())
}

/// Every `*.sql` below a folder. Links to folders are not followed, as refinery does not.
fn sql_files(dir: &Path, files: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            sql_files(&path, files)?;
        } else if looks_like_sql(&entry.file_name().to_string_lossy()) && !path.is_dir() {
            files.insert(path);
        }
    }
    Ok(())
}

/// One file, as refinery parses its name and as we read its text.
fn migration(path: &Path, shown: PathBuf) -> Result<(refinery_core::Migration, Migration), ReadError> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let text = read_text(path, &shown)?;
    let parsed = parse(&name, &text).map_err(|rule| ReadError::Name { file: shown.clone(), rule, help: NAMING })?;
    check(without_bom(&text)).map_err(|error| ReadError::text(&shown, without_bom(&text), error))?;
    let checksum = checksum(&text);
    let migration = Migration {
        name,
        path: shown,
        checksum,
        up: text,
        down: None,
        irreversible: false,
        transactional: true,
        budget: directives::Budget::default(),
        turn: Turn::default(),
    };
    Ok((parsed, migration))
}

fn parse(name: &str, text: &str) -> Result<refinery_core::Migration, String> {
    // refinery's expression lets this one through, and its code for the letters does not.
    if name.starts_with('|') {
        return Err("it is not V{version}__{name}.sql".to_owned());
    }
    refinery_core::Migration::unapplied(name, text).map_err(|error| error.to_string())
}

/// refinery sends the file whole, in a transaction, and knows nothing of our directives: an application would run a way
/// back below `-- migrate:down` together with the migration.
fn check(text: &str) -> Result<(), SqlTextError> {
    directives::refuse_all(text, "a refinery migration")?;
    let statements = statements::split(text)?;
    let copy = statements.iter().find(|it| matches!(it.kind, StatementKind::CopyFromStdin { .. }));
    if let Some(copy) = copy {
        return Err(SqlTextError::new(text, copy.start, copy.end, Problem::CopyFromStdin));
    }
    transaction::check(text, &statements, true)
}

fn in_order(mut read: Vec<(refinery_core::Migration, Migration)>) -> Result<Vec<Migration>, ReadError> {
    read.sort_by(|(a, _), (b, _)| a.cmp(b));
    let repeated = read.windows(2).find(|pair| pair[0].0.version() == pair[1].0.version());
    if let Some([(first, a), (_, b)]) = repeated {
        let (first_file, second) = (a.path.clone(), b.path.clone());
        return Err(ReadError::RefineryVersion { version: first.version().to_string(), first: first_file, second });
    }
    Ok(read.into_iter().map(|(_, migration)| migration).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_files(files: &[(&str, &str)]) -> Result<Vec<Migration>, ReadError> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        read(dir.path(), Path::new("m"))
    }

    #[track_caller]
    fn check(files: &[&str], expected: &[&str]) {
        let files: Vec<_> = files.iter().map(|name| (*name, "select 1;")).collect();
        let migrations = read_files(&files).unwrap_or_else(|error| panic!("{files:?}: {error}"));
        assert_eq!(migrations.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), expected);
    }

    #[track_caller]
    fn check_error(files: &[(&str, &str)], message: &str) {
        assert_eq!(read_files(files).expect_err(message).to_string(), message);
    }

    #[test]
    fn files_run_in_the_order_of_refinery() {
        check(&["V10__c.sql", "V2__b.sql", "U3__x.sql", "V1__a.sql"], &["V1__a", "V2__b", "U3__x", "V10__c"]);
        check(&["late/V1__a.sql", "V2__b.sql", "README.md", "mod.rs"], &["V1__a", "V2__b"]);
    }

    #[test]
    fn the_text_is_as_refinery_reads_it() {
        let text = "\u{feff}begin;\r\nselect 1;\r\ncommit;\r\n";
        let migration = read_files(&[("sub/V1__a.sql", text)]).unwrap().remove(0);
        assert_eq!(migration.up, text);
        assert_eq!(migration.checksum, checksum("begin;\nselect 1;\ncommit;\n"));
        assert_eq!(migration.path, Path::new("m/sub/V1__a.sql"));
        assert!(migration.transactional && migration.down.is_none());
        assert!(refinery_core::Migration::unapplied(&migration.name, &migration.up).is_ok());
        assert_eq!(transaction::sendable(&migration.up, true).unwrap(), "     ;\r\nselect 1;\r\n      ;\r\n");
    }

    #[test]
    fn what_refinery_passes_over_is_an_error() {
        let name = "the name is not understood";
        let form = "it is not V{version}__{name}.sql";
        for bad in ["V2_b.sql", "2__b.sql", "v2__b.sql", "V2__b.SQL", "sub/x.sql", "V2__a-b.sql", "|2__b.sql"] {
            check_error(&[("V1__a.sql", "select 1;"), (bad, "select 1;")], &format!("m/{bad}: {name}: {form}"));
        }
        let repeatable = format!("m/R__b.sql: {name}: refinery knows no repeatable migrations");
        check_error(&[("V1__a.sql", "select 1;"), ("R__b.sql", "select 1;")], &repeatable);
        for bad in ["V1.5__b.sql", "V99999999999__b.sql"] {
            check_error(&[(bad, "select 1;")], &format!("m/{bad}: {name}: migration version must be a valid integer"));
        }
        check_error(
            &[("V1__a.sql", "select 1;"), ("V2__b.rs", "")],
            "m/V2__b.rs: a refinery migration in Rust is part of the application that embeds it, and cannot be run here",
        );
        check_error(&[("README.md", "")], "m holds no migration");
    }

    #[test]
    fn a_way_back_lies_beside_its_migration() {
        let files = [("V1__a.sql", "select 1;"), ("sub/V2__b.sql", "select 2;"), ("sub/V2__b.down.sql", "select 3;")];
        let read = read_files(&files).unwrap();
        let downs: Vec<_> = read.iter().map(|it| it.down.as_ref().map(|down| down.text.as_str())).collect();
        assert_eq!(downs, [None, Some("select 3;")]);
        let orphan = "m/V2__b.down.sql: there is no V2__b.sql that this would be the way back of";
        check_error(&[files[0], ("V2__b.down.sql", "select 3;"), files[1]], orphan);
    }

    #[test]
    fn a_version_stands_once() {
        check_error(
            &[("V1__a.sql", "select 1;"), ("sub/V01__b.sql", "select 2;")],
            "m/V1__a.sql and m/sub/V01__b.sql both have version 1",
        );
    }

    #[test]
    fn what_would_end_the_transaction_is_an_error() {
        let check = |text: &str, message: &str| check_error(&[("V1__a.sql", text)], message);
        check("select 1;\ncommit;", "m/V1__a.sql:2:1: COMMIT in a migration that runs in a transaction of its own");
        check("vacuum;", "m/V1__a.sql:1:1: VACUUM cannot run inside a transaction");
        check(
            "select 1;\ncopy t from stdin;\n1\n\\.\n",
            "m/V1__a.sql:2:1: COPY FROM stdin with its data in a refinery migration",
        );
        check(
            "select 1;\n-- migrate:down\nselect 2;",
            "m/V1__a.sql:2:1: `migrate:down` has no place in a refinery migration",
        );
        for (directive, name) in [("repeatable", "repeatable"), ("after s/x", "after")] {
            check(
                &format!("-- migrate:{directive}\nselect 1;"),
                &format!("m/V1__a.sql:1:1: `migrate:{name}` has no place in a refinery migration"),
            );
        }
    }

    #[test]
    fn a_missing_folder_is_named() {
        let missing = read(Path::new("/nowhere/at/all"), Path::new("m")).unwrap_err();
        assert_eq!(missing.to_string(), "cannot read the folder m");
    }
}
