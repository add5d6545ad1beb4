//! The price of a rollback, told before it: what would be lost is counted against what was really written.

use serde_json::{Value, json};

use super::apply;
use super::standby::warm;
use crate::world::{TestWorld, until};

/// What a dry run says of a database.
#[track_caller]
fn price(world: &TestWorld, args: &[&str], database: &str) -> Value {
    let told = world.json(0, &[&["rollback", "--dry-run"], args].concat());
    let all = told["databases"].as_array().expect("a list");
    all.iter().find(|it| it["name"] == database).unwrap_or_else(|| panic!("{told}")).clone()
}

/// `[inserted, updated, deleted, exact, by, by_run]` of a table; nothing, if nothing would be lost.
fn lost(price: &Value, table: &str) -> Value {
    let tables = price["lost"]["tables"].as_array().unwrap_or_else(|| panic!("{price}"));
    let found = tables.iter().find(|it| it["table"] == format!("public.{table}"));
    found.map_or(Value::Null, |it| {
        json!([it["inserted"], it["updated"], it["deleted"], it["exact"], it["by"], it["by_run"]])
    })
}

/// Tables in which each sort of write will happen alone, and all of them at once.
async fn prepared(hint: &str) -> TestWorld {
    let world = warm(hint).await;
    let tables = ["grown", "shrunk", "changed", "mixed", "idle", "backfilled", "frozen"];
    for name in ["chat", "rag"] {
        for table in tables {
            world.sql(name, &format!("create table {table} (id int primary key, note text); insert into {table} select n, 'old' from generate_series(1, 100) n")).await;
        }
        world.sql(name, "create table bag (a int, b text); insert into bag values (1, 'x'), (1, 'x'), (2, null)").await;
        world.sql(name, "create sequence s; select nextval('s'); select lo_create(4711)").await;
        world.file(
            &format!("migrations/{name}/002_backfill.sql"),
            "alter table backfilled add column more int; update backfilled set more = 1 where id <= 40;\n",
        );
    }
    world
}

