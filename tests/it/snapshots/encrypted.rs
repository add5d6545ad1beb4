//! Snapshots that are encrypted: what can be known of them without an identity, and the way back with one.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::divided;
use crate::world::{TestWorld, assert_same};

/// A new identity of `age`'s own tool: its file, its recipient, and the secret in it.
pub(crate) struct Key {
    pub(crate) file: String,
    pub(crate) recipient: String,
    secret: String,
}

pub(crate) fn key(world: &TestWorld, name: &str) -> Key {
    let file = world.path().join(name);
    let made = Command::new("age-keygen").arg("-o").arg(&file).output();
    let made = made.expect("the tests need age: run scripts/install");
    assert!(made.status.success(), "{made:?}");
    let text = fs::read_to_string(&file).expect("written");
    let recipient = text.lines().find_map(|line| line.strip_prefix("# public key: ")).expect("a recipient");
    let secret = text.lines().find(|line| line.starts_with("AGE-SECRET-KEY-")).expect("an identity");
    Key { file: file.display().to_string(), recipient: recipient.to_owned(), secret: secret.to_owned() }
}

/// Writes `encrypt_to` into the plan.
pub(crate) fn encrypt_to(world: &TestWorld, keys: &[&Key]) {
    let plan = fs::read_to_string(world.path().join("plans/production.toml")).expect("written");
    let recipients: Vec<&str> = keys.iter().map(|key| key.recipient.as_str()).collect();
    let plan = plan.replace("[store]\n", &format!("[store]\nencrypt_to = {recipients:?}\n"));
    world.file("plans/production.toml", &plan);
}

pub(crate) const VARIABLE: &str = "MIGRATE_AGE_IDENTITY_FILE";

