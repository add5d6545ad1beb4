//! `kind = "copy"`: the rows of a table in one database brought to a table in another.
//!
//! The rows stream from one server to the other into a staging table, and are merged from there, all in one transaction
//! on the target together with the step's row in the ledger: either everything is there afterwards or nothing is.

mod merge;
mod retry;
mod stream;

pub use self::retry::{CopyEnd, CopySetting, run_with_retries};

use sqlx::PgConnection;

use self::merge::Merge;
use self::stream::stream;
use crate::kind::Copy;
use crate::kind::blockers::Blocker;
use crate::names::DatabaseName;
use crate::sql::quote::identifier;
use crate::tables::end::{CANONICAL_SETTINGS, End, Ends};
use crate::tables::pair::{self, Columns, Pair};
use crate::tables::shape::Table;
use crate::tables::{SqlError, TablesError, Unfit};

/// What a copy would carry.
#[derive(Debug, Clone)]
pub struct CopyPlan {
    /// Columns that are copied, in the order of the source.
    pub columns: Vec<String>,
    /// Columns of the source that the target has no place for and that `omit` does not name.
    pub left_behind: Vec<String>,
    /// Columns of the target that the source does not fill.
    pub untouched: Vec<String>,
    /// Rows of the source, as its last ANALYZE saw them.
    pub source_rows: Option<u64>,
}

/// Whether a copy would change anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pending {
    /// Every copied column of every row is there.
    InSync,
    /// The rows differ.
    Differs {
        /// Rows of the source.
        source_rows: u64,
        /// Rows of the target.
        target_rows: u64,
    },
    /// It cannot be known yet, for the reason given: a migration of the same run may make the table or the column.
    Unknown(String),
}

impl std::fmt::Display for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::InSync => f.write_str("the tables are equal"),
            Self::Differs { source_rows, target_rows } => {
                write!(f, "the tables differ: {source_rows} rows at the source, {target_rows} at the target")
            }
            Self::Unknown(reason) => write!(f, "not known before it runs: {reason}"),
        }
    }
}

/// What a copy did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct CopyCounts {
    /// Rows read from the source.
    pub read: u64,
    /// Rows new at the target.
    pub inserted: u64,
    /// Rows that differed.
    pub updated: u64,
    /// Rows gone at the source.
    pub deleted: u64,
}

/// Why a copy was not made. The target is as it was, save where [`CopyError::Commit`] leaves it open.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum CopyError {
    /// The tables are not fit for it.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Unfit(#[from] Unfit),
    /// The target is a view.
    #[error("{database}: {table} is not a table that rows can be merged into")]
    NotStored {
        /// The target.
        database: DatabaseName,
        /// The table, as typed.
        table: String,
    },
    /// A key column is omitted, or computed by the target.
    #[error("{database}: key column {column} of table {table} is not among the columns that are copied")]
    #[diagnostic(help("take it out of `omit`, or choose another key"))]
    KeyNotCopied {
        /// The target.
        database: DatabaseName,
        /// The table, as typed.
        table: String,
        /// The column.
        column: String,
    },
    /// The target needs a value that the source does not have.
    #[error(
        "{database}: column {column} of table {table} is NOT NULL, has no default, and the source does not fill it"
    )]
    #[diagnostic(help("give it a default, or add it to the source"))]
    NothingForColumn {
        /// The target.
        database: DatabaseName,
        /// The table, as typed.
        table: String,
        /// The column.
        column: String,
    },
    /// The source is empty and the target is not.
    #[error("{source_database}.{source_table} is empty; it would empty {target_database}.{target_table}")]
    #[diagnostic(help("fill the source first; to empty the target on purpose, write a migration that does"))]
    EmptySource {
        /// The source.
        source_database: DatabaseName,
        /// Its table, as typed.
        source_table: String,
        /// The target.
        target_database: DatabaseName,
        /// Its table, as typed.
        target_table: String,
    },
    /// Rows of the source have no key.
    #[error("{database}: table {table}: {rows} rows have NULL in the key ({columns})")]
    NullKeys {
        /// The source.
        database: DatabaseName,
        /// The table, as typed.
        table: String,
        /// The key's columns.
        columns: String,
        /// How many rows.
        rows: u64,
    },
    /// Rows of the source share a key.
    #[error("{database}: table {table}: key ({columns}) is not unique, for example {sample}")]
    RepeatedKeys {
        /// The source.
        database: DatabaseName,
        /// The table, as typed.
        table: String,
        /// The key's columns.
        columns: String,
        /// Some such keys.
        sample: String,
    },
    /// COMMIT failed. If the server refused it, the target is as it was; if the connection was lost, only the ledger
    /// knows.
    #[error("{database}: cannot commit the copy")]
    Commit {
        /// The target.
        database: DatabaseName,
        /// What the server or the driver says.
        #[source]
        cause: sqlx::Error,
    },
    /// It did not get its lock on any try.
    #[error("{error}")]
    #[diagnostic(help("{}", in_the_way(.blockers)))]
    Locked {
        /// Of the last try.
        #[source]
        error: Box<CopyError>,
        /// Who was in its way.
        blockers: Vec<Blocker>,
    },
    /// A database did not do what it was asked.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Sql(#[from] SqlError),
}

