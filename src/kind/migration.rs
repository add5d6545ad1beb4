//! One migration file on its way into a database: in one transaction with its ledger row, or statement by statement where
//! its file says so.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use miette::{NamedSource, SourceSpan};
use sqlx::PgConnection;

use crate::journal::ledger::{self, Author};
use crate::outside::postgres::{PgError, Said, connect, made, query_error};
use crate::outside::url::DatabaseUrl;
use crate::sql::{statements, transaction};

use super::Migration;
use super::blockers::{Blocker, Watch};
use super::concurrently;
use super::limits::{Limits, wait_before};
use super::message::{Failed, Message, READABLE};

/// What DISCARD ALL does, which itself cannot share a message: cursors, roles, settings, prepared statements, session locks,
/// temporary tables, nothing that an earlier migration left in the session is there for the next. It is a transaction of
/// its own, since a transaction keeps the isolation level with which it began.
const FRESH: &str = "BEGIN; CLOSE ALL; RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; DEALLOCATE ALL; UNLISTEN *; \
     SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES; COMMIT;\n";
/// Makes the role of the connection current again.
const OURSELVES: &str = "RESET SESSION AUTHORIZATION; RESET ROLE;";

/// Why a migration was not applied.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum MigrationError {
    /// The server refused a statement.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Statement(Box<Refused>),
    /// The session was lost while the migration ran.
    #[error("the connection was lost while `{name}` ran; whether it was committed is not known")]
    #[diagnostic(code("migration.lost"), help("`migrate status` asks the database."))]
    Lost {
        /// The migration.
        name: String,
        /// What the driver said.
        #[source]
        said: Said,
    },
    /// `CREATE INDEX CONCURRENTLY IF NOT EXISTS` found an invalid index and left it at that.
    #[error("{}: the index {index} of `{name}` was there already, and it is invalid: no query uses it", path.display())]
    #[diagnostic(
        code("migration.invalid_index"),
        help("Somebody else began it and it failed. Drop it (DROP INDEX CONCURRENTLY), and apply again.")
    )]
    Invalid {
        /// The migration.
        name: String,
        /// Its file.
        path: PathBuf,
        /// With its schema.
        index: String,
    },
    /// A statement of ours around the migration failed.
    #[error("the ledger row of `{name}` could not be written")]
    #[diagnostic(
        code("migration.ledger"),
        help("Look at the cause: the role may lack privileges on the schema `migrate`.")
    )]
    Ledger {
        /// The migration.
        name: String,
        /// What the server said.
        #[source]
        said: Said,
    },
}

/// A statement of a migration that the server refused.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("`{name}` failed at {}:{line}:{column}", path.display())]
#[diagnostic(code("migration.failed"), help("{help}"))]
pub struct Refused {
    /// The migration.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    #[source_code]
    text: NamedSource<String>,
    #[label("here")]
    place: SourceSpan,
    help: String,
    /// Who was in the way, if it did not get a lock and that could be seen.
    pub blockers: Vec<Blocker>,
    /// What the server said.
    #[source]
    pub said: Said,
}

impl MigrationError {
    /// Whether the database may have been changed in spite of the error.
    #[must_use]
    pub fn may_have_changed(&self, migration: &Migration) -> bool {
        !migration.transactional || matches!(self, Self::Lost { .. })
    }
}

/// What surrounds a migration.
pub struct Setting<'a> {
    /// Writes the ledger row.
    pub author: &'a Author,
    /// Whether the database has a ledger.
    pub has_ledger: bool,
    /// Further statements of the same transaction, after the migration (refinery's own history row).
    pub also: &'a [String],
    /// Statements of the same transaction before the migration (refinery's own history table).
    pub before: &'a [String],
    /// How long statements may wait and run.
    pub limits: Limits,
    /// Is told about each try that did not get its lock: attempt from 1, the wait before the next, and who was in the way.
    pub on_retry: &'a (dyn Fn(u32, Duration, &[Blocker]) + Send + Sync),
    /// Is told about older transactions that a statement is about to wait for.
    pub on_older: &'a (dyn Fn(&[Blocker]) + Send + Sync),
}

