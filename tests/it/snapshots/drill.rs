//! `migrate snapshot drill`, and what it finds.

use std::fs;

use serde_json::json;

use super::{divided, falsify};
use crate::fingerprint_proof::{ZOO, make_roles};
use crate::harness::{self, OWNER};
use crate::own_server::OwnServer;
use crate::world::{TestWorld, assert_same, until};

/// Databases on the server that a drill of `database` may have left.
async fn scratch(world: &TestWorld, database: &str) -> String {
    let like = format!("{}\\_\\_drill%", world.dbname(database).replace('_', "\\_"));
    world.ask(&format!("select count(*) from pg_database where datname like '{like}'")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_everything_passes() {
    make_roles().await;
    let world = TestWorld::new("drill_zoo", &["zoo"]).await;
    world.sql("zoo", ZOO).await;
    world.sql_plan("");
    world.file("migrations/zoo/001_more.sql", "create table more (id int);\n");
    let before = world.fingerprints().await;
    let run = world.json(0, &["snapshot", "take"])["run"].clone();
    assert_eq!(world.json(0, &["snapshot", "list"])["snapshots"][0]["drilled"], false);
    let drilled = world.json(0, &["snapshot", "drill", run.as_str().expect("an id")]);
    let it = &drilled["drills"][0];
    assert_eq!((&it["database"], &it["differences"]), (&json!("zoo"), &json!([])), "{drilled:#}");
    assert!(it["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
    assert_eq!(scratch(&world, "zoo").await, "0");
    let listed = &world.json(0, &["snapshot", "list"])["snapshots"][0];
    assert_eq!((&listed["drilled"], &listed["restored_in"]), (&json!(true), &it["seconds"]));
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_named() {
    let world = divided("drill_differs", "compression = \"zstd\"").await;
    let _ = world.run(&["snapshot", "take"]).expect(0);
    let _ = world.run(&["snapshot", "drill"]).expect(0).says("drill passed");
    let whole = fs::read(world.object("manifest.json")).expect("there");
    // A value that changed between dump and restore, an object that did not come, a sequence that would give a number twice.
    falsify(&world, |manifest| {
        let rows = manifest["tables"].as_array_mut().expect("a list");
        let small = rows.iter_mut().find(|it| it["name"] == "small").expect("there");
        small["hash"] = json!("0".repeat(32));
        manifest["catalog"]["index public.lost"] = json!("0011223344556677");
        let all = manifest["sequences"].as_array_mut().expect("a list");
        all.iter_mut().find(|it| it["name"] == "apart").expect("there")["last"] = json!(19);
    });
    let ran = world.run(&["snapshot", "drill"]);
    ran.expect(7).says("the rows of public.small have another content").says("index public.lost: missing");
    ran.says("the sequence public.apart is behind the snapshot").ends("No database was changed.");
    assert_eq!(world.json(0, &["snapshot", "list"])["snapshots"][0]["drilled"], false);
    assert_eq!(scratch(&world, "big").await, "0");
    // Rows that are missing.
    fs::write(world.object("manifest.json"), &whole).expect("ours");
    falsify(&world, |manifest| manifest["tables"][0]["rows"] = json!(36_001));
    world.run(&["snapshot", "drill"]).expect(7).says("has 36000 rows, and 36001 were dumped");
    assert_eq!(scratch(&world, "big").await, "0");
    // The latest drill counts.
    fs::write(world.object("manifest.json"), &whole).expect("ours");
    let _ = world.run(&["snapshot", "drill"]).expect(0);
    assert_eq!(world.json(0, &["snapshot", "list"])["snapshots"][0]["drilled"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_objects_are_counted_with_whose_they_are() {
    let world = TestWorld::new("drill_large", &["a"]).await;
    world
        .sql("a", "select lo_from_bytea(7, 'x'), lo_from_bytea(8, 'y'); grant select on large object 7 to public")
        .await;
    world.sql_plan("");
    world.file("migrations/a/001_u.sql", "create table u (id int);\n");
    let _ = world.run(&["snapshot", "take"]).expect(0);
    let whole = fs::read(world.object("manifest.json")).expect("there");
    let _ = world.run(&["snapshot", "drill"]).expect(0);
    for (field, value) in [("owner", json!("zoo_other")), ("acl", json!("nobody")), ("oids", json!(9))] {
        falsify(&world, |manifest| manifest["large_objects_held"][0][field] = value.clone());
        world.run(&["snapshot", "drill"]).expect(7).says("large objects have other owners, privileges or numbers");
        fs::write(world.object("manifest.json"), &whole).expect("ours");
    }
    falsify(&world, |manifest| manifest["large_objects"] = json!(3));
    world.run(&["snapshot", "drill"]).expect(7).says("2 large objects, and 3 were dumped");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_drill_that_was_killed_left_behind_goes_with_the_next() {
    let world = TestWorld::new("drill_left", &["a"]).await;
    world.sql("a", "create table t (id int primary key); insert into t select generate_series(1, 500)").await;
    world.sql_plan("");
    world.file("migrations/a/001_u.sql", "create table u (id int);\n");
    let plan = world.run(&["plan"]).expect(0).stdout.clone();
    assert!(plan.contains("restoring a was not measured: no drill was made"), "{plan}");
    let run = world.json(0, &["snapshot", "take"])["run"].clone();
    let names = ["482k3f", "482k3g"].map(|tail| format!("{}__drill_20260101_000000_{tail}", world.dbname("a")));
    let mut server = harness::connect(&harness::cluster().url(harness::OWNER, "postgres")).await;
    for name in &names {
        harness::execute(&mut server, format!("create database {name}")).await;
    }
    // Somebody drills into the second one.
    let key = format!("select pg_advisory_lock(hashtextextended('migrate drill {}', 0))", names[1]);
    harness::execute(&mut server, key).await;
    world.run(&["snapshot", "drill"]).expect(0).says(&format!("dropped {}, which a drill", names[0]));
    let left = format!(
        "select string_agg(datname, ' ') from pg_database where datname like '{}\\_\\_drill%'",
        world.dbname("a").replace('_', "\\_")
    );
    assert_eq!(world.ask(&left).await, names[1]);
    // What it measured is told beforehand.
    let plan = world.run(&["plan"]).expect(0).stdout.clone();
    let told = format!("in the drill of run {}, just now", run.as_str().expect("an id"));
    assert!(plan.contains("restoring a took ") && plan.contains(&told), "{plan}");
    let document = world.json(0, &["plan"]);
    assert!(document["databases"][0]["drilled"]["seconds"].as_f64().is_some_and(|it| it > 0.0), "{document:#}");
    drop(server);
    world.run(&["snapshot", "drill"]).expect(0).says(&format!("dropped {}, which a drill", names[1]));
    assert_eq!(scratch(&world, "a").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_autovacuum_does_not_keep_a_scratch_database() {
    let own = OwnServer::start(&[("autovacuum_naptime", "1s")]).await;
    let world = own.world("busy", "").await;
    world.sql("a", "create table t (id int primary key); insert into t select generate_series(1, 500)").await;
    world.sql_plan("");
    world.file("migrations/a/001_u.sql", "create table u (id int);\n");
    world.run(&["snapshot", "take"]).expect(0);
    // Left by a drill, with a table whose vacuum takes minutes.
    let left = "busy__drill_20260101_000000_482k3f";
    own.sql(&format!("create database {left} owner {OWNER}")).await;
    let slow = "create table slow (id int, more text) with (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0,
                autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1, fillfactor = 10);
                insert into slow select n, repeat('x', 500) from generate_series(1, 20000) n; delete from slow";
    harness::execute(&mut harness::connect(&own.cluster.url(OWNER, left)).await, slow).await;
    let mut watch = own.session().await;
    until("autovacuum works in it", async || {
        let at_work =
            "select exists (select from pg_stat_activity where backend_type = 'autovacuum worker' and datname = $1)";
        sqlx::query_scalar(at_work).bind(left).fetch_one(&mut watch).await.expect("an answer")
    })
    .await;
    world.run(&["snapshot", "drill"]).expect(0).says(&format!("dropped {left}, which a drill"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_may_drill_before_it_changes_anything() {
    let world = TestWorld::new("drill_apply", &["a"]).await;
    world.sql("a", "create table t (id int primary key); insert into t select generate_series(1, 500)").await;
    world.sql_plan("[run]\ndrill = true\n");
    world.file("migrations/a/001_u.sql", "create table u (id int);\n");
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(0).says("Restoring the snapshots in a drill").says("a: drill passed");
    assert_eq!(world.json(0, &["snapshot", "list"])["snapshots"][0]["drilled"], true);
    // The responder is told what was measured.
    let ahead = world.json(0, &["rollback", "--dry-run"]);
    assert!(ahead["databases"][0]["drilled"]["seconds"].as_f64().is_some_and(|it| it > 0.0), "{ahead:#}");
    let text = world.run(&["rollback", "--dry-run"]).expect(0).stdout.clone();
    assert!(text.contains(" by a drill at "), "{text}");
    // A database that can be dumped and not be restored: a restore has an empty search_path.
    let trap = "create table other (id int); create function known(int) returns bigint immutable language sql as 'select count(*)
                from other where id = $1'; create index on t (known(id))";
    world.sql("a", trap).await;
    world.file("migrations/a/002_v.sql", "create table v (id int);\n");
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(1).says("relation \"other\" does not exist").ends("No database was changed.");
    assert_eq!(world.value("a", "to_regclass('v') is null").await, "true");
    assert_eq!(scratch(&world, "a").await, "0");
}
