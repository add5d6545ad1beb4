//! What we start is protected as we are: `pg_dump`, `pg_restore` and the programs of steps, against the same servers.

use std::collections::BTreeMap;
use std::fs;

use super::authority::Authority;
use super::server::{ENCODED, PASSWORD, Server};
use crate::world::TestWorld;

/// A world whose only database is that of `url`, and that finds no files of libpq's but the server's home.
fn world(server: &Server, url: &str) -> TestWorld {
    let mut world = TestWorld::over(BTreeMap::from([("a".to_owned(), url.to_owned())]));
    world.set("HOME", server.home.path().display().to_string());
    world.set("PATH", format!("{}:/usr/bin:/bin", server.cluster.bin_dir().display()));
    world.sql_plan("");
    world.file("migrations/a/001_t.sql", "create table t (ssl bool);\n");
    world
}

/// What `doctor` says of the session.
fn session(world: &TestWorld, code: i32) -> String {
    let document = world.json(code, &["doctor"]);
    let findings = document["checks"].as_array().expect("checks").iter();
    let mut found = findings.filter(|it| it["name"] == "session" || it["name"] == "connection");
    found.next().unwrap_or_else(|| panic!("{document:#}"))["detail"].as_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_taken_in_the_cells_in_which_psql_connects() {
    let server = Server::start().await;
    let files = server.files.path();
    let (ca, other) = (Authority::new(files, "Test Authority"), Authority::new(files, "Another Authority"));
    server.admin("CREATE DATABASE app OWNER tls_only");
    server.admin_in("app", "SET ROLE tls_only; CREATE TABLE t (id int)");
    let servers = [
        ("right", ca.issue("right", "localhost", "localhost")),
        ("expired", ca.issue_for("expired", "localhost", "localhost", "20200101000000Z", "20200201000000Z")),
        ("elsewhere", ca.issue("elsewhere", "localhost", "elsewhere")),
        ("self-signed", ca.self_signed("self", "localhost")),
    ];
    let (trusted, strange) = (ca.cert().display().to_string(), other.cert().display().to_string());
    let encrypted = "sessions are encrypted with TLSv1.3";
    // The mode, the authority, and per server what is said: of the session, or why there is none.
    let cells = [
        ("require", "", [encrypted; 4]),
        ("require", &*trusted, [encrypted, "expired on 2020-02-01", encrypted, "is self-signed"]),
        ("verify-ca", &*trusted, [encrypted, "expired on 2020-02-01", encrypted, "is self-signed"]),
        ("verify-full", &*trusted, [encrypted, "expired on 2020-02-01", "and not for localhost", "is self-signed"]),
        ("verify-full", &*strange, ["no authority in", "expired on 2020-02-01", "no authority in", "is self-signed"]),
    ];
    let mut count = [0, 0];
    for (at, (name, pair)) in servers.iter().enumerate() {
        server.shows(Some(pair), &ca).await;
        for (mode, root, said) in &cells {
            let root = if root.is_empty() { String::new() } else { format!("&sslrootcert={root}") };
            let world = world(&server, &server.url("tls_only", "localhost", "app", &format!("&sslmode={mode}{root}")));
            let fine = said[at] == encrypted;
            assert!(session(&world, i32::from(!fine)).contains(said[at]), "{name} {mode} {root}: {}", said[at]);
            let status = world.json(0, &["status"]);
            assert_eq!(status["databases"][0]["reachable"], fine, "{name} {mode} {root}: {status:#}");
            let ran = world.run(&["snapshot", "take"]);
            ran.expect(i32::from(!fine));
            if !fine {
                ran.says(said[at]).says("help: ").ends("No database was changed.");
                assert!(world.objects().iter().all(|it| !it.ends_with("manifest.json")), "{name} {mode}");
            }
            count[usize::from(fine)] += 1;
        }
    }
    println!("snapshots over TLS: {} cells taken, {} refused by name", count[1], count[0]);
    // The role may not come without TLS: that pg_dump came says that it was encrypted. The log says so too.
    let dumps = came_for(&server, "COPY public.t (id) TO stdout");
    assert_eq!(dumps, count[1]);
}

/// How many sessions said so, each of them encrypted.
#[track_caller]
fn came_for(server: &Server, statement: &str) -> usize {
    let log = server.log();
    let came: Vec<&String> =
        log.iter().filter(|(_, did)| did.iter().any(|it| it.contains(statement))).map(|(came, _)| came).collect();
    assert!(came.iter().all(|it| it.contains("SSL enabled (protocol=TLSv1.3")), "{statement}: {came:#?}");
    came.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_and_its_way_back_never_leave_tls() {
    let server = Server::start().await;
    let ca = Authority::new(server.files.path(), "Test Authority");
    server.shows(Some(&ca.issue("right", "localhost", "localhost")), &ca).await;
    server.admin("CREATE DATABASE app OWNER by_both");
    server.admin_in("app", "SET ROLE by_both; CREATE TABLE kept (id int); INSERT INTO kept VALUES (1)");
    let client = ca.issue("client", "by_both", "plain");
    let rest = format!(
        "&sslmode=verify-full&sslrootcert={}&sslcert={}&sslkey={}&channel_binding=require",
        ca.cert().display(),
        client.cert.display(),
        client.key.display()
    );
    let world = world(&server, &server.url(&format!("by_both:{ENCODED}"), "localhost", "app", &rest));
    world.sql_plan(
        "[[steps]]\nname = \"fill\"\ndatabase = \"a\"\nkind = \"command\"\nafter = [\"a-schema\"]\nargv = [\"psql\", \"-X\", \"-d\", \
         \"${url}\", \"-c\", \"insert into t select ssl from pg_stat_ssl where pid = pg_backend_pid()\"]\n",
    );
    let _ = world.run(&["apply", "--yes"]).expect(0);
    assert_eq!(server.admin_in("app", "SELECT string_agg(ssl::text, ',') FROM t"), "true");
    let _ = world.run(&["rollback", "--yes"]).expect(0);
    assert_eq!(server.admin_in("app", "SELECT to_regclass('t') IS NULL"), "t");

    let log = fs::read_to_string(server.cluster.log_file()).expect("a log");
    assert!(!log.contains(PASSWORD) && !log.contains(ENCODED));
    let sessions = server.log();
    assert!(sessions.iter().all(|(came, _)| came.contains("user=by_both")), "{sessions:#?}");
    assert!(sessions.iter().all(|(came, _)| came.contains("SSL enabled (protocol=TLSv1.3")), "{sessions:#?}");
    // pg_dump, pg_restore and the program of the step; the others are ours.
    for statement in ["COPY public.kept (id) TO stdout", "CREATE TABLE public.kept", "insert into t select ssl"] {
        assert!(came_for(&server, statement) > 0, "{statement}");
    }
    println!("a release and its way back: {} sessions, all of them encrypted", sessions.len());
    assert!(sessions.len() >= 10, "{}", sessions.len());
}
