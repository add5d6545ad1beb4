//! Roles belong to a server and are in no snapshot: a rollback says which of them the run may have left behind.

use std::collections::BTreeSet;

use sqlx::PgConnection;

use crate::event::Event;
use crate::outside::postgres::{PgError, query_error};
use crate::sql::quote::identifier;
use crate::world::World;

use super::back::{Back, failed};
use super::report::RunReport;
use super::rollback::RollbackError;

/// The roles of the server of `session`, without its own.
pub(super) async fn all(session: &mut PgConnection) -> Result<Vec<String>, PgError> {
    sqlx::query_scalar("select rolname::text from pg_roles where rolname !~ '^pg_' order by 1")
        .fetch_all(session)
        .await
        .map_err(query_error("listing the roles of the server"))
}

/// Says which roles the servers of the databases that went back have, and did not have before the run.
pub(super) async fn tell(back: &Back<'_>, world: &World, report: &mut RunReport) -> Result<(), RollbackError> {
    let mut new = BTreeSet::new();
    let databases: Vec<_> = report.databases.iter().filter(|it| it.rolled_back).map(|it| it.name.clone()).collect();
    for name in databases {
        let before = &back.state.databases[&name].roles;
        if before.is_empty() {
            continue;
        }
        let now = all(&mut back.maintenance(&name).await?).await.map_err(failed(&name))?;
        new.extend(now.into_iter().filter(|role| !before.contains(role)));
    }
    for role in new {
        let drop = format!("DROP ROLE {}", identifier(&role));
        let text =
            format!("the role {role} was not there before the run. Roles are in no snapshot, and it stays: {drop}");
        world.tell(Event::Noted(text.clone()));
        report.notes.push(text);
    }
    Ok(())
}
