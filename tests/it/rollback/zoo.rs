//! Databases that hold one of everything, by each way back: by standby and by snapshot they are as they were before the run, in every
//! object, row, privilege, setting and sequence; by down scripts so is everything but what was written since, which is there.

use std::collections::BTreeMap;

use super::{apply, step};
use crate::fingerprint::{Fingerprint, assert_same};
use crate::fingerprint_proof::{SUPERUSER_ZOO, ZOO, make_roles};
use crate::harness::{OWNER, as_superuser, copy_of, execute, fresh_database};
use crate::world::TestWorld;

/// The release that alters things of every kind, and its ways back.
const RELEASE: &str = include_str!("../zoo_release.sql");
/// The migration of it that is about the zoo that only a superuser can make.
const BY_SUPERUSER: &str = "006_by_a_superuser";

/// What the release leaves nothing of that could be altered.
const DESTROY: &str =
    "create table new (id int);\ndrop schema zoo cascade;\nselect lo_unlink(oid) from pg_largeobject_metadata;\n";
const DESTROY_MORE: &str = "drop foreign data wrapper zoo_wrapper cascade;\ndrop event trigger if exists zoo_ddl;\n\
     drop access method zoo_heap cascade;\ndrop publication all_of_it;\ndrop language if exists zoo_language cascade;\n";

/// What belongs to the database itself.
async fn dress(url: &str) {
    let sql = format!(
        "DO $$ DECLARE d text := quote_ident(current_database()); BEGIN
            EXECUTE 'ALTER DATABASE ' || d || ' SET search_path TO \"$user\", public, zoo';
            EXECUTE 'ALTER DATABASE ' || d || ' SET work_mem = ''7MB''';
            EXECUTE 'ALTER ROLE {OWNER} IN DATABASE ' || d || ' SET lock_timeout = ''3min''';
            EXECUTE 'ALTER DATABASE ' || d || ' SET statement_timeout = ''17min''';
            EXECUTE 'ALTER DATABASE ' || d || ' CONNECTION LIMIT 40';
            EXECUTE 'COMMENT ON DATABASE ' || d || ' IS ''it''''s the zoo''';
            EXECUTE 'REVOKE CONNECT ON DATABASE ' || d || ' FROM PUBLIC';
            EXECUTE 'GRANT CONNECT ON DATABASE ' || d || ' TO {OWNER}, zoo_reader';
         END $$"
    );
    execute(&mut crate::harness::connect(url).await, sql).await;
}

/// One database, its owner's or a superuser's.
async fn zoo(hint: &str, superuser: bool) -> TestWorld {
    make_roles().await;
    let url = fresh_database(hint).await;
    let url = if superuser { as_superuser(&url) } else { url };
    let world = TestWorld::over(BTreeMap::from([("zoo".to_owned(), url)]));
    world.sql("zoo", if superuser { SUPERUSER_ZOO } else { ZOO }).await;
    dress(world.url("zoo")).await;
    let destroy = if superuser { DESTROY.to_owned() + DESTROY_MORE } else { DESTROY.to_owned() };
    world.file("migrations/zoo/001_destroy.sql", &destroy);
    world.plan(&step("zoo"));
    world
}

/// Everything that differs after a release and its rollback, and what the rollback noted.
async fn there_and_back(world: &TestWorld, via: &str) -> (Vec<String>, String) {
    let before = fingerprint(world).await;
    apply(world);
    assert!(before.diff(&fingerprint(world).await).len() > 50, "the release destroys something");
    let back = world.json(0, &["rollback", "--via", via, "--yes"]);
    assert_eq!(back["databases"][0]["via"], via, "{back}");
    (before.diff(&fingerprint(world).await), back["notes"].to_string())
}

async fn fingerprint(world: &TestWorld) -> Fingerprint {
    crate::fingerprint::fingerprint(world.url("zoo")).await
}

const STANDBY: &str = "[databases.zoo]\nstandby = true\n";

