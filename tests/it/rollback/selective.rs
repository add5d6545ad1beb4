//! Some databases alone, what holds a database, and the rows that are saved before an exchange.

use std::collections::BTreeMap;
use std::process::Command;

use migrate::outside::cluster::{Cluster, ClusterOptions};
use serde_json::{Value, json};

use super::standby::warm;
use super::{apply, prepare, step};
use crate::harness::{cluster, connect, execute};
use crate::snapshots::encrypted::{VARIABLE, encrypt_to, key};
use crate::world::{TestWorld, assert_same};

const PUBLISH: &str = "[[steps]]\nname = \"publish\"\ndatabase = \"chat\"\nkind = \"copy\"\nafter = [\"rag\", \"chat\"]\n\
     from = { database = \"rag\", table = \"source\" }\nto = { table = \"published\" }\nkey = [\"id\"]\n\
     [[checks]]\nname = \"in-sync\"\nkind = \"sync\"\nsource = { database = \"rag\", table = \"source\" }\n\
     target = { database = \"chat\", table = \"published\" }\nkey = [\"id\"]\ncompare = [\"note\"]\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_inconsistent_is_named_and_the_checks_are_made() {
    let world = TestWorld::new("selective", &["chat", "rag", "user"]).await;
    prepare(&world, &["chat", "rag", "user"]);
    world.plan(&(["chat", "rag", "user"].map(step).concat() + PUBLISH));
    world
        .sql("rag", "create table source (id int primary key, note text); insert into source values (1, 'a'), (2, 'b')")
        .await;
    world.sql("chat", "create table published (id int primary key, note text)").await;
    let before = world.fingerprints().await;
    apply(&world);
    let ahead = world.json(0, &["rollback", "--only", "chat", "--dry-run"]);
    let torn = ahead["inconsistent"].as_array().expect("a list");
    let expected = [
        "step `publish` copied rag.source into chat, which goes back without what was copied",
        "check `in-sync` compares rag.source with chat.published",
    ];
    assert_eq!(torn, &expected.map(|it| json!(it)), "{ahead}");
    // Nothing hangs on it.
    assert_eq!(world.json(0, &["rollback", "--only", "user", "--dry-run"])["inconsistent"], json!([]));
    let other = world.json(0, &["rollback", "--only", "rag,user", "--dry-run"]);
    assert!(
        other["inconsistent"][0].as_str().expect("words").contains("step `publish` on chat came after step `rag`"),
        "{other}"
    );
    assert!(
        other["inconsistent"][1].as_str().expect("words").contains("keeps the rows as they were copied"),
        "{other}"
    );
    assert_eq!(world.json(0, &["rollback", "--only", "rag,chat", "--dry-run"])["inconsistent"], json!([]));

    let ran = world.run(&["rollback", "--only", "chat", "--yes", "--json"]);
    let back = ran.expect(7).says("note: check `in-sync` compares").document();
    assert_eq!((&back["outcome"], &back["checks"][0]["outcome"]), (&json!("rolled_back"), &json!("failed")), "{back}");
    assert_eq!(back["checks"][0]["missing"], 2, "{back}");
    let shown = world.run(&["runs", "show", back["run"].as_str().expect("a run")]);
    assert!(shown.expect(0).stdout.contains("checked  check=in-sync"), "{}", shown.stdout);
    let back = world.json(0, &["rollback", "--yes"]);
    assert_eq!(back["checks"], json!([]), "{back}");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_a_database_is_named_before_anything_is_done() {
    let settings =
        vec![("wal_level".to_owned(), "logical".to_owned()), ("max_prepared_transactions".to_owned(), "5".to_owned())];
    let own = Cluster::start(ClusterOptions { settings, ..ClusterOptions::default() }).expect("a second server");
    let mut server = connect(&own.url("postgres", "postgres")).await;
    execute(&mut server, "create role release login createdb").await;
    execute(&mut server, "create database held owner release").await;
    let world = TestWorld::over(BTreeMap::from([("rag".to_owned(), own.url("release", "held"))]));
    prepare(&world, &["rag"]);
    apply(&world);
    let mut inside = connect(&own.url("postgres", "held")).await;
    execute(&mut inside, "create subscription follows connection 'host=/nowhere' publication p with (connect = false)")
        .await;
    execute(&mut inside, "select pg_create_logical_replication_slot('feeds', 'pgoutput')").await;
    execute(&mut inside, "alter subscription follows enable").await;
    execute(&mut inside, "begin; insert into new values (1); prepare transaction 'held_up'").await;
    drop(inside);

    let ahead = world.json(0, &["rollback", "--dry-run"]);
    let rag = &ahead["databases"][0];
    assert_eq!(rag["in_the_way"].as_array().map(Vec::len), Some(2), "{ahead}");
    assert!(
        rag["notes"][0].as_str().expect("words").contains("replication slot feeds stays with the replaced"),
        "{ahead}"
    );
    let ran = world.run(&["rollback", "--yes"]);
    ran.expect(4)
        .says("ALTER SUBSCRIPTION follows DISABLE")
        .says("'held_up' of role postgres: COMMIT PREPARED or ROLLBACK");
    assert_eq!(world.json(0, &["status"])["unfinished_run"], Value::Null, "it did not even begin");

    let mut inside = connect(&own.url("postgres", "held")).await;
    execute(&mut inside, "alter subscription follows disable").await;
    execute(&mut inside, "rollback prepared 'held_up'").await;
    drop(inside);
    let ran = world.run(&["rollback", "--yes"]);
    ran.expect(0)
        .says("the subscription follows stays with the replaced database")
        .says("replication slot feeds stays");
}

