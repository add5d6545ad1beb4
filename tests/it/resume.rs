//! `migrate resume`: what took effect is not repeated, what did not is not skipped, and what nobody knows is asked.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::programs::{interpreter, module, python_library, python_step};
use crate::world::{GATE, TestWorld, assert_same, finish, send, sql_step, until};

const HALT: &str = "[run]\non_failure = \"halt\"\n";

/// Three migrations on `a`, one on `b` that waits for them.
async fn two(hint: &str, second: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["a", "b"]).await;
    world.plan(&(sql_step("a") + &sql_step("b") + "after = [\"a-schema\"]\n" + HALT));
    world.file("migrations/a/001_one.sql", "create table one (id int);\n-- migrate:down\ndrop table one;\n");
    world.file("migrations/a/002_two.sql", second);
    world.file("migrations/a/003_three.sql", "create table three (id int);\n-- migrate:down\ndrop table three;\n");
    world.file("migrations/b/001_one.sql", "create table one (id int);\n-- migrate:down\ndrop table one;\n");
    world
}

const TWO: &str = "create table two (id int);\n-- migrate:down\ndrop table two;\n";

fn names(document: &Value) -> Vec<&str> {
    document.as_array().expect("a list").iter().map(|it| it.as_str().expect("a name")).collect()
}

/// Which migrations a database has, with how often each was written down.
async fn has(world: &TestWorld, database: &str) -> String {
    world.value(database, "select string_agg(name || ' ' || state, ', ' order by name) from migrate.ledger").await
}

fn unfinished(world: &TestWorld) -> String {
    world.json(0, &["status"])["unfinished_run"].as_str().expect("a run is unfinished").to_owned()
}

