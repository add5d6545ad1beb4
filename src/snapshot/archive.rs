//! An archive as it passes: compressed on its way out, decompressed on its way in, both sides of it counted and digested.
//! The work is done on threads of its own; bounded channels make a slow store slow everything down, and nothing is held.

use std::io::{self, Write};

use bytes::{Bytes, BytesMut};
use flate2::write::{GzEncoder, MultiGzDecoder};
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;

use crate::outside::store::StoreError;
use crate::plan::Compression;

use super::custom::{Counting, CustomError, Passed, Reader};

/// Bytes that are passed on at once.
pub const CHUNK: usize = 256 << 10;
/// Bytes that are compressed on their own, as a gzip member or a zstd frame: enough that its beginning costs nothing, and little
/// enough that several fit into memory.
const BLOCK: usize = 512 << 10;
/// Chunks that wait between two stages.
const WAITING: usize = 4;
/// Compressed blocks that wait to be sent.
const BLOCKS_WAITING: usize = 2;
/// Pieces of the store that wait to be decompressed. They are large, and the store reads ahead by itself.
const PIECES_WAITING: usize = 1;
/// Level 2 costs a quarter of gzip's default time, for archives about a tenth larger. Level 1 of this backend has no codes of its
/// own for each block, and gives archives half as large again.
const GZIP_LEVEL: flate2::Compression = flate2::Compression::new(2);
/// Level 1 of zstd is smaller than gzip's, and several times as fast.
const ZSTD_LEVEL: i32 = 1;

/// What passed through: sizes in bytes, SHA-256 in hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    /// Uncompressed.
    pub bytes: u64,
    /// Of the uncompressed bytes.
    pub sha256: String,
    /// Compressed.
    pub stored_bytes: u64,
    /// Of the compressed bytes: what `sha256sum` of the object gives.
    pub stored_sha256: String,
}

/// Counts and digests.
#[derive(Default)]
struct Tally {
    bytes: u64,
    digest: Sha256,
}

impl Tally {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.digest.update(bytes);
    }

    fn hex(self) -> (u64, String) {
        (self.bytes, self.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

fn digests(content: Tally, stored: Tally) -> Digests {
    let ((bytes, sha256), (stored_bytes, stored_sha256)) = (content.hex(), stored.hex());
    Digests { bytes, sha256, stored_bytes, stored_sha256 }
}

/// Compressing at work: what goes in, what comes out, and what passed when both have ended.
pub struct Packing {
    /// Dropped at the end of the input.
    pub input: Sender<Bytes>,
    /// Ends when everything has come out.
    pub output: Receiver<Bytes>,
    /// What passed.
    pub done: JoinHandle<io::Result<Packed>>,
}

/// What was compressed.
#[derive(Debug)]
pub struct Packed {
    /// Of both sides.
    pub digests: Digests,
    /// The rows of each table in it, or why they were not counted.
    pub tables: Result<Vec<Passed>, CustomError>,
}

/// Starts compressing an archive, with `workers` blocks at work at once.
#[must_use]
pub fn compress(compression: Compression, workers: usize) -> Packing {
    let (input, plain) = mpsc::channel::<Bytes>(WAITING);
    let (packed, output) = mpsc::channel(BLOCKS_WAITING);
    // Beside those that wait here, one is waited for, and one has just begun.
    let (blocks, at_work) = mpsc::channel(workers.saturating_sub(2).max(1));
    let reading = tokio::task::spawn_blocking(move || cut(plain, compression, &blocks));
    let done = tokio::spawn(async move {
        // Dropping the blocks makes the reader stop, so that it is waited for in any case.
        let stored = pass_on(at_work, packed).await;
        let (content, tables) = join(reading).await?;
        Ok(Packed { digests: digests(content, stored?), tables })
    });
    Packing { input, output, done }
}

type Block = JoinHandle<io::Result<Vec<u8>>>;

/// Digests what comes, counts the rows in it, and has each block compressed.
fn cut(
    mut plain: Receiver<Bytes>,
    compression: Compression,
    blocks: &Sender<Block>,
) -> io::Result<(Tally, Result<Vec<Passed>, CustomError>)> {
    let (mut content, mut reader) = (Tally::default(), Ok(Reader::<Counting>::default()));
    let mut block = Vec::with_capacity(BLOCK);
    let send = |block: Vec<u8>| {
        let work = Handle::current().spawn_blocking(move || pack(compression, &block));
        blocks.blocking_send(work).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    };
    while let Some(chunk) = plain.blocking_recv() {
        content.add(&chunk);
        if let Ok(it) = &mut reader
            && let Err(error) = it.push(&chunk)
        {
            reader = Err(error);
        }
        block.extend_from_slice(&chunk);
        if block.len() >= BLOCK {
            send(std::mem::replace(&mut block, Vec::with_capacity(BLOCK)))?;
        }
    }
    if !block.is_empty() || content.bytes == 0 {
        send(block)?;
    }
    Ok((content, reader.and_then(Reader::finish)))
}

fn pack(compression: Compression, block: &[u8]) -> io::Result<Vec<u8>> {
    match compression {
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::with_capacity(block.len() / 2), GZIP_LEVEL);
            encoder.write_all(block)?;
            encoder.finish()
        }
        Compression::Zstd => {
            let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
            compressor.set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true))?;
            compressor.compress(block)
        }
    }
}

