//! Whether what is in the store is what was sent.

use crate::names::{DatabaseName, RunId};
use crate::outside::store::Store;
use crate::world::World;

use super::archive::{self, Unreadable};
use super::manifest::{Manifest, Part};
use super::{SnapshotError, keys, part_key};

/// Reads one archive back and compares it, as it is stored, with what was sent.
///
/// # Errors
/// [`SnapshotError::Damaged`], or the store failed.
pub async fn stored(
    world: &World,
    store: &Store,
    run: &RunId,
    name: &DatabaseName,
    part: &Part,
) -> Result<(), SnapshotError> {
    let (key, expected) = (part_key(run, name, part), &part.digests);
    size(store, name, &key, expected.stored_bytes).await?;
    let reading = archive::digest_stored(store.read(&key, expected.stored_bytes));
    let (_, found) = world.interrupt.or(reading).await?.map_err(SnapshotError::store(name))?;
    if found == expected.stored_sha256 {
        return Ok(());
    }
    Err(damaged(name, &key, differs(&found, &expected.stored_sha256)))
}

/// Reads every archive of a snapshot from end to end and compares it, both sides of the compression, with what its manifest says
/// was sent.
///
/// # Errors
/// [`SnapshotError::Damaged`], it is encrypted to others, or the store failed.
pub async fn whole(world: &World, store: &Store, manifest: &Manifest) -> Result<(), SnapshotError> {
    let identities = keys::of(world, manifest)?;
    for part in &manifest.parts {
        let (name, expected) = (&manifest.database, &part.digests);
        let key = part_key(&manifest.run, name, part);
        size(store, name, &key, expected.stored_bytes).await?;
        let reading =
            archive::read_through(part.compression, identities.clone(), store.read(&key, expected.stored_bytes));
        match world.interrupt.or(reading).await? {
            Ok(found) if found == *expected => {}
            Ok(found) => return Err(damaged(name, &key, differs(&found.stored_sha256, &expected.stored_sha256))),
            Err(Unreadable::Packed(error)) => {
                let what = if identities.is_some() { "decrypted and decompressed" } else { "decompressed" };
                return Err(damaged(name, &key, format!("it cannot be {what} ({error})")));
            }
            Err(Unreadable::Store(error)) => return Err(SnapshotError::store(name)(error)),
        }
    }
    Ok(())
}

/// Reads every archive of a snapshot as it is stored, and compares that: all that can be known of what is encrypted to others.
///
/// # Errors
/// [`SnapshotError::Damaged`], or the store failed.
pub async fn as_stored(world: &World, store: &Store, manifest: &Manifest) -> Result<(), SnapshotError> {
    for part in &manifest.parts {
        stored(world, store, &manifest.run, &manifest.database, part).await?;
    }
    Ok(())
}

async fn size(store: &Store, name: &DatabaseName, key: &str, expected: u64) -> Result<(), SnapshotError> {
    match store.size(key).await.map_err(SnapshotError::store(name))? {
        Some(size) if size == expected => Ok(()),
        Some(size) => Err(damaged(name, key, format!("it has {size} bytes, and {expected} were sent"))),
        None => Err(damaged(name, key, "it is not there".into())),
    }
}

/// What a digest that is not the expected one means, in words.
pub(super) fn differs(found: &str, expected: &str) -> String {
    format!("its SHA-256 is {found}, and {expected} was sent")
}

pub(super) fn damaged(database: &DatabaseName, key: &str, what: String) -> SnapshotError {
    SnapshotError::Damaged { database: database.clone(), key: key.to_owned(), what }
}
