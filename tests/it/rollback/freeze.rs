//! Hooks on `freeze` and `unfreeze`: who hears before databases are cut off and after, whatever comes between.

use std::fs;

use migrate::crash::AT;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::hooks::{heard, one_request};
use super::{apply, prepare, step};
use crate::harness::{as_superuser, connect, execute};
use crate::world::{TestWorld, assert_same, finish, send, until};

/// Each hook says its moment, its databases and which went back, and what it finds when it asks the database.
const HOOKS: &str = "[databases.rag]\nstandby = true\n\
     [[hooks]]\non = \"freeze\"\nargv = [\"./hook\"]\nenv = { URL = \"${TEST_RAG_URL}\", ASK = \"${ASK}\" }\n\
     [[hooks]]\non = \"unfreeze\"\nargv = [\"./hook\"]\nenv = { URL = \"${TEST_RAG_URL}\", ASK = \"${ASK}\" }\n";

const HOOK: &str = "#!/bin/sh\nfound=$(psql -XAtqc \"$ASK\" \"$URL\")\n\
     echo \"$MIGRATE_ON $MIGRATE_DATABASES ($MIGRATE_ROLLED_BACK) $found\" >> heard\n";

/// One database with a standby, and hooks that ask it whether it has the release, and how many standbys it has.
async fn hooked(hint: &str, rest: &str) -> TestWorld {
    let mut world = TestWorld::new(hint, &["rag"]).await;
    prepare(&world, &["rag"]);
    world.plan(&(step("rag") + HOOKS + rest));
    world.sql("rag", "create table t as select generate_series(1, 100) n").await;
    write_hook(&world, HOOK);
    let name = world.dbname("rag");
    let standbys = format!("starts_with(datname, left('{name}', 20)) and datname like '%\\_\\_standby\\_%'");
    let ask = format!("select (to_regclass('new') is not null) || ' ' || count(*) from pg_database where {standbys}");
    world.set("ASK", ask);
    world
}

fn write_hook(world: &TestWorld, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    world.file("hook", text);
    let path = world.path().join("hook");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a file of ours");
}