/// The session of a step, which its migrations go through one after the other.
pub struct Session<'a> {
    /// To the database.
    pub connection: PgConnection,
    watch: Watch<'a>,
}

impl<'a> Session<'a> {
    /// Opens it.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn open(url: &'a DatabaseUrl, application: &str) -> Result<Self, PgError> {
        let mut connection = connect(url, application).await?;
        let pid = sqlx::query_scalar("select pg_backend_pid()").persistent(false).fetch_one(&mut connection).await;
        let pid = pid.map_err(query_error("asking for the session's process"))?;
        Ok(Self { connection, watch: Watch::new(url, application, pid) })
    }

    /// Sends a message, and sees who is in its way.
    async fn send(&mut self, message: &Message<'_>, limits: &Limits) -> Result<(), Failed> {
        let (sent, blockers) = self.watch.during(limits.lock_timeout, message.send(&mut self.connection)).await;
        sent.map_err(|failed| failed.with(blockers))
    }
}

/// Applies a migration and records it.
///
/// # Errors
/// The file, line and statement that failed. A transactional migration has then left nothing behind, unless the session
/// was lost.
pub async fn apply(
    session: &mut Session<'_>,
    it: &Migration,
    setting: &Setting<'_>,
) -> Result<Duration, MigrationError> {
    let begun = Instant::now();
    if it.transactional {
        in_transaction(session, it, setting).await?;
    } else {
        one_by_one(session, it, setting).await?;
    }
    Ok(begun.elapsed())
}

/// The migration, its ledger row, BEGIN and COMMIT as one message: one round trip, and one commit.
async fn in_transaction(
    session: &mut Session<'_>,
    it: &Migration,
    setting: &Setting<'_>,
) -> Result<(), MigrationError> {
    let mut before = format!("{FRESH}BEGIN; {}\n", setting.limits.set_local());
    if !setting.has_ledger {
        before += ledger::CREATE;
    }
    for statement in setting.before {
        before += statement;
        before += "\n;\n";
    }
    let also: String = setting.also.iter().map(|statement| format!("{statement};\n")).collect();
    // A migration that made another role current must not have the ledger row written by it; and refinery's own row names
    // its table without a schema.
    let row = setting.author.applied(it.into());
    let after = format!("\n;\n{OURSELVES} {READABLE} RESET search_path; {also}{row}; COMMIT;");
    let body = sendable(it);
    let message = Message::whole(&body, &before, &after);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let Err(failed) = session.send(&message, &setting.limits).await else { return Ok(()) };
        if failed.is_lost() {
            return Err(MigrationError::Lost { name: it.name.clone(), said: failed.said() });
        }
        // If ending the failed transaction fails, the next statement says why.
        if failed.began() {
            let _ = sqlx::raw_sql("ROLLBACK").execute(&mut session.connection).await;
        }
        if attempt > setting.limits.lock_retries || !failed.worth_another_try() {
            return Err(located(failed, it, &message));
        }
        let wait = wait_before(attempt);
        (setting.on_retry)(attempt, wait, &failed.blockers);
        tokio::time::sleep(wait).await;
    }
}

/// Each statement on its own, between a ledger row that says what is intended and one that says that it is done.
async fn one_by_one(session: &mut Session<'_>, it: &Migration, setting: &Setting<'_>) -> Result<(), MigrationError> {
    let create = if setting.has_ledger { ledger::ADD_PROGRESS } else { ledger::CREATE };
    let (intent, limits) = (setting.author.started(it.into()), setting.limits.set());
    ours(session, it, format!("{FRESH}{limits} BEGIN; {create}{intent}; COMMIT;")).await?;
    let body = sendable(it);
    for (done, range) in statements::split(&body).unwrap_or_default().iter().enumerate() {
        if done > 0 {
            // A role that the file made current may not be allowed to: what is known is a lower bound.
            let _ = ours(session, it, setting.author.progressed(&it.name, done)).await;
        }
        let message = Message::one(&body, *range, "", "");
        let sent = if concurrently::is(range.kind) {
            create_index(session, it, setting, &message, &body[range.start..range.end]).await?
        } else {
            session.send(&message, &setting.limits).await
        };
        if let Err(failed) = sent {
            return Err(located(failed, it, &message));
        }
    }
    ours(session, it, format!("{OURSELVES} RESET ALL; {limits} {}", setting.author.finished(&it.name))).await
}

