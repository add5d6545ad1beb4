//! A look into each database, side by side, in as few questions as it takes.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use sqlx::PgConnection;

use crate::journal::ledger::{Applied, Columns};
use crate::kind::{Kind, refinery_history};
use crate::names::{DatabaseName, StepName};
use crate::outside::postgres::{PgError, Server, ask_all, connect, oid, oid_query, only, query_error};
use crate::plan::{Database, Plan, Step};
use crate::snapshot::obstacles::Prepared;
use crate::world::World;

use super::super::drift::Drift;
use super::super::going_on;
use super::super::repair_index::{SOME_INVALID, all_left};
use super::compare::{compare, drift_of, look_at_command};
use super::sources::{ask_alembic, look_at_copy, with_texts};
use super::{Found, StepState, Survey};

/// What sessions call themselves that are for a look alone.
pub(super) const LOOKING: &str = "migrate survey";

/// A session for each database that is to be looked at, or why there is none. They are handed on from one stage to the
/// next: opening one takes several round trips. None of them is in a transaction.
pub struct Sessions(BTreeMap<DatabaseName, Result<Opened, PgError>>);

/// A session, and what it was told of the ledger when it was opened, or when it last looked.
pub(super) struct Opened {
    pub(super) session: PgConnection,
    ledger: Columns,
}

impl Sessions {
    /// Opens sessions to the databases of a plan (all, or only those named), side by side. Nothing is asked yet that counts:
    /// what must be looked at under a lock may be opened while the lock is taken. How the ledger is to be read is asked all
    /// the same, which saves the look a round trip where it still holds.
    pub async fn open(plan: &Plan, only: Option<&BTreeSet<DatabaseName>>, application: &str) -> Self {
        let wanted = plan.databases.values().filter(|it| only.is_none_or(|only| only.contains(&it.name)));
        let open = async |it: &Database| {
            let mut session = connect(&it.url, application).await?;
            let ledger = Columns::ask(&mut session).await?;
            Ok(Opened { session, ledger })
        };
        let opened = wanted.map(async |it| (it.name.clone(), open(it).await));
        Self(join_all(opened).await.into_iter().collect())
    }

    /// The session to a database that answered.
    pub(in crate::run) fn take(&mut self, database: &DatabaseName) -> Option<PgConnection> {
        self.0.remove(database)?.ok().map(|it| it.session)
    }
}

/// Looks at the databases of a plan (all, or only those named), side by side.
pub async fn survey(world: &World, plan: &Plan, only: Option<&BTreeSet<DatabaseName>>) -> Survey {
    let sessions = Sessions::open(plan, only, LOOKING).await;
    look_through(world, plan, sessions).await.0
}

/// Looks at the databases to which there are sessions, side by side. Those are left that answered.
pub async fn look_through(world: &World, plan: &Plan, opened: Sessions) -> (Survey, Sessions) {
    let looks = opened.0.into_iter().map(async |(name, opened)| {
        let looked = match opened {
            Ok(opened) => look_inside(world, plan, &plan.databases[&name], opened).await,
            Err(error) => Err(error),
        };
        (name, looked)
    });
    let mut survey = Survey { databases: BTreeMap::new(), steps: BTreeMap::new() };
    let mut sessions = BTreeMap::new();
    for (name, looked) in join_all(looks).await {
        let found = looked.map(|(found, steps, session)| {
            survey.steps.extend(steps);
            sessions.insert(name.clone(), session);
            found
        });
        survey.databases.insert(name, found);
    }
    for step in &plan.steps {
        let (Kind::Copy(copy), true) = (&step.kind, survey.databases.contains_key(&step.database)) else { continue };
        match look_at_copy(plan, &survey, &mut sessions, step, copy).await {
            Ok(state) => drop(survey.steps.insert(step.name.clone(), state)),
            Err(error) => drop(survey.databases.insert(step.database.clone(), Err(error))),
        }
    }
    let sessions = sessions.into_iter().map(|(name, session)| (name, Ok(session))).collect();
    (survey, Sessions(sessions))
}

