//! `migrate` is killed with SIGKILL. Whatever it was doing, `status` says so, the next release is refused, and
//! `rollback` reaches the state before the run.
//!
//! The store's server holds up the very request that follows the moment in question, so that each moment is met.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::fingerprint::Fingerprint;
use crate::gcs_server::{Action, BUCKET, Fault, GcsServer};
use crate::harness::{as_superuser, connect};
use crate::rollback::{prepare, release, step};
use crate::world::{TestWorld, assert_same, until};

/// Longer than any test.
const FOR_EVER: Action = Action::Delay(Duration::from_secs(3600));

/// Two databases, a release for both, and a store that can be held up.
struct Scene {
    world: TestWorld,
    server: GcsServer,
    before: BTreeMap<String, Fingerprint>,
}

impl Scene {
    async fn new(hint: &str) -> Self {
        let mut world = release(hint, &["chat", "rag"]).await;
        let server = GcsServer::start();
        for (name, value) in server.env(BUCKET) {
            world.set(&name, value);
        }
        world.set("MIGRATE_STORE", format!("gs://{BUCKET}/releases"));
        for name in ["chat", "rag"] {
            world.sql(name, "create table t as select n, 'row ' || n as text from generate_series(1, 2000) n").await;
        }
        let before = world.fingerprints().await;
        Self { world, server, before }
    }

    /// Runs until a request for which there is a fault has arrived, then kills.
    async fn killed_at(&self, args: &[&str], request: &str) {
        self.server.log();
        self.server.fault(Fault::times(usize::MAX, FOR_EVER, request));
        let victim = self.world.start(args);
        let is_it = |line: &String| percent_decode_str(line).decode_utf8_lossy().contains(request);
        let arrived = || async { self.server.log().iter().any(is_it) };
        until("the request has arrived", arrived).await;
        end(victim);
        self.server.clear_faults();
    }

    /// The one run in the store.
    fn run(&self) -> String {
        let objects = self.server.objects(BUCKET);
        let (key, _) = objects.iter().find(|(key, _)| key.starts_with("releases/runs/")).expect("there is a run");
        key.split('/').nth(2).expect("the run's folder").to_owned()
    }

    /// How many entries the run's journal has.
    fn entries(&self) -> usize {
        self.server.objects(BUCKET).iter().filter(|(key, _)| key.contains("/journal/")).count()
    }

    /// What must hold after each murder.
    async fn comes_back(&self) -> Value {
        let (world, run) = (&self.world, self.run());
        assert_eq!(world.json(0, &["status"])["unfinished_run"], run.as_str());
        world.run(&["apply", "--yes"]).expect(5).says(&run).says("No database was changed.");
        let back = world.json(0, &["rollback", "--yes"]);
        assert_same(&self.before, &world.fingerprints().await);
        self.nothing_is_left(&run).await;
        assert_eq!(world.json(0, &["status"])["unfinished_run"], Value::Null);
        assert_eq!(world.json(0, &["rollback", "--yes"])["outcome"], "nothing_to_do");
        back
    }

    async fn nothing_is_left(&self, run: &str) {
        let side = format!("select count(*) from pg_database where datname like '%restore_{}%'", run.replace('-', "_"));
        assert_eq!(self.world.ask(&side).await, "0", "no side database is left");
        let names = ["chat", "rag"].map(|name| self.world.dbname(name));
        until("no child process is left", || async { names.iter().all(|name| children_about(name).is_empty()) }).await;
        let sessions = format!("select count(*) from pg_stat_activity where application_name like 'migrate {run}%'");
        until("no session is left", || async { self.world.ask(&sessions).await == "0" }).await;
    }
}

/// Kills it, and waits until it is dead.
fn end(mut victim: Child) {
    assert!(victim.try_wait().expect("our child").is_none(), "it is still at work");
    kill(Pid::from_raw(victim.id().try_into().expect("a process id")), Signal::SIGKILL).expect("our child");
    victim.wait().expect("our child");
}

