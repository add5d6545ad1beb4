//! `kind = "sql"`: the order, both ways back, and what the ledger says.

use crate::world::{TestWorld, assert_same};

/// The ledger's rows in the order in which they were written.
async fn applied(world: &TestWorld) -> String {
    world.value("a", "select string_agg(name, ' ' order by started_at, finished_at) from migrate.ledger").await
}

async fn world(hint: &str, files: &[(&str, &str)]) -> TestWorld {
    let world = TestWorld::new(hint, &["a"]).await;
    world.sql_plan("");
    for (name, text) in files {
        world.file(&format!("migrations/a/{name}.sql"), text);
    }
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn files_run_by_number_then_name_and_duplicates_are_reported() {
    let files = [
        ("10_last", "create view v as select wide from t;"),
        ("9_b", "alter table t add wide int;"),
        ("009_a", "create table t (id int);"),
    ];
    let world = world("sql_order", &files).await;
    let plan = world.run(&["plan"]);
    assert!(plan.expect(0).stdout.contains("a number stands more than once, 009: 009_a, 9_b"), "{}", plan.stdout);
    assert_eq!(world.json(0, &["plan"])["steps"][0]["duplicate_numbers"][0], "009: 009_a, 9_b");
    let _ = world.run(&["apply", "--yes"]).expect(0);
    assert_eq!(applied(&world).await, "009_a 9_b 10_last");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_shows_what_is_dangerous_in_what_is_pending() {
    let files = [("1_a", "create table t (a int, b int);"), ("2_b", "select 1;\nalter table t drop column a;")];
    let world = world("sql_hazards", &files).await;
    let plan = world.run(&["plan"]);
    let line = "   2_b  [back by snapshot only]\n     error[ban-drop-column] line 2: Dropping a column";
    assert!(plan.expect(0).stdout.contains(line), "{}", plan.stdout);
    let document = world.json(0, &["plan"]);
    let pending = &document["steps"][0]["pending"];
    assert_eq!(pending[0]["hazards"], serde_json::json!([]));
    let hazard = &pending[1]["hazards"][0];
    assert_eq!((&hazard["rule"], &hazard["severity"]), (&"ban-drop-column".into(), &"error".into()));
    assert!(hazard["line"] == 2 && hazard["message"].is_string(), "{hazard}");
    // It is for people to see, and stops nothing; what is applied is not looked at again.
    let _ = world.run(&["apply", "--yes"]).expect(0);
    world.file("migrations/a/3_c.sql", "-- migrate:allow ban-drop-column\nalter table t drop column b;");
    world.file("migrations/a/4_d.sql", "drop table t;");
    let pending = world.json(0, &["plan"])["steps"][0]["pending"].clone();
    assert_eq!((&pending[0]["name"], &pending[0]["hazards"]), (&"3_c".into(), &serde_json::json!([])));
    assert_eq!(pending[1]["hazards"][0]["rule"], "ban-drop-table");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_says_everything() {
    let files = [
        ("001_section", "create table one (v text default 'it''s \\');\n-- migrate:down\ndrop table one;\n"),
        ("002_beside", "create table two (id int);\n"),
        ("002_beside.down", "drop table two;\n"),
        ("003_none", "-- migrate:no-transaction\ncreate index concurrently i on two (id);\n"),
    ];
    let world = world("sql_ledger", &files).await;
    let run = world.json(0, &["apply", "--yes"])["run"].as_str().expect("an id").to_owned();
    let bad = "select string_agg(name, ' ') from migrate.ledger where not coalesce(step = 'a-schema' and kind = 'sql' and \
               checksum ~ '^[0-9a-f]{64}$' and state = 'applied' and started_at <= finished_at and started_at > now() - \
               interval '1 hour' and execution_ms >= 0 and applied_by like '%_@_%'";
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        world.value("a", &format!("{bad} and tool_version = '{version}' and run = '{run}', false)")).await,
        "NULL"
    );
    let column = async |name: &str, column: &str| {
        world.value("a", &format!("select {column} from migrate.ledger where name = '{name}'")).await
    };
    assert_eq!(column("001_section", "up_sql").await, "create table one (v text default 'it''s \\');\n");
    assert_eq!(column("001_section", "down_sql").await.trim(), "drop table one;");
    assert_eq!(column("002_beside", "down_sql").await, "drop table two;\n");
    assert_eq!(column("003_none", "down_sql").await, "NULL");
    assert!(column("003_none", "up_sql").await.contains("create index concurrently i on two (id);"));
    // What the store keeps is what the ledger keeps.
    let kept = world.object("002_beside.down.sql");
    assert_eq!(std::fs::read_to_string(kept).expect("kept"), "drop table two;\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_transaction_each_statement_is_its_own() {
    let text = "-- migrate:no-transaction\n\
                create table t (id int);\ninsert into t select 1;\n\
                create index concurrently i on t (id);\n\
                create function f() returns int language plpgsql as $$ begin return 1; end $$;\n\
                insert into t select pg_current_xact_id()::text::bigint % 1000000;\nselect 1/0;\n";
    let world = world("sql_bare", &[("001_bare", text)]).await;
    let before = world.fingerprints().await;
    world.sql_plan("[run]\non_failure = \"halt\"\n");
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(4).says("`001_bare` failed at migrations/a/001_bare.sql:7:1").says("SQLSTATE 22012");
    // Everything before the failure is there, and the intent is in the ledger.
    assert_eq!(world.value("a", "select count(*) || ' ' || f() from t").await, "2 1");
    assert_eq!(world.value("a", "select indisvalid from pg_index where indexrelid = 'i'::regclass").await, "true");
    assert_eq!(world.value("a", "select state || ' ' || progress from migrate.ledger").await, "started 5");
    let _ = world.run(&["rollback", "--yes"]).expect(0);
    assert_same(&before, &world.fingerprints().await);
}

/// Files as other tools have them, which run each statement by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_cannot_run_in_a_transaction_needs_no_word_for_it() {
    let mixed = "alter table t add a int;\nvacuum t;\n-- migrate:down\nalter table t drop a;\n";
    let files = [
        ("001_t", "create table t (id int);\n-- migrate:down\ndrop table t;\n"),
        ("002_i", "create index concurrently i on t (id);\n"),
        ("002_i.down", "drop index concurrently i;\n"),
        ("003_mixed", mixed),
    ];
    let world = world("sql_undeclared", &files).await;
    let before = world.fingerprints().await;
    let planned = world.json(0, &["plan"])["steps"][0]["pending"].clone();
    let transactional: Vec<_> = (0..3).map(|at| planned[at]["transactional"].clone()).collect();
    assert_eq!(transactional, [true, false, false]);
    assert_eq!(planned[1]["hazards"], serde_json::json!([]));
    let hazard = &planned[2]["hazards"][0];
    assert_eq!((&hazard["rule"], &hazard["line"]), (&"cannot-run-in-transaction".into(), &2.into()), "{hazard}");
    let _ = world.run(&["apply", "--yes"]).expect(0);
    assert_eq!(
        world
            .value("a", "select string_agg(coalesce(progress::text, '-'), ' ' order by name) from migrate.ledger")
            .await,
        "- 1 2"
    );
    let _ = world.run(&["rollback", "--via", "down", "--yes"]).expect(0);
    assert_same(&before, &world.fingerprints().await);
    let _ = world.run(&["apply", "--yes"]).expect(0);
    // Between BEGIN and COMMIT it is what it says, which cannot be.
    world.file("migrations/a/004_k.sql", "begin;\ncreate index concurrently k on t (a);\ncommit;\n");
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(64).says("migrations/a/004_k.sql:2:1: CREATE INDEX CONCURRENTLY cannot run inside a transaction");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_fails_late_leaves_nothing() {
    for (hint, text) in [
        ("sql_late", "create table t (id int);\ninsert into t values (1);\nselect 1/0;\n"),
        ("sql_late_begun", "begin;\ncreate table t (id int);\ninsert into t values (1);\nselect 1/0;\ncommit;\n"),
        (
            "sql_late_deferred",
            "create table t (id int unique deferrable initially deferred);\ninsert into t values (1), (1);\n",
        ),
    ] {
        let world = world(hint, &[("001_late", text)]).await;
        let before = world.fingerprints().await;
        let _ = world.run(&["apply", "--yes"]).expect(1).ends("No database was changed.");
        assert_same(&before, &world.fingerprints().await);
    }
}

/// The row cannot be written: neither may the migration stay, whether or not its file says BEGIN and COMMIT.
#[tokio::test(flavor = "multi_thread")]
async fn a_migration_and_its_ledger_row_are_one_commit() {
    let world = world("sql_atomic", &[("001_first", "create table one (id int);\n")]).await;
    let _ = world.run(&["apply", "--yes"]).expect(0);
    world.sql("a", "alter table migrate.ledger add constraint none check (name not like '002%')").await;
    let before = world.fingerprints().await;
    for text in ["create table two (id int);\n", "begin;\ncreate table two (id int);\ncommit;\n"] {
        world.file("migrations/a/002_second.sql", text);
        let ran = world.run(&["apply", "--yes"]);
        ran.expect(1).says("the ledger row of `002_second` could not be written").says("SQLSTATE 23514");
        ran.ends("No database was changed.");
        assert_same(&before, &world.fingerprints().await);
    }
    world.sql("a", "alter table migrate.ledger drop constraint none").await;
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let same = "select (select xmin::text from pg_class where relname = 'two') = (select xmin::text from migrate.ledger \
                where name = '002_second')";
    assert_eq!(world.value("a", same).await, "true", "one transaction wrote both");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_by_snapshot_and_forward_again() {
    let files = [("001_t", "create table t (id serial primary key);\n"), ("002_t", "insert into t default values;\n")];
    let world = world("sql_round", &files).await;
    let before = world.fingerprints().await;
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let rows = "select count(*) || ' ' || max(id) from t";
    assert_eq!(world.value("a", rows).await, "1 1");
    let _ = world.run(&["rollback", "--yes"]).expect(0);
    assert_same(&before, &world.fingerprints().await);
    let _ = world.run(&["apply", "--yes"]).expect(0);
    assert_eq!(world.value("a", rows).await, "1 1");
}

/// Some statements look as any other, and only the server knows that they need to be alone.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_in_a_transaction_stands_alone() {
    let text = "-- migrate:no-transaction\ncreate table t (id int) partition by range (id);\ncreate index i on t (id);\n\
                create table t1 partition of t for values from (0) to (9);\nreindex table t;\n";
    let world = world("sql_alone", &[("001_bare", text)]).await;
    let _ = world.run(&["apply", "--yes"]).expect(0);
    assert_eq!(world.value("a", "select state || progress from migrate.ledger").await, "applied4");
}

/// A ledger of an earlier version has no such columns.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_ledger_learns_to_keep_progress() {
    let world = world("sql_older_ledger", &[("001_t", "create table t (id int);\n")]).await;
    let _ = world.run(&["apply", "--yes"]).expect(0);
    world.sql("a", "alter table migrate.ledger drop column progress, drop column unclear, drop column before").await;
    world.file("migrations/a/002_bare.sql", "-- migrate:no-transaction\nvacuum t;\nanalyze t;\n");
    let _ = world.run(&["status"]).expect(0);
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let rows = "select string_agg(name || ' ' || state || ' ' || coalesce(progress, 0), ', ' order by name) from migrate.ledger";
    assert_eq!(world.value("a", rows).await, "001_t applied 0, 002_bare applied 2");
}
