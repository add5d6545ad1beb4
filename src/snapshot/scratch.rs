//! Databases that are made beside others and are not there for good: the scratch databases of drills, and what a restore fills
//! before it has its name. Whoever makes one holds a lock on its name, and drops those on which nobody has one.

use sqlx::PgConnection;

use crate::event::Event;
use crate::names::{DatabaseName, RunId};
use crate::outside::postgres::{MAINTENANCE, PgError, connect, made, query_error};
use crate::outside::url::DatabaseUrl;
use crate::sql::quote::literal;
use crate::world::World;

use super::SnapshotError;
use super::restore::{drop_database, name_beside};

/// How a name that [`name_beside`] gives goes on behind the word for what it is: that of a run, with underscores.
const RUN: &str = "\\d{8}_\\d{6}_[a-z0-9]{6}$";

/// A scratch database.
pub(super) struct Scratch<'a> {
    /// What is restored, by the plan's name.
    pub(super) database: &'a DatabaseName,
    /// A database on the server.
    pub(super) url: &'a DatabaseUrl,
    /// What it is beside, on the server.
    pub(super) dbname: &'a str,
    /// `drill`, `unfinished`.
    pub(super) what: &'static str,
    /// What those are called that are killed: `a drill`.
    pub(super) of: &'static str,
    pub(super) run: &'a RunId,
}

impl Scratch<'_> {
    /// Its name on the server.
    pub(super) fn name(&self) -> String {
        name_beside(self.dbname, self.what, self.run)
    }

    /// Says that it is in use, for as long as the session lives, and drops what was left behind by those that were killed. None, if
    /// it is in use already.
    pub(super) async fn mark(&self, world: &World) -> Result<Option<PgConnection>, SnapshotError> {
        let failed = SnapshotError::database(self.database);
        let application = format!("migrate {}", self.what);
        let mut session = connect(&self.url.with_dbname(MAINTENANCE), &application).await.map_err(&failed)?;
        if !self.lock(&mut session, &self.name()).await.map_err(&failed)? {
            return Ok(None);
        }
        for left in self.left_behind(&mut session).await.map_err(&failed)? {
            // Its lock is ours now, and ends with the session: another one that begins meanwhile leaves it alone.
            if self.lock(&mut session, &left).await.map_err(&failed)? {
                drop_database(self.url, &left).await.map_err(&failed)?;
                let (name, of) = (self.database, self.of);
                world.tell(Event::Noted(format!("{name}: dropped {left}, which {of} that was killed had left behind")));
            }
        }
        Ok(Some(session))
    }

    /// Whether the lock on a name was free.
    async fn lock(&self, session: &mut PgConnection, dbname: &str) -> Result<bool, PgError> {
        let key = literal(&format!("migrate {} {dbname}", self.what));
        let asked = sqlx::query_scalar(made(format!("select pg_try_advisory_lock(hashtextextended({key}, 0))")));
        asked.fetch_one(session).await.map_err(query_error(format!("marking {dbname} as being in use")))
    }

    /// Databases with names of its kind, that we may drop.
    async fn left_behind(&self, session: &mut PgConnection) -> Result<Vec<String>, PgError> {
        let candidates: Vec<String> = sqlx::query_scalar(
            "select datname::text from pg_database where datname ~ $1 and pg_has_role(datdba, 'member') order by 1",
        )
        .bind(format!("__{}_{RUN}", self.what))
        .fetch_all(session)
        .await
        .map_err(query_error("looking for databases that were left behind"))?;
        Ok(candidates.into_iter().filter(|it| is_of(it, self.dbname, self.what)).collect())
    }
}

/// Whether a scratch database was made for `dbname`: its name would be the same, made today.
fn is_of(scratch: &str, dbname: &str, what: &str) -> bool {
    let run = scratch.rsplit_once(&format!("__{what}_")).map(|(_, run)| run.replace('_', "-"));
    let run = run.and_then(|run| RunId::new(run).ok());
    run.is_some_and(|run| name_beside(dbname, what, &run) == scratch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_are_found() {
        assert!(is_of("mobius__drill_20261121_174311_482k3f", "mobius", "drill"));
        assert!(!is_of("mobius__drill_20261121_174311_482k3f", "mobius", "unfinished"));
        assert!(!is_of("mobius_chat__drill_20261121_174311_482k3f", "mobius", "drill"));
        assert!(!is_of("mobius__drill_notes", "mobius", "drill"));
        let long = "x".repeat(60);
        let run = RunId::new("20261121-174311-482k3f").expect("an id");
        assert!(is_of(&name_beside(&long, "unfinished", &run), &long, "unfinished"));
        assert!(!is_of(&name_beside(&long, "unfinished", &run), &"x".repeat(61), "unfinished"));
    }
}
