//! What the server's side can do to a snapshot: programs that die or hang in one of its parts, and a server that restarts.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use migrate::outside::cluster::{Cluster, ClusterOptions};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{DIVIDED, divided};
use crate::harness::{self, OWNER};
use crate::world::{TestWorld, assert_same, finish, send, until};

/// Puts a shell script in the place of a program; `$REAL` is the real one.
pub(super) fn in_place_of(world: &mut TestWorld, cluster: &Cluster, program: &str, script: &str) {
    for name in ["pg_dump", "pg_restore"] {
        let (real, path) = (cluster.bin_dir().join(name).display().to_string(), world.path().join("bin").join(name));
        let script = if name == program { script } else { "exec '$REAL' \"$@\"" };
        let text = format!("#!/bin/sh\n[ \"$1\" = --version ] && exec '{real}' --version\n{script}\n");
        world.file(&format!("bin/{name}"), &text.replace("$REAL", &real));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("ours");
    }
    world.set("MIGRATE_PG_BIN", world.path().join("bin").display().to_string());
}

/// A script that is the real program, but for calls whose arguments match `pattern`.
pub(super) fn but_for(pattern: &str, script: &str) -> String {
    format!("case \"$*\" in {pattern}) {script};; esac\nexec '$REAL' \"$@\"")
}

async fn ends_before_anything_is_changed(hint: &str, script: &str, says: &[&str]) {
    let mut world = divided(hint, "compression = \"zstd\"").await;
    let before = world.fingerprints().await;
    in_place_of(&mut world, harness::cluster(), "pg_dump", script);
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(1).says("big: the snapshot is incomplete").says("No database was changed.");
    for text in says {
        ran.says(text);
    }
    assert_same(&before, &world.fingerprints().await);
    assert!(!world.objects().iter().any(|key| key.ends_with("manifest.json")), "{:?}", world.objects());
    world.unset("MIGRATE_PG_BIN");
    let _ = world.run(&["apply", "--yes"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_is_killed_in_one_part() {
    let script = but_for("*--exclude-table=*", "'$REAL' \"$@\" | head -c 300; echo 'out of luck' >&2; kill -9 $$");
    ends_before_anything_is_changed("fault_killed", &script, &["was ended by signal 9", "out of luck"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_fails_after_the_whole_of_a_part() {
    let script = but_for("*--section=post-data*", "'$REAL' \"$@\"; echo 'one more thing' >&2; exit 1");
    ends_before_anything_is_changed("fault_late", &script, &["exited with 1", "one more thing"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_leaves_tables_out() {
    let script = but_for("*--table=*rows*", "exec '$REAL' --exclude-table=rows \"$@\"");
    ends_before_anything_is_changed("fault_less", &script, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_hangs_in_one_part_until_somebody_interrupts() {
    let mut world = divided("fault_hangs", "compression = \"zstd\"").await;
    let before = world.fingerprints().await;
    let hang = but_for("*--exclude-table=*", "'$REAL' \"$@\" | head -c 300; : > waits; exec sleep 3600");
    in_place_of(&mut world, harness::cluster(), "pg_dump", &hang);
    let running = world.start(&["apply", "--yes"]);
    until("pg_dump hangs", async || world.path().join("waits").exists()).await;
    send(&running, Signal::SIGINT);
    finish(running).expect(130).says("interrupted").says("No database was changed.");
    assert_same(&before, &world.fingerprints().await);
    assert!(!world.objects().iter().any(|key| key.ends_with("manifest.json")), "{:?}", world.objects());
    world.unset("MIGRATE_PG_BIN");
    let _ = world.run(&["apply", "--yes"]).expect(0);
}

/// A database of one archive.
const SMALL: &str = "create table rows (id int primary key, body text); insert into rows select n, md5(n::text) from \
                     generate_series(1, 1000) n; create index on rows (body)";

/// A world on a server of its own, which can be restarted.
async fn apart(content: &str) -> (TestWorld, Cluster) {
    let cluster = Cluster::start(ClusterOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let mut superuser = harness::connect(&cluster.url("postgres", "postgres")).await;
    harness::execute(&mut superuser, format!("create role {OWNER} login createdb")).await;
    harness::execute(&mut superuser, format!("create database big owner {OWNER}")).await;
    let world = TestWorld::over([("big".to_owned(), cluster.url(OWNER, "big"))].into());
    world.sql("big", content).await;
    world.sql_plan("");
    world.file("migrations/big/001_more.sql", "alter table rows add column more int default 1;\n");
    // A server that crashes gives no number of a sequence twice: the first time, they jump ahead. What was not on the disk yet is lost.
    harness::execute(&mut superuser, "checkpoint").await;
    cluster.stop_immediate().expect("it runs");
    cluster.start_again().expect("it was stopped");
    (world, cluster)
}

/// Runs until the script waits, restarts the server as after a power cut, and lets the script go on.
async fn restarted(world: &TestWorld, cluster: &Cluster, args: &[&str]) -> crate::world::Ran {
    let running = world.start(args);
    until("the program waits", async || world.path().join("waits").exists()).await;
    cluster.stop_immediate().expect("it runs");
    cluster.start_again().expect("it was stopped");
    world.file("go", "");
    finish(running)
}

const WAIT: &str = ": > waits; while [ ! -e go ]; do sleep 0.05; done";

/// The server restarts while `pg_dump` is at what matches `pattern`.
async fn restarts_during_a_dump(content: &str, pattern: &str) {
    let (mut world, cluster) = apart(content).await;
    let before = world.fingerprints().await;
    in_place_of(&mut world, &cluster, "pg_dump", &but_for(pattern, WAIT));
    let ran = restarted(&world, &cluster, &["apply", "--yes"]).await;
    ran.expect(1).says("big: ").says("No database was changed.");
    assert_same(&before, &world.fingerprints().await);
    assert!(!world.objects().iter().any(|key| key.ends_with("manifest.json")), "{:?}", world.objects());
    world.unset("MIGRATE_PG_BIN");
    let _ = world.run(&["apply", "--yes"]).expect(0);
}

/// The server restarts while `pg_restore` is at what matches `pattern`.
async fn restarts_during_a_restore(content: &str, pattern: &str) {
    let (mut world, cluster) = apart(content).await;
    let before = world.fingerprints().await;
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let oid = "select oid from pg_database where datname = current_database()";
    let live = world.value("big", oid).await;
    in_place_of(&mut world, &cluster, "pg_restore", &but_for(pattern, WAIT));
    let ran = restarted(&world, &cluster, &["rollback", "--yes"]).await;
    assert_ne!(ran.code, 0, "{}", ran.stderr);
    ran.says("big");
    assert_eq!(world.value("big", oid).await, live, "it was not exchanged");
    world.unset("MIGRATE_PG_BIN");
    let back: Value = world.json(0, &["rollback", "--yes"]);
    assert_eq!(back["outcome"], "rolled_back", "{back}");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_during_a_dump() {
    restarts_during_a_dump(DIVIDED, "*--section=post-data*").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_during_a_dump_of_one_archive() {
    restarts_during_a_dump(SMALL, "*").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_during_a_restore() {
    restarts_during_a_restore(DIVIDED, "*--jobs=*").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_during_a_restore_of_one_archive() {
    restarts_during_a_restore(SMALL, "*--use-list=*").await;
}
