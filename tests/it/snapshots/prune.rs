//! `migrate snapshot prune`: what goes, what stays, and stores that do not let go.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::gcs_server::{Action, BUCKET, Fault, GcsServer};
use crate::world::TestWorld;

/// One database, and a store that keeps as many snapshots as `retention` says.
async fn world(hint: &str, retention: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["a"]).await;
    world.sql("a", "create table t (id int primary key); insert into t select generate_series(1, 100)").await;
    world.sql_plan("");
    keep(&world, retention);
    world.file("migrations/a/001_u.sql", "create table u (id int);\n");
    world
}

fn keep(world: &TestWorld, retention: &str) {
    let path = world.path().join("plans/production.toml");
    let plan = fs::read_to_string(&path).expect("written");
    let rest: Vec<&str> = plan.lines().filter(|line| !line.starts_with("retention")).collect();
    world.file(
        "plans/production.toml",
        &rest.join("\n").replace("[store]\n", &format!("[store]\nretention = {retention}\n")),
    );
}

fn take(world: &TestWorld) -> String {
    world.json(0, &["snapshot", "take"])["run"].as_str().expect("an id").to_owned()
}

fn runs(document: &Value, list: &str) -> Vec<String> {
    let of = |it: &Value| it["run"].as_str().expect("an id").to_owned();
    document[list].as_array().expect("a list").iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_does_not_keep_goes() {
    let world = world("prune", "{ keep_last = 2 }").await;
    let all = [take(&world), take(&world), take(&world), take(&world)];
    let objects = world.objects();
    let dry = world.json(0, &["snapshot", "prune", "--dry-run"]);
    assert_eq!(runs(&dry, "pruned"), [all[1].clone(), all[0].clone()]);
    assert_eq!(runs(&dry, "kept"), [all[3].clone(), all[2].clone()]);
    assert_eq!(world.objects(), objects, "a dry run removes nothing");
    world.run(&["snapshot", "prune"]).expect(64).says("--yes");
    assert_eq!(world.objects(), objects);

    let pruned = world.json(0, &["snapshot", "prune", "--yes"]);
    assert_eq!(runs(&pruned, "pruned"), runs(&dry, "pruned"));
    let left =
        |run: &str| world.objects().iter().filter(|key| key.contains(run) && key.contains("/snapshots/")).count();
    assert_eq!([left(&all[0]), left(&all[1]), left(&all[2]), left(&all[3])], [0, 0, 2, 2]);
    // The record of a run is no snapshot, and stays.
    assert!(world.objects().iter().any(|key| key.contains(&all[0]) && key.contains("/journal/")));
    let _ = world.run(&["snapshot", "verify"]).expect(0);
    assert_eq!(runs(&world.json(0, &["snapshot", "prune", "--yes"]), "pruned"), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_of_an_unfinished_run_stays() {
    let world = world("prune_unfinished", "{ keep_last = 0 }").await;
    let plan = fs::read_to_string(world.path().join("plans/production.toml")).expect("written");
    world.file("plans/production.toml", &format!("{plan}\n[run]\non_failure = \"halt\"\n"));
    world.file("migrations/a/002_bad.sql", "select oops;\n");
    let _ = world.run(&["apply", "--yes"]).expect(4);
    let unfinished = world.json(0, &["status"])["unfinished_run"].as_str().map(str::to_owned);
    let others = [take(&world), take(&world)];
    let pruned = world.json(0, &["snapshot", "prune", "--yes"]);
    assert_eq!(runs(&pruned, "pruned"), [others[0].clone()]);
    assert_eq!(pruned["kept"][1]["reason"], "its run is not finished", "{pruned:#}");
    assert_eq!(unfinished.as_deref(), pruned["kept"][1]["run"].as_str());
    let _ = world.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(world.value("a", "to_regclass('u') is null").await, "true");
}

/// A half-removed snapshot is none, and what is left of it goes the next time.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_behind_goes_later() {
    let world = world("prune_rest", "{ keep_last = 1 }").await;
    let (first, second) = (take(&world), take(&world));
    let manifest = world.store().join(format!("runs/{first}/snapshots/a/manifest.json"));
    fs::remove_file(manifest).expect("there");
    let pruned = world.json(0, &["snapshot", "prune", "--yes"]);
    assert_eq!((runs(&pruned, "pruned"), runs(&pruned, "kept")), (vec![first], vec![second]));
    assert_eq!(world.objects().iter().filter(|key| key.ends_with("archive.dump.gz")).count(), 1);
}

/// Its store is a bucket of the server.
fn lead(world: &mut TestWorld, server: &GcsServer) {
    for (name, value) in server.env(BUCKET) {
        world.set(&name, value);
    }
    world.set("MIGRATE_STORE", format!("gs://{BUCKET}/deep"));
}

async fn bucket(hint: &str, server: &GcsServer) -> TestWorld {
    let mut world = world(hint, "{ keep_last = 1 }").await;
    lead(&mut world, server);
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_lets_nothing_go_is_no_error() {
    let server = GcsServer::builder().retention().start();
    let world = bucket("prune_retention", &server).await;
    let (first, _) = (take(&world), take(&world));
    let before = server.objects(BUCKET);
    for mode in ["--dry-run", "--yes"] {
        let pruned = world.json(0, &["snapshot", "prune", mode]);
        assert_eq!(runs(&pruned, "pruned"), Vec::<String>::new());
        assert!(
            kept(&pruned, &first).starts_with("it is locked (archive.dump.gz: it is retained until "),
            "{pruned:#}"
        );
    }
    assert_eq!(server.objects(BUCKET), before);
    // It is whole still.
    let _ = world.run(&["snapshot", "verify", &first]).expect(0);
}

/// A person's lock is on any of the objects, and nothing of the snapshot is touched.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_stays_whole() {
    let server = GcsServer::builder().start();
    let mut world = super::divided("prune_held", "retention = { keep_last = 1 }").await;
    lead(&mut world, &server);
    let (first, _) = (take(&world), take(&world));
    let whole = of(&server, &first);
    let last = whole.iter().find(|key| key.ends_with("post-data.dump.gz")).expect("an archive");
    server.hold(BUCKET, last, true);
    server.log();
    for mode in ["--dry-run", "--yes"] {
        let pruned = world.json(0, &["snapshot", "prune", mode]);
        let name = last.rsplit('/').next().expect("a name");
        assert_eq!(kept(&pruned, &first), format!("it is locked ({name}: it is under a temporary hold)"));
    }
    assert!(!server.log().iter().any(|line| line.starts_with("DELETE ")));
    assert_eq!(of(&server, &first), whole);
    server.hold(BUCKET, last, false);
    // A question that is not answered is asked again; one that may not be asked keeps what it was about.
    server.fault(Fault::once(Action::Status(503), "GET /storage/v1/b/"));
    server.fault(Fault::once(Action::Reset, "GET /storage/v1/b/"));
    assert_eq!(runs(&world.json(0, &["snapshot", "prune", "--dry-run"]), "pruned"), std::slice::from_ref(&first));
    assert_eq!(server.clear_faults(), [], "every fault took place");
    server.fault(Fault::times(usize::MAX, Action::Status(403), "GET /storage/v1/b/"));
    let pruned = world.json(0, &["snapshot", "prune", "--yes"]);
    assert!(kept(&pruned, &first).contains("give the account the right to read objects"), "{pruned:#}");
    server.clear_faults();
    server.fault(Fault::times(usize::MAX, Action::Status(503), "GET /storage/v1/b/"));
    let ran = world.run(&["snapshot", "prune", "--yes"]);
    ran.expect(1).says("could not look for locks of").says("503 Service Unavailable");
    assert_eq!(of(&server, &first), whole);
    server.clear_faults();
    assert_eq!(runs(&world.json(0, &["snapshot", "prune", "--yes"]), "pruned"), [first]);
}

/// In a folder, what is read-only is locked, and so is what is in a read-only folder.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_only_in_a_folder_stays() {
    let world = world("prune_read_only", "{ keep_last = 1 }").await;
    let (first, _) = (take(&world), take(&world));
    let folder = world.store().join(format!("runs/{first}/snapshots/a"));
    let objects = world.objects();
    for (place, mode, after, why) in [
        (folder.join("archive.dump.gz"), 0o444, 0o644, "it is locked (archive.dump.gz: the file is read-only)"),
        (folder.clone(), 0o555, 0o755, "it is locked (archive.dump.gz: its folder is read-only)"),
    ] {
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).expect("ours");
        for how in ["--dry-run", "--yes"] {
            let pruned = world.json(0, &["snapshot", "prune", how]);
            assert_eq!((runs(&pruned, "pruned").len(), &*kept(&pruned, &first)), (0, why), "{pruned:#}");
        }
        assert_eq!(world.objects(), objects);
        fs::set_permissions(&place, fs::Permissions::from_mode(after)).expect("ours");
    }
    assert_eq!(runs(&world.json(0, &["snapshot", "prune", "--yes"]), "pruned"), [first]);
}

