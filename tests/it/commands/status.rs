//! `migrate status`, `migrate verify`, `migrate runs`.

use serde_json::{Value, json};

use crate::world::TestWorld;

async fn world(hint: &str, rest: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["a", "b"]).await;
    world.sql_plan(rest);
    for name in ["a", "b"] {
        world.file(&format!("migrations/{name}/001_t.sql"), "create table t (id int primary key, v text);\n");
    }
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_each_database_even_where_one_does_not_answer() {
    let mut world = world("status", "").await;
    let run = world.json(0, &["apply", "--yes"])["run"].clone();
    world.file("migrations/a/002_more.sql", "select 1;\n");
    world.lead("b", world.url("b").replacen(&world.dbname("b"), "not_there", 1));
    let it = world.json(0, &["status"]);
    assert_eq!((&it["target"], &it["unfinished_run"]), (&"local".into(), &Value::Null));
    let a = &it["databases"][0];
    assert_eq!((&a["name"], &a["reachable"], &a["applied"]), (&"a".into(), &true.into(), &1.into()));
    assert_eq!((&a["last_run"], &a["changed"]), (&run, &json!([])));
    assert_eq!(a["pending"], json!([{ "step": "a-schema", "name": "002_more" }]));
    let b = &it["databases"][1];
    assert_eq!((&b["name"], &b["reachable"]), (&"b".into(), &false.into()));
    assert!(b["error"].as_str().is_some_and(|text| text.contains("SQLSTATE 3D000")), "{b:#}");
    let text = world.run(&["status"]);
    let text = &text.expect(0).stdout;
    assert!(
        text.contains("\nb: unreachable, cannot connect to ") && text.contains("  pending  a-schema/002_more\n"),
        "{text}"
    );
}

/// Whoever pipes into `head` does not want to hear of a broken pipe.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_gone_is_a_quiet_success() {
    let world = world("status_pipe", "").await;
    for args in [&["status"] as &[&str], &["plan", "--json"], &["--help"]] {
        let mut child = world.start(args);
        drop(child.stdout.take());
        let ran = crate::world::finish(child);
        assert_eq!(ran.expect(0).stderr, "");
    }
}

const CHECK: &str = r#"
[[checks]]
name = "same"
when = "after"
kind = "sync"
source = { database = "a", table = "t" }
target = { database = "b", table = "t" }
key = ["id"]
compare = ["v"]
min_rows = 1
owner = "Chat DB owner"

[[checks]]
name = "other"
when = "before"
kind = "sync"
source = { database = "a", table = "t" }
target = { database = "b", table = "no_such_table" }
key = ["id"]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn verify_counts_and_samples() {
    let world = world("verify", CHECK).await;
    let make = "create table t (id int primary key, v text); insert into t values";
    world.sql("a", &format!("{make} (1, 'a'), (2, 'b'), (3, 'c')")).await;
    world.sql("b", &format!("{make} (1, 'a'), (2, 'B'), (4, 'd')")).await;
    let document = world.json(7, &["verify", "same"]);
    let it = &document["checks"][0];
    assert_eq!((&it["name"], &it["kind"], &it["outcome"]), (&"same".into(), &"sync".into(), &"failed".into()));
    let counts = ["source_rows", "target_rows", "missing", "extra", "different"].map(|field| it[field].as_u64());
    assert_eq!(counts, [3, 3, 1, 1, 1].map(Some), "{it:#}");
    assert_eq!(it["sample"].as_array().map(Vec::len), Some(3));
    assert_eq!(it["sample"][0], json!({ "key": "2", "reason": "differs in v" }));
    assert!(it["seconds"].is_number());
    world.run(&["verify", "same"]).expect(7).says("Its owner is Chat DB owner.");

    world.sql("b", "truncate t; insert into t values (1, 'a'), (2, 'b'), (3, 'c')").await;
    let passed = world.json(0, &["verify", "same"]);
    assert_eq!(passed["checks"][0]["outcome"], "passed");
    assert!(passed.get("error").is_none());
    // All of them: a table that is not there is a failure, never a pass.
    let both = world.json(7, &["verify"]);
    let outcomes: Vec<_> = both["checks"].as_array().expect("a list").iter().map(|it| &it["outcome"]).collect();
    assert_eq!(outcomes, ["passed", "failed"]);
    assert!(both["error"]["message"].as_str().is_some_and(|text| text.contains("no_such_table")), "{both:#}");
    world.run(&["verify", "nonsense"]).expect(64).says("the plan has no check `nonsense`").says("It has same, other.");
}

/// A check before the migrations is a gate: nothing is begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_does_not_hold_stops_the_release() {
    let world = world("gate", CHECK).await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(1).says("check `other` does not hold").ends("No database was changed.");
    assert_eq!(world.objects(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_listed_newest_first_and_shown() {
    let world = world("runs", "").await;
    assert_eq!(world.run(&["runs", "list"]).expect(0).stdout, "There are no runs.\n");
    let first = world.json(0, &["apply", "--yes"])["run"].clone();
    let second = world.json(0, &["snapshot", "take"])["run"].clone();
    let store = format!("file://{}", world.store().display());
    // With --store no plan is needed.
    world.remove("plans/production.toml");
    let runs = world.json(0, &["runs", "list", "--store", &store]);
    let seen: Vec<_> = runs["runs"].as_array().expect("a list").iter().map(|it| (&it["run"], &it["command"])).collect();
    assert_eq!(seen, [(&second, &"snapshot".into()), (&first, &"apply".into())]);
    let shown = world.run(&["runs", "show", first.as_str().expect("an id"), "--store", &store]);
    assert!(shown.expect(0).stdout.contains("  step done  "), "{}", shown.stdout);
    let unknown = format!("2020{}", &first.as_str().expect("an id")[4..]);
    world.run(&["runs", "show", &unknown, "--store", &store]).expect(64).says("there is no run");
    let _ = world.run(&["runs", "show", "nonsense", "--store", &store]).expect(64);
}
