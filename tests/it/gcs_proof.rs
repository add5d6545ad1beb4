//! The proof that the project's own Google Cloud Storage server is right: object_store's suite for stores (`upstream`),
//! what a client sees of each fault (`faults`), and what the server refuses (`strict`).

mod faults;
mod strict;
mod upstream;

use crate::gcs_server::{BUCKET, GcsServer};
use object_store::gcp::GoogleCloudStorage;
use object_store::{BackoffConfig, RetryConfig};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A client that tries four times in all, without long pauses.
fn store(server: &GcsServer) -> GoogleCloudStorage {
    server.client(BUCKET).with_retry(quick()).build().unwrap()
}

fn quick() -> RetryConfig {
    let (init_backoff, max_backoff) = (Duration::from_millis(1), Duration::from_millis(5));
    let backoff = BackoffConfig { init_backoff, max_backoff, base: 2. };
    RetryConfig { backoff, max_retries: 3, retry_timeout: Duration::from_secs(30) }
}

/// An answer as it came, for what object_store never asks and never shows.
struct Raw {
    status: u16,
    head: String,
    body: Vec<u8>,
}

/// Sends `METHOD path` with further header lines and returns what comes until the server closes the connection.
fn ask(server: &GcsServer, line: &str, headers: &[&str], body: &[u8]) -> Raw {
    let length = format!("content-length: {}", body.len());
    let headers: String = headers.iter().chain(&[&*length]).map(|line| format!("{line}\r\n")).collect();
    let head =
        format!("{line} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer test\r\nconnection: close\r\n{headers}\r\n");
    let mut stream = connect(server);
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).unwrap();
    let end = reply.windows(4).position(|it| it == b"\r\n\r\n").expect("a reply has a head");
    let head = String::from_utf8(reply[..end].to_vec()).unwrap().to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Raw { status, head, body: reply[end + 4..].to_vec() }
}

fn connect(server: &GcsServer) -> TcpStream {
    TcpStream::connect(server.url().strip_prefix("http://").unwrap()).unwrap()
}
