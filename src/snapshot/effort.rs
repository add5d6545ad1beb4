//! What snapshots and restores may cost: programs and sessions at once.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::outside::interrupt::{Interrupt, Interrupted};
use crate::plan::RunSettings;

/// More at once than this is asked for by name: each costs the server a process, and us some megabytes.
pub(super) const MOST_JOBS: usize = 8;
/// Blocks of one archive that are compressed at once.
const MOST_WORKERS: usize = 4;

/// What the dumps or the restores of a run may cost, all its databases together.
pub struct Effort {
    /// Blocks of one archive that are compressed at once.
    pub(super) workers: usize,
    jobs: usize,
    slots: Semaphore,
}

impl Effort {
    /// As the plan says, or what this machine's cores are good for.
    #[must_use]
    pub fn of(settings: &RunSettings) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = settings.jobs.unwrap_or(cores.clamp(2, MOST_JOBS));
        Self { jobs, slots: Semaphore::new(jobs), workers: cores.min(MOST_WORKERS) }
    }

    /// Jobs at once on a server that has `free` connections left: half of them are somebody else's.
    pub(super) fn jobs(&self, free: usize) -> usize {
        self.jobs.min(free / 2).max(1)
    }

    /// Waits until one more job may begin; it ends with the permit.
    pub(super) async fn slot(&self, interrupt: &Interrupt) -> Result<SemaphorePermit<'_>, Interrupted> {
        Ok(interrupt.or(self.slots.acquire()).await?.expect("the slots are never closed"))
    }

    /// At least one job, and up to `most`, if nobody else has them.
    pub(super) async fn slots(
        &self,
        most: usize,
        interrupt: &Interrupt,
    ) -> Result<Vec<SemaphorePermit<'_>>, Interrupted> {
        let mut permits = vec![self.slot(interrupt).await?];
        permits.extend((1..most).map_while(|_| self.slots.try_acquire().ok()));
        Ok(permits)
    }
}
