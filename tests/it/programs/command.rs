//! Steps of kind `command`.

use super::{PASSWORD, content, gone, with_password};
use crate::world::{TestWorld, assert_same, finish, until};

/// A shell script as the step `work` on database `a`.
fn step(script: &str, rest: &str) -> String {
    format!(
        "[[steps]]\nname = \"work\"\ndatabase = \"a\"\nkind = \"command\"\nargv = [\"sh\", \"-c\", '''{script}''']\n{rest}"
    )
}

async fn world(hint: &str, script: &str, rest: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["a"]).await;
    world.plan(&step(script, rest));
    world
}

const COUNTED: &str = "echo ran >> count.txt";

fn count(world: &TestWorld) -> usize {
    std::fs::read_to_string(world.path().join("count.txt")).map_or(0, |text| text.lines().count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_always_or_once() {
    let world = world("cmd_run", COUNTED, "").await;
    for runs in 1..=2 {
        let report = world.json(0, &["apply", "--yes"]);
        assert_eq!((report["outcome"].as_str(), count(&world)), (Some("succeeded"), runs));
    }
    assert_eq!(
        world.value("a", "select string_agg(concat_ws(' ', step, name, kind, state), ',') from migrate.ledger").await,
        "work work command applied"
    );
    world.plan(&step(COUNTED, "run = \"once\"\n"));
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
    world.plan(&step("echo another >> count.txt", "run = \"once\"\n"));
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
    assert_eq!(count(&world), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_when_its_arguments_or_inputs_have_changed() {
    let rest = "run = \"on_change\"\ninputs = [\"models\", \"one.yml\"]\n";
    let world = world("cmd_change", COUNTED, rest).await;
    world.file("models/a/b.sql", "select 1");
    world.file("one.yml", "x: 1");
    let apply = |runs: usize| {
        let _ = world.run(&["apply", "--yes"]).expect(0);
        assert_eq!(count(&world), runs);
    };
    apply(1);
    apply(1);
    world.file("models/a/b.sql", "select 2");
    apply(2);
    world.file("models/c.sql", "select 3");
    apply(3);
    world.file("one.yml", "x: 2");
    apply(4);
    apply(4);
    world.plan(&step("echo other >> count.txt", rest));
    apply(5);
    world.remove("one.yml");
    world.run(&["apply", "--yes"]).expect(64).says("names `one.yml`, which does not exist");
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_name_the_database_and_never_the_password() {
    let mut world = TestWorld::new("cmd_argv", &["a"]).await;
    with_password(&mut world, "a");
    let script =
        "tr \"\\\\0\" \" \" < /proc/$$/cmdline > said.txt; echo \"$PGPASSWORD\" > password.txt; echo \"$PGPASSWORD\"";
    let plan = step(script, "dir = \"work\"\n").replace("''']", "''', \"${url}\", \"${dbname}\", \"${user}\"]");
    world.plan(&plan);
    world.file("work/there", "");
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let said = content(world.path().join("work/said.txt")).await;
    assert!(said.contains(&format!(" {} release ", world.dbname("a"))) && said.contains("postgresql:"), "{said}");
    assert!(!said.contains(PASSWORD), "{said}");
    assert_eq!(content(world.path().join("work/password.txt")).await.trim(), PASSWORD);
    assert_eq!(super::output(&world, "/output/work/work.log").trim(), "***");
    world.set("ALSO", PASSWORD);
    for secret in ["${password}", "--password=${password}", "${TEST_A_URL}", "${ALSO}"] {
        world.plan(&plan.replace("${dbname}", secret));
        let ran = world.run(&["plan"]);
        ran.expect(64).says(&format!("`argv` of step `work` holds a password: `{secret}`"));
        assert!(!ran.stderr.contains(PASSWORD), "{}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_fails_is_taken_back_with_the_tail_of_its_output() {
    let world = world(
        "cmd_fails",
        "psql -Xqc \"create table made (id int)\" \"$URL\"; seq 100; exit 7",
        "env = { URL = \"${url}\" }\n",
    )
    .await;
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(3).says("error: a: `work` failed").says("`sh` exited with 7").says("\n         100\n");
    assert!(!ran.stderr.contains(" 80\n"), "{}", ran.stderr);
    ran.ends("Rolled back, as before the run: a.");
    assert_same(&before, &world.fingerprints().await);
    assert!(super::output(&world, "/output/work/work.log").starts_with("1\n2\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_killed_in_a_command_is_unfinished_and_the_command_has_ended() {
    let script = "sleep 1000 & echo $$ $! > pids.txt; wait";
    let world = world("cmd_killed", script, "").await;
    let before = world.fingerprints().await;
    let mut child = world.start(&["apply", "--yes"]);
    let pids = content(world.path().join("pids.txt")).await;
    child.kill().expect("it runs");
    let _ = finish(child);
    for pid in pids.split_whitespace() {
        gone(pid).await;
    }
    let status = world.json(0, &["status"]);
    assert!(status["unfinished_run"].is_string(), "{status}");
    until("the lock is free", async || world.run(&["doctor"]).code == 0).await;
    world.run(&["apply", "--yes"]).expect(5).says("is unfinished");
    assert_eq!(world.json(0, &["rollback", "--yes"])["outcome"], "rolled_back");
    assert_same(&before, &world.fingerprints().await);
}

/// As a run leaves it that was cut off in the command and then halted: begun, and nobody knows whether it ended.
const BEGUN: &str = "update migrate.ledger set state = 'started', finished_at = null, execution_ms = null";

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_says_whether_a_command_took_effect() {
    let probe = |when: &str, sql: &str| step(COUNTED, &format!("run = \"{when}\"\nprobe = \"{sql}\"\n"));
    let world = world("cmd_probe", COUNTED, "run = \"once\"\n").await;
    let _ = world.run(&["apply", "--yes"]).expect(0);
    assert_eq!(count(&world), 1);
    let state = "select state from migrate.ledger";

    world.sql("a", BEGUN).await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(6).says("`work` was begun in run ").says("the ledger does not say that it ended");
    world.plan(&probe("once", "select true"));
    let _ = world.run(&["apply", "--yes"]).expect(0);
    assert_eq!((count(&world), world.value("a", state).await.as_str()), (1, "applied"));

    world.sql("a", BEGUN).await;
    world.plan(&probe("once", "select false"));
    let _ = world.run(&["apply", "--yes"]).expect(0);
    assert_eq!((count(&world), world.value("a", state).await.as_str()), (2, "applied"));

    world.sql("a", BEGUN).await;
    world.plan(&probe("always", "select no_such_column"));
    world.run(&["apply", "--yes"]).expect(1).says("the probe of step `work`").ends("No database was changed.");
    assert_eq!((count(&world), world.value("a", state).await.as_str()), (2, "started"));
}
