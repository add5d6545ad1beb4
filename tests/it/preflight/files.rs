//! What the pending migrations want of their database by their words: privileges, roles, extensions.

use super::{one_migration, refused};
use crate::world::TestWorld;

async fn world(hint: &str, migration: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["a"]).await;
    world.sql_plan("");
    world.file("migrations/a/001_t.sql", migration);
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_in_which_the_role_may_make_nothing() {
    let world = world("pre_schema", "create table other.t (id int);\n").await;
    world.sql_as_superuser("a", "create schema other").await;
    let says = "the role release may not create anything in the schema other";
    refused(&world, "creates in the database", "GRANT CREATE ON SCHEMA \"other\" TO \"release\"", says).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_in_which_the_role_may_make_no_schema() {
    let world = TestWorld::new("pre_create", &["a"]).await;
    one_migration(&world, "");
    let name = world.dbname("a");
    world.sql("a", &format!("revoke create on database \"{name}\" from release")).await;
    let help = format!("GRANT CREATE ON DATABASE \"{name}\" TO \"release\"");
    refused(&world, "creates in the database", &help, "the role release may not create schemas").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_there_is_not() {
    let world = world("pre_role", "create table t (id int);\ngrant select on t to nobody_here;\n").await;
    let says = "a: the server has no role nobody_here, which pending migrations name";
    refused(&world, "roles", "CREATE ROLE \"nobody_here\" NOLOGIN", says).await;
    // What code makes, nobody knows before it has run.
    world.file("migrations/a/000_make.sql", "do $$ begin raise notice 'it might make a role'; end $$;\n");
    let document = world.json(0, &["doctor"]);
    assert_eq!(super::findings(&document, "roles")[0]["outcome"], "warned", "{document:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_make_roles() {
    let world = world("pre_make_role", "create role made_by_a_file nologin;\n").await;
    refused(&world, "creates roles", "ALTER ROLE \"release\" CREATEROLE", "may not create roles").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_the_server_lacks_or_keeps_to_itself() {
    let world = world("pre_extension", "create extension no_such_thing;\n").await;
    let says = "a: the server has no extension no_such_thing, which a pending migration creates";
    refused(&world, "extension available", "Install its package", says).await;
    world.file("migrations/a/001_t.sql", "create extension if not exists file_fdw;\n");
    // A superuser's, and there already: nothing is in the way.
    world.sql_as_superuser("a", "create extension file_fdw").await;
    world.json(0, &["doctor"]);
    world.sql_as_superuser("a", "drop extension file_fdw").await;
    let document = world.json(0, &["doctor"]);
    assert_eq!(super::findings(&document, "extension available")[0]["outcome"], "warned", "{document:#}");
    world.file("migrations/a/001_t.sql", "select 1;\n");
    world.sql_as_superuser("a", "create extension file_fdw").await;
    // What an extension brought along is a superuser's, and no stranger's.
    world.run(&["apply", "--yes"]).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_a_superusers() {
    let text = "do $$ begin if false then create table no (); end if; end $$;\n-- migrate:down\nselect 1;\n";
    let world = world("pre_superuser", text).await;
    world.run(&["apply", "--yes"]).expect(0);
    world.file("migrations/a/002_t.sql", "-- migrate:no-transaction\nalter system set work_mem = '4MB';\n");
    let document = world.json(0, &["doctor"]);
    assert_eq!(super::findings(&document, "superuser")[0]["outcome"], "warned", "{document:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_world_that_lacks_nothing_is_told_so() {
    let text = "create schema own;\ncreate table own.t (id int);\ngrant select on own.t to release, public;\n";
    let world = world("pre_fine", text).await;
    let document = world.json(0, &["doctor"]);
    let all = document["checks"].as_array().expect("a list");
    assert!(all.iter().all(|it| it["outcome"] == "passed"), "{document:#}");
    world.run(&["apply", "--yes"]).expect(0);
}
