//! The crash matrix. An undisturbed run tells which points it passes; then, for every point, a run dies there by `abort`, and
//! (a) `status` is right, (b) `resume` ends like the undisturbed run, and (c) in a second world `rollback` ends like no run at all.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use migrate::crash::{AT, LIST};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::fingerprint::Fingerprint;
use crate::harness::{self, connect, execute};
use crate::programs::{alembic_folder, alembic_step, module, python_library, python_step, two_way};
use crate::world::{TestWorld, sql_step, until};

/// Worlds that are tried side by side.
const AT_ONCE: usize = 5;
/// Points at the end of a run that are tried in every scenario.
const LAST: usize = 4;
/// Tables whose rows hold times.
const WITH_TIMES: [&str; 2] = ["migrate.ledger", "public.refinery_schema_history"];

/// What is done, and where it is interrupted.
struct Scenario {
    name: &'static str,
    /// What both databases hold before, as SQL.
    seeds: [&'static str; 2],
    plan: String,
    files: Vec<(&'static str, String)>,
    /// Lays out the folders of programs.
    folders: fn(&TestWorld),
    /// Commands that come first, undisturbed.
    first: &'static [&'static [&'static str]],
    /// The command that is interrupted, and what it comes to where it is not.
    command: &'static [&'static str],
    exit: i32,
    /// What the first point is about that is tried; those before it are tried in another scenario. Nothing: all are.
    from: &'static str,
    /// What the first point is about from which on all but the last few are tried in another scenario. Nothing: none is.
    to: &'static str,
    /// The migration, as STEP/NAME, of which nobody can know whether it happened, and the query by which a person sees it in `a`.
    asked: (&'static str, &'static str),
}

/// What an undisturbed world comes to.
struct Undisturbed {
    before: BTreeMap<String, Fingerprint>,
    after: BTreeMap<String, Fingerprint>,
    ledgers: BTreeMap<String, String>,
    points: Vec<String>,
}

impl Scenario {
    /// The databases that every world of this scenario is copied from.
    async fn templates(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (database, seed) in ["a", "b"].into_iter().zip(self.seeds) {
            let url = harness::fresh_database(&format!("crash_{}_{database}", self.name)).await;
            execute(&mut connect(&url).await, seed).await;
            names.push(url.trim_start_matches("postgresql:///").split('?').next().expect("a name").to_owned());
        }
        names
    }

    async fn world(&self, templates: &[String]) -> TestWorld {
        let mut urls = BTreeMap::new();
        for (database, template) in ["a", "b"].into_iter().zip(templates) {
            let url = harness::copy_of(template, &format!("crash_{}_{database}", self.name)).await;
            urls.insert(database.to_owned(), url);
        }
        let world = TestWorld::over(urls);
        world.plan(&format!("{}\n", self.plan));
        for (path, text) in &self.files {
            world.file(path, text);
        }
        (self.folders)(&world);
        for command in self.first {
            world.run(command).expect(0);
        }
        world
    }

    async fn undisturbed(&self, templates: &[String]) -> Undisturbed {
        let plain = self.world_before(templates).await;
        let mut world = self.world(templates).await;
        let list = world.path().join("points.txt");
        world.set(LIST, list.display().to_string());
        world.run(self.command).expect(self.exit);
        world.unset(LIST);
        let points = std::fs::read_to_string(list).expect("points were passed");
        let (after, ledgers) = (told(&world).await, ledgers(&world).await);
        dropped(&world).await;
        Undisturbed { before: plain, after, ledgers, points: represented(&points, self.from, self.to) }
    }

    /// What the databases are before anything is done.
    async fn world_before(&self, templates: &[String]) -> BTreeMap<String, Fingerprint> {
        let world = Scenario { first: &[], files: Vec::new(), plan: self.plan.clone(), ..*self }.world(templates).await;
        let before = told(&world).await;
        dropped(&world).await;
        before
    }

    /// Dies at a point.
    async fn dead_at(&self, templates: &[String], point: &str) -> TestWorld {
        let mut world = self.world(templates).await;
        world.set(AT, point);
        let ran = world.run(self.command);
        assert_eq!(ran.code, -1, "{} at {point}: it did not die\n{}", self.name, ran.stderr);
        world.unset(AT);
        world
    }

    async fn tried(&self, templates: &[String], undisturbed: &Undisturbed, point: &str) -> Outcomes {
        let world = self.dead_at(templates, point).await;
        let case = format!("{} at {point}", self.name);
        let run = status_is_right(&world, &case).await;
        let resumed = self.resumed(&world, run.as_deref(), &case).await;
        assert_told(&undisturbed.after, &told(&world).await, &format!("{case}, resumed"));
        assert_eq!(undisturbed.ledgers, ledgers(&world).await, "{case}, resumed");
        nobody_waits(&world, &format!("{case}, resumed"));
        nothing_is_open(&world, run.as_deref(), &case).await;
        dropped(&world).await;

        let world = self.dead_at(templates, point).await;
        let run = unfinished(&world);
        let back = if any_run(&world) { world.run(&["rollback", "--yes"]).expect(0).code } else { 64 };
        assert_told(&undisturbed.before, &told(&world).await, &format!("{case}, rolled back"));
        nobody_waits(&world, &format!("{case}, rolled back"));
        nothing_is_open(&world, run.as_deref(), &case).await;
        dropped(&world).await;
        Outcomes { resumed, back }
    }

    /// Resumes as a person would: what is asked is looked up, and a run that never began is begun.
    async fn resumed(&self, world: &TestWorld, run: Option<&str>, case: &str) -> i32 {
        let Some(run) = run else {
            let code = world.run(&["resume"]).expect(if any_run(world) { 0 } else { 64 }).code;
            // A run that never began is begun, and a rollback; one that is over stays over.
            if code == 64 || self.command.contains(&"rollback") {
                let ran = world.run(self.command);
                assert!([0, self.exit].contains(&ran.code), "{case}: {}", ran.stderr);
            }
            return code;
        };
        let mut ran = world.run(&["resume"]);
        if ran.code == 4 && ran.stderr.contains("migrate resolve") {
            self.resolved(world, run).await;
            ran = world.run(&["resume"]);
        }
        let fine: &[i32] = if self.exit == 0 { &[0] } else { &[0, self.exit] };
        assert!(fine.contains(&ran.code), "{case}: resume ended with {}\n{}\n{}", ran.code, ran.stdout, ran.stderr);
        ran.code
    }

    /// What is asked can be seen by a person.
    async fn resolved(&self, world: &TestWorld, run: &str) {
        let (migration, happened) = self.asked;
        let word = match world.value("a", happened).await.as_str() {
            "true" => "--applied",
            _ => "--not-applied",
        };
        world.run(&["resolve", run, migration, word]).expect(0);
    }
}

/// How a command came out after a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Outcomes {
    resumed: i32,
    back: i32,
}

/// The points of an undisturbed run that are tried, each state of the world outside once: after one effect is before the next
/// one, but while a program is at work. It begins with what is about `from`, and leaves out what comes between `to` and the end.
/// Statements for the session alone change nothing, and of the files that are kept side by side, the first and the last stand for
/// all.
fn represented(list: &str, from: &str, to: &str) -> Vec<String> {
    let (mut points, mut skipped) = (Vec::new(), BTreeSet::new());
    let kept = |about: &str| about.contains("/migrations/");
    let files: Vec<&str> = list.lines().filter(|it| kept(it)).filter_map(|it| it.split('\t').next()).collect();
    let mut just_after = false;
    let lines: Vec<&str> = list.lines().skip_while(|it| !it.contains(from)).collect();
    let end = lines.len().saturating_sub(LAST);
    let other = lines.iter().position(|it| !to.is_empty() && it.contains(to)).unwrap_or(end);
    for line in lines[..other].iter().chain(&lines[end.max(other)..]) {
        let (point, about) = line.split_once('\t').expect("a point and what it is about");
        let (name, number) = point.rsplit_once('#').expect("a name and a number");
        let of_the_session = [
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            "SET ",
            "SET LOCAL",
            "RESET",
            "set ",
            "SELECT pg_catalog.set_config",
        ];
        if name == "change before" && of_the_session.iter().any(|it| about.starts_with(it)) {
            skipped.insert(format!("change after#{number}"));
            continue;
        }
        let stands_for_others = files.first() == Some(&point) || files.last() == Some(&point);
        if skipped.contains(point) || kept(about) && !stands_for_others {
            continue;
        }
        let tried_already = just_after && name.ends_with("before");
        just_after =
            name.ends_with("ended") || name.ends_with("after") && !["child after", "program after"].contains(&name);
        if !tried_already {
            points.push(point.to_owned());
        }
    }
    points
}

/// The fingerprints, without rows that hold times.
async fn told(world: &TestWorld) -> BTreeMap<String, Fingerprint> {
    let all = world.fingerprints().await;
    all.into_iter().map(|(name, it)| (name, it.without_rows_of(&WITH_TIMES))).collect()
}

#[track_caller]
fn assert_told(expected: &BTreeMap<String, Fingerprint>, found: &BTreeMap<String, Fingerprint>, case: &str) {
    for (name, it) in expected {
        let diff = it.diff(&found[name]);
        assert!(diff.is_empty(), "{case}: {name} differs:\n{}", diff.join("\n"));
    }
}

/// What the ledgers have, without times and runs: nothing twice, nothing left out, nothing left open.
async fn ledgers(world: &TestWorld) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for database in ["a", "b"] {
        let has = world.value(database, "select to_regclass('migrate.ledger') is not null").await == "true";
        let rows = "select string_agg(concat_ws(' ', step, name, kind, checksum, state), e'\\n' order by step, name) from migrate.ledger";
        all.insert(database.to_owned(), if has { world.value(database, rows).await } else { String::new() });
    }
    all
}

