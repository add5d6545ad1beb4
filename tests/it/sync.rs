//! The check `sync`, against real servers: what it proves, and everything that must not pass.

use std::str::FromStr;

use migrate::kind::TableRef;
use migrate::names::DatabaseName;
use migrate::verify::sync::{SampleKey, StaleColumn, SyncCheck, SyncReport, compare};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use crate::harness::fresh_database;

/// The published table, as the source has it and as the target has it.
const PUBLISHED: [&str; 2] = [
    "CREATE TABLE rag_published_embeddings (id uuid PRIMARY KEY, document_id uuid NOT NULL, source_type text NOT NULL,
       source_id uuid NOT NULL, model text, created_at timestamp NOT NULL, text text, page_number int, paragraph_index int,
       document_payer text, document_created_at timestamp, content_sha text NOT NULL, updated_at timestamp NOT NULL,
       source_verification_status text, embedding jsonb)",
    "CREATE TABLE published_rag_metadata (id uuid PRIMARY KEY, document_id uuid NOT NULL, source_type text NOT NULL,
       source_id uuid NOT NULL, model text, created_at timestamptz NOT NULL, text text, page_number int, paragraph_index int,
       document_payer text, document_created_at timestamptz, content_sha text NOT NULL, updated_at timestamptz NOT NULL,
       source_verification_status text)",
];

/// The same `rows` rows for either table.
fn published(table: &str, rows: u32) -> String {
    format!(
        "SET TimeZone = 'UTC'; INSERT INTO {table} (id, document_id, source_type, source_id, created_at, text, document_payer,
           content_sha, updated_at)
         SELECT md5('id' || n)::uuid, md5('doc' || n / 10)::uuid, 'hierarchical', md5('src' || n)::uuid,
           timestamp '2026-01-01' + n * interval '1.000001 s', 'Ünïcode text ' || n, 'Payer ' || n % 7, md5('sha' || n),
           timestamp '2026-03-29 00:30' + n * interval '1 min'
         FROM generate_series(1, {rows}) n"
    )
}

struct Two {
    source: PgConnection,
    target: PgConnection,
    target_url: String,
}

impl Two {
    async fn new(hint: &str) -> Self {
        let (source_url, target_url) = (fresh_database(hint).await, fresh_database(hint).await);
        Self { source: open(&source_url).await, target: open(&target_url).await, target_url }
    }

    async fn with(hint: &str, source: &str, target: &str) -> Self {
        let mut two = Self::new(hint).await;
        sql(&mut two.source, source).await;
        sql(&mut two.target, target).await;
        two
    }

    async fn published(hint: &str, rows: u32) -> Self {
        let source = format!("{}; {}", PUBLISHED[0], published("rag_published_embeddings", rows));
        let target = format!("{}; {}", PUBLISHED[1], published("published_rag_metadata", rows));
        Self::with(hint, &source, &target).await
    }

    async fn compare(&mut self, check: &SyncCheck) -> SyncReport {
        let report = sendable(compare(&mut self.source, &mut self.target, check)).await.expect("both servers answer");
        for conn in [&mut self.source, &mut self.target] {
            assert_eq!(one(conn, "SHOW transaction_read_only").await, "off", "the transaction is ended");
        }
        report
    }
}

/// A check may run on any thread.
fn sendable<T: Send>(future: T) -> T {
    future
}

async fn open(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("the test database is there")
}

async fn sql(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await.expect("the test's own SQL is right");
}

async fn one(conn: &mut PgConnection, sql: &str) -> String {
    let value = sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).persistent(false).fetch_one(conn).await;
    value.expect("the test's own SQL is right")
}

fn table(database: &str, table: &str) -> TableRef {
    TableRef { database: DatabaseName::new(database).expect("a name"), table: table.to_owned() }
}

fn names(words: &str) -> Vec<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

/// The check of the production plan.
fn rag() -> SyncCheck {
    SyncCheck {
        source: table("mobius_rag", "rag_published_embeddings"),
        target: table("mobius_chat", "published_rag_metadata"),
        key: names("id"),
        compare: names("content_sha updated_at"),
        min_rows: 1,
    }
}

/// Table `t` against table `t`.
fn t(key: &str, compare: &str) -> SyncCheck {
    let (source, target) = (table("one", "t"), table("two", "t"));
    SyncCheck { source, target, key: names(key), compare: names(compare), min_rows: 1 }
}

