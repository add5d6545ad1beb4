//! `rollback --save-writes`: the rows that applications wrote since, as COPY text in the store, encrypted where archives are, with a
//! script that loads them.
//!
//! It is done once what takes the live database's place is there, which says what columns there will be, and before the exchange.
//! What is written between the two is in the replaced database.

use futures::StreamExt;
use serde::Serialize;
use sqlx::{PgConnection, Row};

use crate::journal;
use crate::names::{DatabaseName, RunId};
use crate::outside::clock;
use crate::outside::encryption::{Encrypting, Recipient};
use crate::outside::postgres::{PgError, ask, ask_one, connect, query_error};
use crate::outside::store::{PART, Store, StoreError, Upload};
use crate::outside::url::DatabaseUrl;
use crate::sql::quote::{identifier, literal};

use super::loss::Writes;

/// Why writes were not saved.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum NotSaved {
    /// A database failed.
    #[error("{database}: what was written since could not be saved: {source}")]
    #[diagnostic(
        code("writes.database"),
        help(
            "No database was exchanged. Run the same command without --save-writes: the replaced database keeps what was written."
        )
    )]
    Database {
        /// Which.
        database: DatabaseName,
        /// How.
        #[source]
        #[diagnostic_source]
        source: PgError,
    },
    /// The store failed.
    #[error("{database}: what was written since could not be saved: {source}")]
    #[diagnostic(
        code("writes.store"),
        help(
            "No database was exchanged. Run the same command without --save-writes: the replaced database keeps what was written."
        )
    )]
    Store {
        /// Which.
        database: DatabaseName,
        /// How.
        #[source]
        #[diagnostic_source]
        source: StoreError,
    },
    /// They could not be encrypted.
    #[error("{database}: what was written since could not be encrypted")]
    #[diagnostic(
        code("writes.encrypted"),
        help(
            "No database was exchanged. Run the same command without --save-writes: the replaced database keeps what was written."
        )
    )]
    Encrypted {
        /// Which.
        database: DatabaseName,
        /// How.
        #[source]
        source: std::io::Error,
    },
}

/// What was saved of one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SavedWrites {
    /// The database.
    pub database: DatabaseName,
    /// The folder in the store.
    pub folder: String,
    /// Tables of which there were rows.
    pub tables: u64,
    /// Rows in all of them.
    pub rows: u64,
    /// Tables whose rows were left out, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
}

/// One table of which rows were saved.
struct Table {
    sql: String,
    file: String,
    columns: Vec<String>,
    key: Vec<String>,
}

/// Where writes are saved to, and to whom they are encrypted; to nobody: not at all.
pub(super) struct Saving<'a> {
    pub(super) store: &'a Store,
    pub(super) run: &'a RunId,
    pub(super) database: &'a DatabaseName,
    pub(super) recipients: &'a [Recipient],
}