/// The objects of a run's snapshots.
fn of(server: &GcsServer, run: &str) -> Vec<String> {
    let keys = server.objects(BUCKET).into_iter().map(|(key, _)| key);
    keys.filter(|key| key.contains(run) && key.contains("/snapshots/")).collect()
}

/// Why a snapshot stays.
#[track_caller]
fn kept(pruned: &Value, run: &str) -> String {
    let lines = pruned["kept"].as_array().expect("a list");
    let line = lines.iter().find(|it| it["run"] == run).unwrap_or_else(|| panic!("{pruned:#}"));
    line["reason"].as_str().expect("a reason").to_owned()
}

/// One object that the store refuses to remove, though it told of no lock, keeps the others, where nothing is gone yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_nothing_foretold_is_no_error() {
    let server = GcsServer::builder().start();
    let world = bucket("prune_hold", &server).await;
    let (first, _) = (take(&world), take(&world));
    let whole = of(&server, &first);
    for held in ["archive.dump.gz", "manifest.json"] {
        server.log();
        server.fault(Fault::times(usize::MAX, Action::Status(403), &delete(&server, &first, held)));
        let pruned = world.json(0, &["snapshot", "prune", "--yes"]);
        assert_eq!(runs(&pruned, "pruned"), Vec::<String>::new());
        assert!(kept(&pruned, &first).contains("the store does not let it go"), "{pruned:#}");
        assert!(server.log().iter().any(|line| line.starts_with("DELETE ")), "it was tried");
        assert_eq!(of(&server, &first), whole);
        server.clear_faults();
        let _ = world.run(&["snapshot", "verify", &first]).expect(0);
    }
    let pruned = world.json(0, &["snapshot", "prune", "--yes"]);
    assert_eq!(runs(&pruned, "pruned"), std::slice::from_ref(&first));
    assert_eq!(of(&server, &first), Vec::<String>::new());
}

