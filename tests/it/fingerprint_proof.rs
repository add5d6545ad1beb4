//! The proof that the fingerprint is worth something: it is the same for the same database and for its restored dump,
//! and it differs, by name, after each of many small changes.

use std::process::Command;
use std::time::Instant;

use sqlx::PgConnection;
use tokio::sync::OnceCell;

use crate::fingerprint::{assert_same, fingerprint};
use crate::harness::{OWNER, as_superuser, cluster, connect, execute, fresh_database};

pub(crate) const ZOO: &str = include_str!("zoo.sql");

/// What only a superuser may make. There is no security label in it: PostgreSQL takes one from a provider that is loaded, and of the
/// two that come with it, `sepgsql` wants a kernel with SELinux, and `dummy_seclabel` is a test module that Debian does not package.
pub(crate) const SUPERUSER_ZOO: &str = "
    CREATE SCHEMA zoo;
    CREATE EXTENSION hstore SCHEMA zoo;
    CREATE FOREIGN DATA WRAPPER zoo_wrapper OPTIONS (b '2', a '1');
    CREATE SERVER zoo_server TYPE 't' VERSION '1' FOREIGN DATA WRAPPER zoo_wrapper OPTIONS (host 'nowhere');
    GRANT USAGE ON FOREIGN SERVER zoo_server TO zoo_reader;
    CREATE USER MAPPING FOR zoo_reader SERVER zoo_server OPTIONS (password 'secret');
    CREATE USER MAPPING FOR PUBLIC SERVER zoo_server;
    CREATE FOREIGN TABLE zoo.far (i int OPTIONS (column_name 'j') CHECK (i > 0)) SERVER zoo_server OPTIONS (tab 'x');
    COMMENT ON SERVER zoo_server IS 'far away';
    COMMENT ON FOREIGN DATA WRAPPER zoo_wrapper IS 'wraps';
    COMMENT ON FOREIGN TABLE zoo.far IS 'not here';
    COMMENT ON COLUMN zoo.far.i IS 'not here either';
    CREATE FUNCTION zoo.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    CREATE EVENT TRIGGER zoo_ddl ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'DROP TABLE')
        EXECUTE FUNCTION zoo.on_ddl();
    ALTER EVENT TRIGGER zoo_ddl DISABLE;
    COMMENT ON EVENT TRIGGER zoo_ddl IS 'sees changes';
    CREATE OPERATOR FAMILY zoo.family USING btree;
    CREATE OPERATOR CLASS zoo.backwards FOR TYPE integer USING btree FAMILY zoo.family AS
        OPERATOR 1 >, OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <, FUNCTION 1 btint4cmp(integer, integer);
    ALTER OPERATOR FAMILY zoo.family USING btree ADD FUNCTION 2 (integer, integer) btint4sortsupport(internal);
    COMMENT ON OPERATOR FAMILY zoo.family USING btree IS 'for backwards';
    COMMENT ON OPERATOR CLASS zoo.backwards USING btree IS 'downwards';
    CREATE TABLE zoo.t (i int);
    CREATE INDEX t_backwards ON zoo.t (i zoo.backwards);
    CREATE FUNCTION zoo.handler() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
    CREATE FUNCTION zoo.inline(internal) RETURNS void LANGUAGE c STRICT AS '$libdir/plpgsql', 'plpgsql_inline_handler';
    CREATE TRUSTED LANGUAGE zoo_language HANDLER zoo.handler INLINE zoo.inline;
    GRANT USAGE ON LANGUAGE zoo_language TO zoo_reader;
    CREATE TRANSFORM FOR integer LANGUAGE zoo_language (FROM SQL WITH FUNCTION prsd_lextype(internal));
    COMMENT ON LANGUAGE zoo_language IS 'spoken';
    COMMENT ON TRANSFORM FOR integer LANGUAGE zoo_language IS 'turns';
    CREATE ACCESS METHOD zoo_heap TYPE TABLE HANDLER heap_tableam_handler;
    COMMENT ON ACCESS METHOD zoo_heap IS 'as usual';
    CREATE TABLE zoo.other_method (i int) USING zoo_heap;
    CREATE TYPE zoo.base;
    CREATE FUNCTION zoo.base_in(cstring) RETURNS zoo.base LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
    CREATE FUNCTION zoo.base_out(zoo.base) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
    CREATE TYPE zoo.base (INPUT = zoo.base_in, OUTPUT = zoo.base_out, LIKE = integer, DEFAULT = '7');
    CREATE CAST (zoo.base AS integer) WITHOUT FUNCTION AS IMPLICIT;
    CREATE TYPE zoo.shell;
    CREATE TEXT SEARCH PARSER zoo.parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end,
        LEXTYPES = prsd_lextype, HEADLINE = prsd_headline);
    CREATE TEXT SEARCH TEMPLATE zoo.template (INIT = dsimple_init, LEXIZE = dsimple_lexize);
    COMMENT ON TEXT SEARCH PARSER zoo.parser IS 'parses';
    COMMENT ON TEXT SEARCH TEMPLATE zoo.template IS 'templates';
    CREATE PUBLICATION all_of_it FOR ALL TABLES;
    CREATE PUBLICATION of_a_schema FOR TABLES IN SCHEMA zoo;
    CREATE SUBSCRIPTION zoo_subscription CONNECTION 'host=nowhere' PUBLICATION p, q
        WITH (connect = false, slot_name = NONE);
    COMMENT ON SUBSCRIPTION zoo_subscription IS 'asks nobody';
    REVOKE EXECUTE ON FUNCTION pg_sleep(float8) FROM PUBLIC;
    GRANT SELECT (rolpassword) ON pg_authid TO zoo_reader;
    CREATE FUNCTION zoo.with_extension() RETURNS int LANGUAGE sql AS 'SELECT 1';
    ALTER FUNCTION zoo.with_extension() DEPENDS ON EXTENSION plpgsql;