fn sample(key: &str, reason: &str) -> SampleKey {
    SampleKey { key: key.to_owned(), reason: reason.to_owned() }
}

#[tokio::test]
async fn fifty_thousand_published_rows_are_in_sync_across_time_zones() {
    let mut two = Two::published("sync_50k", 50_000).await;
    sql(&mut two.source, "SET TimeZone = 'America/New_York'").await;
    sql(&mut two.target, "SET TimeZone = 'Asia/Kolkata'; SET DateStyle = 'German'").await;
    let report = two.compare(&rag()).await;
    assert!(report.holds, "{}", report.detail);
    assert_eq!((report.source_rows, report.target_rows), (50_000, 50_000));
    assert!(report.stale.is_empty() && report.sample.is_empty());
    assert_eq!(
        report.detail,
        "mobius_chat.published_rag_metadata is in sync with mobius_rag.rag_published_embeddings, 50000 rows"
    );
    assert_eq!(one(&mut two.target, "SHOW TimeZone").await, "Asia/Kolkata", "the session is as it was");
}

#[tokio::test]
async fn differences_are_counted_and_named() {
    let make = "CREATE TABLE t (id int PRIMARY KEY, sha text, at timestamp, note text);";
    let two = format!("{make} INSERT INTO t SELECT n, 'sha' || n, '2026-01-01', 'x' FROM generate_series(1, 30) n;");
    let changes = "DELETE FROM t WHERE id IN (3, 4); INSERT INTO t VALUES (99, 'x', '2026-01-01', 'x');
        UPDATE t SET sha = 'old' WHERE id = 7; UPDATE t SET sha = 'old', at = '2025-01-01' WHERE id = 8;
        UPDATE t SET note = 'y' WHERE id = 9";
    let mut two = Two::with("sync_diff", &two, &format!("{two} {changes}")).await;
    let report = two.compare(&t("id", "sha at")).await;
    assert!(!report.holds);
    assert_eq!((report.source_rows, report.target_rows), (30, 29));
    assert_eq!((report.missing, report.extra, report.different), (2, 1, 2));
    assert_eq!(report.detail, "two.t is not in sync with one.t: 2 missing, 1 extra, 2 different");
    let expected = [
        sample("3", "missing at the target"),
        sample("4", "missing at the target"),
        sample("7", "differs in sha"),
        sample("8", "differs in sha, at"),
        sample("99", "not at the source"),
    ];
    assert_eq!(report.sample, expected);
    assert!(report.stale.is_empty(), "stale columns are told only where the rest is right");
    let json = serde_json::to_value(&report).expect("a report is JSON");
    assert_eq!(json["sample"][2]["reason"], "differs in sha");
}

#[tokio::test]
async fn the_sample_is_the_first_ten_keys_every_time() {
    let make = "CREATE TABLE t (id text PRIMARY KEY); INSERT INTO t SELECT 'k' || n FROM generate_series(1, 500) n";
    let mut two = Two::with("sync_sample", make, "CREATE TABLE t (id text PRIMARY KEY)").await;
    let (first, second) = (two.compare(&t("id", "")).await, two.compare(&t("id", "")).await);
    assert_eq!(first.sample, second.sample);
    let keys: Vec<&str> = first.sample.iter().map(|row| row.key.as_str()).collect();
    assert_eq!(keys, ["k1", "k10", "k100", "k101", "k102", "k103", "k104", "k105", "k106", "k107"]);
    assert_eq!(first.missing, 500);
    assert!(first.detail.starts_with("two.t has 0 rows, min_rows is 1; "), "{}", first.detail);
}

#[tokio::test]
async fn columns_that_are_not_compared_are_a_warning_with_their_counts() {
    let mut two = Two::published("sync_stale", 100).await;
    let stale =
        "UPDATE published_rag_metadata SET document_payer = upper(document_payer) WHERE document_payer = 'Payer 3';
                 UPDATE published_rag_metadata SET model = '' WHERE id = md5('id5')::uuid";
    sql(&mut two.target, stale).await;
    let report = two.compare(&rag()).await;
    assert!(report.holds, "{}", report.detail);
    let column = |column: &str, rows| StaleColumn { column: column.to_owned(), rows };
    assert_eq!(report.stale, [column("model", 1), column("document_payer", 14)]);
    assert!(report.detail.ends_with("; not compared, yet different: model in 1 rows, document_payer in 14 rows"));
}

