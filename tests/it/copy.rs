//! `kind = "copy"`, against real servers: what it carries, what it refuses, and that a failure leaves nothing behind.

use std::sync::Mutex;

use migrate::kind::copy::{CopyCounts, CopyError, Pending, compare, inspect, run};
use migrate::kind::{Copy, TableRef};
use migrate::names::DatabaseName;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::harness::fresh_database;

struct Two {
    source: PgConnection,
    target: PgConnection,
    source_url: String,
    target_url: String,
}

/// What a copy writes into the ledger here.
const LEDGER: &str = "INSERT INTO done VALUES ('copied')";
const SETTINGS: &str = "SET LOCAL lock_timeout = '4s'; SET LOCAL statement_timeout = 0";

impl Two {
    async fn with(hint: &str, source: &str, target: &str) -> Self {
        let (source_url, target_url) = (fresh_database(hint).await, fresh_database(hint).await);
        let (mut from, mut to) = (open(&source_url).await, open(&target_url).await);
        sql(&mut from, source).await;
        sql(&mut to, &format!("CREATE TABLE done (what text); {target}")).await;
        Self { source: from, target: to, source_url, target_url }
    }

    async fn run(&mut self, copy: &Copy) -> Result<CopyCounts, CopyError> {
        let done = sendable(run(&mut self.source, &mut self.target, copy, LEDGER, SETTINGS, &|_, _| ())).await;
        for conn in [&mut self.source, &mut self.target] {
            assert_eq!(one(conn, "SHOW transaction_read_only").await, "off", "the transaction is ended");
            assert_eq!(one(conn, "SHOW lock_timeout").await, "0", "the transaction is ended");
        }
        let staged = "SELECT count(*)::text FROM pg_class WHERE relname LIKE 'staging%'";
        assert_eq!(one(&mut self.target, staged).await, "0", "no staging table is left");
        let recorded = if done.is_ok() { "t" } else { "f" };
        assert_eq!(
            one(&mut self.target, "SELECT CASE WHEN count(*) > 0 THEN 't' ELSE 'f' END FROM done").await,
            recorded
        );
        sql(&mut self.target, "DELETE FROM done").await;
        done
    }

    async fn pending(&mut self, copy: &Copy) -> Pending {
        sendable(compare(&mut self.source, &mut self.target, copy)).await.expect("both servers answer")
    }
}

/// A copy may run on any thread.
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

/// All rows of `t`, as one text.
async fn rows(conn: &mut PgConnection) -> String {
    one(conn, "SELECT coalesce(string_agg(t::text, ' ' ORDER BY t::text COLLATE \"C\"), '') FROM t").await
}

fn names(words: &str) -> Vec<String> {
    words.split_whitespace().map(str::to_owned).collect()
}

/// Table `t` to table `t`.
fn t(key: &str, omit: &str) -> Copy {
    let at =
        |database: &str| TableRef { database: DatabaseName::new(database).expect("a name"), table: "t".to_owned() };
    Copy { from: at("one"), to: at("two"), key: names(key), omit: names(omit) }
}

fn counts(read: u64, inserted: u64, updated: u64, deleted: u64) -> CopyCounts {
    CopyCounts { read, inserted, updated, deleted }
}

#[tokio::test]
async fn rows_are_inserted_updated_and_deleted_and_counted() {
    let make = "CREATE TABLE t (id int PRIMARY KEY, v text);";
    let source = format!("{make} INSERT INTO t SELECT n, 'v' || n FROM generate_series(1, 10) n");
    let target = format!(
        "{make} INSERT INTO t SELECT n, 'v' || n FROM generate_series(4, 12) n; UPDATE t SET v = NULL WHERE id = 5"
    );
    let mut two = Two::with("copy_counts", &source, &target).await;
    assert_eq!(two.pending(&t("id", "")).await, Pending::Differs { source_rows: 10, target_rows: 9 });
    assert_eq!(two.run(&t("id", "")).await.expect("copied"), counts(10, 3, 1, 2));
    assert_eq!(rows(&mut two.source).await, rows(&mut two.target).await);
    assert_eq!(two.pending(&t("id", "")).await, Pending::InSync);
    assert_eq!(two.run(&t("id", "")).await.expect("copied"), counts(10, 0, 0, 0));
}