";

/// The roles that the zoo speaks of.
pub(crate) async fn make_roles() {
    static MADE: OnceCell<()> = OnceCell::const_new();
    MADE.get_or_init(|| async {
        let mut server = connect(&cluster().url("postgres", "postgres")).await;
        let sql = format!("CREATE ROLE zoo_reader; CREATE ROLE zoo_other; GRANT zoo_other TO {OWNER}");
        execute(&mut server, sql).await;
    })
    .await;
}

/// A database full of everything that its owner can make.
async fn zoo(name: &str) -> (String, PgConnection) {
    make_roles().await;
    let url = fresh_database(name).await;
    let mut connection = connect(&url).await;
    execute(&mut connection, ZOO).await;
    (url, connection)
}

/// Carries one database into the other as a dump.
fn dump_and_restore(from: &str, to: &str) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let dump = dir.path().join("dump");
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(cluster().bin_dir().join(program));
        let output = command.args(args).arg(&dump).output().expect("it lies beside the server's programs");
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run("pg_dump", &["-Fc", "-d", from, "-f"]);
    run("pg_restore", &["--exit-on-error", "-d", to]);
}

#[tokio::test]
async fn the_same_database_has_the_same_fingerprint() {
    let (url, _connection) = zoo("the_same_database_has_the_same_fingerprint").await;
    let first = fingerprint(&url).await;
    assert_same(&first, &fingerprint(&url).await);
    assert_same(&first, &fingerprint(&as_superuser(&url)).await);
}

#[tokio::test]
async fn a_restored_dump_has_the_same_fingerprint() {
    let (url, _connection) = zoo("a_restored_dump_has_the_same_fingerprint").await;
    let restored = fresh_database("restored").await;
    dump_and_restore(&url, &restored);
    let before = fingerprint(&url).await;
    assert_same(&before.without_database_level(), &fingerprint(&restored).await.without_database_level());
    // The second time round there is not even another way to write an array.
    let again = fresh_database("restored_again").await;
    dump_and_restore(&restored, &again);
    assert_same(&before.without_database_level(), &fingerprint(&again).await.without_database_level());
}

#[tokio::test]
async fn a_restored_dump_of_a_superuser_has_the_same_fingerprint() {
    make_roles().await;
    let url = as_superuser(&fresh_database("superuser_zoo").await);
    execute(&mut connect(&url).await, SUPERUSER_ZOO).await;
    let restored = as_superuser(&fresh_database("superuser_zoo_restored").await);
    dump_and_restore(&url, &restored);
    let before = fingerprint(&url).await;
    assert_same(&before.without_database_level(), &fingerprint(&restored).await.without_database_level());
}

