//! Two tables side by side: which columns answer to which, and how to ask the servers whether they agree.
//!
//! The quick question is one scan on each side: the number of rows and two sums of digests, which do not depend on any
//! order. The exact one sorts both sides by the bytes of their keys and walks them together.

use std::collections::BTreeMap;

use sqlx::Row;

use crate::kind::TableRef;
use crate::sql::quote::literal;
use crate::tables::end::{End, Ends, both};
use crate::tables::merge::{self, Meeting};
use crate::tables::shape::{Place, Table};
use crate::tables::{SqlError, TablesError, Unfit, canonical};

/// Looks both tables up, and makes sure that they are two, in two databases if the plan says so.
///
/// # Errors
/// One does not exist, both are one, or a catalog cannot be read.
pub async fn find(ends: &mut Ends<'_>, source: &TableRef, target: &TableRef) -> Result<(Table, Table), TablesError> {
    let (here, there) = both(Place::of(&mut ends.source), Place::of(&mut ends.target)).await?;
    let same = here.is(&there);
    if same && source.database != target.database {
        let (source_database, target_database) = (source.database.clone(), target.database.clone());
        return Err(Unfit::OneDatabase { source_database, target_database, dbname: here.dbname }.into());
    }
    let found = both(Table::find(&mut ends.source, source), Table::find(&mut ends.target, target)).await?;
    if same && found.0.oid == found.1.oid {
        return Err(Unfit::OneTable { database: source.database.clone(), table: source.table.clone() }.into());
    }
    Ok(found)
}

/// Two tables and the columns by which they are compared.
#[derive(Debug, Clone)]
pub struct Pair {
    source: Face,
    target: Face,
    /// Columns that tell rows apart.
    pub key: Vec<String>,
    /// Columns that must be equal, without those of the key.
    pub compare: Vec<String>,
    /// Columns that both tables store beside these.
    pub others: Vec<String>,
}

/// One table and the expressions that write its columns canonically.
#[derive(Debug, Clone)]
struct Face {
    table: Table,
    key: Vec<String>,
    compare: Vec<String>,
    others: Vec<String>,
}

/// What one scan of a table says. Equal totals mean equal rows: two different sets would have to agree in 128 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    /// Number of rows.
    pub rows: u64,
    sums: (String, String),
}

/// Which columns are digested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Columns {
    /// The compared ones: one digest.
    Compared,
    /// The compared ones in one digest, then each other column in one of its own.
    Others,
}

impl Pair {
    /// Puts two tables side by side.
    ///
    /// # Errors
    /// There is no key, or a column is missing on either side.
    pub fn new(source: Table, target: Table, key: &[String], compare: &[String]) -> Result<Self, Unfit> {
        if key.is_empty() {
            return Err(Unfit::NoKey { database: source.at.database, table: source.at.table });
        }
        for name in key.iter().chain(compare) {
            source.column(name)?;
            target.column(name)?;
        }
        let compare: Vec<String> = compare.iter().filter(|name| !key.contains(name)).cloned().collect();
        let others = others(&source, &target, key, &compare);
        let (source, target) =
            (face(&source, &target, key, &compare, &others)?, face(&target, &source, key, &compare, &others)?);
        Ok(Self { source, target, key: key.to_vec(), compare, others })
    }

    /// Puts two tables side by side row by row: by `key`, or, where that is empty, by whole rows, of which each one that is there
    /// twice counts twice. All `columns` are compared.
    ///
    /// # Errors
    /// A column is missing on either side.
    pub fn of_rows(source: Table, target: Table, key: &[String], columns: &[String]) -> Result<Self, Unfit> {
        let compare: Vec<String> = columns.iter().filter(|name| !key.contains(name)).cloned().collect();
        let (source, target) =
            (face(&source, &target, key, &compare, &[])?, face(&target, &source, key, &compare, &[])?);
        Ok(Self { source, target, key: key.to_vec(), compare, others: Vec::new() })
    }

    /// Makes sure that the key tells rows apart: by NOT NULL and a unique index, or else by reading the rows. A key column
    /// of a table that may be NULL is refused, whether it is NULL in a row today or not; a view has to be read.
    ///
    /// # Errors
    /// It does not, or a server does not answer.
    pub async fn prove_key(&self, ends: &mut Ends<'_>) -> Result<(), TablesError> {
        both(self.source.prove_key(&mut ends.source, &self.key), self.target.prove_key(&mut ends.target, &self.key))
            .await
            .map(drop)
    }