#[tokio::test]
async fn the_published_table_goes_over_without_its_embedding() {
    let source =
        "CREATE TABLE t (id uuid PRIMARY KEY, text text, created_at timestamp NOT NULL, updated_at timestamp NOT NULL,
          content_sha text NOT NULL, embedding jsonb);
        INSERT INTO t SELECT md5(n::text)::uuid, 'text ' || n, timestamp '2026-03-29 02:30' + n * interval '1 h 1 us',
          timestamp '2026-10-25 01:30', md5('s' || n), '[1, 2]' FROM generate_series(1, 50000) n";
    let target = "CREATE TABLE t (id uuid PRIMARY KEY, text text, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
          content_sha text NOT NULL)";
    let mut two = Two::with("copy_published", source, target).await;
    // Neither server nor session keeps its clock in UTC.
    for (conn, zone) in [(&mut two.source, "America/New_York"), (&mut two.target, "Asia/Kolkata")] {
        let name = one(conn, "SELECT current_database()").await;
        sql(
            conn,
            &format!(
                "ALTER DATABASE {name} SET TimeZone = '{zone}'; SET TimeZone = '{zone}'; SET DateStyle = 'German'"
            ),
        )
        .await;
    }
    let heard = Mutex::new(Vec::new());
    let progress = |bytes, rows| heard.lock().expect("no panic").push((bytes, rows));
    let copy = t("id", "embedding");
    let done = run(&mut two.source, &mut two.target, &copy, LEDGER, SETTINGS, &progress).await.expect("copied");
    assert_eq!(done, counts(50_000, 50_000, 0, 0));
    let heard = heard.into_inner().expect("no panic");
    assert!(
        heard.len() > 10 && heard.is_sorted() && heard.last().is_some_and(|last| last.1 == 50_000),
        "{:?}",
        heard.last()
    );
    let at = "SELECT (created_at AT TIME ZONE 'UTC')::timestamp(0)::date || ' ' || extract(microseconds FROM created_at) FROM t WHERE text = 'text 7'";
    assert_eq!(one(&mut two.target, at).await, "29.03.2026 7");
    assert_eq!(two.pending(&copy).await, Pending::InSync);
}

#[tokio::test]
async fn every_character_arrives() {
    let make = "CREATE TABLE t (id int PRIMARY KEY, v text, b bytea, a text[]);";
    let source = format!(
        "{make} INSERT INTO t VALUES (1, E'tab\\there\\nline\\r\\nback\\\\slash \\\\N \\\\.', '\\x000aff5c', '{{\"a,b\",NULL,\"\"}}'),
         (2, NULL, NULL, NULL), (3, '', '', '{{}}'), (4, 'äß😀ａ\u{202e}', NULL, NULL), (5, '\\.', NULL, NULL), (6, '\\N', NULL, NULL)"
    );
    let mut two = Two::with("copy_text", &source, make).await;
    two.run(&t("id", "")).await.expect("copied");
    assert_eq!(rows(&mut two.source).await, rows(&mut two.target).await);
    assert_eq!(one(&mut two.target, "SELECT string_agg(id::text, ',') FROM t WHERE v IS NULL").await, "2");
}

