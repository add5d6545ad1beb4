//! Each exit code of the contract, provoked as users provoke it: the code, what is said, in which state the databases are,
//! and the JSON document.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::world::{GATE, Gate, Ran, TestWorld, assert_same, finish, send, sql_step, until};

const GOOD: &str = "create table good (id int primary key);\n";
const BAD: &str = "select 1;\nselect no_such_column;\n";

/// One database, and its migrations.
async fn one(hint: &str, files: &[&str]) -> TestWorld {
    let world = TestWorld::new(hint, &["a"]).await;
    world.sql_plan("");
    migrations(&world, "a", files);
    world
}

fn migrations(world: &TestWorld, database: &str, files: &[&str]) {
    for (number, text) in files.iter().enumerate() {
        world.file(&format!("migrations/{database}/00{}_m.sql", number + 1), text);
    }
}

/// Wants `error` in the document, with the code, and a message and a help that say something. What to do after an
/// interruption follows from the aftermath alone.
#[track_caller]
fn error_in(document: &Value, code: i32) {
    let error = &document["error"];
    assert_eq!(error["code"], code, "{document:#}");
    let says = |field: &str| error[field].as_str().is_some_and(|text| !text.is_empty());
    assert!(says("message") && says("aftermath") && (says("help") || code == 130), "{document:#}");
    assert!(error.get("help").is_some(), "{document:#}");
}

