//! Roles belong to a server, are in no snapshot, and may be forgotten by a down script: a rollback says which of them the run may have left behind.

use std::collections::BTreeSet;

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::event::Event;
use crate::names::DatabaseName;
use crate::outside::postgres::{PgError, ask, query_error};
use crate::sql::quote::identifier;
use crate::world::World;

use super::report::RunReport;
use super::rollback::RollbackError;
use super::subject::{Subject, failed};

/// Asks for the roles of a server, without its own; [`read`] reads the answer.
pub(super) const QUERY: &str = "select rolname::text from pg_roles where rolname !~ '^pg_' order by 1";

/// What [`QUERY`] says.
pub(super) fn read(rows: &[PgRow]) -> Result<Vec<String>, sqlx::Error> {
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// The roles of the server of `session`, without its own.
async fn all(session: &mut PgConnection) -> Result<Vec<String>, PgError> {
    let names = ask(session, QUERY).await.and_then(|rows| read(&rows));
    names.map_err(query_error("listing the roles of the server"))
}

/// Says which roles the servers of the databases that went back have, and did not have before the run. `why` is why one stays.
pub(super) async fn tell(
    subject: &Subject<'_>,
    world: &World,
    why: &str,
    report: &mut RunReport,
) -> Result<(), RollbackError> {
    let mut new = BTreeSet::new();
    // One that went back in an earlier try may be out of reach in this one.
    let here = |name: &&DatabaseName| subject.databases.contains_key(*name);
    let back = report.databases.iter().filter(|it| it.rolled_back);
    let databases: Vec<DatabaseName> = back.map(|it| &it.name).filter(here).cloned().collect();
    for name in databases {
        let before = &subject.state.databases[&name].roles;
        if before.is_empty() {
            continue;
        }
        let now = all(&mut subject.maintenance(&name).await?).await.map_err(failed(&name))?;
        new.extend(now.into_iter().filter(|role| !before.contains(role)));
    }
    for role in new {
        let drop = format!("DROP ROLE {}", identifier(&role));
        let text = format!("the role {role} was not there before the run. {why}, and it stays: {drop}");
        world.tell(Event::Noted(text.clone()));
        report.notes.push(text);
    }
    Ok(())
}
