//! `migrate doctor` finds what `apply` would fail of, and `apply` refuses likewise.

use crate::world::TestWorld;

async fn world(hint: &str, rest: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["a", "b"]).await;
    world.sql_plan(rest);
    for name in ["a", "b"] {
        world.file(&format!("migrations/{name}/001_t.sql"), "create table t (id int);\n");
    }
    world
}

/// `doctor` finds `name` failed, with a remedy that says `help`, and `apply` refuses in words that hold `says`.
async fn found(world: &TestWorld, name: &str, help: &str, says: &str) {
    let before = world.fingerprints().await;
    let document = world.json(1, &["doctor"]);
    let all = document["checks"].as_array().expect("a list");
    let failed: Vec<_> = all.iter().filter(|it| it["outcome"] == "failed").collect();
    let it = failed.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("{name} in {failed:#?}"));
    assert!(it["help"].as_str().is_some_and(|text| text.contains(help)), "{it:#}");
    let text = world.run(&["doctor"]);
    assert!(text.expect(1).stdout.contains("FAILED  ") && text.stdout.contains("help: "), "{}", text.stdout);
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(1).says(says).ends("No database was changed.");
    crate::world::assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_world_passes() {
    let world = world("doctor_sound", "[databases.a]\nextensions = [\"plpgsql\"]\n").await;
    let before = world.fingerprints().await;
    let ran = world.run(&["doctor"]);
    assert!(ran.expect(0).stdout.ends_with("Everything that apply needs is there.\n"), "{}", ran.stdout);
    assert!(!ran.stdout.contains("FAILED"));
    crate::world::assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_written() {
    let mut world = world("doctor_store", "").await;
    // Not even root can make a folder below a file.
    world.file("file", "");
    world.set("MIGRATE_STORE", format!("file://{}/file/store", world.path().display()));
    found(&world, "store", "may create and read objects", "file/store").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_create_databases() {
    let mut world = world("doctor_role", "").await;
    let mut session = crate::harness::connect(&crate::harness::cluster().url("postgres", "postgres")).await;
    crate::harness::execute(&mut session, "create role no_createdb login; grant release to no_createdb").await;
    let url = world.url("a").replace("user=release", "user=no_createdb");
    assert_ne!(url, world.url("a"));
    world.lead("a", url);
    let says = "a: the role no_createdb may not create databases";
    found(&world, "creates databases", "ALTER ROLE \"no_createdb\" CREATEDB", says).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_the_server_does_not_have() {
    let world = world("doctor_extension", "[databases.a]\nextensions = [\"no_such_thing\"]\n").await;
    found(&world, "extension available", "Install its package", "a: the server has no extension no_such_thing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_names_of_one_database() {
    let mut world = world("doctor_same", "").await;
    world.lead("b", world.url("a").to_owned());
    world.run(&["plan"]).expect(64).says("are one database").says("plans/production.toml:8");
    // Where the URLs do not show it, only the server knows.
    let alias = world.url("a").replace("&port=", "/.&port=");
    assert_ne!(alias, world.url("a"));
    world.lead("b", alias);
    found(&world, "different databases", "correct the one that is wrong", "one and the same database").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_are_not_there() {
    let mut world = world("doctor_programs", "").await;
    world.set("MIGRATE_PG_BIN", "/nowhere");
    found(&world, "client programs", "MIGRATE_PG_BIN", "no pg_dump and pg_restore").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_that_could_not_be_called() {
    let hook = |on: &str, call: &str| format!("[[hooks]]\non = \"{on}\"\n{call}\n");
    let hooks = hook("success", "argv = [\"true\"]")
        + &hook("rollback", "argv = [\"no-such-program\"]")
        + &hook("failure", "argv = [\"./not-there\"]")
        + &hook("rollback", "http = \"${NO_SUCH_URL}\"")
        + &hook("freeze", "argv = [\"sh\", \"-c\", \"\"]\nenv = { TOKEN = \"${NO_SUCH_TOKEN}\" }");
    let world = world("doctor_hooks", &hooks).await;
    let document = world.json(0, &["doctor"]);
    let all = document["checks"].as_array().expect("a list").iter().filter(|it| it["name"] == "hook");
    let found: Vec<_> = all.map(|it| format!("{} {}", it["outcome"], it["detail"]).replace('"', "")).collect();
    let says = [
        "passed the hook on `success` can be called",
        "warned the hook on `rollback` cannot be called: `no-such-program` is not in PATH",
        "warned the hook on `failure` cannot be called: `./not-there` is not there, or may not be run",
        "warned the hook on `rollback` cannot be called: the variable `NO_SUCH_URL` is not set",
        "warned the hook on `freeze` cannot be called: the variable `NO_SUCH_TOKEN` is not set",
    ];
    assert_eq!(found, says);
    // The release goes on, and says so.
    world.run(&["apply", "--yes"]).expect(0).says("`no-such-program` is not in PATH. Install it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_answer() {
    let mut world = world("doctor_unreachable", "").await;
    world.lead("b", world.url("b").replacen(&world.dbname("b"), "not_there", 1));
    found(&world, "connection", "URL", "not_there").await;
}
