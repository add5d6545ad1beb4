//! The quirks of the platform's own migrations, in small: four databases with what their folders really hold, there and back
//! and there again; and what went wrong with them.

use crate::programs::{module, python_library, python_step};
use crate::world::{TestWorld, assert_same, sql_step};

/// Numbers that stand twice and three times, what cutting at line-end semicolons breaks, two schemas, a file of its own
/// transaction, files that cannot run twice, and one whose content moved elsewhere.
const CHAT: &[(&str, &str)] = &[
    ("001_extensions", "CREATE EXTENSION IF NOT EXISTS pg_trgm;\nCREATE SCHEMA IF NOT EXISTS compliance;\n"),
    (
        "002_threads",
        "DO $$\nBEGIN\n    IF to_regclass('chat_threads') IS NULL THEN\n        CREATE TABLE chat_threads (id int PRIMARY KEY, \
         title text);\n    END IF;\nEND\n$$;\nINSERT INTO chat_threads SELECT n, 'thread ' || n || ';\n-- not a comment;' FROM \
         generate_series(1, 500) n;\n",
    ),
    (
        "017_feedback",
        "CREATE TABLE chat_feedback (id int PRIMARY KEY, thread_id int REFERENCES chat_threads, note text);\n",
    ),
    ("017_events", "CREATE TABLE compliance.events (id bigserial PRIMARY KEY, what text NOT NULL);\n"),
    (
        "018_append_only",
        "CREATE FUNCTION compliance.refuse() RETURNS trigger LANGUAGE plpgsql AS $body$\nBEGIN\n    -- a semicolon; at a \
         line's end;\n    RAISE EXCEPTION 'events are append-only;\n';\nEND;\n$body$;\nCREATE TRIGGER append_only BEFORE UPDATE \
         OR DELETE ON compliance.events\n    FOR EACH ROW EXECUTE FUNCTION compliance.refuse();\n",
    ),
    ("018_audit", "INSERT INTO compliance.events (what) VALUES ('audit;'), ('begin');\n"),
    ("018_moved", "-- Moved to 020_rename; this number stays taken.\n"),
    // Neither can run twice.
    ("020_rename", "ALTER TABLE chat_feedback RENAME COLUMN note TO remark;\n"),
    ("020_split", "ALTER TABLE chat_feedback ADD COLUMN rating int;\nUPDATE chat_feedback SET rating = 0;\n"),
    (
        "028_busy",
        "-- opens its own\nBEGIN;\nCREATE MATERIALIZED VIEW busy AS SELECT thread_id, count(*) AS times FROM chat_feedback GROUP BY \
         1;\nCREATE UNIQUE INDEX ON busy (thread_id);\nCOMMIT;\n",
    ),
    ("028_trigram", "CREATE INDEX chat_threads_title ON chat_threads USING gin (title gin_trgm_ops);\n"),
    ("029_required", "ALTER TABLE chat_feedback ALTER COLUMN thread_id SET NOT NULL;\n"),
];

fn chat(world: &TestWorld) {
    for (name, text) in CHAT {
        world.file(&format!("migrations/chat/{name}.sql"), text);
    }
}

/// RAG's modules, with the three entry points that they have, one that must run outside a transaction, and one that rewrites a
/// table whenever it runs.
fn rag(world: &TestWorld) -> String {
    python_library(world);
    world.file(
        "app/migrations/add_documents.py",
        "from db import run\n\n\ndef migrate():\n    run('create table if not exists documents (id int primary key, body text)')\n    \
         run(\"insert into documents select n, 'body ' || n from generate_series(1, 200) n\")\n",
    );
    world.file(
        "app/migrations/add_facts.py",
        "import asyncio\nfrom db import run\n\n\nasync def run_migration():\n    await asyncio.sleep(0)\n    run('create table facts \
         (id int primary key, document int references documents)')\n",
    );
    world.file(
        "app/migrations/backfill_facts.py",
        "from db import run\n\n\ndef backfill():\n    run('insert into facts select id, id from documents')\n",
    );
    module(
        world,
        "migrations/index_facts",
        "create index concurrently if not exists facts_document on facts (document)",
    );
    world.file(
        "app/migrations/search_text.py",
        "from db import run\n\n\ndef migrate():\n    run('alter table documents drop column if exists search')\n    run(\"alter table \
         documents add column search tsvector generated always as (to_tsvector('simple', body)) stored\")\n",
    );
    let modules = ["add_documents", "add_facts", "backfill_facts", "index_facts", "search_text"];
    let modules: Vec<String> = modules.iter().map(|it| format!("migrations.{it}")).collect();
    python_step("rag", &modules.iter().map(String::as_str).collect::<Vec<_>>(), "")
}

