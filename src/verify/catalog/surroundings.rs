//! What belongs to no schema: replication, foreign data, languages, extensions; and what is said of all things: privileges,
//! comments, labels. Apart from them, the database itself.

use super::words::{KEY, acl, free, identity, owner, plain_row, sorted};

/// The database itself: it has no name here, since it is compared with others, and with itself after a swap.
pub(super) fn database() -> Vec<String> {
    let mut queries = Vec::new();
    let mut add = |query: String| queries.push(query);
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
    queries
}

/// Publications, subscriptions, foreign data, languages, access methods, extensions, default privileges. A `superuser` may
/// read how subscriptions connect; nobody else, since it holds passwords.
pub(super) fn server(superuser: bool, version_num: i32) -> Vec<String> {
    let mut queries = Vec::new();
    let mut add = |query: String| queries.push(query);
    // Replication.
    add(format!(
        "SELECT {KEY}, {} || jsonb_build_object({}) FROM pg_publication AS p, {} WHERE {}",
        plain_row("p", "oid,pubname,pubowner"),
        owner("p.pubowner"),
        identity("pg_publication", "p.oid"),
        free("pg_publication", "p.oid"),
    ));
    // PostgreSQL 15 brought row filters, lists of columns, whole schemas, and more kinds of subscriptions.
    let new = version_num >= 150_000;
    let filter =
        "'where', pg_get_expr(r.prqual, r.prrelid), 'columns', (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY
        a.attnum) FROM pg_attribute AS a WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs))";
    add(format!(
        "SELECT {KEY}, jsonb_build_object({}) FROM pg_publication_rel AS r, {}",
        if new { filter } else { "" },
        identity("pg_publication_rel", "r.oid"),
    ));
    if new {
        add(format!(
            "SELECT {KEY}, '{{}}'::jsonb FROM pg_publication_namespace AS r, {}",
            identity("pg_publication_namespace", "r.oid"),
        ));
    }
    add(format!(
        "SELECT 'subscription ' || quote_ident(s.subname), jsonb_build_object({}, 'enabled', s.subenabled,
             'binary', s.subbinary, 'stream', s.substream, 'slot', s.subslotname, 'synchronous commit', s.subsynccommit,
             'publications', {}{}{})
         FROM pg_subscription AS s
         WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
        owner("s.subowner"),
        sorted("s.subpublications"),
        if new { ", 'two phase', s.subtwophasestate, 'disable on error', s.subdisableonerr" } else { "" },
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
    queries
}

/// Changed privileges, comments, labels.
pub(super) fn words() -> Vec<String> {
    let mut queries = Vec::new();
    let mut add = |query: String| queries.push(query);
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
    queries
}
