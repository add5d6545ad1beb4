//! One migration file on its way into a database: in one transaction with its ledger row, or statement by statement where
//! its file says so.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use miette::{NamedSource, SourceSpan};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::journal::ledger::{self, Author};
use crate::names::StepName;
use crate::outside::postgres::{DURABLE, PgError, Said, ask_all, change, connect, only, query_error};
use crate::outside::url::DatabaseUrl;
use crate::sql::{statements, transaction};

use super::Migration;
use super::bare;
use super::blockers::{Blocker, Watch};
use super::decide::Meant;
use super::fresh::{Leftovers, OURSELVES};
use super::limits::{Limits, wait_before};
use super::message::{Failed, Message, READABLE};

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
    /// A file that was to be gone on with is, by now, a matter for a person.
    #[error("`{name}` was begun by an earlier run, and what the database shows of it has changed since the survey")]
    #[diagnostic(code("migration.not_as_surveyed"), help("`migrate status` says what there is to decide."))]
    NotAsSurveyed {
        /// The migration.
        name: String,
    },
    /// What an earlier run left half built stays in the way.
    #[error("the invalid index {index}, which an earlier run of `{name}` left, could not be dropped")]
    #[diagnostic(code("migration.leftover"), help("Look at the cause; the next `migrate apply` tries again."))]
    Leftover {
        /// The migration.
        name: String,
        /// With its schema.
        index: String,
        /// What the server said.
        #[source]
        said: Said,
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
    /// A statement of ours around the migration `name` failed.
    pub(super) fn ledger(name: &str, error: &sqlx::Error) -> Self {
        Self::Ledger { name: name.to_owned(), said: Said::from(error) }
    }

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
    fn row(&self, it: &Migration, leftovers: Leftovers) -> String {
        match self {
            Self::Forward { author, .. } if it.turn.repeatable => author.applied_again(it.into()),
            Self::Forward { author, .. } if leftovers.prepared => author.applied_by_prepared(it.into()),
            Self::Forward { author, .. } if leftovers.may_prepare() => {
                format!("{}; {}", ledger::prepare(), author.applied_by_prepared(it.into()))
            }
            Self::Forward { author, .. } => author.applied(it.into()),
            Self::Back { step } => ledger::removed(step, &it.name),
        }
    }

    /// Whether [`Direction::row`] leaves its statement prepared.
    fn prepares(&self, it: &Migration, leftovers: Leftovers) -> bool {
        matches!(self, Self::Forward { .. }) && !it.turn.repeatable && leftovers.may_prepare()
    }

    /// For before a migration without one; `going_on`, where an earlier run began it.
    pub(super) fn intent(&self, it: &Migration, going_on: bool) -> String {
        match self {
            Self::Forward { author, has_ledger } => {
                let create = if *has_ledger { ledger::ADD_COLUMNS } else { ledger::CREATE };
                create.to_owned() + &if going_on { author.gone_on(it.into()) } else { begun(author, it) }
            }
            Self::Back { step } => {
                let (started, begun) = (ledger::undo_started(step, &it.name), ledger::begun(step, &it.name, true));
                format!("{}{started}; {begun}", ledger::ADD_COLUMNS)
            }
        }
    }

    fn step(&self) -> &StepName {
        match self {
            Self::Forward { author, .. } => &author.step,
            Self::Back { step } => step,
        }
    }

    pub(super) fn progressed(&self, it: &Migration, statements: usize) -> String {
        ledger::progressed(self.step(), &it.name, statements)
    }

    pub(super) fn about_to(&self, it: &Migration, statements: usize, before: Option<&str>) -> String {
        ledger::about_to(self.step(), &it.name, statements, before)
    }

    pub(super) fn finished(&self, it: &Migration) -> String {
        match self {
            Self::Forward { author, .. } => author.finished(&it.name),
            Self::Back { step } => ledger::removed(step, &it.name),
        }
    }
}

fn begun(author: &Author, it: &Migration) -> String {
    let started = if it.turn.repeatable { author.started_again(it.into()) } else { author.started(it.into()) };
    started + "; " + &ledger::begun(&author.step, &it.name, false)
}

/// What surrounds a migration.
pub struct Setting<'a> {
    /// Which way it goes. On the way back, the script is the migration's `up`.
    pub direction: Direction<'a>,
    /// Further statements of the same transaction, after the migration (refinery's own history row).
    pub also: &'a [String],
    /// Statements of the same transaction before the migration (refinery's own history table).
    pub before: &'a [String],
    /// What the ledger says of it, if an earlier run began it without a transaction and did not end it.
    pub meant: Option<&'a Meant>,
    /// Whether its commit waits for the disk. One that does not is on the disk with the next that does; a server that goes down
    /// before loses it whole, with its ledger row.
    pub durable: bool,
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
    pub(crate) leftovers: Leftovers,
}

