//! Files without a transaction that were cut off: what has run stays, and the next release goes on where it stopped. Each
//! time something real is in the way: `migrate` is killed at that very moment, or its session is ended.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::execute;
use crate::world::{GATE, Ran, TestWorld, assert_same, finish, until};

pub(crate) const NO_SNAPSHOT: [&str; 5] = ["apply", "--yes", "--no-snapshot", "--reason", "a test"];
const FILE: &str = "migrations/a/001_bare.sql";

async fn world(hint: &str, text: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["a"]).await;
    world.sql_plan("");
    world.sql("a", "create table t (id int, v int); insert into t values (1, 1), (2, 2)").await;
    world.file(FILE, &bare(text));
    world
}

fn bare(text: &str) -> String {
    format!("-- migrate:no-transaction\n{text}")
}

/// Kills it, and closes its run as a person would who has no snapshot to go back to.
pub(crate) fn murder(world: &TestWorld, mut victim: std::process::Child) -> String {
    kill(Pid::from_raw(victim.id().try_into().expect("a process id")), Signal::SIGKILL).expect("our child");
    victim.wait().expect("our child");
    let run = world.json(0, &["status"])["unfinished_run"].as_str().expect("a run is unfinished").to_owned();
    world.run(&["apply", "--yes"]).expect(5).says(&run);
    world.run(&["rollback", "--yes"]).expect(4).says("no snapshot");
    run
}

/// Runs until the gate holds it up, then kills it there.
async fn killed_at_the_gate(world: &TestWorld) -> String {
    let mut gate = world.gate("a").await;
    let victim = world.start(&NO_SNAPSHOT);
    gate.reached().await;
    let run = murder(world, victim);
    gate.open().await;
    run
}

async fn ledger(world: &TestWorld) -> String {
    world.value("a", "select concat_ws(' ', state, progress, unclear) from migrate.ledger").await
}

