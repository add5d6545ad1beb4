//! What directives say, and where they may not stand.

use proptest::prelude::*;

use super::*;

/// Up, down, and what else the file says: `n` no transaction, `N` none in the way back, `i` irreversible.
#[track_caller]
fn check(text: &str, up: &str, down: Option<&str>, flags: &str) {
    let parts = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(&text[parts.up.range.clone()], up, "{text}");
    assert_eq!(parts.down.as_ref().map(|down| &text[down.range.clone()]), down, "{text}");
    let mut found = String::new();
    found.extend(parts.up.no_transaction.then_some('n'));
    found.extend(parts.down.is_some_and(|down| down.no_transaction).then_some('N'));
    found.extend(parts.irreversible.is_some().then_some('i'));
    assert_eq!(found, flags, "{text}");
}

#[track_caller]
fn check_error(text: &str, line: usize, part: &str) {
    let error = read(text).expect_err(text);
    assert_eq!(error.line, line, "{text}: {error}");
    assert!(error.problem.to_string().contains(part), "{text}: {error}");
}

#[test]
fn files_without_directives_are_whole() {
    check("select 1;", "select 1;", None, "");
    check("", "", None, "");
    check("-- we migrate: rows\nselect 1;", "-- we migrate: rows\nselect 1;", None, "");
    check("-- migrate: move the rows\n;", "-- migrate: move the rows\n;", None, "");
    check("-- migrated:down\n;", "-- migrated:down\n;", None, "");
}

#[test]
fn directives_are_read() {
    let text = "-- migrate:no-transaction\nselect 1;";
    check(text, text, None, "n");
    let text = "select 1;\nvacuum;";
    check(text, text, None, "n");
    check(";\n-- migrate:down\nreindex database;", ";\n", Some("reindex database;"), "N");
    check("begin; vacuum; commit;", "begin; vacuum; commit;", None, "");
    let text = "select 1;\n  --migrate:no-transaction  \r\n";
    check(text, text, None, "n");
    let text = "\u{feff}-- migrate:irreversible\nselect 1;";
    check(text, text, None, "i");
    let text = "-- a; it's\n-- migrate:irreversible\n-- migrate:no-transaction\ndrop table t;";
    check(text, text, None, "ni");
}

#[test]
fn down_cuts_the_file() {
    check("select 1;\n-- migrate:down\nselect 2;\n", "select 1;\n", Some("select 2;\n"), "");
    check("select 1;\n\n \n-- migrate:down\nselect 2;", "select 1;\n", Some("select 2;"), "");
    check("select 1;\r\n\r\n-- migrate:down\r\nselect 2;", "select 1;\r\n", Some("select 2;"), "");
    check("select 1;\r\r-- migrate:down\rselect 2;", "select 1;\r", Some("select 2;"), "");
    check("select 1\n-- migrate:down", "select 1\n", Some(""), "");
    check("-- migrate:down\nselect 2;", "", Some("select 2;"), "");
    check("-- migrate:no-transaction\n;\n-- migrate:down\n;", "-- migrate:no-transaction\n;\n", Some(";"), "n");
    check(";\n-- migrate:down\n-- migrate:no-transaction\n;", ";\n", Some("-- migrate:no-transaction\n;"), "N");
}

#[test]
fn the_way_back_knows_its_line_and_its_statements() {
    let text = "select 1;\nselect 2;\n\n-- migrate:down\n-- why\nselect 'ü', 3;";
    let down = read(text).unwrap().down.unwrap();
    assert_eq!(down.first_line, 5);
    let statement = down.statements[0];
    assert_eq!(&text[down.range][statement.start..statement.end], "select 'ü', 3");
}

#[test]
fn only_line_comments_count() {
    for text in [
        "select '\n-- migrate:down\n';",
        "select $$\n-- migrate:xyz\n$$;",
        "/*\n-- migrate:down\n*/ select 1;",
        "select \"\n-- migrate:down\n\";",
        "copy t from stdin;\n-- migrate:down\n\\.\n",
        "do $$ begin\n-- migrate:after x\nend $$;",
    ] {
        check(text, text, None, "");
    }
}

#[test]
fn what_is_not_known_is_an_error_with_its_line() {
    check_error("\n-- migrate:xyz\n", 2, "`migrate:xyz` is not a directive");
    check_error("-- migrate:up\nselect 1;", 1, "`migrate:up` is not a directive");
    check_error("-- migrate: up", 1, "`migrate:up` is not a directive");
    check_error("-- migrate:", 1, "`migrate:` is not a directive");
    check_error("-- migrate:Down", 1, "`migrate:Down` is not a directive");
    check_error("select 1; -- migrate:nope", 1, "`migrate:nope` is not a directive");
    check_error("-- migrate:no_transaction", 1, "no_transaction");
    check_error("-- migrate:repeatable always", 1, "`migrate:repeatable` takes no argument");
    for word in ["after", "after x", "after /x", "after x/"] {
        check_error(&format!(";\n-- migrate:{word}"), 2, "`migrate:after` wants STEP/NAME");
    }
}

#[test]
fn a_file_may_say_what_it_waits_for_and_that_it_is_repeatable() {
    let text = "-- migrate:repeatable\n-- migrate:after rag-schema/001 a\n;\n  -- migrate:after x/y/z\n";
    let parts = read(text).unwrap();
    assert_eq!(parts.repeatable, Some(0..21));
    let edges: Vec<_> = parts.after.iter().map(|it| (it.step.as_str(), it.name.as_str(), it.line)).collect();
    assert_eq!(edges, [("rag-schema", "001 a", 2), ("x", "y/z", 4)]);
    let plain = read("select 1;").unwrap();
    assert!(plain.repeatable.is_none() && plain.after.is_empty());
    check_error(";\n-- migrate:repeatable\n-- migrate:repeatable", 3, "second time");
    for word in ["repeatable", "after x/y"] {
        check_error(&format!(";\n-- migrate:down\n;\n-- migrate:{word}"), 4, "has no place in a way back");
    }
}

