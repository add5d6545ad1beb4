//! What became of a table's rows, worked out from counts. Pure.
//!
//! Of a snapshot it is known how many rows a table had. Of the table now it is known how many rows it has, and how many of them
//! were written since, because their transaction is newer. From these follows exactly how many rows are new versions, and how many
//! of the old ones are gone or overwritten. Which of the two became of an old row does not follow, unless one of the numbers is
//! zero: then the server's own counters split them, and the split is an estimate.

use crate::snapshot::manifest::Counters;

/// Rows of a table, counted under one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Before: in the snapshot.
    pub before: u64,
    /// Now.
    pub now: u64,
    /// Of those, written since by anybody but the run.
    pub newer: u64,
    /// Of those, written since by the run itself.
    pub by_run: u64,
}

/// What came between two readings of the counters; none if the statistics were reset in between.
#[must_use]
pub fn between(before: Counters, now: Counters) -> Option<Counters> {
    Some(Counters {
        inserted: now.inserted.checked_sub(before.inserted)?,
        updated: now.updated.checked_sub(before.updated)?,
        deleted: now.deleted.checked_sub(before.deleted)?,
    })
}

/// What would be lost of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Split {
    /// Rows that are new.
    pub inserted: u64,
    /// Rows that were there and have other values.
    pub updated: u64,
    /// Rows that were there and are gone.
    pub deleted: u64,
    /// Whether the three are exact. Their sums are: `inserted + updated` rows are newer.
    pub exact: bool,
}

/// Splits what was counted, with the help of the counters if there are any.
#[must_use]
pub fn split(counted: Counted, since: Option<Counters>) -> Split {
    let old_now = counted.now.saturating_sub(counted.newer + counted.by_run);
    let gone = counted.before.saturating_sub(old_now);
    // What the run overwrote is nobody's loss; whether it overwrote or inserted cannot be told.
    let gone_to_others = gone.saturating_sub(counted.by_run);
    let most_updated = counted.newer.min(gone_to_others);
    let updated = match since {
        _ if most_updated == 0 => 0,
        Some(since) => counted.newer.saturating_sub(since.inserted).min(since.updated).min(most_updated),
        None => most_updated,
    };
    Split {
        inserted: counted.newer - updated,
        updated,
        deleted: gone_to_others - updated,
        exact: counted.by_run == 0 && most_updated == 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What was done to a table of `before` rows, as a server would count it.
    fn counted(before: u64, inserted: u64, updated: u64, deleted: u64) -> (Counted, Counters) {
        let now = before + inserted - deleted;
        (Counted { before, now, newer: inserted + updated, by_run: 0 }, Counters { inserted, updated, deleted })
    }

    #[test]
    fn one_kind_of_write_is_exact_without_counters() {
        for (inserted, deleted) in [(0, 0), (5, 0), (0, 7)] {
            let (counted, _) = counted(100, inserted, 0, deleted);
            assert_eq!(split(counted, None), Split { inserted, updated: 0, deleted, exact: true });
        }
    }

    #[test]
    fn what_the_run_wrote_is_nobodys_loss() {
        // A backfill of all rows, and five rows that an application added.
        let counted = Counted { before: 100, now: 105, newer: 5, by_run: 100 };
        assert_eq!(split(counted, None), Split { inserted: 5, updated: 0, deleted: 0, exact: false });
    }

    #[test]
    fn statistics_that_were_reset_are_no_help() {
        let (small, large) = (Counters::default(), Counters { inserted: 1, updated: 0, deleted: 0 });
        assert_eq!(between(large, small), None);
        assert_eq!(between(small, large), Some(large));
    }

    proptest! {
        /// With counters that saw each row written once, the split is what was done; and the sums hold whatever the counters say.
        #[test]
        fn each_row_written_once_is_told(
            before in 0_u64..1000, inserted in 0_u64..1000, updated in 0_u64..1000, deleted in 0_u64..1000,
            wrong in any::<(u16, u16, u16)>(),
        ) {
            let (updated, deleted) = (updated.min(before), deleted.min(before - updated.min(before)));
            let (counted, counters) = counted(before, inserted, updated, deleted);
            let told = split(counted, Some(counters));
            prop_assert_eq!((told.inserted, told.updated, told.deleted), (inserted, updated, deleted));
            let wrong = Counters { inserted: wrong.0.into(), updated: wrong.1.into(), deleted: wrong.2.into() };
            for told in [split(counted, Some(wrong)), split(counted, None)] {
                prop_assert_eq!(told.inserted + told.updated, inserted + updated);
                prop_assert_eq!(told.updated + told.deleted, updated + deleted);
                prop_assert!(!told.exact || (told.inserted, told.updated, told.deleted) == (inserted, updated, deleted));
            }
        }
    }
}
