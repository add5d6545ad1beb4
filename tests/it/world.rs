//! A project folder, databases of its own and a store, in which a test types commands as a user would.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sqlx::PgConnection;
use tempfile::TempDir;

use crate::fingerprint::{Fingerprint, fingerprint};
use crate::harness;

/// Where a test works. Its environment holds nothing but what it puts there.
pub(crate) struct TestWorld {
    dir: TempDir,
    /// By the plan's names.
    urls: BTreeMap<String, String>,
    env: BTreeMap<String, String>,
    /// Databases that go with it.
    own: Vec<String>,
}

impl Drop for TestWorld {
    fn drop(&mut self) {
        // What a test failed of can be looked at while the others run.
        if !std::thread::panicking() {
            harness::discard(std::mem::take(&mut self.own));
        }
    }
}

/// What a command came to.
#[must_use = "look at what the command said"]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl TestWorld {
    /// New databases for the given names of the plan, and a `file://` store.
    pub(crate) async fn new(hint: &str, databases: &[&str]) -> Self {
        let mut urls = BTreeMap::new();
        for name in databases {
            urls.insert((*name).to_owned(), harness::fresh_database(&format!("{hint}_{name}")).await);
        }
        let mut world = Self::over(urls);
        world.own = databases.iter().map(|name| world.dbname(name)).collect();
        world
    }

    /// Databases that exist, by the names that the plan has for them, and a `file://` store.
    pub(crate) fn over(urls: BTreeMap<String, String>) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut env: BTreeMap<String, String> = urls.iter().map(|(name, url)| (variable(name), url.clone())).collect();
        env.insert("MIGRATE_STORE".into(), format!("file://{}", dir.path().join("store").display()));
        for name in ["PATH", "HOME"] {
            env.extend(std::env::var(name).ok().map(|value| (name.to_owned(), value)));
        }
        Self { dir, urls, env, own: Vec::new() }
    }

    /// The project folder.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The folder of the `file://` store.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Sets a variable for every command from now on.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.env.insert(name.to_owned(), value.into());
    }

    /// Removes a variable.
    pub(crate) fn unset(&mut self, name: &str) {
        self.env.remove(name);
    }

    /// Writes a file of the project.
    pub(crate) fn file(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    /// Removes a file of the project.
    pub(crate) fn remove(&self, path: &str) {
        fs::remove_file(self.dir.path().join(path)).expect("the file was there");
    }

    /// Writes the plan: store and target `local` with all databases, then `rest` (steps, checks, `[run]`).
    pub(crate) fn plan(&self, rest: &str) {
        let databases: String =
            self.urls.keys().map(|name| format!("{name} = \"${{{}}}\"\n", variable(name))).collect();
        let text = format!(
            "version = 1\nname = \"test\"\ndefault_target = \"local\"\n[store]\nurl = \"${{MIGRATE_STORE}}\"\n\
             [targets.local.databases]\n{databases}\n{rest}"
        );
        self.file("plans/production.toml", &text);
    }

    /// A command that is not started yet.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_migrate"));
        command.args(args).current_dir(self.dir.path()).env_clear().envs(&self.env).stdin(Stdio::null());
        command
    }

    /// Runs `migrate` to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.command(args).output().expect("the binary was built").into()
    }

    /// Runs `migrate --json`, wants the exit code, and gives the document.
    #[track_caller]
    pub(crate) fn json(&self, code: i32, args: &[&str]) -> Value {
        self.run(&[args, &["--json"]].concat()).expect(code).document()
    }

    /// Starts `migrate` and does not wait. Its output goes to pipes.
    pub(crate) fn start(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary was built")
    }

    /// Leads a name of the plan somewhere else.
    pub(crate) fn lead(&mut self, database: &str, url: impl Into<String>) {
        self.env.insert(variable(database), url.into());
    }

    /// The plan, with one `sql` step for each database, and `rest`.
    pub(crate) fn sql_plan(&self, rest: &str) {
        let steps: String = self.urls.keys().map(|name| sql_step(name)).collect();
        self.plan(&format!("{steps}{rest}"));
    }

    /// Every object in the store, by its key.
    pub(crate) fn objects(&self) -> Vec<String> {
        let mut keys = Vec::new();
        files_below(&self.store(), &self.store(), &mut keys);
        keys.sort();
        keys
    }

    /// The path of the only object whose key ends so.
    #[track_caller]
    pub(crate) fn object(&self, ending: &str) -> PathBuf {
        let keys: Vec<String> = self.objects().into_iter().filter(|key| key.ends_with(ending)).collect();
        let [key] = keys.as_slice() else { panic!("{ending}: {keys:?}") };
        self.store().join(key)
    }

    /// Closes the gate of a database: a migration that says [`GATE`] waits there.
    pub(crate) async fn gate(&self, database: &str) -> Gate {
        let mut session = self.connect(database).await;
        harness::execute(&mut session, "select pg_advisory_lock(42)").await;
        Gate { session, watch: self.connect(database).await }
    }

    /// The URL of a database.
    pub(crate) fn url(&self, database: &str) -> &str {
        &self.urls[database]
    }

    /// The name of a database on the server.
    pub(crate) fn dbname(&self, database: &str) -> String {
        let url = self.url(database);
        url.trim_start_matches("postgresql:///").split('?').next().expect("a name").to_owned()
    }

    /// A session as the owner.
    pub(crate) async fn connect(&self, database: &str) -> PgConnection {
        harness::connect(self.url(database)).await
    }

    /// Runs SQL as the owner.
    pub(crate) async fn sql(&self, database: &str, sql: &str) {
        harness::execute(&mut self.connect(database).await, sql).await;
    }

    /// One value, as text.
    pub(crate) async fn value(&self, database: &str, sql: &str) -> String {
        let text = format!("select ({sql})::text");
        let value: Option<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(text))
            .fetch_one(&mut self.connect(database).await)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        value.unwrap_or_else(|| "NULL".into())
    }

    /// One value, as text, from a superuser's session in the maintenance database.
    pub(crate) async fn ask(&self, sql: &str) -> String {
        let mut session = harness::connect(&harness::cluster().url("postgres", "postgres")).await;
        let value = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("select ({sql})::text")));
        let value: Option<String> =
            value.fetch_one(&mut session).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        value.unwrap_or_else(|| "NULL".into())
    }

    /// Which database has the name now.
    pub(crate) async fn oid(&self, database: &str) -> String {
        self.ask(&format!("select oid from pg_database where datname = '{}'", self.dbname(database))).await
    }

    /// Runs SQL as a superuser.
    pub(crate) async fn sql_as_superuser(&self, database: &str, sql: &str) {
        harness::execute(&mut harness::connect(&harness::as_superuser(self.url(database))).await, sql).await;
    }

    /// The fingerprints of all databases, by the plan's names.
    pub(crate) async fn fingerprints(&self) -> BTreeMap<String, Fingerprint> {
        let mut all = BTreeMap::new();
        for (name, url) in &self.urls {
            all.insert(name.clone(), fingerprint(url).await);
        }
        all
    }
}