#[tokio::test]
async fn a_copy_by_template_has_the_same_fingerprint() {
    let (url, connection) = zoo("a_copy_by_template").await;
    let before = fingerprint(&url).await;
    drop(connection);
    let (copy, template) = ("copied_by_template", url.split(['/', '?']).nth(3).expect("the name of the database"));
    let mut server = connect(&cluster().url(OWNER, "postgres")).await;
    execute(&mut server, format!("CREATE DATABASE {copy} TEMPLATE \"{template}\"")).await;
    assert_same(&before, &fingerprint(&cluster().url(OWNER, copy)).await);
}

/// There is at least one of each kind of thing in one of the zoos; a kind that is new here is wanted there, too.
#[tokio::test]
async fn the_zoos_hold_one_of_each_kind() {
    let (url, _connection) = zoo("one_of_each_kind").await;
    let mut keys: Vec<String> = fingerprint(&url).await.keys().map(str::to_owned).collect();
    let superuser = as_superuser(&fresh_database("one_of_each_kind_of_superuser").await);
    execute(&mut connect(&superuser).await, SUPERUSER_ZOO).await;
    keys.extend(fingerprint(&superuser).await.keys().map(str::to_owned));
    let kinds = "access method|aggregate|cast|collation|comment on|composite type column|conversion|database
        |default acl|dependency of|domain constraint|event trigger|extension|foreign table column|foreign table
        |foreign-data wrapper|function|changed privileges of function|changed privileges of table column|index|language
        |large object|materialized view|operator|operator class|operator family|function of access method
        |operator of access method|parameters of sequence|policy|procedure|publication|publication relation
        |publication namespace|rows of table|rows of materialized view|rule|schema|sequence|server
        |state of sequence|statistics object|subscription|table|table column|table constraint|text search configuration
        |text search dictionary|text search parser|text search template|transform|trigger|type|user mapping|view
        |view column|materialized view column";
    // Whatever can have a comment has one somewhere.
    let comments = "access method|aggregate|cast|collation|composite type column|conversion|domain constraint|event trigger
        |extension|foreign table column|foreign table|foreign-data wrapper|function|index|language|large object|materialized view
        |operator|operator class|operator family|policy|procedure|publication|rule|schema|sequence|server|statistics object
        |subscription|table|table column|table constraint|text search configuration|text search dictionary
        |text search parser|text search template|transform|trigger|type|view|view column";
    let comments: Vec<String> = comments.split('|').map(|kind| format!("comment on {}", kind.trim())).collect();
    let missing: Vec<&str> = kinds
        .split('|')
        .map(str::trim)
        .chain(comments.iter().map(String::as_str))
        .filter(|kind| !keys.iter().any(|key| key.strip_prefix(kind).is_some_and(|rest| rest.starts_with(' '))))
        .collect();
    assert!(missing.is_empty(), "none of: {missing:?}; all there is:\n{}", keys.join("\n"));
}