/// The databases that wait for a second word.
fn frozen(world: &TestWorld) -> Value {
    world.json(0, &["status"])["unfinished"]["frozen"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn they_hear_before_and_after_a_copy_and_an_exchange_and_can_reach_the_database_in_both() {
    let mut world = hooked("freeze", "[[hooks]]\non = \"freeze\"\nhttp = \"${ALARM}\"\n").await;
    let before = world.fingerprints().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    world.set("ALARM", format!("http://{}/", listener.local_addr().expect("an address")));
    let request = tokio::spawn(one_request(listener, "200 OK"));
    let report = world.json(0, &["apply", "--yes"]);
    assert_eq!(heard(&world), "freeze rag () false 0\nunfreeze rag () false 1\n", "{report}");
    let said: Vec<&Value> = report["hooks"].as_array().expect("a list").iter().map(|it| &it["on"]).collect();
    assert_eq!(said, ["freeze", "freeze", "unfreeze"], "{report}");
    let request = request.await.expect("no panic");
    let body: Value = serde_json::from_str(&request[request.find('{').expect("a body")..]).expect("JSON");
    let expected = json!({ "on": "freeze", "run": report["run"], "plan": "test", "target": "local", "outcome": null,
        "databases": ["rag"], "rolled_back": [] });
    assert_eq!(body, expected);

    // Nobody listens there any more: the way back is gone all the same.
    let ran = world.run(&["rollback", "--yes"]);
    ran.expect(0).says("hook on freeze: http FAILED").says("hook on unfreeze: ./hook called");
    assert_eq!(heard(&world), "freeze rag () true 1\nunfreeze rag (rag) false 0\n");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn down_scripts_cut_nobody_off_and_nobody_hears_of_it() {
    let world = hooked("freeze_down", "").await;
    world.file("migrations/rag/001_new.sql", "create table new (id int);\n-- migrate:down\ndrop table new;\n");
    apply(&world);
    let _ = heard(&world);
    world.run(&["rollback", "--via", "down", "--yes"]).expect(0);
    assert_eq!(heard(&world), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_fails_ends_a_release_before_a_change_and_never_a_rollback() {
    let world = hooked("freeze_failed", "").await;
    let before = world.fingerprints().await;
    write_hook(&world, &(HOOK.to_owned() + "test $MIGRATE_ON = unfreeze || { echo no channel; exit 3; }\n"));
    let mut app = world.connect("rag").await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(1)
        .says("no standby was made of rag, since a hook on `freeze` failed: ./hook: `./hook` exited with 3: no channel")
        .ends("No database was changed.");
    // Nobody was sent away, and whoever heard of the freeze hears of its end.
    execute(&mut app, "select 1").await;
    drop(app);
    assert_eq!(heard(&world), "freeze rag () false 0\nunfreeze rag () false 0\n");
    assert_eq!(world.json(0, &["runs", "list"])["runs"][0]["outcome"], "failed");
    assert_same(&before, &world.fingerprints().await);

    write_hook(&world, HOOK);
    apply(&world);
    write_hook(&world, &(HOOK.to_owned() + "exit 3\n"));
    let back = world.json(0, &["rollback", "--yes"]);
    let outcomes: Vec<&Value> = back["hooks"].as_array().expect("a list").iter().map(|it| &it["outcome"]).collect();
    assert_eq!((&back["outcome"], outcomes), (&json!("rolled_back"), vec![&json!("failed"); 2]), "{back}");
    assert_eq!(world.json(0, &["status"])["unfinished_run"], Value::Null, "the word was said, and is not owed");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_in_between_does_not_keep_the_second_word() {
    let world = hooked("freeze_between", "").await;
    let before = world.fingerprints().await;
    world.sql("rag", "begin; insert into t values (0); prepare transaction 'freeze_orphan'").await;
    world.run(&["apply", "--yes"]).expect(1).says("freeze_orphan").ends("No database was changed.");
    assert_eq!(heard(&world), "freeze rag () false 0\nunfreeze rag () false 0\n");
    world.sql("rag", "rollback prepared 'freeze_orphan'").await;

    apply(&world);
    let _ = heard(&world);
    let admin = connect(&as_superuser(world.url("rag"))).await;
    world.run(&["rollback", "--yes"]).expect(4).says("sessions stay on");
    assert_eq!(heard(&world), "freeze rag () true 1\nunfreeze rag () true 1\n");
    assert_eq!(frozen(&world), Value::Null);
    drop(admin);
    world.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(heard(&world), "freeze rag () true 1\nunfreeze rag (rag) false 0\n");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_was_owed_at_death_is_said_by_whoever_takes_the_run_up() {
    for way_out in ["resume", "rollback"] {
        let world = hooked("freeze_killed", "").await;
        let before = world.fingerprints().await;
        // A session that nobody can end holds the copy up.
        let admin = connect(&as_superuser(world.url("rag"))).await;
        let victim = world.start(&["apply", "--yes"]);
        let name = world.dbname("rag");
        let copying =
            format!("exists (select from pg_stat_activity where query like 'CREATE DATABASE%TEMPLATE \"{name}\"%')");
        until("the copy waits", async || world.ask(&copying).await == "true").await;
        send(&victim, Signal::SIGKILL);
        assert_eq!(finish(victim).code, -1);
        drop(admin);
        assert_eq!((heard(&world), frozen(&world)), ("freeze rag () false 0\n".into(), json!(["rag"])));
        let told = world.run(&["status"]);
        assert!(told.expect(0).stdout.contains("hooks on freeze were called for rag"), "{}", told.stdout);

        let ran = world.run(&[way_out, "--yes"]);
        ran.expect(0).says("before the run was cut off: now those on unfreeze");
        // What the dead process had begun to copy is gone or not, by whoever was faster.
        let said: Vec<String> = heard(&world).lines().map(|it| it.split(' ').next().unwrap_or("").to_owned()).collect();
        let expected: &[&str] = if way_out == "resume" { &["unfreeze", "freeze", "unfreeze"] } else { &["unfreeze"] };
        assert_eq!(said, expected, "{way_out}");
        let status = world.json(0, &["status"]);
        assert_eq!((&status["unfinished_run"], &status["unfinished"]), (&Value::Null, &Value::Null));
        if way_out == "resume" {
            world.run(&["rollback", "--yes"]).expect(0);
        }
        assert_same(&before, &world.fingerprints().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_that_dies_in_between_owes_it_as_well() {
    for way_out in ["resume", "rollback"] {
        // After the hook on freeze; and after that on unfreeze, before the journal has it: it is called once more.
        for (point, first) in [("child ended#1", "freeze rag () true 1\n"), ("child ended#2", "")] {
            let mut world = hooked("freeze_back", "").await;
            let before = world.fingerprints().await;
            apply(&world);
            let _ = heard(&world);
            world.set(AT, point);
            assert_eq!(world.run(&["rollback", "--yes"]).code, -1, "it died");
            world.unset(AT);
            assert!(heard(&world).starts_with(first));
            assert_eq!(frozen(&world), json!(["rag"]), "{point}");
            let ran = world.run(&[way_out, "--yes"]);
            ran.expect(0).says("now those on unfreeze");
            let last = if first.is_empty() { "unfreeze rag () false 0\n" } else { "unfreeze rag (rag) false 0\n" };
            let said = heard(&world);
            assert!(said.ends_with(last), "{way_out} after {point}: {said}");
            assert_eq!(world.json(0, &["status"])["unfinished_run"], Value::Null);
            assert_same(&before, &world.fingerprints().await);
        }
    }
}