    /// Scans both tables once, at the same time.
    ///
    /// # Errors
    /// A server does not answer, or a value cannot be written canonically.
    pub async fn totals(&self, ends: &mut Ends<'_>, of: Columns) -> Result<(Totals, Totals), SqlError> {
        both(self.source.totals(&mut ends.source, of), self.target.totals(&mut ends.target, of)).await
    }

    /// Walks both tables in the order of their keys' bytes, in constant memory here; the servers sort.
    ///
    /// # Errors
    /// A server does not answer.
    pub async fn walk(
        &self,
        ends: &mut Ends<'_>,
        of: Columns,
        each: &mut (dyn FnMut(Meeting<'_>) + Send),
    ) -> Result<(), SqlError> {
        let (source, target) = (self.source.ordered(of), self.target.ordered(of));
        merge::walk(ends, (&source, &target), self.key.len(), each).await
    }

    /// Walks both tables as [`Pair::walk`] does, each row with a mark behind its digest: whether `marked`, an expression over the source's
    /// row, is true. Without a key, rows are in the order of their digests, which stand in place of one.
    ///
    /// # Errors
    /// A server does not answer.
    pub async fn walk_marked(
        &self,
        ends: &mut Ends<'_>,
        marked: &str,
        each: &mut (dyn FnMut(Meeting<'_>) + Send),
    ) -> Result<(), SqlError> {
        let (source, target) = (self.source.marked(marked), self.target.marked("false"));
        merge::walk(ends, (&source, &target), self.key.len().max(1), each).await
    }

    /// For each of a few keys that are on both sides, the compared columns that differ.
    ///
    /// # Errors
    /// A server does not answer.
    pub async fn differing(
        &self,
        ends: &mut Ends<'_>,
        keys: &[Vec<String>],
    ) -> Result<BTreeMap<Vec<String>, Vec<String>>, SqlError> {
        let (source, target) =
            both(self.source.digests(&mut ends.source, keys), self.target.digests(&mut ends.target, keys)).await?;
        let named = |(key, ours): (Vec<String>, Vec<String>)| {
            let theirs = target.get(&key)?;
            let pairs = self.compare.iter().zip(ours.iter().zip(theirs));
            let names = pairs.filter(|(_, (ours, theirs))| ours != theirs).map(|(name, _)| name.clone()).collect();
            Some((key, names))
        };
        Ok(source.into_iter().filter_map(named).collect())
    }
}

fn others(source: &Table, target: &Table, key: &[String], compare: &[String]) -> Vec<String> {
    let stored = |table: &Table, name: &str| table.column(name).is_ok_and(|column| !column.generated);
    let names = source.columns.iter().map(|column| column.name.clone());
    let both = names.filter(|name| stored(source, name) && stored(target, name));
    both.filter(|name| !key.contains(name) && !compare.contains(name)).collect()
}

fn face(own: &Table, other: &Table, key: &[String], compare: &[String], others: &[String]) -> Result<Face, Unfit> {
    let texts = |names: &[String]| -> Result<Vec<String>, Unfit> {
        names.iter().map(|name| Ok(canonical::text(own.column(name)?, other.column(name)?))).collect()
    };
    Ok(Face { table: own.clone(), key: texts(key)?, compare: texts(compare)?, others: texts(others)? })
}

const SCAN: &str = "scan the table";

impl Face {
    async fn totals(&self, end: &mut End<'_>, of: Columns) -> Result<Totals, SqlError> {
        let columns = if of == Columns::Compared { &self.compare } else { &self.others };
        let digest = canonical::digest(&[self.key.as_slice(), columns].concat());
        // OFFSET 0 keeps the planner from computing the digest once for each of its halves.
        let sql = format!(
            "SELECT count(*), coalesce(sum(('x' || left(d, 16))::bit(64)::int8), 0)::text, \
               coalesce(sum(('x' || right(d, 16))::bit(64)::int8), 0)::text \
             FROM (SELECT {digest} AS d FROM {} OFFSET 0) AS digests",
            self.table.sql
        );
        let row = end.row(SCAN, sql).await?;
        let read = (|| Ok((row.try_get::<i64, _>(0)?, (row.try_get(1)?, row.try_get(2)?))))();
        let (rows, sums) = read.map_err(|cause| end.error(SCAN, cause))?;
        Ok(Totals { rows: rows.unsigned_abs(), sums })
    }

    fn ordered(&self, of: Columns) -> String {
        let mut columns: Vec<String> = self.key.iter().map(|key| format!("convert_to({key}, 'UTF8')")).collect();
        let places: Vec<String> = (1..=columns.len()).map(|place| place.to_string()).collect();
        columns.push(format!("decode({}, 'hex')", canonical::digest(&self.compare)));
        if of == Columns::Others {
            let each = self.others.iter().map(std::slice::from_ref);
            columns.extend(each.map(|text| format!("decode({}, 'hex')", canonical::digest(text))));
        }
        format!("SELECT {} FROM {} ORDER BY {}", columns.join(", "), self.table.sql, places.join(", "))
    }

    fn marked(&self, marked: &str) -> String {
        let digest = format!("decode({}, 'hex')", canonical::digest(&[self.key.as_slice(), &self.compare].concat()));
        let mut columns: Vec<String> = self.key.iter().map(|key| format!("convert_to({key}, 'UTF8')")).collect();
        if columns.is_empty() {
            columns.push(digest.clone());
        }
        let places: Vec<String> = (1..=columns.len()).map(|place| place.to_string()).collect();
        columns.extend([digest, format!("({marked})")]);
        format!("SELECT {} FROM ONLY {} ORDER BY {}", columns.join(", "), self.table.sql, places.join(", "))
    }

    /// The digest of each compared column, by key.
    async fn digests(
        &self,
        end: &mut End<'_>,
        keys: &[Vec<String>],
    ) -> Result<BTreeMap<Vec<String>, Vec<String>>, SqlError> {
        if keys.is_empty() {
            return Ok(BTreeMap::new());
        }
        let each = self.compare.iter().map(|text| canonical::digest(std::slice::from_ref(text)));
        let columns: Vec<String> = self.key.iter().cloned().chain(each).collect();
        let wanted: Vec<String> = keys.iter().map(|key| tuple(key.iter().map(|part| literal(part)))).collect();
        let sql = format!(
            "SELECT {} FROM {} WHERE {} IN ({})",
            columns.join(", "),
            self.table.sql,
            tuple(self.key.iter().cloned()),
            wanted.join(", ")
        );
        let rows = end.rows(SCAN, sql).await?;
        let read = |row: &sqlx::postgres::PgRow| -> Result<_, sqlx::Error> {
            let mut texts = (0..columns.len()).map(|at| row.try_get::<String, _>(at)).collect::<Result<Vec<_>, _>>()?;
            let digests = texts.split_off(self.key.len());
            Ok((texts, digests))
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(|cause| end.error(SCAN, cause))
    }

    async fn prove_key(&self, end: &mut End<'_>, key: &[String]) -> Result<(), TablesError> {
        let (database, table) = (self.table.at.database.clone(), self.table.at.table.clone());
        let nullable = match self.table.nullable(key) {
            None if !self.table.stored => self.null_in(end, key).await?,
            declared => declared.cloned(),
        };
        if let Some(column) = nullable {
            return Err(Unfit::NullableKey { database, table, column }.into());
        }
        if self.table.keeps_unique(key) {
            return Ok(());
        }
        let keys = self.key.join(", ");
        let sql = format!(
            "SELECT concat_ws(', ', {keys}) FROM {} GROUP BY {keys} HAVING count(*) > 1 LIMIT 1",
            self.table.sql
        );
        let rows = end.rows(SCAN, sql).await?;
        let Some(row) = rows.first() else { return Ok(()) };
        let repeated = row.try_get(0).map_err(|cause| end.error(SCAN, cause))?;
        Err(Unfit::RepeatedKey { database, table, columns: key.join(", "), key: repeated }.into())
    }

    /// A key column that is NULL in some row of a view.
    async fn null_in(&self, end: &mut End<'_>, key: &[String]) -> Result<Option<String>, SqlError> {
        let counts: Vec<String> =
            self.key.iter().map(|text| format!("count(*) FILTER (WHERE {text} IS NULL)")).collect();
        let row = end.row(SCAN, format!("SELECT {} FROM {}", counts.join(", "), self.table.sql)).await?;
        for (at, name) in key.iter().enumerate() {
            let nulls: i64 = row.try_get(at).map_err(|cause| end.error(SCAN, cause))?;
            if nulls > 0 {
                return Ok(Some(name.clone()));
            }
        }
        Ok(None)
    }
}

fn tuple(parts: impl Iterator<Item = String>) -> String {
    format!("({})", parts.collect::<Vec<_>>().join(", "))
}
