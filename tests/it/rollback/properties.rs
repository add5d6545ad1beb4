//! What belongs to a database itself, and which databases are restored at all.

use std::collections::BTreeMap;

use super::{apply, prepare, release, step};
use crate::harness::{OWNER, cluster, connect, execute};
use crate::world::{TestWorld, assert_same};

/// A world over one database that the superuser made by `options`, under the plan's name `rag`.
async fn made_by(dbname: &str, options: &str) -> TestWorld {
    let mut server = connect(&cluster().url("postgres", "postgres")).await;
    execute(&mut server, format!("create database \"{dbname}\" template template0 owner {OWNER} {options}")).await;
    let world = TestWorld::over(BTreeMap::from([("rag".to_owned(), cluster().url(OWNER, dbname))]));
    prepare(&world, &["rag"]);
    world
}

async fn there_and_back(world: &TestWorld) {
    let (before, oid) = (world.fingerprints().await, world.oid("rag").await);
    apply(world);
    assert_eq!(world.json(0, &["rollback", "--yes"])["outcome"], "rolled_back");
    assert_ne!(world.oid("rag").await, oid, "another database has its place");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_the_database_itself_survives() {
    let world = made_by("Props-Of-Rag", "connection limit 40").await;
    let name = "\"Props-Of-Rag\"";
    world
        .sql_as_superuser(
            "rag",
            &format!(
                "create role props_owner; create role props_reader; create role props_admin; grant props_owner to {OWNER};
                 alter database {name} owner to props_owner;
                 alter schema public owner to pg_database_owner;
                 revoke all on database {name} from public;
                 grant connect, temporary on database {name} to {OWNER};
                 grant connect on database {name} to props_reader;
                 grant create on database {name} to props_admin with grant option;
                 alter database {name} set search_path to \"a, b\", \"C\"\"d\", public;
                 alter database {name} set statement_timeout to '17min';
                 alter database {name} set \"DateStyle\" to 'ISO, DMY';
                 grant set on parameter my.own to {OWNER};
                 alter database {name} set my.own to 'it''s; \"so\"';
                 alter role {OWNER} in database {name} set search_path to '';
                 alter role {OWNER} in database {name} set work_mem to '5MB';
                 comment on database {name} is e'line 1\\nit''s \"two\"';"
            ),
        )
        .await;
    world.file("migrations/rag/001_new.sql", "create table public.new (id int);\n");
    there_and_back(&world).await;
    let settings = format!(
        "select string_agg(array_to_string(setconfig, '|'), '/' order by setrole) from pg_db_role_setting where setdatabase = {}",
        world.oid("rag").await
    );
    let expected =
        "search_path=\"a, b\", \"C\"\"d\", public|statement_timeout=17min|DateStyle=ISO, DMY|my.own=it's; \"so\"";
    assert_eq!(world.ask(&settings).await, format!("{expected}/search_path=\"\"|work_mem=5MB"));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_encodings_and_locales_survive() {
    there_and_back(&made_by("props_c", "encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'").await).await;
    there_and_back(&made_by("props_icu", "locale_provider icu icu_locale 'de-AT' encoding 'UTF8'").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_public_that_was_dropped_stays_away() {
    let world = release("no_public", &["rag"]).await;
    world.file("migrations/rag/001_new.sql", "create schema app;\ncreate table app.new (id int);\n");
    world.sql("rag", "create schema other; create table other.t (id int); drop schema public").await;
    there_and_back(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_superuser_may_set_is_noted() {
    let world = release("noted", &["rag"]).await;
    let name = world.dbname("rag");
    world.sql_as_superuser("rag", &format!("alter database {name} set log_min_messages to 'debug1'")).await;
    world.sql_as_superuser("rag", &format!("alter database {name} set work_mem to '7MB'")).await;
    apply(&world);
    let ran = world.run(&["rollback", "--yes"]);
    ran.expect(0).says("note: ").says("log_min_messages").says("42501");
    assert_eq!(world.value("rag", "select to_regclass('new')").await, "NULL");
    assert_eq!(world.value("rag", "current_setting('work_mem')").await, "7MB");
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_that_the_run_did_not_touch_are_left_alone() {
    let world = release("untouched", &["chat", "rag"]).await;
    world.plan(&step("rag"));
    let (chat, rag) = (world.oid("chat").await, world.oid("rag").await);
    apply(&world);
    let back = world.json(0, &["rollback", "--yes"]);
    assert_eq!((world.oid("chat").await, world.oid("rag").await != rag), (chat, true), "{back}");
    assert_eq!(back["databases"][0]["rolled_back"], false, "{back}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replaced_database_is_kept_with_what_was_written_later() {
    let world = release("kept", &["rag"]).await;
    apply(&world);
    world.sql("rag", "insert into new values (42)").await;
    let back = world.json(0, &["rollback", "--yes"]);
    let kept = back["databases"][0]["kept_as"].as_str().expect("a name").to_owned();
    let mut session = connect(&cluster().url(OWNER, &kept)).await;
    let found: i32 = sqlx::query_scalar("select id from new").fetch_one(&mut session).await.expect("one row");
    assert_eq!(found, 42);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_names_that_differ_at_their_ends_do_not_meet() {
    let mut urls = BTreeMap::new();
    let mut server = connect(&cluster().url(OWNER, "postgres")).await;
    for name in ["chat", "rag"] {
        let dbname = format!("{:x<63}", format!("a_name_as_long_as_names_can_be_of_{name}"));
        execute(&mut server, format!("create database \"{dbname}\"")).await;
        urls.insert(name.to_owned(), cluster().url(OWNER, &dbname));
    }
    let world = TestWorld::over(urls);
    prepare(&world, &["chat", "rag"]);
    for name in ["chat", "rag"] {
        world.sql(name, &format!("create table i_am_{name} (id int)")).await;
    }
    let before = world.fingerprints().await;
    apply(&world);
    let back = world.json(0, &["rollback", "--yes"]);
    assert_same(&before, &world.fingerprints().await);
    assert_ne!(back["databases"][0]["kept_as"], back["databases"][1]["kept_as"]);
}
