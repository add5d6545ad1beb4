//! The scratch databases of drills: whoever drills holds a lock on the name of its own, and drops those on which nobody has one.

use sqlx::PgConnection;

use crate::event::Event;
use crate::outside::postgres::{MAINTENANCE, PgError, connect, made, query_error};
use crate::outside::url::DatabaseUrl;
use crate::snapshot::SnapshotError;
use crate::snapshot::manifest::Manifest;
use crate::snapshot::restore::{drop_database, name_beside};
use crate::sql::quote::literal;
use crate::world::World;

/// How the name of a scratch database ends: that of a run, with underscores.
const ENDING: &str = "__drill_\\d{8}_\\d{6}_[a-z0-9]{6}$";

/// Says that `scratch` is being drilled, for as long as the session lives, and drops what drills that were killed have left of the
/// same database.
pub(super) async fn mark(
    world: &World,
    manifest: &Manifest,
    url: &DatabaseUrl,
    scratch: &str,
) -> Result<PgConnection, SnapshotError> {
    let name = &manifest.database;
    let failed = SnapshotError::database(name);
    let mut session = connect(&url.with_dbname(MAINTENANCE), "migrate drill").await.map_err(&failed)?;
    lock(&mut session, scratch).await.map_err(&failed)?;
    for left in left_behind(&mut session, &manifest.properties.dbname).await.map_err(&failed)? {
        // Its lock is ours now, and ends with the session: another drill that begins meanwhile leaves it alone.
        if lock(&mut session, &left).await.map_err(&failed)? {
            drop_database(url, &left).await.map_err(&failed)?;
            world.tell(Event::Noted(format!("{name}: dropped {left}, which a drill that was killed had left behind")));
        }
    }
    Ok(session)
}

/// Whether the lock on a name was free.
async fn lock(session: &mut PgConnection, dbname: &str) -> Result<bool, PgError> {
    let key = literal(&format!("migrate drill {dbname}"));
    let asked = sqlx::query_scalar(made(format!("select pg_try_advisory_lock(hashtextextended({key}, 0))")));
    asked.fetch_one(session).await.map_err(query_error(format!("marking {dbname} as being drilled")))
}

/// Databases with names of scratch databases of `dbname`, that we may drop.
async fn left_behind(session: &mut PgConnection, dbname: &str) -> Result<Vec<String>, PgError> {
    let candidates: Vec<String> = sqlx::query_scalar(
        "select datname::text from pg_database where datname ~ $1 and pg_has_role(datdba, 'member') order by 1",
    )
    .bind(ENDING)
    .fetch_all(session)
    .await
    .map_err(query_error("looking for scratch databases that were left behind"))?;
    Ok(candidates.into_iter().filter(|it| is_of(it, dbname)).collect())
}

/// Whether a scratch database was made for `dbname`: its name would be the same, made today.
fn is_of(scratch: &str, dbname: &str) -> bool {
    let run = scratch.rsplit_once("__drill_").map(|(_, run)| run.replace('_', "-"));
    let run = run.and_then(|run| crate::names::RunId::new(run).ok());
    run.is_some_and(|run| name_beside(dbname, "drill", &run) == scratch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_are_found() {
        assert!(is_of("mobius__drill_20261121_174311_482k3f", "mobius"));
        assert!(!is_of("mobius_chat__drill_20261121_174311_482k3f", "mobius"));
        assert!(!is_of("mobius__drill_notes", "mobius"));
        let long = "x".repeat(60);
        let run = crate::names::RunId::new("20261121-174311-482k3f").expect("an id");
        assert!(is_of(&name_beside(&long, "drill", &run), &long));
        assert!(!is_of(&name_beside(&long, "drill", &run), &"x".repeat(61)));
    }
}