fn unfinished(world: &TestWorld) -> Option<String> {
    world.json(0, &["status"])["unfinished_run"].as_str().map(str::to_owned)
}

fn any_run(world: &TestWorld) -> bool {
    world.objects().iter().any(|it| it.contains("/journal/"))
}

/// The events of the newest run in the store.
fn events(world: &TestWorld) -> Vec<String> {
    let keys: Vec<String> = world.objects().into_iter().filter(|it| it.contains("/journal/")).collect();
    let event = |key: &String| {
        let text = std::fs::read(world.store().join(key)).expect("it is there");
        let entry: Value = serde_json::from_slice(&text).expect("an entry is JSON");
        entry["fact"]["event"].as_str().expect("it has an event").to_owned()
    };
    keys.iter().map(event).collect()
}

/// (a): the run is unfinished exactly if its journal has no end, and what is applied is what the ledgers say.
async fn status_is_right(world: &TestWorld, case: &str) -> Option<String> {
    let status = world.json(0, &["status"]);
    let run = status["unfinished_run"].as_str().map(str::to_owned);
    let open = events(world).last().is_some_and(|it| it != "end");
    assert_eq!(run.is_some(), open, "{case}: {status:#}");
    assert_eq!(status["unfinished"].is_object(), open, "{case}: {status:#}");
    for it in status["databases"].as_array().expect("a list") {
        let name = it["name"].as_str().expect("a name");
        let has = world.value(name, "select to_regclass('migrate.ledger') is not null").await == "true";
        let applied = "select count(*) from migrate.ledger where state = 'applied'";
        let applied = if has { world.value(name, applied).await } else { "0".into() };
        assert_eq!(it["applied"].to_string(), applied, "{case}: {status:#}");
    }
    run
}

