//! The record of a run: create-only objects in the store, written before and after each stage. They are not in a database
//! that a restore would rewind, nor on a machine that may be gone.

pub mod entry;
pub mod ledger;
pub mod state;

use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::Mutex;

use crate::names::RunId;
use crate::outside::store::{Store, StoreError};
use crate::world::World;

use entry::{Entry, Fact, Writer};
use state::RunState;

/// Where runs are, in the store.
const RUNS: &str = "runs";

/// Entries that are fetched side by side: a store answers one in some ten milliseconds.
const READ_AT_ONCE: usize = 16;

/// The folder of a run, relative to the store.
#[must_use]
pub fn folder(run: &RunId) -> String {
    format!("{RUNS}/{run}")
}

/// Why a journal cannot be read or written.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum JournalError {
    /// The store failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Store(#[from] StoreError),
    /// An entry is not what this version of the program writes.
    #[error("{key} is not a journal entry")]
    #[diagnostic(
        code("journal.entry"),
        help(
            "It was written by another program, or damaged. Restore the object, or use the version of `migrate` that wrote it."
        )
    )]
    Entry {
        /// The object.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// An entry between others is not there.
    #[error("entry {seq} of run {run} is missing")]
    #[diagnostic(
        code("journal.gap"),
        help("Somebody removed it from the store. What the run did cannot be known from the rest.")
    )]
    Gap {
        /// The number that is missing.
        seq: u64,
        /// The run.
        run: RunId,
    },
    /// There is no such run.
    #[error("there is no run {run} in {store}")]
    #[diagnostic(code("journal.no_run"), help("`migrate runs list` shows the runs of a store."))]
    NoRun {
        /// As asked for.
        run: RunId,
        /// The store.
        store: String,
    },
}

/// The journal of one run, being written. Two writers cannot write the same entry: the second one fails.
pub struct Journal {
    store: Store,
    run: RunId,
    writer: Writer,
    next: Mutex<u64>,
}

impl Journal {
    /// Begins the journal of a new run with its first entry.
    ///
    /// # Errors
    /// The store failed, or the run exists.
    pub async fn begin(world: &World, store: &Store, run: &RunId, first: Fact) -> Result<Self, JournalError> {
        let journal = Self::after(world, store, run, 0);
        journal.write(first).await?;
        Ok(journal)
    }

    /// Goes on with the journal of a run of which `state` was read.
    #[must_use]
    pub fn go_on(world: &World, store: &Store, state: &RunState) -> Self {
        Self::after(world, store, &state.run, state.entries)
    }

    fn after(world: &World, store: &Store, run: &RunId, entries: u64) -> Self {
        Self {
            store: store.clone(),
            run: run.clone(),
            writer: Writer::this_process(world),
            next: Mutex::new(entries + 1),
        }
    }

    /// The run.
    #[must_use]
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// Writes one entry. When this returns, it is durable.
    ///
    /// # Errors
    /// The store failed, or another process wrote this entry: then it is that process's run.
    pub async fn write(&self, fact: Fact) -> Result<(), JournalError> {
        let mut next = self.next.lock().await;
        let entry = Entry::new(*next, self.writer.clone(), fact);
        let text = serde_json::to_vec_pretty(&entry).expect("an entry has no map with keys that are not text");
        self.store.put_new(&entry_key(&self.run, *next), text).await?;
        *next += 1;
        Ok(())
    }
}

fn entry_key(run: &RunId, seq: u64) -> String {
    format!("{}/journal/{seq:06}.json", folder(run))
}

/// Every entry of a run, in order.
///
/// # Errors
/// The store failed, or an entry is missing or damaged, or there is no such run.
pub async fn read(store: &Store, run: &RunId) -> Result<Vec<Entry>, JournalError> {
    let objects = store.list(&format!("{}/journal", folder(run))).await?;
    if objects.is_empty() {
        return Err(JournalError::NoRun { run: run.clone(), store: store.url().to_owned() });
    }
    for (object, seq) in objects.iter().zip(1..) {
        if object.key != entry_key(run, seq) {
            return Err(JournalError::Gap { seq, run: run.clone() });
        }
    }
    let numbered = objects.into_iter().zip(1..);
    stream::iter(numbered).map(|(object, seq)| entry(store, object.key, seq)).buffered(READ_AT_ONCE).try_collect().await
}

async fn entry(store: &Store, key: String, seq: u64) -> Result<Entry, JournalError> {
    let text = store.get(&key).await?.unwrap_or_default();
    let read = Entry::read(&text).and_then(|it| {
        let another = || format!("it is entry {}", it.seq);
        if it.seq == seq { Ok(it) } else { Err(serde::de::Error::custom(another())) }
    });
    read.map_err(|source| JournalError::Entry { key, source })
}

/// The state of a run, from its journal alone.
///
/// # Errors
/// As [`read`].
pub async fn state(store: &Store, run: &RunId) -> Result<RunState, JournalError> {
    Ok(RunState::fold(run.clone(), &read(store, run).await?))
}

/// The ids of all runs in the store, newest first. Folders that are no runs are passed over.
///
/// # Errors
/// The store cannot be listed.
pub async fn runs(store: &Store) -> Result<Vec<RunId>, JournalError> {
    let mut runs: Vec<RunId> =
        store.folders(RUNS).await?.into_iter().filter_map(|name| RunId::new(name).ok()).collect();
    runs.reverse();
    Ok(runs)
}
