//! The store: this file and those below it alone speak to `object_store`. Objects are created and never overwritten or renamed,
//! and deleted only when snapshots are pruned, so that a bucket with a retention policy serves as well as a folder.

mod federated;
mod gcs;
mod locks;
mod pieces;
mod s3;
mod trouble;
mod upload;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::durable;
use crate::crash;
use locks::Locks;
pub use trouble::StoreError;
use trouble::Who;
pub use upload::Upload;

/// Bytes of the parts of a small upload: the least that stores take, because every part in flight is held in memory, for each of
/// the archives that are made side by side.
pub const PART: usize = 5 << 20;
/// Bytes of one ranged read. Many short reads and no long one: `object_store` limits the time of a whole response.
const READ: u64 = 4 << 20;
/// A create whose outcome is unknown is looked up and tried again this often.
const CREATE_ATTEMPTS: u32 = 3;
/// Objects that are on their way into a bucket at once.
const CREATED_AT_ONCE: usize = 64;

/// The longest that one request may take, unless the environment says otherwise (`GOOGLE_TIMEOUT`, `AWS_TIMEOUT`).
const TIMEOUT: &str = "120 seconds";

/// An object's key, relative to the store's prefix, and its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Relative to the store.
    pub key: String,
    /// Bytes.
    pub size: u64,
}

/// What became of an object that was to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// It is gone.
    Done,
    /// The store does not let us, and says so.
    Refused(String),
}

/// A place for snapshots, journals and evidence.
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    prefix: Path,
    url: String,
    who: Who,
    locks: Locks,
}

/// The environment, as `World` gathered it.
type Env = BTreeMap<String, String>;

/// What a bucket is reached with.
struct Client {
    inner: Arc<dyn ObjectStore>,
    who: Who,
    locks: Locks,
}

/// Why there is no client.
struct NoClient {
    who: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Store {
    /// Opens a store that must be there already, for commands that only read: a mistyped folder is an error, and no empty store.
    ///
    /// # Errors
    /// As [`Store::open`], or the folder does not exist.
    pub fn open_existing(url: &str, env: &Env) -> Result<Self, StoreError> {
        if let Some(path) = url.strip_prefix("file://") {
            std::fs::read_dir(path).map_err(|source| StoreError::Folder { path: path.into(), source })?;
        }
        Self::open(url, env)
    }

    /// Opens `file:///folder` (made if it is not there), `gs://bucket/prefix` or `s3://bucket/prefix`, the latter configured by
    /// the variables of `env` that `object_store` knows (`GOOGLE_SERVICE_ACCOUNT`, `AWS_ENDPOINT_URL`, …). Within a runtime: it
    /// may start to ask for tokens.
    ///
    /// # Errors
    /// The URL is of no known kind, or the client cannot be made.
    pub fn open(url: &str, env: &Env) -> Result<Self, StoreError> {
        // A variable that is empty is one that is not set.
        let env = &env.iter().filter(|(_, value)| !value.is_empty()).map(|(k, v)| (k.clone(), v.clone())).collect();
        match url.split_once("://") {
            Some(("file", path)) if path.starts_with('/') => Self::folder(url, path),
            Some(("gs", rest)) => Self::bucket(url, rest, |bucket| gcs::client(bucket, env)),
            Some(("s3", rest)) => Self::bucket(url, rest, |bucket| s3::client(bucket, env)),
            _ => Err(StoreError::Url { url: url.into() }),
        }
    }

    fn folder(url: &str, path: &str) -> Result<Self, StoreError> {
        let folder = |source| StoreError::Folder { path: path.into(), source };
        std::fs::create_dir_all(path).map_err(folder)?;
        let inner = LocalFileSystem::new_with_prefix(path)
            .map_err(|source| StoreError::Setup { url: url.into(), who: "this folder".into(), source: source.into() })?
            .with_fsync(true);
        let (inner, who) = (Arc::new(inner), Who::this_user());
        let locks = Locks::Folder(Arc::clone(&inner));
        Ok(Self { inner, prefix: Path::default(), url: url.trim_end_matches('/').into(), who, locks })
    }

    fn bucket(
        url: &str,
        rest: &str,
        client: impl FnOnce(&str) -> Result<Client, NoClient>,
    ) -> Result<Self, StoreError> {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|_| StoreError::Url { url: url.into() })?;
        let Client { inner, who, locks } =
            client(bucket).map_err(|NoClient { who, source }| StoreError::Setup { url: url.into(), who, source })?;
        Ok(Self { inner, prefix, url: url.trim_end_matches('/').into(), who, locks })
    }

