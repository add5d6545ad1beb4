//! What snapshots and restores may cost: programs, sessions and memory.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::outside::interrupt::{Interrupt, Interrupted};
use crate::outside::store::PART;
use crate::plan::{LEAST_MEMORY, RunSettings};

/// More at once than this is asked for by name: each costs the server a process, and us some megabytes.
pub(super) const MOST_JOBS: usize = 8;
/// Blocks of one archive that are compressed at once.
const MOST_WORKERS: usize = 4;
/// What the process takes without any archive, in bytes: itself, its sessions, the files of a release.
const BASE: u64 = 56 << 20;
/// What one archive takes on its way, in bytes, beside the parts of its upload: chunks that wait, blocks that are compressed, and
/// later, in their place, what is read back. For a restore, pieces of the store, and chunks for the server.
const ONE_ARCHIVE: u64 = 10 << 20;
/// Parts of one upload that are held at once: one is filled, and two are sent.
const PARTS_HELD: u64 = 3;
/// An upload is planned to have so many parts. Stores take 10,000, and sizes of tables are estimates.
const PARTS_PLANNED: u64 = 5_000;
const MIB: u64 = 1 << 20;

const _: () = assert!(LEAST_MEMORY >= BASE + ONE_ARCHIVE + PARTS_HELD * PART as u64, "one archive fits");

/// What the dumps or the restores of a run may cost, all its databases together.
pub struct Effort {
    /// Blocks of one archive that are compressed at once.
    pub(super) workers: usize,
    jobs: usize,
    /// One permit for each job.
    slots: Semaphore,
    /// What archives may take together, in MiB.
    memory: u32,
    /// One permit for each MiB.
    mebibytes: Semaphore,
}

/// Leave for one more session of a job, until it is dropped.
pub(super) type Helper<'a> = SemaphorePermit<'a>;

/// Leave for one more job, until it is dropped.
pub(super) struct Slot<'a> {
    _job: SemaphorePermit<'a>,
    _memory: SemaphorePermit<'a>,
    /// How large the parts of its upload may be, in bytes.
    pub(super) part: usize,
}

impl Effort {
    /// As the plan says, or what this machine's cores are good for.
    #[must_use]
    pub fn of(settings: &RunSettings) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let memory = settings.memory.saturating_sub(BASE);
        let one = ONE_ARCHIVE + PARTS_HELD * PART as u64;
        let fitting = usize::try_from(memory / one).unwrap_or(usize::MAX).max(1);
        let jobs = settings.jobs.unwrap_or(cores.clamp(2, MOST_JOBS)).min(fitting);
        let memory = u32::try_from(memory.max(one).div_ceil(MIB)).unwrap_or(u32::MAX);
        let mebibytes = Semaphore::new(memory.try_into().unwrap_or(Semaphore::MAX_PERMITS));
        Self { jobs, slots: Semaphore::new(jobs), workers: cores.min(MOST_WORKERS), memory, mebibytes }
    }

    /// Jobs at once, where the server has connections enough.
    #[must_use]
    pub fn most_jobs(&self) -> usize {
        self.jobs
    }

    /// Jobs at once on a server that has `free` connections left: half of them are somebody else's.
    pub(super) fn jobs(&self, free: usize) -> usize {
        self.jobs.min(free / 2).max(1)
    }

    /// Waits until one more job may begin; it ends with the permit.
    pub(super) async fn slot(&self, interrupt: &Interrupt) -> Result<Slot<'_>, Interrupted> {
        self.slot_for(0, interrupt).await
    }

    /// As [`Effort::slot`], with the memory that an upload of about `bytes` takes.
    pub(super) async fn slot_for(&self, bytes: u64, interrupt: &Interrupt) -> Result<Slot<'_>, Interrupted> {
        let part = self.part(bytes);
        let mebibytes = (ONE_ARCHIVE + PARTS_HELD * part).div_ceil(MIB);
        let mebibytes = u32::try_from(mebibytes).unwrap_or(u32::MAX).min(self.memory);
        let memory = interrupt.or(self.mebibytes.acquire_many(mebibytes)).await?;
        let job = interrupt.or(self.slots.acquire()).await?;
        let part = usize::try_from(part).unwrap_or(PART);
        let closed = "the permits are never closed";
        Ok(Slot { _job: job.expect(closed), _memory: memory.expect(closed), part })
    }

    /// The size of a part, in bytes, for an upload of about `bytes`.
    fn part(&self, bytes: u64) -> u64 {
        let most = (u64::from(self.memory) * MIB).saturating_sub(ONE_ARCHIVE) / PARTS_HELD;
        bytes.div_ceil(PARTS_PLANNED).clamp(PART as u64, most.max(PART as u64))
    }

    /// Leave for one more session of a job that is under way, if nobody else has it.
    pub(super) fn helper(&self) -> Option<Helper<'_>> {
        self.slots.try_acquire().ok()
    }

    /// At least one job, and up to `most`, if nobody else has them.
    pub(super) async fn slots(
        &self,
        most: usize,
        interrupt: &Interrupt,
    ) -> Result<Vec<SemaphorePermit<'_>>, Interrupted> {
        let one = interrupt.or(self.slots.acquire()).await?;
        let mut permits = vec![one.expect("the permits are never closed")];
        permits.extend((1..most).map_while(|_| self.helper()));
        Ok(permits)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::plan::OnFailure;

    use super::*;

    fn effort(memory: u64, jobs: usize) -> Effort {
        Effort::of(&RunSettings {
            on_failure: OnFailure::Halt,
            parallel: 1,
            jobs: Some(jobs),
            memory,
            drill: false,
            lock_timeout: Duration::ZERO,
            lock_retries: 0,
            statement_timeout: Duration::ZERO,
        })
    }

    /// Jobs that may work at once on archives of this size.
    async fn at_once(effort: &Effort, bytes: u64) -> usize {
        let (interrupt, mut held) = (Interrupt::default(), Vec::new());
        while let Ok(slot) = tokio::time::timeout(Duration::ZERO, effort.slot_for(bytes, &interrupt)).await {
            held.push(slot.expect("nobody interrupts"));
        }
        held.len()
    }

    #[tokio::test]
    async fn memory_limits_jobs() {
        assert_eq!(at_once(&effort(256 << 20, 8), 0).await, 8);
        assert_eq!(at_once(&effort(LEAST_MEMORY, 8), 0).await, 1);
        assert_eq!(at_once(&effort(1 << 30, 3), 0).await, 3);
        // Parts of 40 MB each: there is room for one such upload.
        assert_eq!(at_once(&effort(256 << 20, 8), 200_000_000_000).await, 1);
    }

    #[test]
    fn parts_grow_with_the_table_and_stay_within_the_budget() {
        let it = effort(256 << 20, 2);
        assert_eq!((it.part(0), it.part(20 << 30)), (PART as u64, PART as u64));
        assert_eq!(it.part(100 << 30), (100u64 << 30).div_ceil(PARTS_PLANNED));
        assert!(it.part(u64::MAX) * PARTS_HELD + ONE_ARCHIVE + BASE <= 256 << 20);
    }
}