/// The request that removes the object of a run whose key ends so.
fn delete(server: &GcsServer, run: &str, ending: &str) -> String {
    let key = of(server, run).into_iter().find(|key| key.ends_with(ending)).expect("it is there");
    format!("DELETE /{BUCKET}/{key}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_among_several_archives_leaves_that_one() {
    let server = GcsServer::builder().start();
    let mut world = super::divided("prune_hold_parts", "retention = { keep_last = 1 }").await;
    lead(&mut world, &server);
    let (first, _) = (take(&world), take(&world));
    // The second of them to go: the manifest is put back, and all is as before.
    let whole = of(&server, &first);
    server.fault(Fault::times(usize::MAX, Action::Status(403), &delete(&server, &first, "1-pre-data.dump.gz")));
    let pruned = world.json(0, &["snapshot", "prune", "--yes"]);
    assert!(kept(&pruned, &first).contains("the store does not let it go"), "{pruned:#}");
    assert_eq!(of(&server, &first), whole);
    server.clear_faults();
    let _ = world.run(&["snapshot", "verify", &first]).expect(0);
    // A later one: it is no snapshot any more, and that is said.
    server.fault(Fault::times(usize::MAX, Action::Status(403), &delete(&server, &first, "2-data-rest.dump.gz")));
    let pruned = world.json(0, &["snapshot", "prune", "--yes"]);
    let why = kept(&pruned, &first);
    assert!(why.contains("2-data-rest.dump.gz stays") && why.contains("is no snapshot any more"), "{why}");
    assert_eq!(of(&server, &first).len(), 2, "that one and the archive after it");
    let listed = world.json(0, &["snapshot", "list"]);
    assert_eq!(listed["snapshots"].as_array().map(Vec::len), Some(1), "{listed:#}");
    // Once it is let go, the rest goes with the next.
    server.clear_faults();
    let pruned = world.json(0, &["snapshot", "prune", "--yes"]);
    assert_eq!((runs(&pruned, "pruned"), of(&server, &first)), (vec![first], Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_to_a_removal_is_no_failure() {
    let server = GcsServer::builder().start();
    let world = bucket("prune_lost", &server).await;
    let (first, _) = (take(&world), take(&world));
    for action in [Action::StatusAfter(503), Action::CloseAfter] {
        server.fault(Fault::once(action, "DELETE"));
    }
    let pruned = world.json(0, &["snapshot", "prune", "--yes"]);
    assert_eq!(runs(&pruned, "pruned"), std::slice::from_ref(&first));
    assert_eq!(server.clear_faults(), [], "every fault took place");
    assert!(!server.objects(BUCKET).iter().any(|(key, _)| key.contains(&first) && key.contains("/snapshots/")));
}
