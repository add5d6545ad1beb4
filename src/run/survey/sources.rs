//! What only a step's own source can say: Alembic, the texts of the ledger, the two tables of a copy.

use std::collections::BTreeMap;
use std::sync::Arc;

use sqlx::PgConnection;

use crate::failure::list;
use crate::journal::ledger::{self, Applied};
use crate::kind::alembic::{self, Alembic};
use crate::kind::copy::{self, Pending as CopyPending};
use crate::kind::{Copy, Files, sql};
use crate::names::{DatabaseName, StepName};
use crate::outside::postgres::{PgError, connect};
use crate::plan::segments::edges_to;
use crate::plan::{Plan, Step};
use crate::sql::directives;
use crate::world::World;

use super::super::drift::Drift;
use super::compare::look_at_alembic;
use super::look::{LOOKING, Opened};
use super::{StepState, Survey, UnreadError};

/// The ledger keeps the text of what is to be replaced; and by its text alone it knows whether a migration without a file was
/// repeatable.
pub(super) async fn with_texts(
    session: &mut PgConnection,
    step: &StepName,
    mut state: StepState,
    files: &Files,
) -> Result<StepState, PgError> {
    let replaced = state.replaced.keys().map(|index| files.migrations[*index].name.as_str());
    let missing = state.drift.iter().filter(|it| matches!(it, Drift::Missing { .. })).map(Drift::name);
    let mut texts = ledger::texts(session, step, &replaced.chain(missing).collect::<Vec<_>>()).await?;
    for (index, it) in &mut state.replaced {
        it.text = texts.remove(&files.migrations[*index].name);
    }
    let was_repeatable = |name: &str| {
        let says = |text: &String| directives::read(text).is_ok_and(|parts| parts.repeatable.is_some());
        name.starts_with(sql::REPEATABLE) || texts.get(name).is_some_and(says)
    };
    let gone = |it: &Drift| matches!(it, Drift::Missing { name } if was_repeatable(name));
    let (gone, drift): (Vec<_>, Vec<_>) = state.drift.into_iter().partition(gone);
    state.gone = gone.iter().map(|it| it.name().to_owned()).collect();
    state.drift = drift;
    Ok(state)
}

/// What is pending by Alembic, and how many revisions are applied that have no row of ours.
pub(super) async fn ask_alembic(
    world: &World,
    plan: &Plan,
    step: &Step,
    it: &Alembic,
    session: &mut PgConnection,
    own: &[&Applied],
) -> Result<(StepState, usize), PgError> {
    let limits = plan.limits(step);
    let unread = |error: UnreadError| StepState { unread: Some(Arc::new(error)), ..StepState::default() };
    let mut revisions = match it.revisions(&world.interrupt, &limits).await {
        Ok(revisions) => revisions,
        Err(error) => return Ok((unread(error.into()), 0)),
    };
    if let Err(error) = edges_to(&plan.steps, step, &revisions.migrations) {
        return Ok((unread(error.into()), 0));
    }
    let current = alembic::current(session, &revisions.version_table).await?;
    let mut state = look_at_alembic(it, &revisions, &current, own);
    if !state.drift.is_empty() {
        state.listed = Some(Arc::new(revisions));
        return Ok((state, 0));
    }
    if let Err(error) = it.add_ways_back(&mut revisions, &state.pending, &world.interrupt, &limits).await {
        return Ok((unread(error.into()), 0));
    }
    let has = revisions.migrations.len() - state.pending.len();
    state.listed = Some(Arc::new(revisions));
    Ok((state, has.saturating_sub(own.len())))
}

/// A copy is pending if the tables differ, or if steps before it are about to change them.
pub(super) async fn look_at_copy(
    plan: &Plan,
    survey: &Survey,
    sessions: &mut BTreeMap<DatabaseName, Opened>,
    step: &Step,
    copy: &Copy,
) -> Result<StepState, PgError> {
    let before: Vec<&str> = plan
        .steps
        .iter()
        .take_while(|it| it.name != step.name)
        .filter(|it| it.database == step.database || it.database == copy.from.database)
        .filter(|it| survey.steps.get(&it.name).is_some_and(StepState::has_work))
        .map(|it| it.name.as_str())
        .collect();
    let pending = |pending| StepState { copy: Some(pending), ..StepState::default() };
    if !before.is_empty() {
        return Ok(pending(CopyPending::Unknown(format!("it comes after {}", list(&before)))));
    }
    let mut own = None;
    let source_url = &plan.databases[&copy.from.database].url;
    let Some(mut target) = sessions.remove(&step.database) else {
        return Ok(pending(CopyPending::Unknown(format!("{} is unreachable", step.database))));
    };
    let source = match sessions.get_mut(&copy.from.database) {
        Some(it) => &mut it.session,
        None => match connect(source_url, LOOKING).await {
            Ok(session) => own.insert(session),
            Err(error) => {
                sessions.insert(step.database.clone(), target);
                return Ok(pending(CopyPending::Unknown(format!("{}: {error}", copy.from.database))));
            }
        },
    };
    let compared = copy::compare(source, &mut target.session, copy).await;
    sessions.insert(step.database.clone(), target);
    match compared {
        Ok(state) => Ok(pending(state)),
        Err(error) => Ok(pending(CopyPending::Unknown(error.to_string()))),
    }
}
