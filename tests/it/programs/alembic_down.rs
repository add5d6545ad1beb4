//! Steps of kind `alembic` on their way back by `alembic downgrade`, and by what Alembic rendered.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{alembic_folder, alembic_step, revision, two_way};
use crate::harness::execute;
use crate::world::{TestWorld, assert_same, finish, send, until};

/// A rendered downgrade would undo the tables, and leave the version as it is, where somebody went on by hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_rendered_downgrade_is_not_sent_to_a_database_that_went_on() {
    let world = world("ald_went_on", &["os"], "mode = \"sql\"\n").await;
    let before = world.fingerprints().await;
    release(&world);
    let _ = world.run(&["apply", "--yes"]).expect(0);
    world.sql("os", "update alembic_version set version_num = 'd4'").await;
    let after = world.fingerprints().await;
    world.run(&DOWN).expect(4).says("alembic_version does not have c3: the database has gone on");
    assert_same(&after, &world.fingerprints().await);
    world.sql("os", "update alembic_version set version_num = 'c3'").await;
    assert_eq!(world.json(0, &DOWN)["outcome"], "rolled_back");
    assert_same(&before, &world.fingerprints().await);
}

/// A table, and rows in it: the second changes data.
fn release(world: &TestWorld) {
    two_way(world, "b2", Some("a1"), "alter table first add column size int", "alter table first drop column size");
    two_way(world, "c3", Some("b2"), "update first set size = id * 10", "update first set size = null");
}

/// `a1` is released, with two rows.
async fn world(hint: &str, databases: &[&str], rest: &str) -> TestWorld {
    let world = TestWorld::new(hint, databases).await;
    world.plan(&alembic_step(databases[0], rest));
    alembic_folder(&world);
    two_way(&world, "a1", None, "create table first (id int primary key)", "drop table first");
    let _ = world.run(&["apply", "--yes"]).expect(0);
    world.sql("os", "insert into first values (1), (2)").await;
    world
}

const VERSION: &str = "select string_agg(version_num, ',') from alembic_version";
const DOWN: [&str; 4] = ["rollback", "--via", "down", "--yes"];

