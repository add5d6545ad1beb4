//! What texts are cut into, and what is no text that can be cut.

use proptest::prelude::*;

use super::*;
use StatementKind as Kind;

fn texts(text: &str) -> Vec<&str> {
    split(text).unwrap_or_else(|error| panic!("{text}: {error}")).iter().map(|it| &text[it.start..it.end]).collect()
}

/// A text and its statements.
#[track_caller]
fn check(text: &str, statements: &[&str]) {
    assert_eq!(texts(text), statements, "{text}");
}

#[track_caller]
fn check_kind(text: &str, kind: Kind) {
    let found: Vec<_> = split(text).unwrap().iter().map(|statement| statement.kind).collect();
    assert_eq!(found, [kind], "{text}");
}

#[track_caller]
fn check_error(text: &str, line: usize, part: &str) {
    let error = split(text).expect_err(text);
    assert_eq!(error.line, line, "{text}");
    assert!(error.problem.to_string().contains(part), "{text}: {error}");
    assert!(error.start <= error.end && text.get(error.start..error.end).is_some(), "{text}: {error:?}");
}

#[test]
fn semicolons_end_statements() {
    check("", &[]);
    check("  \n\t ", &[]);
    check(";;;", &[]);
    check("select 1", &["select 1"]);
    check("select 1;", &["select 1"]);
    check("select 1;;select 2", &["select 1", "select 2"]);
    check(" select 1 ; \n select 2 ; ", &["select 1", "select 2"]);
    check("\u{feff}select 1;", &["select 1"]);
    check("\u{feff};", &[]);
    check("select\r\n1;\r\nselect 2;\r\n", &["select\r\n1", "select 2"]);
}

#[test]
fn comments_end_nothing() {
    check("-- only; a comment", &[]);
    check("/* only; a comment */", &[]);
    check("-- a;\nselect 1 -- b;\n;", &["select 1"]);
    check("select /* ; */ 1; /* ; */", &["select /* ; */ 1"]);
    check("/* a /* nested; */ still; */ select 1;", &["select 1"]);
    check("/* it's */ select 1; -- it's\nselect 2", &["select 1", "select 2"]);
    check("select 1 --\r;select 2", &["select 1", "select 2"]);
    check("select 1 -- /*\n; select 2 -- */", &["select 1", "select 2"]);
    check("select 1 /* -- */; select 2", &["select 1", "select 2"]);
    check("select 4*/* ; */2; select 1", &["select 4*/* ; */2", "select 1"]);
    check("select 1 +-- ;\n 2; select 3", &["select 1 +-- ;\n 2", "select 3"]);
    check("/***/select 1;/**/select 2", &["select 1", "select 2"]);
}

#[test]
fn strings_end_nothing() {
    check("select ';'; select 2", &["select ';'", "select 2"]);
    check("select 'it''s; '; select 2", &["select 'it''s; '", "select 2"]);
    check("select ''''; select ';'", &["select ''''", "select ';'"]);
    check(r"select '\'; select 2", &[r"select '\'", "select 2"]);
    check("select '--'; select '/*'; select '*/'", &["select '--'", "select '/*'", "select '*/'"]);
    check("select '$$;'; select '$$'", &["select '$$;'", "select '$$'"]);
    check("select 'a'\n'b;'; select 2", &["select 'a'\n'b;'", "select 2"]);
    check(r"select E'\';'; select 2", &[r"select E'\';'", "select 2"]);
    check(r"select e'\\'; select 2", &[r"select e'\\'", "select 2"]);
    check(r"select E'a''b\';c'; select 2", &[r"select E'a''b\';c'", "select 2"]);
    check("select E'a'\n'\\';'; select 2", &["select E'a'\n'\\';'", "select 2"]);
    check("select E'a' -- ;\n'\\';'; select 2", &["select E'a' -- ;\n'\\';'", "select 2"]);
    check(r"select U&'\0441;' UESCAPE '!'; select 2", &[r"select U&'\0441;' UESCAPE '!'", "select 2"]);
    check(r"select U&'\'; select 2", &[r"select U&'\'", "select 2"]);
    check("select B'1', X'1F', N';'; select 2", &["select B'1', X'1F', N';'", "select 2"]);
    check(r"select date'\'; select 2", &[r"select date'\'", "select 2"]);
    check("select 'a\0b;'", &["select 'a\0b;'"]);
}

