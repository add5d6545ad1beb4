//! Connections on which nothing is said are probed well within the ten minutes after which networks forget them: the kernel's own list of
//! timers says so, for the sessions of `migrate` and for those of its `pg_dump`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixStream};

use crate::harness::cluster;
use crate::world::{GATE, TestWorld, finish, sql_step, until};

/// Nothing below ten minutes is lost; half of that is well within.
const LONGEST: f64 = 300.0;
/// Of the kernel's ticks, as /proc shows them.
const TICKS: f64 = 100.0;

/// A TCP port before the server's socket.
async fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let socket = cluster().socket_dir().join(".s.PGSQL.5432");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let socket = socket.clone();
            tokio::spawn(async move {
                let mut server = UnixStream::connect(socket).await.expect("the server listens");
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    port
}

/// A world whose database is reached over TCP.
async fn world(hint: &str, port: u16) -> TestWorld {
    let mut world = TestWorld::new(hint, &["a"]).await;
    let name = world.dbname("a");
    world.lead("a", format!("postgresql://release@127.0.0.1:{port}/{name}"));
    world.plan(&sql_step("a"));
    world
}

/// The connections of a process to a port: for each the seconds until it is probed, if it will be.
fn probes(pid: u32, port: u16) -> Vec<Option<f64>> {
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|it| {
            fs::read_link(it.path()).ok()?.to_str()?.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned)
        })
        .collect();
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux");
    let lines = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let there = format!(":{port:04X}");
    let ours =
        lines.filter(|it| it[2].ends_with(&there) && it[3] == "01" && sockets.iter().any(|inode| inode == it[9]));
    ours.map(|it| {
        let (timer, ticks) = it[5].split_once(':').expect("a timer and its time");
        let ticks = u32::from_str_radix(ticks, 16).expect("a number");
        (timer == "02").then(|| f64::from(ticks) / TICKS)
    })
    .collect()
}

/// Polls, since what was sent a moment ago has another timer until the other end says that it has it.
async fn until_probed(pid: u32, port: u16, least: usize) {
    until("every connection is probed in time", async || {
        let found = probes(pid, port);
        found.len() >= least && found.iter().all(|it| it.is_some_and(|seconds| seconds <= LONGEST))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_a_run_are_probed() {
    let port = port().await;
    let world = world("probed", port).await;
    world.file("migrations/a/001_t.sql", &format!("{GATE}create table t (id int);\n"));
    let mut gate = world.gate("a").await;
    let running = world.start(&["apply", "--yes"]);
    gate.reached().await;
    // The one that holds the lock, and the one that waits at the gate.
    until_probed(running.id(), port, 2).await;
    gate.open().await;
    finish(running).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_its_pg_dump_are_probed() {
    let port = port().await;
    let mut world = world("probed_dump", port).await;
    world.file("migrations/a/001_t.sql", "create table t (id int);\n");
    world.sql("a", "create table noise as select n, md5(n::text) a from generate_series(1, 100000) n").await;
    let real = cluster().bin_dir().join("pg_dump");
    // It is held up where it writes, in the middle of its work.
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec '{0}' --version\n'{0}' \"$@\" | {{ while [ ! -e {1}/go ]; do sleep 0.02; done; cat; }}\n",
        real.display(),
        world.path().display()
    );
    world.file("bin/pg_dump", &script);
    fs::set_permissions(world.path().join("bin/pg_dump"), fs::Permissions::from_mode(0o755)).expect("ours");
    std::os::unix::fs::symlink(cluster().bin_dir().join("pg_restore"), world.path().join("bin/pg_restore"))
        .expect("ours");
    let bin = world.path().join("bin").display().to_string();
    world.set("MIGRATE_PG_BIN", bin);
    let running = world.start(&["apply", "--yes"]);
    let mut dump = None;
    until("pg_dump is connected", async || {
        dump = running_as(&real).into_iter().find(|pid| !probes(*pid, port).is_empty());
        dump.is_some()
    })
    .await;
    until_probed(dump.expect("it was found"), port, 1).await;
    world.file("go", "");
    finish(running).expect(0);
}

/// The processes that run a program.
fn running_as(program: &Path) -> Vec<u32> {
    let program: PathBuf = program.canonicalize().expect("it is there");
    let processes = fs::read_dir("/proc").expect("Linux").flatten();
    processes
        .filter(|it| fs::read_link(it.path().join("exe")).is_ok_and(|exe| exe == program))
        .filter_map(|it| it.file_name().to_str()?.parse().ok())
        .collect()
}
