//! Several `migrate apply` at the same moment against one target: one carries the release, the others are refused.

use crate::world::{GATE, TestWorld, finish, sql_step};

/// `count` processes at once; the one that gets through is held in its migration until all others have ended.
async fn all_at_once(hint: &str, count: usize) {
    let world = TestWorld::new(hint, &["a", "b"]).await;
    world.plan(&(sql_step("a") + &sql_step("b")));
    world.file("migrations/a/001_one.sql", "create table one (id int);\ninsert into one values (1);\n");
    world.file("migrations/b/001_one.sql", &format!("{GATE}create table one (id int);\ninsert into one values (1);\n"));
    let mut gate = world.gate("b").await;
    let all: Vec<_> = (0..count).map(|_| world.start(&["apply", "--yes"])).collect();
    gate.reached().await;
    let waiting: Vec<_> = all.into_iter().map(|child| std::thread::spawn(move || finish(child))).collect();
    crate::world::until("all but one have ended", async || {
        waiting.iter().filter(|it| it.is_finished()).count() + 1 == count
    })
    .await;
    gate.open().await;
    let ended: Vec<_> = waiting.into_iter().map(|it| it.join().expect("nobody panics")).collect();
    let codes = |code: i32| ended.iter().filter(|ran| ran.code == code).count();
    let said: Vec<&str> = ended.iter().map(|ran| ran.stderr.as_str()).collect();
    assert_eq!((codes(0), codes(5)), (1, count - 1), "{said:#?}");
    for ran in ended.iter().filter(|ran| ran.code == 5) {
        ran.says("the lock is held by run ").says("since ").says("backend pid ").ends("No database was changed.");
    }
    for database in ["a", "b"] {
        assert_eq!(world.value(database, "select count(*) from one").await, "1");
        assert_eq!(world.value(database, "select count(*) from migrate.ledger").await, "1");
    }
    assert_eq!(world.json(0, &["runs", "list"])["runs"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_one_succeeds() {
    all_at_once("at_once_two", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_one_succeeds() {
    all_at_once("at_once_ten", 10).await;
}
