//! An archive as it passes: compressed (and encrypted) on its way out, decompressed on its way in, each side of it counted and
//! digested.
//! The work is done on threads of its own; bounded channels make a slow store slow everything down, and nothing is held.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flate2::write::{GzEncoder, MultiGzDecoder};
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;

use crate::outside::encryption::{Encrypting, Identities, Recipient};
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
/// A `pg_dump` that gives nothing for so long hangs. It reads catalogs, and passes over dead rows, in less.
const SILENCE: Duration = Duration::from_secs(900);
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
    /// As stored: compressed, and encrypted if the snapshot is.
    pub stored_bytes: u64,
    /// Of the bytes as stored: what `sha256sum` of the object gives.
    pub stored_sha256: String,
    /// Of the compressed bytes, where those that are stored are encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compressed: Option<Compressed>,
}

/// What encryption took in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compressed {
    /// Bytes.
    pub bytes: u64,
    /// Of them.
    pub sha256: String,
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

/// The far side of the compression: what is stored, and what it was before it was encrypted.
#[derive(Default)]
struct Outside {
    stored: Tally,
    compressed: Option<Tally>,
}

fn digests(content: Tally, outside: Outside) -> Digests {
    let ((bytes, sha256), (stored_bytes, stored_sha256)) = (content.hex(), outside.stored.hex());
    let compressed = outside.compressed.map(Tally::hex).map(|(bytes, sha256)| Compressed { bytes, sha256 });
    Digests { bytes, sha256, stored_bytes, stored_sha256, compressed }
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

/// Starts compressing an archive, with `workers` blocks at work at once, and encrypts it to `recipients`, if there are any.
///
/// # Errors
/// The system has no random numbers.
pub fn compress(compression: Compression, workers: usize, recipients: &[Recipient]) -> io::Result<Packing> {
    let encrypting = if recipients.is_empty() { None } else { Some(Encrypting::to(recipients)?) };
    let (input, plain) = mpsc::channel::<Bytes>(WAITING);
    let (packed, output) = mpsc::channel(BLOCKS_WAITING);
    // Beside those that wait here, one is waited for, and one has just begun.
    let (blocks, at_work) = mpsc::channel(workers.saturating_sub(2).max(1));
    let reading = tokio::task::spawn_blocking(move || cut(plain, compression, &blocks));
    let done = tokio::spawn(async move {
        // Dropping the blocks makes the reader stop, so that it is waited for in any case.
        let outside = pass_on(at_work, encrypting, packed).await;
        let (content, tables) = join(reading).await?;
        Ok(Packed { digests: digests(content, outside?), tables })
    });
    Ok(Packing { input, output, done })
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
async fn pass_on(
    mut blocks: Receiver<Block>,
    mut encrypting: Option<Encrypting>,
    to: Sender<Bytes>,
) -> io::Result<Outside> {
    let mut passed = Outside { compressed: encrypting.as_ref().map(|_| Tally::default()), ..Outside::default() };
    while let Some(block) = blocks.recv().await {
        let mut block = join(block).await?;
        if let (Some(encrypting), Some(compressed)) = (&mut encrypting, &mut passed.compressed) {
            compressed.add(&block);
            block = encrypting.write(&block)?;
        }
        hand_on(block, &mut passed.stored, &to).await?;
    }
    if let Some(encrypting) = encrypting {
        hand_on(encrypting.finish()?, &mut passed.stored, &to).await?;
    }
    Ok(passed)
}

async fn hand_on(block: Vec<u8>, stored: &mut Tally, to: &Sender<Bytes>) -> io::Result<()> {
    stored.add(&block);
    to.send(block.into()).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
}

/// Decompressing at work.
pub struct Unpacking {
    /// Dropped at the end of the input.
    pub input: Sender<Bytes>,
    /// Ends when everything has come out.
    pub output: Receiver<Bytes>,
    /// What passed.
    pub done: JoinHandle<io::Result<Unpacked>>,
}

/// What was decompressed: enough to know that it is what was sent, since equal bytes are decompressed into equal ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// How many bytes came out.
    pub bytes: u64,
    /// SHA-256 of what went in, in hex.
    pub stored_sha256: String,
}

/// Starts decompressing what is encrypted to `identities`, if there are any.
#[must_use]
pub fn decompress(compression: Compression, identities: Option<Arc<Identities>>) -> Unpacking {
    let (input, packed) = mpsc::channel(PIECES_WAITING);
    let (plain, output) = mpsc::channel(WAITING);
    let done = tokio::task::spawn_blocking(move || {
        let to = Destination::Somebody(plain, Vec::new());
        let (outside, content) = unpack(compression, identities.as_deref(), packed, Content::of(to))?;
        Ok(Unpacked { bytes: content.bytes, stored_sha256: outside.stored.hex().1 })
    });
    Unpacking { input, output, done }
}

/// What went in, and what came out.
fn unpack(
    compression: Compression,
    identities: Option<&Identities>,
    packed: Receiver<Bytes>,
    content: Content,
) -> io::Result<(Outside, Content)> {
    // Whoever passes the content on knows by the digest of what is stored that it is what was sent.
    let compressed = matches!(content.to, Destination::Digest(_)).then(Tally::default);
    let feed = |decoder: &mut dyn Write| match identities {
        Some(identities) => feed_decrypted(packed, identities, compressed, decoder),
        None => feed(packed, decoder),
    };
    match compression {
        Compression::Gzip => {
            let mut decoder = MultiGzDecoder::new(content);
            let outside = feed(&mut decoder)?;
            Ok((outside, decoder.finish()?.end()?))
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::write::Decoder::new(content)?;
            let outside = feed(&mut decoder)?;
            Ok((outside, decoder.finish()?.end()?))
        }
    }
}

fn feed(mut packed: Receiver<Bytes>, decoder: &mut dyn Write) -> io::Result<Outside> {
    let mut stored = Tally::default();
    while let Some(chunk) = packed.blocking_recv() {
        stored.add(&chunk);
        decoder.write_all(&chunk)?;
    }
    Ok(Outside { stored, compressed: None })
}

fn feed_decrypted(
    packed: Receiver<Bytes>,
    identities: &Identities,
    mut compressed: Option<Tally>,
    decoder: &mut dyn Write,
) -> io::Result<Outside> {
    let mut arriving = Arriving { packed, rest: Bytes::new(), stored: Tally::default() };
    let mut chunk = vec![0; CHUNK];
    // It ends where `arriving` does: the last block of what is encrypted says that it is the last.
    let mut decrypted = identities.decrypt(&mut arriving)?;
    loop {
        let length = decrypted.read(&mut chunk)?;
        if length == 0 {
            break;
        }
        if let Some(compressed) = &mut compressed {
            compressed.add(&chunk[..length]);
        }
        decoder.write_all(&chunk[..length])?;
    }
    Ok(Outside { stored: arriving.stored, compressed })
}

/// What arrives from the store, as something to read from.
struct Arriving {
    packed: Receiver<Bytes>,
    rest: Bytes,
    stored: Tally,
}

impl Read for Arriving {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let Some(chunk) = self.packed.blocking_recv() else { return Ok(0) };
            self.stored.add(&chunk);
            self.rest = chunk;
        }
        let length = to.len().min(self.rest.len());
        to[..length].copy_from_slice(&self.rest.split_to(length));
        Ok(length)
    }
}

