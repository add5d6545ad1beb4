//! Stores that earlier versions wrote to, from tests/stores: listed, shown, verified, drilled, and rolled back.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::{OWNER, cluster};
use crate::rollback::{apply, release};
use crate::world::{TestWorld, assert_same};

const RUN: &str = "20261121-184026-4458up";

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The archive as every version made it: `pg_dump` in custom format, not compressed, and gzip around it.
fn archive(world: &TestWorld) -> (Vec<u8>, Vec<u8>) {
    let dump = Command::new(cluster().bin_dir().join("pg_dump"))
        .args(["--format=custom", "--compress=0", "-d", world.url("rag")])
        .output()
        .expect("it lies beside the server's programs");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let path = world.path().join("plain");
    fs::write(&path, &dump.stdout).expect("a file");
    let packed = Command::new("gzip").arg("-c").arg(path).output().expect("gzip");
    assert!(packed.status.success());
    (dump.stdout, packed.stdout)
}

/// Puts the run of an earlier version into the store of `world`, whose database is as it was before that run.
async fn left_by(world: &TestWorld, version: &str) {
    let (plain, packed) = archive(world);
    let ask = |column: &str| format!("select {column} from pg_database where datname = '{}'", world.dbname("rag"));
    let filled = [
        ("@SERVER@", world.ask("select system_identifier from pg_control_system()").await),
        ("@OID@", world.oid("rag").await),
        ("@DBNAME@", world.dbname("rag")),
        ("@OWNER@", OWNER.to_owned()),
        ("@COLLATE@", world.ask(&ask("datcollate")).await),
        ("@CTYPE@", world.ask(&ask("datctype")).await),
        ("@BYTES@", plain.len().to_string()),
        ("@SHA256@", sha256(&plain)),
        ("@STORED_BYTES@", packed.len().to_string()),
        ("@STORED_SHA256@", sha256(&packed)),
    ];
    let (from, run) = (
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stores").join(version),
        world.store().join("runs").join(RUN),
    );
    let put = |source: &str, target: &str| {
        let text = fs::read_to_string(from.join(source)).expect("a file of the store");
        let text = filled.iter().fold(text, |text, (name, value)| text.replace(name, value));
        let path = run.join(target);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
        fs::write(path, text).expect("an object");
    };
    for entry in 1..=6 {
        let name = format!("journal/{entry:06}.json");
        put(&name, &name);
    }
    put("plan.toml", "plan.toml");
    put("manifest.json", "snapshots/rag/manifest.json");
    fs::write(run.join("snapshots/rag/archive.dump.gz"), packed).expect("an object");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_earlier_versions_wrote_is_read_and_rolled_back() {
    for version in ["first", "second"] {
        let world = release("earlier", &["rag"]).await;
        let rows = "create table t (id int primary key, note text); insert into t select n, 'row ' || n from generate_series(1, 500) n";
        world.sql("rag", &format!("{rows}; create sequence s; select setval('s', 7)")).await;
        let before = world.fingerprints().await;
        left_by(&world, version).await;
        world.sql("rag", "create table new (id int); insert into t values (0, 'since')").await;

        assert_eq!(world.json(0, &["status"])["unfinished_run"], Value::Null, "{version}");
        let runs = world.json(0, &["runs", "list"]);
        assert_eq!(
            (&runs["runs"][0]["run"], &runs["runs"][0]["outcome"]),
            (&json!(RUN), &json!("succeeded")),
            "{runs}"
        );
        assert_eq!(runs["runs"][0]["newer"], Value::Null, "{runs}");
        assert_eq!(world.json(0, &["runs", "show", RUN])["entries"].as_array().map(Vec::len), Some(6));
        let listed = world.json(0, &["snapshot", "list"]);
        assert_eq!((&listed["snapshots"][0]["run"], &listed["unreadable"]), (&json!(RUN), &json!([])), "{listed}");
        let verified = world.json(0, &["snapshot", "verify", RUN]);
        assert_eq!(verified["snapshots"][0]["outcome"], "passed", "{verified}");
        let drilled = world.json(0, &["snapshot", "drill", RUN]);
        assert_eq!(drilled["drills"][0]["differences"], json!([]), "{drilled}");

        let ahead = world.json(0, &["rollback", RUN, "--dry-run"]);
        assert_eq!(
            (&ahead["databases"][0]["via"], &ahead["databases"][0]["rows"]),
            (&json!("snapshot"), &json!(500)),
            "{ahead}"
        );
        let back = world.json(0, &["rollback", RUN, "--yes"]);
        assert_eq!(back["outcome"], "rolled_back", "{back}");
        assert_same(&before, &world.fingerprints().await);
        // And on with today's version.
        apply(&world);
        world.run(&["rollback", "--yes"]).expect(0);
        assert_same(&before, &world.fingerprints().await);
    }
}
