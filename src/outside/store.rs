//! The store: the one file that speaks to `object_store`. Objects are created and never overwritten or renamed, and deleted only
//! when snapshots are pruned, so that a bucket with a retention policy serves as well as a folder.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientConfigKey, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::task::JoinSet;

/// Bytes of the parts of a small upload: the least that stores take, because every part in flight is held in memory, for each of
/// the archives that are made side by side.
pub const PART: usize = 5 << 20;
/// Parts in flight for one upload, beside the one being filled.
const IN_FLIGHT: usize = 2;
/// Bytes of one ranged read. Many short reads and no long one: `object_store` limits the time of a whole response.
const READ: u64 = 4 << 20;
/// A create whose outcome is unknown is looked up and tried again this often.
const CREATE_ATTEMPTS: u32 = 3;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum StoreError {
    /// The URL is not of a kind that is known.
    #[error("`{url}` is not a store")]
    #[diagnostic(code("store.url"), help("Write `file:///folder` or `gs://bucket/prefix`."))]
    Url {
        /// As given.
        url: String,
    },
    /// A folder store cannot be opened.
    #[error("the store folder {} cannot be used", path.display())]
    #[diagnostic(code("store.folder"), help("Create it, or name another with `[store] url` or `--store`."))]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The client cannot be made, for want of credentials for example.
    #[error("the store {url} cannot be set up")]
    #[diagnostic(
        code("store.setup"),
        help("Set GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS, as object_store reads them.")
    )]
    Setup {
        /// The store.
        url: String,
        /// What the client said.
        #[source]
        source: Box<object_store::Error>,
    },
    /// An operation failed after the client's own retries.
    #[error("the store could not {what} `{key}`")]
    #[diagnostic(code("store.io"), help("Run `migrate doctor`, which writes to the store and reads back."))]
    Io {
        /// `write`, `read`, `list`.
        what: &'static str,
        /// The object.
        key: String,
        /// What the client said.
        #[source]
        source: Box<object_store::Error>,
    },
    /// Nobody says who we are.
    #[error("the store has no credentials to {what} `{key}` with")]
    #[diagnostic(
        code("store.credentials"),
        help("Set GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS to a key file, or GOOGLE_BEARER_TOKEN.")
    )]
    Credentials {
        /// `write`, `read`, `list`.
        what: &'static str,
        /// The object.
        key: String,
        /// What the client said.
        #[source]
        source: Box<object_store::Error>,
    },
    /// Another writer has created the object with other content.
    #[error("`{key}` exists already, with other content")]
    #[diagnostic(code("store.taken"), help("Another `migrate` works on the same run; see `migrate status`."))]
    Taken {
        /// The object.
        key: String,
    },
}

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
}

impl Store {
    /// Opens a store that must be there already, for commands that only read: a mistyped folder is an error, and no empty store.
    ///
    /// # Errors
    /// As [`Store::open`], or the folder does not exist.
    pub fn open_existing(url: &str) -> Result<Self, StoreError> {
        if let Some(path) = url.strip_prefix("file://") {
            std::fs::read_dir(path).map_err(|source| StoreError::Folder { path: path.into(), source })?;
        }
        Self::open(url)
    }

