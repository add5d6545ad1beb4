//! What Alembic's script directory holds, and what follows from how revisions stand on each other.

use std::collections::{BTreeMap, BTreeSet};

use super::{AlembicError, VersionTable};
use crate::kind::Migration;

/// What Alembic's script directory holds.
#[derive(Debug, Clone)]
pub struct Revisions {
    /// Parents first.
    pub migrations: Vec<Migration>,
    /// The table that says what a database has.
    pub version_table: VersionTable,
    /// The parents of each revision, and what it depends on.
    pub(super) parents: BTreeMap<String, Vec<String>>,
    /// Those that Alembic itself can take back: they have a `downgrade()`.
    pub(super) go_down: BTreeSet<String>,
}

impl Revisions {
    /// What is to be rendered, each as Alembic writes it: `PARENT:REVISION`.
    pub(super) fn spans(&self, pending: &[&str]) -> Result<Vec<String>, AlembicError> {
        let mut spans: Vec<String> = Vec::new();
        for (at, revision) in pending.iter().enumerate() {
            let parents = self.parents.get(*revision).map(Vec::as_slice).unwrap_or_default();
            let follows = match at.checked_sub(1) {
                Some(before) => parents.iter().map(String::as_str).eq([pending[before]]),
                None => parents.len() < 2,
            };
            if !follows {
                let before = at.checked_sub(1).map_or_else(|| parents.join(", "), |at| pending[at].to_owned());
                return Err(AlembicError::NotLinear { revision: (*revision).to_owned(), before });
            }
            spans.push(format!("{}:{revision}", parents.first().map_or("base", String::as_str)));
        }
        Ok(spans)
    }

    /// Whether Alembic itself can take a revision back.
    #[must_use]
    pub fn goes_down(&self, revision: &str) -> bool {
        self.go_down.contains(revision)
    }

    /// Where Alembic has to go so that of `mine` nothing is left and of everything else nothing is lost: a revision, or
    /// `base`. None: nothing of `mine` is applied any more.
    ///
    /// # Errors
    /// There is no such place, in words.
    pub fn way_down(&self, current: &[String], mine: &BTreeSet<String>) -> Result<Option<String>, String> {
        let unknown = |it| format!("Alembic can't locate the database's revision `{it}`");
        let applied = self.applied(current).map_err(unknown)?;
        let mine: BTreeSet<&String> = applied.intersection(mine).collect();
        let rest: BTreeSet<&String> = applied.iter().filter(|it| !mine.contains(it)).collect();
        let of = |it: &String| self.parents.get(it).map(Vec::as_slice).unwrap_or_default();
        if let Some(later) = rest.iter().find(|it| of(it).iter().any(|parent| mine.contains(parent))) {
            return Err(format!("revision `{later}` stands on it, and is not of this run"));
        }
        let under = |it: &String| rest.iter().any(|other| of(other).contains(it));
        let heads: Vec<&&String> = rest.iter().filter(|it| !under(it)).collect();
        match heads.as_slice() {
            _ if mine.is_empty() => Ok(None),
            [] => Ok(Some("base".into())),
            [head]
                if mine
                    .iter()
                    .all(|it| self.applied(std::slice::from_ref(*it)).is_ok_and(|all| all.contains(**head))) =>
            {
                Ok(Some((**head).clone()))
            }
            _ => Err("the database was on several branches before it, and one downgrade does not lead there".into()),
        }
    }

    /// Everything that a database has whose `alembic_version` holds `current`.
    ///
    /// # Errors
    /// The first of `current` that the script directory does not have.
    pub fn applied(&self, current: &[String]) -> Result<BTreeSet<String>, String> {
        let mut applied = BTreeSet::new();
        let mut ahead: Vec<String> = current.to_vec();
        while let Some(revision) = ahead.pop() {
            let Some(parents) = self.parents.get(&revision) else { return Err(revision) };
            if applied.insert(revision) {
                ahead.extend(parents.iter().cloned());
            }
        }
        Ok(applied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revisions() -> Revisions {
        let all: [(&str, &[&str]); 5] = [("a", &[]), ("b", &["a"]), ("c", &["a"]), ("m", &["b", "c"]), ("z", &["m"])];
        Revisions {
            migrations: Vec::new(),
            version_table: VersionTable::default(),
            go_down: BTreeSet::new(),
            parents: all.iter().map(|(it, up)| ((*it).into(), up.iter().map(|it| (*it).into()).collect())).collect(),
        }
    }

    #[test]
    fn only_what_stands_in_one_row_is_rendered() {
        let spans = |pending: &[&str]| revisions().spans(pending).map_err(|error| error.to_string());
        assert_eq!(spans(&["a", "b"]), Ok(vec!["base:a".to_owned(), "a:b".to_owned()]));
        assert_eq!(spans(&["z"]), Ok(vec!["m:z".to_owned()]));
        let wrong = |revision: &str, before: &str| {
            Err(format!("revision `{revision}` cannot be rendered as SQL: it does not follow `{before}` alone"))
        };
        assert_eq!(spans(&["a", "b", "c", "m"]), wrong("c", "b"));
        assert_eq!(spans(&["m"]), wrong("m", "b, c"));
    }

    #[test]
    fn what_is_applied_follows_from_the_parents() {
        let revisions = revisions();
        let applied = |current: &[&str]| {
            let current: Vec<String> = current.iter().map(|it| (*it).to_owned()).collect();
            revisions.applied(&current).map(|it| it.into_iter().collect::<Vec<_>>().join(" "))
        };
        assert_eq!(applied(&[]), Ok(String::new()));
        assert_eq!(applied(&["c"]), Ok("a c".into()));
        assert_eq!(applied(&["m"]), Ok("a b c m".into()));
        assert_eq!(applied(&["gone"]), Err("gone".into()));
    }

    #[test]
    fn a_way_down_takes_back_what_is_meant_and_nothing_else() {
        let revisions = revisions();
        let way = |current: &str, mine: &[&str]| {
            let mine = mine.iter().map(|it| (*it).to_owned()).collect();
            revisions.way_down(&[current.to_owned()], &mine)
        };
        assert_eq!(way("b", &["b"]), Ok(Some("a".into())));
        assert_eq!(way("b", &["a", "b"]), Ok(Some("base".into())));
        assert_eq!(way("m", &["m", "b", "c"]), Ok(Some("a".into())));
        assert_eq!(way("a", &["b"]), Ok(None));
        assert!(way("m", &["m"]).expect_err("two heads before").contains("several branches"));
        assert!(way("m", &["b", "m"]).is_err_and(|why| why.contains("several branches")), "c stays, a goes with b");
        assert!(way("z", &["m"]).expect_err("z is above").contains("`z` stands on it"));
        assert!(way("gone", &["m"]).expect_err("unknown").contains("can't locate"));
    }
}