#[tokio::test]
async fn generated_columns_are_never_stale() {
    let source = "CREATE TABLE t (id int PRIMARY KEY, n int, g int GENERATED ALWAYS AS (n + 1) STORED); INSERT INTO t VALUES (1, 1)";
    let target = "CREATE TABLE t (id int PRIMARY KEY, n int, g int GENERATED ALWAYS AS (n + 2) STORED); INSERT INTO t VALUES (1, 1)";
    let report = Two::with("sync_generated", source, target).await.compare(&t("id", "")).await;
    assert!(report.holds && report.stale.is_empty(), "{report:?}");
}

#[tokio::test]
async fn what_does_not_exist_never_passes() {
    let mut two = Two::published("sync_absent", 3).await;
    type Spoil = fn(&mut SyncCheck);
    let cases: [(Spoil, &str); 7] = [
        (|c| c.target.table = "nowhere".into(), "mobius_chat: there is no table nowhere"),
        (|c| c.source.table = "other.t".into(), "mobius_rag: there is no table other.t"),
        (
            |c| c.source.table = "rag_published_embeddings_pkey".into(),
            "mobius_rag: rag_published_embeddings_pkey is not a table",
        ),
        (|c| c.compare = names("embedding"), "mobius_chat: table published_rag_metadata has no column embedding"),
        (|c| c.key = names("uid"), "mobius_rag: table rag_published_embeddings has no column uid"),
        (|c| c.key.clear(), "mobius_rag: no key is given for table rag_published_embeddings"),
        (
            |c| c.min_rows = 4,
            "mobius_rag.rag_published_embeddings has 3 rows, min_rows is 4; \
             mobius_chat.published_rag_metadata has 3 rows, min_rows is 4",
        ),
    ];
    for (spoil, detail) in cases {
        let mut check = rag();
        spoil(&mut check);
        let report = two.compare(&check).await;
        assert_eq!((report.holds, report.detail.as_str()), (false, detail));
    }
    sql(&mut two.target, "ALTER TABLE published_rag_metadata DROP COLUMN content_sha").await;
    let report = two.compare(&rag()).await;
    let detail = "mobius_chat: table published_rag_metadata has no column content_sha";
    assert_eq!((report.holds, report.detail.as_str()), (false, detail));
}

#[tokio::test]
async fn empty_on_both_sides_is_not_in_sync() {
    let mut two = Two::published("sync_empty", 0).await;
    let report = two.compare(&rag()).await;
    assert!(!report.holds && report.detail.contains("has 0 rows, min_rows is 1"), "{}", report.detail);
    let report = two.compare(&SyncCheck { min_rows: 0, ..rag() }).await;
    assert!(report.holds, "unless the plan says so: {}", report.detail);
}

#[tokio::test]
async fn a_key_that_does_not_tell_rows_apart_fails() {
    let good = "CREATE TABLE t (id int PRIMARY KEY, k text NOT NULL); INSERT INTO t VALUES (1, 'a'), (2, 'b')";
    let nullable = "CREATE TABLE t (id int UNIQUE, k text NOT NULL); INSERT INTO t VALUES (1, 'a'), (2, 'b')";
    let report = Two::with("sync_nullable", good, nullable).await.compare(&t("id", "k")).await;
    assert_eq!((report.holds, report.detail.as_str()), (false, "two: table t: key column id may be NULL"));

    let twice = "CREATE TABLE t (id int PRIMARY KEY, k text NOT NULL); INSERT INTO t VALUES (1, 'a'), (2, 'a')";
    let report = Two::with("sync_twice", twice, twice).await.compare(&t("k", "id")).await;
    let detail = "one: table t: key (k) is not unique: (a) stands more than once";
    assert_eq!((report.holds, report.detail.as_str()), (false, detail));

    let report = Two::with("sync_unproven", good, good).await.compare(&t("k", "id")).await;
    assert!(report.holds, "unique by its rows, though no index says so: {}", report.detail);
}