async fn killed_in_the_second(world: &TestWorld) -> String {
    let mut gate = world.gate("a").await;
    let child = world.start(&["apply", "--yes"]);
    gate.reached().await;
    send(&child, Signal::SIGKILL);
    let _ = finish(child);
    let run = unfinished(world);
    // The server would go on with it once the gate is open.
    let end =
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where wait_event = 'advisory' and datname = ";
    assert_eq!(world.ask(&format!("{end}'{}'", world.dbname("a"))).await, "1");
    gate.open().await;
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_killed_in_a_migration_goes_on() {
    let world = two("resume_killed", &format!("{GATE}{TWO}")).await;
    let before = world.fingerprints().await;
    let run = killed_in_the_second(&world).await;
    let status = world.json(0, &["status"]);
    let open = &status["unfinished"];
    assert_eq!((&open["direction"], &open["took_effect"]), (&"forward".into(), &1.into()), "{status:#}");
    assert_eq!(names(&open["ahead"]), ["a-schema/002_two", "a-schema/003_three", "b-schema/001_one"]);
    let text = world.run(&["status"]);
    let ways = [
        format!("Run {run} is unfinished: 1 migration of it took effect, and 3 more are ahead."),
        format!("`migrate resume {run}` applies a-schema/002_two, a-schema/003_three, b-schema/001_one"),
        format!("`migrate rollback {run}` takes a back"),
    ];
    assert!(ways.iter().all(|it| text.stdout.contains(it)), "{}", text.stdout);
    let refused = world.run(&["apply", "--yes"]);
    refused.expect(5).says(&format!("`migrate resume {run}`")).says(&format!("`migrate rollback {run}`"));

    let report = world.json(0, &["resume"]);
    assert_eq!((&report["run"], &report["outcome"]), (&run.as_str().into(), &"succeeded".into()), "{report:#}");
    assert_eq!(report["databases"][0]["applied"], 3, "{report:#}");
    assert_eq!(has(&world, "a").await, "001_one applied, 002_two applied, 003_three applied");
    assert_eq!(has(&world, "b").await, "001_one applied");
    assert_eq!(world.json(0, &["status"])["unfinished_run"], Value::Null);
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");

    // It is one run: it goes back as one, by its snapshots of before the kill.
    let over = world.run(&["resume", &run]);
    assert!(over.expect(0).stdout.contains("nothing to do"), "{}", over.stdout);
    over.says(&format!("run {run} needs nobody: it ended as succeeded"));
    assert_eq!(world.json(0, &["rollback", &run, "--yes"])["outcome"], "rolled_back");
    assert_same(&before, &world.fingerprints().await);
    world.run(&["resume"]).expect(0).says("it ended as rolled back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_failed_may_be_mended() {
    let world = two("resume_mended", "create table two (id nonsense);\n").await;
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes", "--json"]);
    let run = ran.expect(4).document()["run"].as_str().expect("a run").to_owned();
    ran.says(&format!("`migrate resume {run}`")).says(&format!("rollback {run}`"));
    // Not mended yet: it halts again, and is where it was.
    world.run(&["resume", "--yes"]).expect(4).says("type \"nonsense\" does not exist");
    world.file("migrations/a/002_two.sql", TWO);
    let ran = world.run(&["resume"]);
    ran.expect(0).says("edited since the run began, and applied as it is now: a-schema/002_two");
    assert_eq!(has(&world, "a").await, "001_one applied, 002_two applied, 003_three applied");
    // Both texts are kept, and the way back is that of what was applied.
    let kept = |name: &str| world.objects().iter().any(|it| it.ends_with(&format!("/migrations/a-schema/{name}")));
    assert!(kept("002_two.sql") && kept("002_two.2.sql") && !kept("001_one.2.sql"), "{:?}", world.objects());
    world.file("migrations/a/002_two.sql", "nothing of this is asked any more");
    world.remove("migrations/a/003_three.sql");
    world
        .run(&["rollback", "--via", "down", "--yes", "--store", &format!("file://{}", world.store().display()), &run])
        .expect(0);
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_waits_unless_it_is_there_to_mend() {
    let world = two("resume_new", "alter table one alter id set not null;\n").await;
    world.file("migrations/a/001_one.sql", "create table one (id int);\ninsert into one values (null);\n");
    world.run(&["apply", "--yes"]).expect(4).says("contains null values");
    world.file("migrations/a/0015_mends.sql", "x");
    world.remove("migrations/a/0015_mends.sql");
    world.file("migrations/a/001_zmends.sql", "delete from one where id is null;\n");
    world.file("migrations/a/009_later.sql", "create table later (id int);\n");
    world.file("migrations/b/009_later.sql", "create table later (id int);\n");
    let ran = world.run(&["resume"]);
    ran.expect(0).says("applied as it is now: a-schema/001_zmends");
    ran.says("left for the next release: a-schema/009_later, b-schema/009_later");
    assert_eq!(has(&world, "a").await, "001_one applied, 001_zmends applied, 002_two applied, 003_three applied");
    assert_eq!(has(&world, "b").await, "001_one applied");
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_changed_is_refused_and_named() {
    let world = two("resume_refused", "create table two (id nonsense);\n").await;
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(4);
    let run = unfinished(&world);
    world.file("migrations/a/001_one.sql", "create table one (id bigint);\n");
    let ran = world.run(&["resume"]);
    ran.expect(4).says("ledger and file disagree about `001_one`").says(&format!("`migrate rollback {run}`"));
    world.file("migrations/a/001_one.sql", "create table one (id int);\n-- migrate:down\ndrop table one;\n");
    world.sql("a", "delete from migrate.ledger where name = '001_one'").await;
    let ran = world.run(&["resume", "--json"]);
    ran.expect(4).says("the journal says that `a-schema/001_one` was applied, and the database does not have it");
    assert_eq!(ran.document()["outcome"], "halted");
    assert!(world.run(&["status"]).expect(0).stdout.contains("in the way: a: the journal says"));
    assert_eq!(world.json(0, &["rollback", "--yes"])["outcome"], "rolled_back");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_at_work_is_not_taken_up() {
    let world = two("resume_held", &format!("{GATE}{TWO}")).await;
    let mut gate = world.gate("a").await;
    let child = world.start(&["apply", "--yes"]);
    gate.reached().await;
    let ran = world.run(&["resume"]);
    ran.expect(5).says("the lock is held by run ").ends("No database was changed.");
    gate.open().await;
    let _ = finish(child).expect(0);
}

/// A module without a probe: only a person can say what became of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_knows_is_asked() {
    let world = TestWorld::new("resume_asks", &["a"]).await;
    world.plan(&python_step("a", &["one", "two"], ""));
    python_library(&world);
    module(&world, "one", "create table one (id int)");
    module(&world, "two", "select pg_advisory_lock(42)");
    let mut gate = world.gate("a").await;
    let child = world.start(&["apply", "--yes"]);
    gate.reached().await;
    send(&child, Signal::SIGKILL);
    let _ = finish(child);
    gate.open().await;
    let run = unfinished(&world);
    let resolve = format!("migrate resolve {run} a-schema/two --applied");
    let ran = world.run(&["resume"]);
    ran.expect(4).says("`two` was begun in run").says(&format!("`{resolve}` (or `--not-applied`)"));
    ran.ends(&format!(
        "NOT rolled back: a. Run `migrate resume {run}` to finish the release once the cause is mended, or `migrate rollback {run}` \
         to take them back to their state before the run."
    ));
    let status = world.json(0, &["status"]);
    assert_eq!(names(&status["unfinished"]["resolve"]), [resolve.as_str()], "{status:#}");
    module(&world, "two", "create table two (id int)");
    let said = world.run(&["resolve", &run, "a-schema/two", "--not-applied"]);
    assert!(said.expect(0).stdout.contains(&format!("`migrate resume {run}`")), "{}", said.stdout);
    assert_eq!(world.json(0, &["resume"])["outcome"], "succeeded");
    assert_eq!(has(&world, "a").await, "one applied, two applied");
    assert_eq!(world.value("a", "select count(*) from two").await, "0");
}

/// A command that is due in every run is due once in each.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_not_run_twice_in_one_run() {
    let world = TestWorld::new("resume_command", &["a"]).await;
    let command = "[[steps]]\nname = \"work\"\ndatabase = \"a\"\nkind = \"command\"\nargv = [\"sh\", \"-c\", \"echo x >> count.txt\"]\n";
    world.plan(&(command.to_owned() + &sql_step("a") + "after = [\"work\"]\n" + HALT));
    world.file("migrations/a/001_bad.sql", "select nonsense;\n");
    world.run(&["apply", "--yes"]).expect(4);
    world.file("migrations/a/001_bad.sql", "select 1;\n");
    assert_eq!(world.json(0, &["resume"])["outcome"], "succeeded");
    assert_eq!(std::fs::read_to_string(world.path().join("count.txt")).expect("it ran"), "x\n");
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "succeeded");
    assert_eq!(std::fs::read_to_string(world.path().join("count.txt")).expect("it ran"), "x\nx\n");
}

/// Alembic's own table says what took effect.
#[tokio::test(flavor = "multi_thread")]
async fn alembic_goes_on_by_its_own_table() {
    let world = TestWorld::new("resume_alembic", &["a"]).await;
    crate::programs::alembic_folder(&world);
    world.plan(&format!(
        "[[steps]]\nname = \"os\"\ndatabase = \"a\"\nkind = \"alembic\"\ndir = \"os\"\ninterpreter = \"{}\"\nenv = {{ OS_URL = \
         \"${{url}}\" }}\n",
        interpreter()
    ));
    crate::programs::revision(&world, "r1", None, "create table one (id int)");
    // After Alembic is through, before migrate says so: the ledger's row is held.
    let _ = world.run(&["apply", "--yes"]).expect(0);
    crate::programs::revision(&world, "r2", Some("r1"), "create table two (id int)");
    let child = {
        let mut row = world.connect("a").await;
        crate::harness::execute(&mut row, "begin; lock table migrate.ledger in share mode; select 1").await;
        let child = world.start(&["apply", "--yes"]);
        let waits = "select exists (select from pg_locks where relation = 'migrate.ledger'::regclass and not granted)";
        until("the intent is about to be written", async || world.value("a", waits).await == "true").await;
        crate::harness::execute(&mut row, "commit").await;
        child
    };
    let through = "select to_regclass('two') is not null";
    until("Alembic is through", async || world.value("a", through).await == "true").await;
    send(&child, Signal::SIGKILL);
    let _ = finish(child);
    if world.json(0, &["status"])["unfinished_run"] != Value::Null {
        assert_eq!(world.json(0, &["resume"])["outcome"], "succeeded");
    }
    assert_eq!(has(&world, "a").await, "r1 applied, r2 applied");
    assert_eq!(world.value("a", "select string_agg(version_num, ',') from alembic_version").await, "r2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_never_changed_anything_goes_on_from_its_beginning() {
    let world = two("resume_early", TWO).await;
    // A gate: it is asked again, since nothing was changed yet. The journal alone is left of the run.
    let run = world.json(0, &["apply", "--yes"])["run"].as_str().expect("a run").to_owned();
    world.json(0, &["rollback", "--yes"]);
    let journal = world.store().join(format!("runs/{run}/journal"));
    let mut entries: Vec<_> =
        std::fs::read_dir(&journal).expect("it is there").map(|it| it.expect("an entry").path()).collect();
    entries.sort();
    // Begin, and one snapshot that was begun: of the other one there is the archive alone.
    for entry in &entries[2..] {
        std::fs::remove_file(entry).expect("it is there");
    }
    let begun: Value = serde_json::from_slice(&std::fs::read(&entries[1]).expect("it is there")).expect("JSON");
    assert_eq!(begun["fact"]["event"], "snapshot_start", "{begun:#}");
    let manifest = |name: &str| world.store().join(format!("runs/{run}/snapshots/{name}/manifest.json"));
    std::fs::remove_file(manifest("b")).expect("it is there");
    let archives = || world.objects().into_iter().filter(|it| it.ends_with("archive.dump.gz")).collect::<Vec<_>>();
    assert_eq!(archives().len(), 2);
    let report = world.json(0, &["resume"]);
    assert_eq!(report["outcome"], "succeeded", "{report:#}");
    // The one that is whole is kept, and nothing is overwritten.
    assert_eq!(archives().len(), 3, "{:?}", archives());
    assert!(archives()[1].ends_with("b/again-2/archive.dump.gz"), "{:?}", archives());
    let before = world.json(0, &["snapshot", "verify"]);
    assert!(before["snapshots"].as_array().is_some_and(|it| it.len() == 2), "{before:#}");
    assert_eq!(world.json(0, &["rollback", "--via", "down", "--yes"])["outcome"], "rolled_back");
    assert_eq!(world.value("a", "select to_regclass('one') is null").await, "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_that_was_cut_off_is_finished_by_its_way() {
    let world = two("resume_back", TWO).await;
    let before = world.fingerprints().await;
    let run = world.json(0, &["apply", "--yes"])["run"].as_str().expect("a run").to_owned();
    world.file("migrations/a/001_one.sql", "create table one (id int);\n-- migrate:down\ndrop table one;\n");
    // The way back of `one` on a is held up by a session that uses it.
    let mut user = world.connect("a").await;
    crate::harness::execute(&mut user, "begin; select * from one").await;
    let child = world.start(&["rollback", "--via", "down", "--yes"]);
    let waits = "select exists (select from pg_locks where relation = 'one'::regclass and not granted)";
    until("the way back waits", async || world.value("a", waits).await == "true").await;
    send(&child, Signal::SIGKILL);
    let _ = finish(child);
    crate::harness::execute(&mut user, "rollback").await;
    let status = world.json(0, &["status"]);
    assert_eq!((&status["unfinished_run"], &status["unfinished"]["direction"]), (&run.into(), &"back".into()));
    assert!(world.run(&["status"]).expect(0).stdout.contains("it was being rolled back"));
    let report = world.json(0, &["resume"]);
    assert_eq!(
        (&report["outcome"], &report["databases"][0]["via"]),
        (&"rolled_back".into(), &"down".into()),
        "{report:#}"
    );
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_release_or_not_there_is_refused() {
    let world = two("resume_none", TWO).await;
    world.run(&["resume"]).expect(64).says("there is no run of the target `local`");
    let taken = world.json(0, &["snapshot", "take"]);
    let run = taken["run"].as_str().expect("a run");
    world.run(&["resume", run]).expect(64).says("is no release");
    let first = world.json(0, &["apply", "--yes", "--only", "a"])["run"].as_str().expect("a run").to_owned();
    assert_eq!(world.json(0, &["resume", &first])["outcome"], "nothing_to_do");
    world.run(&["resume", "--quick"]).expect(64);
}
