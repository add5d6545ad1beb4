//! `COPY … FROM stdin` with its data in the file.

use crate::harness::execute;
use crate::world::{TestWorld, assert_same, finish, sql_step, until};

async fn world(hint: &str, text: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["a"]).await;
    world.sql_plan("");
    world.file("migrations/a/001_rows.sql", text);
    world
}

const ROWS: &str = "create table t (id int primary key, v text);\n\
    copy t (id, v) from stdin;\n1\tit's; -- no comment\n2\t\\N\n3\ta\\tb \\\\. \u{fc}\n\\.\n\
    update t set v = v || '!' where id = 1;\n\
    COPY t FROM STDIN WITH (FORMAT csv, HEADER); -- two more\nid,v\n4,\"two\nlines; \"\"\"\n5,\n\\.\n";

#[tokio::test(flavor = "multi_thread")]
async fn data_in_a_file_arrives_with_the_ledger_row() {
    let world = world("stdin_tx", ROWS).await;
    let before = world.fingerprints().await;
    let _ = world.run(&["lint"]).expect(0);
    let plan = world.json(0, &["plan"]);
    assert_eq!(plan["steps"][0]["pending"][0]["hazards"], serde_json::json!([]), "data is no SQL: {plan}");
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let rows = "select string_agg(id || coalesce('=' || v, ''), '|' order by id) from t";
    let all = "1=it's; -- no comment!|2|3=a\tb \\. \u{fc}|4=two\nlines; \"|5";
    assert_eq!(world.value("a", rows).await, all);
    let same = "select count(distinct x) from (select xmin::text as x from t where id > 1 union all select xmin::text from \
                migrate.ledger) x";
    assert_eq!(world.value("a", same).await, "1", "one transaction wrote all");
    assert_eq!(world.value("a", "select up_sql from migrate.ledger").await, ROWS);
    let _ = world.run(&["rollback", "--yes"]).expect(0);
    assert_same(&before, &world.fingerprints().await);
    // The same file from a checkout with other line ends is the same migration.
    world.file("migrations/a/001_rows.sql", &ROWS.replace('\n', "\r\n"));
    let _ = world.run(&["apply", "--yes"]).expect(0);
    assert_eq!(world.value("a", rows).await, all.replace("two\nlines", "two\r\nlines"));
    world.file("migrations/a/001_rows.sql", ROWS);
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_in_a_file_without_a_transaction() {
    let world = world("stdin_bare", &format!("-- migrate:no-transaction\n{ROWS}vacuum t;\n")).await;
    let _ = world.run(&["apply", "--yes"]).expect(0);
    assert_eq!(world.value("a", "select count(*) from t").await, "5");
    assert_eq!(world.value("a", "select state || progress from migrate.ledger").await, "applied5");
}

/// A file that says how its bytes are to be read means bytes that are UTF-8 here.
#[tokio::test(flavor = "multi_thread")]
async fn data_is_read_as_what_it_is() {
    let text = "create table t (v text);\nset client_encoding = 'LATIN1';\ncopy t from stdin;\n\u{fc}\n\\.\ninsert into t \
                values ('\u{fc}');\n";
    let world = world("stdin_encoding", text).await;
    let _ = world.run(&["apply", "--yes"]).expect(0);
    assert_eq!(world.value("a", "select string_agg(v, '' order by v) from t").await, "\u{fc}\u{fc}");
    assert_eq!(world.value("a", "select up_sql from migrate.ledger").await, text);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_names_its_line_in_the_file() {
    let data = |rows: &str| {
        format!("create table t (id int primary key);\ncopy t from stdin;\n{rows}\\.\ninsert into t values (1);\n")
    };
    let world = world("stdin_error", "select 1;\n").await;
    let before = world.fingerprints().await;
    for (text, place) in [
        (data("2\nnot a number\n3\n"), "4:1"),
        (data("2\n3\n4\n3\n"), "6:1"),
        (data("2\n3\textra\n"), "4:1"),
        // The statements around the data.
        (data("2\n1\n"), "6:1"),
        (format!("{}select 1/0;\n", data("2\n")), "6:1"),
        ("copy nowhere from stdin;\n1\n\\.\n".to_owned(), "1:1"),
        (format!("{}copy t (id, no_column) from stdin;\n1\n\\.\n", data("2\n")), "6:1"),
        (data("2\n").replace("values (1)", "valu\u{eb}s (1)"), "5:15"),
    ] {
        world.file("migrations/a/001_rows.sql", &text);
        let ran = world.run(&["apply", "--yes"]);
        ran.expect(1).says(&format!("`001_rows` failed at migrations/a/001_rows.sql:{place}"));
        ran.ends("No database was changed.");
        assert_same(&before, &world.fingerprints().await);
    }
    // As of a file without a transaction.
    world.sql_plan("[run]\non_failure = \"halt\"\n");
    world.file("migrations/a/001_rows.sql", &format!("-- migrate:no-transaction\n{}", data("2\nx\n")));
    world.run(&["apply", "--yes"]).expect(4).says("001_rows.sql:5:1").says("4 \u{2502} 2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_file_can_carry_is_refused_by_name() {
    let world = world("stdin_refused", "select 1;\ncopy pg_class to stdout;\n").await;
    world.run(&["plan"]).expect(64).says("001_rows.sql:2:1: COPY TO stdout in a migration");
    world.file("migrations/a/001_rows.sql", "copy t from stdin (format binary);\nx\n\\.\n");
    world.run(&["plan"]).expect(64).says("001_rows.sql:1:1: the data of a binary COPY");
    world.file("migrations/a/001_rows.sql", "copy t from stdin;\nx\n");
    world.run(&["plan"]).expect(64).says("001_rows.sql:1:1: the data of this COPY does not end");
    assert_eq!(world.run(&["lint"]).expect(7).stdout.matches("error[unreadable]").count(), 1);
}

/// More data than any buffer on the way holds, and a lock that is had on another try: all of it is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn the_whole_is_tried_again() {
    let rows: String = (1..=200_000).map(|n| format!("{n}\trow {n}\n")).collect();
    let text =
        format!("create table t (id int, v text);\ncopy t from stdin;\n{rows}\\.\nalter table busy add v int;\n");
    let world = world("stdin_retry", &text).await;
    world.plan(&format!("{}[run]\nlock_retries = 20\n", sql_step("a").replace("60s", "400ms")));
    world.sql("a", "create table busy (id int); insert into busy values (1)").await;
    let mut reader = world.connect("a").await;
    execute(&mut reader, "set application_name = 'a reader'; begin; select * from busy").await;
    let child = world.start(&["apply", "--yes"]);
    let waits = "select exists (select from pg_locks where not granted and relation = 'busy'::regclass)";
    until("it waits for the lock", async || world.value("a", waits).await == "true").await;
    until("it has given up once", async || world.value("a", waits).await == "false").await;
    execute(&mut reader, "rollback").await;
    let ran = finish(child);
    ran.expect(0).says("001_rows did not get its lock (attempt 1)").says("application a reader");
    assert_eq!(world.value("a", "select count(*) || ' ' || max(id) from t").await, "200000 200000");
}