#[tokio::test]
async fn a_view_is_read_since_the_catalog_knows_nothing_of_its_key() {
    let rows = "CREATE TABLE t (id int PRIMARY KEY, k text); INSERT INTO t VALUES (1, 'a'), (2, 'b');";
    let mut check = t("id", "k");
    check.source.table = "v".into();
    let view = format!("{rows} CREATE VIEW v AS SELECT * FROM t");
    assert!(Two::with("sync_view", &view, rows).await.compare(&check).await.holds);
    let view = format!("{rows} CREATE VIEW v AS SELECT nullif(id, 2) AS id, k FROM t");
    let report = Two::with("sync_view", &view, rows).await.compare(&check).await;
    assert_eq!((report.holds, report.detail.as_str()), (false, "one: table v: key column id may be NULL"));
}

#[tokio::test]
async fn one_database_at_both_ends_fails() {
    let url = fresh_database("sync_one").await;
    let (mut source, mut target) = (open(&url).await, open(&url).await);
    let make = "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY); INSERT INTO t VALUES (1); INSERT INTO u VALUES (1)";
    sql(&mut source, make).await;
    let report = compare(&mut source, &mut target, &t("id", "")).await.expect("the server answers");
    assert!(!report.holds);
    assert!(report.detail.starts_with("one and two are one and the same database (sync_one"), "{}", report.detail);

    let mut check = SyncCheck { target: table("one", "public.t"), ..t("id", "") };
    let report = compare(&mut source, &mut target, &check).await.expect("the server answers");
    assert_eq!(report.detail, "one: source and target are one and the same table t");
    check.target.table = "u".into();
    let report = compare(&mut source, &mut target, &check).await.expect("the server answers");
    assert!(report.holds, "two tables of what the plan calls one database: {}", report.detail);
}

/// Another database on the server of `url`, in a collation of its own.
async fn collated(url: &str, collation: &str) -> PgConnection {
    let options = PgConnectOptions::from_str(url).expect("a URL");
    let name =
        format!("{}_{}", options.get_database().expect("has one"), collation.replace(['-', '.'], "").to_lowercase());
    let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE '{collation}'");
    sql(&mut open(url).await, &create).await;
    options.database(&name).connect().await.expect("it was just made")
}

#[tokio::test]
async fn text_keys_are_ordered_by_their_bytes_under_every_collation() {
    let url = fresh_database("sync_collation").await;
    let (mut source, mut target) = (collated(&url, "C").await, collated(&url, "C.UTF-8").await);
    let words = "('a'), ('B'), ('ä'), ('Z'), ('z'), ('a b'), ('ab'), ('a-b'), ('😀'), ('ａ'), (''), (E'tab\\there'), (E'line\\nfeed'), (E'back\\\\slash'), ('O''Brien')";
    sql(&mut source, &format!("CREATE TABLE t (k text PRIMARY KEY); INSERT INTO t VALUES {words}")).await;
    // The strangest order that the server offers: upper and lower case interleaved, punctuation ignored.
    let icu = "CREATE COLLATION odd (provider = icu, locale = 'en-u-ka-shifted')";
    sql(&mut target, &format!("{icu}; CREATE TABLE t (k text COLLATE odd PRIMARY KEY); INSERT INTO t VALUES {words}"))
        .await;
    let report = compare(&mut source, &mut target, &t("k", "")).await.expect("both servers answer");
    assert!(report.holds, "{}", report.detail);
    sql(&mut target, "DELETE FROM t WHERE k = 'ä'; INSERT INTO t VALUES ('Ä')").await;
    let report = compare(&mut source, &mut target, &t("k", "")).await.expect("both servers answer");
    assert_eq!((report.missing, report.extra, report.different), (1, 1, 0), "{}", report.detail);
    assert_eq!(report.sample, [sample("Ä", "not at the source"), sample("ä", "missing at the target")]);
}

#[tokio::test]
async fn databases_in_different_encodings_compare_as_text() {
    let url = fresh_database("sync_encoding").await;
    let options = PgConnectOptions::from_str(&url).expect("a URL");
    let name = format!("{}_latin1", options.get_database().expect("has one"));
    let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    let mut source = open(&url).await;
    sql(&mut source, &create).await;
    let mut target = options.database(&name).connect().await.expect("it was just made");
    let make = "CREATE TABLE t (k text PRIMARY KEY, v text); INSERT INTO t VALUES ('ä', 'é'), ('z', 'ü')";
    sql(&mut source, make).await;
    sql(&mut target, make).await;
    let report = compare(&mut source, &mut target, &t("k", "v")).await.expect("both servers answer");
    assert!(report.holds, "{}", report.detail);
    sql(&mut target, "UPDATE t SET v = 'e' WHERE k = 'ä'").await;
    let report = compare(&mut source, &mut target, &t("k", "v")).await.expect("both servers answer");
    assert_eq!(report.sample, [sample("ä", "differs in v")]);
}

