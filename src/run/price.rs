//! What a rollback would cost, told before anything happens: how long it takes, how long a database cannot be reached, what would
//! be lost, and what the other ways would be. Each number says where it is from.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::journal::entry::Fact;
use crate::journal::state::{RunState, Standby};
use crate::journal::{self, JournalError};
use crate::names::{DatabaseName, RunId, TargetName};
use crate::outside::store::Store;
use crate::snapshot::SnapshotError;
use crate::snapshot::drill::Drilled;
use crate::snapshot::manifest::Manifest;

use super::back::{Back, see_snapshot};
use super::choose::{Exchange, of_snapshot, of_standby};
use super::loss::{self, Loss};
use super::rollback::{Price, Prospect, Request, RollbackError};
use super::subject::failed;
use super::undo::{Ahead, Undo};

/// Runs in which measurements are looked for, newest first.
const LOOKED_AT: usize = 10;
/// Reasons against the down scripts that are told.
const REASONS: usize = 3;
/// What an exchange is taken to last where nobody has measured one, in seconds: it renames, whatever the size.
const EXCHANGE: f64 = 1.0;

/// A time, and where it is from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Time {
    /// In seconds.
    pub seconds: f64,
    /// Whether the very thing was measured; else it is an estimate.
    pub measured: bool,
    /// Where it is from.
    pub from: String,
}

/// One of the ways, as it looks for one database.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Offer {
    /// `down`, `standby`, `snapshot`.
    pub via: &'static str,
    /// Whether it can be gone.
    pub open: bool,
    /// What is to be said of it.
    pub detail: String,
    /// How long it would take; none where it cannot be gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub takes: Option<Time>,
}

/// What runs of a target measured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    /// The latest exchange.
    exchange: Option<(RunId, f64)>,
    /// The latest restore of each database: the run, and bytes a second.
    restores: BTreeMap<DatabaseName, (RunId, f64)>,
    /// How fast the run that is to be taken back dumped each database, in bytes a second.
    dumps: BTreeMap<DatabaseName, f64>,
}

impl Measured {
    /// Reads the latest journals of a target.
    ///
    /// # Errors
    /// The store failed.
    pub async fn read(store: &Store, target: &TargetName, run: &RunId) -> Result<Self, JournalError> {
        let mut measured = Self::default();
        let mut runs = journal::runs(store).await?;
        runs.truncate(LOOKED_AT);
        if !runs.contains(run) {
            runs.push(run.clone());
        }
        for id in runs {
            let entries = match journal::read(store, &id).await {
                Err(JournalError::NoRun { .. }) => continue,
                entries => entries?,
            };
            if RunState::fold(id.clone(), &entries).target.as_ref() == Some(target) {
                measured.take(&id, entries.iter().map(|it| &it.fact), id == *run);
            }
        }
        Ok(measured)
    }

