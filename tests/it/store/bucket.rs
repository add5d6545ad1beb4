//! `gs://`, against the project's own server.

use std::collections::BTreeMap;
use std::time::Duration;

use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::fingerprint::Fingerprint;
use crate::gcs_server::{Action, BUCKET, Builder, Fault, GcsServer};
use crate::rollback::{apply, release};
use crate::world::{Ran, TestWorld, assert_same, until};

/// A release over two databases whose store is a bucket.
struct Scene {
    world: TestWorld,
    server: GcsServer,
    before: BTreeMap<String, Fingerprint>,
}

impl Scene {
    async fn new(hint: &str, builder: Builder) -> Self {
        let mut world = release(hint, &["chat", "rag"]).await;
        world.sql("rag", "create table t as select n, md5(n::text) from generate_series(1, 5000) n").await;
        let server = builder.start();
        for (name, value) in server.env(BUCKET) {
            world.set(&name, value);
        }
        world.set("MIGRATE_STORE", format!("gs://{BUCKET}/deep/releases"));
        let before = world.fingerprints().await;
        Self { world, server, before }
    }

    fn key(&self, run: &str, rest: &str) -> String {
        format!("deep/releases/runs/{run}/{rest}")
    }

    /// The whole story: release, look, release again, back, back.
    async fn whole_story(&self) {
        let world = &self.world;
        let first = apply(world);
        world.file("migrations/rag/002_more.sql", "create table more (id int);\n");
        let second = apply(world);
        let runs = world.json(0, &["runs", "list"]);
        let listed: Vec<&Value> = runs["runs"].as_array().expect("a list").iter().map(|it| &it["run"]).collect();
        assert_eq!(listed, [second.as_str(), first.as_str()], "{runs}");
        assert_eq!(world.json(0, &["snapshot", "list"])["snapshots"].as_array().map(Vec::len), Some(3));
        world.run(&["snapshot", "verify"]).expect(0);
        for run in [&second, &first] {
            assert_eq!(world.json(0, &["rollback", run, "--yes"])["outcome"], "rolled_back");
        }
        assert_same(&self.before, &world.fingerprints().await);
        assert_eq!(self.server.live_uploads(), 0);
    }

