//! A snapshot that was restored is one that can be: into a scratch database that nobody uses, compared with the manifest in
//! everything that it says, and dropped again. What was found, and how long it took, is kept beside the snapshot.

use std::collections::BTreeMap;
use std::time::Instant;

use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::event::Event;
use crate::names::{DatabaseName, RunId};
use crate::outside::clock;
use crate::outside::postgres::{PgError, Server, connect, query_error};
use crate::outside::store::Store;
use crate::outside::url::DatabaseUrl;
use crate::verify::catalog::{Catalog, LargeObjects};
use crate::world::World;

use super::inventory::{contents, sequences, table_sizes};
use super::manifest::{Manifest, Sequence};
use super::passing::Passing;
use super::restore::{self, Restoring};
use super::role_map::RoleMap;
use super::scratch::Scratch;
use super::{SnapshotError, folder};

/// Runs whose drills are looked at, the latest first.
const LOOKED_AT: usize = 32;
/// Runs that are looked at side by side.
const AT_ONCE: usize = 8;

/// What a drill found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drilled {
    /// The run that took the snapshot.
    pub run: RunId,
    /// The database.
    pub database: DatabaseName,
    /// When it was drilled.
    pub at: DateTime<Utc>,
    /// The system identifier of the server that it was restored on.
    pub server: String,
    /// From the first byte read to a database that could take the live one's place.
    pub seconds: f64,
    /// Uncompressed.
    pub bytes: u64,
    /// Roles that were others on that server, each with who took its place.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub mapped_roles: BTreeMap<String, String>,
    /// What was not as the manifest says; nothing, if the drill passed.
    pub differences: Vec<String>,
}

impl Drilled {
    /// Whether the restored database was what the manifest says.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.differences.is_empty()
    }

    /// What it means for somebody who relies on the snapshot.
    ///
    /// # Errors
    /// [`SnapshotError::Drill`], if it did not pass.
    pub fn verdict(&self) -> Result<(), SnapshotError> {
        if self.passed() {
            return Ok(());
        }
        let (database, run, what) = (self.database.clone(), self.run.clone(), self.differences.join("; "));
        Err(SnapshotError::Drill { database, run, what })
    }
}

/// Restores the snapshot of `manifest` beside whatever is there, and compares it. The archives are compared as they pass: a
/// damaged one ends the drill.
///
/// # Errors
/// It could not be restored. That what was restored differs is no error of the drill.
pub async fn drill(restoring: &Restoring<'_>, manifest: &Manifest) -> Result<Drilled, SnapshotError> {
    let Restoring { world, store, url, roles, .. } = *restoring;
    let (name, dbname, id) = (&manifest.database, &manifest.properties.dbname, &RunId::generate(clock::now()));
    let scratch = Scratch { database: name, url, dbname, what: "drill", of: "a drill", run: id };
    // Nobody else has this id.
    let mut marked = scratch.mark(world).await?.expect("the name is new");
    let scratch = scratch.name();
    for note in look(&mut marked, manifest, &roles.map).await? {
        world.tell(Event::Noted(format!("{name}: {note}")));
    }
    let begun = Instant::now();
    let restored = restore::into_side(restoring, &roles.map.applied(manifest), &scratch).await;
    let seconds = begun.elapsed().as_secs_f64();
    let compared = match restored {
        Ok(_) => compare(world, manifest, &roles.map, &url.with_dbname(&scratch)).await,
        // Rows that are missing are what a drill is there to find.
        Err(SnapshotError::Differs { what, .. }) => Ok((String::new(), vec![what])),
        Err(error) => Err(error),
    };
    restore::drop_database(url, &scratch).await.map_err(SnapshotError::database(name))?;
    let (server, differences) = compared?;
    let (run, database, bytes) = (manifest.run.clone(), name.clone(), manifest.bytes());
    let mapped_roles = roles.map.all().clone();
    let drilled = Drilled { run, database, at: clock::now(), server, seconds, bytes, mapped_roles, differences };
    let key = format!("{}/drilled-{id}.json", folder(&manifest.run, name));
    let text = serde_json::to_vec_pretty(&drilled).expect("a drill has no map with keys that are not text");
    store.put_new(&key, text).await.map_err(SnapshotError::store(name))?;
    world.tell(Event::Drilled { database: name.clone(), passed: drilled.passed(), seconds });
    Ok(drilled)
}

/// Whether it can be restored and compared under these roles. Gives what should be known.
async fn look(session: &mut PgConnection, manifest: &Manifest, map: &RoleMap) -> Result<Vec<String>, SnapshotError> {
    if !map.is_empty() && manifest.holdings.is_none() {
        return Err(SnapshotError::NoHoldings { database: manifest.database.clone() });
    }
    map.look(session, &manifest.database).await
}

/// The latest drill of a snapshot, if there was one.
///
/// # Errors
/// The store failed, or what it holds cannot be read.
pub async fn latest(store: &Store, run: &RunId, database: &DatabaseName) -> Result<Option<Drilled>, SnapshotError> {
    let objects = store.list(&folder(run, database)).await.map_err(SnapshotError::store(database))?;
    // Their names sort by time.
    let Some(last) = objects.into_iter().rfind(|it| it.key.contains("/drilled-")) else { return Ok(None) };
    let text = store.get(&last.key).await.map_err(SnapshotError::store(database))?;
    let read = |text: bytes::Bytes| {
        serde_json::from_slice(&text).map_err(|source| SnapshotError::Manifest { key: last.key.clone(), source })
    };
    text.map(read).transpose()
}

