//! `s3://`, against moto.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _};
use migrate::outside::store::{Removal, Store, StoreError};
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use serde_json::Value;

use crate::rollback::{apply, release};
use crate::s3_server::Bucket;
use crate::world::{TestWorld, assert_same};

/// Rows that no compression shortens: more than two parts of an upload.
const NOISE: &str =
    "create table noise as select n, sha512((random() * n)::text::bytea) a, sha512(random()::text::bytea) b
    from generate_series(1, 90000) n";

fn lead(world: &mut TestWorld, bucket: &Bucket) {
    for (name, value) in Bucket::env() {
        world.set(&name, value);
    }
    world.set("MIGRATE_STORE", format!("s3://{}/deep/releases", bucket.name));
}

/// Of the snapshots of each database, the plan keeps the last.
fn keep_one(world: &TestWorld) {
    let plan = std::fs::read_to_string(world.path().join("plans/production.toml")).expect("written");
    world.file("plans/production.toml", &plan.replace("[store]\n", "[store]\nretention = { keep_last = 1 }\n"));
}

async fn keys(bucket: &Bucket, folder: &str) -> Vec<String> {
    let listed = bucket.client().list(Some(&Path::from(format!("deep/releases/{folder}"))));
    listed.map_ok(|it| it.location.to_string()).try_collect().await.expect("listed")
}

