//! The budget of connections: what a run opens at most on a server, what the server has left for it, and what has to be done with less.

use std::collections::BTreeSet;

use crate::plan::RunSettings;

use super::back::AT_ONCE;

/// Connections of a server, as one database of it sees them. What has no limit is below zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Connections {
    /// `max_connections`.
    pub(super) most: i64,
    /// Of these, those that are kept for superusers and their like.
    pub(super) reserved: i64,
    /// Sessions of clients.
    pub(super) used: i64,
    /// The role's limit.
    pub(super) most_of_role: i64,
    /// Sessions of the role.
    pub(super) used_by_role: i64,
    /// The database's limit.
    pub(super) most_of_database: i64,
    /// Sessions in the database.
    pub(super) used_in_database: i64,
    /// Of all of them, those that this process holds.
    pub(super) own: i64,
}

impl Connections {
    /// So many are there for a run, those that it holds already among them, and what limits them in words.
    pub(super) fn for_a_run(&self, role: &str) -> (usize, String) {
        let Self { most, reserved, used, most_of_role, used_by_role, own, .. } = *self;
        let count = |it: i64| usize::try_from(it).unwrap_or(0);
        let of_server = most - reserved - used + own;
        let of_role = if most_of_role < 0 { i64::MAX } else { most_of_role - used_by_role + own };
        if of_role < of_server {
            let others = used_by_role - own;
            return (count(of_role), format!("the role {role} may have {most_of_role}, and {others} are in use"));
        }
        let others = used - own;
        let kept = format!("max_connections is {most}, {reserved} are kept for superusers, and {others} are in use");
        (count(of_server), kept)
    }

    /// So many are left in the database, and what limits them in words; none if nothing does.
    pub(super) fn in_the_database(&self) -> Option<(usize, String)> {
        let (most, used) = (self.most_of_database, self.used_in_database);
        let text = format!("the database may have {most}, and {used} are in use");
        (most >= 0).then(|| (usize::try_from(most - used).unwrap_or(0), text))
    }
}

/// What a run has to do on one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    /// Databases that it may change.
    pub(super) databases: usize,
    /// Copies that read from it.
    pub(super) sources: usize,
    /// Sessions that hold locks.
    pub(super) locks: usize,
    /// Whether there are snapshots, and so restores.
    pub(super) snapshots: bool,
}

/// How much of it is done at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// Databases.
    pub(super) parallel: usize,
    /// Dumps or restores, of all of them together.
    pub(super) jobs: usize,
}

impl Pace {
    /// As the plan says.
    pub(super) fn of(settings: &RunSettings, jobs: usize) -> Self {
        Self { parallel: settings.parallel, jobs }
    }
}

impl Load {
    /// What it opens at most.
    pub(super) fn most(&self, pace: Pace) -> usize {
        let at_once = self.databases.min(pace.parallel);
        // One exports a snapshot for each database, and each `pg_dump` has one.
        let dumps = at_once + pace.jobs;
        // One makes the side database; then there are those that load it, or two that gather statistics and count.
        let restored = at_once.min(AT_ONCE);
        let restores = restored + pace.jobs.max(2 * restored);
        // Each has one beside it that looks who is in its way.
        let steps = 2 * (at_once + self.sources.min(pace.parallel));
        // A standby takes two from outside, and so does an exchange.
        let rest = 2;
        let before_and_after = if self.snapshots { dumps.max(restores) } else { 0 };
        self.locks + before_and_after.max(steps).max(rest)
    }

    /// The pace at which it does with `there` connections: fewer dumps at once first, then fewer databases. None, if there is none.
    pub(super) fn fit(&self, wanted: Pace, there: usize) -> Option<Pace> {
        let fewer_jobs = (1..=wanted.jobs).rev().map(|jobs| Pace { jobs, ..wanted });
        let fewer_databases = (1..wanted.parallel).rev().map(|parallel| Pace { parallel, jobs: 1 });
        fewer_jobs.chain(fewer_databases).find(|pace| self.most(*pace) <= there)
    }

    /// What it cannot do without.
    pub(super) fn least(&self) -> usize {
        self.most(Pace { parallel: 1, jobs: 1 })
    }
}

/// What it opens in one database at most, while it takes its snapshot or changes it.
pub(super) fn in_one_database(snapshots: bool, jobs: usize) -> usize {
    if snapshots { 1 + jobs.max(1) } else { 2 }
}

/// Distinct places that locks are held at, for databases of one server.
pub(super) fn places<'a>(urls: impl Iterator<Item = &'a crate::outside::url::DatabaseUrl>) -> usize {
    urls.map(|it| (it.host(), it.port())).collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUR: Load = Load { databases: 4, sources: 1, locks: 1, snapshots: true };

    fn pace(parallel: usize, jobs: usize) -> Pace {
        Pace { parallel, jobs }
    }

    #[test]
    fn the_widest_stage_counts() {
        assert_eq!(FOUR.most(pace(4, 2)), 1 + 4 + 8);
        assert_eq!(FOUR.most(pace(4, 12)), 1 + 4 + 12);
        assert_eq!(FOUR.most(pace(1, 1)), 1 + 4);
        assert_eq!(Load { snapshots: false, ..FOUR }.most(pace(4, 12)), 1 + 2 * 5);
        assert_eq!(Load { databases: 1, sources: 0, ..FOUR }.least(), 4);
    }

    #[test]
    fn fewer_jobs_and_then_fewer_databases() {
        assert_eq!(FOUR.fit(pace(4, 16), 100), Some(pace(4, 16)));
        assert_eq!(FOUR.fit(pace(4, 16), 17), Some(pace(4, 12)));
        assert_eq!(FOUR.fit(pace(4, 16), 12), Some(pace(3, 1)));
        assert_eq!(FOUR.fit(pace(4, 16), 5), Some(pace(1, 1)));
        assert_eq!(FOUR.fit(pace(4, 16), 4), None);
    }

    #[test]
    fn the_tightest_limit_is_named() {
        let many = Connections {
            most: 100,
            reserved: 3,
            used: 20,
            most_of_role: -1,
            used_by_role: 7,
            most_of_database: -1,
            used_in_database: 2,
            own: 2,
        };
        let (there, why) = many.for_a_run("release");
        assert_eq!(there, 79);
        assert_eq!(why, "max_connections is 100, 3 are kept for superusers, and 18 are in use");
        let (there, why) = Connections { most_of_role: 10, ..many }.for_a_run("release");
        assert_eq!((there, why.as_str()), (5, "the role release may have 10, and 5 are in use"));
        assert_eq!(many.in_the_database(), None);
        let (there, _) = Connections { most_of_database: 1, ..many }.in_the_database().expect("a limit");
        assert_eq!(there, 0);
    }
}
