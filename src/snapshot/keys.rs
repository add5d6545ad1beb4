//! What the archives of an encrypted snapshot are read with, if this process may read them at all.

use std::path::PathBuf;
use std::sync::Arc;

use crate::failure::list;
use crate::names::DatabaseName;
use crate::outside::encryption::{Identities, IdentityError};
use crate::world::World;

use super::manifest::Manifest;

/// Why an encrypted snapshot cannot be read here.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum KeysError {
    /// No identity file is named.
    #[error("{database}: the snapshot is encrypted to {recipients}, and there is no identity to read it with")]
    #[diagnostic(
        code("snapshot.no_identity"),
        help("Set MIGRATE_AGE_IDENTITY_FILE to the file with the identity of one of them, or restore where it is.")
    )]
    None {
        /// Which database.
        database: DatabaseName,
        /// `age1…`, with commas.
        recipients: String,
    },
    /// The file holds the identities of others.
    #[error("{database}: the snapshot is encrypted to {recipients}, and none of them is in {}", file.display())]
    #[diagnostic(
        code("snapshot.other_identity"),
        help(
            "Set MIGRATE_AGE_IDENTITY_FILE to another file. `age-keygen -y FILE` prints whose identities a file has."
        )
    )]
    Others {
        /// Which database.
        database: DatabaseName,
        /// The identity file.
        file: PathBuf,
        /// `age1…`, with commas.
        recipients: String,
    },
    /// The file itself.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] IdentityError),
}

/// The identities of the file that `MIGRATE_AGE_IDENTITY_FILE` names, if it names one.
///
/// # Errors
/// It cannot be read, or holds none.
pub fn at_hand(world: &World) -> Result<Option<Identities>, IdentityError> {
    world.identity_file.as_deref().map(Identities::read).transpose()
}

/// What the archives of `manifest` are read with; none if they are not encrypted.
///
/// # Errors
/// They are, and not to anybody whose identity is at hand.
pub fn of(world: &World, manifest: &Manifest) -> Result<Option<Arc<Identities>>, KeysError> {
    if manifest.encrypted_to.is_empty() {
        return Ok(None);
    }
    let (database, recipients) = (manifest.database.clone(), list(&manifest.encrypted_to.iter().collect::<Vec<_>>()));
    match at_hand(world)? {
        None => Err(KeysError::None { database, recipients }),
        Some(it) if it.open_for(&manifest.encrypted_to) => Ok(Some(Arc::new(it))),
        Some(it) => Err(KeysError::Others { database, file: it.file().to_owned(), recipients }),
    }
}
