//! The command line itself.

use crate::world::TestWorld;

async fn world(hint: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["a"]).await;
    world.sql_plan("");
    world.file("migrations/a/001_t.sql", "create table t (id int);\n");
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn help_and_completions_go_to_standard_output() {
    let world = world("usage_help").await;
    let help = world.run(&["--help"]);
    assert!(help.expect(0).stdout.contains("Exit codes:") && help.stderr.is_empty(), "{}", help.stdout);
    for command in
        ["plan", "apply", "rollback", "status", "verify", "snapshot", "runs", "doctor", "completions", "demo"]
    {
        assert!(help.stdout.contains(&format!("\n  {command} ")), "{command} in {}", help.stdout);
        assert!(world.run(&[command, "--help"]).expect(0).stdout.contains("Usage: migrate "));
    }
    assert!(world.run(&["--version"]).expect(0).stdout.starts_with("migrate "));
    for shell in ["bash", "zsh", "fish"] {
        assert!(world.run(&["completions", shell]).expect(0).stdout.contains("migrate"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_that_a_command_does_not_honour_is_refused() {
    let world = world("usage_flags").await;
    for args in [
        &["completions", "bash", "--json"] as &[&str],
        &["--json", "completions", "bash"],
        &["completions", "bash", "-p", "x"],
        &["completions", "bash", "-t", "x"],
        &["status", "--yes"],
        &["plan", "--reason", "x"],
        &["apply", "--yes", "--no-snapshot"],
        &["apply", "--yes", "--reason", "x"],
        &["rollback", "--via", "wishing"],
        &["snapshot"],
        &["frobnicate"],
        &[],
    ] {
        let ran = world.run(args);
        assert!(!ran.expect(64).stderr.is_empty(), "{args:?}");
        assert_eq!(ran.stdout.is_empty(), !args.contains(&"--json"), "{args:?}: {}", ran.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_and_target_are_found_wherever_they_stand() {
    let mut world = world("usage_where").await;
    let url = world.url("a").to_owned();
    let text = std::fs::read_to_string(world.path().join("plans/production.toml")).expect("there");
    world.set("OTHER", url);
    world.file("plans/other.toml", &format!("{text}[targets.second.databases]\na = \"${{OTHER}}\"\n"));
    world.remove("plans/production.toml");
    world.run(&["plan"]).expect(64).says("plans/production.toml");
    let target = |args: &[&str]| world.json(0, args)["target"].as_str().expect("a name").to_owned();
    let plan = "plans/other.toml";
    assert_eq!(target(&["-p", plan, "plan"]), "local");
    assert_eq!(target(&["plan", "--plan", plan, "-t", "second"]), "second");
    assert_eq!(target(&["--target", "second", "-p", plan, "plan"]), "second");
    world.run(&["plan", "-p", plan, "-t", "third"]).expect(64).says("third").ends("No database was changed.");

    world.set("MIGRATE_PLAN", plan);
    assert_eq!(world.json(0, &["plan"])["target"], "local");
    world.set("MIGRATE_TARGET", "second");
    assert_eq!(world.json(0, &["plan"])["target"], "second");
    assert_eq!(world.json(0, &["status", "-t", "local"])["target"], "local", "a flag goes before a variable");
    world.unset("OTHER");
    world.run(&["plan"]).expect(64).says("OTHER").says("plans/other.toml:");
    // Variables are for every command: one that does not need them passes them over.
    let _ = world.run(&["completions", "bash"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_is_quiet_and_progress_is_on_standard_error() {
    let world = world("usage_quiet").await;
    let ran = world.run(&["apply", "--yes", "-q"]);
    assert_eq!(ran.expect(0).stderr, "");
    assert!(ran.stdout.starts_with("Run 20") && ran.stdout.contains("  a: 1 applied\n"), "{}", ran.stdout);
    let back = world.run(&["rollback", "--yes", "--color", "always"]);
    back.expect(0).says("Exchanging the databases");
    assert!(!back.stdout.contains("Exchanging"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_some_databases() {
    let world = TestWorld::new("usage_only", &["a", "b"]).await;
    world.sql_plan("");
    for name in ["a", "b"] {
        world.file(&format!("migrations/{name}/001_t.sql"), "create table t (id int);\n");
    }
    let document = world.json(0, &["apply", "--yes", "--only", "b"]);
    assert_eq!(document["databases"].as_array().map(Vec::len), Some(1));
    assert_eq!(world.value("a", "select to_regclass('t')").await, "NULL");
    assert_eq!(world.value("b", "select to_regclass('t')").await, "t");
    world.run(&["apply", "--yes", "--only", "zzz"]).expect(64).says("The plan has a, b.");
}