/// What the applications write afterwards.
async fn write(world: &TestWorld, name: &str) {
    world
        .sql(
            name,
            "insert into grown select n, 'new' from generate_series(101, 107) n;
             delete from shrunk where id <= 9;
             update changed set note = 'new' where id <= 11;
             insert into mixed select n, 'new' from generate_series(101, 105) n;
             update mixed set note = 'new' where id between 1 and 4; delete from mixed where id between 50 and 52;
             insert into backfilled values (101, 'new', 1), (102, 'new', 2);
             insert into new values (1), (2);
             insert into bag values (1, 'x'), (3, null); delete from bag where a = 2;
             select nextval('s'), nextval('s'); select lo_create(4712); select lo_unlink(4711);",
        )
        .await;
    world.sql(name, "begin; insert into idle values (999, 'never'); rollback").await;
    world.sql(name, "vacuum freeze frozen").await;
    // Sessions hand their counts in when they end, a moment later.
    let seen = "select n_tup_ins >= 105 and n_tup_upd >= 4 and n_tup_del >= 3 from pg_stat_user_tables where relname = 'mixed'";
    until("the writes are counted", async || world.value(name, seen).await == "true").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn against_a_standby_every_row_is_told_by_its_key() {
    let world = prepared("price_standby").await;
    apply(&world);
    write(&world, "rag").await;
    let price = price(&world, &[], "rag");
    assert_eq!(price["via"], "standby", "{price}");
    for (table, expected) in [
        ("grown", json!([7, 0, 0, true, "key", 0])),
        ("shrunk", json!([0, 0, 9, true, "key", 0])),
        ("changed", json!([0, 11, 0, true, "key", 0])),
        ("mixed", json!([5, 4, 3, true, "key", 0])),
        ("backfilled", json!([2, 0, 0, true, "key", 40])),
        ("bag", json!([2, 0, 1, true, "row", 0])),
        // The run made it: by counts, which are exact where nothing was there before.
        ("new", json!([2, 0, 0, true, "transaction", 0])),
        ("idle", Value::Null),
        ("frozen", Value::Null),
        ("t", Value::Null),
    ] {
        assert_eq!(lost(&price, table), expected, "{table}: {price:#}");
    }
    assert_eq!(price["lost"]["sequences"], json!([{ "sequence": "public.s", "from": 1, "to": 3 }]), "{price:#}");
    assert_eq!(price["lost"]["large_objects"], json!([1, 1]), "{price:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn from_a_snapshot_rows_are_told_by_their_transactions() {
    let world = prepared("price_snapshot").await;
    apply(&world);
    write(&world, "chat").await;
    let price = price(&world, &[], "chat");
    assert_eq!(price["via"], "snapshot", "{price}");
    for (table, expected) in [
        ("grown", json!([7, 0, 0, true, "transaction", 0])),
        ("shrunk", json!([0, 0, 9, true, "transaction", 0])),
        // The numbers are right, and that they are is not certain.
        ("changed", json!([0, 11, 0, false, "transaction", 0])),
        ("mixed", json!([5, 4, 3, false, "transaction", 0])),
        ("backfilled", json!([2, 0, 0, false, "transaction", 40])),
        ("new", json!([2, 0, 0, true, "transaction", 0])),
        ("idle", Value::Null),
        ("frozen", Value::Null),
        ("t", Value::Null),
    ] {
        assert_eq!(lost(&price, table), expected, "{table}: {price:#}");
    }
    assert_eq!(price["lost"]["sequences"], json!([{ "sequence": "public.s", "from": 1, "to": 3 }]), "{price:#}");
    assert_eq!(price["lost"]["large_objects"], json!([1, 1]), "{price:#}");

    let ran = world.run(&["rollback", "--dry-run"]);
    for text in [
        "public.grown",
        "exact, by transaction",
        "estimated, by transaction; 40 more by the run itself",
        "sequence public.s: 3 back to 1",
        "the ways side by side",
    ] {
        assert!(ran.expect(0).stdout.contains(text), "{text:?} is not in\n{}", ran.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn times_say_where_they_are_from_and_ways_stand_side_by_side() {
    let world = warm("price_times").await;
    apply(&world);
    let first = price(&world, &["--via", "snapshot"], "rag");
    assert_eq!(first["takes"]["measured"], false, "{first:#}");
    assert!(first["takes"]["from"].as_str().expect("words").contains("at which it was dumped"), "{first:#}");
    assert!(first["unreachable"]["from"].as_str().expect("words").contains("no exchange was measured"), "{first:#}");
    let nothing = json!({ "tables": [], "sequences": [], "large_objects": null, "notes": [] });
    assert_eq!(first["lost"], nothing, "{first:#}");
    let options: Vec<(&Value, &Value)> =
        first["options"].as_array().expect("a list").iter().map(|it| (&it["via"], &it["open"])).collect();
    let expected =
        [("down", false), ("standby", true), ("snapshot", true)].map(|(via, open)| (json!(via), json!(open)));
    assert_eq!(options, expected.iter().map(|(via, open)| (via, open)).collect::<Vec<_>>(), "{first:#}");

    world.run(&["snapshot", "drill"]).expect(0);
    let drilled = price(&world, &["--via", "snapshot"], "rag");
    assert_eq!(drilled["takes"]["measured"], true, "{drilled:#}");
    let run = world.json(0, &["rollback", "--via", "snapshot", "--yes"])["run"].as_str().expect("a run").to_owned();
    apply(&world);
    let measured = price(&world, &["--via", "snapshot"], "rag");
    assert!(measured["takes"]["from"].as_str().expect("words").contains(&run), "{measured:#}");
    assert!(measured["unreachable"]["from"].as_str().expect("words").contains(&run), "{measured:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_knows_no_transactions_leaves_the_counters() {
    let world = prepared("price_old").await;
    apply(&world);
    write(&world, "chat").await;
    let manifest = world.object("snapshots/chat/manifest.json");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    let mut text: Value = serde_json::from_str(&text).expect("JSON");
    text.as_object_mut().expect("an object").remove("horizon");
    std::fs::write(&manifest, text.to_string()).expect("a file");
    let price = price(&world, &[], "chat");
    assert_eq!(lost(&price, "mixed"), json!([5, 4, 3, false, "counters", 0]), "{price:#}");
    assert!(price["lost"]["notes"][0].as_str().expect("words").contains("by counters alone"), "{price:#}");
}
