//! How often `migrate` waits for the server: counted on the wire, between the two.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::cut_off::NO_SNAPSHOT;
use crate::world::TestWorld;

/// The messages of each session that the server answers before anything goes on: simple queries, and Sync.
type Seen = Arc<Mutex<Vec<Vec<String>>>>;

/// What a message says that asks for TLS.
const ASKS_FOR_TLS: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// A socket before the server's own.
struct Proxy {
    folder: tempfile::TempDir,
    seen: Seen,
}

impl Proxy {
    fn before(server: PathBuf) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let name = server.file_name().expect("a socket has a name");
        let listener = UnixListener::bind(folder.path().join(name)).expect("a socket");
        let seen = Seen::default();
        let sessions = seen.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&server).await.expect("the server listens");
                tokio::spawn(carry(client, server, sessions.clone()));
            }
        });
        Self { folder, seen }
    }

    /// What each session since the last look sent, in order.
    fn sessions(&self) -> Vec<Vec<String>> {
        std::mem::take(&mut *self.seen.lock().expect("nobody panics here"))
    }

    /// What the session that wrote to the ledger sent, in order.
    fn session_of_the_step(&self) -> Vec<String> {
        self.session_that("INSERT INTO migrate.ledger")
    }

    /// What the only session that sent `words` sent, in order.
    fn session_that(&self, words: &str) -> Vec<String> {
        let writes = |session: &&Vec<String>| session.iter().any(|it| it.contains(words));
        let seen = self.seen.lock().expect("nobody panics here");
        let mut writers = seen.iter().filter(writes).cloned();
        let (first, second) = (writers.next(), writers.next());
        assert_eq!(second, None, "one session writes");
        first.expect("a session that wrote")
    }
}

async fn carry(client: UnixStream, server: UnixStream, sessions: Seen) {
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let at = {
        let mut seen = sessions.lock().expect("nobody panics here");
        seen.push(Vec::new());
        seen.len() - 1
    };
    let seen = move |text: String| {
        let mut sessions = sessions.lock().expect("nobody panics here");
        // Those of a command that is over may have been taken.
        if let Some(session) = sessions.get_mut(at) {
            session.push(text);
        }
    };
    let mut from_client = from_client;
    // The first message has no type, nor has the question before it whether there is TLS.
    let mut kind = None;
    while let Some(body) = message(&mut from_client).await {
        if matches!(kind, Some(b'Q' | b'S')) {
            let text = String::from_utf8_lossy(&body[4..]).into_owned();
            seen(text);
        }
        let asks_for_tls = kind.is_none() && body[4..] == ASKS_FOR_TLS;
        let head = kind.map_or_else(Vec::new, |kind| vec![kind]);
        if to_server.write_all(&[head, body].concat()).await.is_err() {
            return;
        }
        if asks_for_tls {
            continue;
        }
        kind = from_client.read_u8().await.ok();
        if kind.is_none() {
            return;
        }
    }
}

/// Length and contents.
async fn message(from: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let length = from.read_u32().await.ok()?;
    let mut body = vec![0; usize::try_from(length).ok()? - 4];
    from.read_exact(&mut body).await.ok()?;
    Some([length.to_be_bytes().to_vec(), body].concat())
}

