//! Which way a database goes back, decided from what was seen of it. Pure.

/// What the operator asked for, of the ways that exchange a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The cheapest that is proven for this run.
    Auto,
    /// The warm copy, or none.
    Standby,
    /// The snapshot, or none.
    Snapshot,
}

/// What there is to go back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The warm copy.
    pub standby: StandbySeen,
    /// The snapshot.
    pub snapshot: SnapshotSeen,
}

/// What became of the warm copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StandbySeen {
    /// None was begun.
    None,
    /// It was begun, and the journal does not say that it was made.
    Unfinished,
    /// It was made, and the server has none of that name and oid.
    Gone,
    /// It is there.
    There,
}

/// What is known of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotSeen {
    /// There is none.
    None,
    /// It is in the store, and nobody has restored it.
    NotDrilled,
    /// A drill restored it.
    Drilled,
    /// A drill found differences, these.
    Failed(String),
}

/// A way that exchanges a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exchange {
    /// By the warm copy.
    Standby,
    /// By the snapshot.
    Snapshot,
}

impl Exchange {
    /// The word for it, as in JSON and on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Snapshot => "snapshot",
        }
    }
}

/// A way, and why it is this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The way.
    pub way: Exchange,
    /// In words.
    pub why: String,
}

/// Decides how one database goes back. `auto` takes the cheapest way that is proven for the run: down scripts only once they were
/// rehearsed, which none is yet, so the warm copy, else the snapshot.
///
/// # Errors
/// Why none of the ways that were asked for can be gone.
pub fn choose(asked: Asked, seen: &Seen) -> Result<Choice, String> {
    const NO_DOWN: &str = "its down scripts were not rehearsed";
    let (standby, snapshot) = (of_standby(&seen.standby), of_snapshot(&seen.snapshot));
    let choice = |way, why: String| Ok(Choice { way, why });
    match (asked, standby, snapshot) {
        (Asked::Standby, Ok(there), _) => choice(Exchange::Standby, format!("as asked for; {there}")),
        (Asked::Standby, Err(why), _) => Err(why.into()),
        (Asked::Snapshot, _, Ok(there)) => choice(Exchange::Snapshot, format!("as asked for; {there}")),
        (Asked::Snapshot, _, Err(why)) => Err(why.into()),
        (Asked::Auto, Ok(there), _) => choice(Exchange::Standby, format!("{NO_DOWN}; {there}")),
        (Asked::Auto, Err(not), Ok(there)) => choice(Exchange::Snapshot, format!("{NO_DOWN}; {not}; {there}")),
        (Asked::Auto, Err(not), Err(nor)) => Err(format!("{not}; {nor}")),
    }
}

/// What is to be said of the warm copy: that it can be used, or why not.
///
/// # Errors
/// Why it cannot.
pub fn of_standby(seen: &StandbySeen) -> Result<&'static str, &'static str> {
    match seen {
        StandbySeen::There => Ok("its standby is there, and takes a rename"),
        StandbySeen::None => Err("no standby was made of it"),
        StandbySeen::Unfinished => Err("its standby was not finished"),
        StandbySeen::Gone => Err("its standby is gone from the server"),
    }
}

/// What is to be said of the snapshot: that it can be used, or why not.
///
/// # Errors
/// Why it cannot.
pub fn of_snapshot(seen: &SnapshotSeen) -> Result<String, &'static str> {
    match seen {
        SnapshotSeen::None => Err("the run has no snapshot of it"),
        SnapshotSeen::NotDrilled => Ok("its snapshot is in the store, and was never drilled".into()),
        SnapshotSeen::Drilled => Ok("its snapshot is in the store, and a drill restored it".into()),
        SnapshotSeen::Failed(what) => Ok(format!("its snapshot is in the store, but its DRILL FAILED: {what}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANDBYS: [StandbySeen; 4] =
        [StandbySeen::None, StandbySeen::Unfinished, StandbySeen::Gone, StandbySeen::There];

    fn snapshots() -> [SnapshotSeen; 4] {
        [SnapshotSeen::None, SnapshotSeen::NotDrilled, SnapshotSeen::Drilled, SnapshotSeen::Failed("t".into())]
    }

    /// Every combination, and which way it comes to.
    #[test]
    fn auto_takes_the_standby_and_else_the_snapshot() {
        for standby in STANDBYS {
            for snapshot in snapshots() {
                let seen = Seen { standby: standby.clone(), snapshot: snapshot.clone() };
                let way = |asked| choose(asked, &seen).map(|it| it.way).ok();
                let (copy, archive) = (standby == StandbySeen::There, snapshot != SnapshotSeen::None);
                let expected = match (copy, archive) {
                    (true, _) => Some(Exchange::Standby),
                    (false, true) => Some(Exchange::Snapshot),
                    (false, false) => None,
                };
                assert_eq!(way(Asked::Auto), expected, "{seen:?}");
                assert_eq!(way(Asked::Standby), copy.then_some(Exchange::Standby), "{seen:?}");
                assert_eq!(way(Asked::Snapshot), archive.then_some(Exchange::Snapshot), "{seen:?}");
            }
        }
    }

    #[test]
    fn it_says_why() {
        let why = |asked, standby, snapshot| match choose(asked, &Seen { standby, snapshot }) {
            Ok(it) => it.why,
            Err(why) => why,
        };
        let told = why(Asked::Auto, StandbySeen::Gone, SnapshotSeen::Failed("t differs".into()));
        for part in ["not rehearsed", "gone from the server", "DRILL FAILED: t differs"] {
            assert!(told.contains(part), "{told}");
        }
        let told = why(Asked::Auto, StandbySeen::None, SnapshotSeen::None);
        assert_eq!(told, "no standby was made of it; the run has no snapshot of it");
        assert_eq!(why(Asked::Standby, StandbySeen::Unfinished, SnapshotSeen::Drilled), "its standby was not finished");
    }
}
