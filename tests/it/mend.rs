//! The operator's word: a changed file that is accepted, and what became of a migration that was cut off.

use serde_json::Value;

use crate::world::{TestWorld, sql_step};

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_accepted_by_name() {
    let world = TestWorld::new("mend_checksum", &["chat"]).await;
    world.plan(&sql_step("chat"));
    world.file("migrations/chat/001_a.sql", "create table a (id int);\n");
    world.run(&["apply", "--yes"]).expect(0);
    world.run(&["repair", "checksum", "chat-schema/001_a", "--yes"]).expect(64).says("is not changed");
    world.run(&["repair", "checksum", "nowhere/001_a", "--yes"]).expect(64).says("no step `nowhere`");
    world.run(&["repair", "checksum", "001_a", "--yes"]).expect(64).says("STEP/NAME");

    world.file("migrations/chat/001_a.sql", "create table a (id int); -- mended comment\n");
    world.run(&["plan"]).expect(6);
    world.run(&["repair", "checksum", "chat-schema/001_a"]).expect(64).says("no terminal");
    let repaired = world.json(0, &["repair", "checksum", "chat-schema/001_a", "--yes"]);
    world.run(&["plan"]).expect(0);
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");

    let run = repaired["run"].as_str().expect("a run");
    let shown = world.json(0, &["runs", "show", run]);
    let fact = &shown["entries"][1]["fact"];
    assert_eq!(fact["event"], "repaired");
    assert_ne!(fact["before"], fact["after"]);
    assert_eq!(
        world.value("chat", "select checksum from migrate.ledger").await,
        fact["after"].as_str().expect("a digest")
    );
}

/// A file without a transaction whose second statement fails after it has committed something, in a run that has no way back.
async fn cut_off(hint: &str) -> (TestWorld, String) {
    let world = TestWorld::new(hint, &["chat"]).await;
    world.plan(&sql_step("chat"));
    world.file(
        "migrations/chat/001_a.sql",
        "-- migrate:no-transaction\ncreate table a (id int);\ndo $$ begin insert into a values (1); commit; perform 1/0; end $$;\n",
    );
    let failed = world.json(4, &["apply", "--yes", "--no-snapshot", "--reason", "a test"]);
    let run = failed["run"].as_str().expect("a run").to_owned();
    world
        .run(&["apply", "--yes"])
        .expect(6)
        .says("001_a")
        .says(&format!("migrate resolve {run} chat-schema/001_a --statement 2"));
    (world, run)
}

async fn ledger(world: &TestWorld) -> String {
    world.value("chat", "select string_agg(name || ' ' || state, ',') from migrate.ledger").await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_off_and_took_effect_is_applied() {
    let (world, run) = cut_off("mend_applied").await;
    assert_eq!(ledger(&world).await, "001_a started");
    world.run(&["resolve", &run, "chat-schema/001_a"]).expect(64);
    world.run(&["resolve", &run, "chat-schema/002_b", "--applied"]).expect(64).says("002_b");
    for statement in ["1", "3"] {
        let ran = world.run(&["resolve", &run, "chat-schema/001_a", "--statement", statement, "--applied"]);
        ran.expect(64).says(&format!("statement {statement} of `chat-schema/001_a`"));
    }
    world.run(&["resolve", &run, "chat-schema/001_a", "--applied"]).expect(0);
    assert_eq!(ledger(&world).await, "001_a applied");
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
    world.run(&["resolve", &run, "chat-schema/001_a", "--applied"]).expect(64).says("does not say");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_statement_that_took_effect_is_passed_over() {
    let (world, run) = cut_off("mend_statement").await;
    let args = ["resolve", &run, "chat-schema/001_a", "--statement", "2", "--applied"];
    let resolved = world.json(0, &args);
    assert_eq!((&resolved["applied"], &resolved["statement"]), (&Value::Bool(true), &Value::from(2)));
    let shown = world.json(0, &["runs", "show", &run]);
    let last = shown["entries"].as_array().expect("a list").last().expect("an entry")["fact"].clone();
    assert_eq!((&last["event"], &last["statement"]), (&Value::from("resolved"), &Value::from(2)));
    world.run(&args).expect(64).says("statement 2");
    // What follows the statements that have run may be edited.
    world.file(
        "migrations/chat/001_a.sql",
        "-- migrate:no-transaction\ncreate table a (id int);\ndo $$ begin insert into a values (1); commit; perform 1/0; end \
         $$;\nvacuum a;\n",
    );
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "succeeded");
    assert_eq!(ledger(&world).await, "001_a applied");
    assert_eq!(world.value("chat", "select count(*) from a").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_statement_that_did_not_is_sent_again() {
    let (world, run) = cut_off("mend_statement_not").await;
    world.sql("chat", "truncate a").await;
    world.run(&["resolve", &run, "chat-schema/001_a", "--statement", "2", "--not-applied"]).expect(0);
    let mended = "-- migrate:no-transaction\ncreate table a (id int);\ninsert into a values (7);\n";
    world.file("migrations/chat/001_a.sql", mended);
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "succeeded");
    assert_eq!(world.value("chat", "select sum(id) from a").await, "7");
    assert_eq!(world.value("chat", "select up_sql from migrate.ledger").await, mended);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_off_and_did_not_happen_is_pending_again() {
    let (world, run) = cut_off("mend_not").await;
    world.sql("chat", "drop table a").await;
    let resolved = world.json(0, &["resolve", &run, "chat-schema/001_a", "--not-applied"]);
    assert_eq!(resolved["applied"], Value::Bool(false));
    world.file("migrations/chat/001_a.sql", "create table a (id int);\n");
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "succeeded");
    assert_eq!(ledger(&world).await, "001_a applied");
}
