//! Sessions that come to help with a table that everything else waits for.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::effort::Helper;
use super::schedule::Name;

/// With less left to load than this, beside other costs, nobody comes.
const WORTH_HELPING: u64 = 8 << 20;
/// Bytes of COPY's text after which the load is looked at anew.
const WORTH_A_LOOK: u64 = 16 << 20;

/// What a load that is under way says of itself, and what it is offered.
#[derive(Debug)]
pub(super) struct Help {
    /// Told when a large table begins, and after each [`WORTH_A_LOOK`]: meanwhile another database may have needed less.
    news: Arc<Notify>,
    /// Bytes of COPY's text that have gone to the server.
    loaded: AtomicU64,
    /// The large table that is being loaded.
    table: Mutex<Option<Name>>,
    /// Sessions that may come.
    offered: AtomicUsize,
}

impl Help {
    /// For a load of which `news` is told.
    pub(super) fn of(news: &Arc<Notify>) -> Arc<Self> {
        let (loaded, table, offered) = Default::default();
        Arc::new(Self { news: Arc::clone(news), loaded, table, offered })
    }

    /// A large table begins.
    pub(super) fn begins(&self, table: Name) {
        *self.table.lock().unwrap_or_else(PoisonError::into_inner) = Some(table);
        self.news.notify_one();
    }

    /// The large table that is being loaded, if one has begun. Before that nobody may be sent: a load that has not begun may wait for
    /// the leave that its own helper has.
    pub(super) fn table(&self) -> Option<Name> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// So many more bytes have gone to the server.
    pub(super) fn passed(&self, bytes: u64) {
        let before = self.loaded.fetch_add(bytes, Ordering::Relaxed);
        if before / WORTH_A_LOOK != (before + bytes) / WORTH_A_LOOK {
            self.news.notify_one();
        }
    }

    /// Whether somebody may come.
    pub(super) fn is_offered(&self) -> bool {
        self.offered.load(Ordering::Relaxed) > 0
    }

    /// How many come now.
    pub(super) fn take(&self) -> usize {
        self.offered.swap(0, Ordering::Relaxed)
    }
}

/// A load that is under way.
pub(super) struct Load<'a> {
    /// What it takes from its beginning to its end, beside others.
    pub(super) cost: u64,
    /// Bytes of its archive.
    pub(super) bytes: u64,
    pub(super) help: Arc<Help>,
    /// Those who come, and stay until it is over.
    pub(super) helpers: Vec<Helper<'a>>,
}

impl<'a> Load<'a> {
    /// Sends somebody.
    pub(super) fn send(&mut self, helper: Helper<'a>) {
        self.helpers.push(helper);
        self.help.offered.fetch_add(1, Ordering::Relaxed);
    }

    /// What it takes from now on, through those sessions that it has.
    pub(super) fn left(&self) -> u64 {
        let loaded = self.help.loaded.load(Ordering::Relaxed).min(self.bytes);
        let left = u128::from(self.cost) * u128::from(self.bytes - loaded) / u128::from(self.bytes.max(1));
        u64::try_from(left / (self.helpers.len() as u128 + 1)).unwrap_or(u64::MAX)
    }

    /// Whether one more session makes everything end sooner, with so much `behind` it that begins when it is over, `others` to do
    /// beside it, and so many `jobs` at once. The later somebody comes, the more rows are frozen; what is left for the end has to
    /// go beside what is behind this.
    pub(super) fn is_waited_for(&self, behind: u64, others: u64, jobs: usize) -> bool {
        let beside = behind.saturating_mul(jobs as u64 - 1);
        self.left() >= WORTH_HELPING && others <= beside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn load<'a>(bytes: u64, loaded: u64) -> Load<'a> {
        let it = Load { cost: 2 * bytes, bytes, help: Help::of(&Arc::default()), helpers: Vec::new() };
        it.help.passed(loaded);
        it
    }

    #[test]
    fn help_comes_when_nothing_else_is_to_do_but_what_fits_beside_the_end() {
        let it = load(100 * MIB, 50 * MIB);
        assert_eq!(it.left(), 100 * MIB);
        assert_eq!([it.is_waited_for(0, 0, 2), it.is_waited_for(0, 1, 2)], [true, false]);
        assert_eq!([10, 11].map(|others| it.is_waited_for(10, others, 2)), [true, false]);
        assert_eq!([30, 31].map(|others| it.is_waited_for(10, others, 4)), [true, false]);
    }

    #[test]
    fn nobody_comes_for_little() {
        assert!(!load(100 * MIB, 97 * MIB).is_waited_for(0, 0, 2));
        assert!(!load(100 * MIB, 120 * MIB).is_waited_for(0, 0, 2));
    }

    #[test]
    fn those_who_were_sent_are_taken_once() {
        let permits = tokio::sync::Semaphore::new(3);
        let mut it = load(90 * MIB, 0);
        let helper = || permits.try_acquire().expect("there is one");
        assert!(!it.help.is_offered());
        it.send(helper());
        it.send(helper());
        assert_eq!((it.help.is_offered(), it.help.take(), it.help.is_offered()), (true, 2, false));
        assert_eq!(it.left(), 60 * MIB, "shared by three");
        it.send(helper());
        assert_eq!((it.help.take(), it.helpers.len()), (1, 3));
    }
}