fn reversible(world: &TestWorld) -> Vec<bool> {
    let plan = world.json(0, &["plan"]);
    let units = plan["steps"][0]["pending"].as_array().expect("a list").iter();
    units.map(|it| it["reversible"].as_bool().expect("a bool")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_downgrade_takes_back_what_the_run_applied_and_keeps_what_was_written_since() {
    for mode in ["", "mode = \"sql\"\n"] {
        let world = world("ald_both", &["os"], mode).await;
        let before = world.fingerprints().await;
        release(&world);
        assert_eq!(reversible(&world), [true, true]);
        let run = world.json(0, &["apply", "--yes"])["run"].as_str().expect("a run").to_owned();
        assert_eq!(world.value("os", "select sum(size) from first").await, "30");
        world.sql("os", "insert into first values (3, 7)").await;
        let ahead = world.json(0, &["rollback", "--via", "down", "--dry-run"]);
        assert_eq!(ahead["databases"][0]["undo"], json!(["os-schema/c3", "os-schema/b2"]), "{ahead}");
        assert_eq!(ahead["undo"].as_array().map(Vec::len), Some(if mode.is_empty() { 1 } else { 2 }), "{ahead}");

        let back = world.json(0, &DOWN);
        assert_eq!((&back["outcome"], &back["databases"][0]["via"]), (&json!("rolled_back"), &json!("down")), "{back}");
        assert_eq!(world.value("os", VERSION).await, "a1");
        assert_eq!(world.value("os", "select string_agg(name, ',') from migrate.ledger").await, "a1");
        assert_eq!(world.value("os", "select count(*) from first where id = 3").await, "1", "it was written since");
        world.sql("os", "delete from first where id = 3").await;
        assert_same(&before, &world.fingerprints().await);
        if mode.is_empty() {
            let key =
                world.objects().into_iter().find(|key| key.contains(&format!("{run}/output/os-schema/downgrade-")));
            let log = fs::read_to_string(world.store().join(key.expect("a log"))).expect("a text");
            assert!(log.contains("env.py speaks"), "{log}");
        }
        assert_eq!(world.json(0, &["apply", "--yes"])["databases"][0]["applied"], 2);
        assert_eq!(world.value("os", VERSION).await, "c3");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_release_goes_back_to_base_whether_or_not_there_was_an_empty_version_table() {
    for mode in ["", "mode = \"sql\"\n"] {
        for there in [true, false] {
            let world = TestWorld::new("ald_base", &["os"]).await;
            world.plan(&alembic_step("os", mode));
            alembic_folder(&world);
            two_way(&world, "a1", None, "create table first (id int primary key)", "drop table first");
            two_way(&world, "b2", Some("a1"), "insert into first values (1)", "delete from first where id = 1");
            let table =
                "create table alembic_version (version_num varchar(32) constraint alembic_version_pkc primary key)";
            if there {
                world.sql("os", table).await;
            }
            let before = world.fingerprints().await;
            assert_eq!(world.json(0, &["apply", "--yes"])["databases"][0]["applied"], 2);
            assert_eq!(world.value("os", VERSION).await, "b2");
            assert_eq!(world.json(0, &DOWN)["outcome"], "rolled_back");
            assert_eq!(world.value("os", "select count(*) from alembic_version").await, "0", "Alembic keeps its table");
            if !there {
                world.sql("os", "drop table alembic_version").await;
            }
            assert_same(&before, &world.fingerprints().await);
            if !there {
                world.sql("os", table).await;
            }
            assert_eq!(world.json(0, &["apply", "--yes"])["databases"][0]["applied"], 2);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_bare_machine_only_what_was_rendered_goes_back() {
    for (mode, code) in [("", 4), ("mode = \"sql\"\n", 0)] {
        let world = world("ald_bare", &["os"], mode).await;
        let before = world.fingerprints().await;
        release(&world);
        let run = world.json(0, &["apply", "--yes"])["run"].as_str().expect("a run").to_owned();
        let after = world.fingerprints().await;
        fs::remove_dir_all(world.path().join("os")).expect("it was there");
        fs::remove_dir_all(world.path().join("plans")).expect("it was there");
        let store = format!("file://{}", world.store().display());
        let ran = world.run(&[&DOWN[..], &[&run, "--store", &store, "-t", "local"]].concat());
        ran.expect(code);
        if code == 0 {
            assert_same(&before, &world.fingerprints().await);
        } else {
            ran.says("  os-schema/b2 on os: Alembic takes it back from a checkout of the release: run this in one");
            ran.says("  os-schema/c3 on os: ").says(&format!("`migrate rollback {run} --via snapshot`"));
            assert_same(&after, &world.fingerprints().await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_that_cannot_be_rendered_is_none() {
    let world = world("ald_render", &["os"], "mode = \"sql\"\n").await;
    release(&world);
    let path = "os/migrations/versions/d4.py";
    let up = "from alembic import op\n\nrevision = 'd4'\ndown_revision = 'c3'\n\n\ndef upgrade():\n    op.execute('select 4')\n";
    let asks = "    if op.get_bind().execute('select 1').scalar():\n        op.execute('select 5')\n";
    world.file(path, &format!("{up}\n\ndef downgrade():\n{asks}"));
    assert_eq!(reversible(&world), [true, true, false]);
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let after = world.fingerprints().await;
    world.run(&DOWN).expect(4).says("  os-schema/d4 on os: Alembic could not render its downgrade");
    assert_same(&after, &world.fingerprints().await);
    assert_eq!(world.json(0, &["rollback", "--yes"])["outcome"], "rolled_back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_that_is_not_the_release_is_refused_by_revision() {
    let world = world("ald_checkout", &["os"], "").await;
    let before = world.fingerprints().await;
    release(&world);
    revision(&world, "d4", Some("c3"), "select 4");
    assert_eq!(reversible(&world), [true, true, false]);
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let after = world.fingerprints().await;
    world.run(&DOWN).expect(4).says("  os-schema/d4 on os: it has no downgrade()");
    let run = world.json(0, &["rollback", "--yes"])["run"].as_str().expect("a run").to_owned();
    assert_same(&before, &world.fingerprints().await);

    world.remove("os/migrations/versions/d4.py");
    let second = world.json(0, &["apply", "--yes"])["run"].as_str().expect("a run").to_owned();
    assert!(second > run);
    two_way(&world, "b2", Some("a1"), "select 1", "select 2");
    world.run(&DOWN).expect(4).says("  os-schema/b2 on os: its file in the checkout is not what was applied");
    release(&world);
    world.remove("os/migrations/versions/c3.py");
    world.run(&DOWN).expect(4).says("  os-schema/c3 on os: the checkout does not have it: check out the release");
    release(&world);
    // Somebody went on by hand.
    two_way(&world, "d4", Some("c3"), "select 4", "select 5");
    world.sql("os", "update alembic_version set version_num = 'd4'").await;
    world.run(&DOWN).expect(4).says("revision `d4` stands on it, and is not of this run");
    world.sql("os", "update alembic_version set version_num = 'c3'").await;
    assert_ne!(after, before);
    assert_eq!(world.json(0, &DOWN)["outcome"], "rolled_back");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_downgrade_that_fails_leaves_everything_and_goes_again() {
    let world = world("ald_fails", &["os"], "").await;
    let before = world.fingerprints().await;
    two_way(&world, "b2", Some("a1"), "create table flag (id int)", "select 1 / count(*) from flag; drop table flag");
    two_way(&world, "c3", Some("b2"), "create table third (id int)", "drop table third");
    let run = world.json(0, &["apply", "--yes"])["run"].as_str().expect("a run").to_owned();
    let after = world.fingerprints().await;
    let ran = world.run(&DOWN);
    ran.expect(4).says("error: os: os-schema/c3, os-schema/b2 was not undone").says("division by zero");
    ran.says("Undone: nothing. Not undone: os-schema/c3, os-schema/b2.")
        .says(&format!("runs/{run}/output/os-schema/downgrade-"));
    assert_same(&after, &world.fingerprints().await);
    assert_eq!(world.json(0, &["status"])["unfinished_run"], run.as_str());
    world.sql("os", "insert into flag values (1)").await;
    assert_eq!(world.json(0, &DOWN)["outcome"], "rolled_back");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_during_the_downgrade_it_goes_again() {
    let world = world("ald_kill", &["os"], "").await;
    let before = world.fingerprints().await;
    two_way(
        &world,
        "b2",
        Some("a1"),
        "create table flag (id int)",
        "drop table flag; select pg_advisory_xact_lock(42)",
    );
    let run = world.json(0, &["apply", "--yes"])["run"].as_str().expect("a run").to_owned();
    // Longer than the step's lock_timeout would allow, were it not killed before.
    let mut gate = world.gate("os").await;
    let victim = world.start(&DOWN);
    gate.reached().await;
    send(&victim, Signal::SIGKILL);
    assert_eq!(finish(victim).code, -1);
    let alive = format!("select count(*) from pg_stat_activity where application_name = 'migrate {run}'");
    until("Alembic is ended with us", async || world.ask(&alive).await == "0").await;
    gate.open().await;
    assert_eq!(world.value("os", VERSION).await, "b2");
    assert_eq!(world.json(0, &["status"])["unfinished_run"], run.as_str());
    assert_eq!(world.json(0, &DOWN)["outcome"], "rolled_back");
    assert_same(&before, &world.fingerprints().await);

    // And where Alembic had gone back, and nobody wrote it down.
    let _ = world.run(&["apply", "--yes"]).expect(0);
    world.sql("os", "drop table flag; update alembic_version set version_num = 'a1'").await;
    assert_eq!(world.json(0, &DOWN)["outcome"], "rolled_back");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_downgrade_that_strays_is_found_out_and_goes_back_by_snapshot() {
    let world = world("ald_astray", &["os", "user"], "").await;
    let before = world.fingerprints().await;
    release(&world);
    let run = world.json(0, &["apply", "--yes"])["run"].as_str().expect("a run").to_owned();
    // On its way back, env.py goes elsewhere, where somebody has a database that looks the same.
    execute(
        &mut world.connect("user").await,
        "create table first (id int, size int); create table alembic_version (version_num varchar(32)); insert into \
         alembic_version values ('c3')",
    )
    .await;
    let other = format!("postgresql+psycopg://{}", world.url("user").trim_start_matches("postgresql://"));
    let text = fs::read_to_string(world.path().join("os/migrations/env.py")).expect("it was written");
    let astray = text.replace("if context.is_offline", &format!("url = '{other}'\nif context.is_offline"));
    world.file("os/migrations/env.py", &astray);
    let ran = world.run(&DOWN);
    ran.expect(4).says(
        "step `os-schema` is for os, and changed another database: user: table column public.first.size vanished",
    );
    ran.says("Not undone: os-schema/c3, os-schema/b2.");
    world.file("os/migrations/env.py", &text);
    world.run(&DOWN).expect(4).says("  user: a program that was not meant for it changed it");
    let back = world.json(0, &["rollback", &run, "--via", "snapshot", "--yes"]);
    let via: Vec<&Value> = back["databases"].as_array().expect("a list").iter().map(|it| &it["via"]).collect();
    assert_eq!(via, ["snapshot", "snapshot"], "{back}");
    assert_same(&before, &world.fingerprints().await);
}
