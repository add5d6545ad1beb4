//! Two streams of rows, each in the order of its keys, walked side by side in constant memory.
//!
//! The rows come by `COPY … (FORMAT binary)`: keys as they are, nothing to unescape, and no end that could be missed.

use std::cmp::Ordering;

use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use sqlx::PgConnection;

use crate::tables::SqlError;
use crate::tables::end::{Ends, both};

/// A row as read: the bytes of its key's columns, then digests.
pub type Fields = Vec<Bytes>;

/// What was met at a key.
#[derive(Debug)]
pub enum Meeting<'a> {
    /// A row that only the source has.
    SourceOnly(&'a Fields),
    /// A row that only the target has.
    TargetOnly(&'a Fields),
    /// Rows with this key on both sides.
    Both(&'a Fields, &'a Fields),
}

/// Reads both queries to their end and reports each key, in the order of the keys' bytes. The first `keys` columns of
/// both are the key.
pub(super) async fn walk(
    ends: &mut Ends<'_>,
    queries: (&str, &str),
    keys: usize,
    each: &mut (dyn FnMut(Meeting<'_>) + Send),
) -> Result<(), SqlError> {
    both(ends.source.expect_to_run(READ, queries.0), ends.target.expect_to_run(READ, queries.1)).await?;
    let (of_source, of_target) = {
        let opened = futures::join!(Rows::open(ends.source.conn, queries.0), Rows::open(ends.target.conn, queries.1));
        let (mut source, mut target) = opened;
        if step_through(&mut source, &mut target, keys, each).await.is_err() {
            // An unread rest would be taken for the reply to ROLLBACK.
            futures::join!(source.drain(), target.drain());
        }
        (source.failed, target.failed)
    };
    let failed = of_source.map(|cause| ends.source.error(READ, cause));
    failed.or_else(|| of_target.map(|cause| ends.target.error(READ, cause))).map_or(Ok(()), Err)
}

const READ: &str = "read the rows in the order of their keys";

/// One of the streams has failed; which, and why, is kept there.
struct Failed;

async fn step_through(
    source: &mut Rows<'_>,
    target: &mut Rows<'_>,
    keys: usize,
    each: &mut (dyn FnMut(Meeting<'_>) + Send),
) -> Result<(), Failed> {
    let (mut left, mut right) = both(source.next(), target.next()).await?;
    loop {
        match order(left.as_ref(), right.as_ref(), keys) {
            Some((Ordering::Less, row, _)) => {
                each(Meeting::SourceOnly(row));
                left = source.next().await?;
            }
            Some((Ordering::Greater, _, row)) => {
                each(Meeting::TargetOnly(row));
                right = target.next().await?;
            }
            Some((Ordering::Equal, row, other)) => {
                each(Meeting::Both(row, other));
                (left, right) = both(source.next(), target.next()).await?;
            }
            None => return Ok(()),
        }
    }
}

/// Which row comes first; a stream that has ended comes after every row. None where both have.
fn order<'a>(
    left: Option<&'a Fields>,
    right: Option<&'a Fields>,
    keys: usize,
) -> Option<(Ordering, &'a Fields, &'a Fields)> {
    match (left, right) {
        (Some(left), Some(right)) => Some((left.iter().take(keys).cmp(right.iter().take(keys)), left, right)),
        (Some(left), None) => Some((Ordering::Less, left, left)),
        (None, Some(right)) => Some((Ordering::Greater, right, right)),
        (None, None) => None,
    }
}

/// A `COPY … TO STDOUT (FORMAT binary)` that is being read.
struct Rows<'a> {
    stream: BoxStream<'a, Result<Bytes, sqlx::Error>>,
    buffer: BytesMut,
    begun: bool,
    failed: Option<sqlx::Error>,
}

impl<'a> Rows<'a> {
    /// A refusal is reported by the first [`next`](Self::next).
    async fn open(conn: &'a mut PgConnection, query: &str) -> Self {
        let opened = conn.copy_out_raw(&format!("COPY ({query}) TO STDOUT (FORMAT binary)")).await;
        let (stream, failed) = match opened {
            Ok(stream) => (stream, None),
            Err(cause) => (futures::stream::empty().boxed(), Some(cause)),
        };
        Self { stream, buffer: BytesMut::new(), begun: false, failed }
    }

    /// The next row; None after the last.
    async fn next(&mut self) -> Result<Option<Fields>, Failed> {
        loop {
            match take(&mut self.buffer, &mut self.begun) {
                Taken::Row(fields) => return Ok(Some(fields)),
                Taken::Nothing => {}
            }
            match self.stream.next().await {
                Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
                Some(Err(cause)) => {
                    self.failed = Some(cause);
                    return Err(Failed);
                }
                None if self.failed.is_some() => return Err(Failed),
                None => return Ok(None),
            }
        }
    }

    async fn drain(&mut self) {
        while let Some(Ok(_)) = self.stream.next().await {}
    }
}

enum Taken {
    Row(Fields),
    /// No whole row is here, or the trailer is.
    Nothing,
}

/// Signature, flags and the length of an extension that no server sends.
const HEADER: usize = 19;

fn take(buffer: &mut BytesMut, begun: &mut bool) -> Taken {
    if !*begun && buffer.len() >= HEADER {
        buffer.advance(HEADER);
        *begun = true;
    }
    match whole_row(buffer) {
        Some(lengths) if *begun => Taken::Row(split(buffer, &lengths)),
        _ => Taken::Nothing,
    }
}

/// The lengths of the fields of a row that is wholly here; a NULL has none. The trailer is a row of -1 fields.
fn whole_row(buffer: &[u8]) -> Option<Vec<Option<usize>>> {
    let (count, mut rest) = buffer.split_first_chunk::<2>()?;
    let count = usize::try_from(i16::from_be_bytes(*count)).ok()?;
    let mut lengths = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(i32::from_be_bytes(*length)).ok();
        rest = after.get(length.unwrap_or(0)..)?;
        lengths.push(length);
    }
    Some(lengths)
}

fn split(buffer: &mut BytesMut, lengths: &[Option<usize>]) -> Fields {
    buffer.advance(2);
    let field = |length: &Option<usize>| {
        buffer.advance(4);
        buffer.split_to(length.unwrap_or(0)).freeze()
    };
    lengths.iter().map(field).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows of two fields and the trailer, as a server sends them.
    fn sent() -> Vec<u8> {
        let mut bytes = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        for (key, digest) in [("a", "12"), ("b\n\\", "")] {
            bytes.extend(2_i16.to_be_bytes());
            for field in [key, digest] {
                bytes.extend(i32::try_from(field.len()).expect("short").to_be_bytes());
                bytes.extend(field.as_bytes());
            }
        }
        bytes.extend((-1_i16).to_be_bytes());
        bytes
    }

    #[test]
    fn rows_are_the_same_however_the_stream_is_cut() {
        for size in 1..=sent().len() {
            let (mut buffer, mut begun, mut rows) = (BytesMut::new(), false, Vec::new());
            for chunk in sent().chunks(size) {
                buffer.extend_from_slice(chunk);
                while let Taken::Row(row) = take(&mut buffer, &mut begun) {
                    rows.push(row);
                }
            }
            assert_eq!(rows, [["a", "12"].map(Bytes::from), ["b\n\\", ""].map(Bytes::from)], "chunks of {size}");
        }
    }

    #[test]
    fn keys_are_ordered_column_by_column() {
        let fields = |texts: [&'static str; 3]| texts.map(Bytes::from).to_vec();
        let (left, right) = (fields(["a", "b", "9"]), fields(["ab", "", "0"]));
        assert!(matches!(order(Some(&left), Some(&right), 2), Some((Ordering::Less, ..))));
        assert!(matches!(order(Some(&left), Some(&fields(["a", "b", "0"])), 2), Some((Ordering::Equal, ..))));
    }
}
