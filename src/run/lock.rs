//! The lock of each database, held by the run that works on it.
//!
//! It is an advisory lock in the server's maintenance database, keyed by the database's name: held on the database itself,
//! it would have to be given up for the rename. The session that holds it never has a transaction or a snapshot open, so
//! that `CREATE INDEX CONCURRENTLY` does not wait for it. Who holds it is written in the session's application name, the
//! one thing about a session that every role may read.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::future::join_all;
use sha2::{Digest, Sha256};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::failure::list;
use crate::names::{DatabaseName, RunId};
use crate::outside::postgres::{MAINTENANCE, PgError, ask, ask_one, connect, is_direct, made, not_direct, query_error};
use crate::outside::{clock, url::DatabaseUrl};
use crate::plan::Database;
use crate::world::World;

/// A session that was told to end is gone within this time, or something is wrong with its server.
const LEFTOVERS_LEAVE: Duration = Duration::from_secs(30);
/// How long a lock is waited for that a command may hold which is just over.
const JUST_OVER: Duration = Duration::from_secs(1);
/// Pause between two looks at sessions that are ending.
const ROUND: Duration = Duration::from_millis(50);
/// PostgreSQL keeps so many bytes of an application name.
const APPLICATION_NAME: usize = 63;

/// Why locks were not taken.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum LockError {
    /// Somebody else has it.
    #[error("{database}: the lock is held {holder}")]
    #[diagnostic(code("lock.held"), help("Wait for that run to end; `migrate status` shows where it stands."))]
    Held {
        /// The database.
        database: DatabaseName,
        /// Run, host, since when, in words.
        holder: Holder,
    },
    /// Another name of the plan has it, in this very run.
    #[error("{database}: another name of the target leads to one and the same database")]
    #[diagnostic(
        code("lock.same"),
        help(
            "Two URLs of the target lead to one database: correct the one that is wrong; `migrate doctor` names both."
        )
    )]
    Same {
        /// The database.
        database: DatabaseName,
    },
    /// The session that held locks is gone, and with it the locks.
    #[error("the session that held the lock of {database} was lost")]
    #[diagnostic(code("lock.lost"), help("Another run may have begun meanwhile; see `migrate status`."))]
    Lost {
        /// The database.
        database: DatabaseName,
    },
    /// A session of a killed process is still at work.
    #[error("{database}: a session that an earlier process of run {run} left behind does not end")]
    #[diagnostic(
        code("lock.leftover"),
        help("Find it in pg_stat_activity as `migrate {run}`; the server ends it when it next looks for signals.")
    )]
    Stays {
        /// A database of its server.
        database: DatabaseName,
        /// The run.
        run: RunId,
    },
    /// A server failed.
    #[error("{database}: {source}")]
    #[diagnostic(code("lock.server"))]
    Server {
        /// The database.
        database: DatabaseName,
        /// How.
        #[source]
        #[diagnostic_source]
        source: PgError,
    },
}

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The run, if the session says so in our way.
    pub run: Option<RunId>,
    /// The machine.
    pub host: String,
    /// Since when.
    pub since: Option<DateTime<Utc>>,
    /// The server process.
    pub pid: i32,
    /// The role.
    pub role: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.run, self.since) {
            (Some(run), Some(since)) => write!(
                f,
                "by run {run} on {} since {} (backend pid {}, role {})",
                self.host,
                clock::readable(since),
                self.pid,
                self.role
            ),
            _ => write!(f, "by a session that is not migrate's (backend pid {}, role {})", self.pid, self.role),
        }
    }
}

/// The locks of a run. They end with it, however it ends.
pub struct Locks {
    sessions: Vec<(DatabaseName, PgConnection)>,
}

/// One 64-bit key for each database name of a server.
fn key(dbname: &str) -> i64 {
    let digest = Sha256::digest(format!("migrate lock on database {dbname}"));
    i64::from_be_bytes(digest[..8].try_into().expect("a SHA-256 has 32 bytes"))
}

/// `migrate RUN SINCE HOST`, the host cut to what fits.
fn application_name(run: &RunId, since: DateTime<Utc>, host: &str) -> String {
    let mut name = format!("migrate {run} {} {host}", since.timestamp());
    name.truncate((0..=APPLICATION_NAME.min(name.len())).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0));
    name
}

