//! Invalid indexes that a migration left are dropped by name, and no others.

use std::process::Child;

use sqlx::PgConnection;

use crate::cut_off::{NO_SNAPSHOT, goes_on, murder};
use crate::harness::execute;
use crate::world::{GATE, TestWorld, finish, until};

const WHICH: &str = "a-schema/001_bare";

/// A table with indexes, one of them somebody else's and invalid, and a file that works on them.
async fn world(hint: &str, text: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["a"]).await;
    world.sql_plan("");
    world.sql("a", "create table t (id int); insert into t values (1), (1); create index \"I x\" on t (id)").await;
    let mut other = world.connect("a").await;
    let failed = sqlx::raw_sql("create unique index concurrently theirs_ccnew on t (id)").execute(&mut other).await;
    assert!(failed.is_err(), "there are duplicates");
    world.file("migrations/a/001_bare.sql", &format!("-- migrate:no-transaction\n{text}"));
    world
}

/// Runs until a statement that begins so waits for an older transaction.
async fn waiting(world: &TestWorld, statement: &str) -> (Child, PgConnection) {
    let mut holder = world.connect("a").await;
    execute(&mut holder, "begin isolation level repeatable read; select * from t").await;
    let victim = world.start(&NO_SNAPSHOT);
    let waits = format!(
        "select exists (select from pg_stat_activity where query like '{statement}%' and wait_event_type = 'Lock' and datname \
         = current_database())"
    );
    until("it waits for the older transaction", async || world.value("a", &waits).await == "true").await;
    (victim, holder)
}

