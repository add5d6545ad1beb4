//! Steps of kind `python`.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;

use super::{PASSWORD, content, gone, interpreter, module, output, python_library, python_step, with_password};
use crate::world::{TestWorld, assert_same, finish, send};

async fn world(hint: &str, modules: &[&str], rest: &str) -> TestWorld {
    let world = TestWorld::new(hint, &["rag"]).await;
    world.plan(&python_step("rag", modules, rest));
    python_library(&world);
    world
}

const TRACE: &str =
    "create table if not exists trace (id serial primary key, who text); insert into trace (who) values";

/// A module that says in the table `trace` that it ran.
fn tracing(world: &TestWorld, name: &str, head: &str) {
    world.file(
        &format!("app/migrations/{name}.py"),
        &format!("from db import run\n\n\n{head}\n    run(\"{TRACE} ('{name}')\")\n"),
    );
}

const LEDGER: &str = "select string_agg(concat_ws(' ', name, kind, state, length(checksum), execution_ms >= 0, up_sql like \
                      '%from db import run%'), ',' order by started_at) from migrate.ledger";

#[tokio::test(flavor = "multi_thread")]
async fn modules_run_in_order_each_once_by_the_entry_point_that_they_have() {
    let names = ["migrations.z", "migrations.b", "migrations.c", "migrations.a"];
    let world = world("py_order", &names, "").await;
    tracing(&world, "z", "def migrate():");
    tracing(&world, "b", "async def run_migration():");
    tracing(&world, "c", "def backfill():");
    tracing(&world, "a", "async def main():");
    let plan = world.json(0, &["plan"]);
    let pending: Vec<&str> =
        plan["steps"][0]["pending"].as_array().expect("a list").iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(pending, names);
    assert_eq!(plan["steps"][0]["pending"][0]["transactional"], false);
    assert_eq!(world.json(0, &["apply", "--yes"])["databases"][0]["applied"], 4);
    assert_eq!(world.value("rag", "select string_agg(who, ' ' order by id) from trace").await, "z b c a");
    let row = |name: &str| format!("{name} python applied 64 t t");
    assert_eq!(world.value("rag", LEDGER).await, names.map(row).join(","));
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
    assert!(!world.path().join("app/__pycache__").exists(), "nothing is left in the checkout");
    tracing(&world, "b", "def migrate():");
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(6).says("ledger and file disagree about `migrations.b`").says("app/migrations/b.py");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_may_stand_in_a_file_and_the_entry_point_in_the_plan() {
    let world = world("py_entry", &["x"], "").await;
    let step = |rest: &str| {
        python_step("rag", &["x"], rest).replace("modules = [\"x\"]\n", "order_file = \"app/order.txt\"\n")
    };
    world.file("app/order.txt", "# the order\nmigrations.one   # first\n\nmigrations.two\n");
    tracing(&world, "one", "async def go():");
    tracing(&world, "two", "def go():");
    world.plan(&step("entry = \"go\"\n"));
    let _ = world.run(&["apply", "--yes"]).expect(0);
    world.file("app/order.txt", "migrations.one\nmigrations.two\nmigrations.three\n");
    tracing(&world, "three", "if __name__ == '__main__':");
    world.plan(&step("entry = \"__main__\"\n"));
    let _ = world.run(&["apply", "--yes"]).expect(0);
    assert_eq!(world.value("rag", "select string_agg(who, ' ' order by id) from trace").await, "one two three");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_in_a_module_is_said_and_kept_and_taken_back() {
    let mut world = world("py_wrong", &["good", "bad"], "").await;
    with_password(&mut world, "rag");
    module(&world, "good", "create table good (id int)");
    let before = world.fingerprints().await;
    let cases = [
        ("import no_such_module\n", "No module named 'no_such_module'"),
        ("def run_me():\n    pass\n", "module bad has no function migrate or run_migration or backfill or main"),
        (
            "import os\n\n\ndef migrate():\n    print('\\n'.join(map(str, range(100))), flush=True)\n    raise \
             ValueError('at ' + os.environ['DATABASE_URL'])\n",
            "ValueError: at ***",
        ),
    ];
    let (mut logs, mut messages) = (Vec::new(), Vec::new());
    for (text, said) in cases {
        world.file("app/bad.py", text);
        let ran = world.run(&["apply", "--yes", "--json"]);
        ran.expect(3).says("error: rag: `bad` failed").says("exited with 1").says(said);
        ran.ends("Rolled back, as before the run: rag.");
        let document = ran.document();
        let key = format!("runs/{}/output/rag-schema/bad.log", document["run"].as_str().expect("an id"));
        ran.says(&key);
        let log = output(&world, &key);
        assert!(log.contains(said), "{log}");
        for text in [&log, &ran.stderr, &ran.stdout] {
            assert!(!text.contains(PASSWORD), "{text}");
        }
        assert_same(&before, &world.fingerprints().await);
        logs.push(log);
        messages.push(ran.stderr);
    }
    assert!(logs[2].starts_with("0\n1\n2\n"), "the log is whole: {}", logs[2]);
    assert!(!messages[2].contains(" 50\n"), "the message has its tail: {}", messages[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_takes_too_long_is_ended_with_all_that_it_started() {
    let world = world("py_timeout", &["slow"], "timeout = \"1s\"\n").await;
    let before = world.fingerprints().await;
    world.file(
        "app/slow.py",
        "import os, signal, subprocess, time\n\n\ndef migrate():\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    \
         child = subprocess.Popen(['sleep', '1000'])\n    \
         print('pids', os.getpid(), child.pid, flush=True)\n    time.sleep(1000)\n",
    );
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(3).says("did not end within 1 s").says("pids").ends("Rolled back, as before the run: rag.");
    let log = output(&world, "/output/rag-schema/slow.log");
    let pids: Vec<&str> = log.trim().split(' ').skip(1).collect();
    assert_eq!(pids.len(), 2, "{log}");
    for pid in pids {
        gone(pid).await;
    }
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_what_the_step_declares() {
    let mut world =
        world("py_env", &["look", "index"], "lock_timeout = \"1234ms\"\nstatement_timeout = \"5m\"\n").await;
    world.set("CHAT_RAG_DATABASE_URL", "postgresql:///elsewhere");
    world.set("PYTHONPATH", "/nowhere");
    world.set("PGDATABASE", "elsewhere");
    world.file(
        "app/look.py",
        "import os\nfrom db import run\n\n\ndef migrate():\n    run('create table env (name text)')\n    for name in \
         os.environ:\n        run(f\"insert into env values ('{name}')\")\n    run(\"create table said as select \
         current_setting('lock_timeout') as lock, current_setting('statement_timeout') as statement, \
         current_setting('application_name') as name, current_database() as database\")\n",
    );
    module(&world, "index", "create index concurrently env_name on env (name)");
    let report = world.json(0, &["apply", "--yes"]);
    let names = world.value("rag", "select string_agg(name, ' ') from env").await;
    let names: BTreeSet<&str> = names.split(' ').collect();
    let expected = [
        "DATABASE_URL",
        "HOME",
        "LANG",
        "PATH",
        "PGAPPNAME",
        "PGOPTIONS",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONUNBUFFERED",
        "PYTHON_DOTENV_DISABLED",
    ];
    // Python itself sets LC_CTYPE where the locale is C.
    assert_eq!(names.into_iter().filter(|it| *it != "LC_CTYPE").collect::<Vec<_>>(), expected);
    let said = world.value("rag", "select concat_ws(' ', lock, statement, name) from said").await;
    assert_eq!(said, format!("1234ms 5min migrate {}", report["run"].as_str().expect("an id")));
    assert_eq!(
        world.value("rag", "select indisvalid from pg_index where indexrelid = 'env_name'::regclass").await,
        "true"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interpreter_that_is_not_there_is_noticed_before_anything_is_changed() {
    let world = world("py_missing", &["good"], "").await;
    module(&world, "good", "create table good (id int)");
    let step = python_step("rag", &["good"], "");
    for (name, place) in [("python-of-nowhere", "PATH"), ("venv/bin/python", "/app")] {
        world.plan(&step.replace(&interpreter(), name));
        let before = world.fingerprints().await;
        let ran = world.run(&["apply", "--yes"]);
        ran.expect(1).says(&format!("rag: `{name}` of step `rag-schema` is not in ")).says(place);
        ran.ends("No database was changed.");
        assert_same(&before, &world.fingerprints().await);
        let doctor = world.run(&["doctor"]);
        assert!(doctor.code != 0 && doctor.stdout.contains(name), "{}", doctor.stdout);
    }
    world.plan(&step);
    assert!(world.run(&["doctor"]).stdout.contains("step `rag-schema` runs "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_or_a_module_that_is_not_there_is_an_error_of_the_plan() {
    let world = world("py_nowhere", &["good", "migrations.nowhere"], "").await;
    module(&world, "good", "select 1");
    world
        .run(&["plan"])
        .expect(64)
        .says(", and there is no app/migrations/nowhere.py")
        .ends("No database was changed.");
    world.plan(&python_step("rag", &["good"], "").replace("dir = \"app\"", "dir = \"../nowhere\""));
    let ran = world.run(&["plan"]);
    ran.expect(64).says("the folder `../nowhere` of step `rag-schema` does not exist").says("plans/production.toml:");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_the_module_and_leaves_what_rollback_understands() {
    let world = world("py_signal", &["good", "slow"], "").await;
    module(&world, "good", "create table good (id int)");
    world.file(
        "app/slow.py",
        "import os, time\n\n\ndef migrate():\n    open('pid.txt', 'w').write(str(os.getpid()))\n    time.sleep(1000)\n",
    );
    let before = world.fingerprints().await;
    let child = world.start(&["apply", "--yes", "--json"]);
    let pid = content(world.path().join("app/pid.txt")).await;
    send(&child, Signal::SIGINT);
    let ran = finish(child);
    ran.expect(130).says("error: interrupted by a signal");
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(
        world.value("rag", "select string_agg(name || ' ' || state, ',' order by name) from migrate.ledger").await,
        "good applied,slow started"
    );
    assert_eq!(world.json(0, &["rollback", "--yes"])["outcome"], "rolled_back");
    assert_same(&before, &world.fingerprints().await);
}
