//! A run that is to be taken back, and where its databases are: what every way back begins with, and ends with.

use std::collections::{BTreeMap, BTreeSet};

use crate::failure::list;
use crate::journal::Journal;
use crate::journal::entry::{Fact, Identity, Outcome, Swap};
use crate::journal::state::{DatabaseState, Restore, RunState};
use crate::names::DatabaseName;
use crate::outside::postgres::{MAINTENANCE, PgError, Server, connect};
use crate::plan::Database;
use crate::snapshot::swap;

use super::report::RunReport;
use super::rollback::{Request, RollbackError, known};

/// A run on its way back.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) databases: &'a BTreeMap<DatabaseName, Database>,
    pub(super) state: &'a RunState,
}

impl<'a> Subject<'a> {
    /// The databases that are, or may be, changed, and are not exchanged already: each on the server that it was on.
    pub(super) async fn changed(
        &self,
        only: Option<&BTreeSet<DatabaseName>>,
    ) -> Result<Vec<&'a DatabaseState>, RollbackError> {
        known(self.state)?;
        if let Some(unknown) = only.into_iter().flatten().find(|name| !self.state.databases.contains_key(*name)) {
            let known = list(&self.state.databases.keys().collect::<Vec<_>>());
            return Err(RollbackError::UnknownDatabase { database: unknown.clone(), known });
        }
        let mut changed = Vec::new();
        for it in self.state.changed().filter(|it| only.is_none_or(|only| only.contains(&it.identity.name))) {
            self.same_server(&it.identity).await?;
            if !self.is_swapped(it).await? {
                changed.push(it);
            }
        }
        Ok(changed)
    }

    pub(super) fn database(&self, name: &DatabaseName) -> Result<&'a Database, RollbackError> {
        self.databases.get(name).ok_or_else(|| RollbackError::UnknownDatabase {
            database: name.clone(),
            known: list(&self.databases.keys().collect::<Vec<_>>()),
        })
    }

    pub(super) async fn maintenance(&self, name: &DatabaseName) -> Result<sqlx::PgConnection, RollbackError> {
        let url = self.database(name)?.url.with_dbname(MAINTENANCE);
        connect(&url, "migrate rollback").await.map_err(failed(name))
    }

    async fn same_server(&self, it: &Identity) -> Result<(), RollbackError> {
        let mut session = self.maintenance(&it.name).await?;
        let found = Server::of(&mut session).await.map_err(failed(&it.name))?.system_identifier;
        if found == it.server {
            return Ok(());
        }
        let (database, run, expected) = (it.name.clone(), self.state.run.clone(), it.server.clone());
        Err(RollbackError::OtherServer { database, run, found, expected })
    }

    /// Whether a swap that was announced was committed.
    async fn is_swapped(&self, it: &DatabaseState) -> Result<bool, RollbackError> {
        let Restore::Swapping(swap) = &it.restore else { return Ok(false) };
        let mut session = self.maintenance(&it.identity.name).await?;
        swap::took_place(&mut session, std::slice::from_ref(swap)).await.map_err(failed(&it.identity.name))
    }

    /// Writes down the swaps that a killed rollback committed without saying so.
    pub(super) async fn already_swapped(&self, journal: &Journal, report: &mut RunReport) -> Result<(), RollbackError> {
        let mut swaps = Vec::new();
        for it in self.state.changed() {
            if let (Restore::Swapping(swap), true) = (&it.restore, self.is_swapped(it).await?) {
                swaps.push(swap.clone());
            }
        }
        if swaps.is_empty() {
            return Ok(());
        }
        note(self.state, report, &swaps);
        Ok(journal.write(Fact::Swapped { swaps, seconds: None }).await?)
    }

    /// The last entry. A run of which only some databases went back is what it was before: succeeded, or unfinished.
    pub(super) async fn end(
        &self,
        journal: &Journal,
        request: &Request<'_>,
        names: &BTreeSet<DatabaseName>,
    ) -> Result<(), RollbackError> {
        let rest = self.state.changed().any(|it| !names.contains(&it.identity.name));
        let before = self.state.going_back.as_ref().map_or(self.state.outcome, |it| it.before);
        let outcome = if request.only.is_some() && rest { before } else { Some(Outcome::RolledBack) };
        let Some(outcome) = outcome else { return Ok(()) };
        let message = request.only.map(|only| format!("{} alone went back", list(&only.iter().collect::<Vec<_>>())));
        let message = message.or_else(|| request.message.map(str::to_owned));
        Ok(journal.write(Fact::End { outcome, message }).await?)
    }
}

pub(super) fn failed(name: &DatabaseName) -> impl Fn(PgError) -> RollbackError {
    move |source| RollbackError::Database { database: name.clone(), source }
}

/// Databases that were exchanged.
pub(super) fn note(state: &RunState, report: &mut RunReport, swaps: &[Swap]) {
    for swap in swaps {
        let it = report.database(&swap.database);
        it.rolled_back = true;
        it.via = state.databases.get(&swap.database).map(|it| it.via(swap));
        it.kept_as = swap.replaces().then(|| swap.kept_as.clone());
    }
}