/// Digests and hands on the compressed blocks, in their order.
async fn pass_on(mut blocks: Receiver<Block>, to: Sender<Bytes>) -> io::Result<Tally> {
    let mut stored = Tally::default();
    while let Some(block) = blocks.recv().await {
        let block = join(block).await?;
        stored.add(&block);
        to.send(block.into()).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
    }
    Ok(stored)
}

/// Decompressing at work.
pub struct Unpacking {
    /// Dropped at the end of the input.
    pub input: Sender<Bytes>,
    /// Ends when everything has come out.
    pub output: Receiver<Bytes>,
    /// What passed.
    pub done: JoinHandle<io::Result<Digests>>,
}

/// Starts decompressing.
#[must_use]
pub fn decompress(compression: Compression) -> Unpacking {
    let (input, packed) = mpsc::channel(PIECES_WAITING);
    let (plain, output) = mpsc::channel(WAITING);
    let done = tokio::task::spawn_blocking(move || unpack(compression, packed, Some(plain)));
    Unpacking { input, output, done }
}

fn unpack(compression: Compression, packed: Receiver<Bytes>, to: Option<Sender<Bytes>>) -> io::Result<Digests> {
    let content = Content { tally: Tally::default(), to, waiting: Vec::new() };
    match compression {
        Compression::Gzip => {
            let mut decoder = MultiGzDecoder::new(content);
            let stored = feed(packed, &mut decoder)?;
            decoder.finish()?.end(stored)
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::write::Decoder::new(content)?;
            let stored = feed(packed, &mut decoder)?;
            decoder.finish()?.end(stored)
        }
    }
}

fn feed(mut packed: Receiver<Bytes>, decoder: &mut impl Write) -> io::Result<Tally> {
    let mut stored = Tally::default();
    while let Some(chunk) = packed.blocking_recv() {
        stored.add(&chunk);
        decoder.write_all(&chunk)?;
    }
    Ok(stored)
}

/// What comes out of a decoder: counted, digested, and passed on to somebody or to nobody.
struct Content {
    tally: Tally,
    to: Option<Sender<Bytes>>,
    waiting: Vec<u8>,
}

