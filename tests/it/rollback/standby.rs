//! The way back by a warm copy, and which way `auto` takes.

use serde_json::{Value, json};

use super::sessions::Hammer;
use super::{apply, prepare, step};
use crate::harness::{OWNER, as_superuser, cluster, connect, execute};
use crate::world::{TestWorld, assert_same};

const STANDBY_OF_RAG: &str = "[databases.rag]\nstandby = true\n";

/// Two databases with rows, of which `rag` gets a warm copy.
pub(crate) async fn warm(hint: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["chat", "rag"]).await;
    prepare(&world, &["chat", "rag"]);
    world.plan(&(step("chat") + &step("rag") + STANDBY_OF_RAG));
    for name in ["chat", "rag"] {
        world.sql(name, "create table t (id int primary key, note text); insert into t select n, 'row ' || n from generate_series(1, 500) n").await;
    }
    world
}

/// The databases on the server whose names say that they are standbys of this one.
async fn standbys(world: &TestWorld, database: &str) -> String {
    let name = world.dbname(database);
    world
        .ask(&format!("select count(*) from pg_database where starts_with(datname, left('{name}', 20)) and datname like '%\\_\\_standby\\_%'"))
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_database_goes_its_own_way_and_all_at_once() {
    let world = warm("standby").await;
    let name = world.dbname("rag");
    let dressed = format!(
        "alter database {name} set search_path to \"$user\", public; alter database {name} set work_mem to '7MB';
         alter role {OWNER} in database {name} set statement_timeout to '17min'; alter database {name} connection limit 40;
         comment on database {name} is 'the one'; revoke connect on database {name} from public;
         grant connect on database {name} to {OWNER}; select lo_from_bytea(4711, 'large'); create sequence s; select nextval('s')"
    );
    world.sql("rag", &dressed).await;
    let before = world.fingerprints().await;
    let report = world.json(0, &["apply", "--yes"]);
    let standby = &report["standbys"][0];
    assert_eq!((&standby["database"], &report["standbys"][1]), (&json!("rag"), &Value::Null), "{report}");
    let copy = standby["dbname"].as_str().expect("a name").to_owned();
    let oid = world.ask(&format!("select oid from pg_database where datname = '{copy}'")).await;
    world.sql("rag", "insert into t values (0, 'since'); select nextval('s')").await;

    let ahead = world.json(0, &["rollback", "--dry-run"]);
    let via =
        |it: &Value| it["databases"].as_array().expect("a list").iter().map(|it| it["via"].clone()).collect::<Vec<_>>();
    assert_eq!(via(&ahead), ["snapshot", "standby"], "{ahead}");
    assert!(ahead["databases"][1]["why"].as_str().expect("words").contains("not rehearsed"), "{ahead}");
    assert!(ahead["databases"][0]["why"].as_str().expect("words").contains("no standby was made"), "{ahead}");

    let ran = world.run(&["rollback", "--yes"]);
    ran.expect(0).says("chat, rag: exchanged in one transaction");
    assert!(ran.stdout.contains("rag: 1 applied, rolled back by its standby; the replaced"), "{}", ran.stdout);
    assert!(ran.stdout.contains("chat: 1 applied, rolled back from its snapshot"), "{}", ran.stdout);
    assert_eq!(world.oid("rag").await, oid, "the copy has its place");
    assert_same(&before, &world.fingerprints().await);
    let again = world.json(0, &["rollback", "--yes"]);
    assert_eq!((&again["outcome"], via(&again)), (&json!("nothing_to_do"), vec![json!("snapshot"), json!("standby")]));
    // What was written since is in the replaced database.
    let kept = again["databases"][1]["kept_as"].as_str().expect("a name");
    let mut kept = connect(&cluster().url(OWNER, kept)).await;
    let since: String =
        sqlx::query_scalar("select note from t where id = 0").fetch_one(&mut kept).await.expect("a row");
    assert_eq!(since, "since");
    drop(kept);
    apply(&world);
    assert_eq!(
        world.json(0, &["rollback", "--via", "standby", "--only", "rag", "--yes"])["databases"][1]["via"],
        "standby"
    );
    assert_eq!(world.json(0, &["rollback", "--yes"])["outcome"], "rolled_back");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_way_can_be_asked_for_and_refuses_where_it_does_not_apply() {
    let world = warm("standby_asked").await;
    let before = world.fingerprints().await;
    apply(&world);
    let ran = world.run(&["rollback", "--via", "standby", "--yes"]);
    ran.expect(4).says("has no standby to go back to: chat: no standby was made of it");
    assert_eq!(world.json(0, &["status"])["unfinished_run"], Value::Null, "it did not even begin");
    let back = world.json(0, &["rollback", "--via", "snapshot", "--yes"]);
    assert_eq!(back["databases"][1]["via"], "snapshot", "{back}");
    assert_same(&before, &world.fingerprints().await);
    assert_eq!(standbys(&world, "rag").await, "1", "nobody drops the copy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_somebody_dropped_is_no_way_back() {
    let world = warm("standby_gone").await;
    let before = world.fingerprints().await;
    let report = world.json(0, &["apply", "--yes"]);
    let copy = report["standbys"][0]["dbname"].as_str().expect("a name");
    let mut server = connect(&cluster().url(OWNER, "postgres")).await;
    execute(&mut server, format!("drop database \"{copy}\"")).await;
    // Another one of the same name is not it.
    execute(&mut server, format!("create database \"{copy}\"")).await;
    let ahead = world.json(0, &["rollback", "--dry-run"]);
    let rag = &ahead["databases"][1];
    assert_eq!(rag["via"], "snapshot", "{ahead}");
    assert!(rag["why"].as_str().expect("words").contains("gone from the server"), "{ahead}");
    world.run(&["rollback", "--yes"]).expect(0);
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_fails_goes_back_by_it() {
    let world = warm("standby_failed").await;
    let before = world.fingerprints().await;
    world.file("migrations/rag/002_bad.sql", "alter table t add constraint c check (id < 100);\n");
    let ran = world.run(&["apply", "--yes", "--json"]);
    let back = ran.expect(3).document();
    assert_eq!((&back["databases"][1]["via"], &back["outcome"]), (&json!("standby"), &json!("rolled_back")), "{back}");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_snapshot_it_is_the_way_back() {
    let world = warm("standby_alone").await;
    let before = world.fingerprints().await;
    world.plan(&(step("rag") + STANDBY_OF_RAG));
    let report = world.json(0, &["apply", "--yes", "--no-snapshot", "--reason", "too large"]);
    assert_eq!(report["standbys"][0]["database"], "rag", "{report}");
    let back = world.json(0, &["rollback", "--yes"]);
    assert_eq!(back["databases"][1]["via"], "standby", "{back}");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stays_is_named_and_nothing_is_changed() {
    let world = warm("standby_in_use").await;
    let before = world.fingerprints().await;
    let mut app = world.connect("rag").await;
    world.sql("rag", "begin; insert into t values (0, 'prepared'); prepare transaction 'standby_orphan'").await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(1)
        .says("the prepared transaction 'standby_orphan'")
        .says("standby = false")
        .ends("No database was changed.");
    // That was seen before anybody was sent away.
    execute(&mut app, "select 1").await;
    world.sql("rag", "rollback prepared 'standby_orphan'").await;
    drop(app);

    let mut idle = connect(&as_superuser(world.url("rag"))).await;
    execute(&mut idle, "set application_name = 'the admin''s psql'").await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(1).says("of role postgres (the admin's psql)").ends("No database was changed.");
    assert_eq!(world.value("rag", "select count(*) from t").await, "500", "it can be reached");
    drop(idle);
    assert_same(&before, &world.fingerprints().await);
    assert_eq!(standbys(&world, "rag").await, "0");
    assert_eq!(world.json(0, &["status"])["unfinished_run"], Value::Null);
    apply(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_sent_away_for_the_copy_and_come_back() {
    let world = warm("standby_hammer").await;
    world.sql("rag", "create table traffic (id serial)").await;
    let hammer = Hammer::on(&world).await;
    hammer.goes_on().await;
    apply(&world);
    hammer.goes_on().await;
    let back = world.json(0, &["rollback", "--yes"]);
    assert_eq!(back["databases"][1]["via"], "standby", "{back}");
    hammer.goes_on().await;
    assert_eq!(world.value("rag", "select to_regclass('new')").await, "NULL");
    hammer.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_costs_is_told_before() {
    let world = warm("standby_cost").await;
    let plan = world.run(&["plan"]);
    let told = |text: &str| text.lines().find(|it| it.starts_with("Standby of rag: ")).unwrap_or_default().to_owned();
    assert!(told(&plan.expect(0).stdout).contains("an estimate: none was made yet"), "{}", plan.stdout);
    let run = apply(&world);
    world.file("migrations/rag/002_more.sql", "create table more (id int);\n");
    let cost = &world.json(0, &["plan"])["standbys"][0];
    assert_eq!((&cost["database"], &cost["measured"]), (&json!("rag"), &json!(run)), "{cost}");
    assert!(cost["bytes"].as_u64().expect("a size") > 1 << 20, "{cost}");
    let doctor = world.run(&["doctor"]);
    assert!(doctor.expect(0).stdout.contains(&format!("as measured in run {run}")), "{}", doctor.stdout);
    // A release that does not touch the database copies nothing.
    world.remove("migrations/rag/002_more.sql");
    world.file("migrations/chat/002_more.sql", "create table more (id int);\n");
    assert_eq!(world.json(0, &["plan"])["standbys"], Value::Null);
    assert_eq!(world.json(0, &["apply", "--yes"])["standbys"], Value::Null);
}
