//! Which snapshots may go: by the store's retention, and never one that somebody may still need.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;

use crate::names::{DatabaseName, RunId, TargetName};
use crate::outside::store::{Object, Removal, Store, StoreError};
use crate::plan::Retention;

use super::folder;

/// How the key of a manifest ends.
const MANIFEST: &str = "/manifest.json";

/// A snapshot in the store, or what one that was never finished left there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The run that took it.
    pub run: RunId,
    /// The database.
    pub database: DatabaseName,
    /// The run's target; none if a newer version wrote it.
    pub target: Option<TargetName>,
    /// When it was taken; none if it was never finished.
    pub taken_at: Option<DateTime<Utc>>,
    /// When the run began.
    pub begun_at: DateTime<Utc>,
    /// Bytes in the store.
    pub stored_bytes: u64,
    /// Whether the run that took it has not ended.
    pub unfinished: bool,
    /// Whether its latest drill passed.
    pub drilled: bool,
}

/// What becomes of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, for this reason.
    Keep(String),
    /// It may go.
    Prune,
}

/// Decides on every snapshot of a store, in the order given.
#[must_use]
pub fn decide(held: &[Held], retention: &Retention, now: DateTime<Utc>) -> Vec<Verdict> {
    let mut newest: Vec<usize> = (0..held.len()).collect();
    newest.sort_by(|a, b| held[*b].run.cmp(&held[*a].run));
    let mut seen: BTreeMap<(&Option<TargetName>, &DatabaseName), Seen> = BTreeMap::new();
    let mut verdicts = vec![Verdict::Prune; held.len()];
    for at in newest {
        let it = &held[at];
        let seen = seen.entry((&it.target, &it.database)).or_default();
        if let Some(reason) = reason_to_keep(it, seen, retention, now) {
            verdicts[at] = Verdict::Keep(reason);
        }
        seen.whole += u32::from(it.taken_at.is_some());
        seen.drilled |= it.drilled;
    }
    verdicts
}

/// Newer snapshots of the same database and target.
#[derive(Default)]
struct Seen {
    whole: u32,
    drilled: bool,
}

fn reason_to_keep(it: &Held, newer: &Seen, retention: &Retention, now: DateTime<Utc>) -> Option<String> {
    let (last, days) = (retention.keep_last, retention.keep_days);
    let young = |days: u32| it.begun_at > now - TimeDelta::days(days.into());
    match it {
        _ if it.target.is_none() => Some("a newer version of migrate wrote its run".into()),
        _ if it.unfinished => Some("its run is not finished".into()),
        _ if last.is_none() && days.is_none() => Some("`[store] retention` sets no limit".into()),
        _ if it.taken_at.is_some() && newer.whole == 0 => Some("it is the last one".into()),
        _ if it.drilled && !newer.drilled => Some("it is the last one that was drilled".into()),
        _ if it.taken_at.is_some() && last.is_some_and(|last| newer.whole < last) => {
            Some(format!("it is one of the last {}", last.unwrap_or_default()))
        }
        _ if days.is_some_and(young) => Some(format!("it is younger than {} days", days.unwrap_or_default())),
        _ => None,
    }
}

/// Objects that are asked for their locks at once.
const ASKED_AT_ONCE: usize = 16;

/// Why a snapshot must not be removed, if one of its objects is locked.
///
/// # Errors
/// The store cannot be asked.
pub async fn lock(store: &Store, it: &Held) -> Result<Option<String>, StoreError> {
    let objects = store.list(&folder(&it.run, &it.database)).await?;
    let ask = async |object: Object| Ok((store.lock(&object.key).await?, object.key));
    let mut answers = stream::iter(objects).map(ask).buffered(ASKED_AT_ONCE);
    while let Some((lock, key)) = answers.try_next().await? {
        if let Some(why) = lock {
            let name = key.rsplit('/').next().unwrap_or_default();
            return Ok(Some(format!("it is locked ({name}: {why})")));
        }
    }
    Ok(None)
}

