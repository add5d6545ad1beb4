//! Random plans and random deaths, from a seed that is printed: of `migrate`, of the programs that it starts, of single sessions, of
//! the whole server, of the store. After each round every database is as before, or every one as after. `scripts/soak` runs more rounds.

use std::collections::BTreeMap;
use std::fs;
use std::process::Child;

use migrate::crash::AT;
use migrate::outside::cluster::{Cluster, ClusterOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fingerprint::Fingerprint;
use crate::gcs_server::{Action, BUCKET, Fault, GcsServer};
use crate::harness::{OWNER, connect, execute};
use crate::programs::python_step;
use crate::world::{Ran, TestWorld, finish, sql_step, until};

/// What `scripts/test` runs.
const ROUNDS: u64 = 20;
const SEED: u64 = 7;
const DATABASES: [&str; 2] = ["a", "b"];

/// The numbers of a seed: splitmix64.
struct Dice(u64);

impl Dice {
    /// Below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let it = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (it ^ (it >> 31)) % limit
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).expect("it is small")]
    }
}

/// How it dies.
#[derive(Debug, Clone, Copy)]
enum Death {
    /// SIGKILL, once the journal has so many entries.
    Killed(usize),
    /// By itself, at a crash point.
    Aborted(&'static str, u64),
    /// One of the programs that it started, if it starts any.
    Program,
    /// A session of the run, once the journal has so many entries.
    Session(usize),
    /// The server, without a checkpoint, once the journal has so many entries.
    Server(usize),
    /// The store, once the journal has so many entries: it refuses everything, until the run is over.
    Store(usize),
}

fn death(dice: &mut Dice) -> Death {
    let entries = usize::try_from(1 + dice.below(14)).expect("it is small");
    match dice.below(7) {
        0 => Death::Killed(entries),
        1 | 2 => {
            let points =
                ["put before", "put after", "message before", "message after", "change before", "change after"];
            Death::Aborted(dice.of(&points), 1 + dice.below(20))
        }
        3 => Death::Program,
        4 => Death::Session(entries),
        5 => Death::Store(entries),
        _ => Death::Server(entries),
    }
}

/// A plan, its files, and whether it can succeed.
struct Release {
    plan: String,
    files: Vec<(String, String)>,
    good: bool,
    /// Whether a program takes part, which has no way back of its own.
    program: bool,
}

/// What a program does; `probe` tells whether it did.
const MADE: &str = "create table if not exists made (id int)";

/// A step that runs a program on database `b`, if the dice say so: a command with a probe, or a Python module, of which nobody knows
/// what became if it is cut off.
fn program(dice: &mut Dice, files: &mut Vec<(String, String)>) -> String {
    match dice.below(6) {
        0 => format!(
            "[[steps]]\nname = \"work\"\ndatabase = \"b\"\nkind = \"command\"\nargv = [\"psql\", \"-X\", \"-q\", \"${{url}}\", \
             \"-c\", \"{MADE}\"]\nrun = \"once\"\nprobe = \"select to_regclass('made') is not null\"\nafter = [\"b-schema\"]\n"
        ),
        1 => {
            let module = format!(
                "import os, psycopg\n\n\ndef migrate():\n    with psycopg.connect(os.environ['DATABASE_URL'], autocommit=True) as it:\n        \
                 it.execute('{MADE}')\n"
            );
            files.push(("app/made.py".into(), module));
            python_step("b", &["made"], "after = [\"b-schema\"]\n")
                .replace("\"b-schema\"\ndatabase", "\"work\"\ndatabase")
        }
        _ => String::new(),
    }
}

fn release(dice: &mut Dice) -> Release {
    let policy = dice.of(&["rollback", "halt"]);
    let after = if dice.one_in(2) { "after = [\"a-schema\"]\n" } else { "" };
    let plan = sql_step("a")
        + &sql_step("b")
        + after
        + &format!("[run]\non_failure = \"{policy}\"\nparallel = {}\n", 1 + dice.below(2));
    let mut files = Vec::new();
    let program = program(dice, &mut files);
    let standby = if dice.one_in(4) { "[databases.a]\nstandby = true\n" } else { "" };
    let plan = program.clone() + &plan + standby;
    for database in DATABASES {
        for number in 1..=1 + dice.below(3) {
            files.push((format!("migrations/{database}/{number:03}_m.sql"), migration(dice, number)));
        }
    }
    let good = !dice.one_in(4);
    if !good {
        files.push(("migrations/b/009_bad.sql".into(), "select nonsense;\n".into()));
    }
    Release { plan, files, good, program: !program.is_empty() }
}

fn migration(dice: &mut Dice, number: u64) -> String {
    match dice.below(3) {
        0 => format!(
            "create table m{number} (id int);\ninsert into m{number} select generate_series(1, 50);\n-- migrate:down\ndrop table m{number};\n"
        ),
        1 => format!(
            "alter table t add c{number} int default {number};\n-- migrate:down\nalter table t drop c{number};\n"
        ),
        _ => format!(
            "-- migrate:no-transaction\ncreate index concurrently i{number} on t (v);\n-- migrate:down\n-- migrate:no-transaction\ndrop index \
             concurrently i{number};\n"
        ),
    }
}

struct Soak {
    cluster: Cluster,
    bucket: GcsServer,
    dice: Dice,
}

/// Where a round keeps its snapshots and journals.
enum Place {
    Folder,
    /// Below this in the bucket.
    Bucket(String),
}

impl Place {
    /// Entries in the journals that it holds.
    fn written(&self, world: &TestWorld, bucket: &GcsServer) -> usize {
        match self {
            Self::Folder => world.objects().iter().filter(|it| it.contains("/journal/")).count(),
            Self::Bucket(below) => {
                let all = bucket.objects(BUCKET);
                all.iter().filter(|(key, _)| key.starts_with(below) && key.contains("/journal/")).count()
            }
        }
    }

