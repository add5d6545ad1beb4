//! Restoring a snapshot into a side database: made like the live one, filled from the store, its row counts compared with the
//! manifest. The live database is not touched here; `swap` puts the side database in its place.

use std::time::Instant;

use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use crate::event::Event;
use crate::names::RunId;
use crate::outside::postgres::{
    DURABLE_SESSION, MAINTENANCE, PgError, Server, change, connect, database_oid, query_error,
};
use crate::outside::store::Store;
use crate::outside::url::DatabaseUrl;
use crate::sql::quote::{identifier, literal};
use crate::verify::catalog::LargeObjects;
use crate::world::World;

use super::effort::Effort;
use super::elsewhere::{Roles, can_hold};
use super::fill::{Filled, Filling};
use super::inventory::{contents, count_differences, row_counts};
use super::loading::Loaded;
use super::manifest::{Manifest, Properties, TableRows};
use super::swap;
use super::{SnapshotError, keys, statistics};

/// PostgreSQL cuts longer names off without a word.
const NAME_LIMIT: usize = 63;

/// A name for a database beside `dbname` that says what it is for and which run it belongs to. Where there is no room for
/// the whole name, a digest of it tells databases apart that begin alike.
#[must_use]
pub fn name_beside(dbname: &str, what: &str, run: &RunId) -> String {
    let mut tail = format!("__{what}_{}", run.as_str().replace('-', "_"));
    if dbname.len() + tail.len() > NAME_LIMIT {
        let digest = Sha256::digest(dbname);
        tail = format!("_{:02x}{:02x}{:02x}{tail}", digest[0], digest[1], digest[2]);
    }
    let mut room = NAME_LIMIT.saturating_sub(tail.len()).min(dbname.len());
    while !dbname.is_char_boundary(room) {
        room -= 1;
    }
    format!("{}{tail}", &dbname[..room])
}

/// A side database that holds what the snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideDatabase {
    /// Its name on the server.
    pub name: String,
    /// Its oid.
    pub oid: u32,
    /// Rows compared with the manifest.
    pub rows: u64,
}

/// Where snapshots are restored from and to, and what that may cost.
pub struct Restoring<'a> {
    /// The outside.
    pub world: &'a World,
    /// The snapshots.
    pub store: &'a Store,
    /// A database on the server.
    pub url: &'a DatabaseUrl,
    /// What becomes of roles.
    pub roles: &'a Roles,
    /// Jobs at once.
    pub effort: &'a Effort,
}

