//! One migration file on its way into a database: in one transaction with its ledger row, or statement by statement where
//! its file says so.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use miette::{NamedSource, SourceSpan};
use sqlx::PgConnection;
use sqlx::postgres::PgErrorPosition;

use crate::journal::ledger::{self, Author};
use crate::names::StepName;
use crate::outside::postgres::{PgError, Said, connect, database_error, made, query_error};
use crate::outside::url::DatabaseUrl;
use crate::sql::{statements, transaction};

use super::Migration;
use super::blockers::{Blocker, Watch};
use super::concurrently;
use super::limits::{Limits, wait_before};

/// SQL states after which the same transaction may succeed: a lock not had in time, a deadlock, a serialisation failure.
const WORTH_ANOTHER_TRY: [&str; 3] = ["55P03", "40P01", "40001"];
/// What DISCARD ALL does, which itself cannot share a message: cursors, roles, settings, prepared statements, session locks,
/// temporary tables, nothing that an earlier migration left in the session is there for the next. It is a transaction of
/// its own, since a transaction keeps the isolation level with which it began.
const FRESH: &str = "BEGIN; CLOSE ALL; RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; DEALLOCATE ALL; UNLISTEN *; \
     SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES; COMMIT;\n";
/// The settings by which the server reads the next message: it reads all of it before [`FRESH`] has any effect.
const READABLE: &str = "RESET standard_conforming_strings; RESET backslash_quote; RESET client_encoding;";
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
    /// False: statements before it have taken effect.
    pub transactional: bool,
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

/// Which way a migration is carried, and what that means for its ledger row.
#[derive(Clone, Copy)]
pub enum Direction<'a> {
    /// It is applied, and its row is written.
    Forward {
        /// Writes the row.
        author: &'a Author,
        /// Whether the database has a ledger.
        has_ledger: bool,
    },
    /// It is undone, and its row is removed.
    Back {
        /// The step that it belongs to.
        step: &'a StepName,
    },
}

impl Direction<'_> {
    /// What has to be there before the row is touched.
    fn create(&self) -> &'static str {
        if matches!(self, Self::Forward { has_ledger: false, .. }) { ledger::CREATE } else { "" }
    }

    /// For the end of the migration's own transaction.
    fn row(&self, it: &Migration) -> String {
        match self {
            Self::Forward { author, .. } if it.turn.repeatable => author.applied_again(it.into()),
            Self::Forward { author, .. } => author.applied(it.into()),
            Self::Back { step } => ledger::removed(step, &it.name),
        }
    }

    /// For before a migration without one.
    fn intent(&self, it: &Migration) -> String {
        match self {
            Self::Forward { author, has_ledger } => {
                let create = if *has_ledger { ledger::ADD_PROGRESS } else { ledger::CREATE };
                create.to_owned() + &begun(author, it)
            }
            Self::Back { step } => ledger::ADD_PROGRESS.to_owned() + &ledger::undo_started(step, &it.name),
        }
    }

    fn progressed(&self, it: &Migration, statements: usize) -> String {
        match self {
            Self::Forward { author, .. } => ledger::progressed(&author.step, &it.name, statements),
            Self::Back { step } => ledger::progressed(step, &it.name, statements),
        }
    }

    fn finished(&self, it: &Migration) -> String {
        match self {
            Self::Forward { author, .. } => author.finished(&it.name),
            Self::Back { step } => ledger::removed(step, &it.name),
        }
    }
}

fn begun(author: &Author, it: &Migration) -> String {
    if !it.turn.repeatable {
        return author.started(it.into());
    }
    // The progress of the last time is none of this time's.
    author.started_again(it.into()) + "; " + &ledger::progressed(&author.step, &it.name, 0)
}

/// What surrounds a migration.
pub struct Setting<'a> {
    /// Which way it goes. On the way back, the script is the migration's `up`.
    pub direction: Direction<'a>,
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
        sent.map_err(|failed| Failed { blockers, ..failed })
    }
}

/// Carries a migration over and records it: applies it, or undoes it, as its setting says.
///
/// # Errors
/// The file, line and statement that failed. A transactional migration has then left nothing behind, unless the session
/// was lost.
pub async fn carry(
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
    before += setting.direction.create();
    for statement in setting.before {
        before += statement;
        before += "\n;\n";
    }
    let also: String = setting.also.iter().map(|statement| format!("{statement};\n")).collect();
    // A migration that made another role current must not have the ledger row written by it; and refinery's own row names
    // its table without a schema.
    let row = setting.direction.row(it);
    let after = format!("\n;\n{OURSELVES} {READABLE} RESET search_path; {also}{row}; COMMIT;");
    let body = sendable(it);
    let message = Message { before: &before, body: &body, after: &after };
    let mut attempt = 0;
    loop {
        attempt += 1;
        let Err(failed) = session.send(&message, &setting.limits).await else { return Ok(()) };
        if failed.is_lost() {
            return Err(MigrationError::Lost { name: it.name.clone(), said: failed.said() });
        }
        // A message that does not parse begins nothing. If ending the failed transaction fails, the next statement says why.
        if failed.completed > 0 {
            let _ = sqlx::raw_sql("ROLLBACK").execute(&mut session.connection).await;
        }
        if attempt > setting.limits.lock_retries || !failed.worth_another_try() {
            return Err(failed.locate(it, &message));
        }
        let wait = wait_before(attempt);
        (setting.on_retry)(attempt, wait, &failed.blockers);
        tokio::time::sleep(wait).await;
    }
}

