//! Programs that go to a database that they were not meant for.

use super::{module, python_library, python_step};
use crate::world::{TestWorld, assert_same, sql_step};

/// The RAG application: it prefers `CHAT_RAG_DATABASE_URL`, and loads a `.env` that overrides the environment.
const QUIRK: &str = "import os\nfrom db import run\n\nif os.path.exists('.env'):\n    for line in open('.env'):\n        name, \
                     value = line.strip().split('=', 1)\n        os.environ[name] = value\nvariable = \
                     'CHAT_RAG_DATABASE_URL' if 'CHAT_RAG_DATABASE_URL' in os.environ else 'DATABASE_URL'\n\n\ndef \
                     migrate():\n    run('create table if not exists published (id int); create index on published \
                     (id)', variable)\n";

/// All of it but its last line.
fn quirk_without_work() -> &'static str {
    QUIRK.trim_end().rsplit_once('\n').expect("more than a line").0
}

async fn world(hint: &str) -> TestWorld {
    let mut world = TestWorld::new(hint, &["rag", "chat", "user"]).await;
    world.plan(&python_step("rag", &["publish"], ""));
    python_library(&world);
    world.file("app/publish.py", QUIRK);
    world.sql("chat", "create table threads (id int); insert into threads values (1)").await;
    let chat = world.url("chat").to_owned();
    world.set("CHAT_RAG_DATABASE_URL", chat);
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stray_variable_does_not_reach_a_module() {
    let world = world("astray_variable").await;
    let before = world.fingerprints().await;
    let report = world.json(0, &["apply", "--yes"]);
    assert_eq!(report["outcome"], "succeeded");
    let after = world.fingerprints().await;
    for name in ["chat", "user"] {
        assert_eq!(before[name].diff(&after[name]), Vec::<String>::new(), "{name}");
    }
    assert_eq!(world.value("rag", "select count(*) from published").await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_on_the_wrong_database_fails_the_run_and_is_taken_back_there_too() {
    let world = world("astray_module").await;
    world.file("app/.env", &format!("CHAT_RAG_DATABASE_URL={}\n", world.url("chat")));
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes", "--json"]);
    ran.expect(3).says("error: step `rag-schema` is for rag, and changed another database: chat: ");
    ran.says("table public.published appeared").says("index public.published_id_idx appeared");
    ran.ends("Rolled back, as before the run: chat, rag.");
    assert_same(&before, &world.fingerprints().await);
    let document = ran.document();
    assert_eq!(document["outcome"], "rolled_back");
    let run = document["run"].as_str().expect("an id");
    let shown = world.run(&["runs", "show", run]);
    assert!(shown.expect(0).stdout.contains("strayed"), "{}", shown.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_strays_and_fails_is_both() {
    let world = world("astray_both").await;
    world.file("app/.env", &format!("CHAT_RAG_DATABASE_URL={}\n", world.url("chat")));
    let alter = "run('alter table threads add note text', variable)";
    world.file("app/publish.py", &format!("{}\n    {alter}\n    run('select oops', variable)\n", quirk_without_work()));
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(3).says("changed another database: chat: ").says("table column public.threads.note appeared");
    ran.says("rag: `publish` failed").says("column \"oops\" does not exist");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_run_alone() {
    let world = TestWorld::new("astray_alone", &["rag", "chat", "user"]).await;
    python_library(&world);
    let sleep = "select pg_sleep(0.3)";
    let steps = [sql_step("chat"), python_step("rag", &["one", "two"], ""), sql_step("user")];
    world.plan(&steps.concat());
    for name in ["chat", "user"] {
        world.file(&format!("migrations/{name}/001_a.sql"), &format!("{sleep};\n"));
        world.file(&format!("migrations/{name}/002_b.sql"), &format!("{sleep};\n"));
    }
    module(&world, "one", sleep);
    module(&world, "two", sleep);
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let mut spans: Vec<(f64, f64, bool)> = Vec::new();
    for name in ["rag", "chat", "user"] {
        let sql = "select string_agg(concat_ws(' ', extract(epoch from started_at), extract(epoch from finished_at)), ',') \
                   from migrate.ledger";
        for row in world.value(name, sql).await.split(',') {
            let (from, to) = row.split_once(' ').expect("two times");
            spans.push((from.parse().expect("a time"), to.parse().expect("a time"), name == "rag"));
        }
    }
    assert_eq!(spans.len(), 6);
    let overlap = |one: &(f64, f64, bool), other: &(f64, f64, bool)| one.0 < other.1 && other.0 < one.1;
    let (programs, files): (Vec<_>, Vec<_>) = spans.into_iter().partition(|it| it.2);
    for program in &programs {
        assert!(!files.iter().any(|file| overlap(program, file)), "{programs:?} {files:?}");
    }
    assert!(
        files.iter().any(|one| files.iter().any(|other| one != other && overlap(one, other))),
        "side by side: {files:?}"
    );
}