#[tokio::test]
async fn composite_keys_do_not_run_together() {
    let make = "CREATE TABLE t (a text, b text, v int NOT NULL, PRIMARY KEY (a, b));";
    let source = format!("{make} INSERT INTO t VALUES ('a', 'bc', 1), ('a,', 'b', 1), ('x', '', 1)");
    let target = format!("{make} INSERT INTO t VALUES ('ab', 'c', 1), ('a', ',b', 1), ('x', '', 2)");
    let report = Two::with("sync_composite", &source, &target).await.compare(&t("a b", "v")).await;
    assert_eq!((report.missing, report.extra, report.different), (2, 2, 1), "{report:?}");
    assert_eq!(report.sample.last(), Some(&sample("x, ", "differs in v")));
    // The key in another order of columns, and one that is more than the unique index.
    assert!(Two::with("sync_composite", &source, &source).await.compare(&t("b v a", "")).await.holds);
}

/// One row on each side, equal or not.
async fn one_row(source: &str, target: &str) -> SyncReport {
    let make = |column: &str| {
        let (ty, value) = column.split_once(" = ").expect("type = value");
        format!("CREATE TABLE t (id int PRIMARY KEY, v {ty}); INSERT INTO t VALUES (1, {value})")
    };
    Two::with("sync_types", &make(source), &make(target)).await.compare(&t("id", "v")).await
}

