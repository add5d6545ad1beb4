//! Lock and statement timeouts, and another try where that may help.

use std::io::{BufRead as _, BufReader, Read as _};

use crate::harness::execute;
use crate::world::{TestWorld, assert_same};

async fn world(hint: &str, limits: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["a"]).await;
    world.plan(&format!(
        "[[steps]]\nname = \"a-schema\"\ndatabase = \"a\"\nkind = \"sql\"\ndir = \"migrations/a\"\n{limits}"
    ));
    world.sql("a", "create table busy (id int); insert into busy values (1)").await;
    world.file("migrations/a/001_alter.sql", "create table other (id int);\nalter table busy add v int;\n");
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_released_in_time_is_had_on_another_try() {
    let world = world("lock_retry", "lock_timeout = \"100ms\"\n[run]\nlock_retries = 20\n").await;
    // A reader, as pg_dump is one: it is in the way of the ALTER alone.
    let mut reader = world.connect("a").await;
    execute(&mut reader, "begin; select * from busy").await;
    let mut child = world.start(&["apply", "--yes"]);
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let (mut said, mut line) = (String::new(), String::new());
    while !line.contains("did not get its lock (attempt 1)") {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).expect("text"), 0, "it ended: {said}");
        said += &line;
    }
    assert!(line.starts_with("  a: 001_alter did not get its lock (attempt 1), trying again in "), "{line}");
    execute(&mut reader, "rollback").await;
    stderr.read_to_string(&mut said).expect("text");
    assert_eq!(child.wait().expect("it ran").code(), Some(0), "{said}");
    assert_eq!(world.value("a", "select count(*) from migrate.ledger").await, "1");
    assert_eq!(world.value("a", "select count(v) from busy").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_never_had_fails_and_changes_nothing() {
    let world = world("lock_never", "lock_timeout = \"50ms\"\n[run]\nlock_retries = 2\n").await;
    let before = world.fingerprints().await;
    let mut reader = world.connect("a").await;
    execute(&mut reader, "begin; select * from busy").await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(1).says("(attempt 1)").says("(attempt 2)").says("SQLSTATE 55P03").ends("No database was changed.");
    ran.says("`001_alter` failed at migrations/a/001_alter.sql:2:1").says("lock_timeout");
    assert!(!ran.stderr.contains("(attempt 3)"), "two retries are three tries: {}", ran.stderr);
    execute(&mut reader, "rollback").await;
    assert_same(&before, &world.fingerprints().await);
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