impl Content {
    fn pass_on(&mut self) -> io::Result<()> {
        let Some(to) = self.to.as_ref().filter(|_| !self.waiting.is_empty()) else { return Ok(()) };
        let full = std::mem::replace(&mut self.waiting, Vec::with_capacity(CHUNK));
        to.blocking_send(full.into()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }

    fn end(mut self, stored: Tally) -> io::Result<Digests> {
        self.pass_on()?;
        Ok(digests(self.tally, stored))
    }
}

impl Write for Content {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tally.add(bytes);
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

/// Why an archive could not be read through.
#[derive(Debug)]
pub enum Unreadable {
    /// The store failed.
    Store(StoreError),
    /// The bytes cannot be decompressed.
    Packed(io::Error),
}

/// Reads an archive from end to end and digests both sides of it.
///
/// # Errors
/// [`Unreadable`].
pub async fn read_through(
    compression: Compression,
    mut archive: impl Stream<Item = Result<Bytes, StoreError>> + Unpin,
) -> Result<Digests, Unreadable> {
    let (input, packed) = mpsc::channel(PIECES_WAITING);
    let done = tokio::task::spawn_blocking(move || unpack(compression, packed, None));
    while let Some(chunk) = archive.next().await {
        if input.send(chunk.map_err(Unreadable::Store)?).await.is_err() {
            break;
        }
    }
    drop(input);
    join(done).await.map_err(Unreadable::Packed)
}

/// Digests what is stored, without decompressing it: enough to know that it is what was sent.
///
/// # Errors
/// The store failed.
pub async fn digest_stored(
    mut archive: impl Stream<Item = Result<Bytes, StoreError>> + Unpin,
) -> Result<(u64, String), StoreError> {
    let mut stored = Tally::default();
    while let Some(chunk) = archive.next().await {
        stored.add(&chunk?);
    }
    Ok(stored.hex())
}

/// Reads on, until a chunk is full or nothing more comes.
pub(super) async fn read_chunk(from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Bytes> {
    let mut chunk = BytesMut::with_capacity(CHUNK);
    while chunk.len() < CHUNK {
        if from.read_buf(&mut chunk).await? == 0 {
            break;
        }
    }
    Ok(chunk.freeze())
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

    use flate2::read::MultiGzDecoder as GzReader;
    use futures::stream;
    use proptest::prelude::*;

    use super::*;

    const BOTH: [Compression; 2] = [Compression::Gzip, Compression::Zstd];

    async fn packed(compression: Compression, content: &[u8], chunk: usize) -> (Vec<u8>, Digests) {
        let Packing { input, mut output, done } = compress(compression, 2);
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
        (stored, join(done).await.expect("compressed").digests)
    }

    async fn read_back(compression: Compression, stored: &[u8]) -> Result<Digests, Unreadable> {
        let chunks: Vec<_> = stored.chunks(1000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        read_through(compression, stream::iter(chunks)).await
    }

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
    }

    fn plain(compression: Compression, stored: &[u8]) -> Vec<u8> {
        let mut back = Vec::new();
        match compression {
            Compression::Gzip => GzReader::new(stored).read_to_end(&mut back).expect("gzip"),
            Compression::Zstd => zstd::Decoder::new(stored).expect("zstd").read_to_end(&mut back).expect("zstd"),
        };
        back
    }

    /// Several blocks, of which stock tools make one stream again.
    #[test]
    fn blocks_are_one_stream() {
        let content: Vec<u8> = (0..3 * BLOCK + 17).map(|n| u8::try_from(n * n / 7 % 251).expect("small")).collect();
        for compression in BOTH {
            run(async {
                let (stored, digests) = packed(compression, &content, 100_000).await;
                assert!(plain(compression, &stored) == content);
                assert_eq!(read_back(compression, &stored).await.expect("readable"), digests);
                let pieces = stored.chunks(999).map(|it| Ok(Bytes::copy_from_slice(it))).collect::<Vec<_>>();
                let (bytes, sha256) = digest_stored(stream::iter(pieces)).await.expect("readable");
                assert_eq!((bytes, sha256), (digests.stored_bytes, digests.stored_sha256));
            });
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn any_bytes_up_and_down_again_are_equal(content: Vec<u8>, chunk in 1usize..5000, which in 0usize..2) {
            let compression = BOTH[which];
            run(async {
                let (stored, digests) = packed(compression, &content, chunk).await;
                assert_eq!(plain(compression, &stored), content);
                assert_eq!(read_back(compression, &stored).await.expect("readable"), digests);
            });
        }

        #[test]
        fn a_flipped_bit_or_a_missing_end_is_found(
            content in proptest::collection::vec(any::<u8>(), 1..2000), at: usize, bit in 0u8..8, which in 0usize..2
        ) {
            let compression = BOTH[which];
            run(async {
                let (mut stored, digests) = packed(compression, &content, 512).await;
                let at = at % stored.len();
                let cut = read_back(compression, &stored[..at]).await;
                assert!(cut.is_err() || cut.is_ok_and(|it| it != digests));
                stored[at] ^= 1u8 << bit;
                let flipped = read_back(compression, &stored).await;
                assert!(flipped.is_err() || flipped.is_ok_and(|it| it != digests));
            });
        }
    }
}
