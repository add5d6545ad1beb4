//! `CREATE INDEX CONCURRENTLY`: what it waits for, and what it leaves.

use crate::harness::execute;
use crate::world::{TestWorld, finish, until};

const INVALID: &str =
    "select string_agg(indexrelid::regclass::text, ' ' order by 1) from pg_index where not indisvalid";

/// `halt`, so that what a failure leaves is there to be looked at.
async fn world(hint: &str, limits: &str, text: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["a"]).await;
    world.plan(
        "[[steps]]\nname = \"a-schema\"\ndatabase = \"a\"\nkind = \"sql\"\ndir = \"migrations/a\"\nlock_timeout = \
         \"300ms\"\n[run]\non_failure = \"halt\"\n",
    );
    world.sql("a", "create table t (id int, v int); insert into t values (1, 1), (1, 2); create table other ()").await;
    world.file("migrations/a/001_idx.sql", &format!("-- migrate:no-transaction\n{limits}{text}"));
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_snapshot_is_named_and_waited_for_beyond_the_lock_timeout() {
    let world = world("cic_old", "", "create index concurrently i on t (id);\n").await;
    let mut holder = world.connect("a").await;
    execute(&mut holder, "set application_name = 'a report'; begin isolation level repeatable read").await;
    execute(&mut holder, "select * from other").await;
    let child = world.start(&["apply", "--yes"]);
    let waits = "select exists (select from pg_stat_activity where query like 'create index concurrently%' and \
                 wait_event_type = 'Lock' and datname = current_database() and query_start < clock_timestamp() - \
                 interval '1 second')";
    until("it has waited longer than for a lock", async || world.value("a", waits).await == "true").await;
    execute(&mut holder, "rollback").await;
    let ran = finish(child);
    ran.expect(0).says("a: 001_idx waits until these transactions have ended");
    ran.says("user release, application a report, idle in transaction, in a transaction for");
    assert_eq!(world.value("a", "select indisvalid from pg_index where indexrelid = 'i'::regclass").await, "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_ends_with_its_budget_and_leaves_nothing() {
    let limits = "-- migrate:statement-timeout 2s\n";
    let world = world("cic_budget", limits, "create index concurrently i on t (id);\n").await;
    let mut holder = world.connect("a").await;
    execute(&mut holder, "begin isolation level repeatable read; select * from other").await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(4).says("SQLSTATE 57014").says("It ran out of time while it waited for other sessions:\n");
    ran.says("The invalid index public.i that it left was dropped.");
    assert_eq!(world.value("a", INVALID).await, "NULL");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_fails_is_dropped_and_no_other() {
    let text = "create unique index concurrently \"I\" on t (id);\n";
    let world = world("cic_unique", "", text).await;
    // Somebody else's, of the same table, invalid for the same reason; and one that is valid.
    let mut other = world.connect("a").await;
    let failed = sqlx::raw_sql("create unique index concurrently theirs on t (id)").execute(&mut other).await;
    assert!(failed.is_err(), "there are duplicates");
    execute(&mut other, "create index good on t (v)").await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(4).says("`001_idx` failed at migrations/a/001_idx.sql:2:1").says("SQLSTATE 23505");
    ran.says("The invalid index public.\"I\" that it left was dropped.");
    assert_eq!(world.value("a", INVALID).await, "theirs");
    assert_eq!(world.value("a", "select to_regclass('good')").await, "good");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_index_is_not_taken_for_done() {
    let text = "create unique index concurrently if not exists theirs on t (id);\n";
    let world = world("cic_exists", "", text).await;
    let mut other = world.connect("a").await;
    let failed = sqlx::raw_sql("create unique index concurrently theirs on t (id)").execute(&mut other).await;
    assert!(failed.is_err(), "there are duplicates");
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(4).says("the index public.theirs of `001_idx` was there already, and it is invalid");
    assert_eq!(world.value("a", INVALID).await, "theirs", "it is not ours to drop");
}
