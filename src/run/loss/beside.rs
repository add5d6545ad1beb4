//! A table beside the same table of a warm copy: both are read in the order of a key and walked together.

use sqlx::PgConnection;

use crate::kind::TableRef;
use crate::names::DatabaseName;
use crate::tables::end::{End, Ends};
use crate::tables::merge::Meeting;
use crate::tables::pair::{self, Pair};
use crate::tables::shape::Table;
use crate::tables::{TablesError, Unfit};

use super::TableLoss;

/// What differs.
#[derive(Debug, Default)]
pub(super) struct Found {
    inserted: u64,
    updated: u64,
    deleted: u64,
    by: &'static str,
}

impl Found {
    pub(super) fn of(self, table: String, by_run: u64) -> TableLoss {
        let Self { inserted, updated, deleted, by } = self;
        TableLoss { table, inserted, updated, deleted, exact: true, by, by_run }
    }
}

/// Compares; none if the table is in one of the two alone, or cannot be named here. `of_run` is true of rows of the live table that
/// the run wrote, which are not counted.
pub(super) async fn compare(
    database: &DatabaseName,
    live: &mut PgConnection,
    copy: &mut PgConnection,
    (schema, name): (&str, &str),
    of_run: &str,
) -> Result<Option<Found>, TablesError> {
    // The name is cut at the first dot.
    if schema.contains('.') {
        return Ok(None);
    }
    let at = TableRef { database: database.clone(), table: format!("{schema}.{name}") };
    let (source, target) = (End { database, conn: live }, End { database, conn: copy });
    let mut ends = Ends { source, target };
    let compared = walk(&mut ends, &at, of_run).await;
    ends.rollback().await;
    match compared {
        Err(TablesError::Unfit(Unfit::NoTable { .. })) => Ok(None),
        compared => compared.map(Some),
    }
}

async fn walk(ends: &mut Ends<'_>, at: &TableRef, of_run: &str) -> Result<Found, TablesError> {
    ends.begin_reading().await?;
    let (live, copy) = pair::find(ends, at, at).await?;
    let columns = in_both(&live, &copy);
    let key = live.row_key().filter(|key| copy.row_key().is_some() && key.iter().all(|it| columns.contains(it)));
    let (by, key) = match key {
        Some(key) => ("key", key.to_vec()),
        None => ("row", Vec::new()),
    };
    let pair = Pair::of_rows(live, copy, &key, &columns)?;
    ends.pin_search_path().await?;
    let mut found = Found { by, ..Found::default() };
    let keys = key.len().max(1);
    pair.walk_marked(ends, of_run, &mut |meeting| found.note(&meeting, keys)).await?;
    Ok(found)
}

impl Found {
    /// The digest of the row comes behind its key, and the mark behind that.
    fn note(&mut self, meeting: &Meeting<'_>, keys: usize) {
        let by_run = |row: &[bytes::Bytes]| row.last().is_some_and(|mark| mark.first() == Some(&1));
        match meeting {
            Meeting::SourceOnly(row) => self.inserted += u64::from(!by_run(row)),
            Meeting::TargetOnly(_) => self.deleted += 1,
            Meeting::Both(row, other) => self.updated += u64::from(row.get(keys) != other.get(keys) && !by_run(row)),
        }
    }
}

/// The columns that are stored on both sides.
fn in_both(live: &Table, copy: &Table) -> Vec<String> {
    let stored = |table: &Table, name: &str| table.column(name).is_ok_and(|it| !it.generated);
    let names = live.columns.iter().map(|it| it.name.clone());
    names.filter(|name| stored(live, name) && stored(copy, name)).collect()
}
