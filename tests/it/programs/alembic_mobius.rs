//! Alembic folders as the platform has them: `env.py` imports the application and prints, takes its URL from the environment in
//! one of two ways, goes to localhost where nothing is set, and lies in a folder that is relative to where Alembic is started.

use std::fs;

use serde_json::json;

use super::{interpreter, output, two_way};
use crate::world::{TestWorld, assert_same, finish, until};

const DOWN: [&str; 4] = ["rollback", "--via", "down", "--yes"];
const VERSION: &str = "select string_agg(version_num, ',') from alembic_version";

const ENV_PY: &str = r#"
import sys
sys.path.insert(0, ".")
from alembic import context
from sqlalchemy import create_engine, pool
import settings
print("env.py: migrating", settings.url().split("@")[-1])
if context.is_offline_mode():
    context.configure(url=settings.url(), literal_binds=True, dialect_opts={"paramstyle": "named"})
    with context.begin_transaction():
        context.run_migrations()
else:
    with create_engine(settings.url(), poolclass=pool.NullPool).connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
"#;

const SETTINGS: &str = r#"
import os
from urllib.parse import quote

def url():
    if "USER_DATABASE_URL" in os.environ:
        return os.environ["USER_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
    mode = "CLOUD" if os.environ.get("DATABASE_MODE") == "cloud" else "LOCAL"
    part = lambda name, default: os.environ.get(f"POSTGRES_{name}_{mode}", default)
    host, port, user = part("HOST", "localhost"), part("PORT", "1"), part("USER", "postgres")
    return f"postgresql+psycopg://{user}@/{part('DB', 'mobius')}?host={quote(host, safe='')}&port={port}"
"#;

/// The database's URL in one variable, or its parts in several.
const WAYS: [&str; 2] = [
    "{ USER_DATABASE_URL = \"${url}\" }",
    "{ DATABASE_MODE = \"local\", POSTGRES_HOST_LOCAL = \"${host}\", POSTGRES_PORT_LOCAL = \"${port}\", \
     POSTGRES_DB_LOCAL = \"${dbname}\", POSTGRES_USER_LOCAL = \"${user}\" }",
];

fn step(env: &str, mode: &str) -> String {
    format!(
        "[[steps]]\nname = \"os-schema\"\ndatabase = \"os\"\nkind = \"alembic\"\ndir = \"os\"\ninterpreter = \"{}\"\n\
         env = {env}\n{mode}",
        interpreter()
    )
}

/// Three revisions, of which the last changes data.
fn revisions(world: &TestWorld) {
    world.file("os/alembic.ini", "[alembic]\nscript_location = migrations\n");
    world.file("os/migrations/env.py", ENV_PY);
    world.file("os/settings.py", SETTINGS);
    two_way(world, "a1", None, "create table app_user (id int primary key, role text)", "drop table app_user");
    two_way(world, "b2", Some("a1"), "create table role (name text)", "drop table role");
    let up = "insert into role select distinct role from app_user where role is not null";
    two_way(world, "c3", Some("b2"), up, "delete from role");
}

#[tokio::test(flavor = "multi_thread")]
async fn there_and_back_and_there_again_with_every_quirk() {
    for (env, mode) in WAYS.into_iter().zip(["", "mode = \"sql\"\n"]) {
        let mut world = TestWorld::new("mob_round", &["os"]).await;
        world.plan(&step(env, mode));
        revisions(&world);
        // What the operator's shell has set goes nowhere.
        world.set("POSTGRES_HOST_CLOUD", "/nowhere");
        world.set("DATABASE_MODE", "cloud");
        let before = world.fingerprints().await;
        let plan = world.json(0, &["plan"]);
        let names: Vec<&str> = plan["steps"][0]["pending"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(|it| it["name"].as_str())
            .collect();
        assert_eq!(names, ["a1", "b2", "c3"], "what env.py prints is not in the answer: {plan}");
        let ran = world.run(&["apply", "--yes", "--json"]);
        assert_eq!(ran.expect(0).document()["databases"][0]["applied"], 3);
        assert_eq!(world.value("os", VERSION).await, "c3");
        if mode.is_empty() {
            let log = output(&world, "/output/os-schema/c3.log");
            assert!(log.contains("env.py: migrating"), "{log}");
            let one = "select count(distinct xmin::text) from pg_class where relname in ('app_user', 'role')";
            assert_eq!(world.value("os", one).await, "1", "all revisions are one transaction");
        }
        let back = world.json(0, &DOWN);
        assert_eq!((&back["outcome"], &back["databases"][0]["via"]), (&json!("rolled_back"), &json!("down")), "{back}");
        world.sql("os", "drop table alembic_version").await;
        assert_same(&before, &world.fingerprints().await);

        assert_eq!(world.json(0, &["apply", "--yes"])["databases"][0]["applied"], 3);
        assert_eq!(world.json(0, &["rollback", "--yes"])["databases"][0]["via"], "snapshot");
        assert_same(&before, &world.fingerprints().await);
        assert_eq!(world.json(0, &["apply", "--yes"])["databases"][0]["applied"], 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_is_not_declared_leads_to_localhost_and_is_found_out() {
    let world = TestWorld::new("mob_localhost", &["os"]).await;
    world.plan(&step("{ USER_DATABASE_URI = \"${url}\" }", ""));
    revisions(&world);
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(3).says("os: `c3` failed").says("localhost").ends("Rolled back, as before the run: os.");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_checkout_on_a_newer_database_is_refused_and_rolls_nothing_back() {
    let world = TestWorld::new("mob_old", &["os"]).await;
    world.plan(&step(WAYS[0], ""));
    revisions(&world);
    let run = world.json(0, &["apply", "--yes"])["run"].as_str().expect("a run").to_owned();
    let after = world.fingerprints().await;
    fs::remove_file(world.path().join("os/migrations/versions/c3.py")).expect("it was there");
    for command in [&["plan"][..], &["apply", "--yes"]] {
        let ran = world.run(command);
        ran.expect(6)
            .says("can't locate revision `c3`, which alembic_version has, in os")
            .ends("No database was changed.");
    }
    let status = world.json(0, &["status"]);
    assert_eq!(status["databases"][0]["changed"][0]["reason"], "missing", "{status}");
    world.run(&DOWN).expect(4).says("os-schema/c3 on os: the checkout does not have it").says(&run);
    assert_same(&after, &world.fingerprints().await);
    revisions(&world);
    assert_eq!(world.json(0, &DOWN)["outcome"], "rolled_back");
}

/// Nothing of a run of several revisions is there before all of it is.
#[tokio::test(flavor = "multi_thread")]
async fn all_pending_revisions_are_seen_at_once() {
    let world = TestWorld::new("mob_one", &["os"]).await;
    world.plan(&(step(WAYS[0], "") + "lock_timeout = \"60s\"\n"));
    revisions(&world);
    two_way(&world, "d4", Some("c3"), "select pg_advisory_xact_lock(42)", "select 1");
    let mut gate = world.gate("os").await;
    let started = world.start(&["apply", "--yes"]);
    gate.reached().await;
    assert_eq!(world.value("os", "select to_regclass('app_user')").await, "NULL");
    gate.open().await;
    let _ = finish(started).expect(0);
    until("it is there", async || world.value("os", "select to_regclass('app_user')").await == "app_user").await;
    assert_eq!(world.json(0, &DOWN)["outcome"], "rolled_back");
}