#[tokio::test]
async fn types_may_change_on_the_way() {
    let source = "CREATE TABLE t (id int PRIMARY KEY, at timestamp, n numeric, j json, f float8, u text);
        INSERT INTO t VALUES (1, '2026-07-01 12:00', 1.00, '{\"b\": 1,  \"a\": [1]}', 0.1, 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'),
          (2, 'infinity', NULL, 'null', 'NaN', NULL)";
    let target = "CREATE TABLE t (id bigint PRIMARY KEY, at timestamptz, n numeric(10,4), j jsonb, f numeric, u uuid)";
    let mut two = Two::with("copy_types", source, target).await;
    two.run(&t("id", "")).await.expect("copied");
    assert_eq!(two.pending(&t("id", "")).await, Pending::InSync);
    assert_eq!(two.run(&t("id", "")).await.expect("copied"), counts(2, 0, 0, 0), "a second copy finds nothing to do");
    assert_eq!(one(&mut two.target, "SELECT (at = '2026-07-01 12:00+00')::text FROM t WHERE id = 1").await, "true");
}

#[tokio::test]
async fn json_columns_are_updated_when_their_text_differs() {
    let make = "CREATE TABLE t (id int PRIMARY KEY, j json, jb jsonb);";
    let source =
        format!("{make} INSERT INTO t VALUES (1, '{{\"a\": 1}}', '{{\"a\": 1}}'), (2, '[1]', '[1]'), (3, NULL, NULL)");
    let target = format!(
        "{make} INSERT INTO t VALUES (1, '{{\"a\": 2}}', '{{\"a\": 1}}'), (2, '[1]', '[1, 2]'), (3, NULL, NULL)"
    );
    let mut two = Two::with("copy_json", &source, &target).await;
    assert_eq!(two.run(&t("id", "")).await.expect("copied"), counts(3, 0, 2, 0));
    assert_eq!(rows(&mut two.source).await, rows(&mut two.target).await);
}

#[tokio::test]
async fn generated_and_identity_columns() {
    let source = "CREATE TABLE t (id int PRIMARY KEY, n int, g int, serial int);
        INSERT INTO t VALUES (1, 10, 0, 101), (2, 20, 0, 102), (3, 30, 0, 103)";
    let target = "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int, g int GENERATED ALWAYS AS (n * 2) STORED,
          serial int GENERATED ALWAYS AS IDENTITY, made timestamptz NOT NULL DEFAULT now());
        INSERT INTO t (id, n, serial) OVERRIDING SYSTEM VALUE VALUES (1, 11, 101), (2, 20, 999)";
    let mut two = Two::with("copy_identity", source, target).await;
    let plan = inspect(&mut two.source, &mut two.target, &t("id", "")).await.expect("possible");
    assert_eq!(plan.columns, ["id", "n", "serial"]);
    assert_eq!((plan.left_behind, plan.untouched), (names("g"), names("g made")));
    // Row 1 is updated; row 2 differs in what may not be updated, and is replaced; row 3 is new.
    assert_eq!(two.run(&t("id", "")).await.expect("copied"), counts(3, 2, 1, 1));
    let all = one(&mut two.target, "SELECT string_agg(concat_ws(':', id, n, g, serial), ' ' ORDER BY id) FROM t").await;
    assert_eq!(all, "1:10:20:101 2:20:40:102 3:30:60:103");
}

#[tokio::test]
async fn composite_keys_and_keys_that_are_equal_yet_not_the_same() {
    let make = "CREATE TABLE t (a text, n numeric, v int, PRIMARY KEY (a, n));";
    let source = format!("{make} INSERT INTO t VALUES ('x', 1.00, 1), ('x', 2, 1), ('y', 1, 1)");
    let target = format!("{make} INSERT INTO t VALUES ('x', 1.0, 1), ('x', 3, 1), ('y', 1, 1)");
    let mut two = Two::with("copy_composite", &source, &target).await;
    assert_eq!(two.run(&t("n a", "")).await.expect("copied"), counts(3, 1, 1, 1));
    assert_eq!(rows(&mut two.source).await, rows(&mut two.target).await);
}

#[tokio::test]
async fn an_empty_source_never_empties_the_target() {
    let make = "CREATE TABLE t (id int PRIMARY KEY);";
    let mut two = Two::with("copy_empty", make, &format!("{make} INSERT INTO t VALUES (1)")).await;
    let error = two.run(&t("id", "")).await.expect_err("it would have emptied the target");
    assert_eq!(error.to_string(), "one.t is empty; it would empty two.t");
    assert_eq!(rows(&mut two.target).await, "(1)");
    let mut two = Two::with("copy_empty", make, make).await;
    assert_eq!(two.run(&t("id", "")).await.expect("nothing to lose"), counts(0, 0, 0, 0));
}