/// No side database, no session, no run that needs somebody.
async fn nothing_is_open(world: &TestWorld, run: Option<&str>, case: &str) {
    assert!(events(world).last().is_none_or(|it| it == "end"), "{case}: the journal is open");
    for database in ["a", "b"] {
        let side =
            format!("select count(*) from pg_database where datname like '{}\\_\\_restore%'", world.dbname(database));
        assert_eq!(world.ask(&side).await, "0", "{case}: a side database is left of {database}");
    }
    if let Some(run) = run {
        let sessions = format!("select count(*) from pg_stat_activity where application_name like 'migrate {run}%'");
        until("no session is left", async || world.ask(&sessions).await == "0").await;
    }
}

/// Whoever heard that a database is cut off has heard that it is back.
fn nobody_waits(world: &TestWorld, case: &str) {
    let heard = std::fs::read_to_string(world.path().join("heard")).unwrap_or_default();
    assert_ne!(heard.lines().last(), Some("freeze"), "{case}: {heard}");
}

/// A world that came out right is over.
async fn dropped(world: &TestWorld) {
    let mut server = connect(&harness::cluster().url("postgres", "postgres")).await;
    for database in ["a", "b"] {
        harness::drop_all_of(&mut server, &world.dbname(database)).await;
    }
}

/// Every point of a scenario, several side by side.
async fn matrix(scenario: Scenario, at_least: usize) {
    let begun = Instant::now();
    let templates = scenario.templates().await;
    let undisturbed = scenario.undisturbed(&templates).await;
    let (scenario, templates, undisturbed) = (Arc::new(scenario), Arc::new(templates), Arc::new(undisturbed));
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut tried = JoinSet::new();
    for point in undisturbed.points.clone() {
        let (scenario, templates, undisturbed) = (scenario.clone(), templates.clone(), undisturbed.clone());
        let slots = slots.clone();
        let here = tokio::runtime::Handle::current();
        tried.spawn_blocking(move || {
            here.block_on(async {
                let _slot = slots.acquire().await.expect("it is never closed");
                scenario.tried(&templates, &undisturbed, &point).await
            })
        });
    }
    let mut outcomes: BTreeMap<Outcomes, usize> = BTreeMap::new();
    let mut failed = Vec::new();
    while let Some(result) = tried.join_next().await {
        match result {
            Ok(outcome) => *outcomes.entry(outcome).or_default() += 1,
            Err(died) => {
                let panic = died.into_panic();
                let text = panic.downcast_ref::<String>().cloned();
                failed.push(text.unwrap_or_else(|| "a panic without a text".into()));
            }
        }
    }
    let count = undisturbed.points.len();
    let mut text =
        format!("crash matrix, {}: {count} points in {:.0} s\n", scenario.name, begun.elapsed().as_secs_f64());
    for (it, points) in &outcomes {
        text += &format!("  {points} points: resumed with {}, rolled back with {}\n", it.resumed, it.back);
    }
    // Past what keeps the output of tests that pass: the figures belong to what CI prints.
    std::io::stderr().write_all(text.as_bytes()).expect("somebody listens");
    assert!(failed.is_empty(), "{} of {count} points:\n{}", failed.len(), failed.join("\n\n"));
    assert!(count >= at_least, "{count} points are fewer than there were: {:?}", undisturbed.points);
}

