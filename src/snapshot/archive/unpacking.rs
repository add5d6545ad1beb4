//! An archive on its way in: decrypted, decompressed, and either passed on or digested.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use futures::Stream;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;

use crate::outside::encryption::Identities;
use crate::outside::pool::{Buffer, Pool};
use crate::outside::store::StoreError;
use crate::plan::Compression;

use super::{Digests, Outside, Tally, digests, elsewhere};

/// Bytes that are passed on at once.
const CHUNK: usize = 256 << 10;
static CHUNKS: Pool<Vec<u8>> = Pool::of(|| Vec::with_capacity(CHUNK));
/// Chunks that wait to be taken.
const WAITING: usize = 4;
/// Pieces of the store that wait to be decompressed: it reads ahead by itself.
const PIECES_WAITING: usize = 1;

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
        let to = Destination::Somebody(plain, CHUNKS.buffer());
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
    Somebody(Sender<Bytes>, Buffer),
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
            Destination::Somebody(to, waiting) => {
                let mut left = bytes;
                while !left.is_empty() {
                    waiting.fill(&mut left);
                    if waiting.room() == 0 {
                        pass_on(to, waiting)?;
                    }
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            Destination::Somebody(to, waiting) if !waiting.is_empty() => pass_on(to, waiting),
            _ => Ok(()),
        }
    }
}

fn pass_on(to: &Sender<Bytes>, waiting: &mut Buffer) -> io::Result<()> {
    let full = std::mem::replace(waiting, CHUNKS.buffer());
    to.blocking_send(full.into()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
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
    archive: impl Stream<Item = Result<Bytes, StoreError>> + Unpin,
) -> Result<Digests, Unreadable> {
    let digest = move |packed: Receiver<Bytes>| {
        let content = Content::of(Destination::Digest(Sha256::default()));
        let (outside, content) = unpack(compression, identities.as_deref(), packed, content)?;
        let Destination::Digest(digest) = content.to else { unreachable!("nothing was passed on") };
        Ok(digests(Tally { bytes: content.bytes, digest }, outside))
    };
    elsewhere(archive, digest).await.map_err(Unreadable::Store)?.map_err(Unreadable::Packed)
}
