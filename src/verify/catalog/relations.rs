//! Schemas, tables, views, sequences, and what hangs on them.

use super::words::{KEY, OPTIONS_OF_COLUMNS, acl, free, identity, mine, owner, sorted};

/// Schemas, tables of every kind with columns, constraints, indexes, triggers, rules and policies, sequences.
pub(super) fn queries() -> Vec<String> {
    let mut queries = Vec::new();
    let mut add = |query: String| queries.push(query);
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
    queries
}
