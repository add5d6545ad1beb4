//! How long statements may wait and run, and how often a transaction that did not get its lock is tried again.

use std::time::Duration;

use crate::outside::postgres::{DURABLE, DURABLE_SESSION};
use crate::sql::directives::Budget;

/// The first wait before another try; each further one is twice as long, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// No wait between tries is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How long statements may wait and run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For a lock; never zero, since that would be for ever.
    pub lock_timeout: Duration,
    /// Further tries of a transaction that did not get its lock.
    pub lock_retries: u32,
    /// For one statement; zero is for ever.
    pub statement_timeout: Duration,
}

impl Default for Limits {
    /// What a plan that says nothing comes to.
    fn default() -> Self {
        Self { lock_timeout: Duration::from_secs(4), lock_retries: 8, statement_timeout: Duration::ZERO }
    }
}

impl Limits {
    /// As settings of the transaction at hand, and whether its commit waits for the disk.
    #[must_use]
    pub fn set_local(&self, durable: bool) -> String {
        let (lock, statement) = (self.lock_timeout.as_millis(), self.statement_timeout.as_millis());
        let commit = if durable { DURABLE } else { "SET LOCAL synchronous_commit = off;" };
        format!("SET LOCAL lock_timeout = {lock}; SET LOCAL statement_timeout = {statement}; {commit}")
    }

    /// As settings of the session, whose commits wait for the disk.
    #[must_use]
    pub fn set(&self) -> String {
        let (lock, statement) = (self.lock_timeout.as_millis(), self.statement_timeout.as_millis());
        format!("SET lock_timeout = {lock}; SET statement_timeout = {statement}; {DURABLE_SESSION}")
    }

    /// With what a file says for itself.
    #[must_use]
    pub fn with(self, budget: Budget) -> Self {
        Self {
            lock_timeout: budget.lock_timeout.unwrap_or(self.lock_timeout),
            statement_timeout: budget.statement_timeout.unwrap_or(self.statement_timeout),
            ..self
        }
    }
}

/// Doubles from [`FIRST_WAIT`] up to [`LONGEST_WAIT`], each between half and all of that by chance, so that two runs that
/// are in each other's way part.
pub(super) fn wait_before(attempt: u32) -> Duration {
    full_wait(attempt).mul_f64(rand::random_range(0.5..1.0))
}

fn full_wait(attempt: u32) -> Duration {
    FIRST_WAIT.saturating_mul(1 << (attempt - 1).min(16)).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_within_their_limit() {
        for attempt in 1..40 {
            let (full, wait) = (full_wait(attempt), wait_before(attempt));
            assert!(wait <= full && wait >= full / 2, "{attempt}: {wait:?} of {full:?}");
        }
    }

    #[test]
    fn a_file_has_the_last_word() {
        let second = Duration::from_secs(1);
        let step = Limits { lock_timeout: second, lock_retries: 3, statement_timeout: second };
        assert_eq!(step.with(Budget::default()), step);
        let budget = Budget { lock_timeout: Some(2 * second), statement_timeout: Some(Duration::ZERO) };
        let file = step.with(budget);
        assert_eq!(file, Limits { lock_timeout: 2 * second, lock_retries: 3, statement_timeout: Duration::ZERO });
    }
}