#[tokio::test]
async fn keys_that_are_null_or_stand_twice_are_refused() {
    let target = "CREATE TABLE t (id int, k text, PRIMARY KEY (id, k))";
    let source =
        "CREATE TABLE t (id int, k text); INSERT INTO t VALUES (1, 'a'), (2, 'b c'), (2, 'b c'), (3, 'c'), (3, 'c')";
    let mut two = Two::with("copy_twice", source, target).await;
    let error = two.run(&t("id k", "")).await.expect_err("two rows share a key");
    assert_eq!(error.to_string(), "one: table t: key (id, k) is not unique, for example (2,\"b c\"), (3,c)");
    sql(&mut two.source, "DELETE FROM t; INSERT INTO t VALUES (1, 'a'), (2, NULL), (NULL, 'x')").await;
    let error = two.run(&t("id k", "")).await.expect_err("two rows have no key");
    assert_eq!(error.to_string(), "one: table t: 2 rows have NULL in the key (id, k)");
    assert_eq!(rows(&mut two.target).await, "");
}

#[tokio::test]
async fn a_failure_at_any_point_changes_nothing() {
    let make = "CREATE TABLE t (id int PRIMARY KEY, v text);";
    let source = format!("{make} INSERT INTO t VALUES (1, 'new'), (3, 'added')");
    let raise =
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not today'; END $$;";
    for moment in ["BEFORE DELETE", "AFTER UPDATE", "AFTER INSERT"] {
        let target = format!(
            "{make} INSERT INTO t VALUES (1, 'old'), (2, 'gone'); {raise} CREATE TRIGGER no {moment} ON t FOR EACH ROW EXECUTE FUNCTION no()"
        );
        let mut two = Two::with("copy_fails", &source, &target).await;
        let error = two.run(&t("id", "")).await.expect_err("the trigger raises");
        assert!(error.cause().is_some_and(|cause| cause.to_string().contains("not today")), "{error:?}");
        assert_eq!(rows(&mut two.target).await, "(1,old) (2,gone)", "{moment}");
        sql(&mut two.target, "DROP TRIGGER no ON t").await;
        assert_eq!(two.run(&t("id", "")).await.expect("the connections are usable"), counts(2, 1, 1, 1));
    }
}

#[tokio::test]
async fn a_copy_that_cannot_be_recorded_is_not_made() {
    let make = "CREATE TABLE t (id int PRIMARY KEY);";
    let mut two = Two::with("copy_ledger", &format!("{make} INSERT INTO t VALUES (1)"), make).await;
    let ledger = "INSERT INTO nowhere VALUES (1)";
    let done = run(&mut two.source, &mut two.target, &t("id", ""), ledger, "", &|_, _| ()).await;
    assert_eq!(done.expect_err("there is no ledger").to_string(), "two: cannot record the copy in the ledger");
    assert_eq!(rows(&mut two.target).await, "");
    assert_eq!(two.run(&t("id", "")).await.expect("the connections are usable"), counts(1, 1, 0, 0));
}