    /// Whatever is asked of it from now on fails.
    fn fails(&self, world: &TestWorld, bucket: &GcsServer) {
        match self {
            Self::Folder if world.store().is_dir() => {
                fs::rename(world.store(), world.path().join("away")).expect("ours");
                fs::write(world.store(), "").expect("ours");
            }
            Self::Folder => {}
            Self::Bucket(below) => bucket.fault(Fault::times(usize::MAX, Action::Status(403), below)),
        }
    }

    /// It is there again, with everything that it had.
    fn recovers(&self, world: &TestWorld, bucket: &GcsServer) {
        bucket.clear_faults();
        let away = world.path().join("away");
        if away.is_dir() {
            fs::remove_file(world.store()).expect("ours");
            fs::rename(away, world.store()).expect("ours");
        }
    }
}

impl Soak {
    fn new(seed: u64) -> Self {
        // A server that is ended without a checkpoint must have what it said to be committed.
        let settings = vec![("synchronous_commit".to_owned(), "on".to_owned())];
        let options = ClusterOptions { settings, ..ClusterOptions::default() };
        let cluster = Cluster::start(options).expect("the tests need a PostgreSQL server");
        Self { cluster, bucket: GcsServer::start(), dice: Dice(seed) }
    }

    /// A folder, or a bucket that now and then does not do what it is asked the first time.
    fn place(&mut self, world: &mut TestWorld, round: u64) -> Place {
        if !self.dice.one_in(3) {
            return Place::Folder;
        }
        let below = format!("soak{round}/");
        for (name, value) in self.bucket.env(BUCKET) {
            world.set(&name, value);
        }
        world.set("MIGRATE_STORE", format!("gs://{BUCKET}/soak{round}"));
        for _ in 0..self.dice.below(4) {
            let action =
                self.dice.of(&[Action::Status(503), Action::StatusAfter(503), Action::Reset, Action::CloseAfter]);
            let skip = usize::try_from(self.dice.below(20)).expect("it is small");
            self.bucket.fault(Fault { skip, ..Fault::once(action, &below) });
        }
        Place::Bucket(below)
    }

    async fn world(&self, release: &Release, name: &str) -> TestWorld {
        let mut server = connect(&self.cluster.url("postgres", "postgres")).await;
        let mut urls = BTreeMap::new();
        for database in DATABASES {
            execute(&mut server, format!("CREATE DATABASE {name}_{database} OWNER {OWNER} TEMPLATE template0")).await;
            let url = self.cluster.url(OWNER, &format!("{name}_{database}"));
            let seed = "create table t (id int primary key, v text); insert into t select n, 'row ' || n from generate_series(1, 100) n";
            execute(&mut connect(&url).await, seed).await;
            urls.insert(database.to_owned(), url);
        }
        let world = TestWorld::over(urls);
        world.plan(&release.plan);
        for (path, text) in &release.files {
            world.file(path, text);
        }
        world
    }

    async fn round(&mut self, round: u64) -> String {
        let release = release(&mut self.dice);
        let mut world = self.world(&release, &format!("soak{round}")).await;
        let place = self.place(&mut world, round);
        let before = told(&world).await;
        let command: &[&str] = match self.dice.below(4) {
            0 if release.good && !release.program => &["rollback", "--yes", "--via", "down"],
            1 if release.good => &["rollback", "--yes"],
            _ => &["apply", "--yes"],
        };
        if command[0] == "rollback" {
            world.run(&["apply", "--yes"]).expect(0);
        }
        let death = death(&mut self.dice);
        let store = if matches!(place, Place::Folder) { "a folder" } else { "a bucket" };
        let case = format!("round {round}, {} in {death:?}, with {store}", command.join(" "));
        let ran = self.dies(&mut world, &place, command, death).await;
        place.recovers(&world, &self.bucket);
        let (code, said) = (ran.code, format!("{case}\n{}", ran.stderr));
        let ways = self.settled(&world, &case).await;
        let found = told(&world).await;
        let state = if same(&before, &found) {
            "before"
        } else {
            assert!(release.good, "{said}\n{ways:?}: a release that cannot succeed is neither back nor forward");
            self.is_after(&release, &world, &found, &format!("{said}\n{ways:?}")).await;
            "after"
        };
        format!("{case}: ended with {code}, then {ways:?}: all as {state}")
    }