    /// Takes what one run measured; runs come newest first, and what is there already stays.
    fn take<'f>(&mut self, run: &RunId, facts: impl Iterator<Item = &'f Fact>, this: bool) {
        let (mut sizes, mut exchange) = (BTreeMap::new(), None);
        for fact in facts {
            match fact {
                Fact::SnapshotTaken { database, bytes, seconds, .. } => {
                    sizes.insert(database.clone(), *bytes);
                    if this {
                        self.dumps.insert(database.clone(), rate(*bytes, *seconds));
                    }
                }
                Fact::Restored { database, seconds, .. } => {
                    let Some(bytes) = sizes.get(database) else { continue };
                    let found = (run.clone(), rate(*bytes, *seconds));
                    self.restores.entry(database.clone()).or_insert(found);
                }
                Fact::Swapped { seconds: Some(seconds), .. } => exchange = Some((run.clone(), *seconds)),
                _ => {}
            }
        }
        if self.exchange.is_none() {
            self.exchange = exchange;
        }
    }

    /// How long an exchange takes: the database cannot be reached meanwhile.
    #[must_use]
    pub fn exchange(&self) -> Time {
        match &self.exchange {
            Some((run, seconds)) => {
                Time { seconds: *seconds, measured: false, from: format!("as the exchange of run {run} took") }
            }
            None => {
                Time { seconds: EXCHANGE, measured: false, from: "no exchange was measured yet; it renames".into() }
            }
        }
    }

    /// How long a way takes to its end.
    #[must_use]
    pub fn takes(&self, way: Exchange, database: &DatabaseName, bytes: u64, drilled: Option<&Drilled>) -> Time {
        let exchange = self.exchange();
        let restore = match (way, drilled.filter(|it| it.passed()), self.restores.get(database)) {
            (Exchange::Standby, ..) => return exchange,
            (_, Some(drilled), _) => {
                let from = "the drill of this very snapshot".to_owned();
                Time { seconds: drilled.seconds, measured: true, from }
            }
            (_, None, Some((run, rate))) => {
                let from = format!("at the rate of its restore in run {run}");
                Time { seconds: amount(bytes) / rate, measured: false, from }
            }
            (..) => {
                let rate = self.dumps.get(database).copied().filter(|rate| *rate > 0.0);
                let from = match rate {
                    Some(_) => "at the rate at which it was dumped: no restore was measured yet".to_owned(),
                    None => "at 20 MB a second: nothing was measured yet".to_owned(),
                };
                Time { seconds: amount(bytes) / rate.unwrap_or(20e6), measured: false, from }
            }
        };
        Time { seconds: restore.seconds + exchange.seconds, ..restore }
    }
}

/// Puts a price to each of `prospects`.
///
/// # Errors
/// The store failed.
pub(super) async fn of_all(
    back: &Back<'_>,
    undo: &Undo<'_>,
    request: &Request<'_>,
    prospects: Vec<Prospect>,
) -> Result<Vec<Prospect>, RollbackError> {
    let state = back.subject.state;
    let Some(target) = &state.target else { return Ok(prospects) };
    let measured = Measured::read(back.store, target, &state.run).await?;
    let down = undo.look(request.only).await.map_err(|error| why_not(&error));
    let mut priced = Vec::new();
    for it in prospects {
        let price = of_one(back, &measured, &down, &it).await?;
        priced.push(Prospect { price: Some(price), ..it });
    }
    Ok(priced)
}

/// What stands in the way of the down scripts, on one line: of many reasons the first.
fn why_not(error: &RollbackError) -> String {
    let text = error.to_string();
    let mut lines = text.lines().map(str::trim);
    let (what, reasons) = (lines.next().unwrap_or_default(), lines.collect::<Vec<_>>());
    let more = reasons.len().saturating_sub(REASONS);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let reasons = reasons[..reasons.len().min(REASONS)].join("; ");
    format!("{what} {reasons}{more}").trim_end().to_owned()
}

async fn of_one(
    back: &Back<'_>,
    measured: &Measured,
    down: &Result<Ahead, String>,
    it: &Prospect,
) -> Result<Price, RollbackError> {
    let state = &back.subject.state.databases[&it.name];
    let way = if it.via == Exchange::Standby.word() { Exchange::Standby } else { Exchange::Snapshot };
    let manifest = match state.snapshot {
        true => manifest(back, &it.name, way).await?,
        false => None,
    };
    let (lost, lost_unknown) = match lost(back, it, way, manifest.as_ref()).await {
        None => (None, Some("the database is gone".to_owned())),
        Some(Ok(lost)) => (Some(lost), None),
        Some(Err(error)) => (None, Some(error.to_string())),
    };
    let seen = back.see_standby(state).await?;
    let snapshot = see_snapshot(state, it.drilled.as_ref());
    let takes = |way| {
        let bytes = manifest.as_ref().map_or(0, Manifest::bytes);
        measured.takes(way, &it.name, bytes, it.drilled.as_ref())
    };
    let offer = |via: Exchange, seen: Result<String, &'static str>| Offer {
        via: via.word(),
        open: seen.is_ok(),
        takes: seen.is_ok().then(|| takes(via)),
        detail: seen.unwrap_or_else(str::to_owned),
    };
    let options = vec![
        of_down(down, &it.name),
        offer(Exchange::Standby, of_standby(&seen).map(str::to_owned)),
        offer(Exchange::Snapshot, of_snapshot(&snapshot)),
    ];
    Ok(Price { takes: takes(way), unreachable: measured.exchange(), lost, lost_unknown, options })
}

