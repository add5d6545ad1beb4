//! What the planner knows of a database that was restored: statistics are not in an archive.

use std::collections::BTreeSet;

use sqlx::PgConnection;

use crate::outside::postgres::{PgError, change, query_error};
use crate::sql::quote::identifier;

use super::schedule::Name;

/// ANALYZE warns of what a role may not look at.
const QUIET: &str = "set client_min_messages = error";

/// Gathers those of a large table.
///
/// # Errors
/// The server refuses.
pub(super) async fn of(session: &mut PgConnection, table: &Name) -> Result<(), PgError> {
    let columns = columns(session, table).await?;
    let done = change(session, format!("{QUIET}; analyze {}{columns}", quoted(table))).await;
    done.map(drop).map_err(query_error(format!("gathering the statistics of {}.{}", table.0, table.1)))
}

/// The columns of a table whose statistics somebody has a use for, as a list for ANALYZE; nothing, if those are all.
///
/// Of an array, PostgreSQL counts each element (`compute_array_stats` in `array_typanalyze.c`), which for embeddings takes longer
/// than all other columns together, and nobody asks for the rows whose embedding contains a certain number. The table counts as
/// changed until all of its columns were looked at (`do_analyze_rel` in `analyze.c`), so that autovacuum adds those in its own time.
/// Expressions of indexes have statistics only where all columns are looked at (the same).
async fn columns(session: &mut PgConnection, (schema, name): &Name) -> Result<String, PgError> {
    let columns: Option<Option<String>> = sqlx::query_scalar(
        "select ' (' || string_agg(quote_ident(a.attname), ', ') filter (where e.oid is null) || ')' from pg_class c join \
         pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid left join pg_type e on e.typarray = \
         a.atttypid and e.oid in ('float4'::regtype, 'float8'::regtype) where n.nspname = $1 and c.relname = $2 and a.attnum > 0 \
         and not a.attisdropped and not exists (select from pg_index i where i.indrelid = c.oid and i.indexprs is not null) \
         having bool_or(e.oid is not null)",
    )
    .bind(schema)
    .bind(name)
    .fetch_optional(session)
    .await
    .map_err(query_error(format!("asking for the columns of {schema}.{name}")))?;
    Ok(columns.flatten().unwrap_or_default())
}

/// Gathers those of all tables, catalogs and materialised views but some.
///
/// # Errors
/// The server refuses.
pub(super) async fn but_of(session: &mut PgConnection, done: &BTreeSet<Name>) -> Result<(), PgError> {
    let all: Vec<Name> = sqlx::query_as(
        "select n.nspname::text, c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relkind in \
         ('r', 'm', 'p') and c.relpersistence <> 't' and not c.relisshared and n.nspname !~ '^pg_(toast|temp)' order by 1, 2",
    )
    .fetch_all(&mut *session)
    .await
    .map_err(query_error("listing tables without statistics"))?;
    let missing: Vec<String> = all.iter().filter(|it| !done.contains(*it)).map(quoted).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for sql in [QUIET.to_owned(), format!("analyze {}", missing.join(", "))] {
        change(session, sql).await.map_err(query_error("gathering statistics"))?;
    }
    Ok(())
}

fn quoted((schema, name): &Name) -> String {
    format!("{}.{}", identifier(schema), identifier(name))
}
