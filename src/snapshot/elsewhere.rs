//! A snapshot restored into a new database, on whatever server: to look into, to take rows from, to move. Nothing that is there
//! is touched.

use sqlx::{Connection, PgConnection};

use crate::outside::postgres::{MAINTENANCE, PgError, Server, change, connect, database_oid, query_error};
use crate::sql::quote::identifier;

use super::manifest::{Manifest, Properties};
use super::restore::{self, Restoring};
use super::{SnapshotError, swap};

/// What becomes of the roles that a snapshot refers to. A dump of one database does not hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roles {
    /// All of them have to be there.
    MustExist,
    /// Those that are missing are made, without the right to log in.
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
/// A database of that name is there already, roles are missing, or the restore failed.
pub async fn restore_as(
    restoring: &Restoring<'_>,
    manifest: &Manifest,
    dbname: &str,
) -> Result<Elsewhere, SnapshotError> {
    let (url, roles) = (restoring.url, restoring.roles);
    let failed = SnapshotError::database(&manifest.database);
    let mut session = connect(&url.with_dbname(MAINTENANCE), "migrate restore").await.map_err(&failed)?;
    if database_oid(&mut session, dbname).await.map_err(&failed)?.is_some() {
        return Err(SnapshotError::Exists { dbname: dbname.to_owned() });
    }
    let created = match roles {
        Roles::Create => create_roles(&mut session, manifest).await.map_err(&failed)?,
        Roles::MustExist | Roles::Ours => Vec::new(),
    };
    let mut manifest = manifest.clone();
    if roles == Roles::Ours {
        manifest.properties.owner = sqlx::query_scalar("select current_user::text")
            .fetch_one(&mut session)
            .await
            .map_err(|error| failed(query_error("asking who we are")(error)))?;
        manifest.properties.acl = None;
        manifest.properties.settings.retain(|it| it.role.is_none());
    }
    // Every archive is compared as it passes, and nothing is there yet that a damaged one could harm.
    let restored = restore::into_side(restoring, &manifest, dbname).await;
    let side = match restored {
        Ok(side) => side,
        Err(error) => {
            restore::drop_database(url, dbname).await.map_err(&failed)?;
            return Err(error);
        }
    };
    let notes = give_properties(&mut session, dbname, &manifest.properties)
        .await
        .map_err(|error| failed(query_error("giving the database its own properties")(error)))?;
    Ok(Elsewhere { rows: side.rows, created, notes })
}

/// In one transaction. Gives what did not come along.
async fn give_properties(
    session: &mut PgConnection,
    dbname: &str,
    properties: &Properties,
) -> Result<Vec<String>, sqlx::Error> {
    let (mut transaction, mut notes) = (session.begin().await?, Vec::new());
    swap::carry_over(&mut transaction, dbname, properties, &mut notes).await?;
    transaction.commit().await?;
    Ok(notes)
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

async fn create_roles(session: &mut PgConnection, manifest: &Manifest) -> Result<Vec<String>, PgError> {
    let missing = missing_roles(session, manifest).await?;
    for role in &missing {
        // As a member of it, a role without superuser may give things to it.
        let sql = format!("CREATE ROLE {0} NOLOGIN; GRANT {0} TO CURRENT_USER", identifier(role));
        change(session, sql).await.map_err(query_error(format!("creating the role {role}")))?;
    }
    Ok(missing)
}

/// Refuses before anything is made, where the restore could only fail later.
///
/// # Errors
/// The server is older than the snapshot's, or lacks roles.
pub(super) async fn can_hold(
    session: &mut PgConnection,
    manifest: &Manifest,
    server: &Server,
    roles: Roles,
) -> Result<(), SnapshotError> {
    let of = manifest.server.version_num / 10_000;
    if server.major() < of {
        return Err(SnapshotError::OlderServer { database: manifest.database.clone(), of, server: server.major() });
    }
    if roles == Roles::Ours {
        return Ok(());
    }
    let missing = missing_roles(session, manifest).await.map_err(SnapshotError::database(&manifest.database))?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(SnapshotError::Roles { database: manifest.database.clone(), missing: missing.join(", ") })
}