#[test]
fn names_end_nothing() {
    check(r#"select ";"; select 2"#, &[r#"select ";""#, "select 2"]);
    check(r#"select "a"";b"; select 2"#, &[r#"select "a"";b""#, "select 2"]);
    check(r#"select U&"\0041;"; select 2"#, &[r#"select U&"\0041;""#, "select 2"]);
    check(r#"select "it's"; select "--""#, &[r#"select "it's""#, r#"select "--""#]);
}

#[test]
fn dollar_quotes_end_nothing() {
    check("select $$;$$; select 2", &["select $$;$$", "select 2"]);
    check("select $a$;$b$;$$;$a$; select 2", &["select $a$;$b$;$$;$a$", "select 2"]);
    check("select $a$ $a $aa$ ; $a$; select 2", &["select $a$ $a $aa$ ; $a$", "select 2"]);
    check("select a$$; select b$$", &["select a$$", "select b$$"]);
    check("select a$b$; select c$b$", &["select a$b$", "select c$b$"]);
    check("select $1; select $2", &["select $1", "select $2"]);
    check("select $1$$;$$; select 2", &["select $1$$;$$", "select 2"]);
    check("select $_ü1$ ; $_ü1$; select 2", &["select $_ü1$ ; $_ü1$", "select 2"]);
    check("select $x; select 2", &["select $x", "select 2"]);
    check("select $a$ ; $A$ ; $a$; select 2", &["select $a$ ; $A$ ; $a$", "select 2"]);
    check("do $$ begin x := 'it''s'; end $$; select 2", &["do $$ begin x := 'it''s'; end $$", "select 2"]);
    check("do $a$ begin execute $$ ; $$; end; $a$;select 2", &["do $a$ begin execute $$ ; $$; end; $a$", "select 2"]);
    check(
        "create function f() returns text as $body$ select $q$;$q$; $body$ language sql; select 2",
        &["create function f() returns text as $body$ select $q$;$q$; $body$ language sql", "select 2"],
    );
}

#[test]
fn parentheses_end_nothing() {
    let rule = "create rule r as on insert to t do also (insert into a values (1); insert into b values (2))";
    check(&format!("{rule}; select 2"), &[rule, "select 2"]);
    check(
        "create rule r as on delete to t do instead (delete from a; delete from b;); select 2",
        &["create rule r as on delete to t do instead (delete from a; delete from b;)", "select 2"],
    );
    check("select ')'; select (1)", &["select ')'", "select (1)"]);
    check("select (')'); select (1)", &["select (')')", "select (1)"]);
    check("select 1); select 2", &["select 1)", "select 2"]);
    check("select (1; select 2", &["select (1; select 2"]);
    check("select a[1;2]; select 2", &["select a[1", "2]", "select 2"]);
}

#[test]
fn sql_bodies_end_nothing() {
    let bodies = [
        "create function f() returns int begin atomic select 1; select 2; end",
        "create or replace function f(a int) returns int language sql begin atomic; select 1; end",
        "CREATE PROCEDURE p() BEGIN ATOMIC INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); END",
        "create function f() returns int begin atomic end",
        "create function f() returns int begin atomic select case when true then 1 else 2 end; end",
        "create function f() returns int begin atomic select (case when a then case b when 1 then 2 end end); end",
        "create function f() returns int begin atomic select 1 as end; select t.end from t; end",
        "create function f() returns int begin atomic select 1 end; end",
        "create function f(begin int, atomic int) returns int begin atomic select ';'; end",
        "create function f() returns int begin /* ; */ atomic -- ;\n select 1; end",
    ];
    for body in bodies {
        check(&format!("{body}; select 2"), &[body, "select 2"]);
    }
    check(
        "create function begin() returns int return 1; select 2",
        &["create function begin() returns int return 1", "select 2"],
    );
    check("begin; select 1; end; select 2", &["begin", "select 1", "end", "select 2"]);
    check("create table atomic (a int); select 2", &["create table atomic (a int)", "select 2"]);
    check(
        "create function \"begin\"() returns begin language sql as ''; select 2",
        &["create function \"begin\"() returns begin language sql as ''", "select 2"],
    );
}

#[test]
fn statements_of_all_sorts() {
    check(
        "create schema s create table a (b int) create view v as select 1; select 2",
        &["create schema s create table a (b int) create view v as select 1", "select 2"],
    );
    check("select a->>'x;y', b @> '{}' , c ? ';' ; select 2", &["select a->>'x;y', b @> '{}' , c ? ';'", "select 2"]);
    check(
        "select 1::int, a[1:2], 1.5e-3, .5, 0x1F; select 2",
        &["select 1::int, a[1:2], 1.5e-3, .5, 0x1F", "select 2"],
    );
    check("select 'größe'; -- ü\nselect 'ß';", &["select 'größe'", "select 'ß'"]);
    check("prepare p as select $1; execute p('; ')", &["prepare p as select $1", "execute p('; ')"]);
}

#[test]
fn data_of_a_copy_is_no_sql() {
    let text = "copy t (a, b) from stdin;\n1\tit's; \\N\n-- $$\n\\.\nselect 2;";
    check(text, &["copy t (a, b) from stdin", "select 2"]);
    let Kind::CopyFromStdin { data_start, data_end } = split(text).unwrap()[0].kind else { panic!("{text}") };
    assert_eq!(&text[data_start..data_end], "1\tit's; \\N\n-- $$\n");
    check(
        "COPY t FROM STDIN WITH (FORMAT csv); -- data\r\n1\r\n\\.\r\nselect 2",
        &["COPY t FROM STDIN WITH (FORMAT csv)", "select 2"],
    );
    check("copy t from stdin;\n\\.", &["copy t from stdin"]);
    check(
        "copy t from 'stdin'; copy stdin to stdout; copy (select 1 from stdin) to '/x'",
        &["copy t from 'stdin'", "copy stdin to stdout", "copy (select 1 from stdin) to '/x'"],
    );
    check_error("select 1;\ncopy t from stdin;\n1\n", 2, "does not end");
    check_error("copy t from stdin", 1, "does not end");
    check_error("copy t from stdin; select 1;\n1\n\\.\n", 1, "more on the line");
    for binary in [
        "copy binary t from stdin;",
        "copy t from stdin with binary;",
        "copy t (a) from stdin (format binary);",
        "copy t from stdin with (freeze, FORMAT 'binary');",
    ] {
        check_error(&format!("select 1;\n{binary}\n1\n\\.\n"), 2, "binary");
    }
    check("copy t (binary) from stdin (format csv);\n1\n\\.\n", &["copy t (binary) from stdin (format csv)"]);
    check_kind("copy t to stdout", Kind::CopyToStdout);
    check_kind("copy (select 1) to stdin with (format csv)", Kind::CopyToStdout);
    check_kind("copy t to '/tmp/stdout'", Kind::Other);
}

#[test]
fn data_can_be_left_out_of_a_text() {
    let text = "copy t from stdin;\r\nü'\t;\r\n\\.\r\nselect 'a';\ncopy t from stdin;\n\\.\n";
    let blanked = "copy t from stdin;\r\n     \r\n  \r\nselect 'a';\ncopy t from stdin;\n  \n";
    assert_eq!(without_data(text), blanked);
    assert_eq!(without_data("select $$"), "select $$");
    assert!(matches!(without_data("select 1"), Cow::Borrowed(_)));
}

#[test]
fn what_is_never_closed_is_an_error_with_its_line() {
    check_error("select 1;\n\nselect 'a;\n", 3, "string is never closed");
    check_error(r"select E'a\';", 1, "string is never closed");
    check_error("select 1,\nE'a'\n'b\\'", 2, "string is never closed");
    check_error("select U&'a", 1, "string is never closed");
    check_error("select \"a", 1, "quoted name is never closed");
    check_error("select 1;\n/* a /* b */", 2, "comment is never closed");
    check_error("select\n$a$ ; $b$", 2, "dollar-quoted string is never closed");
}

#[test]
fn commands_of_psql_are_errors_with_their_line() {
    check_error("select 1;\n\\connect other\n", 2, r"`\connect` is a command of psql");
    check_error("\\restrict abc\nselect 1;", 1, r"`\restrict`");
    check_error(r"\i other.sql", 1, r"`\i`");
    check_error("select 1;\n  \\copy t from 'a;b'", 2, r"`\copy`");
    check_error(r"select 1 \gset", 1, r"`\gset`");
    check_error("select 1;\n\\.\n", 2, r"`\.`");
    check(
        "select '\n\\connect x'; select $$\n\\i x\n$$ -- \\i\n/*\n\\i */",
        &["select '\n\\connect x'", "select $$\n\\i x\n$$"],
    );
}

#[test]
fn strings_must_keep_their_meaning() {
    check_error("select 1;\nset standard_conforming_strings = off;", 2, "must stay on");
    check_error("SET LOCAL standard_conforming_strings TO 'off'", 1, "must stay on");
    check(
        "set standard_conforming_strings = on; set session standard_conforming_strings to 'ON'",
        &["set standard_conforming_strings = on", "set session standard_conforming_strings to 'ON'"],
    );
    check("select 'set standard_conforming_strings = off'", &["select 'set standard_conforming_strings = off'"]);
}

#[test]
fn transaction_commands_are_told_by_their_words() {
    for plain in ["begin", "BEGIN WORK", "begin /* x */ transaction", "start transaction"] {
        check_kind(plain, Kind::Begin { plain: true });
    }
    for special in ["begin isolation level serializable", "start transaction read only", "begin work deferrable"] {
        check_kind(special, Kind::Begin { plain: false });
    }
    for plain in ["commit", "COMMIT WORK", "end", "end transaction", "commit and no chain"] {
        check_kind(plain, Kind::Commit { plain: true });
    }
    check_kind("commit and chain", Kind::Commit { plain: false });
    check_kind("rollback", Kind::Rollback);
    check_kind("abort work", Kind::Rollback);
    check_kind("rollback and chain", Kind::Rollback);
    check_kind("rollback to a", Kind::RollbackTo);
    check_kind("rollback work to savepoint a", Kind::RollbackTo);
    check_kind("savepoint a", Kind::Savepoint);
    check_kind("release a", Kind::Release);
    check_kind("prepare transaction 'x'", Kind::PrepareTransaction);
    check_kind("commit prepared 'x'", Kind::CommitPrepared);
    check_kind("rollback prepared 'x'", Kind::RollbackPrepared);
    check_kind("prepare transaction as select 1", Kind::Other);
    check_kind("\"begin\"", Kind::Other);
    check_kind("select 'begin' -- commit", Kind::Other);
    check_kind("do $$ begin commit; end $$", Kind::Other);
    check_kind("set transaction isolation level serializable", Kind::Other);
}

#[test]
fn statements_that_cannot_run_in_a_transaction() {
    for text in [
        "create index concurrently i on t (a)",
        "CREATE UNIQUE /* x */ INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)",
        "create index concurrently on t (a)",
        "drop index concurrently if exists i",
        "reindex index concurrently i",
        "reindex (concurrently) table t",
        "reindex (verbose, concurrently true) index i",
        "reindex (verbose) table concurrently t",
        "reindex database d",
        "vacuum",
        "vacuum (analyze) t",
        "create database d",
        "drop database if exists d",
        "alter system set work_mem = '1GB'",
        "create tablespace s location '/x'",
        "drop tablespace s",
        "alter database d set tablespace s",
        "alter database d with tablespace s",
        "alter database d tablespace s",
        "alter table t detach partition p concurrently",
        "alter table only \"t\" detach partition p concurrently",
        "cluster",
        "cluster verbose",
        "discard all",
        "create subscription s connection 'x' publication p",
    ] {
        let kind = split(text).unwrap()[0].kind;
        assert!(matches!(kind, Kind::CannotRunInTransaction(_)), "{text}: {kind:?}");
    }
}

#[test]
fn statements_that_only_look_like_it() {
    for text in [
        "create index i on t (a) where b = 'concurrently'",
        "create index i on t (a) -- concurrently",
        "create index \"concurrently\" on t (a)",
        "refresh materialized view concurrently v",
        "alter type e add value 'x'",
        "reindex table t",
        "reindex (concurrently false) table t",
        "reindex (concurrently, concurrently off) table t",
        "reindex (verbose concurrently) table t",
        "cluster t using i",
        "alter table t detach partition p",
        "alter table t add column concurrently int",
        "discard temp",
        "alter database d set work_mem = '1GB'",
        "create subscription s connection 'x' publication p with (create_slot = false, slot_name = none)",
        "select vacuum from t",
        "comment on table t is 'vacuum; create database'",
        "analyze t",
    ] {
        check_kind(text, Kind::Other);
    }
}

/// One statement without an open end.
fn statement() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        "[a-z_ü][a-z0-9_$ü]{0,6}",
        "[0-9]{1,4}",
        "[ -~ü\n]{0,8}".prop_map(|text| crate::sql::quote::literal(&text)),
        "[ -~\n]{1,8}".prop_map(|text| crate::sql::quote::identifier(&text)),
        "[ -#%-~\n]{0,8}".prop_map(|text| format!("$q$ {text} $q$")),
        "[ -)+-.0-~]{0,8}".prop_map(|text| format!("/* {text} */")),
        "[ -~]{0,8}".prop_map(|text| format!("-- {text}\n")),
        "[a-z;, ]{0,8}".prop_map(|text| format!("({text})")),
        Just("= ".to_owned()),
    ];
    prop::collection::vec(token, 0..6).prop_map(|tokens| format!("select {} x", tokens.join(" ")))
}

/// Pieces that open, close and hide things.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "'",
        "E'",
        "\\",
        "$$",
        "$a$",
        "/*",
        "*/",
        "--",
        "\n",
        ";",
        "(",
        ")",
        "\"",
        " ",
        "begin ",
        "atomic ",
        "end ",
        "create function ",
        "copy t from stdin;\n",
        "\n\\.\n",
        "ü",
        "\u{feff}",
        "\r",
        "x",
        "\0",
    ]);
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = split(&text);
    }

    #[test]
    fn ranges_lie_in_the_text_and_in_order(text in pieces()) {
        let Ok(statements) = split(&text) else { return Ok(()) };
        let mut end = 0;
        for statement in statements {
            prop_assert!(end <= statement.start && statement.start < statement.end);
            prop_assert!(text.get(statement.start..statement.end).is_some());
            end = statement.end;
        }
    }

    #[test]
    fn statements_come_back(statements in prop::collection::vec(statement(), 0..5)) {
        let text = statements.join(";");
        prop_assert_eq!(texts(&text), statements.iter().map(String::as_str).collect::<Vec<_>>());
        let again = texts(&text).join(";\n");
        prop_assert_eq!(texts(&again), texts(&text));
    }
}
