//! An archive on its way out: its blocks are compressed side by side, encrypted, counted.

use std::io;

use bytes::Bytes;
use flate2::{Compress, FlushCompress, Status};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

use crate::outside::encryption::{Encrypting, Recipient};
use crate::outside::pool::{Buffer, Pool};
use crate::plan::Compression;
use crate::snapshot::custom::{Counting, CustomError, Passed, Reader};

use super::{BLOCK, Digests, Outside, Tally, digests, join};

/// Blocks that wait between two stages.
const WAITING: usize = 2;
/// Level 2 costs a quarter of gzip's default time, for archives about a tenth larger. Level 1 of this backend has no codes of its
/// own for each block, and gives archives half as large again.
const GZIP_LEVEL: flate2::Compression = flate2::Compression::new(2);
/// The largest window of gzip, as a power of two.
const GZIP_WINDOW: u8 = 15;
/// Level 1 of zstd is smaller than gzip's, and several times as fast.
const ZSTD_LEVEL: i32 = 1;
/// Room for what a block is compressed to: an eighth more than it, if all its bytes are of codes of nine bits, and a frame.
const PACKED: usize = BLOCK + BLOCK / 8 + 1024;
static OUTPUTS: Pool<Vec<u8>> = Pool::of(|| Vec::with_capacity(PACKED));
static GZIPS: Pool<Compress> = Pool::of(|| Compress::new_gzip(GZIP_LEVEL, GZIP_WINDOW));
static ZSTDS: Pool<Compressor<'static>> = Pool::of(new_zstd);

/// Compressing at work: what goes in, what comes out, and what passed when both have ended.
pub struct Packing {
    /// Takes blocks, none larger than [`BLOCK`]; dropped at the end of the input.
    pub input: Sender<Bytes>,
    /// Ends when everything has come out.
    pub output: Receiver<Buffer>,
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
    let (packed, output) = mpsc::channel(WAITING);
    // Beside those that wait here, one is waited for, and one has just begun.
    let (blocks, at_work) = mpsc::channel(workers.saturating_sub(2).max(1));
    let reading = tokio::task::spawn_blocking(move || look_at(plain, compression, &blocks));
    let done = tokio::task::spawn_blocking(move || {
        // Dropping the blocks makes the reader stop, so that it is waited for in any case.
        let outside = pass_on(at_work, encrypting, &packed);
        let (content, tables) = Handle::current().block_on(join(reading))?;
        Ok(Packed { digests: digests(content, outside?), tables })
    });
    Ok(Packing { input, output, done })
}

type Block = JoinHandle<io::Result<Buffer>>;

/// Digests what comes, counts the rows in it, and has each block compressed.
fn look_at(
    mut plain: Receiver<Bytes>,
    compression: Compression,
    blocks: &Sender<Block>,
) -> io::Result<(Tally, Result<Vec<Passed>, CustomError>)> {
    let (mut content, mut reader) = (Tally::default(), Ok(Reader::<Counting>::default()));
    let send = |block: Bytes| {
        let work = Handle::current().spawn_blocking(move || pack(compression, &block));
        blocks.blocking_send(work).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    };
    while let Some(block) = plain.blocking_recv() {
        content.add(&block);
        // The rows are counted while it is compressed.
        send(block.clone())?;
        if let Ok(it) = &mut reader
            && let Err(error) = it.push(&block)
        {
            reader = Err(error);
        }
    }
    if content.bytes == 0 {
        send(Bytes::new())?;
    }
    Ok((content, reader.and_then(Reader::finish)))
}

fn pack(compression: Compression, block: &[u8]) -> io::Result<Buffer> {
    let mut to = OUTPUTS.buffer();
    match compression {
        Compression::Gzip => {
            let mut gzip = GZIPS.take();
            gzip.reset();
            match gzip.compress_vec(block, &mut to, FlushCompress::Finish)? {
                Status::StreamEnd => Ok(to),
                Status::Ok | Status::BufError => Err(io::Error::other("a block grew by more than an eighth")),
            }
        }
        Compression::Zstd => {
            let mut zstd = ZSTDS.take();
            zstd.compress_to_buffer(block, &mut *to)?;
            Ok(to)
        }
    }
}

fn new_zstd() -> Compressor<'static> {
    let mut made = Compressor::new(ZSTD_LEVEL).expect("it takes this level");
    made.set_parameter(CParameter::ChecksumFlag(true)).expect("it takes this setting");
    made
}

/// Digests and hands on the compressed blocks, in their order.
fn pass_on(
    mut blocks: Receiver<Block>,
    mut encrypting: Option<Encrypting>,
    to: &Sender<Buffer>,
) -> io::Result<Outside> {
    let mut ready = Vec::new();
    let mut passed = Outside { compressed: encrypting.as_ref().map(|_| Tally::default()), ..Outside::default() };
    while let Some(block) = blocks.blocking_recv() {
        let block = Handle::current().block_on(join(block))?;
        if let (Some(encrypting), Some(compressed)) = (&mut encrypting, &mut passed.compressed) {
            compressed.add(&block);
            encrypting.write(&block, &mut ready)?;
            drop(block);
            hand_on_copied(&mut ready, &mut passed.stored, to)?;
        } else {
            hand_on(block, &mut passed.stored, to)?;
        }
    }
    if let Some(encrypting) = encrypting {
        encrypting.finish(&mut ready)?;
        hand_on_copied(&mut ready, &mut passed.stored, to)?;
    }
    Ok(passed)
}

fn hand_on(block: Buffer, stored: &mut Tally, to: &Sender<Buffer>) -> io::Result<()> {
    stored.add(&block);
    to.blocking_send(block).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
}

/// All of `ready`, which is empty then.
fn hand_on_copied(ready: &mut Vec<u8>, stored: &mut Tally, to: &Sender<Buffer>) -> io::Result<()> {
    let mut left = ready.as_slice();
    while !left.is_empty() {
        let mut copied = OUTPUTS.buffer();
        copied.fill(&mut left);
        hand_on(copied, stored, to)?;
    }
    ready.clear();
    Ok(())
}
