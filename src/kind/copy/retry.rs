//! A copy that does not get its lock is tried again as a whole: it is one transaction.

use std::time::Duration;

use sqlx::PgConnection;

use super::{CopyCounts, CopyError, run};
use crate::kind::Copy;
use crate::kind::blockers::{Blocker, Watch};
use crate::kind::limits::{Limits, wait_before};
use crate::kind::message::worth_another_try;
use crate::outside::postgres::{PgError, backend_pid, connect};
use crate::outside::url::DatabaseUrl;

/// One end of a copy: its session, and somebody who sees who is in the session's way.
pub struct CopyEnd<'a> {
    connection: PgConnection,
    watch: Watch<'a>,
}

impl<'a> CopyEnd<'a> {
    /// Opens it.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn open(url: &'a DatabaseUrl, application: &str) -> Result<Self, PgError> {
        let mut connection = connect(url, application).await?;
        let pid = backend_pid(&mut connection).await?;
        Ok(Self { connection, watch: Watch::new(url, application, pid) })
    }
}

/// What surrounds a copy.
pub struct CopySetting<'a> {
    /// Records it, in its own transaction.
    pub ledger: &'a str,
    /// How long statements may wait and run, and how often it is tried again.
    pub limits: Limits,
    /// Is told about each try that did not get its lock: attempt from 1, the wait before the next, and who was in the way.
    pub on_retry: &'a (dyn Fn(u32, Duration, &[Blocker]) + Send + Sync),
    /// Hears of bytes and rows that were read.
    pub progress: &'a (dyn Fn(u64, u64) + Send + Sync),
}

/// Copies as [`run`] does, and again where a lock was not had in time, with a wait between two tries that grows and varies.
///
/// # Errors
/// Those of [`run`]; [`CopyError::Locked`] names who was in the way of the last try.
pub async fn run_with_retries(
    source: &mut CopyEnd<'_>,
    target: &mut CopyEnd<'_>,
    copy: &Copy,
    setting: &CopySetting<'_>,
) -> Result<CopyCounts, CopyError> {
    let (limits, settings) = (&setting.limits, setting.limits.set_local(true));
    let mut attempt = 0;
    loop {
        attempt += 1;
        let (from, to) = (&mut source.connection, &mut target.connection);
        let work = run(from, to, copy, setting.ledger, &settings, setting.progress);
        let work = source.watch.during(limits.lock_timeout, work);
        let ((done, at_source), mut blockers) = target.watch.during(limits.lock_timeout, work).await;
        let error = match done {
            Err(error) if error.cause().is_some_and(worth_another_try) => error,
            done => return done,
        };
        blockers.extend(at_source);
        if attempt > limits.lock_retries {
            return Err(CopyError::Locked { error: Box::new(error), blockers });
        }
        let wait = wait_before(attempt);
        (setting.on_retry)(attempt, wait, &blockers);
        tokio::time::sleep(wait).await;
    }
}