/// The manifest, where there is one that this version can read: to go back by standby, none is needed.
async fn manifest(back: &Back<'_>, name: &DatabaseName, way: Exchange) -> Result<Option<Manifest>, RollbackError> {
    match (back.manifest(name).await, way) {
        (Err(SnapshotError::Newer(_)), Exchange::Standby) => Ok(None),
        (manifest, _) => Ok(Some(manifest?)),
    }
}

fn of_down(down: &Result<Ahead, String>, name: &DatabaseName) -> Offer {
    let (open, detail) = match down {
        Ok(ahead) => {
            let count = ahead.count(name);
            (
                true,
                format!(
                    "undoes {count} of its migrations where they are and keeps what was written since; not rehearsed"
                ),
            )
        }
        Err(why) => (false, why.clone()),
    };
    Offer { via: "down", open, detail, takes: None }
}

/// What would be lost of one database; none if there is no database.
async fn lost(
    back: &Back<'_>,
    it: &Prospect,
    way: Exchange,
    manifest: Option<&Manifest>,
) -> Option<Result<Loss, RollbackError>> {
    it.kept_as.as_ref()?;
    let run = &back.subject.state.run;
    let url = match back.subject.database(&it.name) {
        Ok(database) => &database.url,
        Err(error) => return Some(Err(error)),
    };
    let found = match (way, &back.subject.state.databases[&it.name].standby, manifest) {
        (Exchange::Standby, Standby::Made(copy), _) => {
            loss::since_standby(&it.name, url, &url.with_dbname(&copy.name), run, &copy.horizon).await
        }
        (_, _, Some(manifest)) => loss::since_snapshot(url, run, manifest).await,
        _ => return None,
    };
    Some(found.map_err(failed(&it.name)))
}

#[expect(clippy::cast_precision_loss, reason = "an amount in words")]
fn amount(bytes: u64) -> f64 {
    bytes as f64
}

fn rate(bytes: u64, seconds: f64) -> f64 {
    amount(bytes) / seconds.max(0.001)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> RunId {
        RunId::new(text).expect("an id")
    }

    fn rag() -> DatabaseName {
        DatabaseName::new("rag").expect("a name")
    }

    fn taken(bytes: u64, seconds: f64) -> Fact {
        Fact::SnapshotTaken { database: rag(), bytes, stored_bytes: 1, sha256: String::new(), seconds }
    }

    fn restored(seconds: f64) -> Fact {
        Fact::Restored { database: rag(), side: String::new(), seconds }
    }

    #[test]
    fn the_newest_measurement_counts_and_says_where_it_is_from() {
        let (newer, older) = (run("20261121-174311-482k3f"), run("20261120-174311-482k3f"));
        let nothing = Measured::default();
        assert!(nothing.exchange().from.contains("no exchange was measured"));
        assert!(nothing.takes(Exchange::Snapshot, &rag(), 40_000_000, None).from.contains("nothing was measured"));
        let mut measured = Measured::default();
        measured.take(&newer, [taken(1000, 1.0)].iter(), true);
        let takes = measured.takes(Exchange::Snapshot, &rag(), 5000, None);
        assert!((takes.seconds - 6.0).abs() < 1e-9 && takes.from.contains("was dumped"), "{takes:?}");
        let swapped = Fact::Swapped { swaps: Vec::new(), seconds: Some(0.25) };
        measured.take(&older, [taken(1000, 1.0), restored(2.0), swapped].iter(), false);
        let takes = measured.takes(Exchange::Snapshot, &rag(), 5000, None);
        assert!((takes.seconds - 10.25).abs() < 1e-9 && takes.from.contains(older.as_str()), "{takes:?}");
        assert!((measured.takes(Exchange::Standby, &rag(), 5000, None).seconds - 0.25).abs() < 1e-9);
    }
}
