//! One side of a comparison: a connection, the name of the database behind it, and how it is spoken to.

use std::future::Future;

use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::names::DatabaseName;
use crate::outside::postgres::change;
use crate::tables::SqlError;

/// Settings under which equal values are written alike by every server. Row security is off so that a policy is an
/// error: a comparison that sees only some of the rows proves nothing.
pub const CANONICAL_SETTINGS: &str = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD'; \
     SET LOCAL IntervalStyle = 'postgres'; SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; \
     SET LOCAL row_security = off;";

/// One side: a connection that is in no transaction when it is handed over, and in none when it is handed back.
#[derive(Debug)]
pub struct End<'a> {
    /// The plan's name for the database.
    pub database: &'a DatabaseName,
    /// The connection.
    pub conn: &'a mut PgConnection,
}

impl End<'_> {
    /// Runs statements and takes no rows.
    ///
    /// # Errors
    /// What the server says.
    pub async fn run(&mut self, doing: &'static str, sql: impl Into<String>) -> Result<u64, SqlError> {
        let done = change(&mut *self.conn, sql).await;
        done.map(|done| done.rows_affected()).map_err(|cause| self.error(doing, cause))
    }

    /// All rows of a query that returns few.
    ///
    /// # Errors
    /// What the server says.
    pub async fn rows(&mut self, doing: &'static str, sql: impl Into<String>) -> Result<Vec<PgRow>, SqlError> {
        let rows = sqlx::raw_sql(AssertSqlSafe(sql.into())).fetch_all(&mut *self.conn).await;
        rows.map_err(|cause| self.error(doing, cause))
    }

    /// The only row of a query.
    ///
    /// # Errors
    /// What the server says.
    pub async fn row(&mut self, doing: &'static str, sql: impl Into<String>) -> Result<PgRow, SqlError> {
        let row = sqlx::raw_sql(AssertSqlSafe(sql.into())).fetch_one(&mut *self.conn).await;
        row.map_err(|cause| self.error(doing, cause))
    }

    /// Begins a transaction that reads one snapshot and writes values canonically.
    ///
    /// # Errors
    /// What the server says.
    pub async fn begin_reading(&mut self) -> Result<(), SqlError> {
        let sql = format!("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {CANONICAL_SETTINGS}");
        self.run("begin to read", sql).await.map(drop)
    }

    /// From here on only the server's own functions and operators are found. Names of tables are resolved before.
    ///
    /// # Errors
    /// What the server says.
    pub async fn pin_search_path(&mut self) -> Result<(), SqlError> {
        self.run("set the search path", "SET LOCAL search_path = pg_catalog").await.map(drop)
    }

    /// Ends the transaction. What made it fail is known already, and what it read is lost with the connection at worst.
    pub async fn rollback(&mut self) {
        if let Err(error) = self.run("end the transaction", "ROLLBACK").await {
            tracing::warn!(error = %error.cause, database = %self.database, "ROLLBACK failed");
        }
    }

    /// Lets the server plan a query and check privileges and locks, and throws the plan away.
    ///
    /// sqlx 0.9 loses its place in the protocol if `COPY … TO STDOUT` is refused before its first byte; everything that
    /// can be refused is asked for here first.
    ///
    /// # Errors
    /// What the server says.
    pub async fn expect_to_run(&mut self, doing: &'static str, query: &str) -> Result<(), SqlError> {
        self.rows(doing, format!("EXPLAIN (COSTS off) {query}")).await.map(drop)
    }

    /// An error of this side.
    #[must_use]
    pub fn error(&self, doing: &'static str, cause: sqlx::Error) -> SqlError {
        SqlError { database: self.database.clone(), doing, cause }
    }
}

/// Both sides.
#[derive(Debug)]
pub struct Ends<'a> {
    /// Where the rows come from.
    pub source: End<'a>,
    /// Where they should be.
    pub target: End<'a>,
}

impl Ends<'_> {
    /// Begins to read on both, at the same moment as nearly as can be.
    ///
    /// # Errors
    /// What a server says.
    pub async fn begin_reading(&mut self) -> Result<(), SqlError> {
        both(self.source.begin_reading(), self.target.begin_reading()).await.map(drop)
    }

    /// Ends both transactions.
    pub async fn rollback(&mut self) {
        futures::join!(self.source.rollback(), self.target.rollback());
    }

    /// New snapshots on both sides.
    ///
    /// # Errors
    /// What a server says.
    pub async fn look_again(&mut self) -> Result<(), SqlError> {
        self.rollback().await;
        self.begin_reading().await?;
        self.pin_search_path().await
    }

    /// Pins the search path of both.
    ///
    /// # Errors
    /// What a server says.
    pub async fn pin_search_path(&mut self) -> Result<(), SqlError> {
        both(self.source.pin_search_path(), self.target.pin_search_path()).await.map(drop)
    }
}

/// Waits for both sides, also where one has failed: a reply that nobody reads would be taken for that of the next query.
pub(super) async fn both<A, B, E>(
    left: impl Future<Output = Result<A, E>>,
    right: impl Future<Output = Result<B, E>>,
) -> Result<(A, B), E> {
    let (left, right) = futures::join!(left, right);
    Ok((left?, right?))
}
