//! The rows on their way: from one server to the other, never more than a piece of them here.

use crate::crash;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use sqlx::PgConnection;
use sqlx::postgres::PgCopyIn;

use super::{CopyError, Shape, list};
use crate::tables::SqlError;
use crate::tables::end::Ends;

/// Rows are handed on in pieces of about this size.
const PIECE: usize = 64 * 1024;

/// Carries the rows from server to server. The source is read no faster than the target takes them.
pub(super) async fn stream(
    ends: &mut Ends<'_>,
    shape: &Shape,
    staging: &str,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<u64, CopyError> {
    let columns = list(&shape.plan.columns, "");
    let query = format!("SELECT {columns} FROM {}", shape.source.sql);
    ends.source.expect_to_run(READ, &query).await?;
    let (source, target) = (ends.source.database, ends.target.database);
    let here = |cause| SqlError { database: source.clone(), doing: READ, cause };
    let there = |cause| SqlError { database: target.clone(), doing: STAGE, cause };
    crash::point("rows before", staging);
    let mut sink =
        ends.target.conn.copy_in_raw(&format!("COPY {staging} ({columns}) FROM STDIN")).await.map_err(there)?;
    let pumped = match ends.source.conn.copy_out_raw(&format!("COPY ({query}) TO STDOUT")).await {
        Ok(rows) => pump(rows, &mut sink, progress).await,
        Err(cause) => Err(Broken::Source(cause)),
    };
    // Finished even where the source broke off: `abort` loses its place in the protocol if the server has refused a row
    // already, and the transaction is rolled back in either case.
    let finished = sink.finish().await;
    crash::point("rows after", staging);
    match pumped {
        Ok(()) => Ok(finished.map_err(there)?),
        Err(Broken::Source(cause)) => Err(here(cause).into()),
        Err(Broken::Target(cause)) => Err(there(cause).into()),
    }
}

/// Which end of the stream broke.
enum Broken {
    Source(sqlx::Error),
    Target(sqlx::Error),
}

async fn pump(
    mut rows: BoxStream<'_, Result<Bytes, sqlx::Error>>,
    sink: &mut PgCopyIn<&mut PgConnection>,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<(), Broken> {
    let mut meter = Meter { bytes: 0, rows: 0, progress };
    let mut piece = BytesMut::with_capacity(2 * PIECE);
    loop {
        let chunk = rows.try_next().await.map_err(Broken::Source)?;
        piece.extend_from_slice(chunk.as_deref().unwrap_or_default());
        if piece.len() < PIECE && chunk.is_some() {
            continue;
        }
        if let Err(cause) = sink.send(piece.as_ref()).await {
            // An unread rest would be taken for the reply to ROLLBACK.
            while let Ok(Some(_)) = rows.try_next().await {}
            return Err(Broken::Target(cause));
        }
        meter.passed(&piece);
        piece.clear();
        if chunk.is_none() {
            return Ok(());
        }
    }
}

const READ: &str = "read the rows";
const STAGE: &str = "stage the rows";

/// What has gone by.
struct Meter<'a> {
    bytes: u64,
    rows: u64,
    progress: &'a (dyn Fn(u64, u64) + Send + Sync),
}

impl Meter<'_> {
    /// In COPY's text format a raw line feed ends a row; those inside a value are escaped.
    fn passed(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.rows += piece.iter().filter(|byte| **byte == b'\n').count() as u64;
        (self.progress)(self.bytes, self.rows);
    }
}
