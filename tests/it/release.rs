//! The main job, typed as a release commander types it.

use crate::world::{TestWorld, assert_same};

const TWO_STEPS: &str = r#"
[[steps]]
name = "rag-schema"
database = "rag"
kind = "sql"
dir = "migrations/rag"

[[steps]]
name = "chat-schema"
database = "chat"
kind = "sql"
dir = "migrations/chat"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_applied_and_taken_back_by_hand() {
    let world = TestWorld::new("by_hand", &["rag", "chat"]).await;
    world.plan(TWO_STEPS);
    world.file("migrations/rag/001_a.sql", "create table a (id int primary key);\ninsert into a values (1);\n");
    world.file("migrations/chat/001_b.sql", "create table b (id int primary key);\n");
    let before = world.fingerprints().await;

    let applied = world.json(0, &["apply", "--yes"]);
    assert_eq!(applied["outcome"], "succeeded");
    assert_eq!(world.value("rag", "select count(*) from a").await, "1");
    let ledger = "select string_agg(step || '/' || name || ' ' || state, ',') from migrate.ledger";
    assert_eq!(world.value("rag", ledger).await, "rag-schema/001_a applied");

    let back = world.json(0, &["rollback", "--yes"]);
    assert_eq!(back["outcome"], "rolled_back");
    assert_eq!(back["run"], applied["run"]);
    assert_same(&before, &world.fingerprints().await);
}
