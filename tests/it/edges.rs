//! `-- migrate:after STEP/NAME`: a migration that waits for one of another step, also on another database.

use serde_json::{Value, json};

use crate::programs::{alembic_folder, alembic_step, module, python_library, python_step, revision};
use crate::world::{GATE, TestWorld, assert_same, sql_step, until};

fn file(world: &TestWorld, name: &str, text: &str) {
    world.file(&format!("migrations/{name}.sql"), text);
}

/// Steps of which each waits in its middle for the middle of the other.
async fn crossed(hint: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["chat", "rag"]).await;
    world.sql_plan("");
    file(&world, "chat/001_t", "create table t (id int);\n");
    file(&world, "chat/002_view", "-- migrate:after rag-schema/001_facts\ncreate view v as select id from t;\n");
    file(&world, "chat/003_more", "alter table t add more int;\n");
    file(&world, "rag/001_facts", "create table facts (id int);\n");
    file(&world, "rag/002_index", "-- why\n-- migrate:after chat-schema/002_view\ncreate index on facts (id);\n");
    world
}

/// Every migration of these databases, in the order of application. It begins when the one before it has ended.
async fn timeline(world: &TestWorld, databases: &[&str]) -> Vec<String> {
    let mut rows: Vec<(f64, f64, String)> = Vec::new();
    for name in databases {
        let sql = "select extract(epoch from started_at)::float8, extract(epoch from finished_at)::float8, step || '/' || name \
                   from migrate.ledger";
        let mut session = world.connect(name).await;
        rows.extend(sqlx::query_as::<_, (f64, f64, String)>(sql).fetch_all(&mut session).await.expect("a ledger"));
    }
    rows.sort_by(|a, b| a.partial_cmp(b).expect("times"));
    for pair in rows.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "{pair:?} overlap");
    }
    rows.into_iter().map(|(.., name)| name).collect()
}