/// The run that `status` calls unfinished.
#[track_caller]
fn unfinished(world: &TestWorld) -> String {
    let status = world.json(0, &["status"]);
    status["unfinished_run"].as_str().unwrap_or_else(|| panic!("{status:#}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_0_is_done() {
    let world = one("exit_0", &[GOOD]).await;
    let ran = world.run(&["apply", "--yes", "--json"]);
    assert_eq!(ran.expect(0).document()["outcome"], "succeeded");
    assert!(ran.document().get("error").is_none() && !ran.stderr.contains("error"), "{}", ran.stderr);
    let _ = world.run(&["plan", "--detailed-exitcode"]).expect(0);
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_1_is_a_failure_that_changed_nothing() {
    let world = one("exit_1", &[BAD]).await;
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes", "--json"]);
    ran.expect(1).says("error: a: `001_m` failed at migrations/a/001_m.sql:2:8").ends("No database was changed.");
    error_in(&ran.document(), 1);
    assert_eq!(ran.document()["outcome"], "failed");
    assert_same(&before, &world.fingerprints().await);
    // That run is at its end: nobody has to clear it away.
    assert_eq!(world.json(0, &["status"])["unfinished_run"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_2_is_work_to_do() {
    let world = one("exit_2", &[GOOD]).await;
    let ran = world.run(&["plan", "--detailed-exitcode"]);
    assert!(ran.expect(2).stdout.contains("001_m") && ran.stderr.is_empty(), "{}", ran.stderr);
    let document = world.json(2, &["plan", "--detailed-exitcode"]);
    assert_eq!(document["steps"][0]["pending"][0]["name"], "001_m");
    let _ = world.run(&["plan"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_3_is_a_failure_that_was_rolled_back() {
    let world = one("exit_3", &[GOOD, BAD]).await;
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes", "--json"]);
    ran.expect(3).says("error: a: `002_m` failed at migrations/a/002_m.sql:2:8");
    ran.ends("Rolled back, as before the run: a.");
    let document = ran.document();
    error_in(&document, 3);
    assert_eq!(document["outcome"], "rolled_back");
    let database = &document["databases"][0];
    assert_eq!((&database["applied"], &database["rolled_back"]), (&1.into(), &true.into()), "{document:#}");
    assert_eq!(database["via"], "snapshot");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_4_is_a_halt_and_rollback_leads_back() {
    let world = one("exit_4_halt", &[GOOD, BAD]).await;
    world.sql_plan("[run]\non_failure = \"halt\"\n");
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes", "--json"]);
    let document = ran.expect(4).document();
    error_in(&document, 4);
    assert_eq!(document["outcome"], "halted");
    let run = document["run"].as_str().expect("an id");
    ran.says("SQLSTATE 42703").ends(&format!(
        "NOT rolled back: a. Run `migrate resume {run}` to finish the release once the cause is mended, or `migrate rollback \
         {run}` to take them back to their state before the run."
    ));
    assert_eq!(world.value("a", "select count(*) from good").await, "0");
    assert_eq!(unfinished(&world), run);
    assert_eq!(world.json(0, &["rollback", "--yes"])["outcome"], "rolled_back");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_4_is_a_failure_without_snapshots() {
    let world = one("exit_4_bare", &[GOOD, BAD]).await;
    let _ = world.run(&["apply", "--yes", "--no-snapshot"]).expect(64);
    let ran = world.run(&["apply", "--yes", "--no-snapshot", "--reason", "no room", "--json"]);
    let document = ran.expect(4).document();
    error_in(&document, 4);
    assert_eq!((&document["outcome"], &document["snapshots"]), (&"halted".into(), &Value::Array(vec![])));
    let last = ran.stderr.trim_end().lines().last().expect("it says something");
    assert!(last.starts_with("NOT rolled back: a.") && last.contains("no snapshot"), "{last}");
    assert!(!world.objects().iter().any(|key| key.contains("/snapshots/")));
    // There is no way back, and rollback says so and why.
    let back = world.run(&["rollback", "--yes"]);
    back.expect(4).says("has no snapshot of it").says("no room");
}

/// `apply` in a migration that stands at the gate.
async fn at_the_gate(world: &TestWorld, gate: &mut Gate) -> std::process::Child {
    let child = world.start(&["apply", "--yes", "--json"]);
    gate.reached().await;
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_5_is_the_lock_of_another_run() {
    let world = one("exit_5_lock", &[GATE, GOOD]).await;
    let mut gate = world.gate("a").await;
    let first = at_the_gate(&world, &mut gate).await;
    let second = world.run(&["apply", "--yes", "--json"]);
    second.expect(5).says("error: a: the lock is held by run ").ends("No database was changed.");
    error_in(&second.document(), 5);
    gate.open().await;
    let first = finish(first);
    let run = first.expect(0).document()["run"].as_str().expect("an id").to_owned();
    let host = hostname::get().expect("a name").to_string_lossy().into_owned();
    // The session's name has room for the first letters of the host alone.
    let host: String = host.chars().take(12).collect();
    let (_, since) = second.stderr.split_once(&format!("by run {run} on {host}")).expect("run and host");
    assert!(since.contains(" since 20") && since.contains(" UTC"), "{since}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_5_is_an_unfinished_run_and_rollback_leads_back() {
    let world = one("exit_5_killed", &[GOOD, GATE]).await;
    let before = world.fingerprints().await;
    let mut gate = world.gate("a").await;
    let mut first = at_the_gate(&world, &mut gate).await;
    first.kill().expect("it runs");
    first.wait().expect("it was killed");
    let run = unfinished(&world);
    // The lock goes with the killed run's session, which the server may not have noticed yet.
    until("the lock is free", async || world.run(&["doctor"]).code == 0).await;
    let ran = world.run(&["apply", "--yes", "--json"]);
    ran.expect(5).says(&format!("error: run {run} is unfinished")).ends("No database was changed.");
    ran.says(&format!("`migrate rollback {run}`"));
    error_in(&ran.document(), 5);
    assert_eq!(world.json(0, &["rollback", "--yes"])["run"], run.as_str());
    assert_same(&before, &world.fingerprints().await);
}

/// The server goes on with the statement of a client that was killed: what it commits after the rollback would stay.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_run_left_working_cannot_commit_after_its_rollback() {
    let world = one("exit_5_orphan", &[&format!("{GOOD}{GATE}")]).await;
    let before = world.fingerprints().await;
    let mut gate = world.gate("a").await;
    let mut first = at_the_gate(&world, &mut gate).await;
    first.kill().expect("it runs");
    first.wait().expect("it was killed");
    until("the lock is free", async || world.run(&["doctor"]).code == 0).await;
    let _ = world.run(&["rollback", "--yes"]).expect(0);
    gate.open().await;
    let working = "select count(*) from pg_stat_activity where datname = current_database() and application_name like \
                   'migrate 2%'";
    until("nobody works for the killed run", async || world.value("a", working).await == "0").await;
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_6_is_a_changed_file() {
    let world = one("exit_6", &[GOOD]).await;
    let _ = world.run(&["apply", "--yes"]).expect(0);
    world.file("migrations/a/001_m.sql", "create table other (id int);\n");
    let ran = world.run(&["apply", "--yes", "--json"]);
    ran.expect(6).says("error: a: ledger and file disagree about `001_m`").ends("No database was changed.");
    error_in(&ran.document(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_7_is_a_check_that_fails() {
    let world = one("exit_7", &[GOOD]).await;
    let table = |name: &str| format!("{{ database = \"a\", table = \"{name}\" }}");
    let (source, target) = (table("one"), table("two"));
    world.sql_plan(&format!(
        "[[checks]]\nname = \"same\"\nwhen = \"after\"\nkind = \"sync\"\nsource = {source}\ntarget = {target}\n\
         key = [\"id\"]\n"
    ));
    let ran = world.run(&["verify", "--json"]);
    ran.expect(7).says("error: check `same` does not hold").ends("No database was changed.");
    error_in(&ran.document(), 7);
    assert_eq!(ran.document()["checks"][0]["outcome"], "failed");
    // Within a run, a check that fails is a failure of the run: here it touched the database, and took it back.
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes", "--json"]);
    ran.expect(3).says("check `same` does not hold").ends("Rolled back, as before the run: a.");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_64_is_wrong_usage_or_an_invalid_plan() {
    let world = one("exit_64", &[GOOD]).await;
    let typed = world.run(&["apply", "--nonsense", "--json"]);
    let _ = typed.expect(64).says("--nonsense");
    error_in(&typed.document(), 64);
    let without_terminal = world.run(&["apply", "--json"]);
    without_terminal.expect(64).says("--yes").ends("No database was changed.");
    error_in(&without_terminal.document(), 64);
    world.plan(&format!("{}colour = \"red\"\n", sql_step("a")));
    let invalid = world.run(&["plan", "--json"]);
    invalid.expect(64).says("colour").says("plans/production.toml:").ends("No database was changed.");
    error_in(&invalid.document(), 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_130_in_a_migration_leaves_what_rollback_understands() {
    let world = one("exit_130", &[GOOD, GATE, GOOD]).await;
    let before = world.fingerprints().await;
    let mut gate = world.gate("a").await;
    let child = at_the_gate(&world, &mut gate).await;
    send(&child, Signal::SIGINT);
    gate.open().await;
    let ran: Ran = finish(child);
    let document = ran.expect(130).says("error: interrupted by a signal").document();
    error_in(&document, 130);
    let run = document["run"].as_str().expect("an id");
    assert!(document["outcome"].is_string(), "{document:#}");
    ran.ends(&format!(
        "NOT rolled back: a. Run `migrate resume {run}` to finish the release once the cause is mended, or `migrate rollback \
         {run}` to take them back to their state before the run."
    ));
    assert_eq!(unfinished(&world), run);
    assert_eq!(world.value("a", "select max(name) from migrate.ledger").await, "002_m");
    assert_eq!(world.json(0, &["rollback", "--yes"])["outcome"], "rolled_back");
    assert_same(&before, &world.fingerprints().await);
    assert_eq!(world.json(0, &["status"])["unfinished_run"], Value::Null);
}

/// Processes of `pg_dump` that work on a database.
fn dumps_of(dbname: &str) -> usize {
    let processes = std::fs::read_dir("/proc").expect("Linux").flatten();
    let dumps = processes.filter(|it| {
        let text = |name: &str| {
            let bytes = std::fs::read(it.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        text("cmdline").contains("pg_dump") && text("environ").contains(dbname)
    });
    dumps.count()
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_130_in_a_snapshot_changes_nothing_and_leaves_no_pg_dump() {
    let world = one("exit_130_dump", &[GOOD]).await;
    world.sql("a", "create table held (id int)").await;
    let before = world.fingerprints().await;
    let mut holder = world.connect("a").await;
    crate::harness::execute(&mut holder, "begin; lock table held in access exclusive mode").await;
    let child = world.start(&["apply", "--yes", "--json"]);
    let waits = "select exists (select from pg_stat_activity where query like 'LOCK TABLE %' and wait_event_type = \
                 'Lock' and datname = current_database())";
    until("pg_dump waits for the table", async || world.value("a", waits).await == "true").await;
    assert_eq!(dumps_of(&world.dbname("a")), 1);
    send(&child, Signal::SIGTERM);
    // The table is still locked: whoever waits for it must not keep the program from its end.
    let ran = finish(child);
    ran.expect(130).says("error: interrupted by a signal").ends("No database was changed.");
    error_in(&ran.document(), 130);
    until("pg_dump has ended", async || dumps_of(&world.dbname("a")) == 0).await;
    crate::harness::execute(&mut holder, "rollback").await;
    assert!(!world.objects().iter().any(|key| key.ends_with("manifest.json")));
    assert_same(&before, &world.fingerprints().await);
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "succeeded");
}