/// Each statement on its own, between a ledger row that says what is intended and one that says that it is done.
async fn one_by_one(session: &mut Session<'_>, it: &Migration, setting: &Setting<'_>) -> Result<(), MigrationError> {
    let (intent, limits) = (setting.direction.intent(it), setting.limits.set());
    ours(session, it, format!("{FRESH}{limits} BEGIN; {intent}; COMMIT;")).await?;
    let body = sendable(it);
    for (done, range) in statements::split(&body).unwrap_or_default().iter().enumerate() {
        if done > 0 {
            // A role that the file made current may not be allowed to: what is known is a lower bound.
            let _ = ours(session, it, setting.direction.progressed(it, done)).await;
        }
        let message = Message { before: "", body: &body[range.start..range.end], after: "" };
        let sent = if concurrently::is(range.kind) {
            create_index(session, it, setting, &message).await?
        } else {
            session.send(&message, &setting.limits).await
        };
        if let Err(failed) = sent {
            return Err(failed.locate_at(it, &body, range.start));
        }
    }
    ours(session, it, format!("{OURSELVES} RESET ALL; {limits} {}", setting.direction.finished(it))).await
}

/// `CREATE INDEX CONCURRENTLY`, with a budget of its own, and without leaving an invalid index behind.
async fn create_index(
    session: &mut Session<'_>,
    it: &Migration,
    setting: &Setting<'_>,
    message: &Message<'_>,
) -> Result<Result<(), Failed>, MigrationError> {
    let older = session.watch.old_transactions(&mut session.connection).await;
    if !older.is_empty() {
        (setting.on_older)(&older);
    }
    let before = concurrently::look(&mut session.connection, message.body).await;
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

/// What is sent to the server in one piece.
struct Message<'a> {
    before: &'a str,
    body: &'a str,
    after: &'a str,
}

/// A message that failed, after so many of its statements.
struct Failed {
    error: sqlx::Error,
    completed: usize,
    blockers: Vec<Blocker>,
    /// What it left, in a sentence.
    left: String,
}

impl Message<'_> {
    async fn send(&self, session: &mut PgConnection) -> Result<(), Failed> {
        let text = format!("{}{}{}", self.before, self.body, self.after);
        let mut completed = 0;
        let mut results = sqlx::raw_sql(made(text)).fetch_many(session);
        loop {
            match results.try_next().await {
                Ok(Some(sqlx::Either::Left(_))) => completed += 1,
                Ok(Some(sqlx::Either::Right(_))) => {}
                Ok(None) => return Ok(()),
                Err(error) => return Err(Failed { error, completed, blockers: Vec::new(), left: String::new() }),
            }
        }
    }
}

impl Failed {
    fn is_lost(&self) -> bool {
        // An administrator's command ends the session after the server has said so.
        database_error(&self.error).is_none_or(|said| said.code().starts_with("57P"))
    }

    fn worth_another_try(&self) -> bool {
        database_error(&self.error).is_some_and(|said| WORTH_ANOTHER_TRY.contains(&said.code()))
    }

    fn said(&self) -> Said {
        Said::from(&self.error)
    }

    /// Where in the file it failed: the position that the server gives, else the statement that did not complete.
    fn locate(self, it: &Migration, message: &Message<'_>) -> MigrationError {
        let prefix = message.before.chars().count();
        let ours = statements::split(message.before).map_or(0, |ranges| ranges.len());
        let body = message.body;
        let theirs = statements::split(body).unwrap_or_default();
        let by_statement =
            self.completed.checked_sub(ours).and_then(|index| theirs.get(index)).map(|range| range.start);
        let by_position = self.position().and_then(|at| (at - 1).checked_sub(prefix));
        let by_position = by_position.map(|chars| statements::char_to_byte(body, chars + 1));
        match by_position.filter(|at| *at < body.len()).or(by_statement) {
            Some(at) => self.at(it, body, at),
            None => MigrationError::Ledger { name: it.name.clone(), said: self.said() },
        }
    }

    fn locate_at(self, it: &Migration, body: &str, start: usize) -> MigrationError {
        if self.is_lost() {
            return MigrationError::Lost { name: it.name.clone(), said: self.said() };
        }
        let within = self.position().map_or(0, |at| statements::char_to_byte(&body[start..], at));
        self.at(it, body, start + within)
    }

    /// From 1, in characters of the whole message.
    fn position(&self) -> Option<usize> {
        match database_error(&self.error)?.position()? {
            PgErrorPosition::Original(at) if at > 0 => Some(at),
            _ => None,
        }
    }

    fn at(self, it: &Migration, body: &str, at: usize) -> MigrationError {
        let (line, column) = statements::line_column(body, at);
        let said = self.said();
        let waited = !self.blockers.is_empty();
        let help = match said.state.as_deref() {
            Some("55P03" | "40P01") => in_the_way(&self.blockers, it),
            Some("57014") if waited => waited_for(&self.blockers, it),
            _ => "Correct the file before the next `migrate apply`.".into(),
        };
        let shown = shown(&it.path);
        let length = body[at..].chars().take_while(|c| !c.is_whitespace()).map(char::len_utf8).sum::<usize>().max(1);
        MigrationError::Statement(Box::new(Refused {
            name: it.name.clone(),
            path: it.path.clone(),
            line,
            column,
            text: NamedSource::new(shown, body.to_owned()),
            place: (at, length.min(body.len() - at)).into(),
            help: self.left + &help,
            blockers: self.blockers,
            transactional: it.transactional,
            said,
        }))
    }
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
