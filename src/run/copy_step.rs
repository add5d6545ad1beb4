//! Carrying out a step of kind `copy`.

use std::time::Instant;

use crate::event::Event;
use crate::journal::ledger::{self, Unit};
use crate::kind::Copy;
use crate::kind::copy::{CopyEnd, CopyError, CopySetting, run_with_retries};
use crate::names::DatabaseName;
use crate::plan::Step;
use crate::sql::checksum::checksum;

use super::file_step::told_of_retries;
use super::step::{Context, Partly, StepError};

async fn open<'a>(context: &Context<'a>, database: &DatabaseName) -> Partly<CopyEnd<'a>> {
    let opened = CopyEnd::open(&context.plan.databases[database].url, &context.application()).await;
    opened.map_err(|source| (StepError::Database { database: database.clone(), source }, false))
}

/// Runs it.
///
/// # Errors
/// What went wrong, and whether the target may have been changed.
pub(super) async fn apply_copy(context: &Context<'_>, step: &Step, copy: &Copy, mine: &mut Vec<String>) -> Partly<()> {
    let begun = Instant::now();
    // A session that is lost while it commits leaves it open whether it did.
    let failed = |source| {
        let changed = matches!(source, CopyError::Commit { .. });
        (StepError::Copy { database: step.database.clone(), step: step.name.clone(), source }, changed)
    };
    let mut target = open(context, &step.database).await?;
    let mut source = open(context, &copy.from.database).await?;
    let text = copy.definition();
    let digest = checksum(&text);
    let unit = Unit { name: &copy.to.table, checksum: &digest, up: Some(&text), down: None };
    let row = context.author(step).applied_again(unit);
    let ledger = if context.has_ledger(&step.database) { row } else { ledger::CREATE.to_owned() + &row };
    let progress = |bytes, rows| {
        context.world.tell(Event::CopyProgressed {
            step: step.name.clone(),
            database: step.database.clone(),
            rows,
            bytes,
        });
    };
    let on_retry = told_of_retries(context.world, &step.database, &copy.to.table);
    let limits = context.plan.limits(step);
    let setting = CopySetting { ledger: &ledger, limits, on_retry: &on_retry, progress: &progress };
    let counts = run_with_retries(&mut source, &mut target, copy, &setting).await.map_err(failed)?;
    context.record(step, &copy.to.table);
    mine.push(copy.to.table.clone());
    context.world.tell(Event::Copied {
        step: step.name.clone(),
        database: step.database.clone(),
        read: counts.read,
        inserted: counts.inserted,
        updated: counts.updated,
        deleted: counts.deleted,
        seconds: begun.elapsed().as_secs_f64(),
    });
    Ok(())
}
