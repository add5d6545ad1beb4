//! Everything that a database is, as text: its schema, its rows, and what belongs to the database itself. Two equal
//! fingerprints are the proof that a way back leads back. Nothing in it depends on OIDs or on physical places, so that
//! a dump and its restore have the same fingerprint; everything else that anybody could see is meant to be in it.
//!
//! Not in it: roles, tablespaces and other things of the whole server; subscriptions' connection strings unless a
//! superuser asks; base types' and extensions' C code; planner statistics; objects that belong to extensions, except
//! for changed privileges and for rows that the extension declares as the user's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

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
    let prepare = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
        SET LOCAL search_path = '';
        SET LOCAL row_security = off;
        SET LOCAL statement_timeout = 0;
        SET LOCAL client_encoding = 'UTF8';
        SET LOCAL timezone = 'UTC';
        SET LOCAL datestyle = 'ISO, YMD';
        SET LOCAL intervalstyle = 'postgres';
        SET LOCAL extra_float_digits = 1;
        SET LOCAL bytea_output = 'hex';
        SET LOCAL xmlbinary = 'base64';
        SET LOCAL lc_monetary = 'C';
        SET LOCAL quote_all_identifiers = off;
        SET LOCAL jit = off";
    execute(&mut connection, prepare).await;
    let superuser = sqlx::query_scalar("SELECT current_setting('is_superuser')::bool");
    let superuser: bool = superuser.fetch_one(&mut connection).await.expect("a setting that always exists");

    let mut things = BTreeMap::new();
    let contents = run(&mut connection, content_queries()).await;
    let contents = contents.into_iter().map(|(_, query)| query).collect();
    for (key, value) in
        run(&mut connection, schema_queries(superuser)).await.into_iter().chain(run(&mut connection, contents).await)
    {
        let mut fields = fields(&value);
        // An absent property says the same as one that is null.
        fields.retain(|_, value| !value.is_null());
        for name in DEPARSED {
            if let Some(Value::String(text)) = fields.get_mut(name) {
                *text = canonical(text);
            }
        }
        if let Some(earlier) = things.insert(key.clone(), Value::Object(fields).to_string()) {
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

/// The properties whose text PostgreSQL writes from a parse tree. Text that people wrote (comments, the source of
/// functions) is never touched.
const DEPARSED: [&str; 6] = ["definition", "default", "partition key", "using", "check", "where"];

/// Undoes the one known case in which PostgreSQL's own text does not mean the very same parse tree again.
///
/// `code IN ('a', 'b')` on a `varchar` is stored as a cast of the whole array and shown as
/// `(code)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying])::text[])`. When that text is read, as
/// by a restore, the parser moves the cast into the array: it is then stored, and shown, as
/// `(code)::text = ANY (ARRAY[('a'::character varying)::text, ('b'::character varying)::text])`, and stays so. The two
/// say the same of every value. The first form is rewritten into the second one, as the parser would.
fn canonical(text: &str) -> String {
    const OPEN: &str = "(ARRAY[";
    let mut out = String::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        // `f(ARRAY[1])` is a call, and what follows it is no cast of the array.
        let called = out.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '"'));
        if !called
            && rest.starts_with(OPEN)
            && let Some((items, end)) = array_items(rest, OPEN.len())
            && let Some(cast) = rest[end..].strip_prefix(")::")
            && let Some(name_length) = array_type_name(cast)
        {
            let element_type = &cast[..name_length];
            let items: Vec<String> = items.iter().map(|it| format!("({})::{element_type}", canonical(it))).collect();
            out.push_str(&format!("ARRAY[{}]", items.join(", ")));
            at += end + ")::".len() + name_length + "[]".len();
        } else {
            let length = token_length(rest);
            out.push_str(&rest[..length]);
            at += length;
        }
    }
    out
}

