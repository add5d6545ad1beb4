//! What the catalog queries are made of. Each of them gives a key, the kind and the identity of a thing as
//! `pg_identify_object` has them, and a JSON object of what is worth naming when it differs. Nothing depends on oids.

/// Not a part of an extension.
pub(super) fn free(catalog: &str, oid: &str) -> String {
    format!(
        "NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.classid = '{catalog}'::regclass AND e.objid = {oid}
         AND e.deptype = 'e')"
    )
}

/// In a schema of the user's.
pub(super) fn mine(namespace: &str) -> String {
    format!(
        "{namespace} IN (SELECT n.oid FROM pg_namespace AS n
         WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')"
    )
}

/// The effective privileges, in the order of their text. None at all is told apart from the default; the default is not
/// told apart from itself written out, which is what a first GRANT leaves behind.
pub(super) fn acl(kind: &str, acl: &str, owner: &str) -> String {
    format!(
        "(SELECT coalesce(string_agg(i::text, ' ' ORDER BY i::text COLLATE \"C\"), 'nobody')
         FROM unnest(coalesce({acl}, acldefault({kind}::\"char\", {owner}))) AS i)"
    )
}

/// Without what some builds of the server write by themselves when a column is made: it is another in each
/// column that is made, nobody can set it, and no dump has it.
pub(super) const OPTIONS_OF_COLUMNS: &str =
    "array(SELECT o FROM unnest(a.attoptions) AS o WHERE o NOT LIKE 'pg_attver=%')";

/// `name=value` options, whose order means nothing.
pub(super) fn sorted(options: &str) -> String {
    format!("(SELECT string_agg(o, ', ' ORDER BY o COLLATE \"C\") FROM unnest({options}) AS o)")
}

/// Names a thing by its kind and identity, as the lateral `i`.
pub(super) fn identity(catalog: &str, oid: &str) -> String {
    format!("LATERAL pg_identify_object('{catalog}'::regclass, {oid}, 0) AS i")
}

/// What the row of a catalog says when nothing in it is an OID but `without`.
pub(super) fn plain_row(alias: &str, without: &str) -> String {
    format!("to_jsonb({alias}) - '{{{without}}}'::text[]")
}

pub(super) const KEY: &str = "i.type || ' ' || i.identity";

/// The owner, as a property.
pub(super) fn owner(column: &str) -> String {
    format!("'owner', pg_get_userbyid({column})")
}
