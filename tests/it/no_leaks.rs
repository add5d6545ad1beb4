//! A password in a URL is in no output, no object of the store, no ledger, and on no command line.

mod everything;
mod watch;

use std::fs;
use std::process::Child;

use crate::harness::{OWNER, execute};
use crate::world::{Ran, TestWorld, finish, until};

const PASSWORD: &str = "p$w&d'9Kq\u{f6}:/@#%x";
const ENCODED: &str = "p%24w%26d%279Kq%C3%B6%3A%2F%40%23%25x";
/// What no escaping changes: a part of it is a leak as well.
const PART: &str = "9Kq";

async fn world(hint: &str) -> TestWorld {
    let mut world = TestWorld::new(hint, &["a"]).await;
    let url = world.url("a").replacen("postgresql://", &format!("postgresql://{OWNER}:{ENCODED}@"), 1);
    world.lead("a", url);
    world.sql_plan("");
    world.sql("a", "create table held (id int)").await;
    world.file("migrations/a/001_t.sql", "create table t (id int);\n");
    world
}

#[track_caller]
fn no_leak(text: &str) {
    for needle in [PASSWORD, ENCODED, PART] {
        assert!(!text.contains(needle), "{needle} in\n{text}");
    }
}

#[track_caller]
fn quiet(ran: &Ran) {
    no_leak(&ran.stdout);
    no_leak(&ran.stderr);
}

fn command_lines() -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("Linux").flatten();
    let lines = processes.filter_map(|it| fs::read(it.path().join("cmdline")).ok());
    lines.map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " ")).collect()
}

/// Looks at every command line of the machine until the child ends.
async fn watched(mut child: Child) -> Ran {
    until("it has ended", async || {
        command_lines().iter().for_each(|line| no_leak(line));
        child.try_wait().expect("it is ours").is_some()
    })
    .await;
    finish(child)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_nowhere() {
    let world = world("no_leak").await;
    for args in [&["plan", "-vv"] as &[&str], &["doctor", "-vv"], &["status", "-vv", "--json"]] {
        quiet(world.run(args).expect(0));
    }
    // pg_dump stands before a lock, so that its command line is there to be looked at.
    let mut holder = world.connect("a").await;
    execute(&mut holder, "begin; lock table held in access exclusive mode").await;
    let child = world.start(&["apply", "--yes", "-vv"]);
    let waits = "select exists (select from pg_stat_activity where query like 'LOCK TABLE %' and wait_event_type = \
                 'Lock' and datname = current_database())";
    until("pg_dump waits", async || world.value("a", waits).await == "true").await;
    let lines = command_lines();
    assert!(lines.iter().any(|line| line.contains("pg_dump") && line.contains("--snapshot=")), "{lines:#?}");
    lines.iter().for_each(|line| no_leak(line));
    execute(&mut holder, "rollback").await;
    quiet(watched(child).await.expect(0));
    no_leak(&world.value("a", "select string_agg(l::text, ' ') from migrate.ledger l").await);

    world.file("migrations/a/002_bad.sql", "select no_such_thing;\n");
    quiet(world.run(&["apply", "--yes", "-vv", "--json"]).expect(1));
    quiet(watched(world.start(&["rollback", "--yes", "-vv", "--json"])).await.expect(0));
    quiet(world.run(&["runs", "list", "-vv"]).expect(0));
    let objects = world.objects();
    assert!(
        objects.iter().any(|key| key.ends_with("plan.toml"))
            && objects.iter().any(|key| key.ends_with("manifest.json"))
    );
    for key in objects {
        no_leak(&String::from_utf8_lossy(&fs::read(world.store().join(&key)).expect("there")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_about_a_url_does_not_show_its_password() {
    let mut world = world("no_leak_errors").await;
    let there = world.url("a").replacen("postgresql://", &format!("postgresql://{OWNER}:{ENCODED}@"), 1);
    for url in [
        there.replacen(&world.dbname("a"), "not_there", 1),
        format!("postgresql://{OWNER}:{ENCODED}@127.0.0.1:1/d"),
        format!("postgresql://{OWNER}:{ENCODED}@127.0.0.1:99999/d"),
        format!("postgresql://{OWNER}:{ENCODED}@/d?nonsense=1"),
        format!("mysql://{OWNER}:{ENCODED}@h/d"),
        format!("postgresql://{OWNER}:{PASSWORD}@h/d"),
        format!("host=h user={OWNER} password={ENCODED}"),
    ] {
        world.lead("a", &url);
        for args in
            [&["plan", "-vv"] as &[&str], &["status", "-vv", "--json"], &["apply", "--yes", "-vv"], &["doctor", "-vv"]]
        {
            let ran = world.run(args);
            quiet(&ran);
            assert!(ran.code != 0 || args[0] == "status", "{url} was taken");
        }
    }
    // Nor does the refusal of a password in the plan file itself.
    world.file(
        "plans/production.toml",
        &format!(
            "version = 1\nname = \"test\"\ndefault_target = \"local\"\n[store]\nurl = \"${{MIGRATE_STORE}}\"\n\
             [targets.local.databases]\na = \"postgresql://{OWNER}:{ENCODED}@h/d\"\n{}",
            crate::world::sql_step("a")
        ),
    );
    let ran = world.run(&["plan", "-vv"]);
    quiet(ran.expect(64).says("plans/production.toml:7"));
}
