//! The way back by down scripts: what a run applied is undone where it is, and what was written since stays.

use std::fs;

use serde_json::{Value, json};

use super::{apply, bare, step};
use crate::world::{TestWorld, assert_same};

/// Three databases, of which `rag` waits for `chat`, and `user` for nothing. Each has an earlier release.
async fn released(hint: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["chat", "rag", "user"]).await;
    let waits = |name: &str, for_what: &str| step(name) + &format!("after = [\"{for_what}\"]\n");
    world.plan(&(step("chat") + &waits("rag", "chat") + &waits("user", "rag") + "[run]\nparallel = 1\n"));
    for name in ["chat", "rag", "user"] {
        world.file(&format!("migrations/{name}/001_t.sql"), "create table t (id int primary key, note text);\n");
    }
    apply(&world);
    world
}

/// A migration with its way back.
fn both(world: &TestWorld, database: &str, name: &str, up: &str, down: &str) {
    world.file(&format!("migrations/{database}/{name}.sql"), &format!("{up}\n-- migrate:down\n{down}\n"));
}

/// Two migrations on each database.
fn next_release(world: &TestWorld) {
    for name in ["chat", "rag", "user"] {
        both(world, name, "002_colour", "alter table t add column colour text;", "alter table t drop column colour;");
        world.file(&format!("migrations/{name}/003_more.sql"), "create table more (id int);\n");
        world.file(&format!("migrations/{name}/003_more.down.sql"), "drop table more;\n");
    }
}

/// `DATABASE STEP/NAME` of each, in the order of the journal.
fn undone(world: &TestWorld, run: &str) -> Vec<String> {
    let shown = world.json(0, &["runs", "show", run]);
    let entries = shown["entries"].as_array().expect("a list").iter().map(|entry| &entry["fact"]);
    let undone = entries.filter(|fact| fact["event"] == "undone");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let names =
        |fact: &Value| fact["migrations"].as_array().expect("a list").iter().map(text).collect::<Vec<_>>().join(",");
    undone.map(|fact| format!("{}/{}", text(&fact["step"]), names(fact))).collect()
}

