//! What a killed run left working. A server goes on with the statement of a client that is gone, and commits what it was
//! told to commit: a rollback that looked too early would find nothing changed, and be wrong a moment later.

use std::time::{Duration, Instant};

use sqlx::PgConnection;

use crate::names::RunId;
use crate::outside::postgres::{MAINTENANCE, PgError, Said, connect, query_error};
use crate::outside::url::DatabaseUrl;

/// A session that was told to end does so at its next safe point.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks.
const ROUND: Duration = Duration::from_millis(50);

/// Ends every session of `run` on the server of `url`. The caller holds the run's locks and has no other session of it.
///
/// # Errors
/// A query failed, or a session does not end.
pub(super) async fn end(url: &DatabaseUrl, run: &RunId) -> Result<(), PgError> {
    let mut session = connect(&url.with_dbname(MAINTENANCE), "migrate rollback").await?;
    let begun = Instant::now();
    while let Some(pid) = told_to_end(&mut session, run).await? {
        if begun.elapsed() > PATIENCE {
            let message = format!("the session with pid {pid} does not end");
            return Err(PgError::Query {
                what: format!("ending what run {run} left working"),
                source: Said { message, state: None },
            });
        }
        tokio::time::sleep(ROUND).await;
    }
    Ok(())
}

async fn told_to_end(session: &mut PgConnection, run: &RunId) -> Result<Option<i32>, PgError> {
    let told: Vec<(i32, bool)> = sqlx::query_as(
        "select pid, pg_terminate_backend(pid) from pg_stat_activity where application_name = any(array['migrate ' || $1, \
         'migrate ' || $1 || ' ending sessions'])",
    )
    .bind(run.as_str())
    .fetch_all(session)
    .await
    .map_err(query_error(format!("ending what run {run} left working")))?;
    Ok(told.first().map(|(pid, _)| *pid))
}