    /// Nothing happened to any database, and no upload is left.
    async fn untouched(&self) {
        assert_same(&self.before, &self.world.fingerprints().await);
        assert_eq!(self.server.live_uploads(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_whose_listings_have_pages() {
    let scene = Scene::new("gs_pages", GcsServer::builder().page_size(3)).await;
    scene.whole_story().await;
    let log = scene.server.log();
    let lists: Vec<&String> = log.iter().filter(|line| line.contains("list-type=2")).collect();
    assert!(lists.iter().any(|line| line.contains("continuation-token")), "{lists:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_lets_nobody_overwrite_or_delete() {
    Scene::new("gs_retention", GcsServer::builder().retention()).await.whole_story().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_pass() {
    let scene = Scene::new("gs_faults", GcsServer::builder()).await;
    for (action, pattern, skip) in [
        (Action::Status(503), "PUT /test-bucket/deep/releases/runs/", 0),
        (Action::Status(429), "list-type=2", 0),
        (Action::Reset, "partNumber=1", 0),
        (Action::Status(503), "partNumber=1", 1),
        (Action::Status(503), "?uploads", 0),
        (Action::ResetAfter, "archive.dump.gz?uploadId", 0),
        (Action::Reset, "GET /test-bucket/deep/releases/runs/", 0),
        (Action::Truncate(20), "archive.dump.gz", 9),
    ] {
        scene.server.fault(Fault { action, pattern: pattern.into(), count: 1, skip });
    }
    // A reply that is lost must not look like another writer: the entry is there, and it is ours.
    for (at, action) in [(1, Action::StatusAfter(503)), (3, Action::CloseAfter), (5, Action::ResetAfter)] {
        scene.server.fault(Fault::once(action, &format!("journal/{at:06}.json")));
    }
    scene.server.fault(Fault::once(Action::CloseAfter, "rag/manifest.json"));
    scene.server.fault(Fault::once(Action::StatusAfter(503), "chat/manifest.json"));
    scene.whole_story().await;
    assert_eq!(scene.server.clear_faults(), [], "every fault took place");
}

/// The same with the archives of small databases, each a single one, in every request of their uploads, and of their way back.
#[tokio::test(flavor = "multi_thread")]
async fn faults_of_one_archive_that_pass() {
    let mut scene = Scene::new("gs_archive", GcsServer::builder()).await;
    // A request that stalls is given up, and sent again.
    scene.world.set("GOOGLE_TIMEOUT", "5 seconds");
    let forever = Duration::from_secs(3600);
    for (action, pattern) in [
        (Action::Status(429), "rag/archive.dump.gz?uploads"),
        (Action::Status(429), "rag/archive.dump.gz?partNumber"),
        (Action::Delay(forever), "rag/archive.dump.gz?uploadId"),
        (Action::Delay(forever), "chat/archive.dump.gz?partNumber"),
        (Action::StatusAfter(503), "chat/archive.dump.gz?uploadId"),
    ] {
        scene.server.fault(Fault::once(action, pattern));
    }
    apply(&scene.world);
    assert_eq!(scene.server.clear_faults(), [], "every fault took place");
    assert_eq!(scene.server.live_uploads(), 0);
    for (database, actions) in [
        ("rag", [Action::Status(429), Action::Reset, Action::Truncate(50)]),
        ("chat", [Action::Status(503), Action::Delay(forever), Action::CloseAfter]),
    ] {
        let ending = format!("{database}/archive.dump.gz");
        let of = scene.server.objects(BUCKET).iter().find(|(key, _)| key.ends_with(&ending)).cloned();
        let key = of.expect("the archive is there").0;
        for action in actions {
            scene.server.fault(Fault::once(action, &format!("GET /{BUCKET}/{key}")));
        }
    }
    assert_eq!(scene.world.json(0, &["rollback", "--yes"])["outcome"], "rolled_back");
    assert_eq!(scene.server.clear_faults(), [], "every fault took place");
    scene.untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_and_that_nobody_renews() {
    let scene = Scene::new("gs_expired", GcsServer::builder()).await;
    scene.server.fault(Fault::times(usize::MAX, Action::Status(401), "rag/archive.dump.gz?partNumber"));
    let ran = scene.world.run(&["apply", "--yes"]);
    ran.expect(1).says("rag: the store does not let the token of GOOGLE_BEARER_TOKEN write");
    ran.says("credentials expired").says("archive.dump.gz").ends("No database was changed.");
    scene.untouched().await;
    scene.server.clear_faults();
    // The same on the way back: the databases stay as they are, and the same line goes on once there is another token.
    apply(&scene.world);
    let after = scene.world.fingerprints().await;
    scene.server.fault(Fault::times(usize::MAX, Action::Status(401), "GET /test-bucket/deep/releases/runs/"));
    scene.world.run(&["rollback", "--yes"]).says("does not let the token of GOOGLE_BEARER_TOKEN read");
    assert_same(&after, &scene.world.fingerprints().await);
    scene.server.clear_faults();
    assert_eq!(scene.world.json(0, &["rollback", "--yes"])["outcome"], "rolled_back");
    scene.untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_cannot_be_uploaded() {
    let scene = Scene::new("gs_part", GcsServer::builder()).await;
    scene.server.fault(Fault::times(usize::MAX, Action::Status(403), "rag/archive.dump.gz?partNumber"));
    let ran = scene.world.run(&["apply", "--yes"]);
    ran.expect(1).says("rag: the store does not let the token of GOOGLE_BEARER_TOKEN write");
    ran.says("archive.dump.gz").says("No database was changed.");
    scene.untouched().await;
    assert!(!scene.server.objects(BUCKET).iter().any(|(key, _)| key.contains("rag/manifest")));
    scene.server.clear_faults();
    apply(&scene.world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_does_not_come_back() {
    let scene = Scene::new("gs_down", GcsServer::builder()).await;
    scene.server.fault(Fault::times(usize::MAX, Action::Status(503), "rag/archive.dump.gz?partNumber"));
    let ran = scene.world.run(&["apply", "--yes"]);
    ran.expect(1).says("the store could not write").says("No database was changed.");
    scene.untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_arrives_damaged_is_found_before_anything_is_changed() {
    let scene = Scene::new("gs_flip", GcsServer::builder()).await;
    // What is read back is not what was sent. The whole answer to the one request has its middle bit inverted.
    scene.server.fault(Fault { action: Action::Flip, pattern: "rag/archive.dump.gz".into(), count: 1, skip: 4 });
    let ran = scene.world.run(&["apply", "--yes"]);
    ran.expect(1).says("rag/archive.dump.gz is damaged").says("No database was changed.");
    scene.untouched().await;
    assert!(!scene.server.objects(BUCKET).iter().any(|(key, _)| key.contains("rag/manifest")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_changed_in_the_bucket_is_not_restored() {
    let scene = Scene::new("gs_tamper", GcsServer::builder()).await;
    let run = apply(&scene.world);
    let after = scene.world.fingerprints().await;
    let key = scene.key(&run, "snapshots/rag/archive.dump.gz");
    scene.server.tamper(BUCKET, &key, |bytes| {
        let last = bytes.len() - 9;
        bytes[last] ^= 4;
    });
    let refused = scene.world.run(&["rollback", "--yes"]);
    refused.expect(4).says("archive.dump.gz is damaged").says("NOT rolled back: chat, rag");
    assert_same(&after, &scene.world.fingerprints().await);
    scene.server.tamper(BUCKET, &key, |bytes| {
        let last = bytes.len() - 9;
        bytes[last] ^= 4;
    });
    scene.server.remove(BUCKET, &scene.key(&run, "snapshots/rag/manifest.json"));
    scene.world.run(&["rollback", "--yes"]).expect(4).says("has no snapshot of rag");
    assert_same(&after, &scene.world.fingerprints().await);
}

/// Another process writes the entry that is next, after this one has read the journal.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_somebody_else_wrote_is_a_conflict() {
    let scene = Scene::new("gs_conflict", GcsServer::builder()).await;
    let run = apply(&scene.world);
    let after = scene.world.fingerprints().await;
    let entries = scene.server.objects(BUCKET).iter().filter(|(key, _)| key.contains("/journal/")).count();
    let next = format!("journal/{:06}.json", entries + 1);
    scene.server.fault(Fault::once(Action::Delay(Duration::from_secs(3)), &next));
    scene.server.log();
    let second = scene.world.start(&["rollback", "--yes"]);
    let is_put = |line: &String| percent_decode_str(line).decode_utf8_lossy().contains(&next);
    until("the entry is on its way", || async { scene.server.log().iter().any(is_put) }).await;
    let client = scene.server.client(BUCKET).build().expect("a client");
    let key = Path::from(scene.key(&run, &next));
    client.put(&key, "{\"somebody\": \"else\"}".into()).await.expect("written");

    let ran: Ran = second.wait_with_output().expect("our child").into();
    ran.expect(4).says(&next).says("exists already, with other content").says("NOT rolled back: chat, rag");
    assert_same(&after, &scene.world.fingerprints().await);
}