/// Each change, by the owner, and what a line of the difference must start with.
const CHANGES: &[(&str, &str)] = &[
    ("ALTER TABLE zoo.wide ADD COLUMN extra int", "only after: table column zoo.wide.extra"),
    ("ALTER TABLE zoo.wide DROP COLUMN extra", "only before: table column zoo.wide.extra"),
    ("ALTER TABLE zoo.animals ALTER name SET DEFAULT 'y'", "changed: table column zoo.animals.name: default"),
    ("ALTER TABLE zoo.wide ALTER i SET NOT NULL", "changed: table column zoo.wide.i: not null"),
    ("ALTER TABLE zoo.wide ALTER i TYPE bigint", "changed: table column zoo.wide.i: type"),
    ("ALTER TABLE zoo.wide ALTER filler SET STORAGE MAIN", "changed: table column zoo.wide.filler: storage"),
    ("ALTER TABLE zoo.wide SET (fillfactor = 50)", "changed: table zoo.wide: options"),
    ("ALTER TABLE zoo.wide REPLICA IDENTITY DEFAULT", "changed: table zoo.wide: replica identity"),
    ("ALTER TABLE zoo.wide SET WITHOUT CLUSTER", "changed: index zoo.by_id: clustered"),
    ("ALTER TABLE zoo.unlogged SET LOGGED", "changed: table zoo.unlogged: persistence"),
    ("ALTER TABLE zoo.visits DETACH PARTITION zoo.visits_rest", "changed: table zoo.visits_rest: partition bound"),
    ("ALTER TABLE zoo.birds NO INHERIT zoo.tagged", "changed: table zoo.birds: parents"),
    (
        "ALTER TABLE zoo.cages VALIDATE CONSTRAINT unchecked",
        "changed: table constraint unchecked on zoo.cages: validated",
    ),
    ("ALTER TABLE zoo.cages DROP CONSTRAINT nonsense", "only before: table constraint nonsense on zoo.cages"),
    ("DROP INDEX zoo.by_day", "only before: index zoo.by_day"),
    ("CREATE INDEX by_more ON zoo.wide (filler)", "only after: index zoo.by_more"),
    ("SELECT nextval('zoo.fresh')", "changed: state of sequence zoo.fresh: called"),
    ("SELECT setval('zoo.down', -7)", "changed: state of sequence zoo.down: last value"),
    ("ALTER SEQUENCE zoo.down INCREMENT -4", "changed: parameters of sequence zoo.down: increment"),
    ("GRANT SELECT ON zoo.unlogged TO PUBLIC", "changed: table zoo.unlogged: acl"),
    ("REVOKE ALL ON zoo.counting FROM release, zoo_reader", "changed: view zoo.counting: acl"),
    ("GRANT UPDATE (i) ON zoo.wide TO zoo_reader", "changed: table column zoo.wide.i: acl"),
    ("REVOKE USAGE ON TYPE zoo.mood FROM PUBLIC", "changed: type zoo.mood: acl"),
    ("REVOKE USAGE ON SCHEMA zoo FROM zoo_reader", "changed: schema zoo: acl"),
    ("COMMENT ON COLUMN zoo.wide.i IS 'number'", "only after: comment on table column zoo.wide.i"),
    ("COMMENT ON TABLE zoo.keepers IS NULL", "only before: comment on table zoo.keepers"),
    ("ALTER VIEW zoo.names OWNER TO zoo_other", "changed: view zoo.names: owner"),
    ("UPDATE zoo.animals SET name = 'Cow' WHERE id = 1", "changed: rows of table zoo.animals: hash"),
    ("UPDATE zoo.\"Every Value\" SET t = NULL WHERE \"Id\" = 2", "changed: rows of table zoo.\"Every Value\": hash"),
    (
        "UPDATE zoo.\"Every Value\" SET n2 = n2 + 0.00001 WHERE \"Id\" = 2",
        "changed: rows of table zoo.\"Every Value\": hash",
    ),
    ("DELETE FROM zoo.unlogged WHERE i = 1", "changed: rows of table zoo.unlogged: count"),
    (
        "DELETE FROM zoo.visits WHERE id = 2; INSERT INTO zoo.visits VALUES (4, '2020-05-05')",
        "changed: rows of table zoo.visits_2021_x: count",
    ),
    ("REFRESH MATERIALIZED VIEW zoo.stale", "changed: materialized view zoo.stale: populated"),
    (
        "CREATE OR REPLACE VIEW zoo.checked AS SELECT * FROM zoo.animals WHERE id > 1",
        "changed: view zoo.checked: definition",
    ),
    ("ALTER TABLE zoo.keepers ENABLE ROW LEVEL SECURITY", "changed: table zoo.keepers: row security"),
    ("ALTER POLICY everybody ON zoo.cages USING (second IS NULL)", "changed: policy everybody on zoo.cages: using"),
    (
        "ALTER TABLE zoo.keepers ENABLE TRIGGER after_statement",
        "changed: trigger after_statement on zoo.keepers: enabled",
    ),
    ("DROP TRIGGER on_visit ON zoo.visits", "only before: trigger on_visit on zoo.visits_2020"),
    ("ALTER TABLE zoo.animals ENABLE RULE no_delete", "changed: rule no_delete on zoo.animals: enabled"),
    ("ALTER FUNCTION zoo.look() SET work_mem = '9MB'", "changed: function zoo.look(): source"),
    ("ALTER TYPE zoo.mood ADD VALUE 'new' AFTER 'sad'", "changed: type zoo.mood: labels"),
    ("ALTER DOMAIN zoo.positive DROP DEFAULT", "changed: type zoo.positive: default"),
    ("ALTER DOMAIN zoo.positive DROP CONSTRAINT over_zero", "only before: domain constraint over_zero on zoo.positive"),
    (
        "ALTER TYPE zoo.size RENAME ATTRIBUTE height TO depth CASCADE",
        "only after: composite type column zoo.size.depth",
    ),
    (
        "ALTER OPERATOR zoo.=== (zoo.size, zoo.size) SET (JOIN = NONE)",
        "changed: operator zoo.===(zoo.size,zoo.size): join",
    ),
    ("DROP CAST (zoo.size AS json)", "only before: cast (zoo.size AS pg_catalog.json)"),
    ("ALTER TEXT SEARCH DICTIONARY zoo.plain (accept = false)", "changed: text search dictionary zoo.plain: options"),
    (
        "ALTER TEXT SEARCH CONFIGURATION zoo.search DROP MAPPING FOR word",
        "changed: text search configuration zoo.search: mappings",
    ),
    ("ALTER STATISTICS zoo.together SET STATISTICS 56", "changed: statistics object zoo.together: target"),
    (
        "ALTER PUBLICATION some_of_it DROP TABLE zoo.animals",
        "only before: publication relation zoo.animals in publication some_of_it",
    ),
    ("SELECT lo_put(424242, 2, '\\xff')", "changed: large object 424242: hash"),
    ("SELECT lo_unlink(424243)", "only before: large object 424243"),
    ("COMMENT ON EXTENSION citext IS NULL", "only before: comment on extension citext"),
    ("ALTER DEFAULT PRIVILEGES IN SCHEMA zoo GRANT INSERT ON TABLES TO zoo_reader", "changed: default acl"),
    ("ALTER DATABASE \"$database\" CONNECTION LIMIT 17", "changed: database datconnlimit"),
    ("ALTER DATABASE \"$database\" SET work_mem = '5MB'", "only after: database setting for all"),
    (
        "ALTER DATABASE \"$database\" SET work_mem = '6MB'; REVOKE TEMPORARY ON DATABASE \"$database\" FROM PUBLIC",
        "changed: database setting for all: settings",
    ),
    ("REVOKE CONNECT ON DATABASE \"$database\" FROM PUBLIC", "changed: database acl"),
    ("COMMENT ON DATABASE \"$database\" IS 'mine'", "only after: database comment"),
    ("ALTER DATABASE \"$database\" OWNER TO zoo_other", "changed: database owner"),
];

