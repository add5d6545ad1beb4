//! What a database holds, asked of the server: extensions, roles, tables with sizes and rows, sequences, indexes.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use crate::outside::postgres::{PgError, made, query_error};
use crate::sql::quote::{identifier, literal};

use super::manifest::{Counters, Extension, Index, Sequence, TableCounters, TableRows};
use super::parts::TableSize;

/// What a row is taken to have, in a table that nobody has looked at yet.
const BYTES_OF_A_ROW: i64 = 100;
/// Tables counted by one statement.
const COUNTED_AT_ONCE: usize = 100;

/// What a database holds, as far as a restore needs to know it beforehand.
#[derive(Debug, Clone)]
pub(super) struct Contents {
    /// Its extensions.
    pub(super) extensions: Vec<Extension>,
    /// The roles that it refers to.
    pub(super) roles: Vec<String>,
    /// Its tables whose rows `pg_dump` takes. Materialised views are computed again, and extensions bring their own.
    pub(super) tables: Vec<(String, String)>,
}

/// Lists extensions, roles and tables of the database of `session`.
///
/// # Errors
/// A query failed.
pub(super) async fn contents(session: &mut PgConnection) -> Result<Contents, PgError> {
    let extensions: Vec<(String, String, String)> = sqlx::query_as(
        "select extname::text, extversion, n.nspname::text from pg_extension e join pg_namespace n on n.oid = \
         e.extnamespace order by 1",
    )
    .fetch_all(&mut *session)
    .await
    .map_err(query_error("listing extensions"))?;
    let roles = sqlx::query_scalar(
        "select distinct r.rolname::text from pg_shdepend s join pg_database d on d.datname = current_database() join \
         pg_roles r on r.oid = s.refobjid where s.refclassid = 'pg_authid'::regclass and (s.dbid = d.oid or (s.dbid = 0 \
         and s.classid = 'pg_database'::regclass and s.objid = d.oid)) order by 1",
    )
    .fetch_all(&mut *session)
    .await
    .map_err(query_error("listing the roles that the database refers to"))?;
    let tables = sqlx::query_as(
        "select n.nspname::text, c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace where \
         c.relkind = 'r' and c.relpersistence <> 't' and n.nspname <> 'information_schema' and n.nspname !~ '^pg_' and \
         not exists (select from pg_depend x where x.classid = \
         'pg_class'::regclass and x.objid = c.oid and x.deptype = 'e') order by 1, 2",
    )
    .fetch_all(session)
    .await
    .map_err(query_error("listing tables"))?;
    let extensions =
        extensions.into_iter().map(|(name, version, schema)| Extension { name, version, schema }).collect();
    Ok(Contents { extensions, roles, tables })
}

/// About what each of `tables` takes, without its indexes: as the last ANALYZE or VACUUM saw it, or by its number of rows. The
/// exact size would wait for whoever has locked the table.
///
/// # Errors
/// A query failed.
pub(super) async fn table_sizes(
    session: &mut PgConnection,
    tables: &[(String, String)],
) -> Result<Vec<TableSize>, PgError> {
    let (schemas, names): (Vec<&str>, Vec<&str>) = tables.iter().map(|(a, b)| (a.as_str(), b.as_str())).unzip();
    let sizes: Vec<(String, String, i64)> = sqlx::query_as(
        "select w.s, w.t, greatest((greatest(c.relpages, 0) + coalesce(greatest(toast.relpages, 0), 0)) * \
         current_setting('block_size')::int8, coalesce(pg_stat_get_live_tuples(c.oid), 0) * $3) from unnest($1::text[], \
         $2::text[]) w (s, t) join pg_namespace n on n.nspname = w.s join pg_class c on c.relnamespace = n.oid and c.relname = \
         w.t left join pg_class toast on toast.oid = c.reltoastrelid order by 1, 2",
    )
    .bind(schemas)
    .bind(names)
    .bind(BYTES_OF_A_ROW)
    .fetch_all(session)
    .await
    .map_err(query_error("asking for the sizes of tables"))?;
    let size = |(schema, name, bytes): (String, String, i64)| TableSize { schema, name, bytes: bytes.unsigned_abs() };
    Ok(sizes.into_iter().map(size).collect())
}

/// The sequences of the database of `session`.
///
/// # Errors
/// The query failed.
pub(crate) async fn sequences(session: &mut PgConnection) -> Result<Vec<Sequence>, sqlx::Error> {
    let rows: Vec<(String, String, i64, Option<i64>)> = sqlx::query_as(
        "select schemaname::text, sequencename::text, increment_by, last_value from pg_sequences where schemaname !~ '^pg_' \
         order by 1, 2",
    )
    .fetch_all(session)
    .await?;
    let sequence = |(schema, name, increment, last)| Sequence { schema, name, increment, last };
    Ok(rows.into_iter().map(sequence).collect())
}

