//! A small Google Cloud Storage for the tests: the XML API as far as object_store speaks it, on a port of its own, with
//! preconditions as strict as the real ones and faults on demand. No emulator that can be installed serves that API.
//!
//! It runs on its own thread with its own runtime, so that synchronous and asynchronous tests and child processes can
//! use it alike, and it stops when the value is dropped. `gcs_proof` shows that it is right.

mod content;
mod fault;
mod listing;
mod reading;
mod reply;
mod routes;
mod state;
mod tokens;
mod uploads;
mod wire;

pub(crate) use fault::{Action, Fault};
pub(crate) use tokens::SUBJECT;

use content::{Content, Pace};
use fault::Faults;
use object_store::gcp::GoogleCloudStorageBuilder;
use state::{Policy, State};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tempfile::TempDir;
use tokens::Tokens;
use tokio::sync::oneshot;

/// The bucket of a server that was not told otherwise. The hyphen is sent as `%2D`, which is worth having in tests.
pub(crate) const BUCKET: &str = "test-bucket";
const TOKEN: &str = "test";

pub(crate) struct GcsServer {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

pub(crate) struct Builder {
    buckets: Vec<String>,
    page_size: usize,
    token: String,
    upload_rate: Option<u64>,
    policy: Policy,
    tokens: Tokens,
}

/// What the server's thread and the tests both use.
struct Shared {
    url: String,
    token: String,
    page_size: usize,
    pace: Pace,
    folder: TempDir,
    state: Mutex<State>,
    faults: Mutex<Faults>,
    log: Mutex<Vec<String>>,
    tokens: Mutex<Tokens>,
}

impl Builder {
    /// Adds a bucket; with none, there is only [`BUCKET`].
    pub(crate) fn bucket(mut self, name: &str) -> Self {
        self.buckets.push(name.to_owned());
        self
    }

    /// How many items a listing returns at most before the client must ask for the next page; 1000 by default.
    pub(crate) fn page_size(mut self, items: usize) -> Self {
        assert!(items > 0, "a page without items would never end");
        self.page_size = items;
        self
    }

    /// The only bearer token that is accepted; `test` by default.
    pub(crate) fn token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.token);
        self
    }

    /// Objects can be neither overwritten nor deleted (403). A failed precondition is reported before that.
    pub(crate) fn retention(mut self) -> Self {
        self.policy.retention = true;
        self
    }

    /// Replaced and deleted objects can still be read by their generation.
    pub(crate) fn versioning(mut self) -> Self {
        self.policy.versioning = true;
        self
    }

    /// Takes in request bodies at this speed, all connections together.
    pub(crate) fn upload_rate(mut self, bytes_per_second: u64) -> Self {
        self.upload_rate = Some(bytes_per_second);
        self
    }

    /// Of the tokens that it issued itself, only the `newest` so many are accepted, as if the others had expired.
    pub(crate) fn tokens(mut self, newest: usize) -> Self {
        self.tokens.newest = newest;
        self
    }

    pub(crate) fn start(mut self) -> GcsServer {
        if self.buckets.is_empty() {
            self.buckets.push(BUCKET.to_owned());
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
        listener.set_nonblocking(true).expect("a listener need not block");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            url: format!("http://{address}"),
            token: self.token,
            page_size: self.page_size,
            pace: Pace::new(self.upload_rate),
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
            state: Mutex::new(State::new(&self.buckets, self.policy)),
            faults: Mutex::default(),
            log: Mutex::default(),
            tokens: Mutex::new(self.tokens),
        });
        let (stop, stopped) = oneshot::channel();
        let of_thread = shared.clone();
        let thread = std::thread::spawn(move || wire::run(listener, of_thread, stopped));
        GcsServer { shared, stop: Some(stop), thread: Some(thread) }
    }
}

impl GcsServer {
    /// A server with one bucket, [`BUCKET`].
    pub(crate) fn start() -> Self {
        Self::builder().start()
    }

