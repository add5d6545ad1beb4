//! A warm copy: `CREATE DATABASE … TEMPLATE`, made just before the first change and put in the live database's place by a rename.
//!
//! The server copies a database only while nobody else is on it. `CREATE DATABASE` locks the source against new sessions, which
//! wait until the copy is there, and waits up to five seconds for the others to leave: those are ended for as long as it waits.
//! So nothing is ever marked as closed, and there is nothing to open again: whatever happens to us, the lock ends with the
//! statement.

use std::cell::Cell;
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio::sync::Notify;

use crate::names::{DatabaseName, RunId};
use crate::outside::interrupt::{Interrupt, Interrupted};
use crate::outside::postgres::{
    DURABLE, MAINTENANCE, PgError, Said, Server, ask, backend_pid, change, connect, database_error, database_oid,
    query_error,
};
use crate::outside::url::DatabaseUrl;
use crate::sql::quote::identifier;

use super::manifest::properties;
use super::obstacles::{IN_USE, end_sessions, prepared_transactions, who_stays};
use super::swap::carry_over;

/// The server waits five seconds for sessions to leave; this often it is asked to.
const ATTEMPTS: u32 = 4;
/// How long sessions are ended in each attempt: the server's five seconds, and a little more.
const LEAVING: Duration = Duration::from_secs(6);
/// From this size on, files are copied as files: a checkpoint before and one after cost less than writing every page to the
/// write-ahead log. Below it, the log is cheaper.
const AS_FILES: u64 = 64 << 20;

/// Why there is no warm copy.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum StandbyError {
    /// Somebody stays.
    #[error("{database}: no standby can be made of it, because of {who}")]
    #[diagnostic(
        code("standby.in_use"),
        help(
            "A database is copied only while nobody else is on it. End what is named (a session of a superuser as one: `select \
             pg_terminate_backend(PID)`; a prepared transaction: `ROLLBACK PREPARED`), or write `standby = false`, and run the \
             same command again."
        )
    )]
    InUse {
        /// The database.
        database: DatabaseName,
        /// Sessions and prepared transactions.
        who: String,
    },
    /// The server refused.
    #[error("{database}: its standby could not be made")]
    #[diagnostic(
        code("standby.refused"),
        help("It takes as much disk as the database does. Correct the cause and run the same command again.")
    )]
    Refused {
        /// The database.
        database: DatabaseName,
        /// What it said.
        #[source]
        source: Said,
    },
    /// A query of ours failed.
    #[error("{database}: {source}")]
    #[diagnostic(code("standby.database"))]
    Database {
        /// The database.
        database: DatabaseName,
        /// How.
        #[source]
        #[diagnostic_source]
        source: PgError,
    },
    /// A signal.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Interrupted(#[from] Interrupted),
}

/// A warm copy that is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// Its oid.
    pub oid: u32,
    /// Bytes on disk.
    pub bytes: u64,
    /// How long the copy took, and the database could not be reached.
    pub seconds: f64,
    /// `txid_current_snapshot()` before the copy: what is not visible in it was written later.
    pub horizon: String,
    /// What did not come along, and why.
    pub notes: Vec<String>,
}

/// Copies the database of `url` as `standby`, with what belongs to the database itself.
///
/// # Errors
/// [`StandbyError`]; there is then no copy that anybody would use.
pub async fn make(
    interrupt: &Interrupt,
    database: &DatabaseName,
    url: &DatabaseUrl,
    run: &RunId,
    standby: &str,
) -> Result<Made, StandbyError> {
    let failed = |source| StandbyError::Database { database: database.clone(), source };
    let application = format!("migrate {run}");
    let mut inside = connect(url, &application).await.map_err(failed)?;
    let like = properties(&mut inside).await.map_err(failed)?;
    // A session of our own would be in the way as well.
    drop(inside);
    let maintenance = url.with_dbname(MAINTENANCE);
    let mut session = connect(&maintenance, &application).await.map_err(failed)?;
    let mut usher = connect(&maintenance, &format!("{application} ending sessions")).await.map_err(failed)?;
    let copy = Copy { interrupt, database, oid: like.oid, standby, owner: &like.owner, dbname: &like.dbname };
    let prepared = prepared_transactions(&mut usher, &[like.oid.into()]).await.map_err(failed)?;
    if !prepared.is_empty() {
        return Err(copy.in_use(prepared.iter().map(ToString::to_string).collect()));
    }
    let (bytes, horizon) = before(&mut session, &like.dbname).await.map_err(failed)?;
    let begun = Instant::now();
    copy.carry(&mut session, &mut usher, bytes).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let oid = database_oid(&mut session, standby).await.map_err(failed)?;
    let oid = oid.ok_or_else(|| copy.refused(Said { message: "the copy is gone".into(), state: None }))?;
    let mut notes = Vec::new();
    let dressed = async {
        change(&mut session, format!("BEGIN; {DURABLE}")).await?;
        carry_over(&mut session, standby, &like, &mut notes).await?;
        change(&mut session, "COMMIT").await
    };
    dressed.await.map_err(|error| copy.refused(Said::from(&error)))?;
    Ok(Made { oid, bytes, seconds, horizon, notes })
}