impl Saving<'_> {
    fn failed(&self, source: PgError) -> NotSaved {
        NotSaved::Database { database: self.database.clone(), source }
    }

    fn stored(&self, source: StoreError) -> NotSaved {
        NotSaved::Store { database: self.database.clone(), source }
    }

    /// Saves what was written to the database at `live` since `horizon`, in the columns that `side` has as well.
    ///
    /// # Errors
    /// [`NotSaved`].
    pub(super) async fn save(
        &self,
        (live, side): (&DatabaseUrl, &DatabaseUrl),
        horizon: &str,
    ) -> Result<SavedWrites, NotSaved> {
        let Self { run, database, .. } = *self;
        let failed = |source| self.failed(source);
        let mut session = connect(live, "migrate rollback").await.map_err(failed)?;
        let mut other = connect(side, "migrate rollback").await.map_err(failed)?;
        let writes = Writes::look(&mut session, run, horizon).await.map_err(failed)?;
        // Each attempt has a folder of its own: nothing in the store is written twice.
        let at = clock::now().format("%Y%m%d-%H%M%S-%3f");
        let folder = format!("{}/writes/{database}/{at}", journal::folder(run));
        let mut saved = SavedWrites { database: database.clone(), folder, tables: 0, rows: 0, left_out: Vec::new() };
        let mut tables = Vec::new();
        for (schema, name) in &writes.tables {
            let sql = format!("{}.{}", identifier(schema), identifier(name));
            let some = format!("select exists (select from only {sql} where {})", writes.theirs);
            let some = ask_one(&mut session, some).await.and_then(|row| row.try_get(0));
            if !some.map_err(query_error(format!("looking for new rows of {sql}"))).map_err(failed)? {
                continue;
            }
            let (now, then) =
                (columns(&mut session, &sql).await.map_err(failed)?, columns(&mut other, &sql).await.map_err(failed)?);
            let columns: Vec<String> = now.into_iter().filter(|it| then.contains(it)).collect();
            if columns.is_empty() {
                saved.left_out.push(format!("{schema}.{name} is not there before the run"));
                continue;
            }
            let age = if self.recipients.is_empty() { "" } else { ".age" };
            let file = format!("{:03}-{}.copy{age}", tables.len() + 1, plain(&format!("{schema}.{name}")));
            let key = key(&mut other, &sql).await.map_err(failed)?;
            let table = Table { sql, file, columns, key };
            saved.rows += self.table(&mut session, &table, &saved.folder, &writes.theirs).await?;
            tables.push(table);
        }
        saved.tables = tables.len() as u64;
        let script = script(&tables, &saved, !self.recipients.is_empty());
        let put = self.store.put_new(&format!("{}/load.sql", saved.folder), script).await;
        put.map(|()| saved).map_err(|source| self.stored(source))
    }

    /// Saves the rows of a table, and counts them.
    async fn table(
        &self,
        session: &mut PgConnection,
        table: &Table,
        folder: &str,
        theirs: &str,
    ) -> Result<u64, NotSaved> {
        let list: Vec<String> = table.columns.iter().map(|it| identifier(it)).collect();
        let query = format!("COPY (SELECT {} FROM ONLY {} WHERE {theirs}) TO STDOUT", list.join(", "), table.sql);
        let upload = self.store.upload(&format!("{folder}/{}", table.file), PART).await;
        let mut upload = upload.map_err(|source| self.stored(source))?;
        match self.copy(session, &query, &mut upload).await {
            Ok(Ok(rows)) => upload.finish().await.map(|()| rows).map_err(|source| self.stored(source)),
            Ok(Err(error)) => {
                upload.abort().await;
                Err(error)
            }
            Err(error) => {
                upload.abort().await;
                Err(self.failed(query_error(format!("reading new rows of {}", table.sql))(error)))
            }
        }
    }

    /// Moves what COPY gives into the store, and counts its rows: a line end within a value is written otherwise.
    async fn copy(
        &self,
        session: &mut PgConnection,
        query: &str,
        upload: &mut Upload,
    ) -> Result<Result<u64, NotSaved>, sqlx::Error> {
        let mut to = match self.encrypting() {
            Ok(encrypting) => To { upload, encrypting, ready: Vec::new() },
            Err(error) => return Ok(Err(error)),
        };
        let mut stream = session.copy_out_raw(query).await?;
        let (mut rows, mut refused) = (0, None);
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            rows += chunk.iter().filter(|it| **it == b'\n').count() as u64;
            // An unread rest would be taken for the reply to the next statement.
            if refused.is_none() {
                refused = to.write(self, &chunk).await.err();
            }
        }
        Ok(match refused {
            None => to.end(self).await.map(|()| rows),
            Some(error) => Err(error),
        })
    }

    fn encrypting(&self) -> Result<Option<Encrypting>, NotSaved> {
        let made = (!self.recipients.is_empty()).then(|| Encrypting::to(self.recipients)).transpose();
        made.map_err(|source| self.encrypted(source))
    }

    fn encrypted(&self, source: std::io::Error) -> NotSaved {
        NotSaved::Encrypted { database: self.database.clone(), source }
    }
}

/// An upload, and what is done to the bytes before it.
struct To<'a> {
    upload: &'a mut Upload,
    encrypting: Option<Encrypting>,
    /// What is encrypted, and about to be sent.
    ready: Vec<u8>,
}

impl To<'_> {
    async fn write(&mut self, saving: &Saving<'_>, bytes: &[u8]) -> Result<(), NotSaved> {
        self.ready.clear();
        let bytes = match &mut self.encrypting {
            Some(it) => {
                it.write(bytes, &mut self.ready).map_err(|source| saving.encrypted(source))?;
                &self.ready
            }
            None => bytes,
        };
        self.upload.write(bytes).await.map_err(|source| saving.stored(source))
    }

    async fn end(mut self, saving: &Saving<'_>) -> Result<(), NotSaved> {
        let Some(it) = self.encrypting else { return Ok(()) };
        self.ready.clear();
        it.finish(&mut self.ready).map_err(|source| saving.encrypted(source))?;
        self.upload.write(&self.ready).await.map_err(|source| saving.stored(source))
    }
}

