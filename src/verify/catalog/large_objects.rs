//! Large objects: how many, whose they are, and who may do what with them. They come and go with the applications and may be millions, so
//! that they are no part of a catalog; a snapshot counts them by owner and privileges, and a drill compares.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::{PgConnection, Row};

use crate::outside::postgres::{PgError, ask, query_error};

use super::holding::{Held, Holding};
use super::words::acl;

/// Large objects that have one owner and the same privileges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    owner: String,
    /// As in the catalog.
    acl: String,
    count: u64,
    /// The sum of their oids, which a restore keeps.
    oids: u64,
}

/// All large objects of a database.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LargeObjects(Vec<Group>);

impl LargeObjects {
    /// Those that the transaction of `session` sees.
    ///
    /// # Errors
    /// The query failed.
    pub async fn read(session: &mut PgConnection) -> Result<Self, PgError> {
        let sql = format!(
            "select pg_get_userbyid(lomowner)::text, {}, count(*), sum(oid::int8)::int8 from pg_largeobject_metadata group by 1, 2 order by \
             1, 2",
            acl("'L'", "lomacl", "lomowner")
        );
        let rows = ask(session, sql).await.map_err(query_error("counting large objects"))?;
        let group = |row: &sqlx::postgres::PgRow| {
            let (count, oids): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
            let (count, oids) = (count.unsigned_abs(), oids.unsigned_abs());
            Ok(Group { owner: row.try_get(0)?, acl: row.try_get(1)?, count, oids })
        };
        let groups: Result<_, sqlx::Error> = rows.iter().map(group).collect();
        groups.map(Self).map_err(query_error("counting large objects"))
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|it| it.count).sum()
    }

    /// Whether somebody else holds them than before, or whether they are others, in words. `role` says who is somebody else now.
    #[must_use]
    pub fn changes_under(&self, before: &Self, role: impl Fn(&str) -> String) -> Option<String> {
        let differs = before.compared(&role) != self.compared(&str::to_owned);
        differs.then(|| "large objects have other owners, privileges or numbers".to_owned())
    }

    /// How many, and the sum of their oids, by who holds them: two groups become one where their roles do.
    fn compared(&self, role: &impl Fn(&str) -> String) -> BTreeMap<String, (u64, u64)> {
        let mut all: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for it in &self.0 {
            let words = [("owner", &it.owner), ("acl", &it.acl)];
            let words: Map<String, Value> =
                words.map(|(name, text)| (name.to_owned(), text.clone().into())).into_iter().collect();
            let mut held = Held::default();
            if let Some(holding) = Holding::of("large objects", words) {
                held.add(&holding, role);
            }
            let sums = all.entry(format!("{held:?}")).or_default();
            *sums = (sums.0 + it.count, sums.1.wrapping_add(it.oids));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(groups: &[(&str, &str, u64, u64)]) -> LargeObjects {
        let group = |&(owner, acl, count, oids): &(&str, &str, u64, u64)| Group {
            owner: owner.into(),
            acl: acl.into(),
            count,
            oids,
        };
        LargeObjects(groups.iter().map(group).collect())
    }

    #[test]
    fn they_are_compared_by_whoever_holds_them() {
        let before = of(&[("a", "a=rw/a", 2, 30), ("b", "a=r/b b=rw/b", 1, 7)]);
        let same = str::to_owned;
        assert_eq!(before.changes_under(&before, same), None);
        let differs = |groups: &[(&str, &str, u64, u64)]| of(groups).changes_under(&before, same).unwrap_or_default();
        let other = "large objects have other owners, privileges or numbers";
        assert_eq!(differs(&[]), other);
        assert_eq!(differs(&[("a", "a=rw/a", 1, 10), ("b", "a=r/b b=rw/b", 2, 27)]), other);
        assert_eq!(differs(&[("a", "a=rw/a", 2, 31), ("b", "a=r/b b=rw/b", 1, 7)]), other);
        assert_eq!(differs(&[("a", "a=rw/a", 2, 30), ("b", "b=rw/b", 1, 7)]), other);
    }

    #[test]
    fn two_roles_may_become_one() {
        let before = of(&[("a", "a=rw/a", 2, 30), ("b", "b=rw/b", 1, 7)]);
        let all = |_: &str| "n".to_owned();
        assert_eq!(of(&[("n", "n=rw/n", 3, 37)]).changes_under(&before, all), None);
        assert!(of(&[("n", "n=rw/n", 3, 38)]).changes_under(&before, all).is_some());
    }
}
