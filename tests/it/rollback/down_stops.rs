//! What stands in the way of down scripts, where they stop, and how it goes on from there.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{apply, step};
use crate::world::{GATE, TestWorld, assert_same, finish, send, until};

/// Two databases with one table each, from an earlier release; `rag` waits for `chat`.
async fn released(hint: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["chat", "rag"]).await;
    let slow = "lock_timeout = \"60s\"\n";
    world.plan(&(step("chat") + slow + &step("rag") + slow + "after = [\"chat\"]\n"));
    for name in ["chat", "rag"] {
        world.file(&format!("migrations/{name}/001_t.sql"), "create table t (id int);\n");
    }
    apply(&world);
    world
}

/// A migration that makes a table, and a way back that begins with `first`.
fn table(world: &TestWorld, database: &str, name: &str, first: &str) {
    let (table, file) = (name.split_once('_').expect("a name").1, format!("migrations/{database}/{name}.sql"));
    world.file(&file, &format!("create table {table} (id int);\n-- migrate:down\n{first}drop table {table};\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_way_back_is_listed_and_nothing_is_changed() {
    let world = released("down_none").await;
    table(&world, "chat", "002_a", "");
    world.file("migrations/chat/003_b.sql", "create table b (id int);\n");
    world.file("migrations/rag/002_c.sql", "-- migrate:irreversible\ncreate table c (id int);\n");
    let command = "[[steps]]\nname = \"mart\"\ndatabase = \"rag\"\nkind = \"command\"\nargv = [\"true\"]\n";
    let copy = "[[steps]]\nname = \"publish\"\ndatabase = \"chat\"\nkind = \"copy\"\nafter = [\"rag\"]\nkey = [\"id\"]\n\
                from = { database = \"rag\", table = \"k\" }\nto = { table = \"k\" }\n";
    for name in ["chat", "rag"] {
        world.sql(name, "create table k (id int primary key)").await;
    }
    world.sql("rag", "insert into k values (1)").await;
    world.plan(&(step("chat") + &step("rag") + command + copy));
    let run = apply(&world);
    let after = world.fingerprints().await;
    let ran = world.run(&["rollback", "--via", "down", "--yes"]);
    ran.expect(4).says(&format!("run {run} cannot be undone:"));
    for reason in [
        "  publish/k on chat: a copy has no way back: the rows that it replaced are not kept",
        "  mart/mart on rag: a command has no way back",
        "  rag/002_c on rag: its file says `-- migrate:irreversible`",
        "  chat/003_b on chat: it has no down script",
    ] {
        ran.says(reason);
    }
    assert!(!ran.stderr.contains("002_a"), "{}", ran.stderr);
    ran.says(&format!("`migrate rollback {run} --via snapshot`")).says("NOT rolled back: chat, rag.");
    assert_same(&after, &world.fingerprints().await);
    // It never began: the run is what it was.
    assert_eq!(world.json(0, &["status"])["unfinished_run"], Value::Null);
    let dry = world.json(4, &["rollback", "--via", "down", "--dry-run"]);
    assert!(dry["error"]["message"].as_str().expect("a text").contains("003_b"), "{dry}");
    assert_eq!(world.json(0, &["rollback", "--via", "snapshot", "--yes"])["outcome"], "rolled_back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_that_fails_says_what_is_undone_and_what_is_not() {
    let world = released("down_fails").await;
    let before = world.fingerprints().await;
    table(&world, "chat", "002_a", "");
    table(&world, "rag", "002_b", "");
    table(&world, "rag", "003_c", "insert into t values (1);\nselect 1 / (select count(*) from t where id = 2);\n");
    table(&world, "rag", "004_d", "");
    let run = apply(&world);
    let ran = world.run(&["rollback", "--via", "down", "--yes", "--json"]);
    ran.expect(4).says("error: rag: rag/003_c was not undone").says("division by zero (SQLSTATE 22012)");
    ran.says(&format!("runs/{run}/migrations/rag/003_c.down.sql:2:1"));
    ran.says("Undone: rag/004_d. Not undone: rag/003_c, rag/002_b, chat/002_a.");
    ran.says(&format!("`migrate rollback {run} --via down`")).says(&format!("`migrate rollback {run} --via snapshot`"));
    assert_eq!(ran.document()["error"]["code"], 4);
    ran.ends(&format!(
        "NOT rolled back: chat, rag. Run `migrate rollback {run}` to take them back to their state before the run."
    ));
    assert_eq!(world.value("rag", "select count(*) from t").await, "0", "its transaction left nothing");
    assert_eq!(world.value("rag", "select concat(to_regclass('d'), to_regclass('c'), to_regclass('b'))").await, "cb");
    assert_eq!(world.json(0, &["status"])["unfinished_run"], run.as_str());
    world.run(&["apply", "--yes"]).expect(5).says(&run);

    world.sql("rag", "insert into t values (2)").await;
    let back = world.json(0, &["rollback", "--via", "down", "--yes"]);
    assert_eq!(back["outcome"], "rolled_back", "{back}");
    world.sql("rag", "truncate t").await;
    assert_same(&before, &world.fingerprints().await);
    apply(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_changed_nothing_leaves_the_run_what_it_was() {
    let world = released("down_first_fails").await;
    table(&world, "rag", "002_b", "select 1 / 0;\n");
    apply(&world);
    let after = world.fingerprints().await;
    world.run(&["rollback", "--via", "down", "--yes"]).expect(4).says("Undone: nothing. Not undone: rag/002_b.");
    assert_same(&after, &world.fingerprints().await);
    assert_eq!(world.json(0, &["status"])["unfinished_run"], Value::Null);
    assert_eq!(world.json(0, &["runs", "list"])["runs"][0]["outcome"], "succeeded");
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_it_goes_on_where_it_stopped() {
    for finish_with in ["down", "snapshot"] {
        let world = released(&format!("down_kill_{finish_with}")).await;
        let before = world.fingerprints().await;
        table(&world, "chat", "002_a", GATE);
        table(&world, "chat", "003_z", "");
        table(&world, "rag", "002_b", "");
        let run = apply(&world);
        let mut gate = world.gate("chat").await;
        let victim = world.start(&["rollback", "--via", "down", "--yes"]);
        gate.reached().await;
        send(&victim, Signal::SIGKILL);
        assert_eq!(finish(victim).code, -1);
        assert_eq!(world.json(0, &["status"])["unfinished_run"], run.as_str());
        world.run(&["apply", "--yes"]).expect(5);
        if finish_with == "down" {
            let ahead = world.json(0, &["rollback", "--via", "down", "--dry-run"]);
            assert_eq!(ahead["databases"].as_array().map(Vec::len), Some(1), "rag is back already: {ahead}");
            assert_eq!(ahead["databases"][0]["undo"], json!(["chat/002_a"]), "{ahead}");
        }
        // The leftover session is ended; nobody has to open the gate for it.
        let again = world.start(&["rollback", "--via", finish_with, "--yes", "--json"]);
        let waiting = format!(
            "select count(*) from pg_stat_activity where application_name = 'migrate {run}' and query like '%lock(42)%'"
        );
        if finish_with == "down" {
            until("the second one is at the gate", async || world.ask(&waiting).await == "1").await;
            gate.reached().await;
        }
        gate.open().await;
        let ran = finish(again);
        let back = ran.expect(0).document();
        assert_eq!(back["outcome"], "rolled_back", "{back}");
        let via: Vec<&Value> = back["databases"].as_array().expect("a list").iter().map(|it| &it["via"]).collect();
        assert_eq!(via, [finish_with, "down"], "{back}");
        assert_same(&before, &world.fingerprints().await);
        assert_eq!(world.json(0, &["status"])["unfinished_run"], Value::Null);
        apply(&world);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_stops_it_between_two_migrations() {
    let world = released("down_signal").await;
    let before = world.fingerprints().await;
    table(&world, "chat", "002_a", "");
    table(&world, "chat", "003_b", GATE);
    let run = apply(&world);
    let mut gate = world.gate("chat").await;
    let started = world.start(&["rollback", "--via", "down", "--yes"]);
    gate.reached().await;
    send(&started, Signal::SIGTERM);
    gate.open().await;
    let ran = finish(started);
    ran.expect(130).says("chat: undid chat/003_b in").says(&format!("Run `migrate rollback {run}`"));
    assert_eq!(world.value("chat", "select to_regclass('a')").await, "a");
    assert_eq!(world.json(0, &["rollback", "--via", "down", "--yes"])["outcome"], "rolled_back");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_off_wants_a_word_first() {
    let world = released("down_cut").await;
    let before = world.fingerprints().await;
    let up = "-- migrate:no-transaction\ncreate table a (id int);\ncreate table b (id int);\n";
    world.file("migrations/chat/002_ab.sql", up);
    // Without a transaction, and it fails in its middle: what came before stays undone.
    let down = "-- migrate:no-transaction\ndrop table b;\nselect 1 / 0;\ndrop table a;\n";
    world.file("migrations/chat/002_ab.down.sql", down);
    let run = apply(&world);
    let ran = world.run(&["rollback", "--via", "down", "--yes"]);
    ran.expect(4).says("002_ab.down.sql:3:1").says("Not undone: chat/002_ab.");
    assert_eq!(world.value("chat", "select concat(to_regclass('a'), to_regclass('b'))").await, "a");
    let refused = world.run(&["rollback", "--via", "down", "--yes"]);
    refused
        .expect(4)
        .says(&format!("run {run} was cut off in chat/002_ab on chat: whether it took effect is not known"));
    refused.says(&format!("`migrate resolve {run} STEP/NAME --applied`")).says(&format!("{run} --via snapshot`"));
    world.sql("chat", "drop table a").await;
    let _ = world.run(&["resolve", &run, "chat/002_ab", "--not-applied"]).expect(0);
    assert_eq!(world.json(0, &["rollback", "--via", "down", "--yes"])["outcome"], "rolled_back");
    assert_same(&before, &world.fingerprints().await);
}

/// The next release does not take the rest of a way back for the rest of its migration.
#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_that_was_cut_off_is_not_gone_on_with_as_a_migration() {
    let world = released("down_not_forward").await;
    let up = "-- migrate:no-transaction\ncreate table a (id int);\ncreate table b (id int);\nvacuum a;\n";
    world.file("migrations/chat/002_ab.sql", up);
    world.file("migrations/chat/002_ab.down.sql", "-- migrate:no-transaction\ndrop table b;\nvacuum nowhere;\n");
    let ran = world.json(0, &["apply", "--yes", "--no-snapshot", "--reason", "nothing of worth"]);
    let run = ran["run"].as_str().expect("an id");
    world.run(&["rollback", run, "--via", "down", "--yes"]).expect(4).says("002_ab.down.sql:3:1");
    for words in [["plan"].as_slice(), &["apply", "--yes"]] {
        let refused = world.run(words);
        refused.expect(6).says(&format!("`002_ab` was begun in run {run}")).says("statements known to have ended: 1");
    }
    let word = ["resolve", run, "chat/002_ab", "--statement", "2", "--applied"];
    world.run(&word).expect(64).says("does not say that it is unclear");
    assert_eq!(world.value("chat", "select concat(to_regclass('a'), to_regclass('b'))").await, "a");
    world.sql("chat", "drop table a").await;
    let _ = world.run(&["resolve", run, "chat/002_ab", "--not-applied"]).expect(0);
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "succeeded");
    assert_eq!(world.value("chat", "select concat(to_regclass('a'), to_regclass('b'))").await, "ab");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_run_goes_first() {
    let world = released("down_later").await;
    let before = world.fingerprints().await;
    table(&world, "rag", "002_b", "");
    let first = apply(&world);
    table(&world, "rag", "003_c", "");
    let second = apply(&world);
    world.run(&["rollback", &first, "--via", "down", "--yes"]).expect(6).says(&second);
    for run in [&second, &first] {
        world.run(&["rollback", run, "--via", "down", "--yes"]).expect(0);
    }
    assert_same(&before, &world.fingerprints().await);
}
