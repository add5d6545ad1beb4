//! The bytes of objects and of parts. What is larger than a mebibyte lies in a file of its own, because dumps of
//! gigabytes pass through and the server runs inside the test's own process.

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use futures::Stream;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use md5::{Digest, Md5};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::{NamedTempFile, TempPath};
use tokio::time::Instant;

const IN_MEMORY: usize = 1 << 20;
const CHUNK: u64 = 256 << 10;

/// The bytes of one upload. The file is removed with the value, so a reader that began before a delete can finish.
pub(super) enum Blob {
    Memory(Bytes),
    File { path: TempPath, len: u64 },
}

impl Blob {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        match self {
            Self::Memory(bytes) => Ok(bytes.slice(range.start as usize..range.end as usize)),
            Self::File { path, .. } => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(range.start))?;
                let mut bytes = vec![0; (range.end - range.start) as usize];
                file.read_exact(&mut bytes)?;
                Ok(bytes.into())
            }
        }
    }
}

/// The bytes of one object: one upload, or the parts of a multipart upload one after another, which are not copied.
#[derive(Clone, Default)]
pub(super) struct Content(Vec<Arc<Blob>>);

impl Content {
    pub(super) fn of(blobs: impl IntoIterator<Item = Arc<Blob>>) -> Self {
        Self(blobs.into_iter().collect())
    }

    pub(super) fn memory(bytes: impl Into<Bytes>) -> Self {
        Self::of([Arc::new(Blob::Memory(bytes.into()))])
    }

    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|blob| blob.len()).sum()
    }

    /// At most a chunk of the bytes from `range.start` on, less where a blob ends.
    fn chunk(&self, range: Range<u64>) -> io::Result<Bytes> {
        let mut before = 0;
        for blob in &self.0 {
            let end = before + blob.len();
            if range.start < end {
                let until = range.end.min(end).min(range.start + CHUNK);
                return blob.read(range.start - before..until - before);
            }
            before = end;
        }
        Err(io::ErrorKind::UnexpectedEof.into())
    }

    pub(super) fn stream(self, range: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> + Send {
        futures::stream::try_unfold(range, move |range| {
            let chunk = if range.is_empty() { Ok(None) } else { self.chunk(range.clone()).map(Some) };
            let next = chunk.map(|it| it.map(|bytes| (bytes.clone(), range.start + bytes.len() as u64..range.end)));
            std::future::ready(next)
        })
    }

    pub(super) fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        for blob in &self.0 {
            all.extend_from_slice(&blob.read(0..blob.len())?);
        }
        Ok(all)
    }
}

pub(super) type Digest16 = [u8; 16];

pub(super) fn digest(bytes: &[u8]) -> Digest16 {
    Md5::digest(bytes).into()
}

pub(super) fn hex(digest: &Digest16) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn base64(digest: &Digest16) -> String {
    BASE64_STANDARD.encode(digest)
}

/// An upload that has arrived whole.
pub(super) struct Received {
    pub(super) blob: Arc<Blob>,
    pub(super) md5: Digest16,
}

impl Received {
    pub(super) fn text(&self) -> io::Result<String> {
        let bytes = self.blob.read(0..self.blob.len())?;
        String::from_utf8(bytes.into()).map_err(io::Error::other)
    }
}

/// Takes in a request's body. An error means that the client went away in the middle of it.
pub(super) async fn receive(body: &mut Incoming, folder: &Path, pace: &Pace) -> hyper::Result<Received> {
    let mut spool = Spool::new(folder);
    while let Some(frame) = body.frame().await {
        if let Ok(bytes) = frame?.into_data() {
            pace.admit(bytes.len()).await;
            spool.write(&bytes).expect("the temporary folder takes what is sent");
        }
    }
    Ok(spool.finish())
}

/// Memory up to a limit, a file from there on. Writing blocks the server's thread; it goes to the page cache.
struct Spool<'a> {
    folder: &'a Path,
    memory: Vec<u8>,
    file: Option<NamedTempFile>,
    len: u64,
    md5: Md5,
}

impl<'a> Spool<'a> {
    fn new(folder: &'a Path) -> Self {
        Self { folder, memory: Vec::new(), file: None, len: 0, md5: Md5::new() }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.md5.update(bytes);
        self.len += bytes.len() as u64;
        match &mut self.file {
            Some(file) => file.write_all(bytes),
            None if self.memory.len() + bytes.len() <= IN_MEMORY => {
                self.memory.extend_from_slice(bytes);
                Ok(())
            }
            None => {
                let file = self.file.insert(NamedTempFile::new_in(self.folder)?);
                file.write_all(&std::mem::take(&mut self.memory))?;
                file.write_all(bytes)
            }
        }
    }

    fn finish(self) -> Received {
        let blob = match self.file {
            Some(file) => Blob::File { path: file.into_temp_path(), len: self.len },
            None => Blob::Memory(self.memory.into()),
        };
        Received { blob: Arc::new(blob), md5: self.md5.finalize().into() }
    }
}

/// The speed at which the server takes in bodies, shared by all its connections as a slow line would be.
pub(super) struct Pace {
    rate: Option<u64>,
    free_at: Mutex<Instant>,
}

impl Pace {
    pub(super) fn new(rate: Option<u64>) -> Self {
        Self { rate, free_at: Mutex::new(Instant::now()) }
    }

    async fn admit(&self, bytes: usize) {
        let Some(rate) = self.rate else { return };
        let until = {
            let mut free_at = self.free_at.lock().expect("no holder of this lock panics");
            *free_at = (*free_at).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *free_at
        };
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_large_lies_in_a_file_that_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let files = || folder.path().read_dir().unwrap().count();
        let receive = |bytes: &[u8]| {
            let mut spool = Spool::new(folder.path());
            bytes.chunks(1000).for_each(|chunk| spool.write(chunk).unwrap());
            spool.finish()
        };
        let (small, large) = (vec![1; IN_MEMORY], vec![2; IN_MEMORY + 1]);
        let (in_memory, on_disk) = (receive(&small), receive(&large));
        assert_eq!(files(), 1);
        assert_eq!((in_memory.md5, on_disk.md5), (digest(&small), digest(&large)));
        let both = Content::of([in_memory.blob, on_disk.blob]);
        assert_eq!(both.read_all().unwrap(), [small, large].concat());
        drop(both);
        assert_eq!(files(), 0);
    }
}