    /// The URL as configured; it never holds a secret.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    fn path(&self, key: &str) -> Path {
        key.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    fn key(&self, path: &Path) -> String {
        let parts: Vec<_> = path.prefix_match(&self.prefix).into_iter().flatten().collect();
        parts.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("/")
    }

    /// Creates an object that must not exist yet. A reply that was lost is made up for by reading back: the same content
    /// is success.
    ///
    /// # Errors
    /// [`StoreError::Taken`] if it exists with other content, [`StoreError::Io`] otherwise.
    pub async fn put_new(&self, key: &str, content: impl Into<Bytes>) -> Result<(), StoreError> {
        let content = content.into();
        let path = self.path(key);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let options = PutOptions::from(PutMode::Create);
            crash::point("put before", key);
            let put = self.inner.put_opts(&path, PutPayload::from(content.clone()), options).await;
            crash::point("put after", key);
            let Err(error) = put else { return Ok(()) };
            match self.get(key).await? {
                Some(found) if found == content => return Ok(()),
                Some(_) => return Err(StoreError::Taken { key: key.into() }),
                None if attempt < CREATE_ATTEMPTS => {}
                None => return Err(self.who.io("write", key)(error)),
            }
        }
    }

    /// Creates an object of which there may be an earlier one with other content: then it gets the next free number, as in
    /// `NAME.2.sql` for `NAME.sql`. Gives its key.
    ///
    /// # Errors
    /// The store failed.
    pub async fn put_beside(&self, stem: &str, ending: &str, content: impl Into<Bytes>) -> Result<String, StoreError> {
        let content = content.into();
        let mut key = format!("{stem}.{ending}");
        for number in 2_u32.. {
            match self.put_new(&key, content.clone()).await {
                Err(StoreError::Taken { .. }) => key = format!("{stem}.{number}.{ending}"),
                done => return done.map(|()| key),
            }
        }
        Err(StoreError::Taken { key })
    }

    /// Creates many small objects, each as [`Store::put_new`] does, in no order. Where the store is a folder, they are on the
    /// disk together when this returns, and not one after the other.
    ///
    /// # Errors
    /// As [`Store::put_new`], for the first of them that fails. Others may have been created.
    pub async fn put_many_new(&self, objects: Vec<(String, Bytes)>) -> Result<(), StoreError> {
        let left = match self.url.strip_prefix("file://") {
            Some(root) => self.put_files(root.into(), objects).await?,
            None => objects,
        };
        let put = |(key, content): (String, Bytes)| async move { self.put_new(&key, content).await };
        stream::iter(left).map(put).buffer_unordered(CREATED_AT_ONCE).try_collect().await
    }

    /// Those that are there already, and remain to be compared.
    async fn put_files(
        &self,
        root: PathBuf,
        objects: Vec<(String, Bytes)>,
    ) -> Result<Vec<(String, Bytes)>, StoreError> {
        let paths: Vec<Path> = objects.iter().map(|(key, _)| self.path(key)).collect();
        let work = tokio::task::spawn_blocking(move || {
            crash::point("files before", objects.first().map_or("", |(key, _)| key));
            let made = make_files(&root, &paths, &objects).map_err(|source| StoreError::Folder { path: root, source });
            crash::point("files after", "");
            made.map(|failed| (objects, failed))
        });
        let (objects, failed) = work.await.unwrap_or_else(|died| std::panic::resume_unwind(died.into_panic()))?;
        let mut there = Vec::new();
        for (at, error) in failed {
            let (key, content) = &objects[at];
            if error.kind() != std::io::ErrorKind::AlreadyExists {
                let source = object_store::Error::Generic { store: "folder", source: Box::new(error) };
                return Err(self.who.io("write", key)(source));
            }
            there.push((key.clone(), content.clone()));
        }
        Ok(there)
    }

    /// The whole content of a small object, or none if there is no such object.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        match self.inner.get(&self.path(key)).await {
            Ok(found) => Ok(Some(found.bytes().await.map_err(self.who.io("read", key))?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.who.io("read", key)(error)),
        }
    }

    /// The size in bytes of an object, or none if there is no such object.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn size(&self, key: &str) -> Result<Option<u64>, StoreError> {
        match self.inner.head(&self.path(key)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.who.io("read", key)(error)),
        }
    }

    /// The content of a large object of `size` bytes, in pieces, read ahead by one.
    pub fn read(&self, key: &str, size: u64) -> BoxStream<'static, Result<Bytes, StoreError>> {
        let (inner, path, key, who) = (Arc::clone(&self.inner), self.path(key), key.to_owned(), self.who.clone());
        let ranges: Vec<Range<u64>> = (0..size.div_ceil(READ)).map(|n| n * READ..((n + 1) * READ).min(size)).collect();
        stream::iter(ranges)
            .map(move |range| {
                let (inner, path, key, who) = (Arc::clone(&inner), path.clone(), key.clone(), who.clone());
                async move { pieces::read(&*inner, &path, range).await.map_err(who.io("read", &key)) }
            })
            .buffered(2)
            .map_ok(|pieces| stream::iter(pieces).map(Ok))
            .try_flatten()
            .boxed()
    }

    /// Every object below a folder, by key.
    ///
    /// # Errors
    /// The store cannot be listed.
    pub async fn list(&self, folder: &str) -> Result<Vec<Object>, StoreError> {
        let path = self.path(folder);
        let mut found: Vec<Object> = self
            .inner
            .list(Some(&path))
            .map_ok(|meta| Object { key: self.key(&meta.location), size: meta.size })
            .try_collect()
            .await
            .map_err(self.who.io("list", folder))?;
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    /// The names of the folders directly below a folder, sorted.
    ///
    /// # Errors
    /// The store cannot be listed.
    pub async fn folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let listed =
            self.inner.list_with_delimiter(Some(&self.path(folder))).await.map_err(self.who.io("list", folder))?;
        let mut names: Vec<String> =
            listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    /// Why an object must not be removed, in words, if it must not: it is held, retained, or read-only in a folder. An object that
    /// is gone is not locked.
    ///
    /// # Errors
    /// The store cannot be asked.
    pub async fn lock(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.locks.of(&self.path(key)).await.map_err(self.who.io("look for locks of", key))
    }

    /// Removes an object. One that is gone already is removed: an earlier reply may have been lost.
    ///
    /// # Errors
    /// The store failed. That it may not remove the object, because of a retention policy or a hold, is no error.
    pub async fn remove(&self, key: &str) -> Result<Removal, StoreError> {
        crash::point("delete before", key);
        let deleted = self.inner.delete(&self.path(key)).await;
        crash::point("delete after", key);
        match deleted {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(Removal::Done),
            Err(error @ object_store::Error::PermissionDenied { .. }) => Ok(Removal::Refused(error.to_string())),
            // A file that the file system itself guards.
            Err(error) if is_denied(&error) => Ok(Removal::Refused(error.to_string())),
            Err(error) => Err(self.who.io("remove", key)(error)),
        }
    }

    /// Begins the upload of an object of unknown size, in parts of `part` bytes. The object appears only with [`Upload::finish`].
    ///
    /// # Errors
    /// The store refuses.
    pub async fn upload(&self, key: &str, part: usize) -> Result<Upload, StoreError> {
        crash::point("upload begin before", key);
        let parts = self.inner.put_multipart(&self.path(key)).await.map_err(self.who.io("write", key))?;
        crash::point("upload begin after", key);
        Ok(Upload::of(parts, self.who.clone(), key, part))
    }
}

