//! What a rollback refuses, what it says it would do, and when there is nothing to do.

use std::fs;

use migrate::outside::cluster::{Cluster, ClusterOptions};
use serde_json::Value;

use super::{apply, release, step};
use crate::world::{TestWorld, assert_same, variable};

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_says_what_would_happen_and_changes_nothing() {
    let world = release("dry", &["chat", "rag"]).await;
    world.plan(&step("rag"));
    world.sql("rag", "create table t as select generate_series(1, 1234) id").await;
    let run = apply(&world);
    let (oid, after, objects) = (world.oid("rag").await, world.fingerprints().await, stored(&world));

    let told = world.json(0, &["rollback", "--dry-run"]);
    assert_eq!((&told["run"], &told["dry_run"]), (&Value::from(run.as_str()), &Value::from(true)), "{told}");
    let databases = told["databases"].as_array().expect("a list");
    assert_eq!(databases.len(), 1, "{told}");
    let rag = &databases[0];
    assert_eq!((&rag["name"], &rag["rows"], &rag["via"]), (&"rag".into(), &1234.into(), &"snapshot".into()), "{told}");
    assert_eq!(rag["dbname"], world.dbname("rag"));
    let ran = world.run(&["rollback", &run, "--dry-run"]);
    ran.expect(0);
    for text in [&run, "1,234 rows", rag["kept_as"].as_str().expect("a name"), "Nothing was done."] {
        assert!(ran.stdout.contains(text), "{text:?} is not in\n{}", ran.stdout);
    }

    assert_eq!(world.oid("rag").await, oid);
    assert_same(&after, &world.fingerprints().await);
    assert_eq!(stored(&world), objects, "nothing was written");
    assert_eq!(world.json(0, &["rollback", "--yes"])["databases"][1]["kept_as"], rag["kept_as"]);
}

/// Every file in the store.
fn stored(world: &TestWorld) -> Vec<String> {
    let mut folders = vec![world.store()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path())
            } else {
                files.push(entry.path().display().to_string())
            }
        }
    }
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn some_databases_alone_and_then_the_others() {
    let world = release("only", &["chat", "rag"]).await;
    let before = world.fingerprints().await;
    apply(&world);
    let applied = world.fingerprints().await;
    let none = world.run(&["rollback", "--only", "nobody", "--yes"]);
    none.expect(64).says("nobody").says("chat, rag");

    let back = world.json(0, &["rollback", "--only", "rag", "--yes"]);
    let rolled: Vec<&Value> =
        back["databases"].as_array().expect("a list").iter().map(|it| &it["rolled_back"]).collect();
    assert_eq!(rolled, [false, true], "{back}");
    let now = world.fingerprints().await;
    assert!(now["chat"] == applied["chat"] && now["rag"] == before["rag"]);
    assert_eq!(world.json(0, &["status"])["unfinished_run"], Value::Null);

    assert_eq!(world.json(0, &["rollback", "--yes"])["databases"][0]["rolled_back"], true);
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_not_there_or_of_another_target() {
    let world = release("which_run", &["rag"]).await;
    world.run(&["rollback", "--yes"]).expect(64).says("local");
    world.run(&["rollback", "20200101-000000-000abc", "--yes"]).expect(64).says("20200101-000000-000abc");
    let run = apply(&world);
    let after = world.fingerprints().await;
    let store = format!("file://{}", world.store().display());
    let other = world.run(&["rollback", &run, "--store", &store, "-t", "production", "--yes"]);
    other.expect(64).says("production").says("local");
    assert_same(&after, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_nothing_to_do_the_second_time() {
    let world = release("twice", &["rag"]).await;
    let before = world.fingerprints().await;
    let run = apply(&world);
    assert_eq!(world.json(0, &["rollback", "--yes"])["outcome"], "rolled_back");
    let (oid, objects) = (world.oid("rag").await, stored(&world));
    for args in [vec!["rollback", "--yes"], vec!["rollback", &run, "--yes"]] {
        assert_eq!(world.json(0, &args)["outcome"], "nothing_to_do");
    }
    assert_eq!((world.oid("rag").await, stored(&world)), (oid, objects));
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_run_that_changed_the_same_database_goes_first() {
    let world = release("later", &["chat", "rag"]).await;
    let before = world.fingerprints().await;
    let first = apply(&world);
    world.file("migrations/rag/002_more.sql", "create table more (id int);\n");
    let second = apply(&world);
    let after = world.fingerprints().await;
    world.run(&["rollback", &first, "--yes"]).expect(6).says(&second).says("rag").says("No database was changed.");
    assert_same(&after, &world.fingerprints().await);
    world.run(&["rollback", &second, "--yes"]).expect(0);
    world.run(&["rollback", &first, "--yes"]).expect(0);
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_is_refused() {
    let mut world = release("other_server", &["rag"]).await;
    apply(&world);
    let after = world.fingerprints().await;
    let other = Cluster::start(ClusterOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    world.set(&variable("rag"), other.url("postgres", "postgres"));
    let ran = world.run(&["rollback", "--yes"]);
    ran.expect(4).says("on another server").says("NOT rolled back: rag");
    assert_same(&after, &world.fingerprints().await);
    world.set(&variable("rag"), world.url("rag").to_owned());
    world.run(&["rollback", "--yes"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_not_those_of_the_snapshot_are_refused() {
    let world = release("counts", &["chat", "rag"]).await;
    world.sql("rag", "create table t as select generate_series(1, 10) id").await;
    let run = apply(&world);
    let (after, oids) = (world.fingerprints().await, (world.oid("chat").await, world.oid("rag").await));
    let manifest = world.store().join(format!("runs/{run}/snapshots/rag/manifest.json"));
    let text = fs::read_to_string(&manifest).expect("a manifest");
    assert!(text.contains("\"rows\": 10"), "{text}");
    fs::write(&manifest, text.replace("\"rows\": 10", "\"rows\": 11")).expect("written");

    let ran = world.run(&["rollback", "--yes"]);
    ran.expect(4).says("public.t has 10 rows, and 11 were dumped").says("NOT rolled back: chat, rag");
    assert_eq!((world.oid("chat").await, world.oid("rag").await), oids);
    assert_same(&after, &world.fingerprints().await);

    fs::write(&manifest, text).expect("written");
    world.run(&["rollback", "--yes"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_archive_is_refused_before_anything_is_made() {
    let world = release("damaged", &["rag"]).await;
    let run = apply(&world);
    let after = world.fingerprints().await;
    let archive = world.store().join(format!("runs/{run}/snapshots/rag/archive.dump.gz"));
    let mut bytes = fs::read(&archive).expect("an archive");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, &bytes).expect("written");
    world.run(&["rollback", "--yes"]).expect(4).says("archive.dump.gz is damaged").says("NOT rolled back: rag");
    assert_same(&after, &world.fingerprints().await);
    let sides = format!("select count(*) from pg_database where datname like '%restore_{}'", run.replace('-', "_"));
    assert_eq!(world.ask(&sides).await, "0");
}
