//! `-- migrate:repeatable` and `R__name.sql`: applied behind the others, by name, when new or changed.

use serde_json::{Value, json};

use crate::world::{TestWorld, assert_same};

async fn world(hint: &str, files: &[(&str, &str)]) -> TestWorld {
    let world = TestWorld::new(hint, &["a"]).await;
    world.sql_plan("");
    for (name, text) in files {
        world.file(&format!("migrations/a/{name}.sql"), text);
    }
    world
}

const TABLE: &str = "create table t (id int, v text); insert into t values (1, 'x');\n";
const VIEW: &str = "create or replace view v as select id from t;\n";
const WIDER: &str = "create or replace view v as select id, v from t;\n";
const COUNT: &str = "-- migrate:repeatable\ncreate or replace view w as select count(*) from v;\n";

/// Name and checksum of every row, in the order in which they were written.
async fn ledger(world: &TestWorld) -> String {
    world.value("a", "select string_agg(name, ' ' order by finished_at) from migrate.ledger").await
}

async fn columns(world: &TestWorld) -> String {
    let sql = "select count(*) from pg_attribute where attrelid = 'v'::regclass and attnum > 0";
    world.value("a", sql).await
}

fn pending(world: &TestWorld) -> Vec<(String, Value)> {
    let plan = world.json(0, &["plan"]);
    let units = plan["steps"][0]["pending"].as_array().expect("a list").clone();
    units.iter().map(|it| (it["name"].as_str().expect("a name").to_owned(), it["repeatable"].clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn they_come_last_by_name_and_again_when_they_change() {
    let files =
        [("R__a_view", VIEW), ("0_count", COUNT), ("R__b", "-- migrate:no-transaction\nvacuum t;\n"), ("9_t", TABLE)];
    let world = world("repeat", &files).await;
    world.file("migrations/a/R__a_view.down.sql", "drop view v;\n");
    // By name, `0_count` comes before what it needs.
    world.run(&["apply", "--yes"]).expect(3).says("`0_count` failed");
    world.remove("migrations/a/0_count.sql");
    world.file("migrations/a/R__ab_count.sql", COUNT);
    let new = |name: &str| (name.to_owned(), json!("new"));
    assert_eq!(pending(&world), [("9_t".into(), Value::Null), new("R__a_view"), new("R__ab_count"), new("R__b")]);
    assert!(world.run(&["plan"]).stdout.contains("   R__a_view  [repeatable, new; has a down]\n"));
    let _ = world.run(&["apply", "--yes"]).expect(0);
    assert_eq!(ledger(&world).await, "9_t R__a_view R__ab_count R__b");
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");

    // A changed one is pending and no drift; what comes before it in order does not overtake it.
    let old = world.value("a", "select checksum from migrate.ledger where name = 'R__a_view'").await;
    world.file("migrations/a/R__a_view.sql", WIDER);
    world.file("migrations/a/R__b.sql", "-- migrate:no-transaction\nanalyze t;\nvacuum t;\n");
    world.file("migrations/a/10_more.sql", "alter table t add n int;\n");
    let changed = |name: &str| (name.to_owned(), json!("changed"));
    assert_eq!(pending(&world), [("10_more".into(), Value::Null), changed("R__a_view"), changed("R__b")]);
    let status = world.json(0, &["status"]);
    assert_eq!(status["databases"][0]["changed"], json!([]));
    assert_eq!(status["databases"][0]["pending"][1]["detail"], "repeatable, changed");
    let run = world.json(0, &["apply", "--yes"])["run"].as_str().expect("an id").to_owned();
    assert_eq!(
        (ledger(&world).await, columns(&world).await),
        ("9_t R__ab_count 10_more R__a_view R__b".into(), "2".into())
    );
    assert_eq!(
        world.value("a", "select state || ' ' || progress || ' ' || run from migrate.ledger where name = 'R__b'").await,
        format!("applied 2 {run}")
    );

    // What it was is kept with the run that replaced it.
    let entries = world.json(0, &["runs", "show", &run])["entries"].clone();
    let started = entries.as_array().expect("a list").iter().find(|it| it["fact"]["event"] == "step_start");
    assert_eq!(started.expect("an entry")["fact"]["replaced"]["R__a_view"], old);
    let kept = |ending: &str| {
        std::fs::read_to_string(world.store().join(format!("runs/{run}/migrations/a-schema/R__a_view{ending}")))
            .expect("kept")
    };
    assert_eq!(
        (kept(".before.sql"), kept(".sql"), kept(".down.sql")),
        (VIEW.into(), WIDER.into(), "drop view v;\n".into())
    );
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
    world.run(&["repair", "checksum", "a-schema/R__a_view", "--yes"]).expect(64).says("is not changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_back_of_one_that_was_applied_anew_and_forward_again() {
    let world = world("repeat_back", &[("1_t", TABLE), ("R__v", VIEW)]).await;
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let before = world.fingerprints().await;
    world.file("migrations/a/R__v.sql", WIDER);
    let _ = world.run(&["apply", "--yes"]).expect(0);
    assert_eq!(columns(&world).await, "2");
    let _ = world.run(&["rollback", "--yes"]).expect(0);
    assert_same(&before, &world.fingerprints().await);
    assert_eq!(pending(&world), [("R__v".to_owned(), json!("changed"))]);
    let _ = world.run(&["apply", "--yes"]).expect(0);
    assert_eq!(columns(&world).await, "2");
    // One that fails leaves view and row as they were.
    let row = "select (select checksum from migrate.ledger where name = 'R__v') || run from migrate.ledger where name = 'R__v'";
    let was = world.value("a", row).await;
    world.file("migrations/a/R__v.sql", "drop view v;\nselect 1/0;\n");
    world.run(&["apply", "--yes"]).expect(1).says("`R__v` failed").ends("No database was changed.");
    assert_eq!((world.value("a", row).await, columns(&world).await), (was, "2".into()));
}

/// A new one goes by its down script. One that replaced its earlier text cannot: that text is no way back.
#[tokio::test(flavor = "multi_thread")]
async fn down_scripts_undo_what_was_new_and_nothing_that_was_replaced() {
    let world = world("repeat_down", &[("1_t", TABLE)]).await;
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let without = world.fingerprints().await;
    world.file("migrations/a/R__v.sql", VIEW);
    world.file("migrations/a/R__v.down.sql", "drop view v;\n");
    for _ in 0..2 {
        let _ = world.run(&["apply", "--yes"]).expect(0);
        let _ = world.run(&["rollback", "--via", "down", "--yes"]).expect(0);
        assert_same(&without, &world.fingerprints().await);
        assert_eq!(pending(&world), [("R__v".to_owned(), json!("new"))]);
    }
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let first = world.fingerprints().await;
    world.file("migrations/a/R__v.sql", WIDER);
    assert!(world.run(&["plan"]).stdout.contains("   R__v  [repeatable, changed; back by snapshot only]\n"));
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let ran = world.run(&["rollback", "--via", "down", "--yes"]);
    ran.expect(4).says("a-schema/R__v on a: it replaced an earlier text of its own, kept as runs/");
    assert_eq!(columns(&world).await, "2");
    let _ = world.run(&["rollback", "--yes"]).expect(0);
    assert_same(&first, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_lost_its_file_is_told_and_no_error() {
    let world = world("repeat_gone", &[("1_t", TABLE), ("R__v", VIEW), ("2_count", COUNT)]).await;
    world.remove("migrations/a/2_count.sql");
    world.file("migrations/a/R__w.sql", "select 1;\n");
    world.file(
        "migrations/a/2_view.sql",
        "-- why\n-- migrate:repeatable\ncreate or replace view x as select 1 as one;\n",
    );
    let _ = world.run(&["apply", "--yes"]).expect(0);
    world.remove("migrations/a/R__w.sql");
    world.remove("migrations/a/2_view.sql");
    let plan = world.run(&["plan"]);
    for name in ["2_view", "R__w"] {
        let note = format!("   note: {name} is repeatable and was applied, and has no file any more\n");
        assert!(plan.expect(0).stdout.contains(&note), "{}", plan.stdout);
    }
    assert_eq!(world.json(0, &["plan"])["steps"][0]["gone"], json!(["2_view", "R__w"]));
    let status = world.json(0, &["status"]);
    assert_eq!(status["databases"][0]["gone"][1], json!({ "step": "a-schema", "name": "R__w" }));
    assert!(
        world
            .run(&["status"])
            .expect(0)
            .stdout
            .contains("  note: a-schema/R__w is repeatable and has no file any more\n")
    );
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
    // A numbered one is drift, as ever.
    world.remove("migrations/a/1_t.sql");
    world.run(&["plan"]).expect(6).says("the ledger has `1_t`, and there is no file of that name");
}

#[tokio::test(flavor = "multi_thread")]
async fn baseline_adopts_them() {
    let world = world("repeat_adopt", &[("1_t", TABLE), ("2_u", "create table u (id int);\n"), ("R__v", VIEW)]).await;
    world.sql("a", &format!("{TABLE}{VIEW}")).await;
    world.sql("a", "create table schema_migrations (filename text); insert into schema_migrations values ('1_t.sql'), ('R__v.sql')").await;
    let adopted = world.json(0, &["baseline", "--yes"]);
    assert_eq!(adopted["adopted"][0]["adopted"], json!(["1_t", "R__v"]), "{adopted:#}");
    assert_eq!(pending(&world), [("2_u".to_owned(), Value::Null)]);
    let _ = world.run(&["apply", "--yes"]).expect(0);
    // One that was changed by hand, and its file with it, is adopted anew.
    world.file("migrations/a/R__v.sql", WIDER);
    world.sql("a", WIDER).await;
    let _ = world.run(&["baseline", "--all", "--yes"]).expect(0);
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
}
