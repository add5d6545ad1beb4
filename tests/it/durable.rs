//! What the journal calls done survives a crash of the server, also where the server lets commits go without the disk.

use serde_json::json;

use crate::own_server::OwnServer;
use crate::world::{TestWorld, assert_same, sql_step};

/// Tells what the session of a migration commits with, in its transaction and without one.
const SEEN: &str = "create table seen as select current_setting('synchronous_commit') as it;\n";

async fn seen(setting: &str) -> (String, String) {
    let world = TestWorld::new("durable_seen", &["a"]).await;
    let name = world.dbname("a");
    if !setting.is_empty() {
        world.sql_as_superuser("a", &format!("alter database \"{name}\" set synchronous_commit = {setting}")).await;
    }
    world.sql_plan("");
    world.file("migrations/a/001_bare.sql", &format!("-- migrate:no-transaction\n{}", SEEN.replace("seen", "bare")));
    // The last one, with which all before it are on the disk.
    world.file("migrations/a/002_seen.sql", SEEN);
    world.run(&["apply", "--yes"]).expect(0);
    (world.value("a", "select it from seen").await, world.value("a", "select it from bare").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_raised_and_never_lowered() {
    // The server of the tests lets commits go without the disk.
    for setting in ["", "off", "local", "on"] {
        assert_eq!(seen(setting).await, ("on".to_owned(), "on".to_owned()), "{setting}");
    }
    for setting in ["remote_write", "remote_apply"] {
        assert_eq!(seen(setting).await, (setting.to_owned(), setting.to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_called_done_is_there_after_a_crash() {
    // Nobody writes the log to disk by himself for ten seconds.
    let own = OwnServer::start(&[("synchronous_commit", "off"), ("wal_writer_delay", "10000ms")]).await;
    let world = own.world("crashed", "").await;
    world.plan(&sql_step("a"));
    world.file("migrations/a/001_t.sql", "create table t (id int);\n-- migrate:down\ndrop table t;\n");
    own.sql("checkpoint").await;
    let before = world.fingerprints().await;
    let crash = || {
        own.cluster.stop_immediate().expect("it runs");
        own.cluster.start_again().expect("it can be started");
    };
    let run = world.json(0, &["apply", "--yes"])["run"].clone();
    crash();
    let status = world.json(0, &["status"]);
    assert_eq!(
        (&status["databases"][0]["applied"], &status["databases"][0]["last_run"]),
        (&json!(1), &run),
        "{status:#}"
    );
    assert_eq!(world.value("a", "to_regclass('t')").await, "t");

    world.run(&["rollback", "--yes"]).expect(0);
    crash();
    assert_same(&before, &world.fingerprints().await);
    let kept = "select count(*) from pg_database where datname like 'crashed\\_\\_replaced%'";
    let kept: i64 = sqlx::query_scalar(kept).fetch_one(&mut own.session().await).await.expect("a number");
    assert_eq!(kept, 1, "the exchange was committed");

    world.run(&["apply", "--yes"]).expect(0);
    world.run(&["rollback", "--via", "down", "--yes"]).expect(0);
    crash();
    assert_eq!(world.value("a", "to_regclass('t')").await, "NULL");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_applied_before_a_failure_is_there_after_a_crash() {
    let own = OwnServer::start(&[("synchronous_commit", "off"), ("wal_writer_delay", "10000ms")]).await;
    let world = own.world("halted", "").await;
    world.plan(&(sql_step("a") + "[run]\non_failure = \"halt\"\n"));
    for (name, sql) in [("001_t", "create table t ()"), ("002_u", "create table u ()"), ("003_bad", "select nonsense")]
    {
        world.file(&format!("migrations/a/{name}.sql"), &format!("{sql};\n"));
    }
    own.sql("checkpoint").await;
    world.run(&["apply", "--yes"]).expect(4);
    own.cluster.stop_immediate().expect("it runs");
    own.cluster.start_again().expect("it can be started");
    assert_eq!(world.json(0, &["status"])["databases"][0]["applied"], 2);
    assert_eq!(world.value("a", "to_regclass('u')").await, "u");
}
