//! `migrate snapshot take | list | verify`, and what a damaged archive is worth.

use std::fs;

use crate::world::{TestWorld, assert_same};

async fn world(hint: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["a", "b"]).await;
    world.sql_plan("");
    for name in ["a", "b"] {
        world.sql(name, "create table t (id int primary key); insert into t select generate_series(1, 1000)").await;
        world.file(&format!("migrations/{name}/001_u.sql"), "create table u (id int);\n");
    }
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_taken_listed_and_verified() {
    let world = world("snapshot").await;
    world.run(&["snapshot", "verify"]).expect(7).says("there is no such snapshot");
    let taken = world.json(0, &["snapshot", "take", "--only", "a"]);
    let run = taken["run"].as_str().expect("an id");
    let listed = world.json(0, &["snapshot", "list"]);
    let [it] = listed["snapshots"].as_array().expect("a list").as_slice() else { panic!("{listed:#}") };
    assert_eq!((&it["run"], &it["database"], &it["drilled"]), (&run.into(), &"a".into(), &false.into()));
    for field in ["bytes", "stored_bytes", "sha256"] {
        assert_eq!(it[field], taken["snapshots"][0][field], "{field}");
    }
    let archive = world.object("a/archive.dump.gz");
    assert_eq!(it["stored_bytes"], fs::metadata(&archive).expect("there").len());
    assert!(it["taken_at"].as_str().is_some_and(|at| at.starts_with("20")));
    let verified = world.json(0, &["snapshot", "verify", run]);
    assert_eq!(verified["snapshots"][0]["outcome"], "passed");
    // A run that only took snapshots is none that rollback would take for a release.
    world.run(&["rollback", "--yes"]).expect(64).says("there is no run of the target `local`");
    world.run(&["snapshot", "take", "--only", "zzz"]).expect(64).says("zzz");
}

/// What can happen to an object in a store: the new bytes, or none.
type Damage = fn(&[u8]) -> Option<Vec<u8>>;

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_archive_is_found_and_never_restored() {
    let world = world("snapshot_damaged").await;
    let before = world.fingerprints().await;
    let run = world.json(0, &["apply", "--yes"])["run"].as_str().expect("an id").to_owned();
    let live = world.fingerprints().await;
    let archive = world.object("a/archive.dump.gz");
    let whole = fs::read(&archive).expect("there");
    let damages: [Damage; 5] = [
        // A byte of gzip's header that says which system wrote it: it decompresses, and is not what was sent.
        |whole| Some([&whole[..9], &[whole[9] ^ 1], &whole[10..]].concat()),
        |whole| {
            Some(
                whole
                    .iter()
                    .enumerate()
                    .map(|(at, byte)| if at == whole.len() / 2 { byte ^ 1 } else { *byte })
                    .collect(),
            )
        },
        |whole| Some(whole[..whole.len() - 1].to_vec()),
        |whole| Some([whole, b"x"].concat()),
        |_| None,
    ];
    for damage in damages {
        match damage(&whole) {
            Some(bytes) => fs::write(&archive, bytes).expect("ours"),
            None => fs::remove_file(&archive).expect("there"),
        }
        let verified = world.run(&["snapshot", "verify", &run, "--json"]);
        verified.expect(7).says("error: a: the archive runs/").says("is damaged").ends("No database was changed.");
        assert_eq!(verified.document()["error"]["code"], 7);
        let outcomes: Vec<_> = verified.document()["snapshots"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|it| it["outcome"].clone())
            .collect();
        assert_eq!(outcomes, ["failed", "passed"]);
        let refused = world.run(&["rollback", "--yes"]);
        refused.expect(4).says("is damaged").says("Do not restore it.");
        assert_same(&live, &world.fingerprints().await);
        // Neither is the next release refused for a way back that was not gone.
        assert_eq!(world.json(0, &["status"])["unfinished_run"], serde_json::Value::Null);
        let left = "select count(*) from pg_database where datname like '%\\_\\_restore%' and datname like \
                    replace(current_database(), '_', '\\_') || '%'";
        assert_eq!(world.value("a", left).await, "0");
    }
    fs::write(&archive, whole).expect("ours");
    let _ = world.run(&["rollback", "--yes"]).expect(0);
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_is_shown_before_it_is_done() {
    let world = world("rollback_dry").await;
    let run = world.json(0, &["apply", "--yes"])["run"].as_str().expect("an id").to_owned();
    let (live, objects) = (world.fingerprints().await, world.objects());
    let dry = world.run(&["rollback", "--dry-run"]);
    assert!(
        dry.expect(0).stdout.contains("1,000 rows") && dry.stdout.ends_with("Nothing was done.\n"),
        "{}",
        dry.stdout
    );
    let document = world.json(0, &["rollback", "--dry-run"]);
    assert_eq!((&document["run"], &document["databases"][1]["rows"]), (&run.as_str().into(), &1000.into()));
    world.run(&["rollback"]).expect(64).says("--yes");
    world.run(&["rollback", "--only", "zzz", "--yes"]).expect(64).says("the run has no database `zzz`");
    assert_same(&live, &world.fingerprints().await);
    assert_eq!(objects, world.objects());
    assert_eq!(world.json(0, &["rollback", "--yes"])["databases"][0]["via"], "snapshot");
    assert_eq!(world.json(0, &["rollback", "--yes"])["outcome"], "nothing_to_do");
}