/// Loads what was saved, as its script says.
fn load(world: &TestWorld, saved: &Value, database: &str) {
    let folder = world.store().join(saved["folder"].as_str().expect("a folder"));
    let mut psql = Command::new(cluster().bin_dir().join("psql"));
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", "load.sql", world.url(database)]).current_dir(folder);
    let loaded = psql.output().expect("psql lies beside the server's programs");
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_since_can_be_saved_and_loaded() {
    let world = warm("save_writes").await;
    for name in ["chat", "rag"] {
        world.sql(name, "create table \"Odd.Name\" (id int generated always as identity primary key, \"a b\" text, twice int generated always as (1) stored)").await;
        world.file(
            &format!("migrations/{name}/002_more.sql"),
            "alter table t add column more int; update t set more = 1 where id < 10;\n",
        );
    }
    let before = world.fingerprints().await;
    apply(&world);
    for name in ["chat", "rag"] {
        world.sql(name, "insert into t values (1000, e'new\\n\\\\line', 5), (1001, null, null); update t set note = 'changed' where id = 5; delete from t where id = 6; insert into \"Odd.Name\" (\"a b\") values ('x'), ('y'); insert into new values (1)").await;
    }
    let _ = world.run(&["rollback", "--via", "down", "--save-writes", "--yes"]).expect(64);
    let back = world.json(0, &["rollback", "--save-writes", "--yes"]);
    assert_same(&before, &world.fingerprints().await);
    for (at, name) in ["chat", "rag"].iter().enumerate() {
        let saved = &back["saved_writes"][at];
        assert_eq!(
            (&saved["database"], &saved["tables"], &saved["rows"]),
            (&json!(name), &json!(2), &json!(5)),
            "{back}"
        );
        assert!(saved["left_out"][0].as_str().expect("words").contains("public.new"), "{back}");
        load(&world, saved, name);
        assert_eq!(
            world.value(name, "select string_agg(note, ',' order by id) from t where id in (5, 1000)").await,
            "changed,new\n\\line"
        );
        assert_eq!(world.value(name, "select count(*) from t").await, "502", "what was deleted is not in it");
        assert_eq!(world.value(name, "select string_agg(id || \"a b\", ',') from \"Odd.Name\"").await, "1x,2y");
    }
}

/// The lines of a script's comment that stand apart, as they are typed.
fn lines(script: &str) -> Vec<String> {
    script.lines().filter_map(|line| line.strip_prefix("--     ")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_since_is_encrypted_as_archives_are() {
    let mut world = warm("save_encrypted").await;
    let (ours, theirs) = (key(&world, "ours.txt"), key(&world, "theirs.txt"));
    encrypt_to(&world, &[&ours, &theirs]);
    let plan = std::fs::read_to_string(world.path().join("plans/production.toml")).expect("written");
    world.set("ESCROW", &theirs.recipient);
    world.file("plans/production.toml", &plan.replace(&theirs.recipient, "${ESCROW}"));
    world.set(VARIABLE, &ours.file);
    let before = world.fingerprints().await;
    let run = apply(&world);
    let written =
        "insert into t values (1000, e'new\\n\\\\line'), (1001, null); update t set note = 'the secret' where id = 5";
    world.sql("chat", written).await;
    // Whoever does not know the recipients saves nothing rather than writing it down for all.
    world.unset("ESCROW");
    world.remove("plans/production.toml");
    let store = format!("file://{}", world.store().display());
    let back = ["rollback", &run, "--store", &store, "--save-writes", "--yes"];
    let refused = world.run(&back);
    refused.expect(64).says("it is not known to whom").says("ESCROW").ends("No database was changed.");
    assert!(!world.objects().iter().any(|key| key.contains("/writes/")));
    world.set("ESCROW", &theirs.recipient);
    let report = world.json(0, &back);
    assert_same(&before, &world.fingerprints().await);
    let saved = &report["saved_writes"][0];
    assert_eq!((&saved["database"], &saved["rows"]), (&json!("chat"), &json!(3)), "{report}");
    let folder = world.store().join(saved["folder"].as_str().expect("a folder"));
    let stored = std::fs::read(folder.join("001-public.t.copy.age")).expect("there");
    assert!(stored.starts_with(b"age-encryption.org/v1\n"));
    let secret = b"the secret";
    let leaked = world.objects().into_iter().find(|key| {
        let bytes = std::fs::read(world.store().join(key)).expect("there");
        bytes.windows(secret.len()).any(|it| it == secret)
    });
    assert_eq!(leaked, None);
    // What its head says, typed into a shell; and with the identity of somebody else, nothing is loaded.
    let script = std::fs::read_to_string(folder.join("load.sql")).expect("there");
    let stranger = key(&world, "stranger.txt");
    let typed = |identity: &str, lines: &[String]| {
        let lines = lines.join("\n").replace("=FILE", &format!("='{identity}'"));
        let lines =
            lines.replace("load.sql URL", &format!("load.sql '{}'", world.url("chat"))).replace("| less", "| cat");
        let path = format!("{}:{}", cluster().bin_dir().display(), std::env::var("PATH").expect("a path"));
        let mut shell = Command::new("bash");
        shell.arg("-c").arg(format!("set -e -o pipefail\n{lines}")).current_dir(&folder).env("PATH", path);
        shell.output().expect("bash")
    };
    let count = "select count(*) from t where id >= 1000 or note = 'the secret'";
    let all = lines(&script);
    assert_eq!(all.len(), 3, "{script}");
    let refused = typed(&stranger.file, &[all[0].clone(), all[2].clone()]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no identity matched"), "{refused:?}");
    assert_eq!(world.value("chat", count).await, "0");
    let loaded = typed(&theirs.file, &all);
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    assert!(String::from_utf8_lossy(&loaded.stdout).contains("1000\tnew\\n\\\\line"), "{loaded:?}");
    assert_eq!(world.value("chat", count).await, "3");
}
