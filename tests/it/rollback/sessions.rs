//! Sessions on the databases while they are exchanged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::{apply, release};
use crate::harness::{as_superuser, connect, execute};
use crate::world::{TestWorld, assert_same, until};

#[tokio::test(flavor = "multi_thread")]
async fn all_databases_of_a_server_are_exchanged_or_none() {
    let world = release("one_tx", &["chat", "rag"]).await;
    let before = world.fingerprints().await;
    apply(&world);
    // A prepared transaction has no session that could be ended, and holds the second rename up.
    world.sql("rag", "begin; insert into new values (1); prepare transaction 'one_tx_orphan'").await;
    let (after, oids) = (world.fingerprints().await, (world.oid("chat").await, world.oid("rag").await));

    let ran = world.run(&["rollback", "--yes"]);
    ran.expect(4).says("prepared transaction").says("one_tx_orphan").says("NOT rolled back: chat, rag");
    assert_eq!((world.oid("chat").await, world.oid("rag").await), oids, "neither is exchanged");
    assert_same(&after, &world.fingerprints().await);

    world.sql("rag", "rollback prepared 'one_tx_orphan'").await;
    world.run(&["rollback", "--yes"]).expect(0);
    assert_same(&before, &world.fingerprints().await);
}

/// A pool whose tasks read and write until they are told to stop.
pub(super) struct Hammer {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU32>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    pool: PgPool,
}

impl Hammer {
    pub(super) async fn on(world: &TestWorld) -> Self {
        let pool = PgPoolOptions::new().max_connections(4).connect(world.url("rag")).await.expect("a pool");
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let task = || {
            let (pool, stop, done) = (pool.clone(), stop.clone(), done.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let wrote = sqlx::query("insert into traffic values (default)").execute(&pool).await;
                    done.fetch_add(u32::from(wrote.is_ok()), Ordering::Relaxed);
                }
            })
        };
        let tasks = (0..4).map(|_| task()).collect();
        Self { stop, done, tasks, pool }
    }

    pub(super) async fn goes_on(&self) {
        let from = self.done.load(Ordering::Relaxed);
        until("the clients write", || async { self.done.load(Ordering::Relaxed) > from + 20 }).await;
    }

    pub(super) async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("no panic");
        }
        self.pool.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_rest_are_ended_and_come_back() {
    let world = release("hammer", &["rag"]).await;
    world.sql("rag", "create table traffic (id serial)").await;
    apply(&world);
    let (hammer, oid) = (Hammer::on(&world).await, world.oid("rag").await);
    hammer.goes_on().await;
    world.run(&["rollback", "--yes"]).expect(0);
    // The same pool finds its way to the restored database.
    hammer.goes_on().await;
    assert_ne!(world.oid("rag").await, oid);
    assert_eq!(world.value("rag", "select to_regclass('new')").await, "NULL");
    assert_ne!(world.value("rag", "select count(*) from traffic").await, "0");
    hammer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_in_a_long_query_is_ended() {
    let world = release("long_query", &["rag"]).await;
    let before = world.fingerprints().await;
    apply(&world);
    let mut busy = world.connect("rag").await;
    let query = tokio::spawn(async move { sqlx::query("select pg_sleep(3600)").execute(&mut busy).await });
    let sleeps = format!(
        "select count(*) from pg_stat_activity where datname = '{}' and query like '%3600%'",
        world.dbname("rag")
    );
    until("the query runs", || async { world.ask(&sleeps).await == "1" }).await;
    world.run(&["rollback", "--yes"]).expect(0);
    query.await.expect("no panic").expect_err("the session was ended");
    assert_same(&before, &world.fingerprints().await);
}

/// The process of a session.
async fn pid(session: &mut PgConnection) -> i32 {
    sqlx::query_scalar(AssertSqlSafe("select pg_backend_pid()")).fetch_one(session).await.expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_superuser_is_named() {
    let world = release("superuser", &["chat", "rag"]).await;
    let before = world.fingerprints().await;
    apply(&world);
    let mut idle = connect(&as_superuser(world.url("rag"))).await;
    execute(&mut idle, "set application_name = 'the admin''s psql'").await;
    let pid = pid(&mut idle).await;
    let oids = (world.oid("chat").await, world.oid("rag").await);

    let ran = world.run(&["rollback", "--yes"]);
    ran.expect(4).says(&format!("pid {pid} of role postgres (the admin's psql)")).says("NOT rolled back: chat, rag");
    assert_eq!((world.oid("chat").await, world.oid("rag").await), oids);
    for name in ["chat", "rag"] {
        assert_eq!(world.value(name, "select count(*) from new").await, "0", "{name} is reachable");
    }

    drop(idle);
    world.run(&["rollback", "--yes"]).expect(0);
    assert_same(&before, &world.fingerprints().await);
}
