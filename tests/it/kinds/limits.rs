//! Lock and statement timeouts, and another try where that may help.

use std::io::{BufRead as _, BufReader, Read as _};

use sqlx::PgConnection;

use crate::harness::execute;
use crate::world::{TestWorld, assert_same, finish, until};

/// As many further tries as it takes, or two.
const UNTIL_IT_IS_HAD: &str = "[run]\nlock_retries = 20\n";
const TWO_MORE: &str = "[run]\nlock_retries = 2\n";

async fn world(hint: &str, limits: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["a"]).await;
    world.plan(&format!(
        "[[steps]]\nname = \"a-schema\"\ndatabase = \"a\"\nkind = \"sql\"\ndir = \"migrations/a\"\n{limits}"
    ));
    world.sql("a", "create table busy (id int); insert into busy values (1)").await;
    world.file("migrations/a/001_alter.sql", "create table other (id int);\nalter table busy add v int;\n");
    world
}

async fn pid(session: &mut PgConnection) -> i32 {
    sqlx::query_scalar("select pg_backend_pid()").fetch_one(session).await.expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_released_in_time_is_had_on_another_try() {
    let world = world("lock_retry", &format!("lock_timeout = \"400ms\"\n{UNTIL_IT_IS_HAD}")).await;
    // A reader, as pg_dump is one: it is in the way of the ALTER alone.
    let mut reader = world.connect("a").await;
    let pid = pid(&mut reader).await;
    execute(&mut reader, "set application_name = 'a reader'; begin").await;
    execute(&mut reader, "select *\n from busy").await;
    let mut child = world.start(&["apply", "--yes"]);
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let (mut said, mut line) = (String::new(), String::new());
    while !line.contains("did not get its lock (attempt 1)") {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).expect("text"), 0, "it ended: {said}");
        said += &line;
    }
    assert!(line.starts_with("  a: 001_alter did not get its lock (attempt 1), trying again in "), "{line}");
    line.clear();
    stderr.read_line(&mut line).expect("text");
    let blocker = format!("    in the way: pid {pid}, user release, application a reader, idle in transaction, in a ");
    assert!(line.starts_with(&blocker) && line.ends_with("s: select * from busy\n"), "{line}");
    // Only one session of ours looks on.
    let sessions = "select count(*) from pg_stat_activity where application_name like 'migrate %' and datname = \
                    current_database()";
    assert_eq!(world.value("a", sessions).await, "2");
    execute(&mut reader, "rollback").await;
    stderr.read_to_string(&mut said).expect("text");
    assert_eq!(child.wait().expect("it ran").code(), Some(0), "{said}");
    assert_eq!(world.value("a", "select count(*) from migrate.ledger").await, "1");
    assert_eq!(world.value("a", "select count(v) from busy").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_never_had_fails_and_changes_nothing() {
    let world = world("lock_never", &format!("lock_timeout = \"300ms\"\n{TWO_MORE}")).await;
    let before = world.fingerprints().await;
    let mut reader = world.connect("a").await;
    execute(&mut reader, "begin; select * from busy").await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(1).says("(attempt 1)").says("(attempt 2)").says("SQLSTATE 55P03").ends("No database was changed.");
    ran.says("`001_alter` failed at migrations/a/001_alter.sql:2:1").says("`-- migrate:lock-timeout`");
    let pid = pid(&mut reader).await;
    ran.says(&format!(
        "help: Other sessions were in the way on every try. On the last:\n           pid {pid}, user release"
    ));
    assert!(!ran.stderr.contains("(attempt 3)"), "two retries are three tries: {}", ran.stderr);
    execute(&mut reader, "rollback").await;
    assert_same(&before, &world.fingerprints().await);
}

/// Without a transaction it is the statement alone that is tried again.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_without_a_transaction_is_tried_again() {
    let world = world("lock_bare", &format!("lock_timeout = \"300ms\"\n{UNTIL_IT_IS_HAD}")).await;
    let text = "-- migrate:no-transaction\ncreate table other (id int);\nalter table busy add v int;\nvacuum busy;\n";
    world.file("migrations/a/001_alter.sql", text);
    let mut reader = world.connect("a").await;
    execute(&mut reader, "set application_name = 'a reader'; begin; select * from busy").await;
    let child = world.start(&["apply", "--yes"]);
    let waits = "select exists (select from pg_locks where not granted and relation = 'busy'::regclass)";
    until("it waits for the lock", async || world.value("a", waits).await == "true").await;
    until("it has given up once", async || world.value("a", waits).await == "false").await;
    execute(&mut reader, "rollback").await;
    let ran = finish(child);
    ran.expect(0).says("001_alter did not get its lock (attempt 1)").says("user release, application a reader");
    assert_eq!(world.value("a", "select progress || state from migrate.ledger").await, "3applied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_never_had_without_a_transaction_fails_by_name() {
    let world = world("lock_bare_never", &format!("lock_timeout = \"300ms\"\n{TWO_MORE}on_failure = \"halt\"\n")).await;
    world.file("migrations/a/001_alter.sql", "-- migrate:no-transaction\nselect 1;\nalter table busy add v int;\n");
    let mut reader = world.connect("a").await;
    execute(&mut reader, "begin; select * from busy").await;
    let pid = pid(&mut reader).await;
    let ran = world.run(&["apply", "--yes", "--no-snapshot", "--reason", "a test"]);
    ran.expect(4)
        .says("(attempt 2)")
        .says("001_alter.sql:3:1")
        .says("SQLSTATE 55P03")
        .says(&format!("\n           pid {pid}, user"));
    assert!(!ran.stderr.contains("(attempt 3)"), "two retries are three tries: {}", ran.stderr);
    // The lock is free, and the file goes on with that statement.
    execute(&mut reader, "rollback").await;
    world.run(&["apply", "--yes"]).expect(0).says("goes on at statement 2 on line 3");
}

/// As with any procedure, nobody knows what it has committed before it missed its lock.
#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_committed_is_not_tried_again() {
    let world = world("lock_do", &format!("lock_timeout = \"300ms\"\n{TWO_MORE}on_failure = \"halt\"\n")).await;
    let text = "-- migrate:no-transaction\ncreate table other (id int);\ndo $$ begin insert into other values (1); commit; \
                lock table busy; end $$;\n";
    world.file("migrations/a/001_alter.sql", text);
    let mut reader = world.connect("a").await;
    execute(&mut reader, "begin; select * from busy").await;
    let ran = world.run(&["apply", "--yes", "--no-snapshot", "--reason", "a test"]);
    ran.expect(4).says("SQLSTATE 55P03").says("001_alter.sql:3:1");
    assert!(!ran.stderr.contains("attempt"), "{}", ran.stderr);
    assert_eq!(world.value("a", "select count(*) from other").await, "1");
    world.run(&["apply", "--yes"]).expect(6).says("--statement 2 --applied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_runs_too_long_is_ended() {
    let world = world("statement_timeout", "statement_timeout = \"100ms\"\n").await;
    world.file("migrations/a/002_slow.sql", "select 1;\nselect pg_sleep(60);\n");
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(3).says("migrations/a/002_slow.sql:2:1").says("SQLSTATE 57014");
    assert!(!ran.stderr.contains("attempt"), "another try would not help: {}", ran.stderr);
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_without_a_transaction_too() {
    let world = world("statement_timeout_bare", "statement_timeout = \"100ms\"\n").await;
    world.remove("migrations/a/001_alter.sql");
    world.file("migrations/a/002_slow.sql", "-- migrate:no-transaction\nselect pg_sleep(60);\n");
    let before = world.fingerprints().await;
    world.run(&["apply", "--yes"]).expect(3).says("SQLSTATE 57014");
    assert_same(&before, &world.fingerprints().await);
}

/// What a file says goes before its step, and that before the run.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_limits_of_its_own() {
    let world = world("limits_file", "statement_timeout = \"7s\"\n[run]\nlock_timeout = \"9s\"\n").await;
    world.sql("a", "create table seen (what text)").await;
    let look =
        "insert into seen select current_setting('lock_timeout') || ' ' || current_setting('statement_timeout');\n";
    world.file("migrations/a/001_alter.sql", look);
    let own = format!("-- migrate:lock-timeout 2s\n-- migrate:statement-timeout 5m\n{look}");
    world.file("migrations/a/002_own.sql", &own);
    world.file("migrations/a/003_bare.sql", &format!("-- migrate:no-transaction\n{own}"));
    world.file("migrations/a/004_none.sql", &format!("-- migrate:statement-timeout 0\n{look}"));
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let seen = world.value("a", "select string_agg(what, ', ') from seen").await;
    assert_eq!(seen, "9s 7s, 2s 5min, 2s 5min, 9s 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_wait_is_without_an_end() {
    let world = world("limits_none", "lock_timeout = \"0\"\n").await;
    world.run(&["plan"]).expect(64).says("`0` would wait for ever").says("plans/production.toml:14");
    world.sql_plan("");
    world.file("migrations/a/002_own.sql", "select 1;\n-- migrate:lock-timeout 0\n");
    let ran = world.run(&["plan"]);
    ran.expect(64).says("migrations/a/002_own.sql:2:1: `migrate:lock-timeout 0` would wait for ever");
}
