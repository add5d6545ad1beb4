//! The way back by down scripts: what a run applied is undone in the reverse order, on the databases as they are, so that
//! everything that was written since stays.
//!
//! It begins from the journal and from the rows that the run wrote into the ledgers, which hold each way back as it was when
//! the migration was applied: the files of a checkout may have changed since. A row goes in the transaction that undoes its
//! migration, so that the rows always say what is left to be undone.

mod alembic;
mod error;
mod look;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde::Serialize;

use crate::event::{Event, Stage};
use crate::journal::entry::{Fact, Outcome};
use crate::journal::ledger::DROP_IF_EMPTY;
use crate::journal::state::Restore;
use crate::journal::{Journal, JournalError};
use crate::kind::Migration;
use crate::kind::migration::{self, Direction, Session, Setting};
use crate::names::{DatabaseName, StepName};
use crate::outside::interrupt::Interrupted;
use crate::outside::postgres::{change, connect, database_oid, query_error};
use crate::outside::store::Store;
use crate::plan::Step;
use crate::world::World;

use alembic::Downgrade;
pub use error::{UndoError, WhyNot};

use super::file_step::{told_of_older, told_of_retries};
use super::report::RunReport;
use super::roles;
use super::rollback::{Down, Request, RollbackError};
use super::subject::{Subject, failed};

/// A run whose migrations are undone.
pub(super) struct Undo<'a> {
    pub(super) world: &'a World,
    pub(super) store: &'a Store,
    subject: Subject<'a>,
    down: Down<'a>,
    /// What our sessions call themselves.
    application: String,
}

/// What is to be undone.
#[derive(Debug, Clone, Default)]
pub struct Ahead {
    /// The databases that will be as before the run.
    pub databases: BTreeSet<DatabaseName>,
    /// In order: what was applied last comes first.
    pub units: Vec<Unit>,
}

/// What is undone in one go.
#[derive(Debug, Clone, Serialize)]
pub struct Unit {
    /// The database.
    pub database: DatabaseName,
    /// The step.
    pub step: StepName,
    /// The migrations, the last one first.
    pub migrations: Vec<String>,
    #[serde(skip)]
    how: How,
}

/// How it is undone.
#[derive(Debug, Clone)]
enum How {
    /// By its down script, with these statements in its transaction.
    Script { script: Box<Migration>, also: Vec<String> },
    /// By Alembic itself, which goes back to a revision.
    Downgrade(Downgrade),
}

impl Unit {
    /// `STEP/NAME` of each.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.migrations.iter().map(|name| format!("{}/{name}", self.step)).collect()
    }
}

/// How far it got.
#[derive(Default)]
struct Progress {
    undone: Vec<String>,
    left: Vec<String>,
}

impl Progress {
    fn took(&mut self, step: &StepName, gone: &[String]) {
        let names: Vec<String> = gone.iter().map(|name| format!("{step}/{name}")).collect();
        self.left.retain(|it| !names.contains(it));
        self.undone.extend(names);
    }
}

impl<'a> Undo<'a> {
    pub(super) fn new(world: &'a World, store: &'a Store, subject: Subject<'a>, down: Down<'a>) -> Self {
        Self { world, store, subject, down, application: format!("migrate {}", subject.state.run) }
    }

    pub(super) async fn carry(
        &self,
        journal: &Journal,
        request: &Request<'_>,
        report: &mut RunReport,
    ) -> Result<Vec<DatabaseName>, RollbackError> {
        // A rollback that cannot even begin leaves the run as it was.
        let ahead = self.look(request.only).await?;
        let databases = ahead.databases.iter().cloned().collect();
        let via = Some("down".to_owned());
        let (why, only) = (request.why.to_owned(), request.only.is_some());
        journal.write(Fact::RollbackStart { databases, why, via, only }).await?;
        self.subject.already_swapped(journal, report).await?;
        self.world.tell(Event::Stage(Stage::Undo));
        for unit in &ahead.units {
            let line = report.database(&unit.database);
            line.applied = line.applied.max(ahead.count(&unit.database));
        }
        let mut progress = Progress::default();
        if let Err(error) = self.undo_all(journal, &ahead, &mut progress, report).await {
            self.stopped(journal, &error, &progress).await;
            return Err(error);
        }
        self.side_databases(report).await?;
        roles::tell(&self.subject, self.world, "No down script dropped it", report).await?;
        self.subject.end(journal, request, &ahead.databases).await?;
        Ok(ahead.databases.into_iter().collect())
    }

