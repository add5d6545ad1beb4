//! Stores that another version of `migrate` wrote to. What a later one wrote is refused by name, and nothing is changed; what an
//! earlier one wrote is read.

mod earlier;

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use crate::fingerprint::Fingerprint;
use crate::rollback::standby::warm;
use crate::rollback::{apply, release};
use crate::world::{Ran, TestWorld, assert_same};

/// The version that everything too new is from.
const LATER: &str = "9.1.0";

/// What must not change: the databases, and every object in the store with its content.
struct Still {
    databases: BTreeMap<String, Fingerprint>,
    store: BTreeMap<String, Vec<u8>>,
}

impl Still {
    async fn of(world: &TestWorld) -> Self {
        Self { databases: world.fingerprints().await, store: objects(world) }
    }

    async fn so(&self, world: &TestWorld) {
        assert_same(&self.databases, &world.fingerprints().await);
        assert!(objects(world) == self.store, "the store was changed: {:?}", world.objects());
    }
}

fn objects(world: &TestWorld) -> BTreeMap<String, Vec<u8>> {
    let read = |key: String| {
        let content = fs::read(world.store().join(&key)).expect("an object");
        (key, content)
    };
    world.objects().into_iter().map(read).collect()
}

/// Changes an object of the store that holds JSON.
fn edit(world: &TestWorld, ending: &str, change: impl FnOnce(&mut Value)) {
    let path = world.object(ending);
    let mut value: Value = serde_json::from_slice(&fs::read(&path).expect("an object")).expect("JSON");
    change(&mut value);
    fs::write(path, value.to_string()).expect("an object");
}

