//! The database half of `kind = "refinery"`: what `refinery_schema_history` has, and what refinery itself makes of that. Its
//! own runner decides what is pending and words the rows; they are sent over our session, in our transaction.

use std::collections::BTreeMap;
use std::convert::Infallible;

use refinery_core::traits::r#async::{AsyncQuery, AsyncTransaction};
use refinery_core::{AsyncMigrate, Runner};
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::outside::postgres::{PgError, query_error};

use super::Migration;

/// What refinery would do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Makes `refinery_schema_history` if it is not there.
    pub create_table: String,
    /// In refinery's order.
    pub pending: Vec<Pending>,
}

/// A migration that refinery would apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its place among the files.
    pub index: usize,
    /// Refinery's own row for it.
    pub insert_row: String,
}

/// Refinery refuses: history and files disagree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refinery refuses: {0}")]
pub struct Disagrees(String);

/// Plays the database for refinery's runner, and writes down what it would have sent.
struct Recorder {
    applied: Vec<refinery_core::Migration>,
    sent: Vec<Vec<String>>,
}

impl AsyncTransaction for Recorder {
    type Error = Infallible;

    async fn execute<'a, T: Iterator<Item = &'a str> + Send + 'a>(
        &'a mut self,
        queries: T,
    ) -> Result<usize, Infallible> {
        self.sent.push(queries.map(str::to_owned).collect());
        Ok(1)
    }
}

impl AsyncQuery<Vec<refinery_core::Migration>> for Recorder {
    async fn query<'a>(&'a mut self, _: &'a str) -> Result<Vec<refinery_core::Migration>, Infallible> {
        Ok(self.applied.clone())
    }
}

impl AsyncMigrate for Recorder {}

/// What refinery would do with these files on this database.
///
/// # Errors
/// The history cannot be read; or, inside, refinery refuses.
pub async fn history(session: &mut PgConnection, files: &[Migration]) -> Result<Result<History, Disagrees>, PgError> {
    let applied = match applied(session).await? {
        Ok(applied) => applied,
        Err(disagrees) => return Ok(Err(disagrees)),
    };
    let parsed: Result<Vec<_>, _> =
        files.iter().map(|file| refinery_core::Migration::unapplied(&file.name, &file.up)).collect();
    let mut recorder = Recorder { applied, sent: Vec::new() };
    let result = match parsed {
        Ok(parsed) => Runner::new(&parsed).run_async(&mut recorder).await,
        Err(error) => Err(error),
    };
    Ok(match result {
        Ok(report) => Ok(read(&report, &recorder.sent, files)),
        Err(error) => Err(Disagrees(error.to_string())),
    })
}

/// The runner sends the making of its table first, then for each pending migration its text and its row.
fn read(report: &refinery_core::Report, sent: &[Vec<String>], files: &[Migration]) -> History {
    let create_table = sent.first().map(|queries| queries.concat()).unwrap_or_default();
    let rows = sent.iter().skip(1).filter_map(|queries| queries.last());
    let places: BTreeMap<&str, usize> = files.iter().enumerate().map(|(at, it)| (it.name.as_str(), at)).collect();
    let index = |it: &refinery_core::Migration| places.get(it.to_string().as_str()).copied();
    let pending = report.applied_migrations().iter().zip(rows);
    let pending =
        pending.filter_map(|(it, row)| Some(Pending { index: index(it)?, insert_row: row.clone() })).collect();
    History { create_table, pending }
}

/// The statement that removes refinery's own row of a migration that is undone; none for a name that is not refinery's.
#[must_use]
pub fn remove_row(name: &str) -> Option<String> {
    let version = refinery_core::Migration::unapplied(name, "").ok()?.version();
    Some(format!("DELETE FROM refinery_schema_history WHERE version OPERATOR(pg_catalog.=) {version}"))
}

