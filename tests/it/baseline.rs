//! Databases that have their migrations already are taken over, and nothing is run again.

use crate::harness::{OWNER, cluster, connect};
use crate::world::{TestWorld, sql_step};

/// A database whose three files were run by hand, as the platform's were for years.
async fn by_hand(hint: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["chat"]).await;
    world.plan(&sql_step("chat"));
    for (name, sql) in FILES {
        world.file(&format!("migrations/chat/{name}.sql"), sql);
        world.sql("chat", sql).await;
    }
    world
}

const FILES: [(&str, &str); 3] = [
    ("001_threads", "create table threads (id int primary key);\n"),
    ("002_messages", "create table messages (id int primary key, thread int references threads);\n"),
    ("002_view", "create view busy as select thread, count(*) from messages group by thread;\n"),
];

async fn ledger(world: &TestWorld) -> String {
    let sql = "select string_agg(name || ' ' || state, ', ' order by name) from migrate.ledger";
    world.value("chat", sql).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_of_file_names_is_adopted() {
    let world = by_hand("baseline_names").await;
    world
        .sql(
            "chat",
            "create table schema_migrations (filename text primary key, applied_at timestamptz, checksum text);
             insert into schema_migrations values ('001_threads.sql', now(), ''), ('002_messages.sql', now(), ''),
             ('002_view.sql', now(), ''), ('000_gone.sql', now(), '')",
        )
        .await;
    world.run(&["apply", "--yes"]).expect(1).says("already exists");

    let dry = world.json(0, &["baseline", "--dry-run"]);
    assert_eq!(dry["adopted"][0]["adopted"].as_array().map(Vec::len), Some(3));
    assert_eq!(world.value("chat", "to_regclass('migrate.ledger') is null").await, "true");

    let adopted = world.json(0, &["baseline", "--yes"]);
    assert_eq!(adopted["adopted"][0]["from"], "schema_migrations");
    assert_eq!(adopted["adopted"][0]["without_file"][0], "000_gone");
    assert_eq!(ledger(&world).await, "001_threads applied, 002_messages applied, 002_view applied");
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
    assert_eq!(world.json(0, &["runs", "list"])["runs"][0]["command"], "baseline");
    assert_eq!(world.json(0, &["baseline", "--yes"])["run"], serde_json::Value::Null, "there is nothing left to adopt");

    world.file("migrations/chat/001_threads.sql", "create table threads (id bigint primary key);\n");
    world.run(&["apply", "--yes"]).expect(6).says("001_threads");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_with_a_gap_is_refused_by_name() {
    let world = by_hand("baseline_gap").await;
    world
        .sql("chat", "create table migrations_applied (name text); insert into migrations_applied values ('002_view')")
        .await;
    world.run(&["baseline", "--yes"]).expect(6).says("001_threads, 002_messages").says("migrations_applied");
    assert_eq!(world.value("chat", "to_regclass('migrate.ledger') is null").await, "true");
}

/// One of two ledgers was given up, and only people know which.
#[tokio::test(flavor = "multi_thread")]
async fn two_ledgers_that_disagree_are_refused_by_name() {
    let world = by_hand("baseline_two").await;
    let rows = |names: &str| format!("values {names}");
    let older = rows("('001_threads.sql'), ('002_messages.sql')");
    world.sql("chat", &format!("create table schema_migrations (filename) as {older}")).await;
    world.sql("chat", "create table migrations_applied as select * from (values ('001_threads')) v (name)").await;
    let ran = world.run(&["baseline", "--yes"]);
    ran.expect(6).says("schema_migrations and migrations_applied do not have the same migrations").says("002_messages");
    assert_eq!(world.value("chat", "to_regclass('migrate.ledger') is null").await, "true");
    world.sql("chat", "insert into migrations_applied values ('002_messages')").await;
    world.run(&["baseline", "--yes"]).expect(0);
    assert_eq!(ledger(&world).await, "001_threads applied, 002_messages applied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_or_everything_can_be_said_instead() {
    let world = by_hand("baseline_said").await;
    world.run(&["baseline", "--yes"]).expect(64).says("nothing says what chat have");
    world.run(&["baseline", "--through", "chat-schema/404_nowhere", "--yes"]).expect(64).says("404_nowhere");
    world.run(&["baseline", "--through", "nonsense", "--yes"]).expect(64).says("STEP/NAME");
    world.run(&["baseline", "--through", "chat-schema/002_messages"]).expect(64).says("no terminal");
    world.run(&["baseline", "--through", "chat-schema/002_messages", "--yes"]).expect(0);
    assert_eq!(ledger(&world).await, "001_threads applied, 002_messages applied");
    world.run(&["baseline", "--all", "--yes"]).expect(0);
    assert_eq!(ledger(&world).await, "001_threads applied, 002_messages applied, 002_view applied");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_refinery_applied_gets_its_rows() {
    let world = TestWorld::new("baseline_refinery", &["chat"]).await;
    world.plan(&sql_step("chat").replace("kind = \"sql\"", "kind = \"refinery\""));
    world.file("migrations/chat/V1__a.sql", "create table a (id int);\n");
    world.run(&["apply", "--yes"]).expect(0);
    world.sql("chat", "drop schema migrate cascade").await;
    world.file("migrations/chat/V2__b.sql", "create table b (id int);\n");
    let adopted = world.json(0, &["baseline", "--yes"]);
    assert_eq!(adopted["adopted"][0]["from"], "refinery_schema_history");
    assert_eq!(ledger(&world).await, "V1__a applied");
    world.run(&["apply", "--yes"]).expect(0);
    assert_eq!(ledger(&world).await, "V1__a applied, V2__b applied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_lists_every_difference_before_anything_is_written() {
    let world = by_hand("baseline_prove").await;
    world
        .sql("chat", "create index by_hand on messages (thread); alter table threads add title text; drop view busy")
        .await;
    let ran = world.run(&["baseline", "--all", "--prove", "--yes"]);
    ran.expect(6);
    for line in [
        "index public.by_hand: only in the database",
        "table column public.threads.title: only in the database",
        "view public.busy: only in the files",
    ] {
        ran.says(line);
    }
    assert_eq!(world.value("chat", "to_regclass('migrate.ledger') is null").await, "true");

    world.sql("chat", &format!("drop index by_hand; alter table threads drop title; {}", FILES[2].1)).await;
    let proven = world.json(0, &["baseline", "--all", "--prove", "--yes"]);
    assert_eq!(proven["proven"], true);
    assert_eq!(ledger(&world).await, "001_threads applied, 002_messages applied, 002_view applied");
    let scratch = format!("select count(*) from pg_database where datname like '{}\\_\\_prove%'", world.dbname("chat"));
    let mut server = connect(&cluster().url(OWNER, "postgres")).await;
    let left: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(scratch)).fetch_one(&mut server).await.expect("an answer");
    assert_eq!(left, 0, "the scratch databases are gone");
}
