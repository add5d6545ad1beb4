//! What stands in the way of an act that wants a database to itself: who can be asked to leave, and who has to be named.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::outside::postgres::{PgError, query_error};
use crate::sql::quote::literal;

/// SQL state of a statement that found sessions on the database.
pub(super) const IN_USE: &str = "55006";
/// Pause between two rounds of ending sessions.
const ROUND: Duration = Duration::from_millis(20);

/// The statement that wants the database to itself has its lock within this time, in seconds: who comes later waits for it.
const LOCKED_WITHIN: f64 = 0.2;

/// Ends the sessions on the databases again and again, until it is over. With a `limit`, until that has passed, and those alone
/// that were there when it began: who comes back after a short act is not sent away again.
pub(super) async fn end_sessions(
    usher: &mut PgConnection,
    oids: &[i64],
    over: &Cell<bool>,
    limit: Option<Duration>,
) -> Result<(), sqlx::Error> {
    let begun = Instant::now();
    let older: Option<f64> = match limit {
        None => None,
        Some(_) => {
            let now = sqlx::query_scalar("select extract(epoch from clock_timestamp())::float8");
            Some(now.fetch_one(&mut *usher).await.map(|now: f64| now + LOCKED_WITHIN)?)
        }
    };
    while !over.get() && limit.is_none_or(|limit| begun.elapsed() < limit) {
        // A role that may not end a session is not asked to: the failure would end the whole statement.
        sqlx::query(
            "select pg_terminate_backend(pid) from pg_stat_activity where datid::int8 = any($1) and pid <> \
             pg_backend_pid() and coalesce(backend_type, 'client backend') = 'client backend' and coalesce(backend_start < to_timestamp($2), true) and (select s.rolsuper or ((pg_has_role(s.oid, usesysid, \
             'member') or pg_has_role(s.oid, 'pg_signal_backend', 'member')) and not (select t.rolsuper from pg_roles t \
             where t.oid = usesysid)) from pg_roles s where s.rolname = current_user)",
        )
        .bind(oids)
        .bind(older)
        .execute(&mut *usher)
        .await?;
        tokio::time::sleep(ROUND).await;
    }
    Ok(())
}

/// Who is still on the databases, in words: sessions, and prepared transactions.
///
/// # Errors
/// A query failed.
pub(super) async fn who_stays(usher: &mut PgConnection, oids: &[i64]) -> Result<Vec<String>, PgError> {
    let mut who: Vec<String> = sqlx::query_scalar(
        "select format('pid %s of role %s (%s)', pid, coalesce(usename, '?'), coalesce(nullif(application_name, ''), \
         backend_type)) from pg_stat_activity where datid::int8 = any($1) order by pid",
    )
    .bind(oids)
    .fetch_all(&mut *usher)
    .await
    .map_err(query_error("looking for sessions that stay"))?;
    who.extend(prepared_transactions(usher, oids).await?.iter().map(ToString::to_string));
    Ok(who)
}

/// A transaction that was prepared and neither committed nor rolled back: no session of it can be ended. It survives a restart of the
/// server, and holds its locks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prepared {
    /// Its name, as whoever prepared it gave it.
    pub gid: String,
    /// The role that prepared it.
    pub owner: String,
    /// For how long it has been there, in seconds.
    pub seconds: f64,
    /// The database's name on the server.
    pub dbname: String,
}

impl fmt::Display for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gid = literal(&self.gid);
        write!(f, "the prepared transaction {} of role {}, {:.0} s old", gid.trim_start(), self.owner, self.seconds)
    }
}

impl Prepared {
    /// What ends it, to be typed.
    #[must_use]
    pub fn remedy(&self) -> String {
        let gid = literal(&self.gid);
        let gid = gid.trim_start();
        format!(
            "in the database {}, as {} or a superuser: `ROLLBACK PREPARED {gid}`, or `COMMIT PREPARED {gid}` if the others that took part \
             committed",
            self.dbname, self.owner
        )
    }

