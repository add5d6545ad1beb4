//! Revisions that Alembic itself takes back: one `alembic downgrade` for all of a run's, from a checkout of the release, under
//! the same supervision as on the way forward.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::failure::list;
use crate::journal::Journal;
use crate::journal::ledger;
use crate::kind::Kind;
use crate::kind::alembic::{self, Alembic, Revisions};
use crate::names::{DatabaseName, StepName};
use crate::outside::postgres::connect;
use crate::plan::{Plan, Step};

use super::super::file_step::session;
use super::super::program_step::{self, ProgramFailed};
use super::super::rollback::RollbackError;
use super::super::step::{Context, StepError};
use super::super::subject::failed;
use super::look::{Row, without};
use super::{How, Undo, UndoError, Unit, WhyNot};

/// Where Alembic goes.
#[derive(Debug, Clone)]
pub(super) struct Downgrade {
    /// A revision, or `base`. None: the database is there already, and only the ledger does not say so.
    to: Option<String>,
    revisions: Arc<Revisions>,
}

/// The step as the checkout has it.
struct Here<'a> {
    plan: &'a Plan,
    step: &'a Step,
    alembic: &'a Alembic,
}

impl Undo<'_> {
    /// The revisions of a step, in one go. What stands in the way goes to `reasons`.
    pub(super) async fn by_alembic_ahead(
        &self,
        name: &StepName,
        rows: &[Row],
        reasons: &mut Vec<String>,
    ) -> Result<Option<Unit>, RollbackError> {
        let Some((database, _)) = rows.first() else { return Ok(None) };
        let here = match self.here(name) {
            Ok(here) => here,
            Err(reason) => {
                reasons.extend(rows.iter().map(|(database, row)| without(database, row, &reason)));
                return Ok(None);
            }
        };
        let revisions = here.alembic.revisions(&self.world.interrupt, &here.plan.limits(here.step)).await;
        let asked = |source| Box::new(UndoError::Alembic { database: database.clone(), source });
        let revisions = revisions.map_err(asked)?;
        let missing: Vec<String> = rows.iter().filter_map(|row| stands_in_the_way(&revisions, row)).collect();
        if !missing.is_empty() {
            reasons.extend(missing);
            return Ok(None);
        }
        let url = &self.subject.database(database)?.url;
        let mut session = connect(url, "migrate rollback").await.map_err(failed(database))?;
        let current = alembic::current(&mut session, &revisions.version_table).await.map_err(failed(database))?;
        let mine: BTreeSet<String> = rows.iter().map(|(_, row)| row.name.clone()).collect();
        match revisions.way_down(&current, &mine) {
            Ok(to) => Ok(Some(unit(name, database, rows, Downgrade { to, revisions: Arc::new(revisions) }))),
            Err(reason) => {
                let first = &rows[rows.len() - 1].1;
                reasons.push(without(database, first, &reason));
                Ok(None)
            }
        }
    }

    /// Where Alembic can be run.
    fn here(&self, name: &StepName) -> Result<Here<'_>, String> {
        let plan = self.down.checkout.ok_or(
            "Alembic takes it back from a checkout of the release: run this in one, with its plan and without --store",
        )?;
        let step = plan.steps.iter().find(|step| step.name == *name);
        match step.map(|step| (step, &step.kind)) {
            Some((step, Kind::Alembic(alembic))) => Ok(Here { plan, step, alembic }),
            _ => Err(format!("the plan at hand has no alembic step `{name}`: run this in a checkout of the release")),
        }
    }

    /// What is undone by now, and whether that is all.
    pub(super) async fn by_alembic(
        &self,
        journal: &Journal,
        unit: &Unit,
        it: &Downgrade,
    ) -> (Vec<String>, Result<(), WhyNot>) {
        let Ok(here) = self.here(&unit.step) else { return (Vec::new(), Ok(())) };
        let context = Context::back(self.world, here.plan, self.store, journal);
        let before = match program_step::others(&context, here.step).await {
            Ok(before) => before,
            Err(error) => return (Vec::new(), Err(error.into())),
        };
        let ran = self.run(&context, &here, it).await;
        let (gone, written) = match self.follow(&context, &here, unit, it).await {
            Ok(gone) => (gone, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        let strayed = match program_step::strayed(&context, here.step, &before).await {
            Ok(None) => ran.and(written),
            Ok(Some(what)) => Err(wrong_database(here.step, what, ran.and(written).err())),
            Err(error) => ran.and(written).and(Err(error)),
        };
        let result = strayed.and_then(|()| all_gone(here.step, unit, &gone, it));
        (gone, result.map_err(WhyNot::from))
    }

    async fn run(&self, context: &Context<'_>, here: &Here<'_>, it: &Downgrade) -> Result<(), StepError> {
        let Some(to) = &it.to else { return Ok(()) };
        let limits = here.plan.limits(here.step);
        let program =
            here.alembic.surroundings.program(here.alembic.downgrade(to), &limits, Some(&self.subject.state.run));
        // Each try has a journal of another length, and so a file of its own for its output.
        let log = format!("downgrade-{:06}", self.subject.state.entries);
        let ran = program_step::run(context, here.step, &format!("alembic downgrade {to}"), &log, &program).await;
        ran.map_err(|(error, _)| error)
    }

    /// The ledger follows what the database says.
    async fn follow(
        &self,
        context: &Context<'_>,
        here: &Here<'_>,
        unit: &Unit,
        it: &Downgrade,
    ) -> Result<Vec<String>, StepError> {
        let mut session = session(here.step, context).await.map_err(|(error, _)| error)?;
        let failed = |source| StepError::Database { database: unit.database.clone(), source };
        let current = alembic::current(&mut session.connection, &it.revisions.version_table).await.map_err(failed)?;
        // A revision that nobody knows says nothing of what is gone.
        let Ok(has) = it.revisions.applied(&current) else { return Ok(Vec::new()) };
        let gone: Vec<String> = unit.migrations.iter().filter(|name| !has.contains(*name)).cloned().collect();
        let rows: Vec<String> = gone.iter().map(|name| ledger::removed(&unit.step, name)).collect();
        let written =
            program_step::sql(&mut session.connection, here.step, "recording what was undone", rows.join(";\n")).await;
        written.map(|()| gone).map_err(|(error, _)| error)
    }
}

fn unit(step: &StepName, database: &DatabaseName, rows: &[Row], it: Downgrade) -> Unit {
    Unit {
        database: database.clone(),
        step: step.clone(),
        migrations: rows.iter().map(|(_, row)| row.name.clone()).collect(),
        how: How::Downgrade(it),
    }
}

/// Why a revision cannot be taken back from this checkout.
fn stands_in_the_way(revisions: &Revisions, (database, row): &Row) -> Option<String> {
    let reason = match revisions.migrations.iter().find(|it| it.name == row.name) {
        None => "the checkout does not have it: check out the release",
        Some(file) if file.checksum != row.checksum => {
            "its file in the checkout is not what was applied: check out the release"
        }
        Some(_) if !revisions.goes_down(&row.name) => "it has no downgrade()",
        Some(_) => return None,
    };
    Some(without(database, row, reason))
}

fn wrong_database(step: &Step, what: String, also: Option<StepError>) -> StepError {
    let (step, meant, also) = (step.name.clone(), step.database.clone(), also.map(Box::new));
    StepError::Program(Box::new(ProgramFailed::WrongDatabase { step, meant, what, also }))
}

fn all_gone(step: &Step, unit: &Unit, gone: &[String], it: &Downgrade) -> Result<(), StepError> {
    let left: Vec<&String> = unit.migrations.iter().filter(|name| !gone.contains(name)).collect();
    if left.is_empty() {
        return Ok(());
    }
    let (database, table) = (step.database.clone(), it.revisions.version_table.to_string());
    Err(StepError::Program(Box::new(ProgramFailed::NotUndone { database, table, left: list(&left) })))
}
