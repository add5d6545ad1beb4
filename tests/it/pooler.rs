//! A PgBouncer between `migrate` and the server, in each of its modes: it is seen, named, and refused before anything is written.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::{Child, Command, Stdio};

use nix::unistd::{Uid, User};
use tempfile::TempDir;

use crate::harness::{OWNER, cluster, connect, execute};
use crate::rollback::{apply, release};
use crate::world::{TestWorld, assert_same, until};

/// The port in the name of its socket; there is no other.
const PORT: u16 = 6432;

struct Pooler {
    child: Child,
    folder: TempDir,
}

impl Pooler {
    /// In front of the tests' server. `lenient`: it takes sessions that begin with settings, and forgets the settings.
    async fn start(mode: &str, lenient: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().display();
        let ignored = if lenient { "extra_float_digits,options" } else { "extra_float_digits" };
        let text = format!(
            "[databases]\n* = host={} port=5432\n[pgbouncer]\nlisten_port = {PORT}\nunix_socket_dir = {path}\nauth_type = trust\n\
             auth_file = {path}/users\npool_mode = {mode}\nignore_startup_parameters = {ignored}\nlogfile = {path}/log\n",
            cluster().socket_dir().display()
        );
        fs::write(folder.path().join("ini"), text).expect("a file");
        fs::write(folder.path().join("users"), format!("\"{OWNER}\" \"\"\n")).expect("a file");
        let mut command = Command::new(program());
        command.arg("-q").arg(folder.path().join("ini")).stdout(Stdio::null()).stderr(Stdio::null());
        if Uid::effective().is_root() {
            // It does not run as root.
            let user =
                ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten()).expect("a user");
            chown(folder.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("ours");
            command.args(["-u", &user.name]);
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("ours");
        let it = Self { child: command.spawn().expect("scripts/install installs pgbouncer"), folder };
        let socket = it.folder.path().join(format!(".s.PGSQL.{PORT}"));
        until("the pooler listens", || async { std::os::unix::net::UnixStream::connect(&socket).is_ok() }).await;
        it
    }

    /// The way to a database through it.
    fn url(&self, direct: &str) -> String {
        let (begin, _) = direct.split_once('?').expect("a URL of the tests");
        format!("{begin}?host={}&port={PORT}&user={OWNER}", self.folder.path().display())
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian keeps it where a user's PATH does not lead.
fn program() -> &'static str {
    if fs::exists("/usr/sbin/pgbouncer").unwrap_or_default() { "/usr/sbin/pgbouncer" } else { "pgbouncer" }
}

/// Leads the world's database through the pooler.
fn led(world: &mut TestWorld, pooler: &Pooler) -> String {
    let direct = world.url("rag").to_owned();
    world.lead("rag", pooler.url(&direct));
    direct
}

const SAYS: [&str; 2] = ["a connection pooler answers, and not the server itself", "the server's own host and port"];

/// Every command that works on a database refuses, names the pooler, and leaves nothing behind: no lock, no entry, no change.
async fn refuses(hint: &str, mode: &str, lenient: bool) {
    let mut world = release(hint, &["rag"]).await;
    let pooler = Pooler::start(mode, lenient).await;
    let before = world.fingerprints().await;
    let direct = led(&mut world, &pooler);
    for command in [&["apply", "--yes"][..], &["snapshot", "take"]] {
        let ran = world.run(command);
        ran.expect(1).says(SAYS[0]).says(SAYS[1]).ends("No database was changed.");
    }
    let told = world.run(&["doctor"]);
    assert!(SAYS.iter().all(|it| told.expect(1).stdout.contains(it)), "{}", told.stdout);
    assert_eq!(world.json(0, &["status"])["databases"][0]["reachable"], false);
    assert!(!world.objects().iter().any(|key| key.starts_with("runs/")), "{:?}", world.objects());
    assert_same(&before, &world.fingerprints().await);

    // No session of the pooler has kept a lock.
    world.lead("rag", direct.clone());
    let run = apply(&world);
    let after = world.fingerprints().await;
    led(&mut world, &pooler);
    let ran = world.run(&["rollback", "--yes"]);
    ran.expect(4).says(SAYS[0]).says(SAYS[1]).says("NOT rolled back: rag");
    assert_same(&after, &world.fingerprints().await);
    world.lead("rag", direct.clone());
    world.run(&["rollback", &run, "--yes"]).expect(0);
    assert_same(&before, &world.fingerprints().await);

    // A run that halted, and is to be resumed.
    world.file("migrations/rag/002_bad.sql", "select nonsense;\n");
    let plan = fs::read_to_string(world.path().join("plans/production.toml")).expect("the plan");
    world.file("plans/production.toml", &(plan + "[run]\non_failure = \"halt\"\n"));
    world.run(&["apply", "--yes"]).expect(4);
    world.file("migrations/rag/002_bad.sql", "select 1;\n");
    led(&mut world, &pooler);
    let entries = world.objects().len();
    let ran = world.run(&["resume", "--yes"]);
    assert!([1, 4].contains(&ran.code), "{}", ran.stderr);
    ran.says(SAYS[0]).says(SAYS[1]);
    assert_eq!(world.objects().len(), entries, "nothing was written");
    world.lead("rag", direct);
    world.run(&["resume", "--yes"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_transaction_mode() {
    refuses("pooled_transaction", "transaction", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_statement_mode() {
    refuses("pooled_statement", "statement", true).await;
}

/// From outside it cannot be told from the others: what a session begins with is lost on the way all the same.
#[tokio::test(flavor = "multi_thread")]
async fn in_session_mode() {
    refuses("pooled_session", "session", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_takes_no_settings() {
    refuses("pooled_strict", "transaction", false).await;
}

/// It is one: two sessions through it are one and the same of the server.
#[tokio::test(flavor = "multi_thread")]
async fn what_stands_between_is_a_pooler() {
    let pooler = Pooler::start("transaction", true).await;
    let url = pooler.url(&cluster().url(OWNER, "postgres"));
    let (mut one, mut other) = (connect(&url).await, connect(&url).await);
    let pid = async |session: &mut sqlx::PgConnection| -> i32 {
        let row = sqlx::raw_sql("select pg_backend_pid()").fetch_one(session).await.expect("a row");
        sqlx::Row::get(&row, 0)
    };
    assert_eq!(pid(&mut one).await, pid(&mut other).await);
    execute(&mut one, "select 1").await;
}
