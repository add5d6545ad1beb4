//! `pg_dump`'s custom format as it passes by: which tables an archive holds, and their rows. Nothing is kept but what a watcher
//! keeps; a row of a gigabyte passes like any other.
//!
//! The format is that of `ReadHead`, `ReadToc` and `_PrintTocData` in PostgreSQL's `pg_backup_archiver.c` and
//! `pg_backup_custom.c`, versions 1.14 (PostgreSQL 12 to 15), 1.15 (16) and 1.16 (17 and 18), uncompressed.

mod cursor;
mod rewriting;
mod rows;

use cursor::{Cursor, Short, Widths};
pub use rewriting::{Rewriting, Rewritten};
pub use rows::{Counting, Passed};

/// How an archive in the custom format begins.
pub const MAGIC: &[u8] = b"PGDMP";
/// The kind of an entry that has the rows of a table.
pub const TABLE_DATA: &[u8] = b"TABLE DATA";
/// A table of contents larger than this is none.
const CONTENTS_LIMIT: usize = 256 << 20;
/// Versions of the format that are known, as its second number.
const KNOWN: std::ops::RangeInclusive<u8> = 14..=16;
const BLOCK_DATA: u8 = 1;
const BLOCK_LARGE_OBJECTS: u8 = 3;

/// Why an archive's rows were not counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CustomError {
    /// Not an archive at all.
    #[error("it does not begin like an archive in the custom format")]
    NoArchive,
    /// A format of another time.
    #[error("its format is {major}.{minor}, and 1.14 to 1.16 are known")]
    Version {
        /// The first number.
        major: u8,
        /// The second.
        minor: u8,
    },
    /// It ends too early, or is none.
    #[error("{0}")]
    Broken(&'static str),
}

/// An entry of the table of contents, as bytes of the archive.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Its number, by which its data is found.
    pub id: i64,
    /// `TABLE DATA`, `SEQUENCE SET`.
    pub kind: &'a [u8],
    /// Its schema; nothing, if it is in none.
    pub schema: &'a [u8],
    /// Its name.
    pub tag: &'a [u8],
    /// The statement that makes it; nothing, if there is none.
    pub definition: &'a [u8],
    /// The COPY that takes its data; nothing, if there is none.
    pub copy: &'a [u8],
    /// Who it belongs to; nothing, if to nobody.
    pub owner: &'a [u8],
}

impl Entry<'_> {
    /// Its schema.
    #[must_use]
    pub fn schema(&self) -> String {
        String::from_utf8_lossy(self.schema).into_owned()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> String {
        String::from_utf8_lossy(self.tag).into_owned()
    }
}

/// Is told what an archive holds, as it passes. Large objects are not told.
pub trait Watches {
    /// The table of contents has this entry.
    fn entry(&mut self, entry: &Entry<'_>);
    /// The data of an entry begins.
    fn begin(&mut self, id: i64);
    /// More of its data.
    fn body(&mut self, bytes: &[u8]);
    /// Its data has ended.
    ///
    /// # Errors
    /// It is not whole.
    fn end(&mut self) -> Result<(), CustomError>;
}

/// Reads an archive as it is pushed.
#[derive(Default)]
pub struct Reader<W> {
    /// Who is told.
    pub watcher: W,
    /// What has come and could not be read yet.
    waiting: Vec<u8>,
    widths: Widths,
    at: At,
}

/// Where the reader is.
#[derive(Default)]
enum At {
    #[default]
    Head,
    /// So many entries of the table of contents are still to come.
    Contents(u64),
    Block,
    /// Within the data of an entry.
    Chunk,
    /// So many bytes of a chunk are still to come.
    Within(usize),
    LargeObject,
    LargeObjectChunk,
    WithinLargeObject(usize),
}

impl<W: Watches> Reader<W> {
    /// Reads on.
    ///
    /// # Errors
    /// It is no archive of a version that is known.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), CustomError> {
        // What has come is looked at where it lies; only what ends in the middle waits for the rest.
        if self.waiting.is_empty() {
            self.waiting = self.read(bytes)?.to_vec();
            return Ok(());
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.extend_from_slice(bytes);
        self.waiting = self.read(&waiting)?.to_vec();
        Ok(())
    }

    /// Whether the whole table of contents has passed.
    pub fn has_contents(&self) -> bool {
        !matches!(self.at, At::Head | At::Contents(_))
    }

    /// Whether nothing is missing.
    ///
    /// # Errors
    /// The archive ended in the middle.
    pub fn ended(&self) -> Result<(), CustomError> {
        match self.at {
            At::Head => Err(CustomError::NoArchive),
            At::Block if self.waiting.is_empty() => Ok(()),
            _ => Err(CustomError::Broken("it ends in the middle")),
        }
    }

    /// Passes what belongs to the current chunk; false if there is none.
    fn within(&mut self, bytes: &mut &[u8]) -> bool {
        let (is_told, left) = match &mut self.at {
            At::Within(left) => (true, left),
            At::WithinLargeObject(left) => (false, left),
            _ => return false,
        };
        let (body, rest) = bytes.split_at(bytes.len().min(*left));
        *left -= body.len();
        *bytes = rest;
        let is_over = *left == 0;
        if is_told {
            self.watcher.body(body);
        }
        if is_over {
            self.at = if is_told { At::Chunk } else { At::LargeObjectChunk };
        }
        true
    }

    /// Gives what could not be read yet.
    fn read<'a>(&mut self, mut rest: &'a [u8]) -> Result<&'a [u8], CustomError> {
        while !rest.is_empty() {
            if self.within(&mut rest) {
                continue;
            }
            let mut cursor = Cursor { bytes: rest, widths: self.widths };
            match self.step(&mut cursor) {
                Ok(()) => rest = cursor.bytes,
                Err(Short::More) if rest.len() < CONTENTS_LIMIT => break,
                Err(Short::More) => return Err(CustomError::Broken("its table of contents has no end")),
                Err(Short::Wrong(error)) => return Err(error),
            }
        }
        Ok(rest)
    }

    /// Reads one whole thing, or nothing.
    fn step(&mut self, from: &mut Cursor<'_>) -> Result<(), Short> {
        match &mut self.at {
            At::Head => {
                let entries = from.head()?;
                self.widths = from.widths;
                self.at = if entries == 0 { At::Block } else { At::Contents(entries) };
            }
            At::Contents(left) => {
                self.watcher.entry(&from.entry()?);
                *left -= 1;
                if *left == 0 {
                    self.at = At::Block;
                }
            }
            At::Block => self.at = self.block(from)?,
            At::Chunk => match from.length()? {
                0 => {
                    self.watcher.end().map_err(Short::Wrong)?;
                    self.at = At::Block;
                }
                length => self.at = At::Within(length),
            },
            At::LargeObject => self.at = if from.int()? == 0 { At::Block } else { At::LargeObjectChunk },
            At::LargeObjectChunk => match from.length()? {
                0 => self.at = At::LargeObject,
                length => self.at = At::WithinLargeObject(length),
            },
            At::Within(_) | At::WithinLargeObject(_) => unreachable!("bodies are passed before"),
        }
        Ok(())
    }

    fn block(&mut self, from: &mut Cursor<'_>) -> Result<At, Short> {
        let (kind, id) = (from.byte()?, from.int()?);
        match kind {
            BLOCK_DATA => {
                self.watcher.begin(id);
                Ok(At::Chunk)
            }
            BLOCK_LARGE_OBJECTS => Ok(At::LargeObject),
            _ => Err(Short::Wrong(CustomError::Broken("it has a block of an unknown kind"))),
        }
    }
}

#[cfg(test)]
mod tests;
