//! The budget of connections: a server, a role or a database that has none left, and one that has fewer than the plan would take.

use super::{doctor, findings, one_migration};
use crate::harness::OWNER;
use crate::own_server::OwnServer;
use crate::world::TestWorld;

/// `apply` and `doctor` fail in these words, and with the sessions gone `apply` goes through.
async fn refused<T>(own: &OwnServer, world: &TestWorld, held: T, says: &[&str]) {
    let there = own.sessions().await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(1).ends("No database was changed.");
    for text in says {
        ran.says(text);
    }
    own.down_to(there).await;
    let told = world.run(&["doctor"]);
    assert!(told.expect(1).stdout.contains(says[0]), "{}", told.stdout);
    drop(held);
    own.down_to(0).await;
    assert_eq!(world.value("a", "to_regclass('t')").await, "NULL");
    own.down_to(0).await;
    assert_eq!(world.json(0, &["status"])["unfinished_run"], serde_json::Value::Null);
    own.down_to(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_none_left() {
    let own = OwnServer::start(&[("max_connections", "10")]).await;
    let world = own.world("one", "").await;
    one_migration(&world, "[run]\njobs = 6\n");
    refused(
        &own,
        &world,
        own.held(7).await,
        &[
            "no connection is free at postgresql://release@",
            "remaining connection slots are reserved",
            "max_connections",
        ],
    )
    .await;
    let few = "a run opens at least 4 connections to the server of a, and 3 are there for it";
    let why = "max_connections is 10, 3 are kept for superusers, and 4 are in use";
    refused(&own, &world, own.held(4).await, &[few, why]).await;

    // Less at once, and so it is said.
    let held = own.held(2).await;
    let found = findings(&doctor(&world), "connections");
    assert_eq!((found.len(), &found[0]["outcome"]), (1, &serde_json::json!("warned")), "{found:#?}");
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(0)
        .says("note: 5 are there on the server of a, and a run opens at most 5")
        .says("3 dumps or restores at once in place of 6");
    // The way back has to do with as many, and does.
    world.run(&["rollback", "--yes"]).expect(0);
    drop(held);
    assert_eq!(world.value("a", "to_regclass('t')").await, "NULL");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_or_a_database_that_has_none_left() {
    let own = OwnServer::start(&[]).await;
    let world = own.world("one", "").await;
    one_migration(&world, "");
    own.sql(&format!("alter role {OWNER} connection limit 5")).await;
    refused(
        &own,
        &world,
        own.held(5).await,
        &["no connection is free at", "too many connections for role", "ALTER ROLE"],
    )
    .await;
    let why = "the role release may have 5, and 2 are in use";
    refused(&own, &world, own.held(2).await, &["a run opens at least 4 connections", why]).await;
    own.sql(&format!("alter role {OWNER} connection limit -1; alter database one connection limit 1")).await;
    let inside = world.connect("a").await;
    refused(&own, &world, inside, &["no connection is free at", "too many connections for database", "ALTER DATABASE"])
        .await;
    let none = "0 connections are free in the database, and a run needs 2: the database may have 1, and 1 are in use";
    refused(&own, &world, (), &[none, "ALTER DATABASE \"one\" CONNECTION LIMIT"]).await;
    own.sql("alter database one connection limit 4").await;
    world.run(&["apply", "--yes"]).expect(0);
    world.run(&["rollback", "--yes"]).expect(0);
}
