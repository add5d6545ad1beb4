//! A snapshot restored into a new database, on whatever server: to look into, to take rows from, to move. Nothing that is there
//! is touched, and nothing has the new name before it is whole.

use std::sync::Arc;

use sqlx::PgConnection;

use crate::outside::postgres::{MAINTENANCE, PgError, Server, change, connect, database_oid, query_error};
use crate::sql::quote::identifier;

use super::manifest::Manifest;
use super::restore::{self, Restoring};
use super::role_map::RoleMap;
use super::scratch::Scratch;
use super::{SnapshotError, swap};

/// What becomes of the roles that a snapshot refers to. A dump of one database does not hold them.
#[derive(Debug, Clone, Default)]
pub struct Roles {
    /// Those that are others here.
    pub map: Arc<RoleMap>,
    /// What of those that the server lacks.
    pub missing: Missing,
}

/// What becomes of the roles that the server lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Missing {
    /// All of them have to be there.
    #[default]
    Refuse,
    /// They are made, without the right to log in.
    Create,
    /// Everything belongs to the role that restores, and privileges are left out.
    Ours,
}

/// What was restored.
#[derive(Debug)]
pub struct Elsewhere {
    /// Rows, compared with the manifest.
    pub rows: u64,
    /// Roles that were made.
    pub created: Vec<String>,
    /// What did not come along, and why.
    pub notes: Vec<String>,
}

/// Restores the snapshot of `manifest` into a new database `dbname`.
///
/// # Errors
/// A database of that name is there already, roles are missing, or the restore failed. Roles that were made for it are dropped
/// again, and so is what there was of the database.
pub async fn restore_as(
    restoring: &Restoring<'_>,
    manifest: &Manifest,
    dbname: &str,
) -> Result<Elsewhere, SnapshotError> {
    let Restoring { world, url, roles, .. } = *restoring;
    let (database, run) = (&manifest.database, &manifest.run);
    let failed = SnapshotError::database(database);
    let mut session = connect(&url.with_dbname(MAINTENANCE), "migrate restore").await.map_err(&failed)?;
    if database_oid(&mut session, dbname).await.map_err(&failed)?.is_some() {
        return Err(SnapshotError::Exists { dbname: dbname.to_owned() });
    }
    let mut notes = roles.map.look(&mut session, database).await?;
    notes.extend(roles.map.conflicts(manifest));
    let scratch = Scratch { database, url, dbname, what: "unfinished", of: "a restore", run };
    let Some(_marked) = scratch.mark(world).await? else {
        return Err(SnapshotError::Underway { dbname: dbname.to_owned() });
    };
    let manifest = meant(&mut session, manifest, roles).await.map_err(&failed)?;
    let mut created = Vec::new();
    let name = scratch.name();
    let restored = async {
        if roles.missing == Missing::Create {
            create_roles(&mut session, &manifest, &mut created).await.map_err(&failed)?;
        }
        // Every archive is compared as it passes, and nothing is there yet that a damaged one could harm.
        let side = restore::into_side(restoring, &manifest, &name).await?;
        let more = swap::finish(&mut session, &name, dbname, &manifest.properties).await;
        let more = more.map_err(query_error("giving the database its own properties and its name")).map_err(&failed)?;
        Ok((side, more))
    };
    match restored.await {
        Ok((side, more)) => {
            notes.extend(more);
            Ok(Elsewhere { rows: side.rows, created, notes })
        }
        Err(error) => {
            restore::drop_database(url, &name).await.map_err(&failed)?;
            drop_roles(&mut session, &created).await.map_err(&failed)?;
            Err(match error {
                SnapshotError::Differs { database, what, .. } => {
                    SnapshotError::Differs { database, what, help: "What was restored is dropped again.".into() }
                }
                error => error,
            })
        }
    }
}

/// The manifest as what is restored is meant to be.
async fn meant(session: &mut PgConnection, manifest: &Manifest, roles: &Roles) -> Result<Manifest, PgError> {
    let mut manifest = roles.map.applied(manifest);
    if roles.missing == Missing::Ours {
        let ours = sqlx::query_scalar("select current_user::text").fetch_one(session).await;
        manifest.properties.owner = ours.map_err(query_error("asking who we are"))?;
        manifest.properties.acl = None;
        manifest.properties.settings.retain(|it| it.role.is_none());
    }
    Ok(manifest)
}

/// The roles of the snapshot that the server of `session` does not have.
pub(super) async fn missing_roles(session: &mut PgConnection, manifest: &Manifest) -> Result<Vec<String>, PgError> {
    sqlx::query_scalar(
        "select r from unnest($1::text[]) r where r not in (select rolname::text from pg_roles) order by 1",
    )
    .bind(&manifest.roles)
    .fetch_all(session)
    .await
    .map_err(query_error("looking for the snapshot's roles"))
}

/// Notes in `created` what is there, whatever comes of it.
async fn create_roles(
    session: &mut PgConnection,
    manifest: &Manifest,
    created: &mut Vec<String>,
) -> Result<(), PgError> {
    for role in missing_roles(session, manifest).await? {
        // As a member of it, a role without superuser may give things to it.
        let sql = format!("CREATE ROLE {0} NOLOGIN; GRANT {0} TO CURRENT_USER", identifier(&role));
        change(session, sql).await.map_err(query_error(format!("creating the role {role}")))?;
        created.push(role);
    }
    Ok(())
}

/// Nothing is theirs any more once the database is gone that they were made for.
async fn drop_roles(session: &mut PgConnection, created: &[String]) -> Result<(), PgError> {
    for role in created {
        let dropped = change(session, format!("DROP ROLE {}", identifier(role))).await;
        dropped.map_err(query_error(format!("dropping the role {role} again")))?;
    }
    Ok(())
}

/// Refuses before anything is made, where the restore could only fail later.
///
/// # Errors
/// The server is older than the snapshot's, or lacks roles.
pub(super) async fn can_hold(
    session: &mut PgConnection,
    manifest: &Manifest,
    server: &Server,
    missing: Missing,
) -> Result<(), SnapshotError> {
    let of = manifest.server.version_num / 10_000;
    if server.major() < of {
        return Err(SnapshotError::OlderServer { database: manifest.database.clone(), of, server: server.major() });
    }
    if missing == Missing::Ours {
        return Ok(());
    }
    let missing = missing_roles(session, manifest).await.map_err(SnapshotError::database(&manifest.database))?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(SnapshotError::Roles { database: manifest.database.clone(), missing: missing.join(", ") })
}
