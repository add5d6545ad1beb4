//! The way there and back with a store that is a bucket, or a disk, or that fails; and with a `pg_dump` that does.

mod bucket;
pub(crate) mod disk;
mod dump;
mod faults;
mod federated;
mod s3;

use crate::world::TestWorld;

/// The archives and manifests that a `file://` store holds.
fn stored(world: &TestWorld, name: &str) -> Vec<std::path::PathBuf> {
    let mut folders = vec![world.store()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if entry.file_name().to_string_lossy().starts_with(name) {
                found.push(path);
            }
        }
    }
    found
}