impl<'a> Session<'a> {
    /// Opens it.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn open(url: &'a DatabaseUrl, application: &str) -> Result<Self, PgError> {
        let mut connection = connect(url, application).await?;
        let answers = ask_all(&mut connection, ["select pg_backend_pid()", Leftovers::QUERY]).await;
        let read = |[pid, functions]: [Vec<PgRow>; 2]| Ok((only(&pid)?.try_get(0)?, Leftovers::read(&functions)?));
        let (pid, leftovers) = answers.and_then(read).map_err(query_error("asking for what the session is"))?;
        Ok(Self::over(connection, pid, leftovers, url, application))
    }

    /// Over a connection that is open already; `pid` is the server's process behind it.
    #[must_use]
    pub fn over(
        connection: PgConnection,
        pid: i32,
        leftovers: Leftovers,
        url: &'a DatabaseUrl,
        application: &str,
    ) -> Self {
        Self { connection, watch: Watch::new(url, application, pid), leftovers }
    }

    /// Sends a message, and sees who is in its way.
    pub(super) async fn send(&mut self, message: &Message<'_>, limits: &Limits) -> Result<(), Failed> {
        let (sent, blockers) = self.watch.during(limits.lock_timeout, message.send(&mut self.connection)).await;
        sent.map_err(|failed| failed.with(blockers))
    }

    /// Transactions for which a statement has to wait that needs every older one to have ended.
    pub(super) async fn older_transactions(&mut self) -> Vec<Blocker> {
        self.watch.old_transactions(&mut self.connection).await
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
    session.leftovers.meet(&it.up);
    if it.transactional {
        in_transaction(session, it, setting).await?;
    } else {
        bare::carry(session, it, setting).await?;
    }
    Ok(begun.elapsed())
}

/// The migration, its ledger row, BEGIN and COMMIT as one message: one round trip, and one commit.
async fn in_transaction(
    session: &mut Session<'_>,
    it: &Migration,
    setting: &Setting<'_>,
) -> Result<(), MigrationError> {
    let leftovers = session.leftovers;
    let mut before = format!("{}BEGIN; {}\n", leftovers.as_new(), setting.limits.set_local(setting.durable));
    before += setting.direction.create();
    // Its file said once that it needs none; nothing of it took effect.
    if let (Some(_), Direction::Forward { author, .. }) = (setting.meant, setting.direction) {
        before += &format!("{};\n", author.not_done(&it.name));
    }
    for statement in setting.before {
        before += statement;
        before += "\n;\n";
    }
    // refinery's own row names its table without a schema.
    let by_name = if setting.also.is_empty() { "" } else { "RESET search_path; " };
    let also: String = setting.also.iter().map(|statement| format!("{statement};\n")).collect();
    // A migration that made another role current must not have the ledger row written by it.
    let row = setting.direction.row(it, leftovers);
    let after = format!("\n;\n{OURSELVES} {READABLE} {by_name}{also}{row}; COMMIT;");
    let body = sendable(it);
    let message = Message::whole(&body, &before, &after);
    let sent = with_retries(session, setting, &message).await;
    // A failure says nothing of what is prepared by now: the next message begins anew.
    session.leftovers.prepared = sent.is_ok() && (leftovers.prepared || setting.direction.prepares(it, leftovers));
    sent.map_err(|failed| located(failed, it, &message))
}

/// Waits for the disk, for commits of the session's that have not: those of migrations whose step ended before its last one. Where
/// that fails, the server is gone, and what it has is what its ledger says when it is back.
pub(crate) async fn settle(session: &mut Session<'_>) {
    // A transaction that writes nothing waits for nothing.
    let word =
        format!("BEGIN; {DURABLE} SELECT pg_catalog.pg_logical_emit_message(true, 'migrate', 'settled'); COMMIT;");
    let _ = change(&mut session.connection, word).await;
}

/// Sends a message that is one transaction, and again as a whole where it did not get its lock, with a wait between two
/// tries that grows and varies. Every try has its limits.
pub(super) async fn with_retries(
    session: &mut Session<'_>,
    setting: &Setting<'_>,
    message: &Message<'_>,
) -> Result<(), Failed> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let Err(failed) = session.send(message, &setting.limits).await else { return Ok(()) };
        if failed.is_lost() {
            return Err(failed);
        }
        // If ending the failed transaction fails, the next statement says why.
        if failed.began() {
            let _ = change(&mut session.connection, "ROLLBACK").await;
        }
        if attempt > setting.limits.lock_retries || !failed.worth_another_try() {
            return Err(failed);
        }
        let wait = wait_before(attempt);
        (setting.on_retry)(attempt, wait, &failed.blockers);
        tokio::time::sleep(wait).await;
    }
}

/// A statement of ours around the migration.
pub(super) async fn ours(session: &mut Session<'_>, name: &str, sql: String) -> Result<(), MigrationError> {
    match change(&mut session.connection, sql).await {
        Ok(_) => Ok(()),
        Err(error) => Err(MigrationError::ledger(name, &error)),
    }
}

/// The text without a byte-order mark and a BEGIN … COMMIT of its own. It was checked when it was read.
pub(crate) fn sendable(it: &Migration) -> String {
    transaction::sendable(&it.up, it.transactional).unwrap_or_else(|_| it.up.clone())
}

/// Where in the file it failed.
pub(super) fn located(failed: Failed, it: &Migration, message: &Message<'_>) -> MigrationError {
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
        Some("53100") => "The disk of the database's server is full, and not the file's fault: make room there, in the tablespace that \
                          the server names, before the next `migrate apply`."
            .into(),
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
        transactional: it.transactional,
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
