//! `pg_dump`'s custom format as it passes by: which tables an archive holds, how many rows of each, and a content hash. Nothing
//! is kept but the table of contents; a row of a gigabyte passes like any other.
//!
//! The format is that of `ReadHead`, `ReadToc` and `_PrintTocData` in PostgreSQL's `pg_backup_archiver.c` and
//! `pg_backup_custom.c`, versions 1.14 (PostgreSQL 12 to 15), 1.15 (16) and 1.16 (17 and 18), uncompressed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use twox_hash::xxhash3_128::Hasher;

/// How an archive in the custom format begins.
pub const MAGIC: &[u8] = b"PGDMP";
/// A table of contents larger than this is none.
const CONTENTS_LIMIT: usize = 256 << 20;
/// Versions of the format that are known, as its second number.
const KNOWN: std::ops::RangeInclusive<u8> = 14..=16;
const BLOCK_DATA: u8 = 1;
const BLOCK_LARGE_OBJECTS: u8 = 3;
/// The line that ends the rows of a table.
const END_OF_ROWS: &[u8] = b"\\.";

/// The rows of one table, as they passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// How many rows.
    pub rows: u64,
    /// The sum, modulo 2^128, of the XXH3-128 of every row as COPY's text format has it, without the line's end; in hex. It
    /// does not depend on the order of the rows.
    pub hash: String,
}

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

/// Reads an archive as it is pushed.
#[derive(Default)]
pub struct Reader {
    /// What has come and could not be read yet.
    waiting: Vec<u8>,
    widths: Widths,
    at: At,
    tables: BTreeMap<i64, (String, String)>,
    passed: Vec<Passed>,
}

/// Bytes of an integer and of an offset, and the format's version.
#[derive(Debug, Default, Clone, Copy)]
struct Widths {
    int: usize,
    offset: usize,
    minor: u8,
}

/// Where the reader is.
#[derive(Default)]
enum At {
    #[default]
    Head,
    /// So many entries of the table of contents are still to come.
    Contents(u64),
    Block,
    /// Within the data of a table, or of what has no rows.
    Chunk(Option<Rows>),
    /// So many bytes of a chunk are still to come.
    Within(Option<Rows>, usize),
    LargeObject,
    LargeObjectChunk,
    WithinLargeObject(usize),
}

impl Reader {
    /// Reads on.
    ///
    /// # Errors
    /// It is no archive of a version that is known.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), CustomError> {
        while !bytes.is_empty() {
            // The body of a chunk is looked at where it lies; everything else is short, and waits until it is whole.
            if self.waiting.is_empty() && self.within(&mut bytes) {
                continue;
            }
            self.waiting.extend_from_slice(bytes);
            bytes = &[];
            self.read_waiting()?;
        }
        Ok(())
    }

    /// What passed, in the order in which it came.
    ///
    /// # Errors
    /// The archive ended in the middle.
    pub fn finish(self) -> Result<Vec<Passed>, CustomError> {
        match self.at {
            At::Head => Err(CustomError::NoArchive),
            At::Block if self.waiting.is_empty() => Ok(self.passed),
            _ => Err(CustomError::Broken("it ends in the middle")),
        }
    }

    /// Passes what belongs to the current chunk; false if there is none.
    fn within(&mut self, bytes: &mut &[u8]) -> bool {
        let (rows, left) = match &mut self.at {
            At::Within(rows, left) => (rows.as_mut(), left),
            At::WithinLargeObject(left) => (None, left),
            _ => return false,
        };
        let (body, rest) = bytes.split_at(bytes.len().min(*left));
        *left -= body.len();
        *bytes = rest;
        if let Some(rows) = rows {
            rows.push(body);
        }
        if *left == 0 {
            self.at = match std::mem::take(&mut self.at) {
                At::Within(rows, _) => At::Chunk(rows),
                _ => At::LargeObjectChunk,
            };
        }
        true
    }

    fn read_waiting(&mut self) -> Result<(), CustomError> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut rest = &waiting[..];
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
        self.waiting = rest.to_vec();
        Ok(())
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
                let (id, table) = from.entry()?;
                *left -= 1;
                if *left == 0 {
                    self.at = At::Block;
                }
                if let Some(table) = table {
                    self.tables.insert(id, table);
                }
            }
            At::Block => self.at = self.block(from)?,
            At::Chunk(rows) => match from.length()? {
                0 => {
                    let ended = rows.take().map(Rows::end).transpose().map_err(Short::Wrong)?;
                    self.passed.extend(ended);
                    self.at = At::Block;
                }
                length => self.at = At::Within(rows.take(), length),
            },
            At::LargeObject => self.at = if from.int()? == 0 { At::Block } else { At::LargeObjectChunk },
            At::LargeObjectChunk => match from.length()? {
                0 => self.at = At::LargeObject,
                length => self.at = At::WithinLargeObject(length),
            },
            At::Within(..) | At::WithinLargeObject(_) => unreachable!("bodies are passed before"),
        }
        Ok(())
    }

    fn block(&self, from: &mut Cursor<'_>) -> Result<At, Short> {
        let (kind, id) = (from.byte()?, from.int()?);
        match kind {
            BLOCK_DATA => Ok(At::Chunk(self.tables.get(&id).map(|(schema, name)| Rows::of(schema, name)))),
            BLOCK_LARGE_OBJECTS => Ok(At::LargeObject),
            _ => Err(Short::Wrong(CustomError::Broken("it has a block of an unknown kind"))),
        }
    }
}

