//! An archive as it passes: compressed (and encrypted) on its way out, decompressed on its way in, each side of it counted and
//! digested.
//! The work is done on threads of its own; bounded channels make a slow store slow everything down, and nothing is held.

mod packing;
mod unpacking;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::JoinHandle;

use crate::outside::pool::Pool;
use crate::outside::store::StoreError;

pub use packing::{Packed, Packing, compress};
pub use unpacking::{Unpacked, Unpacking, Unreadable, decompress, read_through};

/// Bytes that are compressed on their own, as a gzip member or a zstd frame: enough that its beginning costs nothing, and little
/// enough that several fit into memory.
const BLOCK: usize = 512 << 10;
static BLOCKS: Pool<Vec<u8>> = Pool::of(|| Vec::with_capacity(BLOCK));
/// A `pg_dump` that gives nothing for so long hangs. It reads catalogs, and passes over dead rows, in less.
const SILENCE: Duration = Duration::from_secs(900);

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

/// Digests what is stored, without decompressing it: enough to know that it is what was sent.
///
/// # Errors
/// The store failed.
pub async fn digest_stored(
    archive: impl Stream<Item = Result<Bytes, StoreError>> + Unpin,
) -> Result<(u64, String), StoreError> {
    let digest = |mut pieces: Receiver<Bytes>| {
        let mut stored = Tally::default();
        while let Some(piece) = pieces.blocking_recv() {
            stored.add(&piece);
        }
        stored.hex()
    };
    elsewhere(archive, digest).await
}

/// What `look`, on a thread of its own, makes of an archive.
async fn elsewhere<T: Send + 'static>(
    mut archive: impl Stream<Item = Result<Bytes, StoreError>> + Unpin,
    look: impl FnOnce(Receiver<Bytes>) -> T + Send + 'static,
) -> Result<T, StoreError> {
    // One waits: the store reads ahead by itself.
    let (input, pieces) = mpsc::channel(1);
    let done = tokio::task::spawn_blocking(move || look(pieces));
    while let Some(piece) = archive.next().await {
        // Whoever takes no more says why.
        if input.send(piece?).await.is_err() {
            break;
        }
    }
    drop(input);
    Ok(done.await.unwrap_or_else(|died| std::panic::resume_unwind(died.into_panic())))
}

/// Reads on, until a block is full or nothing more comes. A program that gives nothing for [`SILENCE`] has failed.
pub(super) async fn read_block(from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Bytes> {
    read_within(SILENCE, from).await
}

async fn read_within(silence: Duration, from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Bytes> {
    let mut block = BLOCKS.buffer();
    while block.room() > 0 {
        let read = tokio::time::timeout(silence, from.read_buf(&mut *block)).await;
        let read = read.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, format!("no byte came for {} s", silence.as_secs()))
        })?;
        if read? == 0 {
            break;
        }
    }
    Ok(block.into())
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
mod tests;