fn in_the_way(blockers: &[Blocker]) -> String {
    let found: String = blockers.iter().map(|it| format!("\n  {it}")).collect();
    let seen = if found.is_empty() { " It could not be seen which.".into() } else { format!(" On the last:{found}\n") };
    format!(
        "Other sessions were in the way on every try.{seen}Wait for them or end them (pg_terminate_backend), or give the step a \
         longer lock_timeout, or its run more lock_retries."
    )
}

impl CopyError {
    /// What the server or the driver said, for those who retry.
    #[must_use]
    pub fn cause(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Sql(error) => Some(&error.cause),
            Self::Commit { cause, .. } => Some(cause),
            Self::Locked { error, .. } => error.cause(),
            _ => None,
        }
    }
}

impl From<TablesError> for CopyError {
    fn from(error: TablesError) -> Self {
        match error {
            TablesError::Unfit(unfit) => Self::Unfit(unfit),
            TablesError::Sql(error) => Self::Sql(error),
        }
    }
}

/// What the copy would carry, from the catalogs alone.
///
/// # Errors
/// The copy is impossible, or a server does not answer.
pub async fn inspect(source: &mut PgConnection, target: &mut PgConnection, copy: &Copy) -> Result<CopyPlan, CopyError> {
    let mut ends = ends(source, target, copy);
    let shape = match ends.begin_reading().await {
        Ok(()) => shape(&mut ends, copy).await,
        Err(error) => Err(error.into()),
    };
    ends.rollback().await;
    shape.map(|shape| shape.plan)
}

/// Would there be anything to do? One scan of each table.
///
/// # Errors
/// The copy is impossible, or a server does not answer.
pub async fn compare(source: &mut PgConnection, target: &mut PgConnection, copy: &Copy) -> Result<Pending, CopyError> {
    let mut ends = ends(source, target, copy);
    let pending = look(&mut ends, copy).await;
    ends.rollback().await;
    match pending {
        Err(CopyError::Unfit(unfit @ (Unfit::NoTable { .. } | Unfit::NoColumn { .. }))) => {
            Ok(Pending::Unknown(unfit.to_string()))
        }
        pending => pending,
    }
}

async fn look(ends: &mut Ends<'_>, copy: &Copy) -> Result<Pending, CopyError> {
    ends.begin_reading().await?;
    let Shape { source, target, plan, .. } = shape(ends, copy).await?;
    let pair = Pair::new(source, target, &copy.key, &plan.columns)?;
    ends.pin_search_path().await?;
    let (here, there) = pair.totals(ends, Columns::Compared).await?;
    Ok(if here == there {
        Pending::InSync
    } else {
        Pending::Differs { source_rows: here.rows, target_rows: there.rows }
    })
}

