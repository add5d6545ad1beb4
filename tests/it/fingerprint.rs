//! Everything that a database is, as text: its schema, its rows, and what belongs to the database itself. Two equal
//! fingerprints are the proof that a way back leads back. Nothing in it depends on OIDs or on physical places, so that
//! a dump and its restore have the same fingerprint; everything else that anybody could see is meant to be in it.
//!
//! Not in it: roles, tablespaces and other things of the whole server; subscriptions' connection strings unless a
//! superuser asks; base types' and extensions' C code; planner statistics; objects that belong to extensions, except
//! for changed privileges and for rows that the extension declares as the user's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use migrate::verify::catalog::Catalog;
use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use crate::harness::{connect, execute, explained};

/// What a database is: from the kind and the identity of each thing (`index public.foo_idx`) to its definition, which
/// is a JSON object of what is worth naming when it differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint(BTreeMap<String, String>);

impl Fingerprint {
    /// The same without what belongs to the database itself: owner, encoding, privileges, settings, comment. A dump
    /// without `--create` has none of it.
    pub(crate) fn without_database_level(&self) -> Fingerprint {
        let kept = self.0.iter().filter(|(key, _)| !key.starts_with("database "));
        Fingerprint(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// The same without the rows of these tables, which hold times.
    pub(crate) fn without_rows_of(&self, tables: &[&str]) -> Fingerprint {
        let is_left_out = |key: &str| tables.iter().any(|table| key == format!("rows of table {table}"));
        let kept = self.0.iter().filter(|(key, _)| !is_left_out(key));
        Fingerprint(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    /// The same with other properties; `change` gives the key as well.
    pub(crate) fn map(&self, change: impl Fn(&str, &mut Map<String, Value>) -> String) -> Fingerprint {
        let changed = self.0.iter().map(|(key, value)| {
            let mut properties = fields(value);
            (change(key, &mut properties), Value::Object(properties).to_string())
        });
        Fingerprint(changed.collect())
    }

    /// The things in it, by kind and identity.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What differs, one line for each thing or property; empty if nothing does.
    pub(crate) fn diff(&self, after: &Fingerprint) -> Vec<String> {
        let keys: BTreeSet<&String> = self.0.keys().chain(after.0.keys()).collect();
        let mut lines = Vec::new();
        for key in keys {
            match (self.0.get(key), after.0.get(key)) {
                (Some(before), None) => lines.push(format!("only before: {key}: {before}")),
                (None, Some(after)) => lines.push(format!("only after: {key}: {after}")),
                (Some(before), Some(after)) if before != after => {
                    let (before, after) = (fields(before), fields(after));
                    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
                    for name in names.into_iter().filter(|&name| before.get(name) != after.get(name)) {
                        let (before, after) = excerpts(&shown(before.get(name)), &shown(after.get(name)));
                        lines.push(format!("changed: {key}: {name}: {before} -> {after}"));
                    }
                }
                _ => {}
            }
        }
        lines
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(key, value)| writeln!(f, "{key}: {value}"))
    }
}

/// Fails with all differences if there are any.
#[track_caller]
pub(crate) fn assert_same(before: &Fingerprint, after: &Fingerprint) {
    let diff = before.diff(after);
    assert!(diff.is_empty(), "{} differences:\n{}", diff.len(), diff.join("\n"));
    assert_eq!(before, after);
}

/// The fingerprint of the database at `url`, all of it from one snapshot. The user must be able to read every table and
/// large object in it: what would be hidden is an error, not left out.
pub(crate) async fn fingerprint(url: &str) -> Fingerprint {
    let mut connection = connect(url).await;
    execute(&mut connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await;
    let catalog = Catalog::within(&mut connection).await.expect("a catalog");
    let database = Catalog::of_database(&mut connection).await.expect("a database");
    // How values are written that rows are compared by.
    execute(&mut connection, "SET LOCAL xmlbinary = 'base64'; SET LOCAL lc_monetary = 'C'").await;
    let mut queries: Vec<String> =
        run(&mut connection, content_queries()).await.into_iter().map(|(_, query)| query).collect();
    queries.extend(large_object_queries());
    let contents = run(&mut connection, queries).await;
    let mut things = BTreeMap::new();
    let objects = [&catalog, &database].into_iter().flat_map(Catalog::objects);
    let objects = objects.map(|(key, value)| (key.to_owned(), Value::Object(value.clone()).to_string()));
    for (key, value) in objects.chain(contents) {
        if let Some(earlier) = things.insert(key.clone(), value.clone()) {
            panic!("two things are called {key}: {earlier}, {value}");
        }
    }
    Fingerprint(things)
}

/// Runs all queries in one round trip. Each gives a key and a value.
async fn run(connection: &mut PgConnection, queries: Vec<String>) -> Vec<(String, String)> {
    let as_text = |query: String| format!("SELECT q.key::text, q.value::text FROM ({query}) AS q (key, value)");
    let sql: Vec<String> = queries.into_iter().map(as_text).collect();
    let sql = sql.join(";\n");
    let rows = sqlx::raw_sql(AssertSqlSafe(sql.clone())).fetch_all(connection).await;
    let rows = rows.unwrap_or_else(|error| panic!("no fingerprint: {}", explained(&error, &sql)));
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn fields(value: &str) -> Map<String, Value> {
    serde_json::from_str(value).unwrap_or_else(|error| panic!("no JSON object: {error}: {value}"))
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "(none)".to_owned(), Value::to_string)
}

/// Both texts, cut down to where they differ if they are long.
fn excerpts(before: &str, after: &str) -> (String, String) {
    const AROUND: usize = 80;
    let same = before.chars().zip(after.chars()).take_while(|(b, a)| b == a).count();
    let start = same.saturating_sub(AROUND);
    let cut = |text: &str| {
        let length = text.chars().count();
        if length <= 4 * AROUND {
            return text.to_owned();
        }
        let part: String = text.chars().skip(start).take(3 * AROUND).collect();
        let (left, right) = (if start > 0 { "…" } else { "" }, if start + 3 * AROUND < length { "…" } else { "" });
        format!("{left}{part}{right}")
    };
    (cut(before), cut(after))
}

/// Not a part of an extension.
fn free(catalog: &str, oid: &str) -> String {
    format!(
        "NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.classid = '{catalog}'::regclass AND e.objid = {oid}
         AND e.deptype = 'e')"
    )
}

/// In a schema of the user's.
fn mine(namespace: &str) -> String {
    format!(
        "{namespace} IN (SELECT n.oid FROM pg_namespace AS n
         WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')"
    )
}

/// The effective privileges, in the order of their text. None at all is told apart from the default; the default is not
/// told apart from itself written out, which is what a first GRANT leaves behind.
fn acl(kind: &str, acl: &str, owner: &str) -> String {
    format!(
        "(SELECT coalesce(string_agg(i::text, ' ' ORDER BY i::text COLLATE \"C\"), 'nobody')
         FROM unnest(coalesce({acl}, acldefault({kind}::\"char\", {owner}))) AS i)"
    )
}

/// Names a thing by its kind and identity, as the lateral `i`.
fn identity(catalog: &str, oid: &str) -> String {
    format!("LATERAL pg_identify_object('{catalog}'::regclass, {oid}, 0) AS i")
}

const KEY: &str = "i.type || ' ' || i.identity";

/// A large object is known by its OID, to everybody who wrote it into a column.
fn large_object_queries() -> [String; 2] {
    [
        format!(
            "SELECT 'large object ' || m.oid, jsonb_build_object('owner', pg_get_userbyid(m.lomowner), 'acl', {}, 'hash',
             md5(lo_get(m.oid))) FROM pg_largeobject_metadata AS m",
            acl("'L'", "m.lomacl", "m.lomowner"),
        ),
        "SELECT 'large objects', jsonb_build_object('count', count(*)) FROM pg_largeobject_metadata".to_owned(),
    ]
}

/// Queries that give queries: one for the rows of each table, one for the state of each sequence.
fn content_queries() -> Vec<String> {
    let rows = format!(
        r#"SELECT i.identity, format('SELECT %L, jsonb_build_object(''count'', count(*), ''hash'',
             sum((''x'' || substr(h, 1, 16))::bit(64)::bigint::numeric) || '' '' ||
             sum((''x'' || substr(h, 17, 16))::bit(64)::bigint::numeric))
             FROM (SELECT md5(("the row".*)::text) AS h FROM ONLY %s AS "the row") AS hashes',
             'rows of ' || {KEY}, c.oid::regclass)
         FROM pg_class AS c, {}
         WHERE (c.relkind = 'r' OR c.relkind = 'm' AND c.relispopulated) AND {}
         AND ({} OR EXISTS (SELECT FROM pg_extension AS x WHERE c.oid = ANY (x.extconfig)))"#,
        identity("pg_class", "c.oid"),
        mine("c.relnamespace"),
        free("pg_class", "c.oid"),
    );
    let sequences = format!(
        "SELECT i.identity, format('SELECT %L, jsonb_build_object(''last value'', last_value, ''called'', is_called)
             FROM %s', 'state of ' || {KEY}, c.oid::regclass)
         FROM pg_class AS c, {}
         WHERE c.relkind = 'S' AND {}
         AND ({} OR EXISTS (SELECT FROM pg_extension AS x WHERE c.oid = ANY (x.extconfig)))",
        identity("pg_class", "c.oid"),
        mine("c.relnamespace"),
        free("pg_class", "c.oid"),
    );
    vec![rows, sequences]
}
