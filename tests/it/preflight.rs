//! What `migrate doctor`, and the start of `apply`, find on real databases and servers that are not as they should be: each with its
//! remedy, and before anything is changed.

mod connections;
mod disk;
mod files;
mod server;

use serde_json::Value;

use crate::world::{TestWorld, assert_same};

/// Writes a plan with one migration.
fn one_migration(world: &TestWorld, rest: &str) {
    world.sql_plan(rest);
    world.file("migrations/a/001_t.sql", "create table t (id int);\n");
}

/// What the doctor finds under a name.
#[track_caller]
fn findings(document: &Value, name: &str) -> Vec<Value> {
    let all = document["checks"].as_array().expect("a list");
    all.iter().filter(|it| it["name"] == name).cloned().collect()
}

/// The doctor's document, whatever its exit code.
fn doctor(world: &TestWorld) -> Value {
    world.run(&["doctor", "--json"]).document()
}

/// The doctor finds that `name` failed, with a remedy that says `help`, and `apply` refuses in words that hold `says`.
async fn refused(world: &TestWorld, name: &str, help: &str, says: &str) {
    let before = world.fingerprints().await;
    let document = world.json(1, &["doctor"]);
    let failed = |it: &&Value| it["outcome"] == "failed" && it["help"].as_str().is_some_and(|it| it.contains(help));
    assert!(findings(&document, name).iter().any(|it| failed(&it)), "{name} with {help}: {document:#}");
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(1).says(says).says(help).ends("No database was changed.");
    assert_same(&before, &world.fingerprints().await);
}

/// The doctor warns of `name` in words that hold `says`, with a remedy, and `apply` says so and goes on.
async fn warned(world: &TestWorld, name: &str, says: &str) {
    let document = world.json(0, &["doctor"]);
    let found = findings(&document, name);
    let warns = |it: &&Value| {
        it["outcome"] == "warned" && it["detail"].as_str().is_some_and(|it| it.contains(says)) && it["help"].is_string()
    };
    assert!(found.iter().any(|it| warns(&it)), "{name} with {says}: {document:#}");
    let ran = world.run(&["apply", "--yes"]);
    let note = ran.expect(0).stderr.lines().find(|line| line.starts_with("note: ") && line.contains(says));
    assert!(note.is_some(), "{says} in {}", ran.stderr);
}
