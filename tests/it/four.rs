//! A release across four databases whose third one fails: all four are as before, and the operator is told everything.

use crate::world::{TestWorld, assert_same, sql_step};

const NAMES: [&str; 4] = ["chat", "mobius", "rag", "users"];

/// One after the other, so that the third is the third.
fn in_a_row() -> String {
    let mut plan = String::new();
    for (at, name) in NAMES.iter().enumerate() {
        plan += &sql_step(name);
        if at > 0 {
            plan += &format!("after = [\"{}-schema\"]\n", NAMES[at - 1]);
        }
    }
    plan
}

async fn release(hint: &str) -> TestWorld {
    let world = TestWorld::new(hint, &NAMES).await;
    world.plan(&in_a_row());
    for name in NAMES {
        let existing = "create table t (id int primary key, v text default 'x'); insert into t values (1), (2); \
                        create sequence s start 7; select nextval('s'); comment on table t is 'it''s'";
        world.sql(name, existing).await;
        let first = "alter table t add column extra int not null default 5;\ndelete from t where id = 2;\n";
        world.file(&format!("migrations/{name}/001_more.sql"), first);
    }
    world.file(
        "migrations/rag/002_bad.sql",
        "-- ü\ncreate table half (id int);\ninsert into t (id, v) values (3, 'y'), (1, 'z');\n",
    );
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn the_third_of_four_fails_and_all_four_are_as_before() {
    let world = release("four").await;
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes", "--json"]);
    let document = ran.expect(3).document();
    assert_same(&before, &world.fingerprints().await);

    // What: file, line, column, state, the line itself.
    ran.says("error: rag: `002_bad` failed at migrations/rag/002_bad.sql:3:1\n");
    ran.says("cause: duplicate key value violates unique constraint \"t_pkey\" (SQLSTATE 23505)");
    ran.says("detail: Key (id)=(1) already exists.");
    ran.says("insert into t (id, v) values (3, 'y'), (1, 'z');").says("   help: ");
    // And what was done: users had not begun.
    ran.ends("Rolled back, as before the run: chat, mobius, rag.");
    assert_eq!(document["outcome"], "rolled_back");
    let done: Vec<(&str, u64, bool)> = document["databases"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| {
            let flag = it["rolled_back"].as_bool().expect("a flag");
            (it["name"].as_str().expect("a name"), it["applied"].as_u64().expect("a number"), flag)
        })
        .collect();
    assert_eq!(done, [("chat", 1, true), ("mobius", 1, true), ("rag", 1, true), ("users", 0, false)]);
    assert_eq!(document["snapshots"].as_array().expect("a list").len(), 4);

    the_replaced_databases_are_kept(&world, &document).await;
    the_run_is_in_the_store(&world, document["run"].as_str().expect("an id"));
}

async fn the_replaced_databases_are_kept(world: &TestWorld, document: &serde_json::Value) {
    for at in 0..3 {
        let it = &document["databases"][at];
        let (name, kept) = (it["name"].as_str().expect("a name"), it["kept_as"].as_str().expect("a name"));
        let url = world.url(name).replacen(&world.dbname(name), kept, 1);
        let mut kept = crate::harness::connect(&url).await;
        let row: (i64, i64, Option<String>) = sqlx::query_as(
            "select (select count(*) from t), (select count(*) from migrate.ledger), to_regclass('half')::text",
        )
        .fetch_one(&mut kept)
        .await
        .expect("the state at the failure");
        assert_eq!(row, (1, 1, None), "{name}");
    }
    assert!(document["databases"][3].get("kept_as").is_none());
}

fn the_run_is_in_the_store(world: &TestWorld, run: &str) {
    let runs = world.json(0, &["runs", "list"]);
    assert_eq!(runs["runs"].as_array().expect("a list").len(), 1);
    let line = &runs["runs"][0];
    assert_eq!(
        (&line["run"], &line["target"], &line["outcome"]),
        (&run.into(), &"local".into(), &"rolled_back".into())
    );
    assert!(line["started_at"].is_string() && line["seconds"].as_f64().is_some_and(|it| it > 0.0), "{line:#}");
    let shown = world.run(&["runs", "show", run]);
    assert!(shown.expect(0).stdout.starts_with(&format!("Run {run}: rolled_back\n")), "{}", shown.stdout);
    let events: Vec<&str> = shown.stdout.lines().skip(1).filter_map(|line| line.split("  ").nth(3)).collect();
    assert_eq!((events.first(), events.last()), (Some(&"begin"), Some(&"end")), "{}", shown.stdout);
    for event in ["snapshot taken", "step done", "step failed", "rollback start", "restored", "swap start", "swapped"] {
        assert!(shown.stdout.contains(&format!("  {event}  ")), "{event} in {}", shown.stdout);
    }
    let kept = world.objects();
    for key in ["plan.toml", "migrations/rag-schema/002_bad.sql", "snapshots/users/manifest.json"] {
        assert!(kept.contains(&format!("runs/{run}/{key}")), "{key} in {kept:#?}");
    }
    let shown = world.json(0, &["runs", "show", run]);
    assert_eq!((&shown["run"], &shown["outcome"]), (&run.into(), &"rolled_back".into()));
    assert_eq!(shown["entries"][0]["fact"]["event"], "begin");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_was_mended_goes_through() {
    let world = release("four_mended").await;
    let failed = world.run(&["apply", "--yes"]);
    let said = &failed.expect(3).stdout;
    for name in &NAMES[..3] {
        let kept = format!("the replaced database is kept as {}__replaced_", world.dbname(name));
        assert!(said.contains(&format!("  {name}: 1 applied, rolled back from its snapshot; {kept}")), "{said}");
    }
    world.file("migrations/rag/002_bad.sql", "insert into t (id, v) values (3, 'y');\n");
    let document = world.json(0, &["apply", "--yes"]);
    assert_eq!(document["outcome"], "succeeded");
    for name in NAMES {
        assert_eq!(
            world.value(name, "select count(*) from migrate.ledger").await,
            if name == "rag" { "2" } else { "1" }
        );
    }
    assert_eq!(world.json(0, &["runs", "list"])["runs"].as_array().expect("a list").len(), 2);
}
