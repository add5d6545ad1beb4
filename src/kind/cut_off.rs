//! What the database shows of a statement that was cut off. What such a statement found is kept in the ledger before it is
//! sent, by oid: names mean nothing without the session's `search_path`, and somebody else's index may bear the same.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::decide::{Before, Meant, NewIndex, Shown};
use crate::outside::postgres::made;
use crate::sql::effect::{self, Effect};
use crate::sql::index;
use crate::sql::statements::StatementKind;

/// What the catalog has that the statement is about to change; none if it is not there, or nothing can be told by it.
pub(super) async fn before(session: &mut PgConnection, statement: &str, kind: StatementKind) -> Option<Before> {
    match effect::of(statement, kind) {
        Effect::CreatesIndex => {
            let found = index::created(statement)?;
            let table = oid(session, &statement[found.table]).await?;
            let indexes =
                sqlx::query_scalar("select indexrelid::int8 from pg_catalog.pg_index where indrelid::int8 = $1");
            let indexes = indexes.bind(table).persistent(false).fetch_all(session).await.ok()?;
            Some(Before::CreateIndex { table, indexes })
        }
        Effect::DropsIndex(name) => oid(session, &statement[name]).await.map(|index| Before::DropIndex { index }),
        Effect::Repeatable | Effect::Unknown => None,
    }
}

async fn oid(session: &mut PgConnection, name: &str) -> Option<i64> {
    let oid = sqlx::query_scalar("select pg_catalog.to_regclass($1)::pg_catalog.oid::pg_catalog.int8");
    oid.bind(name).persistent(false).fetch_one(session).await.ok()?
}

/// What the database shows of the statement in question.
///
/// # Errors
/// A query failed.
pub async fn look(session: &mut PgConnection, meant: &Meant) -> Result<Shown, sqlx::Error> {
    let Some((statement, effect)) = meant.in_question() else { return Ok(Shown::Nothing) };
    match (effect, &meant.before) {
        (Effect::Repeatable, _) => Ok(Shown::Nothing),
        (Effect::CreatesIndex, Some(Before::CreateIndex { table, indexes })) => {
            let name = index::created(statement).and_then(|it| it.name).map(|it| &statement[it]);
            created(session, *table, indexes, name).await
        }
        (Effect::DropsIndex(name), Some(Before::DropIndex { index })) => {
            let there = sqlx::query_scalar("select exists (select from pg_catalog.pg_class where oid::int8 = $1)");
            let there: bool = there.bind(index).persistent(false).fetch_one(session).await?;
            let gone = format!("the index {} is gone", &statement[name]);
            Ok(if there { Shown::Nothing } else { Shown::Done(gone) })
        }
        (Effect::CreatesIndex | Effect::DropsIndex(_), _) => {
            Ok(Shown::Unclear("the ledger does not say what was there before it".into()))
        }
        (Effect::Unknown, _) => Ok(Shown::Unclear("nothing in the catalog tells".into())),
    }
}

/// Whether a session works on the table of the index `i` as those do that build one.
pub(super) const BUSY: &str = "\
exists (select from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a on a.pid = l.pid
    where l.relation = i.indrelid and l.mode = 'ShareUpdateExclusiveLock' and a.usesysid is not null
    and l.database = (select oid from pg_catalog.pg_database where datname = current_database()))";

/// Indexes of a table that were not there before.
fn new() -> String {
    format!(
        "\
select format('%I.%I', n.nspname, c.relname), i.indisvalid, {BUSY}
from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = i.indexrelid
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where i.indrelid::int8 = $1 and i.indexrelid::int8 <> all($2)
    and ($3::text is null or c.relname = (parse_ident(coalesce($3, 'x')))[1])
order by 1"
    )
}

async fn created(
    session: &mut PgConnection,
    table: i64,
    before: &[i64],
    name: Option<&str>,
) -> Result<Shown, sqlx::Error> {
    let rows = sqlx::query(made(new())).bind(table).bind(before).bind(name).persistent(false);
    let rows = rows.fetch_all(session).await?;
    let index = |row: &PgRow| Ok(NewIndex { name: row.try_get(0)?, valid: row.try_get(1)?, busy: row.try_get(2)? });
    let indexes = rows.iter().map(index).collect::<Result<Vec<_>, sqlx::Error>>()?;
    let Some(index) = indexes.first() else { return Ok(Shown::Nothing) };
    Ok(match name {
        None => Shown::Unnamed(indexes),
        Some(_) if index.valid => Shown::Done(format!("the index {} is there, and valid", index.name)),
        Some(_) if index.is_left() => Shown::Invalid(index.name.clone()),
        Some(_) => Shown::Unclear(format!("its index is not there yet: {index}")),
    })
}
