//! A migration file without a transaction: statement by statement. A statement that can share a transaction does so with
//! the ledger's word that it has ended, so that a crash leaves no doubt; of one that cannot, the ledger says beforehand
//! that it is about to be sent, and afterwards that it has ended. A file that was cut off goes on where it stopped.

use crate::outside::postgres::{Said, change};
use crate::sql::effect::{self, Effect};
use crate::sql::statements::{self, Statement, StatementKind};

use super::concurrently::{self, Tidied};
use super::decide::{Decision, GoOn, decide};
use super::fresh::OURSELVES;
use super::message::{Failed, Message};
use super::migration::{MigrationError, Session, Setting, located, ours, sendable, with_retries};
use super::{Migration, cut_off};

/// For one transaction, the role of the connection: the file may have made another one current, which the ledger does not
/// know.
const AS_OURSELVES: &str = "SET LOCAL SESSION AUTHORIZATION DEFAULT; SET LOCAL ROLE NONE;";
/// The server refuses a statement inside a transaction that looks as any other.
const NOT_IN_A_TRANSACTION: &str = "25001";

/// Carries it over, or what is left of it.
pub(super) async fn carry(
    session: &mut Session<'_>,
    it: &Migration,
    setting: &Setting<'_>,
) -> Result<(), MigrationError> {
    let body = sendable(it);
    let go_on = where_to_go_on(session, it, setting, &body).await?;
    let (limits, intent) = (setting.limits.set(), setting.direction.intent(it, go_on.is_some()));
    let as_new = session.leftovers.as_new();
    ours(session, &it.name, format!("{as_new}{limits} BEGIN; {intent}; COMMIT;")).await?;
    let file = File { it, setting, body: &body };
    let all = statements::split(&body).unwrap_or_default();
    let from = go_on.as_ref().map_or(0, |it| it.from);
    if let Some(go_on) = &go_on {
        file.take_over(session, &all[..from], go_on).await?;
    }
    for (done, statement) in all.iter().enumerate().skip(from) {
        file.statement(session, *statement, done).await?;
    }
    let finished = setting.direction.finished(it);
    ours(session, &it.name, format!("{OURSELVES} RESET ALL; {limits} {finished}")).await
}

/// Looked at again, although the survey did: what goes on must be what is so now.
async fn where_to_go_on(
    session: &mut Session<'_>,
    it: &Migration,
    setting: &Setting<'_>,
    body: &str,
) -> Result<Option<GoOn>, MigrationError> {
    let Some(meant) = setting.meant else { return Ok(None) };
    let shown = cut_off::look(&mut session.connection, meant).await;
    let shown = shown.map_err(|error| MigrationError::ledger(&it.name, &error))?;
    match decide(meant, body, &shown) {
        Decision::GoOn(go_on) => Ok(Some(go_on)),
        _ => Err(MigrationError::NotAsSurveyed { name: it.name.clone() }),
    }
}

/// A file on its way.
struct File<'a> {
    it: &'a Migration,
    setting: &'a Setting<'a>,
    body: &'a str,
}