pub(crate) fn goes_on(world: &TestWorld, how: &str) -> Ran {
    let plan = world.run(&["plan"]);
    assert!(plan.expect(0).stdout.contains(how), "{}", plan.stdout);
    let status = world.run(&["status"]);
    assert!(status.expect(0).stdout.contains(how), "{}", status.stdout);
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(0).says(how);
    ran
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_was_under_way_is_sent_again() {
    let world = world("off_middle", &format!("create table one (id int);\n{GATE}create table two (id int);\n")).await;
    let run = killed_at_the_gate(&world).await;
    assert_eq!(ledger(&world).await, "started 1 f");
    // What has run may not be edited. What has not may be, and mended for good.
    world.file(FILE, &bare("create table one (id bigint);\nselect 1;\n"));
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(6).says("its statement 1, which has run, is not what it was").says("Restore the file up to statement 1");
    world.file(FILE, &bare("create table one (id int);\n-- mended\nselect 1;\ncreate table two (id int, v int);\n"));
    let ran = goes_on(&world, &format!("begun in run {run}, goes on at statement 2 on line 4"));
    ran.says("a: 001_bare: begun in run");
    assert_eq!(ledger(&world).await, "applied 3 f");
    assert_eq!(world.value("a", "select count(v) from two").await, "0");
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
    assert_eq!(world.json(0, &["status"])["databases"][0]["changed"], Value::Array(vec![]));
}

/// The server may be at COMMIT when its client dies: statement and ledger are one commit, whichever way it goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_and_the_word_that_it_ended_are_one_commit() {
    let world =
        world("off_commit", &format!("insert into t values (3, 3);\n{GATE}insert into t values (4, 4);\n")).await;
    // A deferred trigger holds the commit of the first statement up.
    let slow = "create function slow() returns trigger language plpgsql as $$ begin perform pg_advisory_xact_lock(42); \
                return null; end $$; create constraint trigger slow after insert on t deferrable initially deferred for \
                each row when (new.id = 3) execute function slow()";
    world.sql("a", slow).await;
    let mut gate = world.gate("a").await;
    let victim = world.start(&NO_SNAPSHOT);
    gate.reached().await;
    murder(&world, victim);
    gate.open().await;
    assert_eq!(ledger(&world).await, "started 0 f");
    world.sql("a", "drop trigger slow on t").await;
    let _ = goes_on(&world, "goes on at statement 1 on line 2");
    assert_eq!(world.value("a", "select string_agg(id::text, '' order by id) from t").await, "1234");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_ended_is_no_dead_end() {
    let world = world("off_session", &format!("create table one (id int);\n{GATE}create table two (id int);\n")).await;
    let mut gate = world.gate("a").await;
    let child = world.start(&NO_SNAPSHOT);
    gate.reached().await;
    let end =
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where wait_event = 'advisory' and datname = ";
    assert_eq!(world.ask(&format!("{end}'{}'", world.dbname("a"))).await, "1");
    finish(child).expect(4).says("the connection was lost while `001_bare` ran");
    gate.open().await;
    let _ = goes_on(&world, "goes on at statement 2 on line 3");
    assert_eq!(ledger(&world).await, "applied 3 f");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_failed_is_tried_again_once_it_is_mended() {
    let text = "create table one (id int);\nalter table t alter v set not null;\nvacuum t;\n";
    let world = world("off_failed", text).await;
    world.sql("a", "insert into t values (3, null)").await;
    world.run(&NO_SNAPSHOT).expect(4).says("001_bare.sql:3:1").says("SQLSTATE 23502");
    assert_eq!(ledger(&world).await, "started 1 f");
    let before = world.fingerprints().await;
    world.run(&["apply", "--yes"]).expect(3).says("goes on at statement 2 on line 3").says("SQLSTATE 23502");
    assert_same(&before, &world.fingerprints().await);
    // The data is mended, and the release goes on; and back to where it went on from, and forward again.
    world.sql("a", "delete from t where v is null").await;
    let before = world.fingerprints().await;
    let _ = goes_on(&world, "goes on at statement 2 on line 3");
    assert_eq!(ledger(&world).await, "applied 3 f");
    world.run(&["rollback", "--yes"]).expect(0);
    assert_same(&before, &world.fingerprints().await);
    let _ = goes_on(&world, "goes on at statement 2 on line 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_of_the_session_are_made_again() {
    let text = format!(
        "create schema app;\nset search_path = app;\nset role other;\ncreate table one (id int);\n{GATE}create table two (id \
         int);\n"
    );
    let world = world("off_settings", &text).await;
    let dbname = world.dbname("a");
    let role = format!("other_{dbname}");
    world
        .sql_as_superuser(
            "a",
            &format!("create role {role}; grant {role} to release; grant create on database {dbname} to {role}"),
        )
        .await;
    world.file(
        FILE,
        &bare(
            &text
                .replace("role other", &format!("role {role}"))
                .replace("schema app", &format!("schema app authorization {role}")),
        ),
    );
    let _ = killed_at_the_gate(&world).await;
    let _ = goes_on(&world, "goes on at statement 5 on line 6");
    let owners = "select string_agg(schemaname || tablename || tableowner, ' ' order by tablename) from pg_tables where schemaname = 'app'";
    assert_eq!(world.value("a", owners).await, format!("appone{role} apptwo{role}"));
}

/// `create index concurrently` on `t`, held up by an older transaction.
async fn building(world: &TestWorld) -> (std::process::Child, sqlx::PgConnection) {
    let mut holder = world.connect("a").await;
    execute(&mut holder, "begin isolation level repeatable read; select * from t").await;
    let victim = world.start(&NO_SNAPSHOT);
    let waits = "select exists (select from pg_stat_activity where query like 'create index concurrently%' and \
                 wait_event_type = 'Lock' and datname = current_database())";
    until("the index waits for the older transaction", async || world.value("a", waits).await == "true").await;
    (victim, holder)
}

const CIC: &str = "create table one (id int);\ncreate index concurrently i on t (id);\ncreate table two (id int);\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_was_half_built_is_dropped_and_built() {
    let world = world("off_cic", CIC).await;
    // Somebody else's stays, invalid as it is.
    let mut other = world.connect("a").await;
    execute(&mut other, "insert into t values (1, 1)").await;
    let failed = sqlx::raw_sql("create unique index concurrently theirs on t (id)").execute(&mut other).await;
    assert!(failed.is_err(), "there are duplicates");
    let (victim, mut holder) = building(&world).await;
    murder(&world, victim);
    execute(&mut holder, "rollback").await;
    assert_eq!(ledger(&world).await, "started 1 t");
    assert_eq!(world.value("a", "select indisvalid from pg_index where indexrelid = 'i'::regclass").await, "false");
    let _ = goes_on(&world, "goes on at statement 2 on line 3, and drops the invalid index public.i first");
    let indexes = "select string_agg(indexrelid::regclass || ' ' || indisvalid, ', ' order by indexrelid::regclass::text) from pg_index where indrelid = 't'::regclass";
    assert_eq!(world.value("a", indexes).await, "i true, theirs false");
    assert_eq!(ledger(&world).await, "applied 3 f");
}

/// Built, and nobody wrote it down: the ledger's row is held until `migrate` is dead.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_was_built_is_not_built_again() {
    let world = world("off_cic_done", CIC).await;
    let (victim, mut holder) = building(&world).await;
    let mut row = world.connect("a").await;
    execute(&mut row, "begin; select * from migrate.ledger for update").await;
    execute(&mut holder, "rollback").await;
    let waits = "select exists (select from pg_stat_activity where query like '%UPDATE migrate.ledger%' and \
                 wait_event_type = 'Lock' and datname = current_database())";
    until("its end is about to be written", async || world.value("a", waits).await == "true").await;
    murder(&world, victim);
    execute(&mut row, "rollback").await;
    assert_eq!(ledger(&world).await, "started 1 t");
    let oid = world.value("a", "select 'i'::regclass::oid").await;
    let _ = goes_on(&world, "goes on at statement 3 on line 4");
    assert_eq!(world.value("a", "select 'i'::regclass::oid").await, oid, "it is the same index");
}

/// Nobody but a person knows how far a procedure came that commits by itself.
#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_tells_is_asked() {
    let call = "do $$ begin insert into one values (1); commit; perform pg_advisory_lock(42); end $$;\n";
    let world = world("off_do", &format!("create table one (id int);\n{call}vacuum t;\n")).await;
    let run = killed_at_the_gate(&world).await;
    assert_eq!(ledger(&world).await, "started 1 t");
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(6).says("whether its statement 2 took effect is not known: nothing in the catalog tells");
    ran.says("migrations/a/001_bare.sql:3: do $$ begin insert into one values (1); commit;");
    ran.says(&format!("migrate resolve {run} a-schema/001_bare --statement 2 --applied"));
    world.run(&["resolve", &run, "a-schema/001_bare", "--statement", "2", "--applied"]).expect(0);
    let _ = goes_on(&world, "goes on at statement 3 on line 4");
    assert_eq!(world.value("a", "select count(*) from one").await, "1");
}

/// A file of which nothing took effect may become one with a transaction.
#[tokio::test(flavor = "multi_thread")]
async fn what_did_nothing_is_as_new() {
    let world = world("off_nothing", "vacuum nowhere;\n").await;
    world.run(&NO_SNAPSHOT).expect(4).says("SQLSTATE 42P01");
    world.file(FILE, "create table one (id int);\n");
    let _ = goes_on(&world, "goes on at statement 1 on line 1");
    assert_eq!(ledger(&world).await, "applied");
}
