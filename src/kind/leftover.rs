//! Invalid indexes that a migration left: of a `CREATE INDEX CONCURRENTLY` that was cut off, by what the ledger says that it
//! found; of a `REINDEX CONCURRENTLY`, the `_ccnew` and `_ccold` beside the indexes that it builds anew. No query uses them,
//! and every write maintains them. A valid index is never one, nor is one on whose table another session builds.

use sqlx::PgConnection;

use super::cut_off::{self, BUSY};
use super::decide::{Meant, Shown};
use crate::outside::postgres::{change, made};
use crate::sql::effect::sets_the_session;
use crate::sql::index::{Reindexed, reindexed};
use crate::sql::statements;

/// The invalid indexes that a migration of this text left, quoted, with their schemas. `meant` is what the ledger says of
/// one that did not end.
///
/// # Errors
/// A query failed.
pub async fn left(session: &mut PgConnection, text: &str, meant: Option<&Meant>) -> Result<Vec<String>, sqlx::Error> {
    let mut found = Vec::new();
    if let Some(meant) = meant {
        found.extend(of_create_index(session, meant).await?);
    }
    for it in statements::split(text).unwrap_or_default() {
        let statement = &text[it.start..it.end];
        if sets_the_session(statement) {
            // Names mean what they meant to the migration. What cannot be said again any more does no harm here.
            let _ = change(session, statement).await;
        } else if let Some(what) = reindexed(statement) {
            found.extend(of_reindex(session, statement, &what).await?);
        }
    }
    change(session, "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL").await?;
    found.sort();
    found.dedup();
    Ok(found)
}

async fn of_create_index(session: &mut PgConnection, meant: &Meant) -> Result<Vec<String>, sqlx::Error> {
    Ok(match cut_off::look(session, meant).await? {
        Shown::Invalid(index) => vec![index],
        Shown::Unnamed(indexes) => indexes.into_iter().filter(|it| it.is_left()).map(|it| it.name).collect(),
        _ => Vec::new(),
    })
}

/// `$1` is what is built anew, `$2` its name as written.
fn beside() -> String {
    format!(
        "\
with it as (select case $1 when 'schema' then null else pg_catalog.to_regclass($2)::oid end as oid)
select format('%I.%I', n.nspname, c.relname)
from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    join pg_catalog.pg_class t on t.oid = i.indrelid cross join it
    cross join regexp_replace(c.relname, '_cc(new|old)[0-9]*$', '') stem
where not i.indisvalid and c.relname <> stem and not {BUSY}
    and case $1
        when 'index' then exists (select from pg_catalog.pg_index o join pg_catalog.pg_class oc on oc.oid = o.indexrelid
            where o.indexrelid = it.oid and o.indrelid = i.indrelid and starts_with(oc.relname, stem)
            and (stem = oc.relname or length(oc.relname) > 50))
        when 'table' then t.oid = it.oid or exists (select from pg_catalog.pg_class m where m.oid = it.oid and m.reltoastrelid = t.oid)
        when 'schema' then n.nspname = (parse_ident($2))[1]
        else true
    end"
    )
}

async fn of_reindex(session: &mut PgConnection, statement: &str, what: &Reindexed) -> Result<Vec<String>, sqlx::Error> {
    let (kind, name) = match what {
        Reindexed::Index(name) => ("index", &statement[name.clone()]),
        Reindexed::Table(name) => ("table", &statement[name.clone()]),
        Reindexed::Schema(name) => ("schema", &statement[name.clone()]),
        Reindexed::Database => ("database", "x"),
    };
    sqlx::query_scalar(made(beside())).bind(kind).bind(name).persistent(false).fetch_all(session).await
}
