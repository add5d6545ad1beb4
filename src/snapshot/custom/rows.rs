//! The rows of each table, counted and hashed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use twox_hash::xxhash3_128::Hasher;

use super::{CustomError, Entry, Reader, TABLE_DATA, Watches};

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

/// Counts and hashes the rows of every table that passes.
#[derive(Default)]
pub struct Counting {
    tables: BTreeMap<i64, (String, String)>,
    rows: Option<Rows>,
    passed: Vec<Passed>,
}

impl Watches for Counting {
    fn entry(&mut self, entry: &Entry<'_>) {
        if entry.kind == TABLE_DATA {
            self.tables.insert(entry.id, (entry.schema(), entry.name()));
        }
    }

    fn begin(&mut self, id: i64) {
        self.rows = self.tables.get(&id).map(|(schema, name)| Rows::of(schema, name));
    }

    fn body(&mut self, bytes: &[u8]) {
        if let Some(rows) = &mut self.rows {
            rows.push(bytes);
        }
    }

    fn end(&mut self) -> Result<(), CustomError> {
        let ended = self.rows.take().map(Rows::end).transpose()?;
        self.passed.extend(ended);
        Ok(())
    }
}

impl Reader<Counting> {
    /// What passed, in the order in which it came.
    ///
    /// # Errors
    /// The archive ended in the middle.
    pub fn finish(self) -> Result<Vec<Passed>, CustomError> {
        self.ended()?;
        Ok(self.watcher.passed)
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