/// The latest drill of a database, of whatever snapshot of the latest runs.
///
/// # Errors
/// The store failed, or what it holds cannot be read.
pub async fn latest_of(
    store: &Store,
    runs: &[RunId],
    database: &DatabaseName,
) -> Result<Option<Drilled>, SnapshotError> {
    let asked = stream::iter(&runs[..runs.len().min(LOOKED_AT)]).map(|run| latest(store, run, database));
    let found: Vec<Option<Drilled>> = asked.buffered(AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().max_by_key(|it| it.at))
}

/// The server, and what the scratch database has that the manifest does not say, or lacks.
async fn compare(
    world: &World,
    manifest: &Manifest,
    map: &RoleMap,
    scratch: &DatabaseUrl,
) -> Result<(String, Vec<String>), SnapshotError> {
    let failed = SnapshotError::database(&manifest.database);
    let mut session = connect(scratch, "migrate drill").await.map_err(&failed)?;
    let server = Server::of(&mut session).await.map_err(&failed)?;
    let mut differences = things(manifest, map, &mut session).await.map_err(&failed)?;
    let there = contents(&mut session).await.map_err(&failed)?;
    let sizes = table_sizes(&mut session, &there.tables).await.map_err(&failed)?;
    let passing = Passing { world, database: &manifest.database, url: scratch, server: &server };
    let found: BTreeMap<(String, String), String> =
        passing.hashes(&sizes).await?.into_iter().map(|it| ((it.schema, it.name), it.hash)).collect();
    for table in &manifest.tables {
        let hash = found.get(&(table.schema.clone(), table.name.clone()));
        if table.hash.is_some() && table.hash.as_ref() != hash {
            differences.push(format!("the rows of {}.{} have another content", table.schema, table.name));
        }
    }
    Ok((server.system_identifier, differences))
}

/// Objects with owners and privileges, and sequences.
async fn things(manifest: &Manifest, map: &RoleMap, session: &mut PgConnection) -> Result<Vec<String>, PgError> {
    let mut differences = Vec::new();
    if let Some(before) = &manifest.catalog {
        let catalog = Catalog::read(session).await?;
        let changes = match &manifest.holdings {
            Some(holdings) => catalog.changes_under(before, holdings, |role| map.of(role).to_owned()),
            None => catalog.digested().changes_since(before),
        };
        let word = |it: String| {
            let says = [(" appeared", ": not in the snapshot"), (" vanished", ": missing"), (" changed", ": differs")];
            says.iter().find_map(|(a, b)| it.strip_suffix(a).map(|it| format!("{it}{b}"))).unwrap_or(it)
        };
        differences.extend(changes.into_iter().map(word));
    }
    if let Some(before) = &manifest.large_objects_held {
        let found = LargeObjects::read(session).await?;
        differences.extend(found.changes_under(before, |role| map.of(role).to_owned()));
    }
    let found = sequences(session).await.map_err(query_error("reading sequences"))?;
    differences.extend(behind(&manifest.sequences, &found));
    Ok(differences)
}

/// Sequences that would give a number again that was given before the snapshot.
fn behind(expected: &[Sequence], found: &[Sequence]) -> Vec<String> {
    let is_behind = |before: &Sequence, now: Option<&Sequence>| match (before.last, now.and_then(|it| it.last)) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(before_last), Some(last)) if before.increment < 0 => last > before_last,
        (Some(before_last), Some(last)) => last < before_last,
    };
    let same = |a: &Sequence, b: &Sequence| a.schema == b.schema && a.name == b.name;
    let of = |before: &Sequence| found.iter().find(|it| same(it, before)).cloned();
    let named = expected.iter().filter(|it| is_behind(it, of(it).as_ref()));
    named.map(|it| format!("the sequence {}.{} is behind the snapshot", it.schema, it.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_may_be_ahead_and_never_behind() {
        let sequence = |increment, last| Sequence { schema: "public".into(), name: "s".into(), increment, last };
        let check = |before: Sequence, now: &[Sequence]| behind(&[before], now).len();
        assert_eq!(check(sequence(1, Some(5)), &[sequence(1, Some(5))]), 0);
        assert_eq!(check(sequence(1, Some(5)), &[sequence(1, Some(9))]), 0);
        assert_eq!(check(sequence(1, None), &[sequence(1, None)]), 0);
        assert_eq!(check(sequence(-1, Some(-5)), &[sequence(-1, Some(-7))]), 0);
        assert_eq!(check(sequence(1, Some(5)), &[sequence(1, Some(4))]), 1);
        assert_eq!(check(sequence(1, Some(5)), &[sequence(1, None)]), 1);
        assert_eq!(check(sequence(1, Some(5)), &[]), 1);
        assert_eq!(check(sequence(-1, Some(-5)), &[sequence(-1, Some(-4))]), 1);
    }
}
