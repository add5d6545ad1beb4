//! A server's disk: how much a run puts on it, how much is free where that can be seen, and what becomes of a migration and of a restore
//! that fill it.

use std::os::unix::fs::{PermissionsExt as _, chown};

use serde_json::Value;

use super::{doctor, findings, one_migration, refused};
use crate::harness::OWNER;
use crate::own_server::OwnServer;
use crate::store::disk::SmallDisk;
use crate::world::{TestWorld, assert_same, sql_step};

/// A server with a tablespace on a small disk, as far as this machine lets us mount one, and a world whose database is on it.
async fn on_a_small_disk(size: &str) -> Option<(OwnServer, SmallDisk, TestWorld)> {
    let Some(disk) = SmallDisk::mount(size) else {
        eprintln!("not shown here: mounting a small disk takes a superuser of this machine");
        return None;
    };
    let own = OwnServer::start(&[]).await;
    let (user, group) = own.user();
    std::fs::set_permissions(disk.path(), std::fs::Permissions::from_mode(0o755)).expect("ours");
    let folder = disk.path().join("space");
    std::fs::create_dir(&folder).expect("a folder");
    chown(&folder, Some(user), Some(group)).expect("ours");
    own.sql(&format!("create tablespace small location '{}'", folder.display())).await;
    own.sql(&format!("grant create on tablespace small to {OWNER}")).await;
    let world = own.world("tight", "tablespace small").await;
    // What was copied is on the disk, and not only in the server's memory.
    own.sql("checkpoint").await;
    Some((own, disk, world))
}

fn rows(kilobytes: u32) -> String {
    format!(
        "select n, string_agg(sha512((random() * n)::text::bytea)::text, '') a from generate_series(1, {kilobytes}) n, generate_series(1, \
         8) m group by n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_does_not_say() {
    let world = TestWorld::new("disk_unknown", &["a"]).await;
    one_migration(&world, "");
    let found = findings(&doctor(&world), "disk");
    let detail = found[0]["detail"].as_str().expect("words");
    assert!(
        detail.starts_with("a rollback by snapshot takes about ") && detail.ends_with("the server does not say"),
        "{detail}"
    );
    assert_eq!(found[0]["outcome"], "passed");
}

#[tokio::test(flavor = "multi_thread")]
async fn room_that_is_not_there() {
    let Some((own, disk, world)) = on_a_small_disk("12m").await else { return };
    one_migration(&world, "");
    own.sql(&format!("grant pg_read_all_settings to {OWNER}")).await;
    let document = world.json(0, &["doctor"]);
    let found = findings(&document, "disk");
    assert_eq!(found[0]["outcome"], "warned", "{document:#}");
    assert!(
        found[0]["help"].as_str().is_some_and(|it| it.contains(&disk.path().display().to_string())),
        "{document:#}"
    );
    // A standby is a copy, and there is no doubt about its size.
    one_migration(&world, "[databases.a]\nstandby = true\n");
    refused(&world, "disk", "Make room on the disk of ", "MiB are free there").await;
    drop((own, disk));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_fills_the_disk() {
    let Some((own, disk, world)) = on_a_small_disk("40m").await else { return };
    world.plan(&sql_step("a"));
    world.file("migrations/a/001_t.sql", "create table t (id int);\n");
    world.file("migrations/a/002_fill.sql", &format!("create table much as {};\n", rows(60_000)));
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(3)
        .says("`002_fill` failed at migrations/a/002_fill.sql:1:1")
        .says("No space left on device")
        .says("(SQLSTATE 53100)")
        .says("disk of the database's server is full")
        .ends("Rolled back, as before the run: a.");
    assert_same(&before, &world.fingerprints().await);
    world.file("migrations/a/002_fill.sql", "create table much (id int);\n");
    world.run(&["apply", "--yes"]).expect(0);
    drop((own, disk));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_fills_the_disk() {
    let Some((own, disk, world)) = on_a_small_disk("28m").await else { return };
    one_migration(&world, "");
    world.sql("a", &format!("create table noise as {}", rows(12_000))).await;
    let before = world.fingerprints().await;
    world.run(&["apply", "--yes"]).expect(0);
    let after = world.fingerprints().await;
    let ran = world.run(&["rollback", "--yes"]);
    ran.expect(4).says("No space left on device").says("NOT rolled back: a");
    assert_same(&after, &world.fingerprints().await);
    let sides = "select count(*) from pg_database where datname like 'tight\\_\\_%'";
    let mut session = own.session().await;
    let left: i64 = sqlx::query_scalar(sides).fetch_one(&mut session).await.expect("a number");
    assert_eq!(left, 0, "what was restored half way is gone, and with it what it took of the disk");

    // With room for it, the same command leads back.
    let back = remount(&disk, "120m");
    assert!(back, "the disk can be made larger");
    let ran = world.run(&["rollback", "--yes"]);
    ran.expect(0);
    assert_same(&before, &world.fingerprints().await);
    assert_eq!(world.json(0, &["status"])["unfinished_run"], Value::Null);
    drop((own, disk));
}

fn remount(disk: &SmallDisk, size: &str) -> bool {
    let options = format!("remount,size={size}");
    let mut mount = std::process::Command::new("mount");
    mount.args(["-o", &options]).arg(disk.path()).status().is_ok_and(|it| it.success())
}