/// What comes out of a decoder: counted, and either digested or passed on.
struct Content {
    bytes: u64,
    to: Destination,
}

enum Destination {
    Digest(Sha256),
    /// With what does not fill a chunk yet.
    Somebody(Sender<Bytes>, Vec<u8>),
}

impl Content {
    fn of(to: Destination) -> Self {
        Self { bytes: 0, to }
    }

    fn end(mut self) -> io::Result<Self> {
        self.flush()?;
        Ok(self)
    }
}

impl Write for Content {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes += bytes.len() as u64;
        match &mut self.to {
            Destination::Digest(digest) => digest.update(bytes),
            Destination::Somebody(_, waiting) => {
                waiting.extend_from_slice(bytes);
                if waiting.len() >= CHUNK {
                    self.flush()?;
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            Destination::Somebody(to, waiting) if !waiting.is_empty() => {
                let full = std::mem::replace(waiting, Vec::with_capacity(CHUNK));
                to.blocking_send(full.into()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
            }
            _ => Ok(()),
        }
    }
}

/// Why an archive could not be read through.
#[derive(Debug)]
pub enum Unreadable {
    /// The store failed.
    Store(StoreError),
    /// The bytes cannot be decrypted or decompressed.
    Packed(io::Error),
}

/// Reads an archive from end to end and digests both sides of it.
///
/// # Errors
/// [`Unreadable`].
pub async fn read_through(
    compression: Compression,
    identities: Option<Arc<Identities>>,
    mut archive: impl Stream<Item = Result<Bytes, StoreError>> + Unpin,
) -> Result<Digests, Unreadable> {
    let (input, packed) = mpsc::channel(PIECES_WAITING);
    let done = tokio::task::spawn_blocking(move || {
        let content = Content::of(Destination::Digest(Sha256::default()));
        let (outside, content) = unpack(compression, identities.as_deref(), packed, content)?;
        let Destination::Digest(digest) = content.to else { unreachable!("nothing was passed on") };
        Ok(digests(Tally { bytes: content.bytes, digest }, outside))
    });
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

/// Reads on, until a chunk is full or nothing more comes. A program that gives nothing for [`SILENCE`] has failed.
pub(super) async fn read_chunk(from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Bytes> {
    read_within(SILENCE, from).await
}

async fn read_within(silence: Duration, from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Bytes> {
    let mut chunk = BytesMut::with_capacity(CHUNK);
    while chunk.len() < CHUNK {
        let read = tokio::time::timeout(silence, from.read_buf(&mut chunk)).await;
        let read = read.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, format!("no byte came for {} s", silence.as_secs()))
        })?;
        if read? == 0 {
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
        let Packing { input, mut output, done } = compress(compression, 2, &[]).expect("nothing random");
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
        read_through(compression, None, stream::iter(chunks)).await
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

    #[test]
    fn silence_has_an_end() {
        let waited =
            tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(async {
                let (mut to, mut from) = tokio::io::duplex(64);
                tokio::io::AsyncWriteExt::write_all(&mut to, b"PGDMP").await.expect("there is room");
                read_within(Duration::from_millis(1), &mut from).await
            });
        assert_eq!(waited.expect_err("nothing more comes").to_string(), "no byte came for 0 s");
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
