//! What the catalog says about a table: its columns, and whether a key tells its rows apart.

use sqlx::Row;

use crate::kind::TableRef;
use crate::sql::quote::{identifier, literal};
use crate::tables::end::End;
use crate::tables::{SqlError, TablesError, Unfit};

/// A table that exists.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its name in the plan.
    pub at: TableRef,
    /// Its oid.
    pub oid: i64,
    /// Schema and name, quoted: means the same table under every search path.
    pub sql: String,
    /// An ordinary or partitioned table, not a view.
    pub stored: bool,
    /// Rows, as the last ANALYZE saw them.
    pub estimate: Option<u64>,
    /// Its columns, in order.
    pub columns: Vec<Column>,
    /// Sets of columns that unique indexes hold.
    unique: Vec<Vec<String>>,
}

/// A column of a table.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The server's own type below all domains (`int4`, `timestamptz`), or empty for a type of an extension.
    pub base: String,
    /// Declared NOT NULL.
    pub not_null: bool,
    /// Computed by the server.
    pub generated: bool,
    /// `GENERATED … AS IDENTITY`.
    pub identity: Identity,
    /// Has a default or an identity.
    pub default: bool,
}

/// `GENERATED … AS IDENTITY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// No identity.
    No,
    /// `BY DEFAULT`: may be written.
    ByDefault,
    /// `ALWAYS`: may be inserted with `OVERRIDING SYSTEM VALUE`, and never updated.
    Always,
}

impl Table {
    /// Looks the table up. `table` is taken by the connection's search path, `schema.table` as it stands; both exactly as
    /// spelt, without folding of upper case.
    ///
    /// # Errors
    /// It is not there, is no table, or the catalog cannot be read.
    pub async fn find(end: &mut End<'_>, at: &TableRef) -> Result<Self, TablesError> {
        let name: Vec<String> = at.table.splitn(2, '.').map(identifier).collect();
        let sql = format!(
            "SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text, c.reltuples::float8, \
               c.relkind = 'p' OR NOT c.relhassubclass \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.oid = pg_catalog.to_regclass({})",
            literal(&name.join("."))
        );
        let rows = end.rows(READ, sql).await?;
        let (database, table) = (at.database.clone(), at.table.clone());
        let Some(row) = rows.first() else { return Err(Unfit::NoTable { database, table }.into()) };
        let read = |index| row.try_get::<String, _>(index).map_err(|cause| end.error(READ, cause));
        let (schema, name, kind) = (read(1)?, read(2)?, read(3)?);
        if !["r", "p", "v", "m", "f"].contains(&kind.as_str()) {
            return Err(Unfit::NotATable { database, table }.into());
        }
        let decoded = (|| Ok((row.try_get(0)?, row.try_get::<f64, _>(4)?, row.try_get::<bool, _>(5)?)))();
        let (oid, rows, whole): (i64, f64, bool) = decoded.map_err(|cause| end.error(READ, cause))?;
        Ok(Self {
            at: at.clone(),
            oid,
            sql: format!("{}.{}", identifier(&schema), identifier(&name)),
            stored: matches!(kind.as_str(), "r" | "p"),
            estimate: estimate(rows),
            columns: columns(end, oid).await?,
            unique: if whole { unique(end, oid).await? } else { Vec::new() },
        })
    }

    /// The column of this name.
    ///
    /// # Errors
    /// There is none.
    pub fn column(&self, name: &str) -> Result<&Column, Unfit> {
        self.columns.iter().find(|column| column.name == name).ok_or_else(|| Unfit::NoColumn {
            database: self.at.database.clone(),
            table: self.at.table.clone(),
            column: name.to_owned(),
        })
    }

    /// The columns by which the table's rows are told apart: of a unique index whose columns are all NOT NULL.
    #[must_use]
    pub fn row_key(&self) -> Option<&[String]> {
        let whole = |columns: &&Vec<String>| self.nullable(columns).is_none();
        self.unique.iter().filter(whole).min_by_key(|columns| columns.len()).map(Vec::as_slice)
    }

    /// The catalog alone proves that no two rows have the same key.
    pub(super) fn keeps_unique(&self, key: &[String]) -> bool {
        self.unique.iter().any(|columns| columns.iter().all(|column| key.contains(column)))
    }

