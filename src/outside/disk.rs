//! Room on the disk of a server. PostgreSQL tells nobody how much there is; where the server is on this machine and its files can be read,
//! the file system does.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Room on a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// What tells the file system apart.
    pub file_system: u64,
    /// A folder on it.
    pub place: PathBuf,
    /// Bytes that are free.
    pub free: u64,
}

/// Room in `folder`, or in `data_directory` where none is given, if these are folders of the server with this identifier. A folder of
/// the same name on another machine, or of another server, is not.
#[must_use]
pub fn room(data_directory: &Path, system_identifier: &str, folder: Option<&Path>) -> Option<Room> {
    let mut identifier = [0; 8];
    File::open(data_directory.join("global/pg_control")).ok()?.read_exact(&mut identifier).ok()?;
    if u64::from_ne_bytes(identifier).to_string() != system_identifier {
        return None;
    }
    let place = folder.unwrap_or(data_directory).to_owned();
    let stat = rustix::fs::statvfs(&place).ok()?;
    Some(Room { file_system: stat.f_fsid, place, free: stat.f_bavail.saturating_mul(stat.f_frsize) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_counts_only_where_it_is_the_servers() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("global")).expect("a folder");
        assert_eq!(room(folder.path(), "7", None), None);
        std::fs::write(folder.path().join("global/pg_control"), 7_u64.to_ne_bytes()).expect("a file");
        assert!(room(folder.path(), "7", None).is_some_and(|it| it.free > 0));
        assert_eq!(room(folder.path(), "8", None), None);
    }
}
