//! An archive on its way out: cut into blocks, compressed side by side, encrypted, counted.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::GzEncoder;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;

use crate::outside::encryption::{Encrypting, Recipient};
use crate::plan::Compression;
use crate::snapshot::custom::{Counting, CustomError, Passed, Reader};

use super::{Digests, Outside, Tally, WAITING, digests, join};

/// Bytes that are compressed on their own, as a gzip member or a zstd frame: enough that its beginning costs nothing, and little
/// enough that several fit into memory.
pub(super) const BLOCK: usize = 512 << 10;
/// Compressed blocks that wait to be sent.
const BLOCKS_WAITING: usize = 2;
/// Level 2 costs a quarter of gzip's default time, for archives about a tenth larger. Level 1 of this backend has no codes of its
/// own for each block, and gives archives half as large again.
const GZIP_LEVEL: flate2::Compression = flate2::Compression::new(2);
/// Level 1 of zstd is smaller than gzip's, and several times as fast.
const ZSTD_LEVEL: i32 = 1;

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