/// Says which version wrote it, and which reads it.
#[track_caller]
fn names_the_version(ran: &Ran, code: i32) -> &Ran {
    ran.expect(code).says(&format!("written by migrate {LATER}")).says(&format!("Use migrate {LATER} or a later one"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_a_later_version() {
    let world = warm("later_manifest").await;
    let before = world.fingerprints().await;
    let run = apply(&world);
    for database in ["chat", "rag"] {
        edit(&world, &format!("snapshots/{database}/manifest.json"), |manifest| {
            *manifest = json!({ "format": 99, "tool_version": LATER, "archives": { "somewhere": "else" } });
        });
    }
    let still = Still::of(&world).await;
    for args in [&["status"][..], &["runs", "list"], &["runs", "show", &run]] {
        world.run(args).expect(0);
    }
    let listed = world.run(&["snapshot", "list"]);
    assert!(listed.expect(0).stdout.contains(&format!("snapshots/rag/manifest.json was written by migrate {LATER}")));
    let listed = world.json(0, &["snapshot", "list"]);
    assert_eq!((&listed["snapshots"], &listed["unreadable"][1]["database"]), (&json!([]), &json!("rag")), "{listed}");
    names_the_version(&world.run(&["snapshot", "verify"]), 1).says("docs/restore-by-hand.md");
    names_the_version(&world.run(&["snapshot", "drill", &run]), 1);
    let pruned = world.json(0, &["snapshot", "prune", "--yes"]);
    assert_eq!((&pruned["pruned"], pruned["kept"].as_array().map(Vec::len)), (&json!([]), Some(2)), "{pruned}");
    for args in [&["rollback", "--yes"][..], &["rollback", "--dry-run"], &["rollback", "--via", "snapshot", "--yes"]] {
        names_the_version(&world.run(args), 4).says("NOT rolled back: chat, rag.");
    }
    still.so(&world).await;

    // A standby needs no manifest, and neither does its price.
    let ahead = world.json(0, &["rollback", "--via", "standby", "--only", "rag", "--dry-run"]);
    assert_eq!(ahead["databases"][0]["via"], "standby", "{ahead}");
    world.run(&["rollback", "--via", "standby", "--only", "rag", "--yes"]).expect(0);
    assert_same(&BTreeMap::from([("rag".to_owned(), before["rag"].clone())]), &world.fingerprints().await);
}

/// One entry more, of a later version.
fn another_entry(world: &TestWorld, run: &str, format: u32, fact: &Value) {
    let folder = world.store().join(format!("runs/{run}/journal"));
    let count = fs::read_dir(&folder).expect("a journal").count() + 1;
    let by = json!({ "host": "h", "user": "u", "pid": 1, "version": LATER });
    let entry = json!({ "format": format, "seq": count, "at": "2030-01-01T00:00:00Z", "by": by, "fact": fact });
    fs::write(folder.join(format!("{count:06}.json")), entry.to_string()).expect("an entry");
}

/// Whatever would change something is refused, whatever looks says why.
async fn refused(world: &TestWorld, run: &str, rollback_exit: i32) {
    let still = Still::of(world).await;
    world.file("migrations/rag/002_next.sql", "create table next (id int);\n");
    let told = world.run(&["status"]);
    assert!(told.expect(0).stdout.contains(&format!("Run {run} was written by migrate {LATER}")), "{}", told.stdout);
    assert_eq!(world.json(0, &["status"])["unfinished"]["newer"], LATER);
    let listed = world.run(&["runs", "list"]);
    assert!(listed.expect(0).stdout.contains(&format!("holds entries of migrate {LATER}")), "{}", listed.stdout);
    assert_eq!(world.json(0, &["runs", "list"])["runs"][0]["newer"], LATER);
    let shown = world.run(&["runs", "show", run]);
    assert!(shown.expect(0).stdout.contains(&format!("holds entries of migrate {LATER}")), "{}", shown.stdout);
    for args in [&["snapshot", "list"][..], &["snapshot", "verify"]] {
        world.run(args).expect(0);
    }
    names_the_version(&world.run(&["apply", "--yes"]), 5);
    names_the_version(&world.run(&["resume", run, "--yes"]), rollback_exit);
    names_the_version(&world.run(&["resume", "--yes"]), rollback_exit);
    for way in ["auto", "snapshot", "standby", "down"] {
        names_the_version(&world.run(&["rollback", run, "--via", way, "--yes"]), rollback_exit);
    }
    names_the_version(&world.run(&["rollback", "--dry-run"]), rollback_exit);
    let pruned = world.json(0, &["snapshot", "prune", "--yes"]);
    assert_eq!(pruned["pruned"], json!([]), "{pruned}");
    let dropped = world.json(0, &["snapshot", "prune", "--replaced", "--yes"]);
    assert_eq!(dropped["dropped"], json!([]), "{dropped}");
    still.so(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_a_later_version() {
    let world = release("later_entry", &["rag"]).await;
    let run = apply(&world);
    let last = world.objects().into_iter().rfind(|it| it.contains("/journal/")).expect("an end");
    fs::remove_file(world.store().join(last)).expect("it was there");
    another_entry(&world, &run, 1, &json!({ "event": "teleported", "database": "rag" }));
    refused(&world, &run, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_in_a_later_format() {
    let world = release("later_format", &["rag"]).await;
    let run = apply(&world);
    // It looks like an end that is known, and may mean something else.
    let last = world.objects().into_iter().rfind(|it| it.contains("/journal/")).expect("an end");
    fs::remove_file(world.store().join(last)).expect("it was there");
    another_entry(&world, &run, 2, &json!({ "event": "end", "outcome": "succeeded" }));
    refused(&world, &run, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_which_nothing_is_known() {
    let world = release("later_run", &["rag"]).await;
    let run = apply(&world);
    let folder = world.store().join(format!("runs/{run}/journal"));
    fs::remove_dir_all(&folder).expect("it was there");
    fs::create_dir(&folder).expect("a folder");
    another_entry(&world, &run, 2, &json!(["begin", { "of": "something" }]));
    // It may be of any target, and may have changed any database: none that is known, and so none that is named.
    refused(&world, &run, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_run_of_a_later_version_stands_in_the_way() {
    let world = release("later_later", &["rag"]).await;
    let before = world.fingerprints().await;
    let run = apply(&world);
    world.file("migrations/rag/002_next.sql", "create table next (id int);\n");
    let later = apply(&world);
    another_entry(&world, &later, 1, &json!({ "event": "teleported" }));
    let still = Still::of(&world).await;
    names_the_version(&world.run(&["rollback", &run, "--yes"]), 6).says(&later);
    still.so(&world).await;
    // Once it is back, by whichever version, it is in nobody's way.
    let last = world.objects().into_iter().rfind(|it| it.contains("/journal/")).expect("an entry");
    fs::remove_file(world.store().join(last)).expect("it was there");
    world.run(&["rollback", "--yes"]).expect(0);
    another_entry(&world, &later, 1, &json!({ "event": "end", "outcome": "rolled_back", "proof": "video" }));
    world.run(&["rollback", &run, "--yes"]).expect(0);
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_plan_of_a_later_version() {
    let world = release("later_plan", &["rag"]).await;
    let before = world.fingerprints().await;
    let run = apply(&world);
    let path = world.object("/plan.toml");
    let plan = fs::read_to_string(&path).expect("a plan");
    another_entry(&world, &run, 1, &json!({ "event": "end", "outcome": "succeeded" }));
    for (from, to, why) in [
        ("version = 1\n", "version = 2\n", "the plan is of version 2"),
        ("[targets.local.databases]", "[cellar]\n[targets.local.databases]", "`cellar` is not a key of the plan"),
    ] {
        fs::write(&path, plan.replace(from, to)).expect("a plan");
        let still = Still::of(&world).await;
        for args in [&["rollback", "--yes"][..], &["rollback", "--dry-run"], &["rollback", "--via", "down", "--yes"]] {
            names_the_version(&world.run(args), 4).says(&format!("the plan of run {run}")).says(why);
        }
        for args in [
            &["status"][..],
            &["runs", "list"],
            &["runs", "show", &run],
            &["snapshot", "list"],
            &["snapshot", "verify"],
        ] {
            world.run(args).expect(0);
        }
        still.so(&world).await;
    }
    fs::write(&path, plan).expect("a plan");
    world.run(&["rollback", "--yes"]).expect(0);
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_plan_of_a_later_version() {
    let world = release("later_saved", &["rag"]).await;
    world.run(&["plan", "--out", "saved.json"]).expect(0);
    let path = world.path().join("saved.json");
    let saved: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
    assert_eq!((&saved["format"], &saved["tool_version"]), (&json!(1), &json!(env!("CARGO_PKG_VERSION"))));
    fs::write(&path, json!({ "format": 2, "tool_version": LATER, "work": [] }).to_string()).expect("a file");
    let still = Still::of(&world).await;
    names_the_version(&world.run(&["apply", "saved.json", "--yes"]), 64)
        .says("or make another with `migrate plan --out FILE`");
    still.so(&world).await;
    // One that does not say its format is of the first versions.
    let mut first = saved;
    for field in ["format", "tool_version", "segments", "standbys"] {
        first.as_object_mut().expect("an object").remove(field);
    }
    fs::write(&path, first.to_string()).expect("a file");
    world.run(&["apply", "saved.json", "--yes"]).expect(0);
}