    /// A key column that a row may leave empty. The catalog knows it of tables only; a view has to be read.
    pub(super) fn nullable<'a>(&self, key: &'a [String]) -> Option<&'a String> {
        let not_null = |name: &str| self.columns.iter().any(|column| column.name == name && column.not_null);
        key.iter().find(|name| self.stored && !not_null(name))
    }
}

const READ: &str = "read the catalog";

/// `reltuples` is -1 before the first ANALYZE.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate of rows is a whole number")]
fn estimate(rows: f64) -> Option<u64> {
    (rows >= 0.0).then_some(rows as u64)
}

async fn columns(end: &mut End<'_>, oid: i64) -> Result<Vec<Column>, SqlError> {
    let sql = format!(
        "WITH RECURSIVE below AS ( \
           SELECT a.attnum, a.atttypid AS type FROM pg_catalog.pg_attribute a \
           WHERE a.attrelid = {oid} AND a.attnum > 0 AND NOT a.attisdropped \
           UNION ALL SELECT b.attnum, t.typbasetype FROM below b JOIN pg_catalog.pg_type t ON t.oid = b.type \
           WHERE t.typtype = 'd') \
         SELECT a.attname::text, \
           CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN t.typname::text ELSE '' END, \
           a.attnotnull, a.attgenerated <> '', a.attidentity::text, a.atthasdef OR a.attidentity <> '' \
         FROM pg_catalog.pg_attribute a JOIN below b USING (attnum) \
           JOIN pg_catalog.pg_type t ON t.oid = b.type AND t.typtype <> 'd' \
         WHERE a.attrelid = {oid} ORDER BY a.attnum"
    );
    let rows = end.rows(READ, sql).await?;
    rows.iter().map(column).collect::<Result<_, _>>().map_err(|cause| end.error(READ, cause))
}

fn column(row: &sqlx::postgres::PgRow) -> Result<Column, sqlx::Error> {
    let identity = match row.try_get::<&str, _>(4)? {
        "a" => Identity::Always,
        "d" => Identity::ByDefault,
        _ => Identity::No,
    };
    Ok(Column {
        name: row.try_get(0)?,
        base: row.try_get(1)?,
        not_null: row.try_get(2)?,
        generated: row.try_get(3)?,
        identity,
        default: row.try_get(5)?,
    })
}

/// Each unique index on plain columns of all rows. One row per column, so that a name may hold any character.
async fn unique(end: &mut End<'_>, oid: i64) -> Result<Vec<Vec<String>>, SqlError> {
    let sql = format!(
        "SELECT i.indexrelid::int8, a.attname::text FROM pg_catalog.pg_index i \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1]) \
         WHERE i.indrelid = {oid} AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL \
         ORDER BY 1"
    );
    let rows = end.rows(READ, sql).await?;
    let mut indexes = std::collections::BTreeMap::<i64, Vec<String>>::new();
    for row in &rows {
        let read = (|| Ok((row.try_get(0)?, row.try_get(1)?)))();
        let (index, column): (i64, String) = read.map_err(|cause| end.error(READ, cause))?;
        indexes.entry(index).or_default().push(column);
    }
    Ok(indexes.into_values().collect())
}

/// Which database a connection is really in, whatever its URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The cluster's identifier, where the role may see it.
    system: Option<String>,
    /// When the server started: tells servers apart where the identifier is hidden.
    started: String,
    oid: i64,
    pub(super) dbname: String,
}

impl Place {
    pub(super) async fn of(end: &mut End<'_>) -> Result<Self, SqlError> {
        let sql = "SELECT pg_catalog.pg_postmaster_start_time()::text, d.oid::int8, d.datname::text, \
                     pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'execute') \
                   FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";
        let row = end.row(READ, sql).await?;
        let read = (|| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?)))();
        let (started, oid, dbname, allowed): (_, _, _, bool) = read.map_err(|cause| end.error(READ, cause))?;
        let system = if allowed { Some(system_identifier(end).await?) } else { None };
        Ok(Self { system, started, oid, dbname })
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        let same_server = match (&self.system, &other.system) {
            (Some(one), Some(two)) => one == two,
            _ => self.started == other.started,
        };
        same_server && self.oid == other.oid
    }
}

async fn system_identifier(end: &mut End<'_>) -> Result<String, SqlError> {
    let row = end.row(READ, "SELECT system_identifier::text FROM pg_catalog.pg_control_system()").await?;
    row.try_get(0).map_err(|cause| end.error(READ, cause))
}
