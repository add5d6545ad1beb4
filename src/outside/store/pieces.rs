//! Large objects while they are here: in pieces that are used again for the next object.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::ops::Range;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetResultPayload, ObjectStore};

use crate::outside::pool::{Buffer, Pool};

/// Bytes of a piece.
const PIECE: usize = 256 << 10;
static POOL: Pool<Vec<u8>> = Pool::of(|| Vec::with_capacity(PIECE));

/// Bytes that are gathered.
pub(super) struct Pieces {
    full: Vec<Bytes>,
    open: Buffer,
}

impl Pieces {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { full: Vec::new(), open: POOL.buffer() }
    }

    pub(super) fn add(&mut self, mut bytes: &[u8]) {
        loop {
            self.open.fill(&mut bytes);
            if bytes.is_empty() {
                break;
            }
            self.end_piece();
        }
    }

    fn end_piece(&mut self) {
        self.full.push(std::mem::replace(&mut self.open, POOL.buffer()).into());
    }

    /// All that was gathered; after it, there are none again.
    pub(super) fn take(&mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.end_piece();
        }
        std::mem::take(&mut self.full)
    }
}

/// A range of an object.
pub(super) async fn read(store: &dyn ObjectStore, path: &Path, range: Range<u64>) -> object_store::Result<Vec<Bytes>> {
    let got = store.get_opts(path, GetOptions::new().with_range(Some(range))).await?;
    match got.payload {
        GetResultPayload::File(mut file, _) => {
            let reading = tokio::task::spawn_blocking(move || read_file(&mut file, got.range));
            let read = reading.await.unwrap_or_else(|died| std::panic::resume_unwind(died.into_panic()));
            read.map_err(|error| object_store::Error::Generic { store: "folder", source: error.into() })
        }
        GetResultPayload::Stream(mut stream) => {
            let mut pieces = Pieces::new();
            while let Some(bytes) = stream.try_next().await? {
                pieces.add(&bytes);
            }
            Ok(pieces.take())
        }
    }
}

fn read_file(file: &mut File, range: Range<u64>) -> io::Result<Vec<Bytes>> {
    file.seek(io::SeekFrom::Start(range.start))?;
    let (mut pieces, mut left) = (Vec::new(), range.end - range.start);
    while left > 0 {
        let mut piece = POOL.buffer();
        match file.by_ref().take(left.min(PIECE as u64)).read_to_end(&mut piece)? as u64 {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => left -= read,
        }
        pieces.push(piece.into());
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_are_gathered_whole() {
        let text: Vec<u8> = (0..3 * PIECE + 17).map(|n| u8::try_from(n % 251).expect("small")).collect();
        let mut pieces = Pieces::new();
        assert!(pieces.take().is_empty());
        for size in [1000, PIECE - 1, PIECE, PIECE + 1, 4 * PIECE] {
            text.chunks(size).for_each(|it| pieces.add(it));
            let taken = pieces.take();
            assert_eq!(taken.iter().map(Bytes::len).collect::<Vec<_>>(), [PIECE, PIECE, PIECE, 17], "by {size}");
            assert!(taken.concat() == text, "by {size}");
        }
    }

    #[tokio::test]
    async fn a_range_of_a_file_is_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let text: Vec<u8> = (0..2 * PIECE + 9).map(|n| u8::try_from(n % 241).expect("small")).collect();
        std::fs::write(dir.path().join("x"), &text).expect("written");
        let store = object_store::local::LocalFileSystem::new_with_prefix(dir.path()).expect("a folder");
        for range in [0..text.len(), 5..PIECE + 5, PIECE - 1..PIECE, 2 * PIECE..text.len()] {
            let asked = range.start as u64..range.end as u64;
            let found = read(&store, &Path::from("x"), asked).await.expect("readable").concat();
            assert!(found == text[range]);
        }
        // Beyond its end, there is less.
        let found = read(&store, &Path::from("x"), 2 * PIECE as u64..1 << 30).await.expect("readable").concat();
        assert_eq!(found, text[2 * PIECE..]);
    }
}