#[test]
fn a_comment_for_people_is_a_remark() {
    let remark = |text: &str| read(text).unwrap().up.remark;
    assert!(remark("-- superseded by 021") && remark("/* nothing */") && remark("\n  -- migrate: moved to 021\n"));
    assert!(!remark("") && !remark("--\n-- ---\n") && !remark("-- migrate:no-transaction\n;;"));
    assert!(!remark("-- a comment\nselect 1;"));
}

/// The limits of both parts, in milliseconds.
#[track_caller]
fn check_budgets(text: &str, up: (Option<u64>, Option<u64>), down: (Option<u64>, Option<u64>)) {
    let parts = read(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let budget = |(lock, statement): (Option<u64>, Option<u64>)| Budget {
        lock_timeout: lock.map(Duration::from_millis),
        statement_timeout: statement.map(Duration::from_millis),
    };
    assert_eq!(parts.up.budget, budget(up), "{text}");
    assert_eq!(parts.down.map(|it| it.budget).unwrap_or_default(), budget(down), "{text}");
}

#[test]
fn each_part_has_its_own_limits() {
    let none = (None, None);
    check_budgets("select 1;", none, none);
    check_budgets("-- migrate:lock-timeout 2s\n;", (Some(2000), None), none);
    check_budgets("-- migrate: statement-timeout   5m  \n;", (None, Some(300_000)), none);
    let both = "-- migrate:lock-timeout 500ms\n-- migrate:statement-timeout 0\n;\n-- migrate:down\n";
    check_budgets(both, (Some(500), Some(0)), none);
    check_budgets(&format!("{both}-- migrate:lock-timeout 1h\n;"), (Some(500), Some(0)), (Some(3_600_000), None));
}

#[test]
fn limits_that_are_none_are_errors_with_their_line() {
    check_error(";\n-- migrate:lock-timeout 0", 2, "`migrate:lock-timeout 0` would wait for ever");
    check_error("-- migrate:lock-timeout 0ms", 1, "would wait for ever");
    check_error("-- migrate:lock-timeout", 1, "`migrate:lock-timeout` wants a duration, and has ``");
    check_error("\n\n-- migrate:statement-timeout soon", 3, "wants a duration, and has `soon`");
    check_error("-- migrate:lock-timeout = 2s", 1, "wants a duration, and has `= 2s`");
    check_error("-- migrate:lock-timeout 1s\n;\n-- migrate:lock-timeout 2s", 3, "second time");
}

#[test]
fn near_misses_are_never_passed_over() {
    check("select 1;\n-- Migrate: down\nselect 2;", "select 1;\n", Some("select 2;"), "");
    check("--- migrate : down\nselect 2;", "", Some("select 2;"), "");
    check_error("-- migrate: DOWN", 1, "`migrate:DOWN` is not a directive");
}

#[test]
fn directives_in_the_wrong_place_are_errors() {
    check_error("select 1; -- migrate:down\nselect 2;", 1, "does not stand on a line of its own");
    check_error("create table t (\n-- migrate:down\na int);", 2, "inside a statement");
    check_error(
        "create function f() returns int begin atomic\nselect 1;\n-- migrate:down\nend",
        3,
        "inside a statement",
    );
    check_error("-- migrate:down now", 1, "takes no argument, and has `now`");
    check_error("-- migrate:no-transaction true", 1, "takes no argument");
    check_error(";\n-- migrate:down\n;\n-- migrate:down\n", 4, "second time");
    check_error("-- migrate:no-transaction\n-- migrate:no-transaction\n", 2, "second time");
    check_error("-- migrate:irreversible\n-- migrate:irreversible\n", 2, "second time");
    let twice = ";\n-- migrate:down\n-- migrate:no-transaction\n;\n-- migrate:no-transaction";
    check_error(twice, 5, "second time");
    check_error("-- migrate:irreversible\n;\n-- migrate:down\n;", 1, "says that there is no way back");
    check_error(";\n-- migrate:down\n-- migrate:irreversible\n;", 3, "says that there is no way back");
}

#[test]
fn what_is_allowed_is_named() {
    let text =
        "-- migrate:allow a-b it is small\n;\n--migrate:allow c\n-- migrate:allow\nselect '\n-- migrate:allow d\n';";
    let names: Vec<&str> = allowed(text).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a-b", "c", ""]);
    assert_eq!(refuse_all(text, "anywhere"), Ok(()));
    check(text, text, None, "");
    check_error("select 1; -- migrate:allow a", 1, "does not stand on a line of its own");
}

#[test]
fn errors_in_the_text_come_first() {
    check_error("select 1;\n-- migrate:down\nselect 'a", 3, "never closed");
    check_error("select 'a;\n-- migrate:down\nselect 1;", 1, "never closed");
    check_error("select 1\n-- migrate:down\n;\ncopy t from stdin;\n", 4, "does not end");
    check_error("copy t from stdin\n-- migrate:down\n;\n\\.\n", 1, "does not end");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = read(&text);
    }

    #[test]
    fn a_way_back_leaves_the_checksum_as_it_is(up in "[a-z ;\n\r]{0,20}[a-z;]\n", blank in "[ \n]{0,4}") {
        let text = format!("{up}{blank}\n-- migrate:down\nselect 1;");
        let parts = read(&text).unwrap();
        prop_assert_eq!(&text[parts.up.range], &up);
        prop_assert_eq!(&text[parts.down.unwrap().range], "select 1;");
    }
}