/// Nothing could be read.
enum Short {
    /// More has to come first.
    More,
    Wrong(CustomError),
}

/// Reads from the front of what has come.
struct Cursor<'a> {
    bytes: &'a [u8],
    widths: Widths,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Short> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(Short::More)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Short> {
        Ok(self.take(1)?[0])
    }

    /// A sign, and the bytes with the least first.
    fn int(&mut self) -> Result<i64, Short> {
        let negative = self.byte()? != 0;
        let value = self.take(self.widths.int)?.iter().rev().fold(0i64, |sum, byte| (sum << 8) | i64::from(*byte));
        Ok(if negative { -value } else { value })
    }

    fn length(&mut self) -> Result<usize, Short> {
        usize::try_from(self.int()?).map_err(|_| Short::Wrong(CustomError::Broken("it has a length below zero")))
    }

    /// A text; -1 for its length is none.
    fn text(&mut self) -> Result<Option<&'a [u8]>, Short> {
        match self.int()? {
            length if length < 0 => Ok(None),
            length => Ok(Some(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)),
        }
    }

    fn texts(&mut self, count: usize) -> Result<(), Short> {
        (0..count).try_for_each(|_| self.text().map(drop))
    }

    /// The head; gives the number of entries of the table of contents.
    fn head(&mut self) -> Result<u64, Short> {
        let known = self.bytes.len().min(MAGIC.len());
        if self.bytes[..known] != MAGIC[..known] {
            return Err(Short::Wrong(CustomError::NoArchive));
        }
        self.take(MAGIC.len())?;
        let (major, minor, _revision) = (self.byte()?, self.byte()?, self.byte()?);
        if major != 1 || !KNOWN.contains(&minor) {
            return Err(Short::Wrong(CustomError::Version { major, minor }));
        }
        self.widths = Widths { int: self.byte()?.into(), offset: self.byte()?.into(), minor };
        if !(1..=8).contains(&self.widths.int) {
            return Err(Short::Wrong(CustomError::Broken("its integers have an impossible width")));
        }
        self.byte()?; // the format: custom
        if minor >= 15 {
            self.byte().map(drop)?
        } else {
            self.int().map(drop)?
        } // the compression
        for _ in 0..7 {
            self.int()?; // when it was made
        }
        self.texts(3)?; // the database, the server's version, pg_dump's version
        u64::try_from(self.int()?).map_err(|_| Short::Wrong(CustomError::Broken("its table of contents is no list")))
    }

    /// An entry of the table of contents: its number, and for the data of a table, which.
    fn entry(&mut self) -> Result<(i64, Option<(String, String)>), Short> {
        let id = self.int()?;
        self.int()?; // whether it has data
        self.texts(2)?; // the oids of its catalog and of itself
        let (tag, kind) = (self.text()?, self.text()?);
        self.int()?; // the section
        self.texts(3)?; // its definition, how to drop it, the COPY
        let schema = self.text()?;
        self.texts(2)?; // its tablespace, its access method
        if self.widths.minor >= 16 {
            self.int()?; // the kind of relation
        }
        self.texts(2)?; // its owner, and a leftover of WITH OIDS
        while self.text()?.is_some() {} // what it depends on
        self.take(1 + self.widths.offset)?;
        let words = |it: Option<&[u8]>| String::from_utf8_lossy(it.unwrap_or_default()).into_owned();
        Ok((id, (kind == Some(b"TABLE DATA")).then(|| (words(schema), words(tag)))))
    }
}

