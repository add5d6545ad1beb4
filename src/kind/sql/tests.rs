//! Folders, and the migrations or the errors that they are.

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
    let beside = read_files(&[("1_a.sql", up), ("1_a.down.sql", "-- x\nselect 2;")]).unwrap().remove(0).down.unwrap();
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
    let migration = one("select 1;\n-- migrate:down\n-- migrate:no-transaction\nvacuum;");
    assert!(migration.transactional && !migration.down.unwrap().transactional);
    // Without a word, because of a statement.
    let migration = one("select 1;\nvacuum;\n-- migrate:down\nselect 2;");
    assert!(!migration.transactional && migration.down.unwrap().transactional);
    let migration = one("select 1;\n-- migrate:down\ndrop index concurrently i;");
    assert!(migration.transactional && !migration.down.unwrap().transactional);
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
        &[("1_a.sql", "select 1;\n-- migrate:down\nbegin;\n drop index concurrently i;\ncommit;")],
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
    let error = read_files(&[("1_a.sql", "begin;\nselect 'ü'; create database d; commit")]).unwrap_err();
    let mut shown = String::new();
    let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::none());
    handler.render_report(&mut shown, &error).unwrap();
    for part in ["m/1_a.sql:2:13", "select 'ü'; create database d;", "here", "without BEGIN … COMMIT"] {
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
