//! The way back by hand: what survives it, what stands in its way, and what it refuses.

mod bare;
mod down;
mod down_stops;
mod freeze;
mod hooks;
mod price;
mod properties;
mod refusals;
mod replaced;
mod runbook;
mod selective;
mod sessions;
pub(crate) mod standby;
mod zoo;

use crate::world::TestWorld;

/// One `sql` step on each database, which makes a table there.
pub(crate) async fn release(hint: &str, databases: &[&str]) -> TestWorld {
    let world = TestWorld::new(hint, databases).await;
    prepare(&world, databases);
    world
}

/// Writes the plan and the migrations of [`release`].
pub(crate) fn prepare(world: &TestWorld, databases: &[&str]) {
    world.plan(&databases.iter().map(|name| step(name)).collect::<String>());
    for name in databases {
        world.file(&format!("migrations/{name}/001_new.sql"), "create table new (id int);\n");
    }
}

/// A `sql` step, called like its database.
pub(crate) fn step(name: &str) -> String {
    format!("[[steps]]\nname = \"{name}\"\ndatabase = \"{name}\"\nkind = \"sql\"\ndir = \"migrations/{name}\"\n")
}

/// Applies, and gives the run.
#[track_caller]
pub(crate) fn apply(world: &TestWorld) -> String {
    let report = world.json(0, &["apply", "--yes"]);
    assert_eq!(report["outcome"], "succeeded", "{report}");
    report["run"].as_str().expect("a run").to_owned()
}