/// The same for changes that want a superuser.
const SUPERUSER_CHANGES: &[(&str, &str)] = &[
    ("ALTER EVENT TRIGGER zoo_ddl ENABLE", "changed: event trigger zoo_ddl: enabled"),
    ("ALTER SERVER zoo_server OPTIONS (SET host 'elsewhere')", "changed: server zoo_server: options"),
    (
        "ALTER USER MAPPING FOR zoo_reader SERVER zoo_server OPTIONS (SET password 'x')",
        "changed: user mapping for zoo_reader",
    ),
    ("DROP USER MAPPING FOR PUBLIC SERVER zoo_server", "only before: user mapping for public on server zoo_server"),
    ("ALTER FOREIGN TABLE zoo.far OPTIONS (SET tab 'y')", "changed: foreign table zoo.far: foreign"),
    (
        "ALTER OPERATOR FAMILY zoo.family USING btree DROP FUNCTION 2 (integer, integer)",
        "only before: function of access method",
    ),
    (
        "ALTER SUBSCRIPTION zoo_subscription CONNECTION 'host=there'",
        "changed: subscription zoo_subscription: connection",
    ),
    ("GRANT EXECUTE ON FUNCTION pg_sleep(float8) TO PUBLIC", "changed privileges of function pg_catalog.pg_sleep"),
    ("ALTER TABLE zoo.t DISABLE TRIGGER ALL; ALTER TABLE zoo.t SET UNLOGGED", "changed: table zoo.t: persistence"),
    ("COMMENT ON FUNCTION pg_sleep(float8) IS 'zzz'", "changed: comments on what is built in: hash"),
    (
        "ALTER ROLE zoo_reader IN DATABASE \"$database\" SET work_mem = '5MB'",
        "only after: database setting for zoo_reader",
    ),
    ("ALTER PUBLICATION all_of_it SET (publish = 'insert')", "changed: publication all_of_it"),
    ("ALTER EXTENSION hstore SET SCHEMA public", "changed: extension hstore: schema"),
    ("ALTER EXTENSION hstore DROP FUNCTION public.hstore(text, text)", "changed: extension hstore: members"),
    (
        "GRANT EXECUTE ON FUNCTION public.akeys(public.hstore) TO zoo_reader",
        "only after: changed privileges of function",
    ),
    ("ALTER SCHEMA zoo OWNER TO zoo_other", "changed: schema zoo: owner"),
];

