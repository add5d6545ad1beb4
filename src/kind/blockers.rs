//! Who is in the way of a migration that waits for a lock. Only the server knows, and only while it waits: a second
//! session asks, opened when there has been something to wait for.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::outside::postgres::{connect, made};
use crate::outside::url::DatabaseUrl;

/// The first look is after half of the lock timeout, and no later than this.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// Looks are a quarter of the lock timeout apart, within these limits, so that no wait that fails is overlooked.
const BETWEEN_LOOKS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

/// A session that holds, or waits in front of us for, the lock that a migration wants.
#[derive(Debug, Clone, PartialEq)]
pub struct Blocker {
    /// Its process on the server; 0 for a prepared transaction.
    pub pid: i32,
    /// The role.
    pub user: Option<String>,
    /// What it calls itself.
    pub application: Option<String>,
    /// `active`, `idle in transaction`; none if the role may not see it.
    pub state: Option<String>,
    /// Seconds since its transaction began.
    pub age: Option<f64>,
    /// Its last query, shortened; for a prepared transaction, what may be it.
    pub query: Option<String>,
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pid == 0 {
            return write!(
                f,
                "a prepared transaction, of {}",
                self.query.as_deref().unwrap_or("which nothing is known")
            );
        }
        write!(f, "pid {}", self.pid)?;
        let named = [("user ", &self.user), ("application ", &self.application), ("", &self.state)];
        for (word, value) in named {
            if let Some(value) = value {
                write!(f, ", {word}{value}")?;
            }
        }
        if let Some(age) = self.age {
            write!(f, ", in a transaction for {age:.1} s")?;
        }
        self.query.as_ref().map_or(Ok(()), |query| write!(f, ": {query}"))
    }
}

/// Sessions that keep the one with the number $1 from its lock.
const IN_THE_WAY: &str = "select distinct unnest(pg_blocking_pids($1)) as pid";
/// Transactions in this database that began a while ago, or wait for their client, and those that were prepared.
const OLD: &str = "\
select pid from pg_stat_activity where datname = current_database() and pid <> $1
    and (state like 'idle in transaction%' or xact_start < clock_timestamp() - interval '1 second')
union select 0 where exists (select from pg_prepared_xacts where database = current_database())";

fn who(pids: &str) -> String {
    format!("{WHO} from ({pids}) b left join pg_stat_activity a on a.pid = b.pid order by a.xact_start, b.pid")
}

const WHO: &str = "\
select b.pid, nullif(a.usename::text, ''), nullif(a.application_name, ''), nullif(a.state, ''),
    extract(epoch from clock_timestamp() - a.xact_start)::float8,
    case when b.pid = 0
        then (select string_agg(gid, ', ' order by prepared) from pg_prepared_xacts where database = current_database())
        else nullif(left(regexp_replace(trim(a.query), '\\s+', ' ', 'g'), 100)
            || case when length(regexp_replace(trim(a.query), '\\s+', ' ', 'g')) > 100 then '…' else '' end, '')
    end";

/// Looks at the session of a step from beside it.
pub(super) struct Watch<'a> {
    url: &'a DatabaseUrl,
    application: String,
    /// The session that is looked at.
    pid: i32,
    session: Option<PgConnection>,
}

impl<'a> Watch<'a> {
    pub(super) fn new(url: &'a DatabaseUrl, application: &str, pid: i32) -> Self {
        Self { url, application: format!("{application} (watch)"), pid, session: None }
    }

    /// Does `work`, and tells who was in its way when that was last looked at.
    pub(super) async fn during<T>(
        &mut self,
        lock_timeout: Duration,
        work: impl Future<Output = T>,
    ) -> (T, Vec<Blocker>) {
        let mut work = pin!(work);
        let mut seen = Vec::new();
        let mut pause = (lock_timeout / 2).min(FIRST_LOOK);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return (done, seen),
                () = tokio::time::sleep(pause) => {}
            }
            tokio::select! {
                biased;
                done = &mut work => return (done, seen),
                found = self.look() => if !found.is_empty() { seen = found },
            }
            pause = (lock_timeout / 4).clamp(BETWEEN_LOOKS.0, BETWEEN_LOOKS.1);
        }
    }

    /// Whoever is in the way now. A look that fails sees nobody: the migration is what matters.
    async fn look(&mut self) -> Vec<Blocker> {
        // A look that is cut off leaves no session in the middle of an answer.
        let session = match self.session.take() {
            Some(session) => Ok(session),
            None => connect(self.url, &self.application).await,
        };
        let Ok(mut session) = session else { return Vec::new() };
        let Ok(found) = ask(&mut session, IN_THE_WAY, self.pid).await else { return Vec::new() };
        self.session = Some(session);
        found
    }

    /// Transactions for which a statement has to wait that needs every older one to have ended.
    pub(super) async fn old_transactions(&self, session: &mut PgConnection) -> Vec<Blocker> {
        ask(session, OLD, self.pid).await.unwrap_or_default()
    }
}

async fn ask(session: &mut PgConnection, pids: &str, pid: i32) -> Result<Vec<Blocker>, sqlx::Error> {
    let rows = sqlx::query(made(who(pids))).bind(pid).persistent(false).fetch_all(session).await?;
    rows.iter().map(blocker).collect()
}

fn blocker(row: &PgRow) -> Result<Blocker, sqlx::Error> {
    Ok(Blocker {
        pid: row.try_get(0)?,
        user: row.try_get(1)?,
        application: row.try_get(2)?,
        state: row.try_get(3)?,
        age: row.try_get(4)?,
        query: row.try_get(5)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocker_is_told_by_what_is_known_of_it() {
        let text = |text: &str| Some(text.to_owned());
        let mut it = Blocker {
            pid: 7,
            user: text("app"),
            application: text("psql"),
            state: text("idle in transaction"),
            age: Some(12.34),
            query: text("select 1"),
        };
        let all = "pid 7, user app, application psql, idle in transaction, in a transaction for 12.3 s: select 1";
        assert_eq!(it.to_string(), all);
        it = Blocker { pid: 7, user: text("app"), application: None, state: None, age: None, query: None };
        assert_eq!(it.to_string(), "pid 7, user app");
        it = Blocker { pid: 0, query: text("gid"), user: None, ..it };
        assert_eq!(it.to_string(), "a prepared transaction, of gid");
    }
}