const ONE_AT_A_TIME: &str = "[run]\nparallel = 1\njobs = 1\n";

fn every_kind_of_ours() -> Scenario {
    let plan = sql_step("a")
        + "[[steps]]\nname = \"history\"\ndatabase = \"b\"\nkind = \"refinery\"\ndir = \"migrations/b\"\n\
           [[steps]]\nname = \"publish\"\ndatabase = \"b\"\nkind = \"copy\"\nafter = [\"a-schema\", \"history\"]\nfrom = { database \
           = \"a\", table = \"t\" }\nto = { table = \"t\" }\nkey = [\"id\"]\n\
           [[steps]]\nname = \"work\"\ndatabase = \"b\"\nkind = \"command\"\nafter = [\"publish\"]\nargv = [\"sh\", \"-c\", \"psql -Xqc \
           'insert into done values (1)' \\\"$URL\\\"\"]\nenv = { URL = \"${url}\" }\nprobe = \"select exists (select from done)\"\n\
           [[checks]]\nname = \"in-sync\"\nkind = \"sync\"\nsource = { database = \"a\", table = \"t\" }\ntarget = { database = \"b\", \
           table = \"t\" }\nkey = [\"id\"]\n"
        + ONE_AT_A_TIME;
    Scenario {
        name: "forward",
        seeds: [SEED, "create table t (id int primary key, v text); create table done (id int primary key)"],
        plan,
        files: vec![
            ("migrations/a/001_one.sql", "create table one (id int);\n-- migrate:down\ndrop table one;\n".into()),
            (
                "migrations/a/002_index.sql",
                "-- migrate:no-transaction\nalter table t add w int;\ncreate index concurrently i on t (w);\n".into(),
            ),
            ("migrations/b/V1__one.sql", "create table one (id int);\n".into()),
            ("migrations/b/V2__two.sql", "create table two (id int);\nalter table t add w int;\n".into()),
        ],
        first: &[],
        command: &["apply", "--yes"],
        exit: 0,
        from: "",
        to: "",
        asked: INDEX,
        folders: |_| {},
    }
}

