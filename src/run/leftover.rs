//! Sessions of a run on the server that outlived the process which opened them: a server does not notice the death of its
//! client before it next has something to say to it.

use std::time::{Duration, Instant};

use sqlx::PgConnection;

use crate::names::RunId;
use crate::outside::postgres::{PgError, query_error};

/// A session that was ended is given this long to undo what it did.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// The server processes of the run's sessions on a database, asked from a session elsewhere.
///
/// # Errors
/// The query failed.
pub async fn sessions(session: &mut PgConnection, run: &RunId, dbname: &str) -> Result<Vec<i32>, PgError> {
    sqlx::query_scalar(
        "select pid from pg_stat_activity where datname = $1 and pid <> pg_backend_pid() and (application_name = $2 or \
         starts_with(application_name, $2 || ' ')) order by pid",
    )
    .bind(dbname)
    .bind(format!("migrate {run}"))
    .fetch_all(session)
    .await
    .map_err(query_error(format!("looking for sessions of run {run}")))
}

/// Ends them, and waits until they are gone.
///
/// # Errors
/// A query failed. Gives the processes that are still there after half a minute.
pub async fn end(session: &mut PgConnection, run: &RunId, dbname: &str) -> Result<Vec<i32>, PgError> {
    let begun = Instant::now();
    loop {
        let left = sessions(session, run, dbname).await?;
        if left.is_empty() || begun.elapsed() > PATIENCE {
            return Ok(left);
        }
        sqlx::query("select pg_terminate_backend(pid) from unnest($1) pid")
            .bind(&left)
            .execute(&mut *session)
            .await
            .map_err(query_error(format!("ending sessions of run {run}")))?;
        tokio::time::sleep(PAUSE).await;
    }
}