async fn there_and_back(hint: &str, store: &str) {
    let mut world = divided(hint, store).await;
    let (ours, theirs) = (key(&world, "ours.txt"), key(&world, "theirs.txt"));
    encrypt_to(&world, &[&theirs, &ours]);
    world.set(VARIABLE, &ours.file);
    let before = world.fingerprints().await;
    let applied = world.run(&["apply", "--yes"]);
    applied.expect(0);
    let manifest: Value =
        serde_json::from_slice(&fs::read(world.object("manifest.json")).expect("there")).expect("JSON");
    assert_eq!(manifest["encrypted_to"], json!([theirs.recipient, ours.recipient]));
    assert_eq!(manifest["format"], 3);
    let parts = manifest["parts"].as_array().expect("a list");
    assert!(parts.len() >= 5);
    for part in parts {
        let name = part["key"].as_str().expect("a name");
        let stored = fs::read(world.object(name)).expect("there");
        assert!(name.ends_with(".age") && stored.starts_with(b"age-encryption.org/v1\n"), "{name}");
        assert!(part["digests"]["compressed"]["bytes"].as_u64() < part["digests"]["stored_bytes"].as_u64(), "{part}");
    }
    // Everybody may know what is in the store, and nobody learns a secret.
    let all = world.objects();
    let leaked = all.iter().find(|key| {
        let bytes = fs::read(world.store().join(key)).expect("there");
        bytes.windows(ours.secret.len()).any(|it| it == ours.secret.as_bytes())
    });
    assert_eq!(leaked, None);
    assert!(!format!("{}{}", applied.stdout, applied.stderr).contains(&ours.secret));

    let verified = |world: &TestWorld| world.json(0, &["snapshot", "verify"])["snapshots"][0].clone();
    assert_eq!(verified(&world)["detail"], Value::Null);
    world.set(VARIABLE, &theirs.file);
    assert_eq!(world.run(&["snapshot", "drill"]).expect(0).code, 0);
    world.unset(VARIABLE);
    let closed = verified(&world);
    assert!(closed["detail"].as_str().is_some_and(|it| it.contains("its content was not looked at")), "{closed}");
    assert_eq!(world.json(0, &["snapshot", "list"])["snapshots"][0]["encrypted"], true);
    // What the rollback needs is asked for before anything is touched.
    let after = world.fingerprints().await;
    let refused = world.run(&["rollback", "--yes"]);
    refused.expect(4).says("there is no identity to read it with").says(VARIABLE).says(&ours.recipient);
    let stranger = key(&world, "stranger.txt");
    world.set(VARIABLE, &stranger.file);
    let refused = world.run(&["rollback", "--yes"]);
    refused.expect(4).says("none of them is in ").says("stranger.txt").says(&theirs.recipient);
    assert!(!refused.stderr.contains(&stranger.secret));
    assert_same(&after, &world.fingerprints().await);
    world.set(VARIABLE, &theirs.file);
    assert_eq!(world.json(0, &["rollback", "--yes"])["outcome"], "rolled_back");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn under_gzip() {
    there_and_back("encrypted_gzip", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_zstd() {
    there_and_back("encrypted_zstd", "compression = \"zstd\"").await;
}

/// A small world with one database.
async fn small(hint: &str, run: &str) -> (TestWorld, Key) {
    let world = TestWorld::new(hint, &["a"]).await;
    world.sql("a", "create table t (id int primary key); insert into t select generate_series(1, 500)").await;
    world.sql_plan(run);
    world.file("migrations/a/001_u.sql", "create table u (id int);\n");
    let ours = key(&world, "ours.txt");
    encrypt_to(&world, &[&ours]);
    (world, ours)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_one_is_found_with_and_without_an_identity() {
    let (mut world, ours) = small("encrypted_damaged", "").await;
    world.set(VARIABLE, &ours.file);
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let path = world.object("archive.dump.gz.age");
    let whole = fs::read(&path).expect("there");
    for at in [30, whole.len() / 2, whole.len() - 3] {
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        fs::write(&path, damaged).expect("ours");
        world.set(VARIABLE, &ours.file);
        world.run(&["snapshot", "verify"]).expect(7).says("archive.dump.gz.age is damaged");
        world.run(&["rollback", "--yes"]).expect(4).says("archive.dump.gz.age is damaged");
        world.unset(VARIABLE);
        world.run(&["snapshot", "verify"]).expect(7).says("archive.dump.gz.age is damaged");
    }
    // Another text of the same length, encrypted to the same recipient, is another object.
    fs::write(&path, &whole[..whole.len() - 20]).expect("ours");
    world.run(&["snapshot", "verify"]).expect(7).says("bytes, and");
    fs::write(&path, whole).expect("ours");
    world.set(VARIABLE, &ours.file);
    assert_eq!(world.json(0, &["rollback", "--yes"])["outcome"], "rolled_back");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_identity_nothing_is_applied_that_could_not_be_taken_back() {
    let (mut world, ours) = small("encrypted_refused", "").await;
    let before = world.fingerprints().await;
    let refused = world.run(&["apply", "--yes"]);
    refused.expect(1).says("a rollback could not read them").says(VARIABLE).ends("No database was changed.");
    assert!(!world.objects().iter().any(|key| key.contains("/journal/")), "{:?}", world.objects());
    let doctor = world.run(&["doctor"]);
    doctor.expect(1);
    assert!(doctor.stdout.contains("a rollback could not read them"), "{}", doctor.stdout);
    let stranger = key(&world, "stranger.txt");
    world.set(VARIABLE, &stranger.file);
    world.run(&["apply", "--yes"]).expect(1).says("none of them is in ").says("stranger.txt");
    world.file("broken.txt", &format!("# mine\n{}x\n", ours.secret));
    world.set(VARIABLE, world.path().join("broken.txt").display().to_string());
    let refused = world.run(&["apply", "--yes"]);
    refused.expect(1).says("broken.txt:2: this is no identity");
    assert!(!refused.stderr.contains(&ours.secret[20..40]), "{}", refused.stderr);
    assert_same(&before, &world.fingerprints().await);
    // A snapshot alone can be taken by somebody who may not read it.
    world.unset(VARIABLE);
    world.run(&["snapshot", "take"]).expect(0);
    // With the identity, a failure goes back by itself.
    world.set(VARIABLE, &ours.file);
    assert!(world.run(&["doctor"]).expect(0).stdout.contains("ours.txt reads them"));
    world.file("migrations/a/002_bad.sql", "select oops;\n");
    world.run(&["apply", "--yes"]).expect(3);
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_halts_may_be_taken_back_elsewhere() {
    let (mut world, ours) = small("encrypted_halt", "[run]\non_failure = \"halt\"\n").await;
    let before = world.fingerprints().await;
    world.file("migrations/a/002_bad.sql", "select oops;\n");
    let halted = world.run(&["apply", "--yes"]);
    halted.expect(4).says("they can be read elsewhere alone").says("NOT rolled back: a");
    world.set(VARIABLE, &ours.file);
    assert_eq!(world.json(0, &["rollback", "--yes"])["outcome"], "rolled_back");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_the_plan_is_refused_and_not_shown() {
    let (world, ours) = small("encrypted_secret", "").await;
    let plan = fs::read_to_string(world.path().join("plans/production.toml")).expect("written");
    world.file("plans/production.toml", &plan.replace(&ours.recipient, &ours.secret));
    let refused = world.run(&["status"]);
    refused.expect(64).says("plans/production.toml:").says("literal password");
    assert!(!refused.stderr.contains(&ours.secret[16..40]), "{}", refused.stderr);
}
