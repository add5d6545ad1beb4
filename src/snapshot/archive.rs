//! An archive as it passes: compressed on its way out, decompressed on its way in, both sides of it counted and digested.
//! The work is done on threads of its own; bounded channels make a slow store slow everything down, and nothing is held.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, MultiGzDecoder};
use futures::{Stream, StreamExt};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;

use crate::outside::store::StoreError;

/// Bytes that are passed on at once.
pub const CHUNK: usize = 256 << 10;
/// Chunks that wait between two stages.
const WAITING: usize = 8;
/// Pieces of the store that wait to be decompressed. They are large, and the store reads ahead by itself.
const PIECES_WAITING: usize = 1;
/// Level 1 costs a quarter of gzip's default time, for archives about a tenth larger.
const LEVEL: Compression = Compression::new(1);

/// What passed through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digests {
    /// Uncompressed.
    pub bytes: u64,
    /// Of the uncompressed bytes, in hex.
    pub sha256: String,
    /// Compressed.
    pub stored_bytes: u64,
    /// Of the compressed bytes, in hex.
    pub stored_sha256: String,
}

/// Counts, digests, and passes on to somebody or to nobody.
struct Passage {
    bytes: u64,
    digest: Sha256,
    to: Option<Sender<Bytes>>,
    waiting: Vec<u8>,
}

impl Passage {
    fn new(to: Option<Sender<Bytes>>) -> Self {
        Self { bytes: 0, digest: Sha256::new(), to, waiting: Vec::new() }
    }

    fn hex(self) -> (u64, String) {
        (self.bytes, self.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn pass_on(&mut self) -> io::Result<()> {
        let Some(to) = &self.to else { return Ok(()) };
        if self.waiting.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.waiting, Vec::with_capacity(CHUNK));
        to.blocking_send(full.into()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

impl Write for Passage {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len() as u64;
        self.digest.update(bytes);
        if self.to.is_some() {
            self.waiting.extend_from_slice(bytes);
            if self.waiting.len() >= CHUNK {
                self.pass_on()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass_on()
    }
}

/// A stage at work: what goes in, what comes out, and what passed when both have ended.
pub struct Stage {
    /// Dropped at the end of the input.
    pub input: Sender<Bytes>,
    /// Ends when everything has come out.
    pub output: Receiver<Bytes>,
    /// What passed.
    pub done: JoinHandle<io::Result<Digests>>,
}

/// Starts compressing: plain bytes in, gzip out.
#[must_use]
pub fn compress() -> Stage {
    let (input, mut plain) = mpsc::channel::<Bytes>(WAITING);
    let (packed, output) = mpsc::channel(WAITING);
    let done = tokio::task::spawn_blocking(move || {
        let mut content = Passage::new(None);
        let mut encoder = GzEncoder::new(Passage::new(Some(packed)), LEVEL);
        while let Some(chunk) = plain.blocking_recv() {
            content.write_all(&chunk)?;
            encoder.write_all(&chunk)?;
        }
        let mut stored = encoder.finish()?;
        stored.flush()?;
        Ok(digests(content, stored))
    });
    Stage { input, output, done }
}

/// Starts decompressing: gzip in, plain bytes out.
#[must_use]
pub fn decompress() -> Stage {
    let (input, packed) = mpsc::channel(PIECES_WAITING);
    let (plain, output) = mpsc::channel(WAITING);
    let done = tokio::task::spawn_blocking(move || unpack(packed, Some(plain)));
    Stage { input, output, done }
}

fn unpack(mut packed: Receiver<Bytes>, to: Option<Sender<Bytes>>) -> io::Result<Digests> {
    let mut stored = Passage::new(None);
    let mut decoder = MultiGzDecoder::new(Passage::new(to));
    while let Some(chunk) = packed.blocking_recv() {
        stored.write_all(&chunk)?;
        decoder.write_all(&chunk)?;
    }
    let mut content = decoder.finish()?;
    content.flush()?;
    Ok(digests(content, stored))
}

fn digests(content: Passage, stored: Passage) -> Digests {
    let ((bytes, sha256), (stored_bytes, stored_sha256)) = (content.hex(), stored.hex());
    Digests { bytes, sha256, stored_bytes, stored_sha256 }
}

/// Why an archive could not be read through.
#[derive(Debug)]
pub enum Unreadable {
    /// The store failed.
    Store(StoreError),
    /// The bytes are no whole gzip stream.
    Gzip(io::Error),
}

/// Reads an archive from end to end and digests both sides of it. `progress` is told the compressed bytes so far.
///
/// # Errors
/// [`Unreadable`].
pub async fn read_through(
    mut archive: impl Stream<Item = Result<Bytes, StoreError>> + Unpin,
    progress: impl Fn(u64),
) -> Result<Digests, Unreadable> {
    let (input, packed) = mpsc::channel(PIECES_WAITING);
    let done = tokio::task::spawn_blocking(move || unpack(packed, None));
    let mut so_far = 0;
    while let Some(chunk) = archive.next().await {
        let chunk = chunk.map_err(Unreadable::Store)?;
        so_far += chunk.len() as u64;
        if input.send(chunk).await.is_err() {
            break;
        }
        progress(so_far);
    }
    drop(input);
    join(done).await.map_err(Unreadable::Gzip)
}

/// The result of a stage; a panic in it goes on here.
///
/// # Errors
/// The stage's own.
pub async fn join<T>(stage: JoinHandle<io::Result<T>>) -> io::Result<T> {
    match stage.await {
        Ok(result) => result,
        Err(died) => std::panic::resume_unwind(died.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use futures::stream;
    use proptest::prelude::*;

    use super::*;

    async fn packed(content: &[u8], chunk: usize) -> (Vec<u8>, Digests) {
        let Stage { input, mut output, done } = compress();
        let chunks: Vec<Bytes> = content.chunks(chunk).map(Bytes::copy_from_slice).collect();
        let feeding = tokio::spawn(async move {
            for chunk in chunks {
                input.send(chunk).await.expect("the stage reads");
            }
        });
        let mut stored = Vec::new();
        while let Some(chunk) = output.recv().await {
            stored.extend_from_slice(&chunk);
        }
        feeding.await.expect("no panic");
        (stored, join(done).await.expect("compressed"))
    }

    async fn read_back(stored: &[u8]) -> Result<Digests, Unreadable> {
        let chunks: Vec<_> = stored.chunks(1000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        read_through(stream::iter(chunks), |_| ()).await
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn any_bytes_up_and_down_again_are_equal(content: Vec<u8>, chunk in 1usize..5000) {
            run(async {
                let (stored, digests) = packed(&content, chunk).await;
                let mut back = Vec::new();
                GzDecoder::new(&stored[..]).read_to_end(&mut back).expect("a gzip stream");
                assert_eq!(back, content);
                assert_eq!(read_back(&stored).await.expect("readable"), digests);
            });
        }

        #[test]
        fn a_flipped_bit_or_a_missing_end_is_found(content in proptest::collection::vec(any::<u8>(), 1..2000), at: usize, bit in 0u8..8) {
            run(async {
                let (mut stored, digests) = packed(&content, 512).await;
                let at = at % stored.len();
                let cut = read_back(&stored[..at]).await;
                assert!(cut.is_err() || cut.is_ok_and(|it| it != digests));
                stored[at] ^= 1u8 << bit;
                let flipped = read_back(&stored).await;
                assert!(flipped.is_err() || flipped.is_ok_and(|it| it != digests));
            });
        }
    }
}
