//! `kind = "copy"` in a release.

use crate::harness::execute;
use crate::world::{TestWorld, assert_same, finish, sql_step, until};

const COPY: &str = r#"
[[steps]]
name = "publish"
database = "chat"
kind = "copy"
after = ["chat-schema"]
from = { database = "rag", table = "source" }
to = { table = "published" }
key = ["id"]
omit = ["embedding"]

[[checks]]
name = "in-sync"
when = "after"
kind = "sync"
source = { database = "rag", table = "source" }
target = { database = "chat", table = "published" }
key = ["id"]
compare = ["v"]
min_rows = 1
owner = "Chat DB owner"
"#;

async fn world(hint: &str, rows: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["chat", "rag"]).await;
    world.plan(&format!("{}{COPY}", sql_step("chat")));
    world.sql("rag", &format!("create table source (id int primary key, v text, embedding text); {rows}")).await;
    world.file("migrations/chat/001_published.sql", "create table published (id int primary key, v text);\n");
    world
}

const THREE: &str = "insert into source values (1, 'a', 'x'), (2, 'b', 'y'), (3, null, 'z')";

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_made_checked_recorded_and_taken_back() {
    let world = world("copy_release", THREE).await;
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes", "--json"]);
    let document = ran.expect(0).document();
    ran.says("chat: publish read 3 rows: 3 inserted, 0 updated, 0 deleted");
    let check = &document["checks"][0];
    assert_eq!(
        (&check["name"], &check["outcome"], &check["target_rows"]),
        (&"in-sync".into(), &"passed".into(), &3.into())
    );
    let ledger = "select kind || ' ' || name || ' ' || state || ' ' || run from migrate.ledger where step = 'publish'";
    let run = document["run"].as_str().expect("an id");
    assert_eq!(world.value("chat", ledger).await, format!("copy published applied {run}"));
    let _ = world.run(&["verify"]).expect(0);

    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
    let _ = world.run(&["plan", "--detailed-exitcode"]).expect(0);

    world.sql("rag", "update source set v = 'B' where id = 2; delete from source where id = 1; insert into source values (4, 'd', '')").await;
    let plan = world.run(&["plan", "--detailed-exitcode"]);
    assert!(
        plan.expect(2).stdout.contains("published  [the tables differ: 3 rows at the source, 3 at the target]"),
        "{}",
        plan.stdout
    );
    let _ = world.run(&["verify"]).expect(7);
    world.run(&["apply", "--yes"]).expect(0).says("read 3 rows: 1 inserted, 1 updated, 1 deleted");
    let _ = world.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(
        world.value("chat", "select string_agg(id || coalesce(v, '-'), ',' order by id) from published").await,
        "1a,2b,3-"
    );
    let _ = world.run(&["rollback", run, "--yes"]).expect(0);
    let after = world.fingerprints().await;
    assert!(before["chat"].diff(&after["chat"]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_source_is_refused_and_everything_goes_back() {
    let world = world("copy_empty", "").await;
    world
        .sql("chat", "create table published (id int primary key, v text); insert into published values (1, 'kept')")
        .await;
    world.file("migrations/chat/001_published.sql", "alter table published add more int;\n");
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(3)
        .says("step `publish` did not copy")
        .says("source is empty; it would empty")
        .says("fill the source first");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_target_lacks_a_table_fails_by_name() {
    let world = world("copy_missing", THREE).await;
    world.file("migrations/chat/001_published.sql", "create table other (id int);\n");
    let before = world.fingerprints().await;
    world.run(&["apply", "--yes"]).expect(3).says("published");
    assert_same(&before, &world.fingerprints().await);
}

/// A writer is in the way of the merge, which wants the table to itself.
async fn with_a_writer(hint: &str, run: &str) -> (TestWorld, sqlx::PgConnection) {
    let world = world(hint, THREE).await;
    let _ = world.run(&["apply", "--yes"]).expect(0);
    world.plan(&format!("{}{}[run]\n{run}", sql_step("chat"), COPY.replace("omit", "lock_timeout = \"300ms\"\nomit")));
    world.sql("rag", "insert into source values (4, 'd', '')").await;
    let mut writer = world.connect("chat").await;
    execute(&mut writer, "set application_name = 'a writer'; begin; insert into published values (9, 'x')").await;
    (world, writer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_misses_its_lock_is_made_on_another_try() {
    let (world, mut writer) = with_a_writer("copy_lock", "lock_retries = 20\n").await;
    let child = world.start(&["apply", "--yes"]);
    let waits = "select exists (select from pg_locks where not granted and relation = 'published'::regclass)";
    until("it waits for the lock", async || world.value("chat", waits).await == "true").await;
    until("it has given up once", async || world.value("chat", waits).await == "false").await;
    execute(&mut writer, "rollback").await;
    let ran = finish(child);
    ran.expect(0)
        .says("chat: published did not get its lock (attempt 1)")
        .says("application a writer, idle in transaction");
    ran.says("publish read 4 rows: 1 inserted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_never_gets_its_lock_names_who_is_in_the_way() {
    let (world, mut writer) = with_a_writer("copy_never", "lock_retries = 1\n").await;
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(1).says("(attempt 1)").says("due to lock timeout").says("in the way on every try. On the last:\n");
    ran.says("user release, application a writer").ends("No database was changed.");
    assert!(!ran.stderr.contains("(attempt 2)"), "one retry is two tries: {}", ran.stderr);
    execute(&mut writer, "rollback").await;
    assert_same(&before, &world.fingerprints().await);
}