    /// Asks for those of the database that the session is in; [`Prepared::read`] reads the answer.
    pub const QUERY: &str = "select gid, owner::text, extract(epoch from clock_timestamp() - prepared)::float8, database::text from \
         pg_prepared_xacts where database = current_database() order by prepared";

    /// What [`Prepared::QUERY`] says.
    ///
    /// # Errors
    /// It says something else.
    pub fn read(rows: &[PgRow]) -> Result<Vec<Self>, sqlx::Error> {
        let read = |row: &PgRow| {
            let (gid, owner) = (row.try_get(0)?, row.try_get(1)?);
            Ok(Self { gid, owner, seconds: row.try_get(2)?, dbname: row.try_get(3)? })
        };
        rows.iter().map(read).collect()
    }
}

/// Prepared transactions of the databases.
///
/// # Errors
/// The query failed.
pub(super) async fn prepared_transactions(usher: &mut PgConnection, oids: &[i64]) -> Result<Vec<Prepared>, PgError> {
    let rows = sqlx::query(
        "select gid, owner::text, extract(epoch from clock_timestamp() - prepared)::float8, database::text from pg_prepared_xacts \
         join pg_database d on d.datname = database where d.oid::int8 = any($1) order by prepared",
    );
    let rows = rows.bind(oids).fetch_all(usher).await;
    rows.and_then(|rows| Prepared::read(&rows)).map_err(query_error("looking for prepared transactions"))
}

/// What an exchange of a database meets, beside sessions that can be ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InTheWay {
    /// It cannot be exchanged before these are gone; each with its remedy.
    pub blocks: Vec<String>,
    /// It can, and these should be known.
    pub notes: Vec<String>,
}

/// Looks for prepared transactions, replication slots, subscriptions and standby servers, of the database `dbname` of the server
/// of `session`.
///
/// # Errors
/// A query failed.
pub async fn in_the_way(session: &mut PgConnection, dbname: &str) -> Result<InTheWay, PgError> {
    let oid: Option<i64> = sqlx::query_scalar("select oid::int8 from pg_database where datname = $1")
        .bind(dbname)
        .fetch_optional(&mut *session)
        .await
        .map_err(query_error("looking for the database"))?;
    let Some(oid) = oid else { return Ok(InTheWay::default()) };
    let mut found = InTheWay::default();
    for it in prepared_transactions(session, &[oid]).await? {
        found.blocks.push(format!("{it}: {}", it.remedy()));
    }
    let slots: Vec<(String, bool)> =
        sqlx::query_as("select slot_name::text, active from pg_replication_slots where datoid::int8 = $1 order by 1")
            .bind(oid)
            .fetch_all(&mut *session)
            .await
            .map_err(query_error("looking for replication slots"))?;
    for (slot, active) in slots {
        match active {
            true => found.blocks.push(format!("the replication slot {slot} is being read from: stop its reader")),
            false => found.notes.push(format!(
                "the replication slot {slot} stays with the replaced database: its reader needs a new one, from a new copy"
            )),
        }
    }
    let subscriptions: Vec<(String, bool)> =
        sqlx::query_as("select subname::text, subenabled from pg_subscription where subdbid::int8 = $1 order by 1")
            .bind(oid)
            .fetch_all(&mut *session)
            .await
            .map_err(query_error("looking for subscriptions"))?;
    for (name, enabled) in subscriptions {
        match enabled {
            true => found
                .blocks
                .push(format!("the subscription {name} is at work in it: ALTER SUBSCRIPTION {name} DISABLE")),
            false => found.notes.push(format!("the subscription {name} stays with the replaced database")),
        }
    }
    let standbys: i64 = sqlx::query_scalar("select count(*) from pg_stat_replication")
        .fetch_one(session)
        .await
        .map_err(query_error("looking for standby servers"))?;
    if standbys > 0 {
        found.notes.push(format!(
            "{standbys} servers or readers replicate from this one: standby servers follow the exchange a moment later"
        ));
    }
    Ok(found)
}
