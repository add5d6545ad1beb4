//! The table in which Alembic keeps its version, where it has another name, and how Alembic is asked for it.

use std::fs;

use nix::sys::signal::Signal;

use super::{alembic_folder, alembic_step, two_way};
use crate::world::{TestWorld, assert_same, finish, send, until};

const DOWN: [&str; 4] = ["rollback", "--via", "down", "--yes"];

/// `env.py` of the other tests with these arguments more, in offline and in online mode.
async fn world(hint: &str, offline: &str, online: &str, rest: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["os"]).await;
    world.plan(&alembic_step("os", rest));
    alembic_folder(&world);
    let path = world.path().join("os/migrations/env.py");
    let text = fs::read_to_string(&path).expect("it was written");
    let text = text.replace("literal_binds=True", &format!("literal_binds=True{offline}"));
    fs::write(&path, text.replace("connection=session", &format!("connection=session{online}"))).expect("a file");
    two_way(&world, "a1", None, "create table first (id int)", "drop table first");
    two_way(&world, "b2", Some("a1"), "create table second (id int)", "drop table second");
    world.sql("os", "create schema ops").await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn another_table_is_learned_from_env_py() {
    let ours = ", version_table='os_version', version_table_schema='ops'";
    for mode in ["", "mode = \"sql\"\n"] {
        let world = world("alv_other", ours, ours, mode).await;
        // A stranger's table of the usual name says nothing.
        world
            .sql("os", "create table alembic_version (version_num text); insert into alembic_version values ('x')")
            .await;
        world.remove("os/migrations/versions/b2.py");
        let _ = world.run(&["apply", "--yes"]).expect(0);
        let before = world.fingerprints().await;
        two_way(&world, "b2", Some("a1"), "create table second (id int)", "drop table second");
        assert_eq!(world.json(0, &["apply", "--yes"])["databases"][0]["applied"], 1);
        assert_eq!(world.value("os", "select version_num from ops.os_version").await, "b2");
        assert_eq!(world.json(0, &["status"])["databases"][0]["pending"].as_array().map(Vec::len), Some(0));
        assert_eq!(world.json(0, &DOWN)["outcome"], "rolled_back");
        assert_same(&before, &world.fingerprints().await);
        assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "succeeded");
        world.sql("os", "update ops.os_version set version_num = 'zz9'").await;
        world.run(&["plan"]).expect(6).says("can't locate revision `zz9`, which ops.os_version has");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_learned_is_refused_before_anything_is_changed() {
    // Only online mode has it: what Alembic renders and what it does would not agree.
    let world = world("alv_unsure", "", ", version_table='os_version'", "").await;
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(64).says("os/env.py: it cannot be told in which table Alembic keeps its version");
    ran.says("in offline mode it is alembic_version, and another call says otherwise").ends("No database was changed.");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_env_py_without_an_offline_mode_is_believed() {
    let world = world("alv_online", "", ", version_table='os_version'", "").await;
    let path = "os/migrations/env.py";
    let text = fs::read_to_string(world.path().join(path)).expect("it was written");
    let refuses = "if context.is_offline_mode():\n    raise SystemExit('offline is not supported')\n";
    world.file(path, &text.replace("if context.is_offline_mode():\n", &format!("{refuses}if False:\n")));
    assert_eq!(world.json(0, &["apply", "--yes"])["databases"][0]["applied"], 2);
    assert_eq!(world.value("os", "select version_num from os_version").await, "b2");
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
    assert_eq!(world.json(0, &DOWN)["outcome"], "rolled_back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_while_alembic_lists_its_revisions_is_an_interruption() {
    let world = world("alv_signal", "", "", "").await;
    world.file(
        "os/migrations/versions/slow.py",
        "import pathlib, time\npathlib.Path('listing').write_text('')\ntime.sleep(600)\n",
    );
    for command in [&["plan"][..], &["status"], &["apply", "--yes"]] {
        let listing = world.path().join("os/listing");
        let started = world.start(command);
        until("Alembic lists", async || listing.exists()).await;
        send(&started, Signal::SIGTERM);
        finish(started).expect(130).says("error: interrupted by a signal").ends("No database was changed.");
        fs::remove_file(listing).expect("it was written");
    }
}
