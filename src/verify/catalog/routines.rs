//! Functions, types, operators, text search: what a user may add to PostgreSQL.

use super::words::{KEY, acl, free, identity, mine, owner, plain_row};

/// Functions, types, casts, operators, collations, text search, extended statistics.
pub(super) fn queries() -> Vec<String> {
    let mut queries = Vec::new();
    let mut add = |query: String| queries.push(query);
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
    queries
}
