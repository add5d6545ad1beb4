//! `CREATE INDEX CONCURRENTLY`: it waits for every transaction that is older than itself, and when it fails it leaves an
//! INVALID index, which nobody uses, everybody maintains, and `IF NOT EXISTS` takes for done. Only the one that this very
//! statement left is dropped: it was not there before, and bears the statement's name on the statement's table.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::{PgConnection, Row};

use crate::outside::postgres::change;
use crate::sql::index;
use crate::sql::statements::StatementKind;

use super::limits::Limits;

/// In place of no limit at all.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// What works concurrently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// `CREATE INDEX`.
    CreateIndex,
    /// `DROP INDEX`, `REINDEX`, `DETACH PARTITION`.
    Other,
}

/// Which of them a statement is, if it is one.
pub(super) fn which(kind: StatementKind) -> Option<Which> {
    match kind {
        StatementKind::CannotRunInTransaction("CREATE INDEX CONCURRENTLY") => Some(Which::CreateIndex),
        StatementKind::CannotRunInTransaction(name) if name.ends_with("CONCURRENTLY") => Some(Which::Other),
        _ => None,
    }
}

/// The statement's own budget. A lock timeout would count the wait for other transactions and make it fail for nothing;
/// nobody but DDL waits behind it. The time for the whole is limited in any case.
#[must_use]
pub fn budget(limits: &Limits) -> String {
    let own = limits.statement_timeout;
    let timeout = if own.is_zero() { DEFAULT_TIMEOUT } else { own };
    format!("SET lock_timeout = 0; SET statement_timeout = {}", timeout.as_millis())
}

/// What was there before the statement.
pub(super) struct Before {
    /// The name as written.
    name: Option<String>,
    table: i64,
    invalid: BTreeSet<i64>,
}

/// What became of the index that a failed statement left.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tidied {
    /// There was none.
    Nothing,
    /// It was dropped.
    Dropped(String),
    /// It is still there.
    Left(String),
}

impl Tidied {
    pub(super) fn sentence(&self) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Dropped(index) => format!("The invalid index {index} that it left was dropped. "),
            Self::Left(index) => format!("It left the invalid index {index}, which could not be dropped: drop it. "),
        }
    }
}

/// An index of the statement's table that is not valid.
struct Invalid {
    oid: i64,
    /// Quoted, with its schema.
    shown: String,
    /// Whether it bears the name that was asked for.
    named: bool,
}

/// Looks before the statement. None if its table is not there: then it leaves nothing.
pub(super) async fn look(session: &mut PgConnection, statement: &str) -> Option<Before> {
    let found = index::created(statement)?;
    let table =
        sqlx::query_scalar::<_, Option<i64>>("select pg_catalog.to_regclass($1)::pg_catalog.oid::pg_catalog.int8")
            .bind(&statement[found.table])
            .persistent(false);
    let table = table.fetch_one(&mut *session).await.ok()??;
    let mut before = Before { name: found.name.map(|it| statement[it].to_owned()), table, invalid: BTreeSet::new() };
    before.invalid = before.now(session).await.ok()?.into_iter().map(|it| it.oid).collect();
    Some(before)
}

impl Before {
    async fn now(&self, session: &mut PgConnection) -> Result<Vec<Invalid>, sqlx::Error> {
        let rows = sqlx::query(
            "select c.oid::int8, format('%I.%I', n.nspname, c.relname), $2::text is null or c.relname = \
             (parse_ident(coalesce($2, 'x')))[1] from pg_catalog.pg_index i join pg_catalog.pg_class c on c.oid = \
             i.indexrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace where i.indrelid::int8 = $1 and not \
             i.indisvalid order by 1",
        );
        let rows = rows.bind(self.table).bind(&self.name).persistent(false).fetch_all(session).await?;
        let invalid = |row: &sqlx::postgres::PgRow| {
            Ok(Invalid { oid: row.try_get(0)?, shown: row.try_get(1)?, named: row.try_get(2)? })
        };
        rows.iter().map(invalid).collect()
    }

    /// Drops what the failed statement left.
    pub(super) async fn tidy(self, session: &mut PgConnection, limits: &Limits) -> Tidied {
        let Ok(now) = self.now(session).await else { return Tidied::Nothing };
        let mut new = now.into_iter().filter(|it| it.named && !self.invalid.contains(&it.oid));
        let (Some(index), None) = (new.next(), new.next()) else { return Tidied::Nothing };
        let drop = format!("DROP INDEX CONCURRENTLY {}", index.shown);
        let limited = change(session, limits.set()).await;
        let dropped = limited.is_ok() && change(session, drop).await.is_ok();
        if dropped { Tidied::Dropped(index.shown) } else { Tidied::Left(index.shown) }
    }

    /// After a statement that the server calls done: the index of that name, if it is an invalid one from before.
    pub(super) async fn taken_for_done(&self, session: &mut PgConnection) -> Option<String> {
        self.name.as_ref()?;
        self.now(session).await.ok()?.into_iter().find(|it| it.named).map(|it| it.shown)
    }
}
