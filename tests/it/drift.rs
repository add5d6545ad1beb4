//! Where ledger and files disagree: refused by name, shown by `status`, and never guessed about.

use serde_json::Value;

use crate::world::{TestWorld, assert_same};

const FIRST: &str = "create table one (id int primary key);\n";
const THIRD: &str = "create table three (id int primary key);\n";

async fn applied(hint: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["a"]).await;
    world.sql_plan("");
    world.file("migrations/a/001_one.sql", FIRST);
    world.file("migrations/a/003_three.sql", THIRD);
    let _ = world.run(&["apply", "--yes"]).expect(0);
    world
}

/// `plan` and `apply` refuse with `says`; `status` shows the migration with its reason; nothing changes.
async fn refused(world: &TestWorld, says: &str, name: &str, reason: &str) {
    let (before, objects) = (world.fingerprints().await, world.objects());
    for args in [&["plan"] as &[&str], &["apply", "--yes"], &["plan", "--detailed-exitcode", "--json"]] {
        let ran = world.run(args);
        ran.expect(6).says(says).says("   help: ").ends("No database was changed.");
    }
    let error = &world.json(6, &["apply", "--yes"])["error"];
    assert!(error["message"].as_str().is_some_and(|text| text.contains(name)), "{error:#}");
    let changed = &world.json(0, &["status"])["databases"][0]["changed"][0];
    assert_eq!((&changed["name"], &changed["reason"]), (&name.into(), &reason.into()), "{changed:#}");
    assert!(world.run(&["status"]).expect(0).stdout.contains("  CHANGED  "));
    assert_same(&before, &world.fingerprints().await);
    assert_eq!(objects, world.objects());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_refused_with_both_checksums() {
    let world = applied("drift_changed").await;
    world.file("migrations/a/001_one.sql", "create table one (id bigint primary key);\n");
    refused(&world, "error: a: ledger and file disagree about `001_one`", "001_one", "changed").await;
    let sum = world.value("a", "select checksum from migrate.ledger where name = '001_one'").await;
    let said = world.run(&["plan"]);
    said.expect(6).says(&sum).says("migrations/a/001_one.sql").says(", applied 20").says(" in run 20");
}

/// What no text says, `lint` asks the ledgers, where it can.
#[tokio::test(flavor = "multi_thread")]
async fn lint_names_a_file_that_was_edited_after_it_was_applied() {
    let mut world = applied("drift_lint").await;
    world.file("migrations/a/001_one.sql", "create table one (id bigint primary key);\n-- migrate:irreversible\n");
    world.file("migrations/a/003_three.sql", &format!("{THIRD}-- migrate:down\ndrop table three;\n"));
    world.file("migrations/a/004_four.sql", "create table four (id int);\n-- migrate:irreversible\n");
    let ran = world.run(&["lint"]);
    let said = "migrations/a/001_one.sql:1:1: error[edited-after-applied]: the file is not what was applied to a 20";
    assert!(ran.expect(7).stdout.starts_with(said), "{}", ran.stdout);
    assert!(ran.stdout.ends_with("3 files: 1 error, 0 warnings\n"), "{}", ran.stdout);
    let found = world.json(7, &["lint", "-t", "local"]);
    assert_eq!(
        (&found["compared_with"], &found["findings"][0]["rule"]),
        (&"local".into(), &"edited-after-applied".into())
    );
    // Files alone are looked at as texts.
    let _ = world.run(&["lint", "migrations/a/001_one.sql"]).expect(0);
    world
        .run(&["lint", "-t", "local", "migrations/a/001_one.sql"])
        .expect(64)
        .says("`migrate lint FILE` takes no --target");
    // What was found is told all the same where a file keeps the plan from being loaded.
    world.file("migrations/a/005_five.sql", "\\i x\n");
    let ran = world.run(&["lint", "-t", "local"]);
    assert!(
        ran.expect(7)
            .says("not compared with what was applied: ")
            .stdout
            .contains("005_five.sql:1:1: error[unreadable]")
    );
    world.remove("migrations/a/005_five.sql");
    // A server that does not answer is said, and is an error where the target was named.
    world.lead("a", "postgresql://127.0.0.1:1/a");
    world.run(&["lint"]).expect(0).says("not compared with what was applied: a: cannot connect to ");
    assert_eq!(world.json(0, &["lint"])["compared_with"], Value::Null);
    world.run(&["lint", "-t", "local"]).expect(1).says("a: cannot connect to ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file_is_refused() {
    let world = applied("drift_missing").await;
    world.remove("migrations/a/003_three.sql");
    refused(&world, "error: a: the ledger has `003_three`, and there is no file", "003_three", "missing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_overtaken_is_refused() {
    let world = applied("drift_order").await;
    world.file("migrations/a/002_two.sql", "create table two (id int);\n");
    let says = "error: a: `002_two` (migrations/a/002_two.sql) is pending, and sorts before `003_three`";
    refused(&world, says, "002_two", "out_of_order").await;
    let pending = &world.json(0, &["status"])["databases"][0]["pending"];
    assert_eq!(*pending, Value::Array(vec![]), "what would be refused is not shown as pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_interrupted_outside_a_transaction_is_refused() {
    let world = applied("drift_interrupted").await;
    world.file("migrations/a/004_index.sql", "-- migrate:no-transaction\ncreate index concurrently i on one (id);\n");
    let row = "insert into migrate.ledger (step, name, kind, checksum, run, state, started_at, applied_by, tool_version, progress) \
               values ('a-schema', '004_index', 'sql', 'x', '20260101-000000-aaaaaa', 'started', now(), 'me', '0', 2)";
    world.sql("a", row).await;
    let says = "error: a: `004_index` was begun in run 20260101-000000-aaaaaa, and the ledger does not say that it ended; \
                statements known to have ended: 2";
    refused(&world, says, "004_index", "interrupted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_disagreement_is_named_at_once() {
    let world = applied("drift_all").await;
    world.file("migrations/a/001_one.sql", "create table uno (id int primary key);\n");
    world.file("migrations/a/002_two.sql", "create table two (id int);\n");
    world.remove("migrations/a/003_three.sql");
    let ran = world.run(&["plan"]);
    ran.expect(6).says("`001_one`").says("the ledger has `003_three`");
}

#[tokio::test(flavor = "multi_thread")]
async fn line_ends_and_a_byte_order_mark_are_no_drift() {
    let world = applied("drift_crlf").await;
    world.file("migrations/a/001_one.sql", &format!("\u{feff}{}", FIRST.replace('\n', "\r\n")));
    world.file("migrations/a/003_three.sql", &THIRD.replace('\n', "\r\n"));
    let _ = world.run(&["plan", "--detailed-exitcode"]).expect(0);
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
    assert_eq!(world.json(0, &["status"])["databases"][0]["changed"], Value::Array(vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_back_may_be_mended_later() {
    let world = applied("drift_down").await;
    world.file("migrations/a/001_one.down.sql", "drop table one;\n");
    let _ = world.run(&["plan", "--detailed-exitcode"]).expect(0);
}

async fn planned(hint: &str) -> TestWorld {
    let world = applied(hint).await;
    world.file("migrations/a/004_four.sql", "create table four (id int);\n");
    let _ = world.run(&["plan", "--out", "release.json"]).expect(0);
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_plan_that_matches_is_applied_and_kept() {
    let world = planned("saved").await;
    let document = world.json(0, &["apply", "release.json", "--yes"]);
    assert_eq!(document["outcome"], "succeeded");
    assert_eq!(world.value("a", "select to_regclass('four')::text").await, "four");
    let key = format!("runs/{}/saved-plan.json", document["run"].as_str().expect("an id"));
    let kept = std::fs::read_to_string(world.store().join(key)).expect("kept with the run");
    assert_eq!(kept, std::fs::read_to_string(world.path().join("release.json")).expect("there"));
    // Once applied, it is no longer what is to be done.
    let again = world.run(&["apply", "release.json", "--yes"]);
    again.expect(6).says("error: the saved plan no longer matches: what is pending in step `a-schema`");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_plan_is_refused_when_anything_differs() {
    let world = planned("saved_differs").await;
    let before = world.fingerprints().await;
    let refused = |what: &str| {
        let ran = world.run(&["apply", "release.json", "--yes", "--json"]);
        ran.expect(6).says("error: the saved plan no longer matches").says(what).ends("No database was changed.");
        assert_eq!(ran.document()["error"]["code"], 6);
    };
    world.file("migrations/a/005_five.sql", "create table five (id int);\n");
    refused("`a-schema`");
    world.remove("migrations/a/005_five.sql");
    world.file("migrations/a/004_four.sql", "create table four (id bigint);\n");
    refused("`a-schema`");
    world.file("migrations/a/004_four.sql", "create table four (id int);\n");
    world.sql_plan("[run]\nparallel = 2\n");
    refused("the plan file");
    world.sql_plan("");
    assert_same(&before, &world.fingerprints().await);
    let _ = world.run(&["apply", "release.json", "--yes"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_saved_plan_is_wrong_usage() {
    let world = applied("saved_none").await;
    world.run(&["apply", "nowhere.json", "--yes"]).expect(64).says("nowhere.json cannot be read").says("plan --out");
    world.file("other.json", "{\"target\": 7}");
    world.run(&["apply", "other.json", "--yes"]).expect(64).says("other.json is not a saved plan");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protected_target_wants_a_saved_plan_and_snapshots() {
    let world = TestWorld::new("saved_protected", &["a"]).await;
    world.sql_plan("[targets.local]\nprotected = true\n");
    world.file("migrations/a/001_one.sql", FIRST);
    let ran = world.run(&["apply", "--yes", "--json"]);
    ran.expect(64).says("error: the target `local` is protected: apply wants a saved plan");
    ran.says("migrate plan -t local --out").ends("No database was changed.");
    let _ = world.run(&["plan", "--out", "p.json"]).expect(0);
    let bare = world.run(&["apply", "p.json", "--yes", "--no-snapshot", "--reason", "x"]);
    bare.expect(64).says("--no-snapshot is not for the protected target");
    assert_eq!(world.json(0, &["apply", "p.json", "--yes"])["outcome"], "succeeded");
}