/// The size of a database, and the transactions that are over.
async fn before(session: &mut PgConnection, dbname: &str) -> Result<(u64, String), PgError> {
    change(session, "SET statement_timeout = 0; SET lock_timeout = '30s'")
        .await
        .map_err(query_error("preparing a copy of the database"))?;
    let horizon = sqlx::query_scalar("select txid_current_snapshot()::text").fetch_one(&mut *session).await;
    Ok((size(session, dbname).await?, horizon.map_err(query_error("asking which transactions are over"))?))
}

/// What a database takes on disk, in bytes.
///
/// # Errors
/// The query failed.
pub async fn size(session: &mut PgConnection, dbname: &str) -> Result<u64, PgError> {
    let size =
        sqlx::query_scalar("select coalesce(pg_database_size($1::name), 0)").bind(dbname).fetch_one(session).await;
    let size: i64 = size.map_err(query_error("asking for the size of the database"))?;
    Ok(size.unsigned_abs())
}

/// A copy under way.
struct Copy<'a> {
    interrupt: &'a Interrupt,
    database: &'a DatabaseName,
    dbname: &'a str,
    oid: u32,
    standby: &'a str,
    owner: &'a str,
}

impl Copy<'_> {
    fn in_use(&self, who: Vec<String>) -> StandbyError {
        StandbyError::InUse { database: self.database.clone(), who: who.join(", ") }
    }

    fn refused(&self, source: Said) -> StandbyError {
        StandbyError::Refused { database: self.database.clone(), source }
    }

    /// Copies, as soon as the others have left.
    async fn carry(
        &self,
        session: &mut PgConnection,
        usher: &mut PgConnection,
        bytes: u64,
    ) -> Result<(), StandbyError> {
        let failed = |source| StandbyError::Database { database: self.database.clone(), source };
        let version = Server::of(session).await.map_err(failed)?.major();
        let pid = backend_pid(session).await.map_err(failed)?;
        let mut create = format!(
            "CREATE DATABASE {} OWNER {} TEMPLATE {}",
            identifier(self.standby),
            identifier(self.owner),
            identifier(self.dbname)
        );
        if version >= 15 && bytes >= AS_FILES {
            create += " STRATEGY file_copy";
        }
        for attempt in 1.. {
            let Err(error) = self.once(session, usher, &create, pid).await? else { return Ok(()) };
            let in_use = database_error(&error).is_some_and(|said| said.code() == IN_USE);
            if !in_use {
                return Err(self.refused(Said::from(&error)));
            }
            if attempt == ATTEMPTS {
                return Err(self.in_use(who_stays(usher, &[self.oid.into()]).await.map_err(failed)?));
            }
        }
        unreachable!("the loop ends at the last attempt")
    }

    /// One attempt. A signal stops the server as well: it would go on copying for nobody.
    async fn once(
        &self,
        session: &mut PgConnection,
        usher: &mut PgConnection,
        create: &str,
        pid: i32,
    ) -> Result<Result<(), sqlx::Error>, StandbyError> {
        let (over, done) = (Cell::new(false), Notify::new());
        let copying = async {
            let copied = change(session, create).await;
            over.set(true);
            done.notify_one();
            copied.map(|_| ())
        };
        let oids = [i64::from(self.oid)];
        let waiting = async {
            let ended = end_sessions(usher, &oids, &over, Some(LEAVING)).await;
            tokio::select! {
                () = done.notified() => {}
                () = self.interrupt.wait() => {
                    let _ = ask(usher, format!("select pg_cancel_backend({pid})")).await;
                }
            }
            ended
        };
        let (copied, ended) = tokio::join!(copying, waiting);
        if self.interrupt.requested() {
            return Err(Interrupted.into());
        }
        Ok(copied.and(ended))
    }
}