/// The columns of a table that are stored; none if there is no such table.
async fn columns(session: &mut PgConnection, sql: &str) -> Result<Vec<String>, PgError> {
    let query = format!(
        "select attname::text from pg_attribute where attrelid = to_regclass({}) and attnum > 0 and not attisdropped and \
         attgenerated = '' order by attnum",
        literal(sql)
    );
    names(session, query).await
}

/// The columns of the primary key.
async fn key(session: &mut PgConnection, sql: &str) -> Result<Vec<String>, PgError> {
    let query = format!(
        "select a.attname::text from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey) where \
         i.indrelid = to_regclass({}) and i.indisprimary order by 1",
        literal(sql)
    );
    names(session, query).await
}

async fn names(session: &mut PgConnection, query: String) -> Result<Vec<String>, PgError> {
    let rows = ask(session, query).await;
    let names = rows.and_then(|rows| rows.iter().map(|row| row.try_get(0)).collect());
    names.map_err(query_error("reading the columns of a table"))
}

/// A name that every file system takes.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' }).take(80).collect()
}

/// How a file that is encrypted is read; the identity is looked for where `migrate` looks for it.
const DECRYPT: &str = "age --decrypt --identity \"$MIGRATE_AGE_IDENTITY_FILE\"";

/// The script of psql that loads what was saved.
fn script(tables: &[Table], saved: &SavedWrites, is_encrypted: bool) -> String {
    let read = match is_encrypted {
        true => {
            let lines = tables.iter().map(|it| format!("--     {DECRYPT} {} | less\n", it.file)).collect::<String>();
            format!(
                "-- Their files are encrypted with age (age-encryption.org). Here and below, it is called with an identity of one of the\n\
                 -- recipients:\n--     export MIGRATE_AGE_IDENTITY_FILE=FILE\n{lines}"
            )
        }
        false => String::new(),
    };
    let mut text = format!(
        "-- Rows that were written to {} after its copy for the way back was made, and before it was taken back.\n\
         -- Read them first: what they refer to may be gone.\n\
         {read}\
         -- Then, from this folder, with the URL of the database:\n\
         --     psql -X -v ON_ERROR_STOP=1 -f load.sql URL\n\
         -- A row whose key is there already gets the saved values. A table without a primary key gets every saved row, also of\n\
         -- those that were updated: look for doubles. What was deleted is not here. Tables are in the order of their names: if a\n\
         -- foreign key complains, change the order.\n",
        saved.database
    );
    text += &saved.left_out.iter().map(|it| format!("-- Left out: {it}.\n")).collect::<String>();
    text += "\\encoding UTF8\nBEGIN;\n";
    for it in tables {
        let list: Vec<String> = it.columns.iter().map(|it| identifier(it)).collect();
        let list = list.join(", ");
        let conflict = conflict(it);
        let from = match is_encrypted {
            true => format!("PROGRAM '{DECRYPT} {}'", it.file),
            false => format!("'{}'", it.file),
        };
        text += &format!(
            "CREATE TEMPORARY TABLE saved ON COMMIT DROP AS SELECT {list} FROM {0} WITH NO DATA;\n\\copy saved FROM {from}\n\
             INSERT INTO {0} ({list}) OVERRIDING SYSTEM VALUE SELECT {list} FROM saved{conflict};\nDROP TABLE saved;\n",
            it.sql
        );
    }
    text + "COMMIT;\n"
}

fn conflict(it: &Table) -> String {
    if it.key.is_empty() || it.key.iter().any(|column| !it.columns.contains(column)) {
        return String::new();
    }
    let key: Vec<String> = it.key.iter().map(|it| identifier(it)).collect();
    let rest = it.columns.iter().filter(|column| !it.key.contains(column)).map(|column| identifier(column));
    let set: Vec<String> = rest.map(|it| format!("{it} = EXCLUDED.{it}")).collect();
    let act = if set.is_empty() { "NOTHING".into() } else { format!("UPDATE SET {}", set.join(", ")) };
    format!(" ON CONFLICT ({}) DO {act}", key.join(", "))
}
