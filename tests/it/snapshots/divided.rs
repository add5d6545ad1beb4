//! A snapshot in parts: what they are, what is counted and hashed in passing, and the way back.

use std::fs;

use serde_json::Value;

use super::divided;
use crate::world::{TestWorld, assert_same};

fn manifest(world: &TestWorld) -> Value {
    serde_json::from_slice(&fs::read(world.object("manifest.json")).expect("there")).expect("JSON")
}

/// Schema, name, rows and hash of each table, as the manifest of `run` has them.
fn tables(world: &TestWorld, run: &Value) -> Vec<(String, String, u64, String)> {
    let path = world.store().join(format!("runs/{}/snapshots/big/manifest.json", run.as_str().expect("an id")));
    let manifest: Value = serde_json::from_slice(&fs::read(path).expect("there")).expect("JSON");
    let text = |it: &Value| it.as_str().expect("text").to_owned();
    let table = |it: &Value| {
        (text(&it["schema"]), text(&it["name"]), it["rows"].as_u64().expect("a number"), text(&it["hash"]))
    };
    manifest["tables"].as_array().expect("a list").iter().map(table).collect()
}

async fn there_and_back(hint: &str, store: &str, ending: &str) {
    let world = divided(hint, store).await;
    let before = world.fingerprints().await;
    let report = world.json(0, &["apply", "--yes"]);
    let manifest = manifest(&world);
    let parts: Vec<String> = manifest["parts"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| format!("{} {}", it["key"].as_str().expect("a key"), it["section"].as_str().expect("a word")))
        .collect();
    let data = |it: &&String| it.starts_with("2-data-0") && it.ends_with(&format!(".dump.{ending} data"));
    assert!(parts.iter().filter(data).count() >= 2, "{parts:?}");
    let others: Vec<String> = parts.iter().filter(|it| !data(it)).cloned().collect();
    let expected = ["1-pre-data pre-data", "2-data-rest data", "3-post-data post-data"];
    assert_eq!(others, expected.map(|it| it.replace(' ', &format!(".dump.{ending} "))));
    let stored: u64 = world
        .objects()
        .iter()
        .filter(|key| key.ends_with(ending))
        .map(|key| fs::metadata(world.store().join(key)).expect("there").len())
        .sum();
    assert_eq!(report["snapshots"][0]["stored_bytes"], stored);
    // The parts are restored side by side, and what the release did is gone.
    let back = world.json(0, &["rollback", "--yes"]);
    assert_eq!(back["outcome"], "rolled_back", "{back}");
    assert_same(&before, &world.fingerprints().await);
    assert_eq!(world.value("big", "select encode(lo_get(4711), 'hex')").await, "00ff0a74657874");
    assert_eq!([writers(&world, "rows").await, writers(&world, "part_1").await], [1, 1]);
    statistics(&world).await;
}

/// How many transactions wrote the rows of a table.
async fn writers(world: &TestWorld, table: &str) -> u64 {
    let counted = world.value("big", &format!("select count(distinct xmin::text) from {table}")).await;
    counted.parse().expect("a number")
}

/// A table comes through one session, which writes its rows frozen. When nothing else is left to do, another one helps with the
/// rest of the largest, each in a transaction of its own; and no row is lost where one leaves off and two go on.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_nothing_to_do_helps_with_the_rest_of_a_table() {
    let world = TestWorld::new("divided_helped", &["big"]).await;
    let made = "create table most as select n, repeat(md5(n::text), 19) body from generate_series(1, 100000) n;
        create table other as select n, repeat(md5(n::text), 19) body from generate_series(1, 40000) n;
        analyze;";
    world.sql("big", made).await;
    world.sql_plan("[run]\njobs = 2\n");
    world.file("migrations/big/001_less.sql", "-- migrate:irreversible\ndelete from most where n < 5;\n");
    let content = "select count(*) || ' ' || sum(hashtextextended(most::text, 0)) from most";
    let before = world.value("big", content).await;
    let _ = world.run(&["apply", "--yes"]).expect(0);
    assert_ne!(world.value("big", content).await, before);
    let _ = world.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(world.value("big", content).await, before);
    assert_eq!([writers(&world, "most").await, writers(&world, "other").await], [3, 1]);
}

/// Who asks for rows finds statistics; those of embeddings alone are left to autovacuum, for which the table has changed.
async fn statistics(world: &TestWorld) {
    let columns = async |table: &str| {
        let sql = format!("select string_agg(attname, ' ' order by attname) from pg_stats where tablename = '{table}'");
        world.value("big", &sql).await
    };
    assert_eq!(columns("ta\"ble*").await, "id vector");
    assert_eq!([columns("rows").await, columns("rows_body").await], ["body doc id", "md5"]);
    let changed = "select string_agg(relname, ' ') from pg_stat_user_tables where n_mod_since_analyze > 30000";
    assert_eq!(world.value("big", changed).await, "ta\"ble*");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_under_gzip_come_back() {
    there_and_back("divided_gzip", "", "gz").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_under_zstd_come_back() {
    there_and_back("divided_zstd", "compression = \"zstd\"", "zst").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_counted_and_hashed_as_they_pass() {
    let world = divided("divided_counts", "").await;
    let take = || world.json(0, &["snapshot", "take"])["run"].clone();
    let first = tables(&world, &take());
    let names: Vec<String> = first.iter().map(|(schema, name, rows, _)| format!("{schema}.{name} {rows}")).collect();
    let part_1: u64 = world.value("big", "select count(*) from part_1").await.parse().expect("a number");
    let expected = [
        "Sch ema.ta\"ble* 36000".to_owned(),
        "public.empty 0".into(),
        format!("public.part_1 {part_1}"),
        format!("public.part_2 {}", 9_000 - part_1),
        "public.rows 60000".into(),
        "public.small 50".into(),
    ];
    assert_eq!(names, expected);
    // Rows that move on the disk are the same rows; a value that changes is another content with the same count.
    world.sql("big", "update small set row_id = row_id where id < 9").await;
    world.sql("big", "vacuum full small").await;
    assert_eq!(tables(&world, &take()), first);
    world.sql("big", "update small set row_id = row_id + 1 where id = 7").await;
    let changed = tables(&world, &take());
    let differ = |name: &str| {
        let of = |all: &[(String, String, u64, String)]| all.iter().find(|it| it.1 == name).expect("there").clone();
        (of(&first).2 == of(&changed).2, of(&first).3 == of(&changed).3)
    };
    assert_eq!((differ("small"), differ("rows"), differ("part_1")), ((true, false), (true, true), (true, true)));
}

/// Every part is looked at, not only the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_part_is_found_before_anything_is_renamed() {
    let world = divided("divided_damaged", "").await;
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let live = world.fingerprints().await;
    for ending in ["1-pre-data.dump.gz", "2-data-02.dump.gz", "2-data-rest.dump.gz", "3-post-data.dump.gz"] {
        let path = world.object(ending);
        let whole = fs::read(&path).expect("there");
        let mut damaged = whole.clone();
        damaged[whole.len() / 3] ^= 4;
        fs::write(&path, damaged).expect("ours");
        world.run(&["snapshot", "verify"]).expect(7).says(ending).says("is damaged");
        world.run(&["rollback", "--yes"]).expect(4).says(ending).says("is damaged");
        fs::remove_file(&path).expect("there");
        world.run(&["snapshot", "verify"]).expect(7).says(ending).says("it is not there");
        fs::write(&path, whole).expect("ours");
    }
    let _ = world.run(&["snapshot", "verify"]).expect(0);
    assert_same(&live, &world.fingerprints().await);
}