#[tokio::test]
async fn equal_values_are_equal_whatever_their_types() {
    let equal = [
        ("numeric = 1.0", "numeric = 1.00"),
        ("numeric(10,4) = 100", "int = 100"),
        ("smallint = 7", "bigint = 7"),
        ("float8 = 0.1", "numeric = 0.10"),
        ("float4 = 0.1", "float8 = 0.1"),
        ("float8 = '-0'", "float8 = '0'"),
        ("float8 = 'NaN'", "float8 = 'NaN'"),
        ("float8 = 1e300", "float8 = 1e300"),
        ("varchar(9) = 'ab'", "text = 'ab'"),
        ("char(9) = 'ab'", "text = 'ab'"),
        ("uuid = 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "text = 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"),
        ("timestamp = '2026-07-01 12:00:00.000001'", "timestamptz = '2026-07-01 14:00:00.000001+02'"),
        ("timestamp = 'infinity'", "timestamptz = 'infinity'"),
        ("timestamp = '0044-03-15 12:00 BC'", "timestamptz = '0044-03-15 12:00+00 BC'"),
        ("date = '2026-07-01'", "timestamp = '2026-07-01 00:00'"),
        ("json = '{\"b\": 1,  \"a\": 2}'", "jsonb = '{\"a\": 2, \"b\": 1}'"),
        ("bool = true", "bool = 't'"),
        ("bytea = '\\xdeadbeef'", "bytea = '\\xDEADBEEF'"),
        ("text[] = '{a,\"b,c\",NULL}'", "varchar[] = '{a,\"b,c\",NULL}'"),
        ("text = NULL", "varchar = NULL"),
    ];
    for (source, target) in equal {
        let report = one_row(source, target).await;
        assert!(report.holds, "{source} and {target}: {report:?}");
    }
}

#[tokio::test]
async fn values_that_differ_are_told_apart() {
    let different = [
        ("text = NULL", "text = ''"),
        ("text = NULL", "text = 'NULL'"),
        ("text = 'a'", "text = 'A'"),
        ("text = 'a'", "text = 'a '"),
        ("numeric = 1.0", "numeric = 1.01"),
        ("float8 = 0.1::float8 + 0.2", "float8 = 0.3"),
        ("timestamp = '2026-07-01 12:00:00.000001'", "timestamptz = '2026-07-01 12:00:00.000002+00'"),
        ("jsonb = '[1, 2]'", "jsonb = '[2, 1]'"),
        ("text[] = '{NULL}'", "text[] = '{\"NULL\"}'"),
    ];
    for (source, target) in different {
        let report = one_row(source, target).await;
        assert_eq!((report.holds, report.different), (false, 1), "{source} and {target}: {report:?}");
        assert_eq!(report.sample, [sample("1", "differs in v")]);
    }
}

#[tokio::test]
async fn upper_case_and_odd_names_are_taken_as_they_are_spelt() {
    let make = r#"CREATE SCHEMA "Odd"; CREATE TABLE "Odd"."My ""Table" ("Id" int PRIMARY KEY, "a,b" text); INSERT INTO "Odd"."My ""Table" VALUES (1, 'x')"#;
    let mut check = t("Id", "");
    check.compare = vec!["a,b".to_owned()];
    (check.source.table, check.target.table) = ("Odd.My \"Table".into(), "Odd.My \"Table".into());
    let report = Two::with("sync_names", make, make).await.compare(&check).await;
    assert!(report.holds, "{}", report.detail);
}

/// The connection waits for a lock that somebody else holds.
async fn until_blocked(watcher: &mut PgConnection) {
    let waiting = "SELECT count(*)::text FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    while one(watcher, waiting).await == "0" {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_row_that_is_written_during_the_check_is_no_difference() {
    let make =
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT n, 'v' FROM generate_series(1, 100) n;";
    let source = format!("{make} UPDATE t SET v = 'new' WHERE id IN (50, 60); INSERT INTO t VALUES (200, 'new')");
    let Two { mut source, mut target, target_url, .. } = Two::with("sync_late", &source, make).await;
    // The writer is in the middle of its work: it holds the table while the check looks, and commits afterwards.
    let (mut writer, mut watcher) = (open(&target_url).await, open(&target_url).await);
    let write = "UPDATE t SET v = 'new' WHERE id IN (50, 60); INSERT INTO t VALUES (200, 'new')";
    sql(&mut writer, &format!("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE; {write}")).await;
    let check = t("id", "v");
    let write_in_time = async {
        until_blocked(&mut watcher).await;
        sql(&mut writer, "COMMIT").await;
    };
    let (report, ()) = futures::join!(compare(&mut source, &mut target, &check), write_in_time);
    let report = report.expect("both servers answer");
    assert!(report.holds, "{}", report.detail);
    assert_eq!((report.source_rows, report.target_rows, report.different), (101, 101, 0));
    assert!(report.detail.ends_with("(3 of them written during the check)"), "{}", report.detail);
}

#[tokio::test]
async fn more_differences_than_late_writes_could_explain_are_counted_at_once() {
    let make = "CREATE TABLE t (id int PRIMARY KEY, v text);";
    let fill = |v: &str| format!("{make} INSERT INTO t SELECT n, '{v}' FROM generate_series(1, 100500) n");
    let report = Two::with("sync_many", &fill("a"), &fill("b")).await.compare(&t("id", "v")).await;
    assert_eq!((report.holds, report.different, report.sample.len()), (false, 100_500, 10));
}

#[tokio::test]
async fn a_server_that_refuses_is_an_error_and_the_connections_stay_usable() {
    // A NUL in JSON is text that jsonb cannot hold: nothing can be said about this row.
    let make = "CREATE TABLE t (id int PRIMARY KEY, v json); INSERT INTO t VALUES (1, '\"\\u0000\"')";
    let mut two = Two::with("sync_error", make, make).await;
    let error = compare(&mut two.source, &mut two.target, &t("id", "v")).await.expect_err("nothing was proven");
    assert_eq!(error.to_string(), "one: cannot scan the table");
    for conn in [&mut two.source, &mut two.target] {
        sql(conn, "UPDATE t SET v = '1'").await;
    }
    let report = two.compare(&t("id", "v")).await;
    assert!(report.holds, "{}", report.detail);
}

#[tokio::test]
async fn rows_hidden_by_a_policy_are_an_error() {
    let make = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2);";
    let policy =
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY few ON t USING (id = 1)";
    let mut two = Two::with("sync_policy", &format!("{make} {policy}"), &format!("{make} {policy}")).await;
    let error = compare(&mut two.source, &mut two.target, &t("id", "")).await.expect_err("it saw half of the rows");
    assert!(
        matches!(error, migrate::verify::sync::SyncError::Sql(ref it) if it.cause.to_string().contains("row-level security"))
    );
}
