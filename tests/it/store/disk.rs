//! `file://`: a disk that is full, and a restore by hand.

use std::path::Path;
use std::process::Command;

use super::stored;
use crate::fingerprint::{assert_same as assert_same_database, fingerprint};
use crate::harness::{cluster, fresh_database};
use crate::rollback::{apply, release};
use crate::snapshots::divided;
use crate::world::{Ran, TestWorld, assert_same};

/// Rows that gzip can do nothing about, some four megabytes of them.
const NOISE: &str =
    "create table noise as select n, sha512((random() * n)::text::bytea) a, sha512(random()::text::bytea) b
    from generate_series(1, 30000) n";

async fn with_noise(hint: &str) -> TestWorld {
    let world = release(hint, &["rag"]).await;
    world.sql("rag", NOISE).await;
    world
}

/// A small disk of its own, as far as this machine lets us mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let disk = Self(tempfile::tempdir().expect("a folder"));
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(disk.0.path()).output();
        mounted.is_ok_and(|it| it.status.success()).then_some(disk)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// The store is on a disk of a megabyte, and the release ends before it has changed anything.
#[expect(clippy::print_stderr, reason = "a test that shows nothing says so")]
async fn ends_on_a_full_disk(mut world: TestWorld, database: &str) {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("not shown here: mounting a small disk takes a superuser of this machine");
        return;
    };
    let before = world.fingerprints().await;
    world.set("MIGRATE_STORE", format!("file://{}/store", disk.path().display()));
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(1).says(&format!("{database}: the store could not write")).says("No space left on device");
    ran.says("No database was changed.");
    assert_same(&before, &world.fingerprints().await);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full() {
    ends_on_a_full_disk(with_noise("disk_full").await, "rag").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_of_parts() {
    ends_on_a_full_disk(divided("disk_full_parts", "").await, "big").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_may_not_grow() {
    let world = with_noise("file_limit").await;
    let before = world.fingerprints().await;
    let whole = world.command(&["apply", "--yes"]);
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 1000; exec \"$@\"", "sh"])
        .arg(whole.get_program())
        .args(whole.get_args());
    limited.current_dir(world.path()).env_clear();
    limited.envs(whole.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran: Ran = limited.output().expect("a shell").into();
    ran.expect(1).says("rag: the store could not write").says("File too large").says("No database was changed.");
    assert_same(&before, &world.fingerprints().await);
    assert_eq!(stored(&world, "manifest"), Vec::<std::path::PathBuf>::new());
    apply(&world);
}

/// The line of the README, typed into a shell.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_by_hand() {
    let world = with_noise("by_hand").await;
    let before = fingerprint(world.url("rag")).await;
    apply(&world);
    let archives = stored(&world, "archive.dump.gz");
    assert_eq!(archives.len(), 1, "{archives:?}");
    let other = fresh_database("by_hand_restored").await;
    let restored = Command::new("sh")
        .args(["-c", "gunzip -c \"$ARCHIVE\" | pg_restore --exit-on-error --no-owner -d \"$DB\""])
        .env("ARCHIVE", &archives[0])
        .env("DB", &other)
        .env("PATH", format!("{}:{}", cluster().bin_dir().display(), std::env::var("PATH").expect("a path")))
        .output()
        .expect("a shell");
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    assert_same_database(&before.without_database_level(), &fingerprint(&other).await.without_database_level());
}
