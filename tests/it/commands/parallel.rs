//! Steps on independent databases run side by side.

use crate::world::{GATE, TestWorld, finish};

async fn world(hint: &str, rest: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["a", "b"]).await;
    world.sql_plan(rest);
    for name in ["a", "b"] {
        world.file(&format!("migrations/{name}/001_gate.sql"), GATE);
    }
    world
}

/// Began and ended, by the ledger, in microseconds.
async fn span(world: &TestWorld, database: &str) -> (i64, i64) {
    let time = async |column: &str| {
        let sql = format!("select (extract(epoch from {column}) * 1000000)::bigint from migrate.ledger");
        world.value(database, &sql).await.parse().expect("a number")
    };
    (time("started_at").await, time("finished_at").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_on_independent_databases_overlap() {
    let world = world("parallel", "").await;
    let (mut a, mut b) = (world.gate("a").await, world.gate("b").await);
    let child = world.start(&["apply", "--yes"]);
    a.reached().await;
    b.reached().await;
    a.open().await;
    b.open().await;
    let _ = finish(child).expect(0);
    let (a, b) = (span(&world, "a").await, span(&world, "b").await);
    assert!(a.0 < b.1 && b.0 < a.1, "{a:?} and {b:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_at_a_time_if_the_plan_says_so() {
    let world = world("parallel_one", "[run]\nparallel = 1\n").await;
    let mut a = world.gate("a").await;
    let child = world.start(&["apply", "--yes"]);
    a.reached().await;
    a.open().await;
    let _ = finish(child).expect(0);
    let (a, b) = (span(&world, "a").await, span(&world, "b").await);
    assert!(a.1 <= b.0, "{a:?} and {b:?}");
}