/// Step and migrations of every `step_start` of a run.
fn started(world: &TestWorld, run: &Value) -> Vec<Value> {
    let entries = world.json(0, &["runs", "show", run.as_str().expect("an id")])["entries"].clone();
    let facts = entries.as_array().expect("a list").iter().map(|it| &it["fact"]);
    facts.filter(|it| it["event"] == "step_start").map(|it| json!([it["step"], it["pending"]])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_steps_wait_for_each_others_middle() {
    let world = crossed("edges_crossed").await;
    let before = world.fingerprints().await;
    let plan = world.json(0, &["plan"]);
    assert_eq!(plan["order"], json!(["chat-schema", "rag-schema"]));
    assert_eq!(plan["steps"][0]["pending"][1]["after"], json!(["rag-schema/001_facts"]));
    let stretch = |step: &str, database: &str, first: &str, last: &str, pending: u64| json!({ "step": step, "database": database, "first": first, "last": last, "pending": pending });
    assert_eq!(
        plan["segments"],
        json!([
            stretch("chat-schema", "chat", "001_t", "001_t", 1),
            stretch("rag-schema", "rag", "001_facts", "001_facts", 1),
            stretch("chat-schema", "chat", "002_view", "002_view", 1),
            stretch("chat-schema", "chat", "003_more", "003_more", 1),
            stretch("rag-schema", "rag", "002_index", "002_index", 1),
        ])
    );
    let text = world.run(&["plan"]);
    let says = |part: &str| assert!(text.expect(0).stdout.contains(part), "{part} in {}", text.stdout);
    says("   002_view  [back by snapshot only; after rag-schema/001_facts]\n");
    says(
        "In this order: chat-schema/001_t, rag-schema/001_facts, chat-schema/002_view, chat-schema/003_more, rag-schema/002_index\n",
    );

    let run = world.json(0, &["apply", "--yes"])["run"].clone();
    let started = started(&world, &run);
    assert_eq!(started.len(), 5, "{started:?}");
    let after = async |first: &str, second: &str| {
        let time = |name: &str, column: &str| {
            let (database, name) = name.split_once('/').expect("a name");
            let sql = format!("select extract(epoch from {column}) from migrate.ledger where name = '{name}'");
            let database = database.to_owned();
            async move { (database, sql) }
        };
        let (ended, begun) = (time(first, "finished_at").await, time(second, "started_at").await);
        let value = async |(database, sql): (String, String)| -> f64 {
            world.value(&database, &sql).await.parse().expect("a time")
        };
        assert!(value(ended).await <= value(begun).await, "{second} came before the end of {first}");
    };
    after("rag/001_facts", "chat/002_view").await;
    after("chat/002_view", "rag/002_index").await;
    assert_eq!(world.json(0, &["plan"])["segments"], Value::Null);

    assert_eq!(world.json(0, &["rollback", "--yes"])["outcome"], "rolled_back");
    assert_same(&before, &world.fingerprints().await);
    let again = world.json(0, &["apply", "--yes"]);
    assert_eq!((&again["databases"][0]["applied"], &again["databases"][1]["applied"]), (&json!(3), &json!(2)));
}

/// While what it waits for is held up, it has not begun; what comes before it in its step has.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_does_not_begin() {
    let world = crossed("edges_gate").await;
    file(&world, "rag/001_facts", &format!("{GATE}create table facts (id int);\n"));
    let mut gate = world.gate("rag").await;
    let child = world.start(&["apply", "--yes", "--json"]);
    gate.reached().await;
    let mut chat = world.connect("chat").await;
    until("the first of chat is applied", async || {
        let sql = "select coalesce((select count(*) from pg_tables where tablename = 't'), 0) = 1";
        sqlx::query_scalar::<_, bool>(sql).fetch_one(&mut chat).await.expect("an answer")
    })
    .await;
    // Both steps have begun, and rag waits: were chat not held up, its second would run now.
    assert_eq!(world.value("chat", "select count(*) from migrate.ledger").await, "1");
    let at_work = "select count(*) from pg_stat_activity where datname = current_database() and application_name like \
                   'migrate 2%' and state = 'active'";
    assert_eq!(world.value("chat", at_work).await, "0");
    gate.open().await;
    let ran = crate::world::finish(child);
    assert_eq!(ran.expect(0).document()["outcome"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_of_one_database_take_turns() {
    let world = TestWorld::new("edges_one", &["a"]).await;
    let steps = ["s", "t"]
        .map(|name| sql_step("a").replace("a-schema", name).replace("migrations/a", &format!("migrations/{name}")));
    world.plan(&steps.concat());
    file(&world, "s/1_a", "create table one (id int primary key);\n");
    file(&world, "s/2_b", "-- migrate:after t/1_a\nalter table two add three int;\n");
    file(&world, "s/3_c", "alter table two rename three to four;\n");
    file(&world, "t/1_a", "create table two (id int references one);\n");
    file(&world, "t/2_b", "-- migrate:after s/3_c\nalter table two drop column four;\n");
    let before = world.fingerprints().await;
    let run = world.json(0, &["apply", "--yes"])["run"].clone();
    assert_eq!(timeline(&world, &["a"]).await, ["s/1_a", "t/1_a", "s/2_b", "s/3_c", "t/2_b"]);
    assert_eq!(
        started(&world, &run),
        [json!(["s", ["1_a"]]), json!(["t", ["1_a"]]), json!(["s", ["2_b", "3_c"]]), json!(["t", ["2_b"]])]
    );
    let _ = world.run(&["rollback", "--yes"]).expect(0);
    assert_same(&before, &world.fingerprints().await);
}

/// Each way back needs what the other step's next one has undone: the order is that of the parts, and not of the steps.
#[tokio::test(flavor = "multi_thread")]
async fn down_scripts_go_back_part_by_part() {
    let world = TestWorld::new("edges_down", &["a"]).await;
    let steps = ["s", "t"]
        .map(|name| sql_step("a").replace("a-schema", name).replace("migrations/a", &format!("migrations/{name}")));
    world.plan(&steps.concat());
    let both = |name: &str, up: &str, down: &str| file(&world, name, &format!("{up};\n-- migrate:down\n{down};\n"));
    both("s/1_a", "create table one (id int primary key)", "drop table one");
    both("s/2_b", "-- migrate:after t/1_a\nalter table two add three int", "alter table two drop three");
    both("t/1_a", "create table two (id int references one)", "drop table two");
    both(
        "t/2_b",
        "-- migrate:after s/2_b\nalter table two rename three to four",
        "alter table two rename four to three",
    );
    let before = world.fingerprints().await;
    for _ in 0..2 {
        let _ = world.run(&["apply", "--yes"]).expect(0);
        let ahead = world.json(0, &["rollback", "--via", "down", "--dry-run"]);
        assert_eq!(ahead["databases"][0]["undo"], json!(["t/2_b", "s/2_b", "t/1_a", "s/1_a"]));
        assert_eq!(world.json(0, &["rollback", "--via", "down", "--yes"])["outcome"], "rolled_back");
        assert_same(&before, &world.fingerprints().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_behind_an_edge_takes_everything_back() {
    let world = crossed("edges_failed").await;
    let before = world.fingerprints().await;
    file(&world, "chat/003_more", "select 1/0;\n");
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(3).says("`003_more` failed").ends("Rolled back, as before the run: chat, rag.");
    assert_same(&before, &world.fingerprints().await);
    // Nothing was changed by what failed, and yet by what stood before it.
    world.sql_plan("[run]\non_failure = \"halt\"\n");
    world.run(&["apply", "--yes"]).expect(4).says("NOT rolled back: chat, rag.");
    assert_eq!(timeline(&world, &["chat"]).await, ["chat-schema/001_t", "chat-schema/002_view"]);
    let _ = world.run(&["rollback", "--yes"]).expect(0);
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_applied_is_not_waited_for() {
    let world = crossed("edges_applied").await;
    let ran = world.run(&["apply", "--yes", "--only", "chat"]);
    ran.expect(64).says("chat-schema/002_view waits for rag-schema/001_facts, which rag does not have");
    ran.says("--only leaves rag out").ends("No database was changed.");
    // What waits may be held back by its own file, while the rest goes on.
    let waiting = std::fs::read_to_string(world.path().join("migrations/rag/002_index.sql")).expect("a file");
    world.remove("migrations/rag/002_index.sql");
    let _ = world.run(&["apply", "--yes", "--only", "rag"]).expect(0);
    let _ = world.run(&["apply", "--yes", "--only", "chat"]).expect(0);
    file(&world, "rag/002_index", &waiting);
    let plan = world.json(0, &["plan"]);
    assert_eq!(
        (&plan["segments"], &plan["steps"][1]["pending"][0]["after"][0]),
        (&Value::Null, &"chat-schema/002_view".into())
    );
    let _ = world.run(&["apply", "--yes", "--only", "rag"]).expect(0);
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_leads_nowhere_or_in_a_circle_is_an_error_of_the_plan() {
    let world = crossed("edges_errors").await;
    let refused = |says: &[&str]| {
        let ran = world.run(&["plan"]);
        for says in says {
            ran.expect(64).says(says);
        }
        ran.ends("No database was changed.");
    };
    let wait = |edge: &str| file(&world, "chat/002_view", &format!("select 1;\n-- migrate:after {edge}\n"));
    wait("rags/001_facts");
    refused(&[
        "migrations/chat/002_view.sql:2: `migrate:after rags/001_facts` names a step",
        "chat-schema, rag-schema",
    ]);
    wait("rag-schema/001_fact");
    refused(&[
        "migrations/chat/002_view.sql:2: `migrate:after rag-schema/001_fact` names a migration",
        "001_facts, 002_index",
    ]);
    wait("chat-schema/003_more");
    refused(&["names a migration of the same step that does not come before it"]);
    wait("rag-schema");
    refused(&["migrations/chat/002_view.sql:2:1: `migrate:after` wants STEP/NAME"]);
    wait("rag-schema/002_index");
    refused(&[
        "migrations wait for each other in a circle:",
        "  chat-schema/002_view waits for rag-schema/002_index (migrations/chat/002_view.sql:2)",
        "  rag-schema/002_index waits for chat-schema/002_view (migrations/rag/002_index.sql:2)",
    ]);
    let error = &world.json(64, &["apply", "--yes"])["error"];
    assert_eq!(error["id"], "plan.edge_cycle", "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_plan_has_the_order_in_its_digest() {
    let world = crossed("edges_saved").await;
    let _ = world.run(&["plan", "--out", "saved.json"]).expect(0);
    file(&world, "chat/002_view", "create view v as select id from t;\n");
    world.run(&["apply", "saved.json", "--yes"]).expect(6).says("no longer matches");
    file(&world, "chat/002_view", "-- migrate:after rag-schema/001_facts\ncreate view v as select id from t;\n");
    let _ = world.run(&["apply", "saved.json", "--yes"]).expect(0);
}

/// What is waited for may be of any kind; a step of a kind that runs its migrations one by one is cut behind it.
#[tokio::test(flavor = "multi_thread")]
async fn migrations_of_every_kind_are_waited_for() {
    let world = TestWorld::new("edges_kinds", &["chat", "rag", "users"]).await;
    let refinery = sql_step("users").replace("\"sql\"", "\"refinery\"");
    let command =
        "[[steps]]\nname = \"mart\"\ndatabase = \"users\"\nkind = \"command\"\nargv = [\"true\"]\nrun = \"once\"\n";
    let steps = [sql_step("chat"), python_step("rag", &["one", "two"], ""), refinery, command.to_owned()];
    world.plan(&steps.concat());
    python_library(&world);
    module(&world, "one", "create table one (id int)");
    module(&world, "two", "create table two (id int)");
    file(&world, "users/V1__a", "create table a (id int);\n");
    file(&world, "users/V2__b", "create table b (id int);\n");
    file(&world, "chat/1_a", "-- migrate:after rag-schema/one\nselect 1;\n");
    file(&world, "chat/2_b", "-- migrate:after users-schema/V1__a\nselect 1;\n");
    file(&world, "chat/3_c", "-- migrate:after mart/mart\nselect 1;\n");
    let before = world.fingerprints().await;
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let end = async |database: &str, name: &str| -> f64 {
        let sql = format!("select extract(epoch from finished_at) from migrate.ledger where name = '{name}'");
        world.value(database, &sql).await.parse().expect("a time")
    };
    for (database, name, waiting) in [("rag", "one", "1_a"), ("users", "V1__a", "2_b"), ("users", "mart", "3_c")] {
        assert!(end(database, name).await < end("chat", waiting).await, "{waiting}");
    }
    let _ = world.run(&["rollback", "--yes"]).expect(0);
    assert_same(&before, &world.fingerprints().await);
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_of_an_alembic_step_is_waited_for() {
    let world = TestWorld::new("edges_alembic", &["chat", "mobius"]).await;
    world.plan(&[sql_step("chat"), alembic_step("mobius", "")].concat());
    alembic_folder(&world);
    revision(&world, "aa", None, "create table a (id int)");
    revision(&world, "bb", Some("aa"), "create table b (id int)");
    file(&world, "chat/1_a", "-- migrate:after os-schema/cc\nselect 1;\n");
    world
        .run(&["plan"])
        .expect(64)
        .says("migrations/chat/1_a.sql:1: `migrate:after os-schema/cc` names a migration")
        .says("aa, bb");
    file(&world, "chat/1_a", "-- migrate:after os-schema/aa\nselect 1;\n");
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let end = async |database: &str, which: &str| -> f64 {
        world
            .value(database, &format!("select extract(epoch from {which}) from migrate.ledger"))
            .await
            .parse()
            .expect("a time")
    };
    assert!(end("mobius", "max(finished_at)").await < end("chat", "min(started_at)").await);
}