/// A statement that waits as long as a test holds the [`Gate`] of the database.
pub(crate) const GATE: &str = "select pg_advisory_xact_lock(42);\n";

/// Where a test holds migrations up.
pub(crate) struct Gate {
    session: PgConnection,
    watch: PgConnection,
}

impl Gate {
    /// Somebody waits at the gate.
    pub(crate) async fn reached(&mut self) {
        let waits = "select exists (select from pg_locks where locktype = 'advisory' and not granted and database = \
                     (select oid from pg_database where datname = current_database()))";
        until("somebody waits at the gate", async || {
            sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut self.watch).await.expect("a server that answers")
        })
        .await;
    }

    /// Lets everybody pass.
    pub(crate) async fn open(mut self) {
        harness::execute(&mut self.session, "select pg_advisory_unlock(42)").await;
    }
}

/// Polls until something is so.
#[track_caller]
pub(crate) fn until(what: &str, mut so: impl AsyncFnMut() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let begun = Instant::now();
        while !so().await {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{caller}: after a minute it is still not so that {what}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Sends a signal.
pub(crate) fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("a process number");
    kill(Pid::from_raw(pid), signal).expect("it runs");
}

/// Waits for the end of what [`TestWorld::start`] began.
pub(crate) fn finish(child: Child) -> Ran {
    child.wait_with_output().expect("its output can be read").into()
}

/// One step of kind `sql`, with the folder `migrations/DATABASE`. It waits for locks as long as a [`Gate`] needs.
pub(crate) fn sql_step(database: &str) -> String {
    format!(
        "[[steps]]\nname = \"{database}-schema\"\ndatabase = \"{database}\"\nkind = \"sql\"\n\
         dir = \"migrations/{database}\"\nlock_timeout = \"60s\"\n"
    )
}

fn files_below(root: &Path, folder: &Path, keys: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("a folder that can be read").path();
        if path.is_dir() {
            files_below(root, &path, keys);
        } else {
            keys.push(path.strip_prefix(root).expect("below it").display().to_string());
        }
    }
}

/// The variable that holds the URL of a database.
pub(crate) fn variable(database: &str) -> String {
    format!("TEST_{}_URL", database.to_uppercase())
}

/// Every database is the same.
#[track_caller]
pub(crate) fn assert_same(before: &BTreeMap<String, Fingerprint>, after: &BTreeMap<String, Fingerprint>) {
    for (name, fingerprint) in before {
        let diff = fingerprint.diff(&after[name]);
        assert!(diff.is_empty(), "{name} differs:\n{}", diff.join("\n"));
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("migrate prints UTF-8");
        // A process that was killed has no exit code; -1 is none of migrate's.
        let code = output.status.code().unwrap_or(-1);
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Ran {
    /// Wants an exit code.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }

    /// Wants a text on standard error.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "{text:?} is not in\n{}", self.stderr);
        self
    }

    /// The JSON document on standard output.
    #[track_caller]
    pub(crate) fn document(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {}", self.stdout))
    }

    /// Wants the last line on standard error.
    #[track_caller]
    pub(crate) fn ends(&self, sentence: &str) -> &Self {
        assert_eq!(self.stderr.trim_end().lines().last(), Some(sentence), "in\n{}", self.stderr);
        self
    }
}