async fn rows(world: &TestWorld, database: &str) -> String {
    world.value(database, "select string_agg(name, ' ' order by name collate \"C\") from migrate.ledger").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_platform_goes_there_and_back_and_there_again() {
    let world = TestWorld::new("quirks", &["chat", "mobius", "rag", "users"]).await;
    chat(&world);
    // Tables of one name in two databases.
    for name in ["mobius", "users"] {
        world.sql(name, "create table app_user (id int primary key); insert into app_user values (1)").await;
        world.file(
            &format!("migrations/{name}/001_role.sql"),
            "create table role (id int primary key, app_user int);\n",
        );
    }
    world.file(
        "migrations/mobius/002_tenant.sql",
        "-- migrate:after users-schema/001_role\ncreate table tenant (id int);\n",
    );
    world.file(
        "migrations/chat/R__recent.sql",
        "CREATE OR REPLACE VIEW recent AS SELECT id FROM chat_threads WHERE id > 490;\n",
    );
    world.plan(&[sql_step("chat"), rag(&world), sql_step("mobius"), sql_step("users")].concat());
    let before = world.fingerprints().await;

    let plan = world.run(&["plan"]);
    let says = |part: &str| assert!(plan.expect(0).stdout.contains(part), "{part} in {}", plan.stdout);
    says("a number stands more than once, 017: 017_events, 017_feedback\n");
    says("a number stands more than once, 018: 018_append_only, 018_audit, 018_moved\n");
    says("   018_moved  [back by snapshot only]\n     warning[no-statement] line 1: ");

    for round in 1..=2 {
        assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "succeeded", "round {round}");
        holds(&world).await;
        assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
        if round == 1 {
            assert_eq!(world.json(0, &["rollback", "--yes"])["outcome"], "rolled_back");
            assert_same(&before, &world.fingerprints().await);
        }
    }
}

/// What the release must have done.
async fn holds(world: &TestWorld) {
    let mut names: Vec<&str> = CHAT.iter().map(|(name, _)| *name).chain(["R__recent"]).collect();
    names.sort_unstable();
    assert_eq!(rows(world, "chat").await, names.join(" "));
    let then = [
        ("chat", "select count(*) from chat_threads where title like e'%;\\n-- not a comment;'", "500"),
        ("chat", "select count(*) from recent", "10"),
        ("chat", "select ispopulated from pg_matviews where matviewname = 'busy'", "true"),
        ("chat", "select string_agg(what, ' ' order by id) from compliance.events", "audit; begin"),
        ("chat", "select count(*) from pg_trigger where tgname = 'append_only'", "1"),
        ("chat", "select count(*) from pg_class where relname = 'chat_threads_title'", "1"),
        (
            "chat",
            "select string_agg(attname, ' ') from pg_attribute where attrelid = 'chat_feedback'::regclass and attname in ('note', 'remark')",
            "remark",
        ),
        ("rag", "select count(*) from facts", "200"),
        ("rag", "select indisvalid from pg_index where indexrelid = 'facts_document'::regclass", "true"),
        ("rag", "select count(*) from documents where search @@ 'body'", "200"),
        ("rag", "select count(*) from migrate.ledger where state = 'applied'", "5"),
        ("mobius", "select count(*) from app_user", "1"),
    ];
    for (database, query, value) in then {
        assert_eq!(world.value(database, query).await, value, "{database}: {query}");
    }
    let update = sqlx::query("update compliance.events set what = 'x'").execute(&mut world.connect("chat").await).await;
    assert!(update.expect_err("append-only").to_string().contains("append-only"));
}

/// The failing statement's BEGIN … COMMIT is ours: nothing of the file stays, and its row neither.
#[tokio::test(flavor = "multi_thread")]
async fn set_not_null_that_meets_a_null_takes_the_release_back() {
    let world = TestWorld::new("quirks_null", &["chat"]).await;
    world.sql_plan("");
    chat(&world);
    world.remove("migrations/chat/029_required.sql");
    let _ = world.run(&["apply", "--yes"]).expect(0);
    world.sql("chat", "insert into chat_feedback values (1, null, 'x')").await;
    let before = world.fingerprints().await;
    world.file("migrations/chat/029_required.sql", &format!("BEGIN;\n{}COMMIT;\n", CHAT[CHAT.len() - 1].1));
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(1).says("`029_required` failed at migrations/chat/029_required.sql:2:1").says("contains null values");
    ran.ends("No database was changed.");
    assert_same(&before, &world.fingerprints().await);
    world.sql("chat", "update chat_feedback set thread_id = 1").await;
    let _ = world.run(&["apply", "--yes"]).expect(0);
}

