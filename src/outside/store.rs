//! The store: this file and those below it alone speak to `object_store`. Objects are created and never overwritten or renamed,
//! and deleted only when snapshots are pruned, so that a bucket with a retention policy serves as well as a folder.

mod federated;
mod gcs;
mod s3;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::task::JoinSet;

use super::durable;
use crate::crash;
use federated::NoToken;

/// Bytes of the parts of a small upload: the least that stores take, because every part in flight is held in memory, for each of
/// the archives that are made side by side.
pub const PART: usize = 5 << 20;
/// Parts in flight for one upload, beside the one being filled.
const IN_FLIGHT: usize = 2;
/// Bytes of one ranged read. Many short reads and no long one: `object_store` limits the time of a whole response.
const READ: u64 = 4 << 20;
/// A create whose outcome is unknown is looked up and tried again this often.
const CREATE_ATTEMPTS: u32 = 3;
/// Objects that are on their way into a bucket at once.
const CREATED_AT_ONCE: usize = 64;

/// The longest that one request may take, unless the environment says otherwise (`GOOGLE_TIMEOUT`, `AWS_TIMEOUT`).
const TIMEOUT: &str = "120 seconds";

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum StoreError {
    /// The URL is not of a kind that is known.
    #[error("`{url}` is not a store")]
    #[diagnostic(code("store.url"), help("Write `file:///folder`, `gs://bucket/prefix` or `s3://bucket/prefix`."))]
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
    #[error("the store {url} cannot be set up with {who}")]
    #[diagnostic(
        code("store.setup"),
        help("Correct it, or name other credentials: README.md has the table of those that are read.")
    )]
    Setup {
        /// The store.
        url: String,
        /// Whose credentials.
        who: String,
        /// What the client said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
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
    #[error("the store has no credentials to {what} `{key}` with: {who} gave none")]
    #[diagnostic(code("store.credentials"), help("{help}"))]
    Credentials {
        /// `write`, `read`, `list`.
        what: &'static str,
        /// The object.
        key: String,
        /// Whose credentials were tried.
        who: String,
        /// What to do.
        help: &'static str,
        /// What the client said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store knows who we are, or does not believe it, and refuses.
    #[error("the store does not let {who} {what} `{key}`")]
    #[diagnostic(code("store.denied"), help("{help}"))]
    Denied {
        /// `write`, `read`, `list`.
        what: &'static str,
        /// The object.
        key: String,
        /// Whose credentials.
        who: String,
        /// What to do.
        help: &'static str,
        /// What the store said.
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
    who: Who,
}

/// The environment, as `World` gathered it.
type Env = BTreeMap<String, String>;

/// What a bucket is reached with.
struct Client {
    inner: Arc<dyn ObjectStore>,
    who: String,
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
        let who = "this user".into();
        Ok(Self { inner: Arc::new(inner), prefix: Path::default(), url: url.trim_end_matches('/').into(), who })
    }

    fn bucket(
        url: &str,
        rest: &str,
        client: impl FnOnce(&str) -> Result<Client, NoClient>,
    ) -> Result<Self, StoreError> {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|_| StoreError::Url { url: url.into() })?;
        let Client { inner, who } =
            client(bucket).map_err(|NoClient { who, source }| StoreError::Setup { url: url.into(), who, source })?;
        Ok(Self { inner, prefix, url: url.trim_end_matches('/').into(), who: who.into() })
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
                async move { inner.get_range(&path, range).await.map_err(who.io("read", &key)) }
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
        let who = self.who.clone();
        Ok(Upload {
            parts,
            who,
            key: key.into(),
            part,
            filling: Vec::new(),
            filled: 0,
            flying: JoinSet::new(),
            sent: 0,
        })
    }
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

/// Whose credentials the store is reached with, in the words of a message.
#[derive(Clone)]
struct Who(Arc<str>);

impl From<String> for Who {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Who {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl Who {
    /// For `map_err`: what `key` could not be done to.
    fn io(&self, what: &'static str, key: &str) -> impl FnOnce(object_store::Error) -> StoreError {
        let (key, who) = (key.to_owned(), self.0.to_string());
        move |source| {
            let text = source.to_string();
            if let Some(why) = NoToken::cause_of(&source) {
                return StoreError::Credentials { what, key, who, help: help(&text), source: why.into() };
            }
            match &source {
                _ if NO_TOKEN.iter().any(|it| text.contains(it)) => {
                    StoreError::Credentials { what, key, who, help: help(&text), source: source.into() }
                }
                object_store::Error::Unauthenticated { .. } | object_store::Error::PermissionDenied { .. } => {
                    StoreError::Denied { what, key, who, help: DENIED, source: source.into() }
                }
                // Of a listing, `object_store` says it in words alone.
                _ if ["status code: 401", "status code: 403"].iter().any(|it| text.contains(it)) => {
                    StoreError::Denied { what, key, who, help: DENIED, source: source.into() }
                }
                _ => StoreError::Io { what, key, source: source.into() },
            }
        }
    }
}

/// How `object_store` speaks of tokens that it could not get: from Google, and from Amazon's machines and roles.
const NO_TOKEN: [&str; 4] = ["token request", "/latest/api/token", "AssumeRoleWithWebIdentity", "security-credentials"];

const DENIED: &str = "If it says that credentials expired or are not valid, log in again or name others; else give the account the \
                      right to create, read and list objects of the bucket. `migrate doctor` tries both.";

fn help(text: &str) -> &'static str {
    if text.contains("S3") {
        return "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN; those of a profile \
                come with `eval \"$(aws configure export-credentials --format env)\"`.";
    }
    "Set GOOGLE_APPLICATION_CREDENTIALS to a file of credentials, or GOOGLE_BEARER_TOKEN to a token; where the file is named already, \
     look at the cause below, and log in again or correct the file."
}

/// An upload under way. It must be ended by [`Upload::finish`] or [`Upload::abort`]: dropping it leaves parts behind that
/// cost money.
pub struct Upload {
    parts: Box<dyn MultipartUpload>,
    who: Who,
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
        crash::point("upload part before", &self.key);
        self.flying.spawn(self.parts.put_part(payload));
        Ok(())
    }

    async fn land(&mut self) -> Result<(), StoreError> {
        match self.flying.join_next().await {
            Some(Ok(done)) => {
                crash::point("upload part after", &self.key);
                done.map_err(self.who.io("write", &self.key))
            }
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
        crash::point("upload complete before", &self.key);
        self.parts.complete().await.map_err(self.who.io("write", &self.key))?;
        crash::point("upload complete after", &self.key);
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
