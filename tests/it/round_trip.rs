//! Every kind of step forward, back, and forward again.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::fingerprint::Fingerprint;
use crate::fingerprint_proof::{ZOO, make_roles};
use crate::harness;
use crate::programs::{alembic_folder, alembic_step, module, python_library, python_step, revision};
use crate::world::{TestWorld, assert_same};

/// A release, and what it must have done.
struct Case<'a> {
    world: &'a TestWorld,
    /// Database, query, its value after the release.
    then: &'a [(&'a str, &'a str, &'a str)],
    /// Tables whose rows hold the time of the release.
    timed: &'a [&'a str],
}

/// What a ledger says without its times and runs, and what refinery's history says.
const LEDGER: &str = "select string_agg(concat_ws(' ', step, name, kind, checksum, state, up_sql, down_sql), e'\\n' order by \
     step, name) from migrate.ledger";
const HISTORY: &str =
    "select string_agg(concat_ws(' ', version, name, checksum), e'\\n' order by version) from refinery_schema_history";

/// fingerprint → apply → what must hold → rollback → the same fingerprint → apply → as after the first apply.
async fn round_trip(case: Case<'_>) {
    let world = case.world;
    let before = world.fingerprints().await;
    let first = applied(&case).await;
    let touched: Vec<&String> =
        before.keys().filter(|name| !before[*name].diff(&first[*name].fingerprint).is_empty()).collect();
    assert!(!touched.is_empty(), "the release changes something");

    let back = world.json(0, &["rollback", "--yes"]);
    assert_eq!(back["outcome"], "rolled_back", "{back}");
    for database in back["databases"].as_array().expect("a list") {
        let name = database["name"].as_str().expect("a name");
        let was_touched = touched.iter().any(|it| *it == name);
        assert_eq!(database["rolled_back"], was_touched, "{name}: {back}");
        assert_eq!(database["kept_as"].is_string(), was_touched, "{name}: {back}");
    }
    assert_same(&before, &world.fingerprints().await);
    let again = applied(&case).await;
    let diffs = first.iter().flat_map(|(name, after)| {
        assert_eq!(after.ledger, again[name].ledger, "{name}");
        after.fingerprint.diff(&again[name].fingerprint).into_iter().map(move |line| format!("{name}: {line}"))
    });
    assert_eq!(diffs.collect::<Vec<_>>(), Vec::<String>::new());
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "nothing_to_do");
}

/// A database after a release, without times.
struct After {
    fingerprint: Fingerprint,
    ledger: String,
}

/// Applies the release and gives what it left.
async fn applied(case: &Case<'_>) -> BTreeMap<String, After> {
    let report = case.world.json(0, &["apply", "--yes"]);
    assert_eq!(report["outcome"], "succeeded", "{report}");
    let mut after = BTreeMap::new();
    for (database, query, value) in case.then {
        assert_eq!(case.world.value(database, query).await, *value, "{database}: {query}");
    }
    for (name, fingerprint) in case.world.fingerprints().await {
        let timed = [case.timed, &["migrate.ledger", "public.refinery_schema_history"]].concat();
        let mut ledger = String::new();
        for (table, query) in [("migrate.ledger", LEDGER), ("refinery_schema_history", HISTORY)] {
            if case.world.value(&name, &format!("select to_regclass('{table}')")).await != "NULL" {
                ledger += &case.world.value(&name, query).await;
            }
        }
        after.insert(name, After { fingerprint: fingerprint.without_rows_of(&timed), ledger });
    }
    after
}