/// Edited, emptied and renamed after they had been applied: each is refused by name, and there is a way out.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_were_touched_after_they_were_applied() {
    let world = TestWorld::new("quirks_touched", &["chat"]).await;
    world.sql_plan("");
    chat(&world);
    let _ = world.run(&["apply", "--yes"]).expect(0);
    world.file("migrations/chat/017_feedback.sql", "CREATE TABLE chat_feedback (id int PRIMARY KEY, other int);\n");
    world.file("migrations/chat/018_audit.sql", "-- Moved to 018_append_only.\n");
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(6)
        .says("ledger and file disagree about `017_feedback`")
        .says("ledger and file disagree about `018_audit`");
    for name in ["017_feedback", "018_audit"] {
        let _ = world.run(&["repair", "checksum", &format!("chat-schema/{name}"), "--yes"]).expect(0);
    }
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");

    // Emptied without a word: the file itself says what is missing.
    world.file("migrations/chat/018_audit.sql", "");
    world
        .run(&["plan"])
        .expect(64)
        .says("migrations/chat/018_audit.sql: the file holds no statement")
        .says("a comment that");
    world.file("migrations/chat/018_audit.sql", "-- Moved to 018_append_only.\n");

    let rename = |from: &str, to: &str| {
        let path = |name: &str| world.path().join(format!("migrations/chat/{name}.sql"));
        std::fs::rename(path(from), path(to)).expect("it is there");
    };
    rename("020_rename", "020_renamed");
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(6).says("the ledger has `020_rename`, and there is no file of that name").says("`020_renamed`");
    rename("020_renamed", "020_rename");
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
}

/// What start-up logs as "skipped" ends the release.
#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_imports_what_never_existed_fails_by_name() {
    let world = TestWorld::new("quirks_import", &["rag"]).await;
    world.plan(&python_step("rag", &["first", "skipped"], ""));
    python_library(&world);
    module(&world, "first", "create table first (id int)");
    world.file("app/skipped.py", "from db import get_engine_that_never_existed\n\n\ndef migrate():\n    pass\n");
    let before = world.fingerprints().await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(3).says("rag: `skipped` failed").says("cannot import name 'get_engine_that_never_existed'");
    assert_same(&before, &world.fingerprints().await);
}

/// Roles are in no dump: the way back says that they stay, in the run itself and next week.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_a_module_makes_stays_and_is_named() {
    let world = TestWorld::new("quirks_role", &["rag"]).await;
    let admin = crate::harness::as_superuser(world.url("rag"));
    let step = python_step("rag", &["roles"], "");
    world.plan(&step.replace("env = {", &format!("env = {{ ADMIN_URL = \"{admin}\",")));
    python_library(&world);
    let role = format!("reader_{}", world.dbname("rag"));
    let text = format!(
        "from db import run\n\n\ndef migrate():\n    run('''do $$ begin if to_regrole('{role}') is null then create role {role}; \
         end if; end $$''', 'ADMIN_URL')\n    run('create table t (id int)')\n"
    );
    world.file("app/roles.py", &text);
    let before = world.fingerprints().await;
    let note = format!(
        "the role {role} was not there before the run. Roles are in no snapshot, and it stays: DROP ROLE \"{role}\""
    );
    let _ = world.run(&["apply", "--yes"]).expect(0);
    let back = world.run(&["rollback", "--yes", "--json"]);
    let notes = back.expect(0).says(&note).document()["notes"].clone();
    assert!(notes.as_array().expect("a list").contains(&note.clone().into()), "{notes}");
    assert_same(&before, &world.fingerprints().await);
    // It is there before the next run, which therefore has nothing to say about it.
    world.file("app/roles.py", &format!("{text}    raise ValueError('x')\n"));
    let ran = world.run(&["apply", "--yes"]);
    assert!(!ran.expect(3).stderr.contains(&note), "{}", ran.stderr);
    world.sql_as_superuser("rag", &format!("drop role {role}")).await;
    let ran = world.run(&["apply", "--yes"]);
    ran.expect(3).says(&note);
    world.sql_as_superuser("rag", &format!("drop role {role}")).await;
}
