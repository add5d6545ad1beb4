//! Every rule: a text in which it finds something, and one in which it does not.

use std::fs;
use std::path::Path;

use super::folder::{Folder, Style, look};
use super::rules::{RULES, Rule};
use super::*;

/// The findings in a folder of these files, as `file:line:column rule`.
fn found(style: Style, files: &[(&str, &str)], allowed: &[&str]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let allowed = allowed.iter().map(ToString::to_string).collect();
    let folder = Folder { style, dir: dir.path().into(), shown: Path::new("m").into() };
    let show = |it: &Finding| format!("{}:{}:{} {}", it.file.display(), it.line, it.column, it.rule);
    look(&folder, None, &allowed).findings.iter().map(show).collect()
}

const WAY_BACK: &str = "\n-- migrate:irreversible\n";

/// The rules that find something in one file that says that there is no way back.
fn rules_in(text: &str) -> Vec<String> {
    let found = found(Style::Sql, &[("1_a.sql", &format!("{text}{WAY_BACK}"))], &[]);
    found.into_iter().map(|it| it.rsplit(' ').next().unwrap().to_owned()).collect()
}

/// A rule, a text with one such finding and no other, a text with none at all.
const EXAMPLES: &[(&str, &str, &str)] = &[
    (
        "cannot-run-in-transaction",
        "create table a (b int);\ncreate index concurrently i on t (a);",
        "-- migrate:no-transaction\ncreate index concurrently i on t (a);",
    ),
    (
        "cannot-run-in-transaction",
        "begin;\ncreate index concurrently i on t (a);\ncommit;",
        "create index concurrently i on t (a);",
    ),
    ("transaction-command", "select 1;\ncommit;\nselect 2;", "begin;\nselect 1;\ncommit;"),
    ("no-statement", "--", "select 1;"),
    ("unreadable", "\\i other.sql", "select '\\i other.sql';"),
    (
        "unknown-rule",
        "-- migrate:allow ban-everything\nselect 1;",
        "-- migrate:allow truncate it is a cache\nselect 1;",
    ),
    (
        "several-statements-without-transaction",
        "-- migrate:no-transaction\nvacuum t;\nvacuum u;",
        "-- migrate:no-transaction\nvacuum t;",
    ),
    ("missing-where", "update t set a = 1;", "update t set a = 1 where a is null;"),
    (
        "missing-where",
        "copy t from stdin;\ndelete from t;\n\\.\ndelete from t;",
        "copy t from stdin;\ndelete from t;\ndrop table t;\n\\.\nselect 1;",
    ),
    ("missing-where", "delete from t;", "create table t (a int); insert into t values (1); delete from t;"),
    (
        "missing-where",
        "with gone as (delete from t returning a) insert into u select a from gone;",
        "with gone as (delete from t where a > 1 returning a) insert into u select a from gone;",
    ),
    (
        "missing-where",
        "update t set a = u.a from u;",
        "create function f() returns void language sql as 'delete from t';",
    ),
    ("truncate", "truncate t;", "create table t as select 1 as a; truncate t;"),
    (
        "adding-column-with-check",
        "alter table t add column a int check (a > 0);",
        "alter table t add column a int;\nalter table t add constraint c check (a > 0) not valid;",
    ),
    (
        "require-concurrent-index-creation",
        "create index i on t (a);",
        "create table s.t (a int); create index i on s.t (a); create index j on T (a);",
    ),
    (
        "changing-column-type",
        "create table a.t (a int); alter table b.t alter column a type bigint;",
        "create table a.t (a int); alter table t alter column a type bigint;",
    ),
    ("require-concurrent-reindex", "reindex table t;", "reindex table concurrently t;"),
    ("require-concurrent-index-deletion", "drop index i;", "-- migrate:no-transaction\ndrop index concurrently i;"),
    (
        "require-concurrent-partition-detach",
        "alter table t detach partition p;",
        "-- migrate:no-transaction\nalter table t detach partition p concurrently;",
    ),
    (
        "constraint-missing-not-valid",
        "alter table t add constraint c check (a > 0);",
        "create table t (a int); alter table t add constraint c check (a > 0);",
    ),
    (
        "adding-foreign-key-constraint",
        "alter table t add constraint c foreign key (a) references u (a);",
        "alter table t add column a int references u (a);",
    ),
    (
        "adding-foreign-key-constraint",
        "alter table t add column a int default 1 references u (a);",
        "alter table t add constraint c foreign key (a) references u (a) not valid;",
    ),
    (
        "adding-not-nullable-field",
        "alter table t alter column a set not null;",
        "create table t (a int); alter table t alter column a set not null;",
    ),
    (
        "adding-required-field",
        "alter table t add column a int not null;",
        "alter table t add column a int not null default 0;",
    ),
    (
        "adding-field-with-default",
        "alter table t add column a uuid default gen_random_uuid();",
        "alter table t add column a timestamptz default now();",
    ),
    (
        "adding-serial-primary-key-field",
        "alter table t add primary key (a);",
        "alter table t add primary key using index i;",
    ),
    (
        "disallowed-unique-constraint",
        "alter table t add constraint c unique (a);",
        "alter table t add constraint c unique using index i;",
    ),
    (
        "changing-column-type",
        "alter table t alter column a type bigint;",
        "create table t (a int); alter table t alter column a type bigint;",
    ),
    ("ban-drop-table", "drop table t;", "create table t (a int); drop table t;"),
    ("ban-drop-table", "create table t (a int); drop table t, u;", "select 'drop table t';"),
    (
        "ban-drop-column",
        "alter table t drop column a;",
        "-- migrate:allow ban-drop-column nobody reads it\nalter table t drop column a;",
    ),
    ("ban-drop-schema", "drop schema s;", "create schema s;"),
    ("ban-drop-database", "-- migrate:no-transaction\ndrop database d;", "select 1;"),
    ("ban-duplicate-column-assignments", "update t set a = 1, a = 2 where b;", "update t set a = 1, b = 2 where c;"),
    ("ban-alter-domain-with-add-constraint", "alter domain d add check (value > 0);", "create domain d as int;"),
    ("renaming-table", "alter table t rename to u;", "create table t (a int); alter table t rename to u;"),
    ("renaming-column", "alter table t rename column a to b;", "alter table t add column b int;"),
    ("ban-drop-view", "drop view v;", "create view v as select 1;"),
    ("ban-drop-function", "drop function f();", "select 1;"),
    ("ban-drop-type", "drop type e;", "create type e as enum ('a');"),
    ("ban-drop-sequence", "drop sequence s;", "create sequence s;"),
    ("ban-drop-not-null", "alter table t alter column a drop not null;", "select 1;"),
    ("ban-set-schema", "alter table t set schema s;", "create table t (a int); alter table t set schema s;"),
    ("ban-char-field", "create table t (a char(3));", "create table t (a text);"),
    (
        "identifier-too-long",
        "create table a23456789_123456789_123456789_123456789_123456789_123456789_1234 (a int);",
        "create table a23456789_123456789_123456789_123456789_123456789_123456789_12 (a int);",
    ),
];