/// A world whose database is reached through a proxy.
async fn world(hint: &str) -> (TestWorld, Proxy) {
    let mut world = TestWorld::new(hint, &["a"]).await;
    let url = world.url("a").to_owned();
    let part = |name: &str| {
        let value = url.split(['?', '&']).find_map(|it| it.strip_prefix(name)).expect("it is in the URL");
        value.to_owned()
    };
    let socket = Path::new(&part("host=")).join(format!(".s.PGSQL.{}", part("port=")));
    let proxy = Proxy::before(socket);
    world.lead("a", url.replace(&part("host="), &proxy.folder.path().display().to_string()));
    world.sql_plan("");
    (world, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_with_its_ledger_row_is_one_round_trip() {
    const MIGRATIONS: usize = 20;
    let (world, proxy) = world("trips_one").await;
    for number in 1..=MIGRATIONS {
        let text = format!("create table t{number} (id int);\ninsert into t{number} values ({number});\n");
        world.file(&format!("migrations/a/{number:03}_t.sql"), &text);
    }
    let _ = world.run(&["apply", "--yes"]).expect(0);
    assert_eq!(world.value("a", "select count(*) from migrate.ledger").await, MIGRATIONS.to_string());
    let sent = proxy.session_of_the_step();
    let first = sent.iter().position(|it| it.contains("create table t1 ")).expect("it was sent");
    // What comes before is for the session: who am I.
    assert!(first <= 2, "{:#?}", &sent[..first]);
    let trips = &sent[first..];
    println!("round trips of {MIGRATIONS} migrations with their ledger rows: {}, and {first} before", trips.len());
    assert_eq!(trips.len(), MIGRATIONS, "{trips:#?}");
    for (trip, number) in trips.iter().zip(1..) {
        let whole = [format!("create table t{number} "), "EXECUTE migrate_row(".into(), "COMMIT;".into()];
        assert!(whole.iter().all(|part| trip.contains(part)), "{number}: {trip}");
    }
    let seen = proxy.seen.lock().expect("nobody panics here");
    assert!(!seen.iter().flatten().any(|it| it.contains("pg_blocking_pids")), "nobody waited, so nobody looks on");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_transaction_each_statement_and_each_word_of_the_ledger_is_one() {
    let (world, proxy) = world("trips_bare").await;
    let text = "-- migrate:no-transaction\ncreate table t (id int);\nvacuum t;\nanalyze t;\n";
    world.file("migrations/a/001_t.sql", text);
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let sent = proxy.session_of_the_step();
    let first = sent.iter().position(|it| it.contains("INSERT INTO migrate.ledger")).expect("it was sent");
    // Three statements; before them the intent, between them how far it got, and that it ended.
    assert_eq!(sent.len() - first, 3 + 4, "{sent:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn undoing_a_migration_with_its_ledger_row_is_one_round_trip() {
    const MIGRATIONS: usize = 20;
    let (world, proxy) = world("trips_down").await;
    for number in 1..=MIGRATIONS {
        let text = format!("create table t{number} (id int);\n-- migrate:down\ndrop table t{number};\n");
        world.file(&format!("migrations/a/{number:03}_t.sql"), &text);
    }
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let _ = world.run(&["rollback", "--via", "down", "--yes"]).expect(0);
    let sent = proxy.session_that("DELETE FROM migrate.ledger");
    let first = sent.iter().position(|it| it.contains("drop table t20;")).expect("it was sent");
    assert!(first <= 2, "{:#?}", &sent[..first]);
    let trips = &sent[first..];
    println!("round trips of undoing {MIGRATIONS} migrations with their ledger rows: {}", trips.len());
    assert_eq!(trips.len(), MIGRATIONS, "{trips:#?}");
    for (trip, number) in trips.iter().zip((1..=MIGRATIONS).rev()) {
        let whole = [format!("drop table t{number};"), "DELETE FROM migrate.ledger".into(), "COMMIT;".into()];
        assert!(whole.iter().all(|part| trip.contains(part)), "{number}: {trip}");
    }
}

/// What is sent beside the migrations, and over how many sessions: each of these takes a round trip of a line that may be long,
/// and opening a session takes several.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_asks_little_beside_its_migrations() {
    const MIGRATIONS: usize = 20;
    let (world, proxy) = world("trips_beside").await;
    for number in 1..=MIGRATIONS {
        world.file(&format!("migrations/a/{number:03}_t.sql"), &format!("create table t{number} (id int);\n"));
    }
    let _ = world.run(&NO_SNAPSHOT).expect(0);
    let sent = proxy.sessions();
    assert_eq!(sent.len(), 2, "one holds the lock, and one looks and then applies: {sent:#?}");
    // Taking the lock, and asking whether it is still held; how the ledger is to be read, what there is, and what a run needs.
    assert_eq!(sent.iter().flatten().count(), 2 + 3 + MIGRATIONS, "{sent:#?}");
    // Nobody takes locks of the session's own, or prepares a statement: what would take them away is not sent, and the statement that
    // writes rows is prepared once.
    let with = |word: &str| sent.iter().flatten().filter(|it| it.contains(word)).count();
    let words = ["pg_advisory_unlock_all", "DEALLOCATE ALL", "PREPARE migrate_row", "EXECUTE migrate_row"];
    assert_eq!(words.map(with), [0, 1, 1, MIGRATIONS], "{sent:#?}");

    let _ = world.run(&NO_SNAPSHOT).expect(0);
    // Taking the lock, and meanwhile how the ledger is to be read; what there is, with the rows of the ledger.
    let mut sent = proxy.sessions();
    sent.sort_by_key(Vec::len);
    let [lock, look] = sent.as_slice() else { panic!("{sent:#?}") };
    assert_eq!((lock.len(), look.len()), (1, 2), "{sent:#?}");
    assert!(look[1].contains("from migrate.ledger order by"), "{look:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_handed_on_is_as_a_new_one() {
    let (world, proxy) = world("trips_clean").await;
    world.file("migrations/a/001_t.sql", "create table t (id int);\n");
    let _ = world.run(&NO_SNAPSHOT).expect(0);
    // The survey asks for the text of one that changed, with a prepared statement.
    world.file("migrations/a/R__v.sql", "create or replace view v as select 1 as a;\n");
    let _ = world.run(&NO_SNAPSHOT).expect(0);
    world.file("migrations/a/R__v.sql", "create or replace view v as select 2 as a;\n");
    let state = "do $$ begin if (select count(*) from pg_prepared_statements) > 0 or current_setting('application_name') \
         !~ '^migrate [0-9]{8}-[0-9]{6}-[^ ]+$' then raise 'not clean'; end if; end $$;\n";
    world.file("migrations/a/002_clean.sql", state);
    let _ = proxy.sessions();
    let _ = world.run(&NO_SNAPSHOT).expect(0);
    assert_eq!(proxy.sessions().len(), 2);
    assert_eq!(world.value("a", "select a from v").await, "2");
}