/// The rows of the table that is passing.
struct Rows {
    passed: Passed,
    sum: u128,
    /// The row that a chunk ended in: its hash so far, and its first bytes, by which the end is known.
    open: Option<(Hasher, Vec<u8>)>,
    ended: bool,
}

impl Rows {
    fn of(schema: &str, name: &str) -> Self {
        let passed = Passed { schema: schema.into(), name: name.into(), rows: 0, hash: String::new() };
        Self { passed, sum: 0, open: None, ended: false }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            let (hash, is_end) = match self.open.take() {
                Some((mut hasher, begin)) => {
                    hasher.write(line);
                    let is_end =
                        begin.len() + line.len() == END_OF_ROWS.len() && [&begin, line].concat() == END_OF_ROWS;
                    (hasher.finish_128(), is_end)
                }
                None => (twox_hash::XxHash3_128::oneshot(line), line == END_OF_ROWS),
            };
            self.ended |= is_end;
            if !self.ended {
                self.passed.rows += 1;
                self.sum = self.sum.wrapping_add(hash);
            }
        }
        if !bytes.is_empty() {
            let (hasher, begin) = self.open.get_or_insert_with(|| (Hasher::new(), Vec::new()));
            hasher.write(bytes);
            // One byte more than the end has: what is longer is no end.
            let room = (END_OF_ROWS.len() + 1).saturating_sub(begin.len());
            begin.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    fn end(mut self) -> Result<Passed, CustomError> {
        if !self.ended {
            return Err(CustomError::Broken("the rows of a table have no end"));
        }
        self.passed.hash = format!("{:032x}", self.sum);
        Ok(self.passed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Writes as `pg_dump` does, with integers of four bytes and offsets of eight.
    struct Written(Vec<u8>, u8);

    impl Written {
        fn int(&mut self, value: i32) -> &mut Self {
            self.0.push(u8::from(value < 0));
            self.0.extend_from_slice(&value.unsigned_abs().to_le_bytes());
            self
        }

        fn text(&mut self, text: Option<&str>) -> &mut Self {
            self.int(text.map_or(-1, |it| i32::try_from(it.len()).expect("short")));
            self.0.extend_from_slice(text.unwrap_or_default().as_bytes());
            self
        }

        fn head(minor: u8, entries: i32) -> Self {
            let mut to = Self(MAGIC.to_vec(), minor);
            to.0.extend_from_slice(&[1, minor, 0, 4, 8, 1]);
            if minor >= 15 {
                to.0.push(0);
            } else {
                to.int(0);
            }
            for it in [1, 2, 3, 4, 5, 126, 0] {
                to.int(it);
            }
            to.text(Some("mobius")).text(Some("15.20")).text(Some("15.20")).int(entries);
            to
        }

        fn entry(&mut self, id: i32, kind: &str, schema: Option<&str>, tag: &str) {
            self.int(id).int(1).text(Some("1259")).text(Some("16385")).text(Some(tag)).text(Some(kind)).int(3);
            self.text(None).text(None).text(Some("COPY …")).text(schema).text(None).text(Some("heap"));
            if self.1 >= 16 {
                self.int(114);
            }
            self.text(Some("release")).text(Some("false")).text(Some("7")).text(Some("8")).text(None);
            self.0.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, 0]);
        }

        fn data(&mut self, id: i32, chunks: &[&str]) {
            self.0.push(BLOCK_DATA);
            self.int(id);
            for chunk in chunks {
                self.text(Some(chunk));
            }
            self.int(0);
        }

        fn large_objects(&mut self, id: i32, objects: &[(i32, &str)]) {
            self.0.push(BLOCK_LARGE_OBJECTS);
            self.int(id);
            for (oid, body) in objects {
                self.int(*oid).text(Some(body)).int(0);
            }
            self.int(0);
        }
    }

    fn archive(minor: u8) -> Vec<u8> {
        let mut to = Written::head(minor, 5);
        to.entry(10, "TABLE", Some("public"), "a");
        to.entry(11, "TABLE DATA", Some("public"), "a");
        to.entry(12, "TABLE DATA", Some("Sch öma"), "b c");
        to.entry(13, "BLOBS", None, "BLOBS");
        to.entry(14, "SEQUENCE SET", Some("public"), "s");
        to.data(12, &["1\tx\n", "2\t\\\\.\n3\t", "y\n", "\\.\n\n\n"]);
        to.large_objects(13, &[(77, "\\.\nbody"), (78, "more")]);
        to.data(11, &["\\.\n\n\n"]);
        to.0
    }

    fn read(bytes: &[u8], chunk: usize) -> Result<Vec<Passed>, CustomError> {
        let mut reader = Reader::default();
        bytes.chunks(chunk).try_for_each(|it| reader.push(it))?;
        reader.finish()
    }

    #[test]
    fn rows_are_counted_whatever_the_pieces() {
        for minor in KNOWN {
            let archive = archive(minor);
            let whole = read(&archive, usize::MAX).expect("an archive");
            let found: Vec<_> = whole.iter().map(|it| (it.schema.as_str(), it.name.as_str(), it.rows)).collect();
            assert_eq!(found, [("Sch öma", "b c", 3), ("public", "a", 0)]);
            let expected = ["1\tx", "2\t\\\\.", "3\ty"]
                .iter()
                .fold(0u128, |sum, line| sum.wrapping_add(twox_hash::XxHash3_128::oneshot(line.as_bytes())));
            assert_eq!(whole[0].hash, format!("{expected:032x}"));
            assert_eq!(whole[1].hash, "0".repeat(32));
            for chunk in 1..60 {
                assert_eq!(read(&archive, chunk).expect("an archive"), whole, "in pieces of {chunk}");
            }
        }
    }

    #[test]
    fn every_missing_end_is_found() {
        let archive = archive(14);
        let ends_of_blocks = (0..archive.len()).filter(|end| read(&archive[..*end], 7).is_ok()).count();
        // After the table of contents, and after each of the first two blocks: what is missing there is missing from the tables.
        assert_eq!(ends_of_blocks, 3);
    }

    #[test]
    fn what_is_no_archive_or_of_another_version_says_so() {
        assert_eq!(read(b"", 1), Err(CustomError::NoArchive));
        assert_eq!(read(b"PGDX", 1), Err(CustomError::NoArchive));
        assert_eq!(read(b"-- a plain dump", 3), Err(CustomError::NoArchive));
        assert_eq!(read(&Written::head(13, 1).0, 9), Err(CustomError::Version { major: 1, minor: 13 }));
        assert_eq!(read(&Written::head(17, 1).0, 9), Err(CustomError::Version { major: 1, minor: 17 }));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(mut bytes: Vec<u8>, at: usize, chunk in 1usize..40, real: bool) {
            if real {
                let mut archive = archive(16);
                let at = at % archive.len();
                archive.splice(at..at, bytes.iter().copied());
                bytes = archive;
            }
            let _ = read(&bytes, chunk);
        }

        #[test]
        fn the_order_of_rows_does_not_matter(mut rows in proptest::collection::vec("[a-z]{0,12}", 0..20)) {
            let of = |rows: &[String]| {
                let mut to = Written::head(15, 1);
                to.entry(1, "TABLE DATA", Some("public"), "t");
                let lines: Vec<String> = rows.iter().map(|it| format!("{it}\n")).chain(["\\.\n".into()]).collect();
                to.data(1, &lines.iter().map(String::as_str).collect::<Vec<_>>());
                read(&to.0, 11).expect("an archive")
            };
            let first = of(&rows);
            rows.reverse();
            prop_assert_eq!(of(&rows), first);
        }
    }
}