#[tokio::test(flavor = "multi_thread")]
async fn there_verified_and_back() {
    let bucket = Bucket::new("there-and-back");
    let mut world = release("s3_story", &["chat", "rag"]).await;
    world.sql("rag", NOISE).await;
    lead(&mut world, &bucket);
    let before = world.fingerprints().await;
    world.run(&["doctor"]).expect(0);
    let first = apply(&world);
    world.file("migrations/rag/002_more.sql", "create table more (id int);\n");
    let second = apply(&world);
    let listed = world.json(0, &["snapshot", "list"]);
    let sizes: Vec<u64> =
        listed["snapshots"].as_array().expect("a list").iter().filter_map(|it| it["stored_bytes"].as_u64()).collect();
    assert!(sizes.len() == 3 && sizes.iter().any(|size| *size > 11 << 20), "{listed:#}");
    world.run(&["snapshot", "verify"]).expect(0);
    for run in [&second, &first] {
        assert_eq!(world.json(0, &["rollback", run, "--yes"])["outcome"], "rolled_back");
    }
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_in_the_bucket_is_not_restored() {
    let bucket = Bucket::new("changed");
    let mut world = release("s3_changed", &["rag"]).await;
    world.sql("rag", NOISE).await;
    lead(&mut world, &bucket);
    let run = apply(&world);
    let after = world.fingerprints().await;
    let key = Path::from(format!("deep/releases/runs/{run}/snapshots/rag/archive.dump.gz"));
    let client = bucket.client();
    let mut bytes = client.get(&key).await.expect("there").bytes().await.expect("read").to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    client.put(&key, bytes.into()).await.expect("written");
    world.run(&["snapshot", "verify"]).expect(7).says("archive.dump.gz is damaged");
    world.run(&["rollback", "--yes"]).expect(4).says("archive.dump.gz is damaged").says("NOT rolled back: rag");
    assert_same(&after, &world.fingerprints().await);
}

/// Two coordinators write the entry that is next.
#[tokio::test(flavor = "multi_thread")]
async fn one_entry_has_one_writer() {
    let bucket = Bucket::new("two-writers");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let open = || Store::open(&format!("s3://{}/deep", bucket.name), &Bucket::env()).expect("a store");
    for at in 0..20 {
        let key = format!("runs/r/journal/{at:06}.json");
        let (one, other) = (open(), open());
        let (first, second) = tokio::join!(one.put_new(&key, "one"), other.put_new(&key, "other"));
        let kept = one.get(&key).await.expect("read").expect("there");
        let (won, lost) = if first.is_ok() { ("one", second) } else { ("other", first) };
        assert_eq!(kept, won);
        assert!(matches!(&lost, Err(StoreError::Taken { key: taken }) if *taken == key), "{lost:?}");
        // What a lost reply looks like: it is there, and it is ours.
        one.put_new(&key, won).await.expect("the same content is success");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_a_page_is_listed_and_pruned() {
    let bucket = Bucket::new("pages");
    let mut world = release("s3_pages", &["rag"]).await;
    lead(&mut world, &bucket);
    keep_one(&world);
    let take = || world.json(0, &["snapshot", "take"])["run"].as_str().expect("a run").to_owned();
    let (first, second) = (take(), take());
    // What a large database leaves, and more: two pages of parts.
    let client = bucket.client();
    let part = |at: u32| Path::from(format!("deep/releases/runs/{first}/snapshots/rag/2-data-{at:04}.dump.gz"));
    let put = |at| {
        let (client, key) = (&client, part(at));
        async move { client.put(&key, "x".into()).await }
    };
    let puts = futures::stream::iter(0..1_100).map(put).buffer_unordered(16);
    puts.try_collect::<Vec<_>>().await.expect("written");
    let pruned = world.json(0, &["snapshot", "prune", "--yes"]);
    let runs: Vec<&Value> = pruned["pruned"].as_array().expect("a list").iter().map(|it| &it["run"]).collect();
    assert_eq!(runs, [first.as_str()], "{pruned:#}");
    assert_eq!(keys(&bucket, &format!("runs/{first}/snapshots")).await, Vec::<String>::new());
    assert_eq!(keys(&bucket, &format!("runs/{second}/snapshots")).await.len(), 2);
    world.run(&["snapshot", "verify"]).expect(0);
}

/// Amazon would let a locked object be hidden: it is the client's to ask.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_locked_is_not_pruned() {
    let bucket = Bucket::with_locks("locked");
    let mut world = release("s3_locked", &["rag"]).await;
    lead(&mut world, &bucket);
    keep_one(&world);
    let take = || world.json(0, &["snapshot", "take"])["run"].as_str().expect("a run").to_owned();
    let (first, _) = (take(), take());
    let whole = keys(&bucket, &format!("runs/{first}/snapshots")).await;
    let archive = whole.iter().find(|key| key.ends_with("archive.dump.gz")).expect("an archive");
    let stays = async |why: &str| {
        for mode in ["--dry-run", "--yes"] {
            let pruned = world.json(0, &["snapshot", "prune", mode]);
            let kept = &pruned["kept"][1];
            let told = (pruned["pruned"].as_array().map(Vec::len), kept["run"].as_str());
            assert_eq!(told, (Some(0), Some(first.as_str())), "{pruned:#}");
            assert!(kept["reason"].as_str().is_some_and(|it| it.contains(why)), "{why}: {pruned:#}");
        }
        assert_eq!(keys(&bucket, &format!("runs/{first}/snapshots")).await, whole);
        world.run(&["snapshot", "verify", &first]).expect(0);
    };
    bucket.hold(archive, true);
    stays("it is locked (archive.dump.gz: it is under a legal hold)").await;
    bucket.hold(archive, false);
    bucket.retain(archive, "2999-01-01T00:00:00Z");
    stays("it is locked (archive.dump.gz: it is retained until 2999-01-01 00:00:00 UTC)").await;
    bucket.retain(archive, "2020-01-01T00:00:00Z");
    assert_eq!(world.json(0, &["snapshot", "prune", "--yes"])["pruned"][0]["run"], first.as_str());
    assert_eq!(keys(&bucket, &format!("runs/{first}/snapshots")).await, Vec::<String>::new());
}

/// Who may not know of locks is told of none.
#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_locked_is_not_pruned() {
    let bucket = Bucket::with_locks("mute");
    let store = Store::open(&format!("s3://{}", bucket.name), &Bucket::env()).expect("a store");
    store.put_new("one", "x").await.expect("written");
    bucket.hold("one", true);
    let lock = store.lock("one").await.expect("answered");
    let why = "the store does not say whether it is locked: give the account the right s3:GetObjectRetention";
    assert_eq!(lock.as_deref(), Some(why));
    assert_eq!(store.lock("never/there").await.expect("answered"), None);
    // Nothing can be locked where there are no versions.
    let bucket = Bucket::new("mute-plain");
    let store = Store::open(&format!("s3://{}", bucket.name), &Bucket::env()).expect("a store");
    store.put_new("one", "x").await.expect("written");
    assert_eq!(store.lock("one").await.expect("answered"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there_and_half_a_key_are_named() {
    let mut world = release("s3_none", &["rag"]).await;
    let before = world.fingerprints().await;
    lead(&mut world, &Bucket { name: "nowhere".into() });
    let refused = world.run(&["apply", "--yes"]);
    refused.expect(1).says("NoSuchBucket").says("No database was changed.");
    world.set("AWS_SECRET_ACCESS_KEY", "");
    let refused = world.run(&["apply", "--yes"]);
    refused.expect(1).says("cannot be set up with the key of AWS_ACCESS_KEY_ID").says("No database was changed.");
    assert_same(&before, &world.fingerprints().await);
    // Gone already is gone.
    let bucket = Bucket::new("removal");
    let _ = rustls::crypto::ring::default_provider().install_default();
    let store = Store::open(&format!("s3://{}", bucket.name), &Bucket::env()).expect("a store");
    assert_eq!(store.remove("never/there").await.expect("answered"), Removal::Done);
}

/// The variables of one world do not reach another.
#[test]
fn the_environment_is_what_is_passed_in() {
    let refused = Store::open("s3://bucket", &BTreeMap::from([("AWS_ACCESS_KEY_ID".to_owned(), "x".to_owned())]));
    assert!(matches!(refused.err(), Some(StoreError::Setup { .. })));
}