#[tokio::test(flavor = "multi_thread")]
async fn by_standby_it_is_as_it_was() {
    let world = zoo("zoo_standby", false).await;
    world.plan(&(step("zoo") + STANDBY));
    assert_eq!(there_and_back(&world, "standby").await.0, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn by_standby_a_superusers_is_as_it_was_but_for_its_subscription() {
    let world = zoo("zoo_standby_super", true).await;
    world.plan(&(step("zoo") + STANDBY));
    // A label of a provider that is not loaded: nobody can give one, but a copy has what there is.
    world.sql("zoo", "set allow_system_table_mods = on; insert into pg_seclabel select 'zoo.t'::regclass, 'pg_class'::regclass, 0, 'keeper', 'caged'").await;
    let (differs, notes) = there_and_back(&world, "standby").await;
    // Subscriptions are the server's, and stay with the database that was replaced: the rollback says so.
    assert!(differs.iter().all(|it| it.starts_with("only before: subscription zoo_subscription")), "{differs:#?}");
    assert_eq!(differs.len(), 1, "{differs:#?}");
    assert!(notes.contains("zoo_subscription"), "{notes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_snapshot_it_is_as_it_was() {
    let world = zoo("zoo_snapshot", false).await;
    assert_eq!(there_and_back(&world, "snapshot").await.0, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn by_snapshot_a_superusers_is_as_it_was() {
    let world = zoo("zoo_snapshot_super", true).await;
    assert_eq!(there_and_back(&world, "snapshot").await.0, Vec::<String>::new());
}

/// The migrations of [`RELEASE`].
fn release(world: &TestWorld, wanted: impl Fn(&str) -> bool) -> usize {
    let files: Vec<(&str, &str)> = RELEASE
        .split("\n-- file: ")
        .skip(1)
        .filter_map(|it| it.split_once('\n'))
        .filter(|(name, _)| wanted(name))
        .collect();
    for (name, text) in &files {
        world.file(&format!("migrations/zoo/{name}.sql"), text);
    }
    world.remove("migrations/zoo/001_destroy.sql");
    files.len()
}

/// Applies, writes, and goes back: the database is what it would be with the same writes and no release. `not_copied` makes in a
/// copy what no copy of a database has.
async fn undone(world: &TestWorld, wanted: impl Fn(&str) -> bool, not_copied: &str, writes: &str) {
    let count = release(world, wanted);
    let without = copy_of(&world.dbname("zoo"), "zoo_without").await;
    let without = if world.url("zoo").ends_with("user=postgres") { as_superuser(&without) } else { without };
    dress(&without).await;
    execute(&mut crate::harness::connect(&without).await, not_copied).await;
    apply(world);
    world.sql("zoo", writes).await;
    execute(&mut crate::harness::connect(&without).await, writes).await;
    let back = world.json(0, &["rollback", "--via", "down", "--yes"]);
    assert_eq!(
        (&back["databases"][0]["via"], &back["databases"][0]["applied"]),
        (&"down".into(), &count.into()),
        "{back}"
    );
    assert_same(&crate::fingerprint::fingerprint(&without).await, &fingerprint(world).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_down_scripts_everything_is_undone_and_what_was_written_since_is_there() {
    let world = zoo("zoo_down", false).await;
    let writes = "insert into zoo.keepers (email, name, kind, many, mood, born) values ('c@example.com', 'since', 'b', 4, 'ok', '2021-01-01');
        update zoo.animals set name = 'Cow' where id = 1; delete from zoo.hashed where id = 3;
        insert into zoo.visits values (9, '2020-07-07', 'x', 100), (10, '2030-07-07', 'y', null);
        insert into others.given (t) values ('later'); select nextval('zoo.set_only'); select lo_put(424243, 0, '\\xffff');";
    undone(&world, |it| it != BY_SUPERUSER, "", writes).await;
    let there = "select count(*) from zoo.keepers where name = 'since'";
    assert_eq!(world.value("zoo", there).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_down_scripts_what_only_a_superuser_makes_is_undone_as_well() {
    let world = zoo("zoo_down_super", true).await;
    // Its comment is copied.
    let subscription = "create subscription zoo_subscription connection 'host=nowhere' publication p, q with (connect = false, \
         slot_name = none)";
    let writes = "insert into zoo.t values (7); insert into zoo.other_method values (1)";
    undone(&world, |it| it == BY_SUPERUSER, subscription, writes).await;
}