fn holder(application: &str, pid: i32, role: String) -> Holder {
    let mut words = application.split(' ');
    let (ours, run, since) = (words.next() == Some("migrate"), words.next(), words.next());
    let run = run.filter(|_| ours).and_then(|run| RunId::new(run).ok());
    let since = since.and_then(|since| DateTime::from_timestamp(since.parse().ok()?, 0));
    Holder { run, host: words.collect::<Vec<_>>().join(" "), since, pid, role }
}

impl Locks {
    /// Takes the locks of all `databases`, without waiting. Each server has a session, which are opened side by side, and one
    /// question for all of its locks. The order is the same in every run: servers by their place, databases by their names.
    ///
    /// # Errors
    /// [`LockError::Held`] by whom; then none is kept.
    pub async fn take(world: &World, run: &RunId, databases: &[&Database]) -> Result<Self, LockError> {
        let application = application_name(run, clock::now(), &world.host);
        let mut servers: BTreeMap<(&str, u16), Vec<&Database>> = BTreeMap::new();
        for database in databases {
            servers.entry((database.url.host(), database.url.port())).or_default().push(database);
        }
        let opened = join_all(servers.values().map(|it| open(&it[0].url, &application))).await;
        let mut locks = Self { sessions: Vec::new() };
        for (wanted, session) in servers.into_values().zip(opened) {
            let mut session = session.map_err(server(&wanted[0].name))?;
            let taken = take_all(&mut session, &wanted).await;
            locks.sessions.push((wanted[0].name.clone(), session));
            if let Err(error) = taken {
                return Err(locks.by_whom(error).await?);
            }
        }
        Ok(locks)
    }

    /// Two hosts may be names of one server, and a lock is then held by another session of ours.
    async fn by_whom(&mut self, error: LockError) -> Result<LockError, LockError> {
        let LockError::Held { database, holder } = error else { return Ok(error) };
        let ours = self.own().await?.contains(&holder.pid);
        Ok(if ours { LockError::Same { database } } else { LockError::Held { database, holder } })
    }

    /// Ends the sessions that a killed process of `run` left behind, and waits until they are gone. A server works on after
    /// its client has died: a migration that is under way would commit once it is through. To be called before this
    /// process opens sessions of its own for the run.
    ///
    /// # Errors
    /// A session is not ours to end, or stays.
    pub async fn end_leftovers(&mut self, run: &RunId) -> Result<(), LockError> {
        let name = format!("migrate {run}");
        let own = self.own().await?;
        for (database, session) in &mut self.sessions {
            let begun = Instant::now();
            let end = format!("select count(pg_terminate_backend(pid)) {LEFTOVERS}");
            while one::<i64>(session, &end, &name, &own).await.map_err(server(database))? > 0 {
                if begun.elapsed() > LEFTOVERS_LEAVE {
                    return Err(LockError::Stays { database: database.clone(), run: run.clone() });
                }
                tokio::time::sleep(ROUND).await;
            }
        }
        Ok(())
    }

    /// The processes of the sessions that hold locks.
    async fn own(&mut self) -> Result<Vec<i32>, LockError> {
        let mut own = Vec::new();
        for (database, session) in &mut self.sessions {
            own.push(pid(session).await.map_err(server(database))?);
        }
        Ok(own)
    }

    /// Asks every session whether it is still there.
    ///
    /// # Errors
    /// [`LockError::Lost`].
    pub async fn still_held(&mut self) -> Result<(), LockError> {
        let asked = self.sessions.iter_mut().map(|(database, session)| async move {
            let answered = ask(session, "select 1").await;
            answered.map(drop).map_err(|_| LockError::Lost { database: database.clone() })
        });
        join_all(asked).await.into_iter().collect()
    }
}

/// Sessions of a run other than those that hold its locks.
const LEFTOVERS: &str = "from pg_stat_activity where starts_with(application_name, $1) and pid <> all($2)";

fn server(database: &DatabaseName) -> impl Fn(PgError) -> LockError {
    move |source| LockError::Server { database: database.clone(), source }
}

/// One value, asked with a run's application name and the sessions that are not meant.
async fn one<T>(session: &mut PgConnection, sql: &str, name: &str, but: &[i32]) -> Result<T, PgError>
where
    T: Send + Unpin + for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let found = sqlx::query_scalar(made(sql.to_owned())).bind(name).bind(but).fetch_one(session).await;
    found.map_err(query_error("ending the sessions of a killed process"))
}

async fn pid(session: &mut PgConnection) -> Result<i32, PgError> {
    let pid = ask_one(session, "select pg_backend_pid()").await.and_then(|row| row.try_get(0));
    pid.map_err(query_error("asking for the session's process"))
}