    /// Opens `file:///folder` (made if it is not there) or `gs://bucket/prefix`, the latter configured by the environment
    /// variables that `object_store` reads (`GOOGLE_SERVICE_ACCOUNT`, `GOOGLE_BASE_URL`, …).
    ///
    /// # Errors
    /// The URL is of no known kind, or the client cannot be made.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        match url.split_once("://") {
            Some(("file", path)) if path.starts_with('/') => Self::folder(url, path),
            Some(("gs", rest)) => Self::bucket(url, rest),
            _ => Err(StoreError::Url { url: url.into() }),
        }
    }

    fn folder(url: &str, path: &str) -> Result<Self, StoreError> {
        let folder = |source| StoreError::Folder { path: path.into(), source };
        std::fs::create_dir_all(path).map_err(folder)?;
        let inner = LocalFileSystem::new_with_prefix(path)
            .map_err(|source| StoreError::Setup { url: url.into(), source: source.into() })?
            .with_fsync(true);
        Ok(Self { inner: Arc::new(inner), prefix: Path::default(), url: url.trim_end_matches('/').into() })
    }

    fn bucket(url: &str, rest: &str) -> Result<Self, StoreError> {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|_| StoreError::Url { url: url.into() })?;
        let inner = GoogleCloudStorageBuilder::from_env()
            .with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), "120 seconds")
            .with_bucket_name(bucket)
            .build()
            .map_err(|source| StoreError::Setup { url: url.into(), source: source.into() })?;
        Ok(Self { inner: Arc::new(inner), prefix, url: url.trim_end_matches('/').into() })
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
            let Err(error) = self.inner.put_opts(&path, PutPayload::from(content.clone()), options).await else {
                return Ok(());
            };
            match self.get(key).await? {
                Some(found) if found == content => return Ok(()),
                Some(_) => return Err(StoreError::Taken { key: key.into() }),
                None if attempt < CREATE_ATTEMPTS => {}
                None => return Err(io("write", key)(error)),
            }
        }
    }

    /// The whole content of a small object, or none if there is no such object.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        match self.inner.get(&self.path(key)).await {
            Ok(found) => Ok(Some(found.bytes().await.map_err(io("read", key))?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(io("read", key)(error)),
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
            Err(error) => Err(io("read", key)(error)),
        }
    }

    /// The content of a large object of `size` bytes, in pieces, read ahead by one.
    pub fn read(&self, key: &str, size: u64) -> BoxStream<'static, Result<Bytes, StoreError>> {
        let (inner, path, key) = (Arc::clone(&self.inner), self.path(key), key.to_owned());
        let ranges: Vec<Range<u64>> = (0..size.div_ceil(READ)).map(|n| n * READ..((n + 1) * READ).min(size)).collect();
        stream::iter(ranges)
            .map(move |range| {
                let (inner, path, key) = (Arc::clone(&inner), path.clone(), key.clone());
                async move { inner.get_range(&path, range).await.map_err(io("read", &key)) }
            })
            .buffered(2)
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
            .map_err(io("list", folder))?;
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    /// The names of the folders directly below a folder, sorted.
    ///
    /// # Errors
    /// The store cannot be listed.
    pub async fn folders(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let listed = self.inner.list_with_delimiter(Some(&self.path(folder))).await.map_err(io("list", folder))?;
        let mut names: Vec<String> =
            listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    /// Removes an object. One that is gone already is removed: an earlier reply may have been lost.
    ///
    /// # Errors
    /// The store failed. That it may not remove the object, because of a retention policy or a hold, is no error.
    pub async fn remove(&self, key: &str) -> Result<Removal, StoreError> {
        match self.inner.delete(&self.path(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(Removal::Done),
            Err(error @ object_store::Error::PermissionDenied { .. }) => Ok(Removal::Refused(error.to_string())),
            Err(error) => Err(io("remove", key)(error)),
        }
    }

    /// Begins the upload of an object of unknown size, in parts of `part` bytes. The object appears only with [`Upload::finish`].
    ///
    /// # Errors
    /// The store refuses.
    pub async fn upload(&self, key: &str, part: usize) -> Result<Upload, StoreError> {
        let parts = self.inner.put_multipart(&self.path(key)).await.map_err(io("write", key))?;
        Ok(Upload { parts, key: key.into(), part, filling: Vec::new(), filled: 0, flying: JoinSet::new(), sent: 0 })
    }
}

fn io(what: &'static str, key: &str) -> impl FnOnce(object_store::Error) -> StoreError {
    let key = key.to_owned();
    move |source| {
        let no_token = source.to_string().contains("token request");
        let source = Box::new(source);
        if no_token { StoreError::Credentials { what, key, source } } else { StoreError::Io { what, key, source } }
    }
}

/// An upload under way. It must be ended by [`Upload::finish`] or [`Upload::abort`]: dropping it leaves parts behind that
/// cost money.
pub struct Upload {
    parts: Box<dyn MultipartUpload>,
    key: String,
    part: usize,
    filling: Vec<Bytes>,
    filled: usize,
    flying: JoinSet<object_store::Result<()>>,
    sent: usize,
}

impl Upload {
    /// Adds bytes. Waits while enough parts are in flight, so that a slow store slows the writer down.
    ///
    /// # Errors
    /// An earlier part was refused.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let room = part_size(self.part, self.sent) - self.filled;
            let piece = bytes.split_to(room.min(bytes.len()));
            self.filled += piece.len();
            self.filling.push(piece);
            if self.filled == part_size(self.part, self.sent) {
                self.send().await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), StoreError> {
        while self.flying.len() >= IN_FLIGHT {
            self.land().await?;
        }
        let payload: PutPayload = std::mem::take(&mut self.filling).into_iter().collect();
        self.filled = 0;
        self.sent += 1;
        self.flying.spawn(self.parts.put_part(payload));
        Ok(())
    }

    async fn land(&mut self) -> Result<(), StoreError> {
        match self.flying.join_next().await {
            Some(Ok(done)) => done.map_err(io("write", &self.key)),
            Some(Err(died)) => std::panic::resume_unwind(died.into_panic()),
            None => Ok(()),
        }
    }

    /// Sends what is left and makes the object appear.
    ///
    /// # Errors
    /// A part or the completion was refused; the upload is aborted.
    pub async fn finish(mut self) -> Result<(), StoreError> {
        match self.complete().await {
            Ok(()) => Ok(()),
            Err(error) => {
                self.abort().await;
                Err(error)
            }
        }
    }

    async fn complete(&mut self) -> Result<(), StoreError> {
        if self.filled > 0 || self.sent == 0 {
            self.send().await?;
        }
        while !self.flying.is_empty() {
            self.land().await?;
        }
        self.parts.complete().await.map_err(io("write", &self.key))?;
        Ok(())
    }

    /// Gives the upload up. What the store says to that is not passed on: the error that led here matters more.
    pub async fn abort(mut self) {
        self.flying.shutdown().await;
        if let Err(error) = self.parts.abort().await {
            tracing::warn!(key = self.key, %error, "an aborted upload may have left parts behind");
        }
    }
}

/// Parts are as large as whoever knows about how much is coming said, `first` bytes. Where it is far more, they grow, so that
/// 10,000 of them (the store's limit) hold a terabyte at least: memory is then the smaller trouble.
fn part_size(first: usize, sent: usize) -> usize {
    match sent {
        0..6_000 => first,
        6_000..8_000 => first.max(40 << 20),
        _ => first.max(512 << 20),
    }
}

/// The variables that the client of a `gs://` store reads, for `doctor` to show by name.
#[must_use]
pub fn credential_variables(env: &BTreeMap<String, String>) -> Vec<&str> {
    env.keys().map(String::as_str).filter(|name| name.starts_with("GOOGLE_")).collect()
}