/// The server's counters of the tables of the database of `session`.
///
/// # Errors
/// The query failed.
pub(crate) async fn counters(session: &mut PgConnection) -> Result<Vec<TableCounters>, PgError> {
    let rows: Vec<(String, String, i64, i64, i64)> = sqlx::query_as(
        "select schemaname::text, relname::text, n_tup_ins, n_tup_upd, n_tup_del from pg_stat_user_tables where n_tup_ins + \
         n_tup_upd + n_tup_del > 0 order by 1, 2",
    )
    .fetch_all(session)
    .await
    .map_err(query_error("reading the counters of tables"))?;
    let table = |(schema, name, inserted, updated, deleted): (String, String, i64, i64, i64)| TableCounters {
        schema,
        name,
        counters: Counters {
            inserted: inserted.unsigned_abs(),
            updated: updated.unsigned_abs(),
            deleted: deleted.unsigned_abs(),
        },
    };
    Ok(rows.into_iter().map(table).collect())
}

/// The indexes of more than a megabyte, the slowest to build first.
///
/// # Errors
/// A query failed.
pub(super) async fn indexes(session: &mut PgConnection) -> Result<Vec<Index>, PgError> {
    let found: Vec<(String, String, String, String, i64)> = sqlx::query_as(
        "select schema, name, of, method, bytes from (select n.nspname::text schema, c.relname::text name, t.relname::text of, \
         a.amname::text method, c.relpages * current_setting('block_size')::int8 bytes from pg_class c join pg_namespace n on \
         n.oid = c.relnamespace join pg_am a on a.oid = c.relam join pg_index i on i.indexrelid = c.oid join pg_class t on t.oid = \
         i.indrelid where c.relkind = 'i' and c.relpersistence <> 't' and n.nspname !~ '^pg_') i where bytes > 1048576 order by 1, 2",
    )
    .fetch_all(session)
    .await
    .map_err(query_error("listing indexes"))?;
    let index = |(schema, name, table, method, bytes): (String, String, String, String, i64)| Index {
        schema,
        name,
        table: Some(table),
        method,
        bytes: bytes.unsigned_abs(),
    };
    let mut indexes: Vec<Index> = found.into_iter().map(index).collect();
    indexes.sort_by_key(|it| std::cmp::Reverse(it.cost()));
    Ok(indexes)
}

/// Counts the rows of tables, under the transaction of `session`.
///
/// # Errors
/// A query failed.
pub(super) async fn row_counts(
    session: &mut PgConnection,
    tables: &[(String, String)],
) -> Result<Vec<TableRows>, PgError> {
    let mut counted = Vec::with_capacity(tables.len());
    for some in tables.chunks(COUNTED_AT_ONCE) {
        let counts: Vec<String> = some
            .iter()
            .map(|(schema, name)| {
                format!(
                    "select {}, {}, count(*) from only {}.{}",
                    literal(schema),
                    literal(name),
                    identifier(schema),
                    identifier(name)
                )
            })
            .collect();
        let rows: Vec<(String, String, i64)> = sqlx::query_as(made(counts.join(" union all ")))
            .fetch_all(&mut *session)
            .await
            .map_err(query_error("counting rows"))?;
        counted.extend(rows.into_iter().map(|(schema, name, rows)| TableRows {
            schema,
            name,
            rows: rows.unsigned_abs(),
            hash: None,
        }));
    }
    counted.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
    Ok(counted)
}

/// The differences between counts, in words; empty if there are none.
#[must_use]
pub(super) fn count_differences(expected: &[TableRows], found: &[TableRows]) -> Vec<String> {
    let by_name = |tables: &[TableRows]| -> BTreeMap<(String, String), u64> {
        tables.iter().map(|it| ((it.schema.clone(), it.name.clone()), it.rows)).collect()
    };
    let (expected, found) = (by_name(expected), by_name(found));
    let missing = expected.iter().filter_map(|(name, rows)| match found.get(name) {
        Some(count) if count == rows => None,
        Some(count) => Some(format!("{}.{} has {count} rows, and {rows} were dumped", name.0, name.1)),
        None => Some(format!("{}.{} is missing", name.0, name.1)),
    });
    let extra = found.keys().filter(|name| !expected.contains_key(name));
    missing.chain(extra.map(|name| format!("{}.{} was not dumped", name.0, name.1))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, rows: u64) -> TableRows {
        TableRows { schema: "public".into(), name: name.into(), rows, hash: None }
    }

    #[test]
    fn differences_name_the_table_and_both_counts() {
        let expected = [table("a", 1), table("b", 2), table("c", 3)];
        let found = [table("a", 1), table("b", 5), table("d", 0)];
        assert_eq!(
            count_differences(&expected, &found),
            ["public.b has 5 rows, and 2 were dumped", "public.c is missing", "public.d was not dumped"]
        );
        assert!(count_differences(&expected, &expected).is_empty());
    }
}
