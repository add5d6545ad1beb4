//! Steps of kind `alembic`.

use serde_json::Value;

use super::{alembic_folder, alembic_step, output, revision};
use crate::world::{TestWorld, assert_same};

async fn world(hint: &str, databases: &[&str], rest: &str) -> TestWorld {
    let world = TestWorld::new(hint, databases).await;
    world.plan(&alembic_step(databases[0], rest));
    alembic_folder(&world);
    revision(&world, "a1", None, "create table first (id int primary key)");
    revision(&world, "b2", Some("a1"), "insert into first values (1), (2)");
    world
}

fn pending(plan: &Value) -> Vec<&str> {
    let units = plan["steps"][0]["pending"].as_array().expect("a list");
    for unit in units {
        assert_eq!(unit["checksum"].as_str().map(str::len), Some(64), "{unit}");
    }
    units.iter().filter_map(|it| it["name"].as_str()).collect()
}

const LEDGER: &str = "select string_agg(concat_ws(' ', name, kind, state, execution_ms >= 0, up_sql is not null), ',' order by \
                      name) from migrate.ledger";
const VERSION: &str = "select string_agg(version_num, ',') from alembic_version";

#[tokio::test(flavor = "multi_thread")]
async fn revisions_are_listed_applied_and_recorded_one_by_one() {
    let world = world("al_forward", &["os"], "").await;
    let plan = world.json(0, &["plan"]);
    assert_eq!(pending(&plan), ["a1", "b2"]);
    let unit = &plan["steps"][0]["pending"][0];
    let (file, sum) = (unit["file"].as_str().expect("a file"), unit["checksum"].as_str().expect("a checksum"));
    assert!(file.starts_with("os/") && world.path().join(file).is_file(), "{unit}");
    let listed = format!("   a1  {file}, sha256 {}…  [", &sum[..12]);
    assert!(world.run(&["plan"]).expect(0).stdout.contains(&listed), "{listed}");
    assert_eq!(world.value("os", "select to_regclass('alembic_version')").await, "NULL");
    assert_eq!(world.json(0, &["apply", "--yes"])["databases"][0]["applied"], 2);
    assert_eq!(world.value("os", VERSION).await, "b2");
    assert_eq!(world.value("os", LEDGER).await, "a1 alembic applied t t,b2 alembic applied t t");
    assert_eq!(world.value("os", "select count(*) from first").await, "2");
    let log = output(&world, "/output/os-schema/b2.log");
    assert!(log.contains("env.py speaks") && log.contains("revision b2 is imported"), "{log}");
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");

    revision(&world, "c3", Some("b2"), "create table third (id int)");
    assert_eq!(pending(&world.json(0, &["plan", "--out", "saved.json"])), ["c3"]);
    assert_eq!(world.json(0, &["apply", "saved.json", "--yes"])["databases"][0]["applied"], 1);
    assert_eq!(world.value("os", VERSION).await, "c3");
    assert_eq!(world.value("os", "select count(*) from migrate.ledger where state = 'applied'").await, "3");
    // What Alembic itself applied in former times is applied, with or without a row of ours.
    world.sql("os", "delete from migrate.ledger where name < 'c3'").await;
    let status = world.json(0, &["status"]);
    assert_eq!(status["databases"][0]["applied"], 3, "{status}");
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
    assert!(!world.path().join("os/migrations/__pycache__").exists(), "nothing is left in the checkout");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_alembic_cannot_go_on_from_is_refused_by_name() {
    let world = world("al_refused", &["os"], "").await;
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let before = world.fingerprints().await;
    let refused = |code: i32, said: &str| {
        let ran = world.run(&["apply", "--yes"]);
        ran.expect(code).says(said).ends("No database was changed.");
    };
    revision(&world, "c3", Some("b2"), "select 3");
    revision(&world, "d4", Some("b2"), "select 4");
    refused(64, "error: os: Alembic has several heads in os: c3, d4");
    let status = world.json(0, &["status"]);
    let os = &status["databases"][0];
    assert_eq!(os["reachable"], true, "{status}");
    assert!(os["error"].as_str().expect("a text").contains("several heads in os: c3, d4"), "{status}");
    assert!(world.run(&["status"]).expect(0).stdout.contains("  ERROR    step `os-schema`: Alembic has several heads"));
    let doctor = world.json(1, &["doctor"]).to_string();
    assert!(doctor.contains("several heads in os") && doctor.contains("alembic merge heads"), "{doctor}");
    for name in ["c3", "d4"] {
        world.remove(&format!("os/migrations/versions/{name}.py"));
    }
    revision(&world, "b2", Some("a1"), "insert into first values (1), (3)");
    refused(6, "ledger and file disagree about `b2`");
    revision(&world, "b2", Some("a1"), "insert into first values (1), (2)");
    assert_same(&before, &world.fingerprints().await);

    world.sql("os", "update alembic_version set version_num = 'a1'").await;
    refused(6, "the ledger has `b2`, and by alembic_version it is not applied");
    world.sql("os", "update alembic_version set version_num = 'zz9'").await;
    refused(6, "can't locate revision `zz9`");
    world.file("os/migrations/versions/broken.py", "revision = \n");
    refused(64, "Alembic cannot read its revisions in os: ");
    world.remove("os/migrations/versions/broken.py");
    world.remove("os/alembic.ini");
    refused(1, "Alembic cannot be asked for its revisions in os");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_fails_leaves_everything_as_before() {
    let world = world("al_fails", &["os"], "").await;
    revision(&world, "c3", Some("b2"), "select no_such_column from first");
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(3).says("error: os: `c3` failed").says("column \"no_such_column\" does not exist");
    ran.ends("Rolled back, as before the run: os.");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_env_py_that_goes_to_another_database_is_found_out() {
    let world = world("al_astray", &["os", "user"], "").await;
    let other = format!("postgresql+psycopg://{}", world.url("user").trim_start_matches("postgresql://"));
    let path = "os/migrations/env.py";
    let text = std::fs::read_to_string(world.path().join(path)).expect("it was written");
    world.file(path, &text.replace("if context.is_offline", &format!("url = '{other}'\nif context.is_offline")));
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(3).says("step `os-schema` is for os, and changed another database: user: ");
    ran.says("table public.first appeared").says("table public.alembic_version appeared");
    ran.says("os: Alembic exited with 0, and alembic_version does not have `a1`");
    ran.ends("Rolled back, as before the run: os, user.");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn rendered_revisions_are_transactions_with_their_ledger_rows() {
    let world = world("al_sql", &["os"], "mode = \"sql\"\n").await;
    let plan = world.json(0, &["plan"]);
    assert_eq!(plan["steps"][0]["pending"][0]["transactional"], true);
    assert_eq!(world.json(0, &["apply", "--yes"])["databases"][0]["applied"], 2);
    assert_eq!(world.value("os", VERSION).await, "b2");
    let one =
        "select count(distinct xmin::text) || ' ' || bool_and(up_sql like '%alembic_version%') from migrate.ledger";
    assert_eq!(world.value("os", one).await, "2 true", "each is a transaction, and its row has what was sent");
    let same = "select count(*) from migrate.ledger join alembic_version on alembic_version.xmin = ledger.xmin and name = \
                version_num";
    assert_eq!(world.value("os", same).await, "1", "alembic_version and the ledger row were committed together");
    let kept = output(&world, "/migrations/os-schema/b2.sql");
    assert!(kept.contains("insert into first values (1), (2)"), "{kept}");

    revision(&world, "c3", Some("b2"), "create table third (id int)");
    revision(&world, "d4", Some("c3"), "select no_such_column from first");
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(3)
        .says("`d4` failed at os/migrations/versions/d4.py.sql:")
        .says("no_such_column")
        .says("SQLSTATE 42703");
    assert_same(&before, &world.fingerprints().await);

    world.file(
        "os/migrations/versions/d4.py",
        "from alembic import op\n\nrevision = 'd4'\ndown_revision = 'c3'\n\n\ndef upgrade():\n    with \
         op.get_context().autocommit_block():\n        op.execute('create index concurrently f on first (id)')\n",
    );
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(1).says("os/migrations/versions/d4.py.sql:").says("`mode = \"sql\"`").ends("No database was changed.");
    assert_same(&before, &world.fingerprints().await);
}
