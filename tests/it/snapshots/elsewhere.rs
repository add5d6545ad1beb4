//! `migrate snapshot restore`: into a new database, on the same server and on one that lacks the roles.

use migrate::outside::cluster::{Cluster, ClusterOptions};

use crate::fingerprint::fingerprint;
use crate::harness;
use crate::world::TestWorld;

/// A database whose objects belong to two roles, one of which another server will not have.
async fn world(hint: &str) -> (TestWorld, String) {
    let world = TestWorld::new(hint, &["a"]).await;
    let role = format!("{}_reader", world.dbname("a"));
    world.sql_as_superuser("a", &format!("create role {role}; grant {role} to release")).await;
    let sql = format!(
        "create table t (id int primary key); insert into t select generate_series(1, 300); create table theirs (id int); grant create
         on database {db} to {role}; create schema own authorization {role};
         grant usage, create on schema public to {role}; alter table theirs owner to {role}; grant select on t to {role};
         alter database {db} set work_mem = '9MB'; comment on database {db} is 'it''s'",
        db = world.dbname("a")
    );
    world.sql("a", &sql).await;
    world.sql_plan("");
    world.file("migrations/a/001_u.sql", "create table u (id int);\n");
    let _ = world.run(&["snapshot", "take"]).expect(0);
    (world, role)
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_the_live_one() {
    let (world, _) = world("elsewhere").await;
    let (dbname, before) = (world.dbname("a"), world.fingerprints().await);
    let new = format!("{dbname}_copy");
    world.run(&["snapshot", "restore", "--only", "a", "--as", &dbname]).expect(1).says("exists already");
    let _ = world.run(&["snapshot", "restore", "--only", "nobody", "--as", &new]).expect(64);
    let restored = world.json(0, &["snapshot", "restore", "--only", "a", "--as", &new]);
    assert_eq!((&restored["rows"], &restored["notes"]), (&300.into(), &serde_json::json!([])), "{restored:#}");
    let copy = fingerprint(&world.url("a").replace(&dbname, &new)).await;
    assert_eq!(before["a"].diff(&copy), Vec::<String>::new());
    world.run(&["snapshot", "restore", "--only", "a", "--as", &new]).expect(1).says("exists already");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_server_that_lacks_roles() {
    let (mut world, role) = world("elsewhere_roles").await;
    let before = world.fingerprints().await;
    let other = Cluster::start(ClusterOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let superuser = other.url("postgres", "postgres");
    let mut session = harness::connect(&superuser).await;
    harness::execute(&mut session, "create role mover login createdb createrole").await;
    world.lead("a", other.url("mover", "postgres"));
    let restore = |more: &[&'static str]| [&["snapshot", "restore", "--only", "a", "--as"], more].concat();
    world.run(&restore(&["x"])).expect(1).says(&role).says("--create-roles").ends("No database was changed.");
    // Without their owners.
    let _ = world.run(&restore(&["ours", "--no-owner"])).expect(0);
    let owners = "select string_agg(distinct tableowner, ' ') from pg_tables where schemaname = 'public'";
    let mut ours = harness::connect(&other.url("mover", "ours")).await;
    let owner: String = sqlx::query_scalar(owners).fetch_one(&mut ours).await.expect("tables");
    assert_eq!(owner, "mover");
    // With roles made for them.
    let made = world.json(0, &[&restore(&["theirs"])[..], &["--create-roles"]].concat());
    assert_eq!(made["created_roles"], serde_json::json!([role, "release"]), "{made:#}");
    let can_login: bool =
        sqlx::query_scalar("select bool_or(rolcanlogin) from pg_roles where rolname in ($1, 'release')")
            .bind(&role)
            .fetch_one(&mut session)
            .await
            .expect("roles");
    assert!(!can_login);
    let theirs = fingerprint(&other.url("postgres", "theirs")).await;
    assert_eq!(before["a"].diff(&theirs), Vec::<String>::new());
}
