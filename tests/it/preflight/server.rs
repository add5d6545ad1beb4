//! How a database and its server stand: what holds them, what they follow, and what follows them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::process::Stdio;

use super::{doctor, findings, one_migration, refused, warned};
use crate::harness::{as_superuser, connect, execute};
use crate::own_server::OwnServer;
use crate::world::{TestWorld, until};

async fn world(hint: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["a"]).await;
    one_migration(&world, "");
    world
}

/// Polls until the doctor finds something under the name that is not as it should be.
async fn until_found(world: &TestWorld, name: &str) {
    let bad = async || findings(&doctor(world), name).iter().any(|it| it["outcome"] != "passed");
    until("the doctor finds it", bad).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_that_was_left_behind() {
    let world = world("pre_prepared").await;
    world
        .sql("a", "create table mine (id int); begin; insert into mine values (1); prepare transaction 'it''s left'")
        .await;
    until_found(&world, "prepared transactions").await;
    let says = "a: the prepared transaction 'it''s left' of role release, ";
    let end = "`ROLLBACK PREPARED 'it''s left'`";
    refused(&world, "prepared transactions", end, says).await;
    let text = world.run(&["status"]);
    let note = text.expect(0).stdout.lines().find(|line| line.contains("note: the prepared transaction"));
    assert!(note.is_some_and(|it| it.contains(end) && it.contains("in the database ")), "{}", text.stdout);
    let status = world.json(0, &["status"]);
    assert_eq!(status["databases"][0]["prepared_transactions"][0]["gid"], "it's left", "{status:#}");

    // What the message says, typed.
    world.sql("a", "ROLLBACK PREPARED 'it''s left'").await;
    world.run(&["apply", "--yes"]).expect(0);
    assert_eq!(world.json(0, &["status"])["databases"][0]["prepared_transactions"], serde_json::Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_left_open() {
    let world = world("pre_old").await;
    let mut idle = world.connect("a").await;
    execute(&mut idle, "set application_name = 'a report'; begin; select 1").await;
    // Of a superuser's session, a role like ours is told nothing.
    let mut hidden = connect(&as_superuser(world.url("a"))).await;
    execute(&mut hidden, "begin; select 1").await;
    until_found(&world, "old transactions").await;
    let shown = findings(&doctor(&world), "old transactions");
    assert!(
        shown.iter().any(|it| it["detail"].as_str().is_some_and(|it| it.contains("pg_read_all_stats"))),
        "{shown:#?}"
    );
    warned(&world, "old transactions", "(release, a report, idle in transaction) has been in a transaction for").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_changes() {
    let world = world("pre_read_only").await;
    let name = world.dbname("a");
    world.sql_as_superuser("a", &format!("alter database \"{name}\" set default_transaction_read_only = on")).await;
    refused(&world, "takes changes", "URL of the primary", "a: it takes no changes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong() {
    let world = world("pre_clock").await;
    // In the place of a server whose clock is wrong: the first function of that name that its sessions find.
    let name = world.dbname("a");
    let clock = "create function clock_timestamp() returns timestamptz language sql as 'select pg_catalog.clock_timestamp() + interval \
                 ''1 hour'''";
    world.sql("a", clock).await;
    world.sql_as_superuser("a", &format!("alter database \"{name}\" set search_path = public, pg_catalog")).await;
    warned(&world, "clock", "s ahead of this machine's").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transaction_numbers_that_run_out() {
    const NEXT: u32 = 1_700_000_000;
    // Transactions in a page of the commit log, and pages in a file of it.
    const IN_A_FILE: u32 = 4 * 8192 * 32;
    let own = OwnServer::start(&[("autovacuum_freeze_max_age", "2000000000")]).await;
    let world = own.world("old", "").await;
    one_migration(&world, "");
    assert_eq!(findings(&doctor(&world), "transaction numbers")[0]["outcome"], "passed");
    own.sql("checkpoint").await;
    own.cluster.stop_immediate().expect("it runs");
    let log = own.cluster.data_dir().join("pg_xact");
    let first = fs::metadata(log.join("0000")).expect("the first file of the commit log");
    let file = log.join(format!("{:04X}", NEXT / IN_A_FILE));
    fs::write(&file, vec![0; 256 * 1024]).expect("a file");
    chown(&file, Some(first.uid()), Some(first.gid())).expect("the server's");
    let data = own.cluster.data_dir();
    let set =
        own.program("pg_resetwal").args(["-f", "-x", &NEXT.to_string(), "-D"]).arg(data).stdout(Stdio::null()).status();
    assert!(set.expect("the server's program").success());
    own.cluster.start_again().expect("it can be started");
    warned(&world, "transaction numbers", "transactions old").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_and_subscriptions() {
    let own = OwnServer::start(&[("wal_level", "logical")]).await;
    let world = own.world("followed", "").await;
    one_migration(&world, "");
    let mut inside = connect(&own.cluster.url("postgres", "followed")).await;
    execute(&mut inside, "select pg_create_logical_replication_slot('feeds', 'test_decoding')").await;
    execute(&mut inside, "create subscription follows connection 'host=/nowhere' publication p with (connect = false)")
        .await;
    let resting = findings(&doctor(&world), "replication slots");
    assert_eq!((resting.len(), &resting[0]["outcome"]), (1, &serde_json::json!("passed")), "{resting:#?}");

    let url = own.cluster.url("postgres", "followed");
    let mut reader = own.program("pg_recvlogical");
    reader.args(["--slot=feeds", "--start", "--file=-", "--dbname", &url]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut reader = reader.spawn().expect("the server's program");
    execute(&mut inside, "alter subscription follows enable").await;
    until_found(&world, "replication slots").await;
    let found = findings(&doctor(&world), "subscriptions");
    assert_eq!(
        found[0]["help"].as_str().map(|it| it.contains("ALTER SUBSCRIPTION \"follows\" DISABLE")),
        Some(true),
        "{found:#?}"
    );
    assert!(
        findings(&doctor(&world), "replication")[0]["detail"]
            .as_str()
            .expect("words")
            .starts_with("1 servers or readers")
    );
    warned(&world, "replication slots", "the logical replication slot feeds is being read from").await;
    reader.kill().expect("our child");
    reader.wait().expect("our child");
}
