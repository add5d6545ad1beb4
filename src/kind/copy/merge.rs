//! From the staging table into the table: the keys are looked at, then rows are deleted, updated and inserted.

use sqlx::Row;

use super::{CopyCounts, CopyError, Shape, list};
use crate::kind::{Copy, TableRef};
use crate::sql::quote::identifier;
use crate::tables::SqlError;
use crate::tables::end::End;
use crate::tables::shape::Identity;

/// The statements that bring staged rows into the table. In them `s` is the staging table and `t` the target.
pub(super) struct Merge {
    pub(super) staging: String,
    table: String,
    key: Vec<String>,
    columns: Vec<String>,
    /// `GENERATED ALWAYS AS IDENTITY`: may be inserted, never updated. A row that differs there is replaced.
    fixed: Vec<String>,
}

impl Merge {
    pub(super) fn new(shape: &Shape, copy: &Copy) -> Self {
        let fixed = |name: &&String| shape.target.column(name).is_ok_and(|it| it.identity == Identity::Always);
        Self {
            staging: format!("migrate.staging_{}", shape.target.oid),
            table: shape.target.sql.clone(),
            key: copy.key.clone(),
            columns: shape.plan.columns.clone(),
            fixed: shape.plan.columns.iter().filter(fixed).cloned().collect(),
        }
    }

    /// An ordinary table, not a temporary one: a transaction that is to be prepared may not have touched those.
    pub(super) async fn create_staging(&self, target: &mut End<'_>) -> Result<(), SqlError> {
        // Without the question, a role that may not create schemas is refused even where there is nothing to create.
        let question = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = 'migrate'";
        if target.rows("look for schema migrate", question).await?.is_empty() {
            target.run("create schema migrate", "CREATE SCHEMA migrate").await?;
        }
        let columns = list(&self.columns, "");
        let sql =
            format!("CREATE UNLOGGED TABLE {} AS SELECT {columns} FROM {} WITH NO DATA", self.staging, self.table);
        target.run("create the staging table", sql).await.map(drop)
    }

    pub(super) async fn refuse_bad_keys(&self, target: &mut End<'_>, copy: &Copy) -> Result<(), CopyError> {
        let (database, table) = (copy.from.database.clone(), copy.from.table.clone());
        let (columns, keys) = (self.key.join(", "), list(&self.key, ""));
        let null = self.key.iter().map(|name| format!("{} IS NULL", identifier(name))).collect::<Vec<_>>().join(" OR ");
        let row = target.row(KEYS, format!("SELECT count(*) FROM {} WHERE {null}", self.staging)).await?;
        let rows: i64 = row.try_get(0).map_err(|cause| target.error(KEYS, cause))?;
        if rows > 0 {
            return Err(CopyError::NullKeys { database, table, columns, rows: rows.unsigned_abs() });
        }
        let sql = format!(
            "SELECT ROW({keys})::text FROM {} GROUP BY {keys} HAVING count(*) > 1 ORDER BY {keys} LIMIT 3",
            self.staging
        );
        let rows = target.rows(KEYS, sql).await?;
        if rows.is_empty() {
            return Ok(());
        }
        let sample: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
        let sample = sample.map_err(|cause| target.error(KEYS, cause))?.join(", ");
        Err(CopyError::RepeatedKeys { database, table, columns, sample })
    }

    /// Readers go on; a writer in the middle of the merge would leave a table that is like neither side.
    pub(super) fn lock(&self) -> String {
        format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", self.table)
    }

    pub(super) async fn refuse_emptying(&self, target: &mut End<'_>, copy: &Copy, read: u64) -> Result<(), CopyError> {
        let first = format!("SELECT 1 FROM {} LIMIT 1", self.table);
        if read > 0 || target.rows("look at the table", first).await?.is_empty() {
            return Ok(());
        }
        let (TableRef { database, table }, to) = (copy.from.clone(), copy.to.clone());
        Err(CopyError::EmptySource {
            source_database: database,
            source_table: table,
            target_database: to.database,
            target_table: to.table,
        })
    }

    pub(super) async fn apply(&self, target: &mut End<'_>, read: u64) -> Result<CopyCounts, SqlError> {
        let deleted = target.run("delete rows that are gone", self.delete()).await?;
        let updated = match self.update() {
            Some(update) => target.run("update rows that differ", update).await?,
            None => 0,
        };
        let inserted = target.run("insert new rows", self.insert()).await?;
        Ok(CopyCounts { read, inserted, updated, deleted })
    }

    fn delete(&self) -> String {
        let Self { staging, table, .. } = self;
        format!("DELETE FROM {table} AS t WHERE NOT EXISTS (SELECT FROM {staging} AS s WHERE {})", self.matches())
    }

    /// Compared as stored, byte by byte, since 1.0 and 1.00 are equal and yet not the same. The function behind `*<>`,
    /// for between two `ROW(…)` that operator is looked up for each pair of columns, and no type has it but record.
    fn update(&self) -> Option<String> {
        let free: Vec<String> = self.columns.iter().filter(|name| !self.fixed.contains(name)).cloned().collect();
        let set: Vec<String> = free.iter().map(|name| format!("{0} = s.{0}", identifier(name))).collect();
        let (ours, theirs) = (list(&free, "t."), list(&free, "s."));
        (!free.is_empty()).then(|| {
            format!(
                "UPDATE {} AS t SET {} FROM {} AS s WHERE {} AND pg_catalog.record_image_ne(ROW({ours}), ROW({theirs}))",
                self.table,
                set.join(", "),
                self.staging,
                self.matches()
            )
        })
    }

    fn insert(&self) -> String {
        let Self { staging, table, .. } = self;
        let (columns, values) = (list(&self.columns, ""), list(&self.columns, "s."));
        format!(
            "INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values} FROM {staging} AS s \
             WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {})",
            self.matches()
        )
    }

    /// The row of the same key.
    fn matches(&self) -> String {
        let fixed = self.fixed.iter().filter(|name| !self.key.contains(name));
        let each = self.key.iter().chain(fixed).map(|name| format!("t.{0} = s.{0}", identifier(name)));
        each.collect::<Vec<_>>().join(" AND ")
    }
}

const KEYS: &str = "look at the keys of the staged rows";
