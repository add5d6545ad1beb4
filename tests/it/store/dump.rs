//! A `pg_dump` that does not do its work.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::stored;
use crate::harness::cluster;
use crate::rollback::{apply, release};
use crate::world::{Ran, TestWorld, assert_same, until};

/// A world in which `pg_dump` is a shell script of this text; `$REAL` is the real one.
async fn with_dump(hint: &str, script: &str) -> TestWorld {
    let mut world = release(hint, &["chat", "rag"]).await;
    let real = cluster().bin_dir().join("pg_dump").display().to_string();
    let text = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec '{real}' --version\ncase $PGDATABASE in *chat*) exec '{real}' \"$@\";; esac\n{}\n",
        script.replace("$REAL", &real)
    );
    world.file("bin/pg_dump", &text);
    fs::set_permissions(world.path().join("bin/pg_dump"), fs::Permissions::from_mode(0o755)).expect("ours");
    std::os::unix::fs::symlink(cluster().bin_dir().join("pg_restore"), world.path().join("bin/pg_restore"))
        .expect("ours");
    let bin = world.path().join("bin").display().to_string();
    world.set("MIGRATE_PG_BIN", bin);
    world.sql("rag", "create table t as select n, md5(n::text) from generate_series(1, 100000) n").await;
    world
}

/// It fails with nothing changed and no snapshot of `rag`, and with the real programs the release goes through.
async fn fails(mut world: TestWorld, code: i32, says: &[&str], run: impl AsyncFn(&TestWorld) -> Ran) {
    let before = world.fingerprints().await;
    let ran = run(&world).await;
    ran.expect(code).says("No database was changed.");
    for text in says {
        ran.says(text);
    }
    assert_same(&before, &world.fingerprints().await);
    let snapshots = stored(&world, "manifest");
    assert!(!snapshots.iter().any(|path| path.display().to_string().contains("/rag/")), "{snapshots:?}");
    assert_eq!(world.json(0, &["status"])["unfinished_run"], serde_json::Value::Null);
    world.unset("MIGRATE_PG_BIN");
    apply(&world);
}

async fn applied(world: &TestWorld) -> Ran {
    world.run(&["apply", "--yes"])
}

#[tokio::test(flavor = "multi_thread")]
async fn that_dies_half_way() {
    let script = "'$REAL' \"$@\" | head -c 1000000\necho 'the disk of pg_dump broke' >&2\nkill -9 $$";
    let world = with_dump("dump_dies", script).await;
    fails(world, 1, &["rag: the snapshot is incomplete", "signal 9", "the disk of pg_dump broke"], applied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_gives_everything_and_fails() {
    let world = with_dump("dump_fails", "'$REAL' \"$@\"\necho 'one more thing' >&2\nexit 1").await;
    fails(world, 1, &["rag: the snapshot is incomplete", "exited with 1", "one more thing"], applied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_gives_nothing_and_succeeds() {
    let world = with_dump("dump_empty", "exit 0").await;
    fails(world, 1, &["rag: the snapshot is incomplete", "no whole archive"], applied).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_hangs_until_somebody_interrupts() {
    let world = with_dump("dump_hangs", "'$REAL' \"$@\" | head -c 100000\n: > hanging\nexec sleep 3600").await;
    let interrupted = async |world: &TestWorld| {
        let running = world.start(&["apply", "--yes"]);
        until("pg_dump hangs", || async { world.path().join("hanging").exists() }).await;
        kill(Pid::from_raw(running.id().try_into().expect("a process id")), Signal::SIGINT).expect("our child");
        running.wait_with_output().expect("our child").into()
    };
    fails(world, 130, &["interrupted"], interrupted).await;
}