/// Whether an index is there that is made without a transaction.
const INDEX: (&str, &str) = ("a-schema/002_index", "select to_regclass('i') is not null");

const SEED: &str =
    "create table t (id int primary key, v text); insert into t select n, 'row ' || n from generate_series(1, 50) n";

/// Two databases with a table each, and a way back for everything.
fn two_ways(name: &'static str) -> Scenario {
    let file = |table: &str| {
        format!(
            "create table {table} (id int);\ninsert into {table} values (1);\n-- migrate:down\ndrop table {table};\n"
        )
    };
    let bare = "-- migrate:no-transaction\ncreate index concurrently i on t (v);\n-- migrate:down\n-- migrate:no-transaction\ndrop index concurrently i;\n";
    Scenario {
        name,
        seeds: [SEED, SEED],
        plan: sql_step("a") + &sql_step("b") + "after = [\"a-schema\"]\n" + ONE_AT_A_TIME,
        files: vec![
            ("migrations/a/001_one.sql", file("one")),
            ("migrations/a/002_index.sql", bare.into()),
            ("migrations/b/001_one.sql", file("one")),
        ],
        first: &[&["apply", "--yes"]],
        command: &["rollback", "--yes"],
        exit: 0,
        from: "",
        to: "",
        asked: INDEX,
        folders: |_| {},
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn on_the_way_forward() {
    matrix(every_kind_of_ours(), 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn in_a_release_that_fails_and_goes_back() {
    let mut scenario = two_ways("failing");
    scenario.files.push(("migrations/b/002_bad.sql", "select nonsense;\n".into()));
    let command = &["apply", "--yes"];
    let (from, to) = ("nonsense", "CREATE DATABASE");
    matrix(Scenario { first: &[], command, exit: 3, from, to, ..scenario }, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn on_the_way_back_by_snapshot() {
    matrix(two_ways("back"), 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn on_the_way_back_by_down_scripts() {
    matrix(Scenario { command: &["rollback", "--via", "down", "--yes"], ..two_ways("down") }, 15).await;
}

/// Both databases with a standby, and hooks that hear when they are cut off.
fn with_standbys(name: &'static str) -> Scenario {
    let (standbys, hook) = (
        "[databases.a]\nstandby = true\n[databases.b]\nstandby = true\n",
        "argv = [\"sh\", \"-c\", \"echo $MIGRATE_ON >> heard\"]",
    );
    let scenario = two_ways(name);
    let hooks = ["freeze", "unfreeze"].map(|on| format!("[[hooks]]\non = \"{on}\"\n{hook}\n")).concat();
    Scenario { plan: scenario.plan.clone() + standbys + &hooks, ..scenario }
}

/// A Python module and Alembic's revisions. What came before the first of them is tried with other kinds.
#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn programs_on_the_way_forward() {
    let (modules, revisions) = (python_step("a", &["made"], ""), alembic_step("b", "after = [\"a-schema\"]\n"));
    let folders = |world: &TestWorld| {
        python_library(world);
        module(world, "made", "create table made (id int)");
        alembic_folder(world);
        two_way(world, "a1", None, "create table first (id int)", "drop table first");
        two_way(world, "b2", Some("a1"), "create table second (id int)", "drop table second");
    };
    let scenario = Scenario {
        name: "programs",
        seeds: [SEED, SEED],
        plan: modules + &revisions + ONE_AT_A_TIME,
        files: Vec::new(),
        folders,
        first: &[],
        command: &["apply", "--yes"],
        exit: 0,
        from: "/journal/000006",
        to: "",
        asked: ("a-schema/made", "select to_regclass('made') is not null"),
    };
    matrix(scenario, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn with_standbys_on_the_way_forward() {
    let command = &["apply", "--yes", "--no-snapshot", "--reason", "standbys are enough"];
    matrix(Scenario { first: &[], command, ..with_standbys("warm") }, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 6)]
async fn on_the_way_back_by_standby() {
    matrix(with_standbys("warm_back"), 15).await;
}