#[test]
fn every_rule_finds_the_bad_and_leaves_the_good() {
    for (rule, bad, good) in EXAMPLES {
        assert_eq!(rules_in(bad), [*rule], "{bad}");
        assert_eq!(rules_in(good), [""; 0], "{good}");
    }
}

#[test]
fn no_rule_lacks_an_example() {
    // The last one is found by ledgers: tests/it/lint.rs.
    let of_folders = ["duplicate-number", "no-way-back", "edited-after-applied"];
    for rule in RULES {
        let has = EXAMPLES.iter().any(|(name, _, _)| *name == rule.name) || of_folders.contains(&rule.name);
        assert!(has, "{} has no example", rule.name);
    }
}

#[test]
fn the_table_is_sound() {
    let names: BTreeSet<&str> = RULES.iter().map(|it| it.name).collect();
    assert_eq!(names.len(), RULES.len());
    for rule in RULES {
        assert!(rule.name.chars().all(|it| it.is_ascii_lowercase() || it == '-'), "{}", rule.name);
        assert!(rule.help.ends_with('.') && !rule.about.ends_with('.'), "{}", rule.name);
    }
    for rule in rules::of_squawk() {
        let ours: &Rule = rules::by_squawk(rule).unwrap();
        assert_eq!(ours.name, rule.to_string(), "a rule of squawk's keeps its name");
    }
}