/// Restores the snapshot of `manifest`, in which roles are those of this server already, into a new database called `side`. One of
/// that name is dropped first: it is what an earlier attempt left.
///
/// # Errors
/// What failed. The live database was not touched.
pub async fn into_side(
    restoring: &Restoring<'_>,
    manifest: &Manifest,
    side: &str,
) -> Result<SideDatabase, SnapshotError> {
    let Restoring { world, store, url, roles, effort } = *restoring;
    let (name, begun) = (&manifest.database, Instant::now());
    let identities = keys::of(world, manifest)?;
    let application = format!("migrate {}", manifest.run);
    let maintenance = url.with_dbname(MAINTENANCE);
    let mut session = connect(&maintenance, &application).await.map_err(SnapshotError::database(name))?;
    let server = Server::of(&mut session).await.map_err(SnapshotError::database(name))?;
    let failed = |source| SnapshotError::Program {
        database: name.clone(),
        what: "the restore into a side database is incomplete".into(),
        help: "The live database was not touched; correct the cause and run the same command again.".into(),
        source,
    };
    let tools = world.tools.for_server(server.major()).await.map_err(failed)?;
    can_hold(&mut session, manifest, &server, roles.missing).await?;
    create_like(&mut session, &manifest.properties, side).await.map_err(SnapshotError::database(name))?;
    // Whoever owns a schema must be allowed to create it. What cannot be given is noted when the database takes its place.
    for statement in swap::privileges(side, &manifest.properties) {
        let _ = change(&mut session, statement).await;
    }
    let beside = url.with_dbname(side);
    if !manifest.properties.has_public {
        let mut inside = connect(&beside, &application).await.map_err(SnapshotError::database(name))?;
        run_sql(&mut inside, "drop schema public".into()).await.map_err(SnapshotError::database(name))?;
    }
    let filling = Filling { world, store, manifest, tools: &tools, side: &beside, roles, effort, identities };
    let filled = world.interrupt.or(filling.fill(&mut session)).await??;
    let rows = world.interrupt.or(compare(manifest, filled, &beside, &application)).await??;
    let oid = database_oid(&mut session, side).await.map_err(SnapshotError::database(name))?;
    let oid = oid.ok_or_else(|| SnapshotError::Differs {
        database: name.clone(),
        what: "the side database is gone".into(),
        help: "Run the same command again.".into(),
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    world.tell(Event::Restored { database: name.clone(), side: side.into(), rows, seconds });
    Ok(SideDatabase { name: side.into(), oid, rows })
}

async fn run_sql(session: &mut PgConnection, sql: String) -> Result<(), PgError> {
    let what = sql.chars().take(60).collect::<String>();
    change(session, sql).await.map_err(query_error(what))?;
    Ok(())
}

/// Makes an empty database called `side` with the owner, encoding, locale and tablespace of `like`. One of that name is dropped
/// first.
///
/// # Errors
/// The server refuses.
pub async fn create_like(session: &mut PgConnection, like: &Properties, side: &str) -> Result<(), PgError> {
    drop_if_there(session, side).await?;
    let mut sql = format!(
        "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        identifier(side),
        identifier(&like.owner),
        literal(&like.encoding),
        literal(&like.collate),
        literal(&like.ctype),
    );
    let locale = literal(like.locale.as_deref().unwrap_or_default());
    match like.locale_provider.as_str() {
        "i" => sql += &format!(" LOCALE_PROVIDER icu ICU_LOCALE {locale}"),
        "b" => sql += &format!(" LOCALE_PROVIDER builtin BUILTIN_LOCALE {locale}"),
        _ => {}
    }
    if like.tablespace != "pg_default" {
        sql += &format!(" TABLESPACE {}", identifier(&like.tablespace));
    }
    run_sql(session, sql).await
}

/// Gathers the statistics that are missing, so that the first queries after the swap are planned as before, and meanwhile counts
/// the rows of tables that were not counted as they came.
async fn compare(
    manifest: &Manifest,
    filled: Filled,
    side: &DatabaseUrl,
    application: &str,
) -> Result<u64, SnapshotError> {
    let name = &manifest.database;
    let Filled { loaded, analyzed } = filled;
    let analyzing = async {
        let mut session = connect(side, application).await?;
        statistics::but_of(&mut session, &analyzed).await?;
        // This commit waits for the disk, and with it for everything that did not.
        run_sql(&mut session, format!("{DURABLE_SESSION} select pg_logical_emit_message(true, 'migrate', 'restored')"))
            .await
    };
    let counting = async {
        let mut session = connect(side, application).await?;
        run_sql(&mut session, "set row_security = off".into()).await?;
        let mut there = contents(&mut session).await?.tables;
        there.retain(|(schema, name)| !loaded.iter().any(|it| it.schema == *schema && it.name == *name));
        let rows = row_counts(&mut session, &there).await?;
        Ok((rows, LargeObjects::read(&mut session).await?.count()))
    };
    let ((), (mut found, large_objects)) =
        tokio::try_join!(analyzing, counting).map_err(SnapshotError::database(name))?;
    let counted = |it: Loaded| TableRows { schema: it.schema, name: it.name, rows: it.rows, hash: None };
    found.extend(loaded.into_iter().map(counted));
    let mut differences = count_differences(&manifest.tables, &found);
    if let Some(dumped) = manifest.large_objects.filter(|it| *it != large_objects) {
        differences.push(format!("{large_objects} large objects, and {dumped} were dumped"));
    }
    if differences.is_empty() {
        return Ok(manifest.rows());
    }
    let help = format!("The side database {} is kept for a look.", side.dbname());
    Err(SnapshotError::Differs { database: name.clone(), what: differences.join("; "), help })
}

/// Drops a database that was made beside another one.
///
/// # Errors
/// The server refuses.
pub async fn drop_database(url: &DatabaseUrl, dbname: &str) -> Result<(), PgError> {
    let mut session = connect(&url.with_dbname(MAINTENANCE), "migrate").await?;
    drop_if_there(&mut session, dbname).await
}

/// How often a database is dropped in both ways before the server's word is final.
const DROPS: usize = 3;

/// Drops a database with the sessions in it, those of autovacuum as well.
///
/// `WITH (FORCE)` ends the sessions of clients, and without a superuser is refused (42501) while a worker of autovacuum is there,
/// which belongs to no role (`TerminateOtherDBBackends` in `procarray.c`). Without it the server ends those workers by itself and
/// waits 5 s for clients (`CountOtherDBBackends`, the same file). Where one does not suffice, the other has cleared its way.
async fn drop_if_there(session: &mut PgConnection, dbname: &str) -> Result<(), PgError> {
    let plain = format!("DROP DATABASE IF EXISTS {}", identifier(dbname));
    for _ in 1..DROPS {
        match run_sql(session, format!("{plain} WITH (FORCE)")).await {
            Err(error) if error.state() == Some("42501") => {}
            other => return other,
        }
        match run_sql(session, plain.clone()).await {
            Err(error) if error.state() == Some("55006") => {}
            other => return other,
        }
    }
    run_sql(session, format!("{plain} WITH (FORCE)")).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beside_fit_and_keep_their_tail() {
        let run = RunId::new("20261121-174311-482k3f").expect("an id");
        assert_eq!(name_beside("mobius", "restore", &run), "mobius__restore_20261121_174311_482k3f");
        let long = name_beside(&"ü".repeat(31), "replaced", &run);
        assert!(long.len() <= NAME_LIMIT && long.ends_with("__replaced_20261121_174311_482k3f"), "{long}");
        assert_ne!(long, name_beside(&"ü".repeat(30), "replaced", &run));
    }
}