/// Whether the database has refinery's own table.
///
/// # Errors
/// The query failed.
pub async fn is_there(session: &mut PgConnection) -> Result<bool, PgError> {
    sqlx::query_scalar("select to_regclass('refinery_schema_history') is not null")
        .fetch_one(session)
        .await
        .map_err(query_error("looking for refinery_schema_history"))
}

async fn applied(session: &mut PgConnection) -> Result<Result<Vec<refinery_core::Migration>, Disagrees>, PgError> {
    let failed = || query_error("reading refinery_schema_history");
    let there: bool = sqlx::query_scalar("select to_regclass('refinery_schema_history') is not null")
        .fetch_one(&mut *session)
        .await
        .map_err(failed())?;
    if !there {
        return Ok(Ok(Vec::new()));
    }
    let rows: Vec<(i64, String, String, String)> = sqlx::query_as(
        "select version::int8, coalesce(name, ''), coalesce(applied_on, ''), coalesce(checksum, '') from \
         refinery_schema_history order by version",
    )
    .fetch_all(session)
    .await
    .map_err(failed())?;
    Ok(rows.into_iter().map(row).collect())
}

fn row(
    (version, name, applied_on, checksum): (i64, String, String, String),
) -> Result<refinery_core::Migration, Disagrees> {
    let bad = |what: &str| Disagrees(format!("refinery_schema_history has a row V{version}__{name} whose {what}"));
    let on = OffsetDateTime::parse(&applied_on, &Rfc3339).map_err(|_| bad("applied_on is not a time in RFC 3339"))?;
    let checksum = checksum.parse().map_err(|_| bad("checksum is not a number of 64 bits"))?;
    let number = i32::try_from(version).map_err(|_| bad("version is too large"))?;
    Ok(refinery_core::Migration::applied(number, name, on, checksum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Turn;
    use crate::sql::directives::Budget;

    fn file(name: &str, up: &str) -> Migration {
        Migration {
            name: name.into(),
            path: format!("m/{name}.sql").into(),
            checksum: String::new(),
            up: up.into(),
            down: None,
            irreversible: false,
            transactional: true,
            budget: Budget::default(),
            turn: Turn::default(),
        }
    }

    async fn recorded(applied: Vec<refinery_core::Migration>, files: &[Migration]) -> Result<History, String> {
        let parsed: Vec<_> =
            files.iter().map(|it| refinery_core::Migration::unapplied(&it.name, &it.up).expect("a name")).collect();
        let mut recorder = Recorder { applied, sent: Vec::new() };
        let report = Runner::new(&parsed).run_async(&mut recorder).await.map_err(|error| error.to_string())?;
        Ok(read(&report, &recorder.sent, files))
    }

    #[tokio::test]
    async fn the_runner_is_played_and_its_rows_are_taken() {
        let files = [file("V1__a", "select 1"), file("V2__b", "select 2"), file("V10__c", "select 3")];
        let first = refinery_core::Migration::unapplied("V1__a", "select 1").expect("a name");
        let done = refinery_core::Migration::applied(1, "a".into(), OffsetDateTime::UNIX_EPOCH, first.checksum());
        let history = recorded(vec![done], &files).await.expect("agreed");
        assert_eq!(history.pending.iter().map(|it| it.index).collect::<Vec<_>>(), [1, 2]);
        assert!(history.create_table.starts_with("CREATE TABLE IF NOT EXISTS refinery_schema_history"));
        assert!(history.pending[0].insert_row.contains("VALUES (2, 'b',"), "{}", history.pending[0].insert_row);
    }

    #[tokio::test]
    async fn what_refinery_refuses_is_refused() {
        let gone = refinery_core::Migration::applied(7, "gone".into(), OffsetDateTime::UNIX_EPOCH, 1);
        let error = recorded(vec![gone], &[file("V8__a", "select 1")]).await.expect_err("missing");
        assert!(error.contains("V7__gone"), "{error}");
    }
}