impl File<'_> {
    fn text(&self, it: Statement) -> &str {
        &self.body[it.start..it.end]
    }

    /// In the place of a session that is gone: its settings are made again, and what it left half built is dropped.
    async fn take_over(
        &self,
        session: &mut Session<'_>,
        ended: &[Statement],
        go_on: &GoOn,
    ) -> Result<(), MigrationError> {
        for it in ended.iter().filter(|it| effect::sets_the_session(self.text(**it))) {
            let message = Message::one(self.body, *it, "", "");
            session.send(&message, &self.setting.limits).await.map_err(|failed| located(failed, self.it, &message))?;
        }
        let Some(index) = &go_on.drop else { return Ok(()) };
        ours(session, &self.it.name, concurrently::budget(&self.setting.limits)).await?;
        let drop = change(&mut session.connection, format!("DROP INDEX CONCURRENTLY {index}"));
        if let Err(error) = drop.await {
            let (name, index, said) = (self.it.name.clone(), index.clone(), Said::from(&error));
            return Err(MigrationError::Leftover { name, index, said });
        }
        ours(session, &self.it.name, self.setting.limits.set()).await
    }

    /// Statement number `done`, from 0.
    async fn statement(
        &self,
        session: &mut Session<'_>,
        statement: Statement,
        done: usize,
    ) -> Result<(), MigrationError> {
        let (it, setting) = (self.it, self.setting);
        if effect::stands_alone(self.text(statement), statement.kind) {
            return self.alone(session, statement, done).await;
        }
        let record = setting.direction.progressed(it, done + 1);
        let after = format!("\n;\n{AS_OURSELVES} {record}; COMMIT;");
        let message = Message::one(self.body, statement, "BEGIN;\n", &after);
        match with_retries(session, setting, &message).await {
            Err(failed) if failed.state() == Some(NOT_IN_A_TRANSACTION) => self.alone(session, statement, done).await,
            sent => sent.map_err(|failed| located(failed, it, &message)),
        }
    }

    /// One that can share no transaction.
    async fn alone(&self, session: &mut Session<'_>, statement: Statement, done: usize) -> Result<(), MigrationError> {
        let direction = self.setting.direction;
        let before = cut_off::before(&mut session.connection, self.text(statement), statement.kind).await;
        let before = before.map(|it| serde_json::to_string(&it).expect("numbers can be written as JSON"));
        self.record(session, direction.about_to(self.it, done, before.as_deref())).await?;
        let message = Message::one(self.body, statement, "", "");
        let sent = match concurrently::which(statement.kind) {
            Some(concurrently::Which::CreateIndex) => self.create_index(session, statement, &message).await?,
            Some(concurrently::Which::Other) => self.in_its_own_time(session, &message).await?,
            // What has committed a part of itself must not be sent again.
            None if effect::of(self.text(statement), statement.kind) == Effect::Repeatable => {
                with_retries(session, self.setting, &message).await
            }
            None => session.send(&message, &self.setting.limits).await,
        };
        match sent {
            Ok(()) => self.record(session, direction.progressed(self.it, done + 1)).await,
            Err(failed) => {
                if left_nothing(statement.kind, &failed) {
                    // If that cannot be written, the next run finds it out, or asks.
                    let _ = self.record(session, direction.progressed(self.it, done)).await;
                }
                Err(located(failed, self.it, &message))
            }
        }
    }

    /// Writes to the ledger, whatever role is current.
    async fn record(&self, session: &mut Session<'_>, update: String) -> Result<(), MigrationError> {
        ours(session, &self.it.name, format!("BEGIN; {AS_OURSELVES} {update}; COMMIT;")).await
    }

    /// One that waits for every older transaction: they are named first, and it has a budget of its own.
    async fn in_its_own_time(
        &self,
        session: &mut Session<'_>,
        message: &Message<'_>,
    ) -> Result<Result<(), Failed>, MigrationError> {
        let older = session.older_transactions().await;
        if !older.is_empty() {
            (self.setting.on_older)(&older);
        }
        ours(session, &self.it.name, concurrently::budget(&self.setting.limits)).await?;
        let sent = session.send(message, &self.setting.limits).await;
        if sent.as_ref().is_err_and(Failed::is_lost) {
            return Ok(sent);
        }
        ours(session, &self.it.name, self.setting.limits.set()).await?;
        Ok(sent)
    }

    /// `CREATE INDEX CONCURRENTLY` leaves no invalid index behind, and takes none for done.
    async fn create_index(
        &self,
        session: &mut Session<'_>,
        statement: Statement,
        message: &Message<'_>,
    ) -> Result<Result<(), Failed>, MigrationError> {
        let before = concurrently::look(&mut session.connection, self.text(statement)).await;
        let mut sent = self.in_its_own_time(session, message).await?;
        match (&mut sent, before) {
            (Err(failed), Some(before)) if !failed.is_lost() => {
                let tidied = before.tidy(&mut session.connection, &self.setting.limits).await;
                failed.left = tidied.sentence();
                failed.left_something = matches!(tidied, Tidied::Left(_));
            }
            (Ok(()), Some(before)) => {
                if let Some(index) = before.taken_for_done(&mut session.connection).await {
                    let (name, path) = (self.it.name.clone(), self.it.path.clone());
                    return Err(MigrationError::Invalid { name, path, index });
                }
            }
            _ => {}
        }
        Ok(sent)
    }
}

/// Whether a statement that the server refused is known to have had no effect, or none that another try would mind.
fn left_nothing(kind: StatementKind, failed: &Failed) -> bool {
    let known = match kind {
        StatementKind::CannotRunInTransaction(name) => name != "DETACH PARTITION CONCURRENTLY",
        _ => false,
    };
    known && !failed.is_lost() && !failed.left_something
}
