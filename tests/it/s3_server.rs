//! Amazon S3 as moto plays it: an independent server, started once for all tests, each of which has a bucket of its own. It knows
//! conditional puts and parts of at least 5 MiB, and lists in pages of a thousand.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use object_store::aws::{AmazonS3, AmazonS3Builder};

/// It says its port, and ends with the process that holds its standard input: with the tests, however they end. Of two conditional
/// puts at once, moto looks for the object for both before it stores either, which no S3 does: here they come one after the other.
/// Nor does it know whom it may tell of locks: in a bucket whose name begins with `mute`, it tells nobody, as Amazon does then.
const SCRIPT: &str = "
import logging, sys, threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication as Application
from moto.server import ThreadedMotoServer
alone, answer = threading.Lock(), Application.__call__
def one_by_one(application, environ, respond):
    if environ['PATH_INFO'].startswith('/mute'):
        if environ['QUERY_STRING'].startswith(('retention=', 'legal-hold=')) and environ['REQUEST_METHOD'] == 'GET':
            respond('403 Forbidden', [('content-length', '0')])
            return []
        tell = respond
        respond = lambda status, headers, *rest: tell(
            status, [it for it in headers if not it[0].lower().startswith('x-amz-object-lock')], *rest)
    if 'HTTP_IF_NONE_MATCH' not in environ:
        return answer(application, environ, respond)
    with alone:
        return answer(application, environ, respond)
Application.__call__ = one_by_one
logging.getLogger('werkzeug').setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
";

struct Moto {
    address: String,
    /// Its standard input is what keeps the server.
    _process: Child,
}

fn moto() -> &'static Moto {
    static MOTO: OnceLock<Moto> = OnceLock::new();
    MOTO.get_or_init(|| {
        let python = concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-moto/bin/python");
        assert!(Path::new(python).exists(), "the tests need moto: run scripts/install, which makes {python}");
        let mut command = Command::new(python);
        command.args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().expect("an interpreter");
        let mut port = String::new();
        let stdout = process.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut port).expect("moto says its port");
        let port = port.trim();
        assert!(!port.is_empty(), "moto did not start: look with {python} -c 'import moto.server'");
        Moto { address: format!("127.0.0.1:{port}"), _process: process }
    })
}

/// A bucket of its own.
pub(crate) struct Bucket {
    pub(crate) name: String,
}

impl Bucket {
    pub(crate) fn new(name: &str) -> Self {
        let bucket = Self { name: name.to_owned() };
        bucket.put("", "", "");
        bucket
    }

    /// With Object Lock, and therefore with versions.
    pub(crate) fn with_locks(name: &str) -> Self {
        let bucket = Self { name: name.to_owned() };
        bucket.put("", "x-amz-bucket-object-lock-enabled: true\r\n", "");
        bucket
    }

    /// Puts an object under a legal hold, or lets it go.
    pub(crate) fn hold(&self, key: &str, held: bool) {
        let status = if held { "ON" } else { "OFF" };
        self.put(&format!("/{key}?legal-hold"), "", &format!("<LegalHold><Status>{status}</Status></LegalHold>"));
    }

    /// Retains an object until a time, which anybody may change.
    pub(crate) fn retain(&self, key: &str, until: &str) {
        let text = format!("<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>");
        self.put(&format!("/{key}?retention"), "x-amz-bypass-governance-retention: true\r\n", &text);
    }

    fn put(&self, place: &str, headers: &str, body: &str) {
        let (name, host, length) = (&self.name, &moto().address, body.len());
        let mut stream = TcpStream::connect(host).expect("moto listens");
        // moto checks no signature, and lets those in who have one.
        let host = format!("host: {host}\r\nauthorization: AWS test:test");
        let head = format!("PUT /{name}{place} HTTP/1.0\r\n{host}\r\n{headers}content-length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes()).expect("sent");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("an answer");
        assert!(reply.lines().next().is_some_and(|line| line.contains(" 200 ")), "{reply}");
    }

    /// The environment in which `migrate` reaches it.
    pub(crate) fn env() -> BTreeMap<String, String> {
        let url = format!("http://{}", moto().address);
        let pairs = [
            ("AWS_ENDPOINT_URL", &*url),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "eu-central-1"),
            ("NO_PROXY", "127.0.0.1"),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// A client inside the test's own process.
    pub(crate) fn client(&self) -> AmazonS3 {
        let _ = rustls::crypto::ring::default_provider().install_default();
        AmazonS3Builder::new()
            .with_endpoint(format!("http://{}", moto().address))
            .with_allow_http(true)
            .with_access_key_id("test")
            .with_secret_access_key("test")
            .with_bucket_name(&self.name)
            .build()
            .expect("a client")
    }
}