async fn indexes(world: &TestWorld) -> String {
    let all = "select string_agg(indexrelid::regclass || case when indisvalid then '' else ' invalid' end, ', ' order by \
               indexrelid::regclass::text collate \"C\") from pg_index where indrelid = 't'::regclass";
    world.value("a", all).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reindex_left_is_dropped() {
    let world = world("repair_reindex", "reindex index concurrently \"I x\";\n").await;
    let (victim, mut holder) = waiting(&world, "reindex").await;
    // While somebody is at work on it, it is not left.
    world.run(&["repair", "index", WHICH, "--dry-run"]).expect(64).says("left no invalid index");
    murder(&world, victim);
    execute(&mut holder, "rollback").await;
    assert_eq!(indexes(&world).await, "\"I x\", \"I x_ccnew\" invalid, theirs_ccnew invalid");

    let status = world.run(&["status"]);
    let note = "the index public.\"I x_ccnew\", which a-schema/001_bare left, is invalid: `migrate repair index a-schema/001_bare`";
    assert!(status.expect(0).stdout.contains(note), "{}", status.stdout);
    assert_eq!(status.stdout.matches("is invalid").count(), 1, "{}", status.stdout);
    let dry = world.json(0, &["repair", "index", WHICH, "--dry-run"]);
    assert_eq!(dry["would_drop"], serde_json::json!(["public.\"I x_ccnew\""]));
    world.run(&["repair", "index", WHICH]).expect(64).says("no terminal");
    let dropped = world.json(0, &["repair", "index", WHICH, "--yes"]);
    assert_eq!(dropped["dropped"], serde_json::json!(["public.\"I x_ccnew\""]));
    assert_eq!(indexes(&world).await, "\"I x\", theirs_ccnew invalid");
    let shown = world.json(0, &["runs", "show", dropped["run"].as_str().expect("a run")]);
    assert_eq!(shown["entries"][1]["fact"]["event"], "index_dropped");
    world.run(&["repair", "index", WHICH, "--yes"]).expect(64).says("left no invalid index");

    let _ = goes_on(&world, "goes on at statement 1 on line 2");
    world.run(&["repair", "index", WHICH, "--yes"]).expect(64).says("left no invalid index");
    assert_eq!(indexes(&world).await, "\"I x\", theirs_ccnew invalid");
}

/// As any other change, it waits for nobody and comes between nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_at_work_is_not_disturbed() {
    let world = world("repair_locked", "reindex index concurrently \"I x\";\n").await;
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let mut other = world.connect("a").await;
    let failed = sqlx::raw_sql("create unique index concurrently \"I x_ccnew1\" on t (id)").execute(&mut other).await;
    assert!(failed.is_err(), "there are duplicates");
    world.file("migrations/a/002_gate.sql", GATE);
    let mut gate = world.gate("a").await;
    let child = world.start(&["apply", "--yes"]);
    gate.reached().await;
    world.run(&["repair", "index", WHICH, "--yes"]).expect(5).says("the lock is held by run");
    gate.open().await;
    let _ = finish(child).expect(0);
    let dropped = world.run(&["repair", "index", WHICH, "--yes"]);
    assert!(dropped.expect(0).stdout.contains("dropped a: public.\"I x_ccnew1\" (left by a-schema/001_bare)"));
    assert_eq!(indexes(&world).await, "\"I x\", theirs_ccnew invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reindex_of_a_table_left_is_dropped_all_of_it() {
    let world = world("repair_table", "set search_path = pg_catalog;\nreindex (concurrently) table public.t;\n").await;
    let (victim, mut holder) = waiting(&world, "reindex").await;
    murder(&world, victim);
    execute(&mut holder, "rollback").await;
    assert!(indexes(&world).await.contains("\"I x_ccnew\" invalid"));
    let _ = world.run(&["repair", "index", WHICH, "--yes"]).expect(0);
    // An invalid index of that table which is called as what a REINDEX leaves is of no use to anybody.
    assert_eq!(indexes(&world).await, "\"I x\"");
    let _ = goes_on(&world, "goes on at statement 2 on line 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_create_index_left_is_dropped() {
    let world = world("repair_create", "create index concurrently on t (id);\n").await;
    let (victim, mut holder) = waiting(&world, "create index").await;
    let run = murder(&world, victim);
    execute(&mut holder, "rollback").await;
    assert_eq!(indexes(&world).await, "\"I x\", t_id_idx invalid, theirs_ccnew invalid");
    // It names none, and somebody else may have made it: a person decides.
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(6).says("its table has new ones: public.t_id_idx (invalid)").says("--statement 1 --applied");
    world.run(&["resolve", &run, "a-schema/002_other", "--statement", "1", "--applied"]).expect(64);
    world.run(&["repair", "index", "a-schema/002_other", "--yes"]).expect(64).says("the ledger does not have");
    let _ = world.run(&["repair", "index", WHICH, "--yes"]).expect(0);
    assert_eq!(indexes(&world).await, "\"I x\", theirs_ccnew invalid");
    let _ = goes_on(&world, "goes on at statement 1 on line 2");
    assert_eq!(indexes(&world).await, "\"I x\", t_id_idx, theirs_ccnew invalid");
}

/// The server is still at it when the next release comes: its session is ended before anything is decided.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_still_being_built_is_not_taken_for_left() {
    let world = world("repair_busy", "create index concurrently i on t (id);\n").await;
    let (victim, mut holder) = waiting(&world, "create index").await;
    let end = format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where query like 'create index%' and datname = '{}'",
        world.dbname("a")
    );
    assert_eq!(world.ask(&end).await, "1");
    finish(victim).expect(4).says("the connection was lost");
    // Somebody builds another index on the same table meanwhile.
    let mut other = world.connect("a").await;
    let building = tokio::spawn(async move {
        sqlx::raw_sql("create index concurrently another on t (id)").execute(&mut other).await.expect("it can be built")
    });
    let waits = "select exists (select from pg_stat_activity where query like 'create index concurrently another%' and \
                 wait_event_type = 'Lock' and datname = current_database())";
    until("it waits for the older transaction", async || world.value("a", waits).await == "true").await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(6).says("public.i (invalid, with a session at work on its table)");
    execute(&mut holder, "rollback").await;
    building.await.expect("it ends");
    let _ = goes_on(&world, "goes on at statement 1 on line 2, and drops the invalid index public.i first");
    assert_eq!(indexes(&world).await, "\"I x\", another, i, theirs_ccnew invalid");
}