type Looked = (Found, Vec<(StepName, StepState)>, Opened);

async fn look_inside(
    world: &World,
    plan: &Plan,
    database: &Database,
    Opened { mut session, ledger: known }: Opened,
) -> Result<Looked, PgError> {
    let failed = || query_error("asking the database what it is");
    let (itself, rows) = (oid_query(database.url.dbname()), known.rows_query());
    let questions = [Server::QUERY, &itself, SOME_INVALID, Prepared::QUERY, Columns::QUERY, &rows];
    let answers = ask_all(&mut session, questions).await.map_err(failed())?;
    let [server, itself, invalid, prepared, ledger, rows] = answers;
    let server = only(&server).and_then(Server::read).map_err(failed())?;
    let ledger = Columns::read(&ledger)?;
    // Another run may have made the ledger between the two questions.
    let rows = if ledger == known { ledger.rows(&rows)? } else { ledger.ask_rows(&mut session).await? };
    let (has_ledger, rows) = (rows.is_some(), rows.unwrap_or_default());
    let here: Vec<&Step> = plan.steps.iter().filter(|step| step.database == database.name).collect();
    let (mut steps, mut applied) = (Vec::new(), rows.iter().filter(|row| row.finished).count());
    for step in &here {
        let own: Vec<&Applied> = rows.iter().filter(|row| row.step == step.name.as_str()).collect();
        let Some((state, more)) = look_at_step(world, plan, step, &mut session, &own).await? else { continue };
        applied += more;
        steps.push((step.name.clone(), state));
    }
    let strange: BTreeSet<&str> = rows
        .iter()
        .map(|row| row.step.as_str())
        .filter(|name| !here.iter().any(|step| step.name.as_str() == *name))
        .collect();
    let found = Found {
        server,
        oid: oid(&itself).map_err(failed())?.unwrap_or_default(),
        has_ledger,
        last_run: rows.iter().map(|row| row.run.as_str()).max().map(str::to_owned),
        runs: rows.iter().map(|row| row.run.as_str()).collect::<BTreeSet<_>>().into_iter().map(str::to_owned).collect(),
        applied,
        strange_steps: strange.into_iter().map(str::to_owned).collect(),
        invalid_indexes: all_left(&mut session, &invalid, &rows).await?,
        prepared: Prepared::read(&prepared).map_err(failed())?,
    };
    Ok((found, steps, Opened { session, ledger }))
}

/// The state of a step, and how many migrations are applied that have no row of ours. None for a copy, which is looked at
/// when both of its databases have been.
async fn look_at_step(
    world: &World,
    plan: &Plan,
    step: &Step,
    session: &mut PgConnection,
    own: &[&Applied],
) -> Result<Option<(StepState, usize)>, PgError> {
    Ok(Some(match &step.kind {
        Kind::Sql(files) => {
            let state = compare(&files.migrations, own);
            let mut state = with_texts(session, &step.name, state, files).await?;
            going_on::look(session, &files.migrations, own, &mut state).await?;
            (state, 0)
        }
        Kind::Refinery(files) => {
            let mut state = drift_of(&files.migrations, own);
            let mut more = 0;
            match refinery_history::history(session, &files.migrations).await? {
                Ok(history) => {
                    state.pending = history.pending.iter().map(|it| it.index).collect();
                    // What an application applied through refinery has no row of ours.
                    more = (files.migrations.len() - state.pending.len()).saturating_sub(own.len());
                }
                Err(disagrees) => state.drift.push(Drift::Refinery(disagrees.to_string())),
            }
            (state, more)
        }
        Kind::Python(it) => (compare(&it.migrations, own), 0),
        Kind::Command(it) => (look_at_command(it, own), 0),
        Kind::Alembic(it) => ask_alembic(world, plan, step, it, session, own).await?,
        Kind::Copy(_) => return Ok(None),
    }))
}