/// PostgreSQL's client programs that are at work on a database.
fn children_about(dbname: &str) -> Vec<String> {
    let about = |folder: &Path| {
        let read = |file: &str| fs::read(folder.join(file)).unwrap_or_default();
        let (command, environment) = (read("cmdline"), read("environ"));
        let text = String::from_utf8_lossy(&command).replace('\0', " ");
        let ours = text.contains("pg_dump") || text.contains("pg_restore");
        let here = text.contains(dbname) || String::from_utf8_lossy(&environment).contains(dbname);
        (ours && here).then_some(text)
    };
    fs::read_dir("/proc").expect("Linux").flatten().filter_map(|entry| about(&entry.path())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn during_the_snapshot() {
    let scene = Scene::new("kill_dump").await;
    scene.killed_at(&["apply", "--yes"], "archive.dump.gz?partNumber").await;
    let back = scene.comes_back().await;
    assert_eq!(back["outcome"], "nothing_to_do", "no database was changed: {back}");
}

#[tokio::test(flavor = "multi_thread")]
async fn between_two_databases() {
    let scene = Scene::new("kill_between").await;
    scene.world.plan(&(step("chat") + &step("rag") + "[run]\nparallel = 1\n"));
    // 1 begins the run, 2 to 5 are about the snapshots, 6 and 7 about the first step.
    scene.killed_at(&["apply", "--yes"], "journal/000008.json").await;
    assert_eq!(scene.world.value("chat", "select count(*) from new").await, "0", "the first step is committed");
    let back = scene.comes_back().await;
    assert_eq!(back["databases"][0]["rolled_back"], true, "{back}");
    assert_eq!(back["databases"][1]["rolled_back"], false, "{back}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_commit_that_nobody_wrote_down() {
    let scene = Scene::new("kill_commit").await;
    scene.world.plan(&(step("chat") + &step("rag") + "[run]\nparallel = 1\n"));
    scene.killed_at(&["apply", "--yes"], "journal/000007.json").await;
    assert_eq!(scene.world.value("chat", "select count(*) from new").await, "0", "the first step is committed");
    assert_eq!(scene.comes_back().await["databases"][0]["rolled_back"], true);
}

/// The server works on after its client died, and would commit when the migration is through.
#[tokio::test(flavor = "multi_thread")]
async fn in_the_middle_of_a_migration() {
    let scene = Scene::new("kill_middle").await;
    scene.world.file("migrations/rag/001_new.sql", "create table new (id int);\nselect pg_sleep(10);\n");
    let victim = scene.world.start(&["apply", "--yes"]);
    let sleeps =
        "select count(*) from pg_stat_activity where state = 'active' and wait_event = 'PgSleep' and datname = ";
    let sleeps = format!("{sleeps}'{}'", scene.world.dbname("rag"));
    until("the migration sleeps", || async { scene.world.ask(&sleeps).await == "1" }).await;
    end(victim);
    scene.comes_back().await;
    until("nobody sleeps", || async { scene.world.ask(&sleeps).await == "0" }).await;
    assert_same(&scene.before, &scene.world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_a_transaction() {
    let scene = Scene::new("kill_no_tx").await;
    let text =
        "-- migrate:no-transaction\ncreate table new (id int);\nselect pg_sleep(10);\ncreate table more (id int);\n";
    scene.world.file("migrations/rag/001_new.sql", text);
    let victim = scene.world.start(&["apply", "--yes"]);
    let sleeps =
        "select count(*) from pg_stat_activity where state = 'active' and wait_event = 'PgSleep' and datname = ";
    let sleeps = format!("{sleeps}'{}'", scene.world.dbname("rag"));
    until("the migration sleeps", || async { scene.world.ask(&sleeps).await == "1" }).await;
    end(victim);
    scene.comes_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn during_the_restore() {
    let scene = Scene::new("kill_restore").await;
    // In a side database, and nowhere else, each row takes its time.
    let slow = "create function slow(n int) returns bool language plpgsql as $$ begin
        if current_database() like '%restore%' then perform pg_sleep(1.5); end if; return true; end $$;
        create table slow (n int check (public.slow(n))); insert into slow values (1), (2), (3)";
    scene.world.sql("rag", slow).await;
    let scene = Scene { before: scene.world.fingerprints().await, ..scene };
    scene.world.run(&["apply", "--yes"]).expect(0);
    let victim = scene.world.start(&["rollback", "--yes"]);
    let restoring = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and datname like ";
    let restoring = format!("{restoring}'%restore_{}'", scene.run().replace('-', "_"));
    until("rows are restored", || async { scene.world.ask(&restoring).await == "1" }).await;
    end(victim);
    assert_eq!(scene.comes_back().await["outcome"], "rolled_back");
}

#[tokio::test(flavor = "multi_thread")]
async fn during_the_swap() {
    let scene = Scene::new("kill_swap").await;
    scene.world.run(&["apply", "--yes"]).expect(0);
    let stays = connect(&as_superuser(scene.world.url("rag"))).await;
    let victim = scene.world.start(&["rollback", "--yes"]);
    let renames = "select count(*) from pg_stat_activity where state = 'active' and query ilike ";
    let renames = format!("{renames}'alter database%{}%rename%'", scene.world.dbname("rag"));
    until("the rename waits", || async { scene.world.ask(&renames).await == "1" }).await;
    end(victim);
    drop(stays);
    let back = scene.comes_back().await;
    for database in back["databases"].as_array().expect("a list") {
        assert_eq!(database["rolled_back"], true, "{back}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_swap_before_it_is_written_down() {
    let scene = Scene::new("kill_swapped").await;
    scene.world.run(&["apply", "--yes"]).expect(0);
    let oids = (scene.world.oid("chat").await, scene.world.oid("rag").await);
    // The rollback's beginning, two entries for each restore, the swap's beginning: then what is to be held up.
    let swapped = format!("journal/{:06}.json", scene.entries() + 7);
    scene.killed_at(&["rollback", "--yes"], &swapped).await;
    let now = (scene.world.oid("chat").await, scene.world.oid("rag").await);
    assert!(now.0 != oids.0 && now.1 != oids.1, "they are exchanged");
    scene.world.sql("rag", "insert into t values (0, 'written after the swap')").await;
    let scene = Scene { before: scene.world.fingerprints().await, ..scene };
    let back = scene.comes_back().await;
    assert_eq!((scene.world.oid("chat").await, scene.world.oid("rag").await), now, "and not again");
    assert!(back["databases"][0]["kept_as"].is_string() && back["databases"][1]["kept_as"].is_string(), "{back}");
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_swap_is_begun() {
    let scene = Scene::new("kill_ready").await;
    scene.world.run(&["apply", "--yes"]).expect(0);
    let swap_start = format!("journal/{:06}.json", scene.entries() + 6);
    scene.killed_at(&["rollback", "--yes"], &swap_start).await;
    assert_eq!(scene.comes_back().await["outcome"], "rolled_back");
    prepare(&scene.world, &["chat", "rag"]);
    scene.world.run(&["apply", "--yes"]).expect(0);
}

/// The scene, with a warm copy of `rag`. Its entries: 1 begins the run, 2 to 5 are about the snapshots, 6 and 7 about the copy.
async fn warm(hint: &str) -> Scene {
    let scene = Scene::new(hint).await;
    scene.world.plan(&(step("chat") + &step("rag") + "[databases.rag]\nstandby = true\n"));
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_standby_is_made() {
    let scene = warm("kill_standby_before").await;
    scene.killed_at(&["apply", "--yes"], "journal/000006.json").await;
    assert_eq!(scene.comes_back().await["outcome"], "nothing_to_do");
    scene.world.run(&["apply", "--yes"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_standby_waits_for_the_others_to_leave() {
    let scene = warm("kill_standby_waits").await;
    let stays = connect(&as_superuser(scene.world.url("rag"))).await;
    let victim = scene.world.start(&["apply", "--yes"]);
    let copies = "select count(*) from pg_stat_activity where state = 'active' and query ilike ";
    let copies = format!("{copies}'create database%template%{}%'", scene.world.dbname("rag"));
    until("the copy waits", || async { scene.world.ask(&copies).await == "1" }).await;
    end(victim);
    drop(stays);
    assert_eq!(scene.comes_back().await["outcome"], "nothing_to_do");
    scene.world.run(&["apply", "--yes"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_standby_was_made_and_before_that_is_written_down() {
    let scene = warm("kill_standby_made").await;
    scene.killed_at(&["apply", "--yes"], "journal/000007.json").await;
    assert_eq!(scene.comes_back().await["outcome"], "nothing_to_do");
    scene.world.run(&["apply", "--yes"]).expect(0);
    let back = scene.world.json(0, &["rollback", "--yes"]);
    assert_eq!(back["databases"][1]["via"], "standby", "{back}");
    assert_same(&scene.before, &scene.world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_commit_with_a_standby_behind_it() {
    let scene = warm("kill_standby_commit").await;
    scene.world.plan(&(step("chat") + &step("rag") + "[databases.rag]\nstandby = true\n[run]\nparallel = 1\n"));
    // 8 and 9 are about the first step, on chat; 10 and 11 about the second.
    scene.killed_at(&["apply", "--yes"], "journal/000011.json").await;
    assert_eq!(scene.world.value("rag", "select count(*) from new").await, "0", "the second step is committed");
    let back = scene.comes_back().await;
    assert_eq!((&back["databases"][0]["via"], &back["databases"][1]["via"]), (&"snapshot".into(), &"standby".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_swap_by_standby_before_it_is_written_down() {
    let scene = warm("kill_standby_swapped").await;
    scene.world.run(&["apply", "--yes"]).expect(0);
    let oids = (scene.world.oid("chat").await, scene.world.oid("rag").await);
    // The rollback's beginning, two entries for the restore of chat, the swap's beginning: then what is to be held up.
    let swapped = format!("journal/{:06}.json", scene.entries() + 5);
    scene.killed_at(&["rollback", "--yes"], &swapped).await;
    let now = (scene.world.oid("chat").await, scene.world.oid("rag").await);
    assert!(now.0 != oids.0 && now.1 != oids.1, "they are exchanged");
    let back = scene.comes_back().await;
    assert_eq!((scene.world.oid("chat").await, scene.world.oid("rag").await), now, "and not again");
    assert_eq!(back["databases"][1]["via"], "standby", "{back}");
}

/// What was not written down is no standby: a run that is resumed makes it anew.
#[tokio::test(flavor = "multi_thread")]
async fn after_the_standby_was_made_the_run_can_be_resumed() {
    let scene = warm("kill_standby_resume").await;
    scene.killed_at(&["apply", "--yes"], "journal/000007.json").await;
    scene.world.sql("rag", "insert into t values (0, 'written meanwhile')").await;
    let before = scene.world.fingerprints().await;
    let resumed = scene.world.json(0, &["resume", "--yes"]);
    assert_eq!((&resumed["outcome"], &resumed["standbys"][0]["database"]), (&"succeeded".into(), &"rag".into()));
    let back = scene.world.json(0, &["rollback", "--yes"]);
    assert_eq!(back["databases"][1]["via"], "standby", "{back}");
    let rag = before["rag"].diff(&scene.world.fingerprints().await["rag"]);
    assert!(rag.is_empty(), "{rag:?}");
}