    pub(crate) fn builder() -> Builder {
        Builder {
            buckets: Vec::new(),
            page_size: 1000,
            token: TOKEN.to_owned(),
            upload_rate: None,
            policy: Policy::default(),
            tokens: Tokens::default(),
        }
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> &str {
        &self.shared.url
    }

    /// The environment in which a child process reaches this server.
    pub(crate) fn env(&self, bucket: &str) -> Vec<(String, String)> {
        self.shared.state().bucket(bucket).expect("the bucket exists on this server");
        let pairs =
            [("GOOGLE_BASE_URL", self.url()), ("GOOGLE_BEARER_TOKEN", &self.shared.token), ("NO_PROXY", "127.0.0.1")];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// The beginning of a client of this server inside the test's own process.
    pub(crate) fn client(&self, bucket: &str) -> GoogleCloudStorageBuilder {
        // The second caller gets an error that says there is a provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        GoogleCloudStorageBuilder::new()
            .with_bucket_name(bucket)
            .with_base_url(self.url())
            .with_bearer_token(&self.shared.token)
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.shared.faults().add(fault);
    }

    /// Forgets all faults and returns those that were never used up, so a test can be sure that its faults happened.
    pub(crate) fn clear_faults(&self) -> Vec<Fault> {
        self.shared.faults().clear()
    }

    /// Returns the requests since the last call as `METHOD /path?query`, as on the wire, and forgets them.
    pub(crate) fn log(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.log())
    }

    /// The token endpoints refuse from now on, with an answer that says what they were sent.
    pub(crate) fn refuse_tokens(&self) {
        self.shared.tokens().refuses = true;
    }

    /// How many tokens of its own the parts of uploads came with.
    pub(crate) fn tokens_of_parts(&self) -> usize {
        self.shared.tokens().of_parts()
    }

    /// How many multipart uploads were begun and neither completed nor aborted.
    pub(crate) fn live_uploads(&self) -> usize {
        self.shared.state().uploads.live()
    }

    /// The keys of a bucket with the sizes of the objects, in order.
    pub(crate) fn objects(&self, bucket: &str) -> Vec<(String, u64)> {
        let state = self.shared.state();
        let objects = &state.bucket(bucket).expect("the bucket exists").objects;
        objects.iter().map(|(key, object)| (key.clone(), object.content.len())).collect()
    }

    /// Changes the bytes of a stored object behind the store's back: generation, ETag, and time stay as they were.
    pub(crate) fn tamper(&self, bucket: &str, key: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.shared.state();
        let bucket = state.bucket_mut(bucket).expect("the bucket exists");
        let object = bucket.objects.get_mut(key).expect("the object exists");
        let mut bytes = object.content.read_all().expect("a stored object can be read");
        change(&mut bytes);
        object.content = Content::memory(bytes);
    }

    /// Puts an object under a temporary hold, or lets it go.
    pub(crate) fn hold(&self, bucket: &str, key: &str, held: bool) {
        let mut state = self.shared.state();
        let place = (bucket.to_owned(), key.to_owned());
        let changed = if held { state.held.insert(place) } else { state.held.remove(&place) };
        assert!(changed, "{key} is so already");
    }

    /// Takes an object away behind the store's back, whatever the retention.
    pub(crate) fn remove(&self, bucket: &str, key: &str) {
        let removed = self.shared.state().bucket_mut(bucket).expect("the bucket exists").objects.remove(key);
        assert!(removed.is_some(), "there is no object {key} to remove");
    }
}

impl Drop for GcsServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the server's thread panicked");
        }
    }
}

impl Shared {
    /// Notes a request and says what is to go wrong with it.
    fn arrived(&self, line: &str) -> Option<Action> {
        self.log().push(line.to_owned());
        self.faults().draw(line)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        held(&self.state)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        held(&self.faults)
    }

    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        held(&self.tokens)
    }

    fn log(&self) -> MutexGuard<'_, Vec<String>> {
        held(&self.log)
    }
}

/// A test that names a missing object panics with the lock in its hand; what it protects is whole all the same.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
