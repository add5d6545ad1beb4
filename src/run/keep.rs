//! What a run keeps in the store: its plan, and every file that is about to be applied, with its way back. A rollback next
//! week, from another machine and another commit, has what this run had.
//!
//! Files go there while snapshots are taken and migrations run, in the order in which they are needed. None is applied
//! before it is kept.

use bytes::Bytes;
use tokio::sync::watch;

use crate::journal;
use crate::names::RunId;
use crate::outside::store::{Store, StoreError};
use crate::plan::Plan;

use super::saved::SavedPlan;
use super::survey::Survey;

/// Objects that are created together, the first time and every other: migrations wait for the first alone.
const TOGETHER: (usize, usize) = (32, 256);

/// Keeps what the run began with.
///
/// # Errors
/// The store failed.
pub(super) async fn plan(store: &Store, run: &RunId, plan: &Plan, saved: Option<&SavedPlan>) -> Result<(), StoreError> {
    let folder = journal::folder(run);
    // Each appears whole or not at all: a rollback from a bare machine begins with it.
    store.put_beside(&format!("{folder}/plan"), "toml", plan.text.clone()).await?;
    match saved {
        Some(it) => store.put_beside(&format!("{folder}/saved-plan"), "json", it.text.clone()).await.map(drop),
        None => Ok(()),
    }
}

/// How far keeping is. It ends, too, where the store fails.
#[derive(Clone)]
pub(super) struct Kept(watch::Receiver<usize>);

impl Kept {
    /// For a run that keeps nothing.
    pub(super) fn all() -> Self {
        Self(watch::channel(usize::MAX).1)
    }

    /// Waits until the pending migration at this place of its step's list is kept. False: it will not be.
    pub(super) async fn has(&self, place: usize) -> bool {
        self.0.clone().wait_for(|kept| *kept > place).await.is_ok()
    }
}

/// Files on their way into the store.
pub(super) struct Keeping<'a> {
    store: &'a Store,
    /// By their places in the lists of their steps, so that steps which run side by side have theirs side by side.
    files: Vec<(usize, String, Bytes)>,
    kept: watch::Sender<usize>,
    /// Whether an earlier process of the run may have kept other texts, or begun to: they stay, and ours stand beside them.
    again: bool,
}

impl<'a> Keeping<'a> {
    /// Of everything that is pending; and how those see it who wait for it.
    pub(super) fn new(store: &'a Store, run: &RunId, plan: &Plan, survey: &Survey, again: bool) -> (Self, Kept) {
        let mut files = pending(&journal::folder(run), plan, survey);
        files.sort_by_key(|(place, ..)| *place);
        let (kept, seen) = watch::channel(0);
        (Self { store, files, kept, again }, Kept(seen))
    }

    /// Keeps all of them.
    ///
    /// # Errors
    /// The store failed; whoever waits for more is told that there will be none.
    pub(super) async fn keep(self) -> Result<(), StoreError> {
        let mut files = self.files.into_iter().peekable();
        let mut together = TOGETHER.0;
        while files.peek().is_some() {
            let batch: Vec<(String, Bytes)> = files.by_ref().take(together).map(|(_, key, text)| (key, text)).collect();
            match self.again {
                true => beside(self.store, batch).await?,
                false => self.store.put_many_new(batch).await?,
            }
            self.kept.send_replace(files.peek().map_or(usize::MAX, |(place, ..)| *place));
            together = TOGETHER.1;
        }
        Ok(())
    }
}

/// Keeps files of which there may be earlier texts.
async fn beside(store: &Store, files: Vec<(String, Bytes)>) -> Result<(), StoreError> {
    for (key, text) in files {
        let endings = [".down.sql", ".before.sql"];
        let ending = endings.into_iter().find(|it| key.ends_with(it)).or_else(|| key.rfind('.').map(|at| &key[at..]));
        let ending = ending.unwrap_or_default();
        let stem = key.strip_suffix(ending).unwrap_or(&key);
        store.put_beside(stem, ending.trim_start_matches('.'), text).await?;
    }
    Ok(())
}

/// Every file, with the place of its migration in the list of its step.
fn pending(folder: &str, plan: &Plan, survey: &Survey) -> Vec<(usize, String, Bytes)> {
    let mut files = Vec::new();
    for step in &plan.steps {
        let Some(state) = survey.steps.get(&step.name) else { continue };
        for index in &state.pending {
            let it = &state.migrations(step)[*index];
            let key = format!("{folder}/migrations/{}/{}", step.name, it.name);
            let mut file = |ending: &str, text: &str| {
                files.push((*index, format!("{key}.{ending}"), Bytes::copy_from_slice(text.as_bytes())));
            };
            file(step.kind.file_ending(), &it.up);
            if let Some(down) = &it.down {
                file("down.sql", &down.text);
            }
            if let Some(before) = state.replaced.get(index).and_then(|it| it.text.as_ref()) {
                file("before.sql", before);
            }
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeping(store: &Store, places: impl Iterator<Item = usize>) -> (Keeping<'_>, Kept) {
        let files = places.map(|place| (place, format!("f/{place}.sql"), Bytes::from_static(b"select 1"))).collect();
        let (kept, seen) = watch::channel(0);
        (Keeping { store, files, kept, again: false }, Kept(seen))
    }

    #[tokio::test]
    async fn whoever_waits_for_a_file_goes_on_when_it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open(&format!("file://{}", dir.path().display()), &std::collections::BTreeMap::new()).unwrap();
        let (last, count) = (3 * TOGETHER.1, 3 * TOGETHER.1 + 1);
        let (files, kept) = keeping(&store, 0..count);
        let seen = async {
            let first = kept.has(0).await && store.get("f/0.sql").await.unwrap().is_some();
            let last = kept.has(last).await && store.get(&format!("f/{last}.sql")).await.unwrap().is_some();
            (first, last)
        };
        let (done, seen) = futures::join!(files.keep(), seen);
        done.unwrap();
        assert_eq!(seen, (true, true));
        assert!(Kept::all().has(count).await);
    }

    #[tokio::test]
    async fn whoever_waits_for_a_file_is_told_that_it_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open(&format!("file://{}", dir.path().display()), &std::collections::BTreeMap::new()).unwrap();
        let theirs = TOGETHER.0;
        store.put_new(&format!("f/{theirs}.sql"), "other content").await.unwrap();
        let (files, kept) = keeping(&store, 0..theirs + 1);
        let (done, first, last) = futures::join!(files.keep(), kept.has(0), kept.has(theirs));
        assert!(matches!(done, Err(StoreError::Taken { .. })), "{done:?}");
        assert_eq!((first, last), (true, false));
    }
}