    async fn undo_all(
        &self,
        journal: &Journal,
        ahead: &Ahead,
        progress: &mut Progress,
        report: &mut RunReport,
    ) -> Result<(), RollbackError> {
        let mut sessions = BTreeMap::new();
        for name in ahead.databases.iter().filter(|name| ahead.count(name) == 0) {
            self.through(journal, name, report).await?;
        }
        for (at, unit) in ahead.units.iter().enumerate() {
            progress.left = ahead.units[at..].iter().flat_map(Unit::names).collect();
            if self.world.interrupt.requested() {
                return Err(Interrupted.into());
            }
            self.undo(journal, unit, &mut sessions, progress).await?;
            if ahead.units[at + 1..].iter().all(|later| later.database != unit.database) {
                self.through(journal, &unit.database, report).await?;
            }
        }
        Ok(())
    }

    async fn undo<'s>(
        &'s self,
        journal: &Journal,
        unit: &Unit,
        sessions: &mut BTreeMap<DatabaseName, Session<'s>>,
        progress: &mut Progress,
    ) -> Result<(), RollbackError> {
        let (step, database) = (unit.step.clone(), unit.database.clone());
        let (begun, migrations) = (Instant::now(), unit.migrations.clone());
        let start = Fact::UndoStart { step: step.clone(), database: database.clone(), migrations: migrations.clone() };
        journal.write(start).await?;
        let (gone, result) = match &unit.how {
            How::Script { script, also } => match self.by_script(unit, script, also, sessions).await {
                Ok(()) => (migrations.clone(), Ok(())),
                Err(error) => (Vec::new(), Err(error)),
            },
            How::Downgrade(it) => self.by_alembic(journal, unit, it).await,
        };
        progress.took(&step, &gone);
        let written = self.tell_undone(journal, unit, &gone, begun.elapsed().as_secs_f64()).await;
        let Err(source) = result else { return Ok(written?) };
        // What went wrong with the database matters more than what then goes wrong with the journal.
        let (message, left) = (source.to_string(), migrations.into_iter().filter(|it| !gone.contains(it)).collect());
        let _ = journal.write(Fact::UndoFailed { step, database, migrations: left, message }).await;
        Err(self.not_undone(unit, progress, source).into())
    }

    async fn tell_undone(
        &self,
        journal: &Journal,
        unit: &Unit,
        gone: &[String],
        seconds: f64,
    ) -> Result<(), JournalError> {
        if gone.is_empty() {
            return Ok(());
        }
        let (step, database, migrations) = (unit.step.clone(), unit.database.clone(), gone.to_vec());
        let event =
            Event::Undone { database: database.clone(), step: step.clone(), migrations: migrations.clone(), seconds };
        self.world.tell(event);
        journal.write(Fact::Undone { step, database, migrations, seconds }).await
    }

    async fn by_script<'s>(
        &'s self,
        unit: &Unit,
        script: &Migration,
        also: &[String],
        sessions: &mut BTreeMap<DatabaseName, Session<'s>>,
    ) -> Result<(), WhyNot> {
        let database = &unit.database;
        if !sessions.contains_key(database) {
            let url = &self.subject.databases[database].url;
            sessions.insert(database.clone(), Session::open(url, &self.application).await?);
        }
        let session = sessions.get_mut(database).expect("it was opened above");
        let limits = self.step(&unit.step).map(|step| self.down.plan.limits(step)).unwrap_or_default();
        let setting = Setting {
            direction: Direction::Back { step: &unit.step },
            meant: None,
            before: &[],
            also,
            durable: true,
            limits: limits.with(script.budget),
            on_retry: &told_of_retries(self.world, database, &script.name),
            on_older: &told_of_older(self.world, database, &script.name),
        };
        migration::carry(session, script, &setting).await?;
        Ok(())
    }

    /// The step, as the run's plan has it.
    fn step(&self, name: &StepName) -> Option<&Step> {
        self.down.plan.steps.iter().find(|step| step.name == *name)
    }

    /// Every migration of the run on a database is undone. A ledger that the run made is empty, and goes as well.
    async fn through(
        &self,
        journal: &Journal,
        name: &DatabaseName,
        report: &mut RunReport,
    ) -> Result<(), RollbackError> {
        let url = &self.subject.database(name)?.url;
        let mut session = connect(url, &self.application).await.map_err(failed(name))?;
        let drop = format!("SET lock_timeout = '4s'; {DROP_IF_EMPTY}");
        let dropped = change(&mut session, drop).await;
        dropped.map_err(query_error("removing the empty ledger")).map_err(failed(name))?;
        journal.write(Fact::AllUndone { database: name.clone() }).await?;
        let line = report.database(name);
        (line.rolled_back, line.via) = (true, Some("down"));
        Ok(())
    }

    fn not_undone(&self, unit: &Unit, progress: &Progress, source: WhyNot) -> Box<UndoError> {
        let run = &self.subject.state.run;
        let list = |names: &[String]| if names.is_empty() { "nothing".into() } else { names.join(", ") };
        let snapshot = match self.subject.state.no_snapshot {
            None => format!(", or restore what is still changed: `migrate rollback {run} --via snapshot`"),
            Some(_) => String::new(),
        };
        let (undone, left) = (list(&progress.undone), list(&progress.left));
        let help = format!(
            "{}Undone: {undone}. Not undone: {left}. Remove what is in the way and go on with `migrate rollback {run} --via \
             down`{snapshot}.",
            source.advice()
        );
        let (database, names) = (unit.database.clone(), unit.names().join(", "));
        Box::new(UndoError::Failed { database, names, help, source })
    }

    /// An end that did not take the run back. One that has changed nothing leaves the run what it was; one without snapshots
    /// can be gone on from, either way.
    async fn stopped(&self, journal: &Journal, error: &RollbackError, progress: &Progress) {
        let left_nothing = !matches!(error, RollbackError::Undo(it) if it.may_have_changed());
        let outcome = match self.subject.state.no_snapshot {
            Some(_) => Some(Outcome::Halted),
            None if progress.undone.is_empty() && left_nothing => self.subject.state.outcome,
            None => None,
        };
        let message = Some(error.to_string());
        if let Some(outcome) = outcome {
            // If this cannot be written, the run stays unfinished, which is more careful and not wrong.
            let _ = journal.write(Fact::End { outcome, message }).await;
        }
    }

    /// What an earlier rollback by snapshot had restored beside, and nobody needs any more.
    async fn side_databases(&self, report: &mut RunReport) -> Result<(), RollbackError> {
        for (name, it) in &self.subject.state.databases {
            let side = match &it.restore {
                Restore::Begun(side) | Restore::Ready(side) => side,
                Restore::Swapping(swap) if report.database(name).via == Some("down") => &swap.side,
                _ => continue,
            };
            let mut session = self.subject.maintenance(name).await?;
            if database_oid(&mut session, side).await.map_err(failed(name))?.is_some() {
                let note = format!(
                    "an earlier rollback left the database {side}, which nobody needs: DROP DATABASE \"{side}\""
                );
                self.world.tell(Event::Noted(note.clone()));
                report.notes.push(note);
            }
        }
        Ok(())
    }
}

impl Ahead {
    /// Migrations that are to be undone on a database.
    #[must_use]
    pub fn count(&self, name: &DatabaseName) -> u64 {
        self.units.iter().filter(|it| it.database == *name).map(|it| it.migrations.len() as u64).sum()
    }
}