fn step(name: &str, kind: &str) -> String {
    format!("[[steps]]\nname = \"{name}\"\ndatabase = \"{name}\"\nkind = \"{kind}\"\ndir = \"migrations/{name}\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn sql() {
    let world = TestWorld::new("rt_sql", &["rag", "bystander"]).await;
    world.plan(&step("rag", "sql"));
    world
        .sql("rag", "create table old (id int primary key, note text); insert into old values (1, 'one'), (2, 'two')")
        .await;
    world.sql("bystander", "create table own (id int)").await;
    world.file(
        "migrations/rag/001_new.sql",
        "create table new (id serial primary key);\ninsert into new default values;\n",
    );
    world.file("migrations/rag/002_old.sql", "alter table old drop column note;\nupdate old set id = id + 10;\n");
    world.file("migrations/rag/003_gone.sql", "drop table old;\ncreate view seen as select id from new;\n");
    let then = [("rag", "select count(*) from seen", "1"), ("rag", "select to_regclass('old')", "NULL")];
    round_trip(Case { world: &world, then: &then, timed: &[] }).await;
    assert_eq!(world.value("rag", "select count(*) from migrate.ledger").await, "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_with_no_transaction() {
    let world = TestWorld::new("rt_no_tx", &["rag"]).await;
    world.plan(&step("rag", "sql"));
    world.sql("rag", "create table t (id int); insert into t select generate_series(1, 1000)").await;
    world.file(
        "migrations/rag/001_index.sql",
        "-- migrate:no-transaction\ncreate index concurrently t_id on t (id);\ndelete from t where id > 500;\nvacuum t;\n",
    );
    let valid = "select indisvalid from pg_index where indexrelid = 't_id'::regclass";
    let then = [("rag", valid, "true"), ("rag", "select count(*) from t", "500")];
    round_trip(Case { world: &world, then: &then, timed: &[] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refinery() {
    let world = TestWorld::new("rt_refinery", &["user"]).await;
    world.plan(&step("user", "refinery"));
    world.file("migrations/user/V1__first.sql", "create table a (id int primary key);\n");
    assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "succeeded");
    world.file("migrations/user/V2__second.sql", "insert into a values (7);\n");
    let history = "select string_agg(version || ' ' || name, ',' order by version) from refinery_schema_history";
    let then = [("user", history, "1 first,2 second"), ("user", "select id from a", "7")];
    round_trip(Case { world: &world, then: &then, timed: &[] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copy() {
    let world = TestWorld::new("rt_copy", &["rag", "chat"]).await;
    world.plan(
        "[[steps]]\nname = \"publish\"\ndatabase = \"chat\"\nkind = \"copy\"\nfrom = { database = \"rag\", table = \"t\" }\n\
         to = { table = \"t\" }\nkey = [\"id\"]\n",
    );
    let table = "create table t (id int primary key, body text)";
    world.sql("rag", &format!("{table}; insert into t select n, 'body ' || n from generate_series(1, 300) n")).await;
    world.sql("chat", &format!("{table}; insert into t select n, 'old ' || n from generate_series(290, 310) n")).await;
    let then = [("chat", "select count(*) || ' ' || max(id) from t where body = 'body ' || id", "300 300")];
    round_trip(Case { world: &world, then: &then, timed: &[] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python() {
    let world = TestWorld::new("rt_python", &["rag", "chat"]).await;
    world.plan(&python_step("rag", &["one", "two"], ""));
    python_library(&world);
    world.sql("rag", "create table old (id int); insert into old select generate_series(1, 100)").await;
    world.sql("chat", "create table own (id int)").await;
    module(&world, "one", "delete from old where id > 50; create table new (id int)");
    module(&world, "two", "create index concurrently old_id on old (id)");
    let then = [("rag", "select count(*) from old", "50"), ("rag", "select to_regclass('old_id')", "old_id")];
    round_trip(Case { world: &world, then: &then, timed: &[] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alembic() {
    for mode in ["online", "sql"] {
        let world = TestWorld::new("rt_alembic", &["os"]).await;
        world.plan(&alembic_step("os", &format!("mode = \"{mode}\"\n")));
        alembic_folder(&world);
        revision(&world, "a1", None, "create table first (id int primary key)");
        assert_eq!(world.json(0, &["apply", "--yes"])["outcome"], "succeeded");
        revision(&world, "b2", Some("a1"), "insert into first values (7)");
        revision(&world, "c3", Some("b2"), "create view seen as select * from first");
        let version = "select string_agg(version_num, ',') from alembic_version";
        let then = [("os", version, "c3"), ("os", "select id from seen", "7")];
        round_trip(Case { world: &world, then: &then, timed: &[] }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn command() {
    let world = TestWorld::new("rt_command", &["chat"]).await;
    world.plan(
        "[[steps]]\nname = \"build\"\ndatabase = \"chat\"\nkind = \"command\"\nrun = \"once\"\nargv = [\"psql\", \"-Xqc\", \
         \"create table mart as select 7 as id; drop table old\", \"${url}\"]\n",
    );
    world.sql("chat", "create table old (id int); insert into old values (1)").await;
    let then = [("chat", "select id from mart", "7"), ("chat", "select to_regclass('old')", "NULL")];
    round_trip(Case { world: &world, then: &then, timed: &[] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_holds_one_of_everything() {
    make_roles().await;
    let world = TestWorld::new("rt_zoo", &["zoo"]).await;
    world.plan(&step("zoo", "sql"));
    world.sql("zoo", ZOO).await;
    world.file("migrations/zoo/001_new.sql", "create table new (id int);\ndrop schema zoo cascade;\n");
    let then = [("zoo", "select to_regnamespace('zoo')", "NULL")];
    round_trip(Case { world: &world, then: &then, timed: &[] }).await;
}

/// The project's own four databases, plan and migrations, as the demo uses them.
struct Mobius {
    world: TestWorld,
    root: &'static Path,
}

const MOBIUS: [(&str, &str); 4] = [
    ("mobius", "LOCAL_MOBIUS_URL"),
    ("mobius_rag", "LOCAL_RAG_URL"),
    ("mobius_chat", "LOCAL_CHAT_URL"),
    ("mobius_user", "LOCAL_USER_URL"),
];

impl Mobius {
    async fn new() -> Self {
        let mut world = TestWorld::new("rt", &MOBIUS.map(|(name, _)| name)).await;
        for (name, variable) in MOBIUS {
            let url = world.url(name).to_owned();
            world.set(variable, url);
        }
        Self { world, root: Path::new(env!("CARGO_MANIFEST_DIR")) }
    }

    fn plan(&self) -> String {
        fs::read_to_string(self.root.join("plans/production.toml")).expect("the project's plan")
    }

    /// Puts the migrations with the numbers that `wanted` likes into the world.
    fn migrations(&self, wanted: impl Fn(u32) -> bool) {
        for (name, _) in MOBIUS {
            let folder = format!("migrations/{name}");
            for file in fs::read_dir(self.root.join(&folder)).expect("the project's migrations").flatten() {
                let file_name = file.file_name().into_string().expect("plain names");
                let digits = file_name.trim_start_matches('V');
                let number = digits.split(|c: char| !c.is_ascii_digit()).next().and_then(|number| number.parse().ok());
                if number.is_some_and(&wanted) {
                    let text = fs::read_to_string(file.path()).expect("a migration");
                    self.world.file(&format!("{folder}/{file_name}"), &text);
                }
            }
        }
    }

    /// What is there before the release: the schemas below 100 and the demo's rows.
    async fn before_the_release(&self) {
        let plan = self.plan();
        let schemas = plan.split("[[steps]]\nname = \"publish\"").next().expect("something comes before it");
        self.world.file("plans/production.toml", schemas);
        self.migrations(|number| number < 100);
        assert_eq!(self.world.json(0, &["apply", "--yes"])["outcome"], "succeeded");
        for (name, _) in MOBIUS {
            let seed = self.root.join(format!("migrations/demo/seed/{name}.sql"));
            let seed = fs::read_to_string(seed).expect("the demo's rows");
            harness::execute(&mut self.world.connect(name).await, seed).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_four_databases_of_mobius() {
    let mobius = Mobius::new().await;
    mobius.before_the_release().await;
    mobius.world.file("plans/production.toml", &mobius.plan());
    mobius.migrations(|_| true);
    let published = "select count(*) from published_rag_metadata";
    let then = [
        ("mobius_chat", published, "12000"),
        ("mobius", "select to_regclass('fact_review_task') is not null", "true"),
        ("mobius_user", "select max(version) from refinery_schema_history", "103"),
        ("mobius_rag", "select count(*) from rag_published_embeddings", "12000"),
    ];
    // A trigger writes when a row was changed last, and the release changes rows; the copy carries that over.
    let timed = ["public.rag_published_embeddings", "public.published_rag_metadata", "public.app_user"];
    round_trip(Case { world: &mobius.world, then: &then, timed: &timed }).await;
}