/// The items of the array constructor whose items start at `start`, and where the text goes on after its bracket.
fn array_items(text: &str, start: usize) -> Option<(Vec<&str>, usize)> {
    let (mut items, mut depth, mut item, mut at) = (Vec::new(), 0_usize, start, start);
    while at < text.len() {
        match text.as_bytes()[at] {
            b']' if depth == 0 => {
                items.push(text[item..at].trim());
                return Some((items, at + 1));
            }
            b',' if depth == 0 => {
                items.push(text[item..at].trim());
                item = at + 1;
            }
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at += token_length(&text[at..]);
    }
    None
}

/// The length of a type's name that is followed by `[]`.
fn array_type_name(text: &str) -> Option<usize> {
    let mut at = 0;
    while at < text.len() {
        match text[at..].chars().next()? {
            '[' => return (at > 0 && text[at..].starts_with("[]")).then_some(at),
            c if c.is_alphanumeric() || matches!(c, '_' | '.' | ' ' | '"') => at += token_length(&text[at..]),
            _ => return None,
        }
    }
    None
}

/// A quoted string or name as a whole, and otherwise one character.
fn token_length(text: &str) -> usize {
    let first = text.chars().next().map_or(0, char::len_utf8);
    match text.as_bytes()[0] {
        // A doubled quote looks like the end of one string and the start of the next, which comes to the same.
        // PostgreSQL writes a backslash only as `E'\\'`, never before a quote.
        quote @ (b'\'' | b'"') => text[1..].find(char::from(quote)).map_or(first, |end| end + 2),
        _ => first,
    }
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

/// Without what some builds of the server write by themselves when a column is made: it is another in each
/// column that is made, nobody can set it, and no dump has it.
const OPTIONS_OF_COLUMNS: &str = "array(SELECT o FROM unnest(a.attoptions) AS o WHERE o NOT LIKE 'pg_attver=%')";

/// `name=value` options, whose order means nothing.
fn sorted(options: &str) -> String {
    format!("(SELECT string_agg(o, ', ' ORDER BY o COLLATE \"C\") FROM unnest({options}) AS o)")
}

/// Names a thing by its kind and identity, as the lateral `i`.
fn identity(catalog: &str, oid: &str) -> String {
    format!("LATERAL pg_identify_object('{catalog}'::regclass, {oid}, 0) AS i")
}

/// What the row of a catalog says when nothing in it is an OID but `without`.
fn plain_row(alias: &str, without: &str) -> String {
    format!("to_jsonb({alias}) - '{{{without}}}'::text[]")
}

const KEY: &str = "i.type || ' ' || i.identity";

/// Queries that give a key and a JSON object each: everything but the contents.
fn schema_queries(superuser: bool) -> Vec<String> {
    let mut queries = Vec::new();
    let mut add = |query: String| queries.push(query);
    let owner = |column: &str| format!("'owner', pg_get_userbyid({column})");

    // The database itself. It has no name here: it is compared with others, and with itself after a swap.
    add(format!(
        "SELECT 'database ' || p.key, jsonb_build_object('value', p.value)
         FROM pg_database AS d, LATERAL jsonb_each_text(jsonb_build_object(
             {owner}, 'acl', {acl}, 'encoding', pg_encoding_to_char(d.encoding),
             'tablespace', (SELECT spcname FROM pg_tablespace AS t WHERE t.oid = d.dattablespace),
             'comment', shobj_description(d.oid, 'pg_database'))
             || {row}) AS p
         WHERE d.datname = current_database() AND p.value IS NOT NULL",
        owner = owner("d.datdba"),
        acl = acl("'d'", "d.datacl", "d.datdba"),
        row = plain_row(
            "d",
            "oid,datname,datdba,encoding,dattablespace,datacl,datfrozenxid,datminmxid,datlastsysoid,dathasloginevt"
        ),
    ));
    add(format!(
        "SELECT 'database setting for ' || CASE s.setrole WHEN 0 THEN 'all' ELSE pg_get_userbyid(s.setrole) END,
             jsonb_build_object('settings', {})
         FROM pg_db_role_setting AS s
         WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())",
        sorted("s.setconfig")
    ));
    add("SELECT 'database security label of ' || provider, jsonb_build_object('label', label) FROM pg_shseclabel
         WHERE classoid = 'pg_database'::regclass
         AND objoid = (SELECT oid FROM pg_database WHERE datname = current_database())"
        .to_owned());

    add(format!(
        "SELECT {KEY}, jsonb_build_object({}, 'acl', {}) FROM pg_namespace AS s, {} WHERE {} AND {}",
        owner("s.nspowner"),
        acl("'n'", "s.nspacl", "s.nspowner"),
        identity("pg_namespace", "s.oid"),
        mine("s.oid"),
        free("pg_namespace", "s.oid"),
    ));
    // Tables of every kind, views, sequences.
    add(format!(
        "SELECT {KEY}, jsonb_build_object({owner}, 'acl', {acl}, 'kind', c.relkind, 'persistence', c.relpersistence,
             'tablespace', (SELECT spcname FROM pg_tablespace AS t WHERE t.oid = c.reltablespace),
             'access method', (SELECT amname FROM pg_am AS a WHERE a.oid = c.relam),
             'options', {options},
             'toast options', (SELECT {toast_options} FROM pg_class AS t WHERE t.oid = c.reltoastrelid),
             'partition key', CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END,
             'partition bound', pg_get_expr(c.relpartbound, c.oid),
             'parents', (SELECT string_agg(h.inhparent::regclass::text, ', ' ORDER BY h.inhseqno)
                 FROM pg_inherits AS h WHERE h.inhrelid = c.oid),
             'of type', nullif(c.reloftype, 0)::regtype::text,
             'replica identity', c.relreplident,
             'row security', c.relrowsecurity, 'forced row security', c.relforcerowsecurity,
             'foreign', (SELECT concat_ws(' ', s.srvname, {foreign_options})
                 FROM pg_foreign_table AS f JOIN pg_foreign_server AS s ON s.oid = f.ftserver WHERE f.ftrelid = c.oid),
             'populated', CASE WHEN c.relkind = 'm' THEN c.relispopulated END,
             'definition', CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END)
         FROM pg_class AS c, {identity}
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {mine} AND {free}",
        owner = owner("c.relowner"),
        acl = acl("CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END", "c.relacl", "c.relowner"),
        options = sorted("c.reloptions"),
        toast_options = sorted("t.reloptions"),
        foreign_options = sorted("f.ftoptions"),
        identity = identity("pg_class", "c.oid"),
        mine = mine("c.relnamespace"),
        free = free("pg_class", "c.oid"),
    ));
    // Columns, numbered among those that are not dropped. Their default expressions are part of them.
    add(format!(
        "SELECT {KEY}, jsonb_build_object('position', a.position, 'type', format_type(a.atttypid, a.atttypmod),
             'not null', a.attnotnull, 'default', pg_get_expr(d.adbin, d.adrelid),
             'generated', nullif(a.attgenerated, ''), 'identity', nullif(a.attidentity, ''),
             'collation', CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::regcollation::text END,
             'storage', CASE WHEN a.attstorage <> t.typstorage THEN a.attstorage END,
             'compression', nullif(a.attcompression, ''), 'statistics target', nullif(a.attstattarget, -1),
             'options', {options}, 'foreign options', {foreign_options},
             'local', a.attislocal, 'parents', a.attinhcount, 'acl', {acl})
         FROM (SELECT a.*, row_number() OVER (PARTITION BY a.attrelid ORDER BY a.attnum) AS position,
                 c.relowner
             FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND a.attnum > 0 AND NOT a.attisdropped
             AND {mine} AND {free}
             AND (c.relkind <> 'c' OR {free_type})) AS a
         JOIN pg_type AS t ON t.oid = a.atttypid
         LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum,
         LATERAL pg_identify_object('pg_class'::regclass, a.attrelid, a.attnum) AS i",
        options = sorted(OPTIONS_OF_COLUMNS),
        foreign_options = sorted("a.attfdwoptions"),
        acl = acl("'c'", "a.attacl", "a.relowner"),
        mine = mine("c.relnamespace"),
        free = free("pg_class", "c.oid"),
        free_type = free("pg_type", "c.reltype"),
    ));
    // Constraints of tables and domains. Those of foreign keys' own triggers that somebody switched off are named.
    add(format!(
        "SELECT {KEY}, jsonb_build_object('definition', pg_get_constraintdef(k.oid), 'validated', k.convalidated,
             'local', k.conislocal, 'parents', k.coninhcount,
             'inherited from', (SELECT p.conrelid::regclass::text || ' ' || p.conname FROM pg_constraint AS p
                 WHERE p.oid = k.conparentid),
             'triggers', (SELECT string_agg(DISTINCT t.tgrelid::regclass || ' ' || t.tgenabled::text, ', ')
                 FROM pg_trigger AS t WHERE t.tgconstraint = k.oid AND t.tgisinternal AND t.tgenabled <> 'O'))
         FROM pg_constraint AS k, {identity}
         WHERE {mine} AND {free} AND (k.conrelid = 0 OR {free_table}) AND (k.contypid = 0 OR {free_type})",
        identity = identity("pg_constraint", "k.oid"),
        mine = mine("k.connamespace"),
        free = free("pg_constraint", "k.oid"),
        free_table = free("pg_class", "k.conrelid"),
        free_type = free("pg_type", "k.contypid"),
    ));
    add(format!(
        "SELECT {KEY}, jsonb_build_object('definition', pg_get_indexdef(x.indexrelid), 'valid', x.indisvalid,
             'ready', x.indisready, 'clustered', x.indisclustered, 'replica identity', x.indisreplident,
             'immediate', x.indimmediate,
             'tablespace', (SELECT spcname FROM pg_tablespace AS t WHERE t.oid = c.reltablespace),
             'parent', (SELECT h.inhparent::regclass::text FROM pg_inherits AS h WHERE h.inhrelid = c.oid),
             'statistics', (SELECT string_agg(a.attnum || ':' || a.attstattarget, ' ' ORDER BY a.attnum)
                 FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attstattarget <> -1))
         FROM pg_index AS x JOIN pg_class AS c ON c.oid = x.indexrelid, {}
         WHERE {} AND {} AND {}",
        identity("pg_class", "c.oid"),
        mine("c.relnamespace"),
        free("pg_class", "c.oid"),
        free("pg_class", "x.indrelid"),
    ));
    // Functions as CREATE would make them; a body that PostgreSQL writes from its parse tree is a `definition`.
    add(format!(
        "SELECT {KEY}, jsonb_build_object({}, 'acl', {},
             CASE WHEN p.prosqlbody IS NULL THEN 'source' ELSE 'definition' END, pg_get_functiondef(p.oid))
         FROM pg_proc AS p, {} WHERE p.prokind <> 'a' AND {} AND {}",
        owner("p.proowner"),
        acl("'f'", "p.proacl", "p.proowner"),
        identity("pg_proc", "p.oid"),
        mine("p.pronamespace"),
        free("pg_proc", "p.oid"),
    ));
    add(format!(
        "SELECT {KEY}, {} || jsonb_build_object({}, 'acl', {}, 'arguments', pg_get_function_arguments(p.oid),
             'result', pg_get_function_result(p.oid), 'parallel', p.proparallel,
             'sort operator', a.aggsortop::regoperator::text, 'state', a.aggtranstype::regtype::text,
             'moving state', a.aggmtranstype::regtype::text)
         FROM pg_aggregate AS a JOIN pg_proc AS p ON p.oid = a.aggfnoid, {} WHERE {} AND {}",
        plain_row("a", "aggfnoid,aggsortop,aggtranstype,aggmtranstype"),
        owner("p.proowner"),
        acl("'f'", "p.proacl", "p.proowner"),
        identity("pg_proc", "p.oid"),
        mine("p.pronamespace"),
        free("pg_proc", "p.oid"),
    ));
    // What hangs on a table: triggers, rules, policies.
    add(format!(
        "SELECT {KEY}, jsonb_build_object('definition', pg_get_triggerdef(t.oid), 'enabled', t.tgenabled,
             'inherited', t.tgparentid <> 0)
         FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid, {}
         WHERE NOT t.tgisinternal AND {} AND {}",
        identity("pg_trigger", "t.oid"),
        mine("c.relnamespace"),
        free("pg_class", "c.oid"),
    ));
    add(format!(
        "SELECT {KEY}, jsonb_build_object('definition', pg_get_ruledef(r.oid), 'enabled', r.ev_enabled)
         FROM pg_rewrite AS r JOIN pg_class AS c ON c.oid = r.ev_class, {}
         WHERE r.rulename <> '_RETURN' AND {} AND {}",
        identity("pg_rewrite", "r.oid"),
        mine("c.relnamespace"),
        free("pg_class", "c.oid"),
    ));
    add(format!(
        "SELECT {KEY}, jsonb_build_object('command', p.polcmd, 'permissive', p.polpermissive,
             'roles', (SELECT string_agg(CASE r WHEN 0 THEN 'public' ELSE quote_ident(pg_get_userbyid(r)) END, ', '
                 ORDER BY pg_get_userbyid(r)) FROM unnest(p.polroles) AS r),
             'using', pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid))
         FROM pg_policy AS p JOIN pg_class AS c ON c.oid = p.polrelid, {}
         WHERE {} AND {}",
        identity("pg_policy", "p.oid"),
        mine("c.relnamespace"),
        free("pg_class", "c.oid"),
    ));
    add(format!(
        "SELECT 'event trigger ' || quote_ident(t.evtname), jsonb_build_object({}, 'event', t.evtevent,
             'function', t.evtfoid::regprocedure::text, 'enabled', t.evtenabled, 'tags', {})
         FROM pg_event_trigger AS t WHERE {}",
        owner("t.evtowner"),
        sorted("t.evttags"),
        free("pg_event_trigger", "t.oid"),
    ));
    add(format!(
        "SELECT 'parameters of ' || {KEY}, jsonb_build_object('type', format_type(s.seqtypid, NULL),
             'start', s.seqstart, 'increment', s.seqincrement, 'max', s.seqmax, 'min', s.seqmin, 'cache', s.seqcache,
             'cycle', s.seqcycle,
             'owned by', (SELECT o.identity || ' ' || d.deptype::text FROM pg_depend AS d,
                 LATERAL pg_identify_object(d.refclassid, d.refobjid, d.refobjsubid) AS o
                 WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refobjsubid > 0
                 AND d.deptype IN ('a', 'i')))
         FROM pg_sequence AS s JOIN pg_class AS c ON c.oid = s.seqrelid, {} WHERE {} AND {}",
        identity("pg_class", "c.oid"),
        mine("c.relnamespace"),
        free("pg_class", "c.oid"),
    ));
    // Types, but not those that come with another type or with a table, unless somebody gave them privileges.
    add(format!(
        "SELECT {KEY}, jsonb_build_object({owner}, 'acl', {acl}, 'kind', t.typtype,
             'labels', (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
                 FROM pg_enum AS e WHERE e.enumtypid = t.oid),
             'base', nullif(format_type(nullif(t.typbasetype, 0), t.typtypmod), '-'),
             'not null', t.typnotnull,
             'default', coalesce(pg_get_expr(t.typdefaultbin, 0), t.typdefault),
             'collation', nullif(t.typcollation, 0)::regcollation::text,
             'range', (SELECT jsonb_build_object('subtype', format_type(r.rngsubtype, NULL),
                     'collation', nullif(r.rngcollation, 0)::regcollation::text,
                     'operator class', (SELECT o.identity
                         FROM pg_identify_object('pg_opclass'::regclass, r.rngsubopc, 0) AS o),
                     'canonical', r.rngcanonical, 'difference', r.rngsubdiff,
                     'multirange', r.rngmultitypid::regtype::text)
                 FROM pg_range AS r WHERE r.rngtypid = t.oid),
             'low level', CASE WHEN t.typtype = 'b' THEN jsonb_build_object('length', t.typlen, 'by value', t.typbyval,
                 'category', t.typcategory, 'preferred', t.typispreferred, 'delimiter', t.typdelim,
                 'element', format_type(nullif(t.typelem, 0), NULL), 'subscript', t.typsubscript,
                 'input', t.typinput, 'output', t.typoutput, 'receive', t.typreceive, 'send', t.typsend,
                 'modifier input', t.typmodin, 'modifier output', t.typmodout, 'analyze', t.typanalyze,
                 'alignment', t.typalign, 'storage', t.typstorage) END,
             'defined', t.typisdefined)
         FROM pg_type AS t LEFT JOIN pg_class AS c ON c.oid = t.typrelid, {identity}
         WHERE {mine} AND {free} AND NOT EXISTS (SELECT FROM pg_type AS e WHERE e.typarray = t.oid)
         AND (c.relkind = 'c' OR c.oid IS NULL OR t.typacl IS NOT NULL)
         AND (c.oid IS NULL OR {free_table})",
        owner = owner("t.typowner"),
        acl = acl("'T'", "t.typacl", "t.typowner"),
        identity = identity("pg_type", "t.oid"),
        mine = mine("t.typnamespace"),
        free = free("pg_type", "t.oid"),
        free_table = free("pg_class", "c.oid"),
    ));
    add(format!(
        "SELECT {KEY}, jsonb_build_object('function', nullif(c.castfunc, 0)::regprocedure::text,
             'context', c.castcontext, 'method', c.castmethod)
         FROM pg_cast AS c, {} WHERE c.oid >= 16384 AND {}",
        identity("pg_cast", "c.oid"),
        free("pg_cast", "c.oid"),
    ));
    add(format!(
        "SELECT {KEY}, jsonb_build_object({}, 'function', o.oprcode::regprocedure::text,
             'result', o.oprresult::regtype::text, 'commutator', nullif(o.oprcom, 0)::regoperator::text,
             'negator', nullif(o.oprnegate, 0)::regoperator::text, 'restrict', o.oprrest, 'join', o.oprjoin,
             'merges', o.oprcanmerge, 'hashes', o.oprcanhash)
         FROM pg_operator AS o, {} WHERE {} AND {}",
        owner("o.oprowner"),
        identity("pg_operator", "o.oid"),
        mine("o.oprnamespace"),
        free("pg_operator", "o.oid"),
    ));
    add(format!(
        "SELECT {KEY}, jsonb_build_object({}, 'input', c.opcintype::regtype::text, 'default', c.opcdefault,
             'key', nullif(c.opckeytype, 0)::regtype::text,
             'family', (SELECT f.identity FROM pg_identify_object('pg_opfamily'::regclass, c.opcfamily, 0) AS f))
         FROM pg_opclass AS c, {} WHERE {} AND {}",
        owner("c.opcowner"),
        identity("pg_opclass", "c.oid"),
        mine("c.opcnamespace"),
        free("pg_opclass", "c.oid"),
    ));
    add(format!(
        "SELECT {KEY}, jsonb_build_object({}) FROM pg_opfamily AS f, {} WHERE {} AND {}",
        owner("f.opfowner"),
        identity("pg_opfamily", "f.oid"),
        mine("f.opfnamespace"),
        free("pg_opfamily", "f.oid"),
    ));
    add(format!(
        "SELECT {KEY}, jsonb_build_object('operator', o.amopopr::regoperator::text, 'purpose', o.amoppurpose,
             'sort family', (SELECT s.identity
                 FROM pg_identify_object('pg_opfamily'::regclass, o.amopsortfamily, 0) AS s
                 WHERE o.amopsortfamily <> 0))
         FROM pg_amop AS o, {} WHERE o.oid >= 16384 AND {} AND {}",
        identity("pg_amop", "o.oid"),
        free("pg_amop", "o.oid"),
        free("pg_opfamily", "o.amopfamily"),
    ));
    add(format!(
        "SELECT {KEY}, jsonb_build_object('function', p.amproc::regprocedure::text)
         FROM pg_amproc AS p, {} WHERE p.oid >= 16384 AND {} AND {}",
        identity("pg_amproc", "p.oid"),
        free("pg_amproc", "p.oid"),
        free("pg_opfamily", "p.amprocfamily"),
    ));
    // Catalogs whose rows hold hardly an OID. A collation's encoding is either the database's or "any", which cannot be
    // told apart from inside the database, and a dump does not.
    for (catalog, alias, prefix, without) in [
        ("pg_collation", "c", "coll", "oid,collname,collnamespace,collowner,collencoding"),
        ("pg_conversion", "c", "con", "oid,conname,connamespace,conowner"),
    ] {
        add(format!(
            "SELECT {KEY}, {row} || jsonb_build_object({owner}) FROM {catalog} AS {alias}, {identity}
             WHERE {mine} AND {free}",
            row = plain_row(alias, without),
            owner = owner(&format!("{alias}.{prefix}owner")),
            identity = identity(catalog, "c.oid"),
            mine = mine(&format!("{alias}.{prefix}namespace")),
            free = free(catalog, "c.oid"),
        ));
    }
    // Text search.
    add(format!(
        "SELECT {KEY}, {} FROM pg_ts_parser AS p, {} WHERE {} AND {}",
        plain_row("p", "oid,prsname,prsnamespace"),
        identity("pg_ts_parser", "p.oid"),
        mine("p.prsnamespace"),
        free("pg_ts_parser", "p.oid"),
    ));
    add(format!(
        "SELECT {KEY}, {} FROM pg_ts_template AS t, {} WHERE {} AND {}",
        plain_row("t", "oid,tmplname,tmplnamespace"),
        identity("pg_ts_template", "t.oid"),
        mine("t.tmplnamespace"),
        free("pg_ts_template", "t.oid"),
    ));
    add(format!(
        "SELECT {KEY}, jsonb_build_object({}, 'options', d.dictinitoption,
             'template', (SELECT t.identity
                 FROM pg_identify_object('pg_ts_template'::regclass, d.dicttemplate, 0) AS t))
         FROM pg_ts_dict AS d, {} WHERE {} AND {}",
        owner("d.dictowner"),
        identity("pg_ts_dict", "d.oid"),
        mine("d.dictnamespace"),
        free("pg_ts_dict", "d.oid"),
    ));
    add(format!(
        "SELECT {KEY}, jsonb_build_object({},
             'parser', (SELECT p.identity FROM pg_identify_object('pg_ts_parser'::regclass, c.cfgparser, 0) AS p),
             'mappings', (SELECT string_agg(t.alias || ':' || m.dictionaries, ', ' ORDER BY t.tokid)
                 FROM (SELECT maptokentype,
                         string_agg(mapdict::regdictionary::text, ' ' ORDER BY mapseqno) AS dictionaries
                     FROM pg_ts_config_map WHERE mapcfg = c.oid GROUP BY maptokentype) AS m
                 JOIN ts_token_type(c.cfgparser) AS t ON t.tokid = m.maptokentype))
         FROM pg_ts_config AS c, {} WHERE {} AND {}",
        owner("c.cfgowner"),
        identity("pg_ts_config", "c.oid"),
        mine("c.cfgnamespace"),
        free("pg_ts_config", "c.oid"),
    ));
    add(format!(
        "SELECT {KEY}, jsonb_build_object({}, 'kinds', s.stxkind, 'target', nullif(s.stxstattarget, -1),
             'table', s.stxrelid::regclass::text,
             'columns', (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attname) FROM pg_attribute AS a
                 WHERE a.attrelid = s.stxrelid AND a.attnum = ANY (s.stxkeys)),
             'definition', array_to_string(pg_get_statisticsobjdef_expressions(s.oid), ', '))
         FROM pg_statistic_ext AS s, {} WHERE {} AND {}",
        owner("s.stxowner"),
        identity("pg_statistic_ext", "s.oid"),
        mine("s.stxnamespace"),
        free("pg_statistic_ext", "s.oid"),
    ));
    // Replication.
    add(format!(
        "SELECT {KEY}, {} || jsonb_build_object({}) FROM pg_publication AS p, {} WHERE {}",
        plain_row("p", "oid,pubname,pubowner"),
        owner("p.pubowner"),
        identity("pg_publication", "p.oid"),
        free("pg_publication", "p.oid"),
    ));
    add(format!(
        "SELECT {KEY}, jsonb_build_object('where', pg_get_expr(r.prqual, r.prrelid),
             'columns', (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute AS a
                 WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs)))
         FROM pg_publication_rel AS r, {}",
        identity("pg_publication_rel", "r.oid"),
    ));
    add(format!(
        "SELECT {KEY}, '{{}}'::jsonb FROM pg_publication_namespace AS r, {}",
        identity("pg_publication_namespace", "r.oid"),
    ));
    add(format!(
        "SELECT 'subscription ' || quote_ident(s.subname), jsonb_build_object({}, 'enabled', s.subenabled,
             'binary', s.subbinary, 'stream', s.substream, 'two phase', s.subtwophasestate,
             'disable on error', s.subdisableonerr, 'slot', s.subslotname, 'synchronous commit', s.subsynccommit,
             'publications', {}{})
         FROM pg_subscription AS s
         WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
        owner("s.subowner"),
        sorted("s.subpublications"),
        // Nobody else may read it: it holds passwords.
        if superuser { ", 'connection', s.subconninfo" } else { "" },
    ));
    // Foreign data.
    add(format!(
        "SELECT {KEY}, jsonb_build_object({}, 'acl', {}, 'handler', nullif(w.fdwhandler, 0)::regprocedure::text,
             'validator', nullif(w.fdwvalidator, 0)::regprocedure::text, 'options', {})
         FROM pg_foreign_data_wrapper AS w, {} WHERE {}",
        owner("w.fdwowner"),
        acl("'F'", "w.fdwacl", "w.fdwowner"),
        sorted("w.fdwoptions"),
        identity("pg_foreign_data_wrapper", "w.oid"),
        free("pg_foreign_data_wrapper", "w.oid"),
    ));
    add(format!(
        "SELECT {KEY}, jsonb_build_object({}, 'acl', {}, 'type', s.srvtype, 'version', s.srvversion, 'options', {},
             'wrapper', (SELECT fdwname FROM pg_foreign_data_wrapper AS w WHERE w.oid = s.srvfdw))
         FROM pg_foreign_server AS s, {} WHERE {}",
        owner("s.srvowner"),
        acl("'S'", "s.srvacl", "s.srvowner"),
        sorted("s.srvoptions"),
        identity("pg_foreign_server", "s.oid"),
        free("pg_foreign_server", "s.oid"),
    ));
    add(format!(
        "SELECT 'user mapping for ' || quote_ident(m.usename) || ' on server ' || quote_ident(m.srvname),
             jsonb_build_object('options', {}) FROM pg_user_mappings AS m",
        sorted("m.umoptions"),
    ));
    // What belongs to no schema.
    add(format!(
        "SELECT {KEY}, jsonb_build_object({}, 'acl', {}, 'procedural', l.lanispl, 'trusted', l.lanpltrusted,
             'handler', nullif(l.lanplcallfoid, 0)::regprocedure::text,
             'inline', nullif(l.laninline, 0)::regprocedure::text,
             'validator', nullif(l.lanvalidator, 0)::regprocedure::text)
         FROM pg_language AS l, {} WHERE l.oid >= 16384 AND {}",
        owner("l.lanowner"),
        acl("'l'", "l.lanacl", "l.lanowner"),
        identity("pg_language", "l.oid"),
        free("pg_language", "l.oid"),
    ));
    add(format!(
        "SELECT {KEY}, jsonb_build_object('from', nullif(t.trffromsql, 0)::regprocedure::text,
             'to', nullif(t.trftosql, 0)::regprocedure::text)
         FROM pg_transform AS t, {} WHERE {}",
        identity("pg_transform", "t.oid"),
        free("pg_transform", "t.oid"),
    ));
    add(format!(
        "SELECT {KEY}, jsonb_build_object('handler', a.amhandler::regprocedure::text, 'type', a.amtype)
         FROM pg_am AS a, {} WHERE a.oid >= 16384 AND {}",
        identity("pg_am", "a.oid"),
        free("pg_am", "a.oid"),
    ));
    // An extension's parts are in it by name only; which they are depends on its version, or on ALTER EXTENSION.
    add(format!(
        "SELECT {KEY}, jsonb_build_object({}, 'schema', x.extnamespace::regnamespace::text, 'version', x.extversion,
             'members', (SELECT count(*) || ' ' || md5(string_agg(m.type || ' ' || m.identity, ', '
                     ORDER BY m.type COLLATE \"C\", m.identity COLLATE \"C\"))
                 FROM pg_depend AS d, LATERAL pg_identify_object(d.classid, d.objid, 0) AS m
                 WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = x.oid AND d.deptype = 'e'),
             'the user''s rows', (SELECT string_agg(t::regclass::text || coalesce(' ' || x.extcondition[n], ''), ', '
                 ORDER BY t::regclass::text) FROM unnest(x.extconfig) WITH ORDINALITY AS u (t, n)))
         FROM pg_extension AS x, {}",
        owner("x.extowner"),
        identity("pg_extension", "x.oid"),
    ));
    add("SELECT 'dependency of ' || i.type || ' ' || i.identity || ' on extension ' || quote_ident(x.extname),
             '{}'::jsonb
         FROM pg_depend AS d JOIN pg_extension AS x ON d.refclassid = 'pg_extension'::regclass AND x.oid = d.refobjid,
         LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) AS i
         WHERE d.deptype = 'x'"
        .to_owned());
    add(format!(
        "SELECT {KEY}, jsonb_build_object('acl', {}) FROM pg_default_acl AS d, {}",
        acl("d.defaclobjtype", "d.defaclacl", "d.defaclrole"),
        identity("pg_default_acl", "d.oid"),
    ));
    // Privileges that were changed on what PostgreSQL or an extension brought along; `pg_dump` knows them, too.
    for (catalog, column, sub) in [
        ("pg_class", "relacl", "0"),
        ("pg_attribute", "attacl", "o.attnum"),
        ("pg_proc", "proacl", "0"),
        ("pg_type", "typacl", "0"),
        ("pg_namespace", "nspacl", "0"),
        ("pg_language", "lanacl", "0"),
        ("pg_foreign_data_wrapper", "fdwacl", "0"),
        ("pg_foreign_server", "srvacl", "0"),
    ] {
        let (class, oid) = if catalog == "pg_attribute" { ("pg_class", "o.attrelid") } else { (catalog, "o.oid") };
        let public = if catalog == "pg_namespace" { "AND o.nspname <> 'public'" } else { "" };
        add(format!(
            "SELECT 'changed privileges of ' || {KEY}, jsonb_build_object('acl', {})
             FROM {catalog} AS o
             LEFT JOIN pg_init_privs AS p
                 ON p.classoid = '{class}'::regclass AND p.objoid = {oid} AND p.objsubid = {sub},
             LATERAL pg_identify_object('{class}'::regclass, {oid}, {sub}) AS i
             WHERE o.{column}::text IS DISTINCT FROM p.initprivs::text AND ({oid} < 16384 OR NOT {}) {public}
             AND 'information_schema' NOT IN (coalesce(i.schema, ''), i.identity)",
            sorted(&format!("coalesce(o.{column}::text[], '{{the default}}')")),
            free(class, oid),
        ));
    }
    // Comments and labels on the user's own objects; for all the others together one hash.
    let own = "(d.objoid >= 16384 OR (d.classoid, d.objoid) = ('pg_namespace'::regclass, 'public'::regnamespace)
        OR d.classoid = 'pg_largeobject'::regclass)";
    // A database without the schema `public` has nothing to say about it.
    let own = own.replace("'public'::regnamespace", "coalesce(to_regnamespace('public')::oid, 0)");
    add(format!(
        "SELECT 'comment on ' || {KEY}, jsonb_build_object('comment', d.description)
         FROM pg_description AS d, LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) AS i
         WHERE {own} AND NOT EXISTS (SELECT FROM pg_depend AS e
             WHERE e.classid = d.classoid AND e.objid = d.objoid AND e.deptype = 'e')",
    ));
    add(format!(
        "SELECT 'comments on what is built in', jsonb_build_object('count', count(*), 'hash',
             md5(string_agg(concat_ws(' ', d.classoid, d.objoid, d.objsubid, d.description), ' '
                 ORDER BY d.classoid, d.objoid, d.objsubid)))
         FROM pg_description AS d WHERE NOT {own}",
    ));
    add(format!(
        "SELECT 'security label of ' || quote_ident(d.provider) || ' on ' || {KEY}, jsonb_build_object('label', d.label)
         FROM pg_seclabel AS d, LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) AS i",
    ));
    // A large object is known by its OID, to everybody who wrote it into a column.
    add(format!(
        "SELECT 'large object ' || m.oid, jsonb_build_object({}, 'acl', {}, 'hash', md5(lo_get(m.oid)))
         FROM pg_largeobject_metadata AS m",
        owner("m.lomowner"),
        acl("'L'", "m.lomacl", "m.lomowner"),
    ));
    add("SELECT 'large objects', jsonb_build_object('count', count(*)) FROM pg_largeobject_metadata".to_owned());
    queries
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

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn a_cast_of_an_array_becomes_casts_in_the_array() {
        let before =
            "CHECK (((code)::text = ANY ((ARRAY['a'::character varying, 'b, ]'::character varying])::text[])))";
        let after =
            "CHECK (((code)::text = ANY (ARRAY[('a'::character varying)::text, ('b, ]'::character varying)::text])))";
        assert_eq!(canonical(before), after);
        assert_eq!(canonical(after), after);
    }

    #[test]
    fn what_is_quoted_stays() {
        let text = "CHECK ((note <> '(ARRAY[''a''::character varying])::text[]'::text))";
        assert_eq!(canonical(text), text);
    }

    #[test]
    fn other_values_stay_different() {
        let of = |value: &str| canonical(&format!("ANY ((ARRAY['{value}'::character varying])::text[])"));
        assert_ne!(of("a"), of("b"));
        assert_ne!(of("a"), canonical("ANY ((ARRAY['a'::character varying])::citext[])"));
    }

    #[test]
    fn an_array_that_is_not_cast_stays() {
        for text in ["(ARRAY[1, 2])", "ARRAY[(ARRAY[1])::integer", "(ARRAY[1, (2)])::text", "(ARRAY["] {
            assert_eq!(canonical(text), text);
        }
    }
}