/// Whether the system forbade it: `object_store` has no word of its own for that of a file.
fn is_denied(error: &object_store::Error) -> bool {
    let mut causes = std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |it| it.source());
    causes.any(|it| {
        it.downcast_ref::<std::io::Error>().is_some_and(|it| it.kind() == std::io::ErrorKind::PermissionDenied)
    })
}

/// As [`durable::create`], by the names that the store has for its files.
fn make_files(
    root: &std::path::Path,
    paths: &[Path],
    objects: &[(String, Bytes)],
) -> std::io::Result<Vec<(usize, std::io::Error)>> {
    let root = std::fs::canonicalize(root)?;
    let folder = LocalFileSystem::new_with_prefix(&root)?;
    let contents = objects.iter().map(|(_, content)| content.as_ref());
    let file = |(path, content)| Ok((folder.path_to_filesystem(path)?, content));
    durable::create(&root, &paths.iter().zip(contents).map(file).collect::<std::io::Result<Vec<_>>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_forbids_is_refused() {
        let error = |kind: std::io::ErrorKind| object_store::Error::Generic {
            store: "folder",
            source: Box::new(std::io::Error::from(kind)),
        };
        assert!(is_denied(&error(std::io::ErrorKind::PermissionDenied)));
        assert!(!is_denied(&error(std::io::ErrorKind::StorageFull)));
    }
}
