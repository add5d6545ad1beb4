//! `migrate plan`.

use serde_json::json;

use crate::world::{TestWorld, assert_same, sql_step};

async fn world(hint: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["a", "b", "c"]).await;
    let steps =
        format!("{}after = [\"c-schema\"]\n{}{}after = [\"b-schema\"]\n", sql_step("a"), sql_step("b"), sql_step("c"));
    let table = |database: &str| format!("{{ database = \"{database}\", table = \"t\" }}");
    let (source, target) = (table("a"), table("b"));
    world.plan(&format!(
        "{steps}[[checks]]\nname = \"same\"\nwhen = \"after\"\nkind = \"sync\"\nsource = {source}\ntarget = {target}\n\
         key = [\"id\"]\n"
    ));
    for name in ["a", "b", "c"] {
        world.file(&format!("migrations/{name}/001_t.sql"), "create table t (id int primary key);\n");
        world.file(&format!("migrations/{name}/001_t.down.sql"), "drop table t;\n");
    }
    world.file("migrations/c/002_i.sql", "-- migrate:no-transaction\ncreate index concurrently i on t (id);\n");
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_is_printed_and_the_same_in_every_process() {
    let world = world("plan_order").await;
    let first = world.run(&["plan"]);
    let steps: Vec<&str> =
        first.expect(0).stdout.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).collect();
    let wanted = [
        "1. b-schema on b (sql)",
        "2. c-schema on c (sql, after b-schema)",
        "3. a-schema on a (sql, after c-schema)",
        "4 migrations pending; snapshots first of: a, b, c",
    ];
    assert_eq!(steps, wanted);
    assert!(first.stdout.contains("   002_i  [no transaction; back by snapshot only]\n"), "{}", first.stdout);
    for _ in 0..20 {
        assert_eq!(world.run(&["plan"]).expect(0).stdout, first.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_json_has_the_fields_of_the_contract() {
    let world = world("plan_json").await;
    let it = world.json(0, &["plan"]);
    assert_eq!((&it["plan"], &it["target"]), (&"test".into(), &"local".into()));
    assert_eq!(it["order"], json!(["b-schema", "c-schema", "a-schema"]));
    let step = &it["steps"][1];
    assert_eq!((&step["name"], &step["database"], &step["kind"]), (&"c-schema".into(), &"c".into(), &"sql".into()));
    assert_eq!(step["after"], json!(["b-schema"]));
    let pending = step["pending"].as_array().expect("a list");
    let seen: Vec<_> = pending.iter().map(|it| (&it["name"], &it["transactional"], &it["reversible"])).collect();
    assert_eq!(seen, [(&"001_t".into(), &true.into(), &true.into()), (&"002_i".into(), &false.into(), &false.into())]);
    assert!(
        pending.iter().all(|it| it["hazards"].is_array() && it["checksum"].as_str().is_some_and(|it| it.len() == 64))
    );
    assert_eq!(it["checks"], json!([{ "name": "same", "when": "after", "kind": "sync" }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_digest_stands_for_the_work() {
    let world = world("plan_digest").await;
    let digest = || world.json(0, &["plan"])["digest"].as_str().expect("a digest").to_owned();
    let first = digest();
    assert_eq!((first.len(), digest()), (64, first.clone()));
    world.file("migrations/a/002_more.sql", "select 1;\n");
    let more = digest();
    world.file("migrations/a/002_more.sql", "select 2;\n");
    let other = digest();
    world.remove("migrations/a/002_more.sql");
    assert!(more != first && other != first && other != more);
    assert_eq!(digest(), first);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_writes_nothing() {
    let world = world("plan_reads").await;
    let before = world.fingerprints().await;
    for args in [&["plan"] as &[&str], &["plan", "--json"], &["status"], &["verify"]] {
        let _ = world.run(args);
    }
    assert_same(&before, &world.fingerprints().await);
    assert_eq!(world.value("a", "select to_regnamespace('migrate')").await, "NULL");
    assert_eq!(world.objects(), Vec::<String>::new());
    world.run(&["plan", "--out", "no/such/folder/p.json"]).expect(64).says("cannot be written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_answer_is_named() {
    let mut world = world("plan_unreachable").await;
    world.lead("b", world.url("b").replacen(&world.dbname("b"), "not_there", 1));
    let ran = world.run(&["plan"]);
    ran.expect(1).says("not_there").says("SQLSTATE 3D000").ends("No database was changed.");
    assert_eq!(world.json(1, &["apply", "--yes"])["error"]["code"], 1);
}