const ORDER: [&str; 6] =
    ["user/003_more", "user/002_colour", "rag/003_more", "rag/002_colour", "chat/003_more", "chat/002_colour"];

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_undone_in_reverse_and_what_was_written_since_stays() {
    let world = released("down_order").await;
    let before = world.fingerprints().await;
    next_release(&world);
    let run = apply(&world);
    let oid = world.oid("rag").await;
    world.sql("rag", "insert into t values (7, 'written since', 'blue')").await;

    let told = world.json(0, &["rollback", "--via", "down", "--dry-run"]);
    let units = told["undo"].as_array().expect("a list").iter();
    let names: Vec<String> =
        units.map(|it| format!("{}/{}", it["step"].as_str().unwrap(), it["migrations"][0].as_str().unwrap())).collect();
    assert_eq!(names, ORDER, "{told}");
    assert_eq!(told["databases"][1]["undo"], json!(["rag/003_more", "rag/002_colour"]), "{told}");
    assert_eq!((&told["databases"][1]["via"], &told["dry_run"]), (&json!("down"), &json!(true)), "{told}");
    let ran = world.run(&["rollback", &run, "--via", "down", "--dry-run"]);
    ran.expect(0);
    let text = ["1. on user: undo user/003_more\n", "6. on chat: undo chat/002_colour\n", "Nothing was done."];
    assert!(text.iter().all(|it| ran.stdout.contains(it)), "{}", ran.stdout);
    // Without a terminal nobody can be asked.
    let _ = world.run(&["rollback", "--via", "down"]).expect(64);

    let back = world.json(0, &["rollback", "--via", "down", "--yes"]);
    assert_eq!(back["outcome"], "rolled_back", "{back}");
    for database in back["databases"].as_array().expect("a list") {
        let expected = (&json!(2), &json!(true), &json!("down"), &Value::Null);
        assert_eq!((&database["applied"], &database["rolled_back"], &database["via"], &database["kept_as"]), expected);
    }
    assert_eq!(undone(&world, &run), ORDER);
    assert_eq!(world.oid("rag").await, oid, "it is the same database");
    assert_eq!(world.value("rag", "select note from t where id = 7").await, "written since");
    world.sql("rag", "delete from t where id = 7").await;
    assert_same(&before, &world.fingerprints().await);

    let status = world.json(0, &["status"]);
    assert_eq!(status["unfinished_run"], Value::Null);
    assert_eq!(status["databases"][1]["pending"].as_array().map(Vec::len), Some(2), "{status}");
    assert_eq!(world.json(0, &["runs", "list"])["runs"][0]["outcome"], "rolled_back");
    let again = world.json(0, &["rollback", "--via", "down", "--yes"]);
    assert_eq!(
        (&again["outcome"], &again["databases"][0]["via"]),
        (&json!("nothing_to_do"), &json!("down")),
        "{again}"
    );
    apply(&world);
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_release_takes_its_ledger_along() {
    let world = TestWorld::new("down_first", &["rag"]).await;
    world.plan(&step("rag"));
    both(&world, "rag", "001_t", "create table t (id int);", "drop table t;");
    let before = world.fingerprints().await;
    apply(&world);
    let ran = world.run(&["rollback", "--via", "down", "--yes"]);
    ran.expect(0).says("rag: undid rag/001_t in");
    assert!(ran.stdout.contains("rag: 1 applied, rolled back by undoing them"), "{}", ran.stdout);
    assert_same(&before, &world.fingerprints().await);
    apply(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn some_databases_alone_and_then_the_others() {
    let world = released("down_only").await;
    let before = world.fingerprints().await;
    next_release(&world);
    let run = apply(&world);
    let applied = world.fingerprints().await;
    let back = world.json(0, &["rollback", "--via", "down", "--only", "rag", "--yes"]);
    assert_eq!(back["databases"][1]["via"], "down", "{back}");
    let now = world.fingerprints().await;
    assert!(now["chat"] == applied["chat"] && now["rag"] == before["rag"]);
    assert_eq!(world.json(0, &["status"])["unfinished_run"], Value::Null);
    let again = world.json(0, &["rollback", "--via", "down", "--only", "rag", "--yes"]);
    assert_eq!(again["outcome"], "nothing_to_do", "{again}");
    // The others by their snapshots: each database goes its own way.
    let back = world.json(0, &["rollback", &run, "--yes"]);
    let via: Vec<&Value> = back["databases"].as_array().expect("a list").iter().map(|it| &it["via"]).collect();
    assert_eq!(via, ["snapshot", "down", "snapshot"], "{back}");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_without_a_transaction_and_one_that_waits_for_its_lock() {
    let world = released("down_no_tx").await;
    world.sql("rag", "insert into t select n from generate_series(1, 100) n").await;
    let before = world.fingerprints().await;
    world.file(
        "migrations/rag/002_idx.sql",
        "-- migrate:no-transaction\ncreate index concurrently t_note on t (note);\n",
    );
    world.file(
        "migrations/rag/002_idx.down.sql",
        "-- migrate:no-transaction\n-- migrate:lock-timeout 100ms\ndrop index concurrently t_note;\n",
    );
    let up = "alter table t add column size int;";
    both(&world, "rag", "003_size", up, "-- migrate:lock-timeout 500ms\nalter table t drop column size;");
    apply(&world);
    let mut busy = world.connect("rag").await;
    crate::harness::execute(&mut busy, "begin; lock table t in share mode").await;
    let started = world.start(&["rollback", "--via", "down", "--yes"]);
    let waits =
        "exists (select from pg_stat_activity where wait_event_type = 'Lock' and query ilike '%drop column size%')";
    crate::world::until("the way back waits", async || world.ask(waits).await == "true").await;
    // Longer than the directive allows: it is seen trying again.
    crate::world::until("the first try is over", async || world.ask(waits).await == "false").await;
    crate::harness::execute(&mut busy, "commit").await;
    let ran = crate::world::finish(started);
    ran.expect(0).says("003_size did not get its lock (attempt 1)").says("lock table t in share mode");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_bare_machine_and_from_what_was_stored() {
    let world = released("down_bare").await;
    let before = world.fingerprints().await;
    next_release(&world);
    let run = apply(&world);
    // The files say something else by now, and then are gone.
    world.file("migrations/rag/003_more.down.sql", "drop table t;\n");
    world.run(&["rollback", "--via", "down", "--only", "rag", "--yes"]).expect(0);
    for folder in ["migrations", "plans"] {
        fs::remove_dir_all(world.path().join(folder)).expect("it was there");
    }
    let store = format!("file://{}", world.store().display());
    let args = ["rollback", &run, "--via", "down", "--store", &store, "-t", "local", "--yes"];
    bare::bare(&world, &["chat", "user"], &args).expect(0);
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_snapshots_has_this_way_alone() {
    let world = released("down_alone").await;
    let before = world.fingerprints().await;
    next_release(&world);
    world.file("migrations/user/004_bad.sql", "select no_such_column;\n");
    let ran = world.run(&["apply", "--yes", "--no-snapshot", "--reason", "no room"]);
    ran.expect(4);
    let run = world.json(0, &["runs", "list"])["runs"][0]["run"].as_str().expect("a run").to_owned();
    world.run(&["rollback", "--yes"]).expect(4).says(&format!("`migrate rollback {run} --via down`"));
    assert_eq!(world.json(0, &["rollback", "--via", "down", "--yes"])["outcome"], "rolled_back");
    assert_eq!(undone(&world, &run), ORDER);
    assert_same(&before, &world.fingerprints().await);
}
