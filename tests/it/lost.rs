//! The connection is lost at COMMIT: before the server saw it, or after it had committed. Whether it did is asked of the
//! database, and nothing is applied twice.

use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::world::{GATE, TestWorld, assert_same, finish};

/// What says that a message commits a migration.
const COMMITS: &str = "INSERT INTO migrate.ledger";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    BeforeTheServerSawIt,
    AfterItAnswered,
}

/// A socket before the server's own, which cuts every session that commits a migration.
fn proxy(server: PathBuf, cut: Cut) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = UnixListener::bind(folder.path().join(server.file_name().expect("a name"))).expect("a socket");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = UnixStream::connect(&server).await.expect("the server listens");
            tokio::spawn(carry(client, server, cut));
        }
    });
    folder
}

async fn carry(client: UnixStream, server: UnixStream, cut: Cut) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        (from_server, to_client)
    });
    let mut first = true;
    while let Some(message) = message(&mut from_client, first).await {
        // The first message has no type; the answer to the question for TLS is one letter, and then it comes.
        first = first && message[4..] == 80_877_103_u32.to_be_bytes();
        if !String::from_utf8_lossy(&message).contains(COMMITS) {
            if to_server.write_all(&message).await.is_err() {
                return;
            }
            continue;
        }
        // Nothing of the answer reaches the client.
        back.abort();
        if cut == Cut::AfterItAnswered {
            let _ = to_server.write_all(&message).await;
            // A polite end: the server is through with the message before it reads this.
            let _ = to_server.write_all(b"X\0\0\0\x04").await;
        }
        return;
    }
}

async fn message(from: &mut (impl AsyncRead + Unpin), first: bool) -> Option<Vec<u8>> {
    let mut head = if first { Vec::new() } else { vec![from.read_u8().await.ok()?] };
    let length = from.read_u32().await.ok()?;
    let mut body = vec![0; usize::try_from(length).ok()? - 4];
    from.read_exact(&mut body).await.ok()?;
    head.extend(length.to_be_bytes());
    head.extend(body);
    Some(head)
}

/// Two migrations on a database that is reached through the proxy, and its URL without it.
async fn world(hint: &str, cut: Cut, rest: &str) -> (TestWorld, String, tempfile::TempDir) {
    let mut world = TestWorld::new(hint, &["a"]).await;
    let url = world.url("a").to_owned();
    let part = |name: &str| url.split(['?', '&']).find_map(|it| it.strip_prefix(name)).expect("it is in the URL");
    let folder = proxy(Path::new(part("host=")).join(format!(".s.PGSQL.{}", part("port="))), cut);
    world.lead("a", url.replace(part("host="), &folder.path().display().to_string()));
    world.sql_plan(rest);
    world.file("migrations/a/001_one.sql", "create table one (id int);\ninsert into one values (1);\n");
    world.file("migrations/a/002_two.sql", "create table two (id int);\ninsert into two values (1);\n");
    (world, url, folder)
}

const HALT: &str = "[run]\non_failure = \"halt\"\n";

/// Cut, halted, and finished without the proxy: each migration is there once.
async fn is_resumed(hint: &str, cut: Cut) {
    let (mut world, url, _folder) = world(hint, cut, HALT).await;
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(4).says("the connection was lost while `001_one` ran").says("`migrate resume ");
    world.lead("a", url);
    let took = world.json(0, &["status"])["unfinished"]["took_effect"].clone();
    assert_eq!(took, if cut == Cut::AfterItAnswered { 1 } else { 0 }, "{cut:?}");
    assert_eq!(world.json(0, &["resume"])["outcome"], "succeeded");
    assert_eq!(world.value("a", "select (select count(*) from one) || ' ' || (select count(*) from two)").await, "1 1");
    assert_eq!(world.value("a", "select count(*) from migrate.ledger").await, "2");
    world.run(&["rollback", "--yes"]).expect(0);
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_the_server_never_saw_is_made() {
    is_resumed("lost_before", Cut::BeforeTheServerSawIt).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_which_nobody_heard_is_not_repeated() {
    is_resumed("lost_after", Cut::AfterItAnswered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_which_nobody_heard_goes_back() {
    let (world, _, _folder) = world("lost_back", Cut::AfterItAnswered, "").await;
    let before = world.fingerprints().await;
    world.run(&["apply", "--yes"]).expect(3).says("the connection was lost while `001_one` ran");
    assert_same(&before, &world.fingerprints().await);
}

/// The server's process is ended in the middle of a migration, and at its COMMIT.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_process_that_is_ended_leaves_no_doubt() {
    let slow = "create table t (id int); create function slow() returns trigger language plpgsql as $$ begin perform \
                pg_advisory_xact_lock(42); return null; end $$; create constraint trigger slow after insert on t deferrable \
                initially deferred for each row execute function slow()";
    for (hint, text) in [
        ("lost_middle", format!("{GATE}create table one (id int);\n")),
        // A deferred trigger waits at the gate when the transaction commits.
        ("lost_commit", "create table one (id int);\ninsert into t values (1);\n".to_owned()),
    ] {
        let world = TestWorld::new(hint, &["a"]).await;
        world.sql("a", slow).await;
        world.sql_plan(HALT);
        world.file("migrations/a/001_one.sql", &text);
        let mut gate = world.gate("a").await;
        let child = world.start(&["apply", "--yes"]);
        gate.reached().await;
        let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity where wait_event = 'advisory' and datname = ";
        assert_eq!(world.ask(&format!("{end}'{}'", world.dbname("a"))).await, "1");
        finish(child).expect(4).says("the connection was lost while `001_one` ran");
        gate.open().await;
        assert_eq!(world.json(0, &["status"])["unfinished"]["took_effect"], 0, "{hint}");
        assert_eq!(world.json(0, &["resume"])["outcome"], "succeeded", "{hint}");
        assert_eq!(
            world.value("a", "select count(*) from migrate.ledger where state = 'applied'").await,
            "1",
            "{hint}"
        );
    }
}