#[test]
fn a_way_back_or_a_word_that_there_is_none() {
    let no = [""; 0];
    assert_eq!(found(Style::Sql, &[("1_a.sql", "select 1;")], &[]), ["m/1_a.sql:1:1 no-way-back"]);
    assert_eq!(found(Style::Sql, &[("1_a.sql", "select 1;\n-- migrate:down\nselect 2;")], &[]), no);
    assert_eq!(found(Style::Sql, &[("1_a.sql", "select 1;"), ("1_a.down.sql", "drop table t;")], &[]), no);
    assert_eq!(found(Style::Sql, &[("1_a.sql", "-- migrate:allow no-way-back\nselect 1;")], &[]), no);
    // refinery has no way back to write.
    assert_eq!(found(Style::Refinery, &[("V1__a.sql", "select 1;")], &[]), no);
}

#[test]
fn a_number_that_stands_twice() {
    let sql = "select 1;\n-- migrate:irreversible";
    let twice = [("1_a.sql", sql), ("01_b.sql", sql), ("2_c.sql", sql)];
    assert_eq!(found(Style::Sql, &twice, &[]), ["m/01_b.sql:1:1 duplicate-number", "m/1_a.sql:1:1 duplicate-number"]);
    assert_eq!(found(Style::Sql, &twice, &["duplicate-number"]), [""; 0]);
}

#[test]
fn findings_have_their_place_in_the_order_of_execution() {
    let files = [
        ("10_a.sql", "select 'ü'; drop table t;\n\n  drop view v;\n-- migrate:irreversible"),
        ("9_b.sql", "\u{feff}drop table t;\n-- migrate:irreversible"),
        ("8_c.sql", "select 1;\nselect '"),
        ("c.sql", "select 1;"),
        ("7_d.down.sql", "select 1;"),
    ];
    let expected = [
        "m/9_b.sql:1:1 ban-drop-table",
        "m/10_a.sql:1:13 ban-drop-table",
        "m/10_a.sql:3:3 ban-drop-view",
        "m/7_d.down.sql:1:1 unreadable",
        "m/8_c.sql:2:8 unreadable",
        "m/c.sql:1:1 unreadable",
    ];
    assert_eq!(found(Style::Sql, &files, &[]), expected);
}

#[test]
fn a_refinery_file_may_allow_and_nothing_else() {
    let of = |text| found(Style::Refinery, &[("V1__a.sql", text)], &[]);
    assert_eq!(of("drop table t;"), ["m/V1__a.sql:1:1 ban-drop-table"]);
    assert_eq!(of("-- migrate:allow ban-drop-table\ndrop table t;"), [""; 0]);
    assert_eq!(of("-- migrate:irreversible\nselect 1;"), ["m/V1__a.sql:1:1 unreadable"]);
}

#[test]
fn what_apply_would_refuse_cannot_be_allowed() {
    assert_eq!(rules_in("-- migrate:allow transaction-command\nselect 1;"), ["unknown-rule"]);
    assert_eq!(rules_in("-- migrate:allow\nselect 1;"), ["unknown-rule"]);
    let text = "-- migrate:allow transaction-command\nselect 1;\nrollback;";
    assert_eq!(rules_in(text), ["transaction-command"]);
}

#[test]
fn a_file_that_was_emptied_is_a_warning() {
    let severity = |text: &str| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("1_a.sql"), text).unwrap();
        let folder = Folder { style: Style::Sql, dir: dir.path().into(), shown: Path::new("m").into() };
        look(&folder, None, &Allowed::new()).findings.iter().map(|it| (it.rule, it.severity)).collect::<Vec<_>>()
    };
    let emptied = severity("-- migrate:irreversible\n-- Moved to 2_b.\n");
    assert_eq!(emptied, [("no-statement", Severity::Warning)]);
    assert_eq!(severity("\n"), [("no-statement", Severity::Error)]);
}

#[test]
fn a_type_that_only_widens_is_a_warning() {
    let severity = |set: &str| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("1_a.sql"), format!("alter table t alter column a {set};{WAY_BACK}")).unwrap();
        let folder = Folder { style: Style::Sql, dir: dir.path().into(), shown: Path::new("m").into() };
        look(&folder, None, &Allowed::new()).findings[0].severity
    };
    assert_eq!(severity("type text"), Severity::Warning);
    assert_eq!(severity("set data type character varying"), Severity::Warning);
    assert_eq!(severity("type varchar(10)"), Severity::Error);
    assert_eq!(severity("type text using a::text"), Severity::Error);
    assert_eq!(severity("type bigint"), Severity::Error);
}
