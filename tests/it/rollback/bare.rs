//! The way back from a bare machine: the store, the database URLs and the binary, and nothing else.

use std::fs;

use super::{apply, release, step};
use crate::harness::{OWNER, cluster, connect, execute};
use crate::world::{Ran, TestWorld, assert_same, variable};

/// Runs in an empty folder, with an environment of the URLs of `databases` and the path.
pub(super) fn bare(world: &TestWorld, databases: &[&str], args: &[&str]) -> Ran {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = world.command(args);
    command.env_clear().current_dir(folder.path()).env("PATH", std::env::var("PATH").expect("a path"));
    for name in databases {
        command.env(variable(name), world.url(name));
    }
    command.output().expect("the binary was built").into()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_bare_machine() {
    let world = release("bare", &["chat", "rag", "user"]).await;
    world.plan(&(step("rag") + &step("user")));
    let before = world.fingerprints().await;
    let run = apply(&world);
    // The project is gone; the store is elsewhere.
    let elsewhere = tempfile::tempdir().expect("a folder");
    fs::rename(world.store(), elsewhere.path().join("store")).expect("moved");
    for folder in ["migrations", "plans"] {
        fs::remove_dir_all(world.path().join(folder)).expect("it was there");
    }
    let store = format!("file://{}", elsewhere.path().join("store").display());
    let args = ["rollback", &run, "--store", &store, "-t", "local", "--yes"];

    let missing = bare(&world, &["rag"], &args);
    missing.expect(64).says("TEST_USER_URL");
    let ran = bare(&world, &["rag", "user"], &args);
    ran.expect(0);
    assert!(ran.stdout.contains("rolled back"), "{}", ran.stdout);
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_run_is_found_without_a_plan() {
    let world = release("bare_latest", &["rag"]).await;
    let before = world.fingerprints().await;
    apply(&world);
    fs::remove_dir_all(world.path().join("plans")).expect("it was there");
    let store = format!("file://{}", world.store().display());
    bare(&world, &["rag"], &["rollback", "--store", &store, "--yes"]).expect(64).says("-t");
    bare(&world, &["rag"], &["rollback", "--store", &store, "-t", "local", "--yes"]).expect(0);
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_dropped_by_hand_comes_back() {
    let world = release("dropped", &["chat", "rag"]).await;
    world.sql("rag", "create table t as select generate_series(1, 10) id").await;
    let before = world.fingerprints().await;
    apply(&world);
    let mut server = connect(&cluster().url(OWNER, "postgres")).await;
    execute(&mut server, format!("drop database {}", world.dbname("rag"))).await;
    let back = world.json(0, &["rollback", "--yes"]);
    assert_eq!(back["outcome"], "rolled_back", "{back}");
    assert!(back["databases"][0]["kept_as"].is_string() && back["databases"][1]["kept_as"].is_null(), "{back}");
    assert_same(&before, &world.fingerprints().await);
}