    /// What an undisturbed release comes to.
    async fn is_after(&self, release: &Release, world: &TestWorld, found: &BTreeMap<String, Fingerprint>, case: &str) {
        let name = format!("{}_calm", world.dbname("a").trim_end_matches("_a"));
        let calm = self.world(release, &name).await;
        calm.run(&["apply", "--yes"]).expect(0);
        let after = told(&calm).await;
        for (name, it) in &after {
            let diff = it.diff(&found[name]);
            assert!(diff.is_empty(), "{case}: {name} is neither as before nor as after:\n{}", diff.join("\n"));
        }
    }

    async fn dies(&self, world: &mut TestWorld, place: &Place, command: &[&str], death: Death) -> Ran {
        if let Death::Aborted(point, number) = death {
            world.set(AT, format!("{point}#{number}"));
        }
        let mut child = world.start(command);
        world.unset(AT);
        let entries = match death {
            Death::Killed(entries) | Death::Session(entries) | Death::Server(entries) | Death::Store(entries) => {
                entries
            }
            Death::Aborted(..) | Death::Program => 0,
        };
        until("the journal is that long, or the run is over", async || {
            over(&mut child) || place.written(world, &self.bucket) >= entries
        })
        .await;
        match death {
            Death::Killed(_) if !over(&mut child) => kill(pid(&child), Signal::SIGKILL).expect("our child"),
            Death::Program => {
                until("a program runs, or the run is over", async || over(&mut child) || ended_a_program(&child)).await;
            }
            Death::Session(_) => {
                let end = "select count(pg_terminate_backend(pid)) from (select pid from pg_stat_activity where application_name like \
                           'migrate 2%' order by random() limit 1) it";
                execute(&mut connect(&self.cluster.url("postgres", "postgres")).await, end).await;
            }
            Death::Server(_) => {
                self.cluster.stop_immediate().expect("it runs");
                self.cluster.start_again().expect("it can be started");
            }
            Death::Store(_) => place.fails(world, &self.bucket),
            Death::Killed(_) | Death::Aborted(..) => {}
        }
        finish(child)
    }

    /// Out of it, by `resume` or `rollback` as the dice fall; if that asks for somebody, back by snapshot.
    async fn settled(&mut self, world: &TestWorld, case: &str) -> Vec<(&'static str, i32)> {
        let mut ways = Vec::new();
        for attempt in 0.. {
            let status = world.json(0, &["status"]);
            if status["unfinished_run"].is_null() {
                return ways;
            }
            assert!(attempt < 4, "{case}: {ways:?} leads nowhere: {status:#}");
            let way = if attempt == 3 { "rollback" } else { self.dice.of(&["resume", "rollback"]) };
            let ran = world.run(&[way, "--yes"]);
            assert!([0, 1, 3, 4].contains(&ran.code), "{case}: {way} ended with {}\n{}", ran.code, ran.stderr);
            ways.push((way, ran.code));
        }
        ways
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().expect("a process id"))
}

fn over(child: &mut Child) -> bool {
    child.try_wait().expect("our child").is_some()
}

/// Kills one of the programs of the process, if there is one.
fn ended_a_program(child: &Child) -> bool {
    let processes = fs::read_dir("/proc").expect("Linux").flatten();
    let of_ours = processes.filter_map(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
        let parent: u32 = rest.split(' ').nth(1)?.parse().ok()?;
        let program = parent == child.id() && ["pg_dump", "pg_restore", "psql", "python", "python3"].contains(&name);
        program.then(|| entry.file_name().to_str()?.parse::<i32>().ok()).flatten()
    });
    of_ours.take(1).any(|program| kill(Pid::from_raw(program), Signal::SIGKILL).is_ok())
}

/// The fingerprints, without rows that hold times.
async fn told(world: &TestWorld) -> BTreeMap<String, Fingerprint> {
    let all = world.fingerprints().await;
    all.into_iter().map(|(name, it)| (name, it.without_rows_of(&["migrate.ledger"]))).collect()
}

fn same(one: &BTreeMap<String, Fingerprint>, other: &BTreeMap<String, Fingerprint>) -> bool {
    one.iter().all(|(name, it)| it.diff(&other[name]).is_empty())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_dies_every_database_is_before_or_after() {
    let (rounds, seed) = (number("MIGRATE_SOAK_ROUNDS").unwrap_or(ROUNDS), number("MIGRATE_SOAK_SEED").unwrap_or(SEED));
    println!("soak: {rounds} rounds from seed {seed}");
    let mut soak = Soak::new(seed);
    let mut server = connect(&soak.cluster.url("postgres", "postgres")).await;
    execute(&mut server, format!("CREATE ROLE {OWNER} LOGIN CREATEDB")).await;
    drop(server);
    for round in 1..=rounds {
        println!("  {}", soak.round(round).await);
        let mut server = connect(&soak.cluster.url("postgres", "postgres")).await;
        let names: Vec<String> = sqlx::query_scalar("select datname from pg_database where datname like 'soak%'")
            .fetch_all(&mut server)
            .await
            .expect("names");
        for name in names {
            execute(&mut server, format!("DROP DATABASE \"{name}\" WITH (FORCE)")).await;
        }
    }
}