/// Makes one change after the other; each one must show.
async fn every_change_shows(url: &str, changes: &[(&str, &str)]) {
    let mut connection = connect(url).await;
    let database: String =
        sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut connection).await.expect("it has a name");
    let mut before = fingerprint(url).await;
    let mut unseen = Vec::new();
    for (change, expected) in changes {
        execute(&mut connection, change.replace("$database", &database)).await;
        let after = fingerprint(url).await;
        let diff = before.diff(&after);
        let named = diff.iter().any(|line| line.contains(expected));
        if before == after || !named {
            unseen.push(format!("{change}\n  expected {expected}\n  found {diff:#?}"));
        }
        before = after;
    }
    assert!(unseen.is_empty(), "{}", unseen.join("\n"));
}

#[tokio::test]
async fn every_change_of_an_owner_shows() {
    let (url, _connection) = zoo("every_change_of_an_owner_shows").await;
    every_change_shows(&url, CHANGES).await;
}

#[tokio::test]
async fn every_change_of_a_superuser_shows() {
    make_roles().await;
    let url = as_superuser(&fresh_database("every_change_of_a_superuser_shows").await);
    execute(&mut connect(&url).await, SUPERUSER_ZOO).await;
    every_change_shows(&url, SUPERUSER_CHANGES).await;
}

/// The one kind of text that is rewritten before it is compared still tells one value from another.
#[tokio::test]
async fn a_check_with_another_value_differs() {
    let tables = |values: &str| format!("CREATE TABLE t (x varchar, CONSTRAINT known CHECK (x IN ({values})))");
    let mut found = Vec::new();
    for values in ["'a', 'b'", "'a', 'c'"] {
        let url = fresh_database("a_check_with_another_value_differs").await;
        execute(&mut connect(&url).await, tables(values)).await;
        found.push(fingerprint(&url).await);
    }
    let diff = found[0].without_database_level().diff(&found[1].without_database_level());
    assert_eq!(diff.len(), 1, "{diff:?}");
    assert!(diff[0].starts_with("changed: table constraint known on public.t: definition"), "{diff:?}");
}

#[tokio::test]
async fn a_hundred_tables_take_well_under_a_second() {
    let url = fresh_database("a_hundred_tables").await;
    let table = "CREATE TABLE t% (id serial PRIMARY KEY, a text, b int CHECK (b > 0), c varchar, d date, e jsonb);
        CREATE INDEX ON t% (a); COMMENT ON TABLE t% IS 'one of many';
        INSERT INTO t% (a, b) SELECT i::text, i FROM generate_series(1, 100) AS i;";
    let sql: String = (0..100).map(|n| table.replace('%', &n.to_string())).collect();
    execute(&mut connect(&url).await, sql).await;
    let start = Instant::now();
    let found = fingerprint(&url).await;
    let took = start.elapsed();
    assert!(found.keys().count() > 1000);
    // Generous: the machine may be busy with other tests.
    assert!(took.as_secs_f64() < 5.0, "it took {took:?}");
}