/// Removes a snapshot. The manifest goes first: what is left of one that is removed half is no snapshot, and goes the next
/// time. Where the store lets nothing else go, it is put back.
///
/// # Errors
/// The store failed, for another reason than that it may not remove.
pub async fn remove(store: &Store, it: &Held) -> Result<Removal, StoreError> {
    let mut objects = store.list(&folder(&it.run, &it.database)).await?;
    objects.sort_by_key(|object| !object.key.ends_with(MANIFEST));
    let manifest = match objects.first().filter(|it| it.key.ends_with(MANIFEST)) {
        Some(it) => store.get(&it.key).await?,
        None => None,
    };
    for (at, object) in objects.iter().enumerate() {
        let Removal::Refused(why) = store.remove(&object.key).await? else { continue };
        return Ok(Removal::Refused(match manifest {
            _ if at == 0 => why,
            Some(manifest) if at == 1 => {
                store.put_new(&objects[0].key, manifest).await?;
                why
            }
            _ => format!("{why}: {} stays, and what is gone without it is no snapshot any more", object.key),
        }));
    }
    Ok(Removal::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        "2026-11-21T12:00:00Z".parse().expect("a time")
    }

    /// A snapshot so many days old.
    fn held(days: i64) -> Held {
        let at = now() - TimeDelta::days(days);
        Held {
            run: RunId::generate(at),
            database: DatabaseName::new("chat").expect("a name"),
            target: Some(TargetName::new("production").expect("a name")),
            taken_at: Some(at),
            begun_at: at,
            stored_bytes: 1,
            unfinished: false,
            drilled: false,
        }
    }

    #[track_caller]
    fn check(held: &[Held], keep_last: Option<u32>, keep_days: Option<u32>, expected: &[&str]) {
        let verdicts = decide(held, &Retention { keep_last, keep_days }, now());
        let words: Vec<&str> = verdicts
            .iter()
            .map(|it| match it {
                Verdict::Keep(reason) => reason.as_str(),
                Verdict::Prune => "-",
            })
            .collect();
        assert_eq!(words, expected);
    }

    #[test]
    fn what_neither_limit_covers_goes() {
        let all = [held(40), held(3), held(20), held(10)];
        check(&all, Some(2), None, &["-", "it is the last one", "-", "it is one of the last 2"]);
        check(&all, None, Some(15), &["-", "it is the last one", "-", "it is younger than 15 days"]);
        let both = ["-", "it is the last one", "it is younger than 35 days", "it is one of the last 2"];
        check(&all, Some(2), Some(35), &both);
    }

    #[test]
    fn without_a_limit_nothing_goes() {
        check(&[held(400), held(3)], None, None, &["`[store] retention` sets no limit"; 2]);
    }

    #[test]
    fn the_last_one_stays_whatever_the_limits() {
        check(&[held(400)], Some(0), Some(0), &["it is the last one"]);
        // Of each database, and of each target.
        let mut others = [held(400), held(300), held(200)];
        others[1].database = DatabaseName::new("rag").expect("a name");
        others[2].target = Some(TargetName::new("clone").expect("a name"));
        check(&others, Some(0), None, &["it is the last one"; 3]);
    }

    #[test]
    fn what_is_no_snapshot_counts_for_none() {
        let mut all = [held(50), held(40), held(30)];
        (all[1].taken_at, all[2].taken_at) = (None, None);
        check(&all, Some(2), None, &["it is the last one", "-", "-"]);
        check(&all, Some(2), Some(35), &["it is the last one", "-", "it is younger than 35 days"]);
    }

    #[test]
    fn what_somebody_may_need_stays() {
        let mut all = [held(90), held(80), held(70), held(60)];
        all[0].unfinished = true;
        (all[1].drilled, all[2].drilled) = (true, true);
        let expected = ["its run is not finished", "-", "it is the last one that was drilled", "it is the last one"];
        check(&all, Some(1), None, &expected);
        all[1].target = None;
        let newer = ["its run is not finished", "a newer version of migrate wrote its run", expected[2], expected[3]];
        check(&all, Some(1), None, &newer);
    }
}
