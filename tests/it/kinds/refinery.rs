//! `kind = "refinery"`: refinery itself reads what we wrote, and we read what refinery wrote.

use refinery::{Runner, load_sql_migrations};
use tokio_postgres::{Client, NoTls};

use crate::world::TestWorld;

const STEP: &str = "[[steps]]\nname = \"app\"\ndatabase = \"a\"\nkind = \"refinery\"\ndir = \"migrations/app\"\n";

async fn world(hint: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["a"]).await;
    world.plan(STEP);
    world.file("migrations/app/V1__first.sql", "create table first (v text default 'it''s');\r\n");
    world.file("migrations/app/V2__second.sql", "\u{feff}create table second (id int);\n");
    world.file("migrations/app/V10__third.sql", "insert into second values (10);\n");
    world
}

/// As an application that embeds refinery connects.
async fn client(world: &TestWorld) -> Client {
    let url = world.url("a").replacen("postgresql:///", "postgresql://localhost/", 1);
    let mut config: tokio_postgres::Config = url.parse().expect("a URL");
    if let Some((_, host)) = url.split_once("host=") {
        let host = host.split('&').next().expect("a value");
        let mut plain = tokio_postgres::Config::new();
        plain.host_path(host.replace("%2F", "/")).user(crate::harness::OWNER).dbname(world.dbname("a"));
        config = plain;
    }
    let (client, connection) = config.connect(NoTls).await.expect("a server");
    tokio::spawn(connection);
    client
}

fn runner(world: &TestWorld) -> Runner {
    // refinery refuses a byte-order mark only in the server: it reads the file as it is.
    Runner::new(&load_sql_migrations(world.path().join("migrations/app")).expect("files"))
}

#[tokio::test(flavor = "multi_thread")]
async fn refinery_reads_what_we_wrote_and_finds_nothing_to_do() {
    let world = world("refinery_ours").await;
    let document = world.json(0, &["apply", "--yes"]);
    assert_eq!(document["databases"][0]["applied"], 3);
    let mut client = client(&world).await;
    let files = load_sql_migrations(world.path().join("migrations/app")).expect("files");
    let applied = runner(&world).get_applied_migrations_async(&mut client).await.expect("a history");
    assert_eq!(applied.iter().map(ToString::to_string).collect::<Vec<_>>(), ["V1__first", "V2__second", "V10__third"]);
    for it in &applied {
        let file = files.iter().find(|file| file.version() == it.version()).expect("a file");
        assert_eq!((it.checksum(), it.name()), (file.checksum(), file.name()));
        assert!(it.applied_on().is_some());
    }
    let report = runner(&world).run_async(&mut client).await.expect("refinery agrees");
    assert!(report.applied_migrations().is_empty());
    assert_eq!(world.value("a", "select count(*) from second").await, "1");
    let ledger = "select string_agg(kind || ' ' || name, ', ' order by started_at) from migrate.ledger";
    assert_eq!(world.value("a", ledger).await, "refinery V1__first, refinery V2__second, refinery V10__third");
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_refinery_applied_is_applied() {
    let world = world("refinery_theirs").await;
    world.file("migrations/app/V2__second.sql", "create table second (id int);\n");
    world.remove("migrations/app/V10__third.sql");
    let mut client = client(&world).await;
    assert_eq!(runner(&world).run_async(&mut client).await.expect("an empty database").applied_migrations().len(), 2);
    let _ = world.run(&["plan", "--detailed-exitcode"]).expect(0);
    let status = &world.json(0, &["status"])["databases"][0];
    assert_eq!((&status["applied"], &status["pending"]), (&2.into(), &serde_json::json!([])), "{status:#}");

    world.file("migrations/app/V10__third.sql", "insert into second values (10);\n");
    assert_eq!(world.json(0, &["apply", "--yes"])["databases"][0]["applied"], 1);
    assert_eq!(world.json(0, &["status"])["databases"][0]["applied"], 3);
    let report = runner(&world).run_async(&mut client).await.expect("refinery agrees");
    assert!(report.applied_migrations().is_empty());
    assert_eq!(world.value("a", "select count(*) from refinery_schema_history").await, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_refinery_refuses_is_refused() {
    let world = world("refinery_drift").await;
    world.file("migrations/app/V2__second.sql", "create table second (id int);\n");
    let mut client = client(&world).await;
    runner(&world).run_async(&mut client).await.expect("an empty database");
    let refused = |says: &str| {
        for args in [&["plan"] as &[&str], &["apply", "--yes"]] {
            world.run(args).expect(6).says("error: a: refinery refuses").says(says).ends("No database was changed.");
        }
        assert_eq!(world.json(0, &["status"])["databases"][0]["changed"][0]["reason"], "refinery");
    };
    world.file("migrations/app/V1__first.sql", "create table first (v int);\n");
    refused("V1__first");
    world.file("migrations/app/V1__first.sql", "create table first (v text default 'it''s');\r\n");
    world.remove("migrations/app/V2__second.sql");
    refused("V2__second");
    world.file("migrations/app/V2__second.sql", "create table second (id int);\n");
    world.file("migrations/app/V5__late.sql", "create table late (id int);\n");
    refused("V5__late");
    world.remove("migrations/app/V5__late.sql");
    let _ = world.run(&["plan", "--detailed-exitcode"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refinery_migration_that_fails_leaves_no_history() {
    let world = world("refinery_fails").await;
    world.file("migrations/app/V1__first.sql", "create table first (v text);\nselect 1/0;\n");
    let before = world.fingerprints().await;
    world.run(&["apply", "--yes"]).expect(1).says("migrations/app/V1__first.sql:2:1");
    crate::world::assert_same(&before, &world.fingerprints().await);
    // And one that empties the search_path still gets its row in refinery's own table.
    world.file("migrations/app/V1__first.sql", "select pg_catalog.set_config('search_path', '', false);\n");
    let _ = world.run(&["apply", "--yes"]).expect(0);
    assert_eq!(world.value("a", "select count(*) from public.refinery_schema_history").await, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_undone_is_pending_for_refinery_again() {
    let world = world("refinery_down").await;
    world.file("migrations/app/V2__second.sql", "create table second (id int);\n");
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let before = world.fingerprints().await;
    world.file("migrations/app/V11__fourth.sql", "alter table second add column size int;\n");
    world.file("migrations/app/V11__fourth.down.sql", "alter table second drop column size;\n");
    world.file("migrations/app/V12__fifth.sql", "create table fifth (id int);\n");
    world.file("migrations/app/V12__fifth.down.sql", "drop table fifth;\n");
    assert_eq!(world.json(0, &["plan"])["steps"][0]["pending"][0]["reversible"], true);
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let mut client = client(&world).await;
    // refinery passes over the ways back.
    assert!(runner(&world).run_async(&mut client).await.expect("refinery agrees").applied_migrations().is_empty());
    world.sql("a", "insert into second values (1, 2)").await;
    let back = world.json(0, &["rollback", "--via", "down", "--yes"]);
    assert_eq!((&back["outcome"], &back["databases"][0]["via"]), (&"rolled_back".into(), &"down".into()), "{back}");
    assert_eq!(world.value("a", "select count(*) from second where id = 1").await, "1", "what was written since stays");
    world.sql("a", "delete from second where id = 1").await;
    crate::world::assert_same(&before, &world.fingerprints().await);
    // Who applies it again does not matter.
    let report = runner(&world).run_async(&mut client).await.expect("refinery agrees");
    assert_eq!(
        report.applied_migrations().iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["V11__fourth", "V12__fifth"]
    );
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
}