#[tokio::test]
async fn a_commit_that_is_refused_is_told_as_such() {
    let make = "CREATE TABLE t (id int PRIMARY KEY);";
    let target = format!(
        "{make} CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'at the end'; END $$;
         CREATE CONSTRAINT TRIGGER no AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION no()"
    );
    let mut two = Two::with("copy_commit", &format!("{make} INSERT INTO t VALUES (1)"), &target).await;
    let error = two.run(&t("id", "")).await.expect_err("the trigger raises");
    assert!(matches!(error, CopyError::Commit { .. }), "{error:?}");
    assert_eq!(rows(&mut two.target).await, "");
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_an_error_and_the_connections_stay_usable() {
    let source = "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT n, 'x' FROM generate_series(1, 20000) n; UPDATE t SET v = 'many' WHERE id = 7";
    let mut two = Two::with("copy_unfit", source, "CREATE TABLE t (id int PRIMARY KEY, v varchar(2))").await;
    let error = two.run(&t("id", "")).await.expect_err("it is too long");
    assert_eq!(error.to_string(), "two: cannot stage the rows");
    sql(&mut two.source, "UPDATE t SET v = 'y' WHERE id = 7").await;
    assert_eq!(two.run(&t("id", "")).await.expect("it fits now"), counts(20_000, 20_000, 0, 0));
}

#[tokio::test]
async fn a_source_that_breaks_off_leaves_the_target_alone() {
    let source = "CREATE TABLE base (id int PRIMARY KEY); INSERT INTO base SELECT generate_series(1, 50000);
        CREATE VIEW t AS SELECT id, 1 / (id - 40000) AS v FROM base";
    let mut two = Two::with("copy_source", source, "CREATE TABLE t (id int PRIMARY KEY, v int)").await;
    let error = two.run(&t("id", "")).await.expect_err("a row cannot be computed");
    assert_eq!(error.to_string(), "one: cannot read the rows");
    assert!(error.cause().is_some_and(|cause| cause.to_string().contains("division by zero")), "{error:?}");
    assert_eq!(rows(&mut two.target).await, "");
    sql(&mut two.source, "DELETE FROM base WHERE id = 40000").await;
    assert_eq!(two.run(&t("id", "")).await.expect("the connections are usable").read, 49_999);
}

#[tokio::test]
async fn a_lock_that_is_not_had_ends_the_copy() {
    let make = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)";
    let mut two = Two::with("copy_lock", make, make).await;
    let mut other = open(&two.target_url).await;
    sql(&mut other, "BEGIN; INSERT INTO t VALUES (2)").await;
    let soon = "SET LOCAL lock_timeout = '50ms'";
    let error =
        run(&mut two.source, &mut two.target, &t("id", ""), LEDGER, soon, &|_, _| ()).await.expect_err("locked");
    assert_eq!(error.to_string(), "two: cannot lock the table against other writers");
    let cause = error.cause().and_then(|cause| cause.as_database_error()).and_then(|cause| cause.code());
    assert_eq!(cause.as_deref(), Some("55P03"));
}

#[tokio::test]
async fn what_cannot_be_copied_is_refused_by_name() {
    let source = "CREATE TABLE t (id int PRIMARY KEY, v text, w text)";
    let target = "CREATE TABLE t (id int PRIMARY KEY, v text, need text NOT NULL)";
    let mut two = Two::with("copy_refused", source, target).await;
    let cases = [
        (t("id", ""), "two: column need of table t is NOT NULL, has no default, and the source does not fill it"),
        (t("uid", ""), "one: table t has no column uid"),
        (t("w", ""), "two: table t has no column w"),
        (t("id", "embeding"), "one: table t has no column embeding"),
        (t("id", "id"), "two: key column id of table t is not among the columns that are copied"),
        (t("", ""), "two: no key is given for table t"),
    ];
    for (copy, message) in cases {
        let error = inspect(&mut two.source, &mut two.target, &copy).await.expect_err("impossible");
        assert_eq!(error.to_string(), message);
        assert_eq!(two.run(&copy).await.expect_err("impossible").to_string(), message);
    }
    sql(&mut two.target, "ALTER TABLE t RENAME TO base; CREATE VIEW t AS SELECT id, v FROM base").await;
    let error = inspect(&mut two.source, &mut two.target, &t("id", "")).await.expect_err("impossible");
    assert_eq!(error.to_string(), "two: t is not a table that rows can be merged into");
}

#[tokio::test]
async fn a_table_that_a_migration_will_make_is_unknown_yet() {
    let mut two = Two::with("copy_unknown", "CREATE TABLE t (id int PRIMARY KEY)", "").await;
    let unknown = |text: &str| Pending::Unknown(text.to_owned());
    assert_eq!(two.pending(&t("id", "")).await, unknown("two: there is no table t"));
    sql(&mut two.target, "CREATE TABLE t (v int)").await;
    assert_eq!(two.pending(&t("id", "")).await, unknown("two: table t has no column id"));
}

#[tokio::test]
async fn a_table_is_not_copied_onto_itself() {
    let two = Two::with("copy_self", "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)", "").await;
    let (mut source, mut target) = (open(&two.source_url).await, open(&two.source_url).await);
    let error =
        run(&mut source, &mut target, &t("id", ""), LEDGER, SETTINGS, &|_, _| ()).await.expect_err("one database");
    assert!(error.to_string().starts_with("one and two are one and the same database"), "{error}");
}