/// Copies the rows, and commits them together with `ledger_sql`. Both connections must be in no transaction, and are in
/// none afterwards. `settings` are `SET LOCAL` statements for both transactions; `progress` hears of bytes and rows that
/// were read. If the future is dropped before its end, close the connections.
///
/// # Errors
/// The copy is impossible, would empty the target, or a server did not answer. The target is as it was; see
/// [`CopyError::Commit`] for the one exception.
pub async fn run(
    source: &mut PgConnection,
    target: &mut PgConnection,
    copy: &Copy,
    ledger_sql: &str,
    settings: &str,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<CopyCounts, CopyError> {
    let mut ends = ends(source, target, copy);
    let done = transfer(&mut ends, copy, ledger_sql, settings, progress).await;
    match done {
        Ok(_) => ends.source.rollback().await,
        Err(_) => ends.rollback().await,
    }
    done
}

async fn transfer(
    ends: &mut Ends<'_>,
    copy: &Copy,
    ledger_sql: &str,
    settings: &str,
    progress: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<CopyCounts, CopyError> {
    ends.source.begin_reading().await?;
    ends.target.run("begin", format!("{WRITING} {CANONICAL_SETTINGS}")).await?;
    for end in [&mut ends.source, &mut ends.target] {
        end.run("apply the settings of the step", settings).await?;
    }
    let shape = shape(ends, copy).await?;
    let merge = Merge::new(&shape, copy);
    merge.create_staging(&mut ends.target).await?;
    let read = stream(ends, &shape, &merge.staging, progress).await?;
    ends.target.run("analyse the staged rows", format!("ANALYZE {}", merge.staging)).await?;
    merge.refuse_bad_keys(&mut ends.target, copy).await?;
    ends.target.run("lock the table against other writers", merge.lock()).await?;
    merge.refuse_emptying(&mut ends.target, copy, read).await?;
    let counts = merge.apply(&mut ends.target, read).await?;
    ends.target.run("drop the staged rows", format!("DROP TABLE {}", merge.staging)).await?;
    ends.target.run("record the copy in the ledger", ledger_sql).await?;
    commit(&mut ends.target).await?;
    Ok(counts)
}

/// Said in full, so that no default of a role or a database comes in. Each statement of the merge has to see what was
/// committed until the lock was had.
const WRITING: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;";

async fn commit(target: &mut End<'_>) -> Result<(), CopyError> {
    let committed = target.run("commit the copy", "COMMIT").await;
    committed.map(drop).map_err(|SqlError { database, cause, .. }| CopyError::Commit { database, cause })
}

fn ends<'a>(source: &'a mut PgConnection, target: &'a mut PgConnection, copy: &'a Copy) -> Ends<'a> {
    Ends {
        source: End { database: &copy.from.database, conn: source },
        target: End { database: &copy.to.database, conn: target },
    }
}

/// Both tables as they are now, and what is copied between them.
struct Shape {
    source: Table,
    target: Table,
    plan: CopyPlan,
}

async fn shape(ends: &mut Ends<'_>, copy: &Copy) -> Result<Shape, CopyError> {
    let (source, target) = pair::find(ends, &copy.from, &copy.to).await?;
    let plan = plan(&source, &target, copy)?;
    Ok(Shape { source, target, plan })
}

fn plan(source: &Table, target: &Table, copy: &Copy) -> Result<CopyPlan, CopyError> {
    let (database, table) = (&target.at.database, &target.at.table);
    if !target.stored {
        return Err(CopyError::NotStored { database: database.clone(), table: table.clone() });
    }
    if copy.key.is_empty() {
        return Err(Unfit::NoKey { database: database.clone(), table: table.clone() }.into());
    }
    for name in copy.key.iter().chain(&copy.omit) {
        source.column(name)?;
    }
    for name in &copy.key {
        target.column(name)?;
    }
    let writable = |name: &String| target.column(name).is_ok_and(|column| !column.generated);
    let offered = source.columns.iter().map(|column| column.name.clone()).filter(|name| !copy.omit.contains(name));
    let (columns, left_behind): (Vec<String>, Vec<String>) = offered.partition(writable);
    if let Some(column) = copy.key.iter().find(|name| !columns.contains(name)).cloned() {
        return Err(CopyError::KeyNotCopied { database: database.clone(), table: table.clone(), column });
    }
    let untouched = untouched(target, &columns)?;
    Ok(CopyPlan { columns, left_behind, untouched, source_rows: source.estimate })
}

/// Columns that only the target has; each must be able to do without the source.
fn untouched(target: &Table, columns: &[String]) -> Result<Vec<String>, CopyError> {
    let rest = target.columns.iter().filter(|column| !columns.contains(&column.name));
    let needy = rest.clone().find(|column| column.not_null && !column.default && !column.generated);
    match needy {
        None => Ok(rest.map(|column| column.name.clone()).collect()),
        Some(column) => Err(CopyError::NothingForColumn {
            database: target.at.database.clone(),
            table: target.at.table.clone(),
            column: column.name.clone(),
        }),
    }
}

fn list(names: &[String], prefix: &str) -> String {
    names.iter().map(|name| format!("{prefix}{}", identifier(name))).collect::<Vec<_>>().join(", ")
}