/// `CREATE INDEX CONCURRENTLY`, with a budget of its own, and without leaving an invalid index behind.
async fn create_index(
    session: &mut Session<'_>,
    it: &Migration,
    setting: &Setting<'_>,
    message: &Message<'_>,
    statement: &str,
) -> Result<Result<(), Failed>, MigrationError> {
    let older = session.watch.old_transactions(&mut session.connection).await;
    if !older.is_empty() {
        (setting.on_older)(&older);
    }
    let before = concurrently::look(&mut session.connection, statement).await;
    ours(session, it, concurrently::budget(&setting.limits)).await?;
    let mut sent = session.send(message, &setting.limits).await;
    match (&mut sent, before) {
        (Err(failed), Some(before)) if !failed.is_lost() => {
            failed.left = before.tidy(&mut session.connection, &setting.limits).await.sentence();
        }
        (Ok(()), Some(before)) => {
            if let Some(index) = before.taken_for_done(&mut session.connection).await {
                return Err(MigrationError::Invalid { name: it.name.clone(), path: it.path.clone(), index });
            }
        }
        _ => {}
    }
    ours(session, it, setting.limits.set()).await?;
    Ok(sent)
}

/// A statement of ours around the migration.
async fn ours(session: &mut Session<'_>, it: &Migration, sql: String) -> Result<(), MigrationError> {
    match sqlx::raw_sql(made(sql)).execute(&mut session.connection).await {
        Ok(_) => Ok(()),
        Err(error) => Err(MigrationError::Ledger { name: it.name.clone(), said: Said::from(&error) }),
    }
}

/// The text without a byte-order mark and a BEGIN … COMMIT of its own. It was checked when it was read.
fn sendable(it: &Migration) -> String {
    transaction::sendable(&it.up, it.transactional).unwrap_or_else(|_| it.up.clone())
}

/// Where in the file it failed.
fn located(failed: Failed, it: &Migration, message: &Message<'_>) -> MigrationError {
    if failed.is_lost() {
        return MigrationError::Lost { name: it.name.clone(), said: failed.said() };
    }
    match message.place(&failed) {
        Some(at) => refused(failed, it, message.text(), at),
        None => MigrationError::Ledger { name: it.name.clone(), said: failed.said() },
    }
}

fn refused(failed: Failed, it: &Migration, body: &str, at: usize) -> MigrationError {
    let (line, column) = statements::line_column(body, at);
    let said = failed.said();
    let waited = !failed.blockers.is_empty();
    let help = match said.state.as_deref() {
        Some("55P03" | "40P01") => in_the_way(&failed.blockers, it),
        Some("57014") if waited => waited_for(&failed.blockers, it),
        _ => "Correct the file before the next `migrate apply`.".into(),
    };
    let length = body[at..].chars().take_while(|c| !c.is_whitespace()).map(char::len_utf8).sum::<usize>().max(1);
    MigrationError::Statement(Box::new(Refused {
        name: it.name.clone(),
        path: it.path.clone(),
        line,
        column,
        text: NamedSource::new(shown(&it.path), body.to_owned()),
        place: (at, length.min(body.len() - at)).into(),
        help: failed.left + &help,
        blockers: failed.blockers,
        said,
    }))
}

fn in_the_way(blockers: &[Blocker], it: &Migration) -> String {
    let found: String = blockers.iter().map(|it| format!("\n  {it}")).collect();
    let seen = if found.is_empty() { " It could not be seen which.".into() } else { format!(" On the last:{found}\n") };
    format!(
        "Other sessions were in the way on every try.{seen}Wait for them or end them (pg_terminate_backend), or give `{}` a \
         longer `-- migrate:lock-timeout`, or its run more lock_retries.",
        it.name
    )
}

fn waited_for(blockers: &[Blocker], it: &Migration) -> String {
    let found: String = blockers.iter().map(|it| format!("\n  {it}")).collect();
    format!(
        "It ran out of time while it waited for other sessions:{found}\nWait for them or end them (pg_terminate_backend), \
         or give `{}` a longer `-- migrate:statement-timeout`.",
        it.name
    )
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
