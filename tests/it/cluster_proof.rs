//! The proof that a throw-away cluster is gone when nobody needs it, whatever became of its owner.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use migrate::outside::cluster::{Cluster, ClusterOptions};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::harness::{connect, execute};

/// Makes the test [`hold_a_cluster`] more than nothing.
const HOLD: &str = "MIGRATE_TEST_HOLD_A_CLUSTER";

fn start(options: ClusterOptions) -> Cluster {
    Cluster::start(options).unwrap_or_else(|error| panic!("{error}"))
}

/// The process of the server whose data is in `data`.
fn server(data: &Path) -> Pid {
    let text = fs::read_to_string(data.join("postmaster.pid")).expect("a running server has a file of its process");
    Pid::from_raw(text.lines().next().and_then(|line| line.parse().ok()).expect("its number comes first"))
}

fn runs(process: Pid) -> bool {
    kill(process, None) != Err(Errno::ESRCH)
}

/// Another process does this, so there is nothing to wait on but the world itself.
#[track_caller]
fn soon(what: &str, so: impl Fn() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(60), "after a minute it is still not so that {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// No test but the victim of the next one: holds a cluster until it is killed.
#[test]
fn hold_a_cluster() {
    if env::var_os(HOLD).is_none() {
        return;
    }
    let cluster = start(ClusterOptions::default());
    // A file, because the test harness owns stdout.
    let told = PathBuf::from(env::var_os(HOLD).unwrap_or_default());
    fs::write(told.join("part"), cluster.data_dir().as_os_str().as_encoded_bytes()).expect("somewhere to tell it");
    fs::rename(told.join("part"), told.join("data")).expect("the same folder");
    let _ = BufReader::new(std::io::stdin()).lines().count();
}

#[test]
fn a_cluster_is_gone_when_its_owner_is_killed() {
    let told = tempfile::tempdir().expect("a temporary folder");
    let mut owner = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "cluster_proof::hold_a_cluster", "--nocapture"])
        .env(HOLD, told.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("this program runs");
    soon("the cluster runs", || told.path().join("data").exists());
    let data = PathBuf::from(fs::read_to_string(told.path().join("data")).expect("the owner wrote it"));
    let server = server(&data);
    assert!(runs(server));

    owner.kill().expect("it is ours"); // SIGKILL: nothing of the owner runs any more
    owner.wait().expect("it was killed");
    soon("the server has ended", || !runs(server));
    soon("its files are gone", || !data.parent().expect("a folder around it").exists());
}

#[tokio::test]
async fn a_cluster_survives_a_power_cut_and_ends_with_its_value() {
    let cluster = start(ClusterOptions { fsync: true, ..ClusterOptions::default() });
    let url = cluster.url("postgres", "postgres");
    execute(&mut connect(&url).await, "CREATE TABLE t AS SELECT 1 AS one").await;
    cluster.stop_immediate().expect("it runs");
    assert!(cluster.stop_immediate().is_err(), "it does not run");
    cluster.start_again().expect("it was stopped");
    execute(&mut connect(&url).await, "SELECT one FROM t").await;

    let (server, root) = (server(&cluster.data_dir()), cluster.data_dir().parent().map(Path::to_owned));
    drop(cluster);
    soon("the server has ended", || !runs(server));
    assert!(!root.expect("a folder around it").exists());
}

#[tokio::test]
async fn a_kept_cluster_outlives_its_owner() {
    let dir = tempfile::tempdir_in("/tmp").expect("a temporary folder");
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    let settings = vec![("application_name".to_owned(), r"it's a \ demo".to_owned())];
    let cluster =
        start(ClusterOptions { dir: Some(dir.path().join("a, b")), keep: true, settings, ..Default::default() });
    let (url, data) = (cluster.url("postgres", "postgres"), cluster.data_dir());
    drop(cluster);

    let server = server(&data);
    let mut connection = connect(&url).await;
    let name: String = sqlx::query_scalar("SELECT reset_val FROM pg_settings WHERE name = 'application_name'")
        .fetch_one(&mut connection)
        .await
        .expect("a server that was kept");
    assert_eq!(name, r"it's a \ demo");
    kill(server, nix::sys::signal::Signal::SIGQUIT).expect("it runs");
    soon("the server has ended", || !runs(server));
}

#[test]
fn what_fails_leaves_nothing_behind() {
    let dir = tempfile::tempdir_in("/tmp").expect("a temporary folder");
    fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it is ours");
    let settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let root = dir.path().join("cluster");
    let error = Cluster::start(ClusterOptions { dir: Some(root.clone()), settings, ..Default::default() })
        .expect_err("PostgreSQL refuses to start");
    assert!(error.to_string().contains("unrecognized configuration parameter \"no_such_setting\""), "{error}");
    assert!(!root.exists());
}