async fn open(url: &DatabaseUrl, application: &str) -> Result<PgConnection, PgError> {
    connect(&url.with_dbname(MAINTENANCE), application).await
}

/// Takes the locks of databases of one server.
///
/// A server notices a moment late that a process has ended: the lock of a command that is just over is waited for, in short
/// tries, since a session that waits for it in the server would hold a snapshot.
async fn take_all(session: &mut PgConnection, databases: &[&Database]) -> Result<(), LockError> {
    let (mut taken, mut begun) = (0, Instant::now());
    while let Some(next) = databases.get(taken) {
        let failed = server(&next.name);
        let more = try_lock(session, &databases[taken..]).await.map_err(&failed)?;
        if more > 0 {
            (taken, begun) = (taken + more, Instant::now());
            continue;
        }
        let found = who_holds(session, next.url.dbname()).await.map_err(failed)?;
        if begun.elapsed() > JUST_OVER {
            let (database, holder) = (next.name.clone(), found.unwrap_or_else(|| holder("", 0, "?".into())));
            return Err(LockError::Held { database, holder });
        }
        tokio::time::sleep(ROUND).await;
    }
    Ok(())
}

/// So many of the locks were taken, from the first on: one that is not to be had ends it, so that of two runs that want the
/// same, one gets all.
async fn try_lock(session: &mut PgConnection, databases: &[&Database]) -> Result<usize, PgError> {
    let keys: Vec<i64> = databases.iter().map(|it| key(it.url.dbname())).collect();
    // A pooler would keep the lock for whoever gets the session next.
    let question = format!("select case when {} then {} end", is_direct(), taken(&keys));
    let taken = ask_one(session, question).await.and_then(|row| row.try_get::<Option<i32>, _>(0));
    let taken = taken.and_then(|taken| taken.ok_or_else(not_direct));
    let names: Vec<&str> = databases.iter().map(|it| it.url.dbname()).collect();
    let taken = taken.map_err(query_error(format!("locking {}", list(&names))))?;
    Ok(usize::try_from(taken).unwrap_or(0))
}

/// The number of locks taken, as SQL. A CASE asks for the next one only where it got the one before.
fn taken(keys: &[i64]) -> String {
    let deeper = |inner: String, (at, key): (usize, &i64)| {
        format!("case when pg_try_advisory_lock({key}) then {inner} else {at} end")
    };
    keys.iter().enumerate().rev().fold(keys.len().to_string(), deeper)
}

/// Who holds the lock of a database, asked from a session in the maintenance database of its server.
///
/// # Errors
/// The query failed.
pub async fn who_holds(session: &mut PgConnection, dbname: &str) -> Result<Option<Holder>, PgError> {
    let query = format!(
        "select coalesce(a.application_name, ''), l.pid, coalesce(a.usename::text, '?') from pg_locks l left join \
         pg_stat_activity a on a.pid = l.pid where l.locktype = 'advisory' and l.granted and l.objsubid = 1 and l.database \
         = (select oid from pg_database where datname = current_database()) and (l.classid::int8 << 32 | l.objid::int8) = {}",
        key(dbname)
    );
    let failed = || query_error(format!("asking who holds the lock of {dbname}"));
    let rows = ask(session, query).await.map_err(failed())?;
    let read = |row: &PgRow| Ok(holder(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
    rows.first().map(read).transpose().map_err(failed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_application_name_fits_and_can_be_read_back() {
        let run = RunId::new("20261121-174311-482k3f").expect("an id");
        let since = DateTime::from_timestamp(1_795_283_000, 0).expect("in range");
        let name = application_name(&run, since, &"höst".repeat(20));
        assert!(name.len() <= APPLICATION_NAME, "{name}");
        let read = holder(&name, 7, "release".into());
        assert_eq!((read.run, read.since), (Some(run), Some(since)));
        assert!(read.host.starts_with("hösthöst"), "{}", read.host);
    }

    #[test]
    fn one_that_is_not_had_ends_the_question() {
        assert_eq!(taken(&[]), "0");
        let two =
            "case when pg_try_advisory_lock(5) then case when pg_try_advisory_lock(-6) then 2 else 1 end else 0 end";
        assert_eq!(taken(&[5, -6]), two);
    }

    #[test]
    fn a_stranger_on_the_lock_is_called_one() {
        let text = holder("psql", 7, "bob".into()).to_string();
        assert_eq!(text, "by a session that is not migrate's (backend pid 7, role bob)");
    }
}
