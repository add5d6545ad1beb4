//! Many files on disk at once. A file that is written and waited for alone waits for the disk by itself; of many that wait
//! together, the file system writes what it has to in a few goes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;

/// Files that are open at once, well below what a process may have open.
const OPEN: usize = 256;
/// Threads that wait for the disk. They do nothing else: of several that make files in one folder, all but one wait, and
/// burn a processor meanwhile.
const AT_ONCE: usize = 64;

/// Creates files that are not there yet, and the folders above them that are below `root`. When it returns, all of it is
/// on the disk, but for the files whose places it returns, with what kept them from being made.
///
/// A process that is killed meanwhile may leave a file that is cut short.
///
/// # Errors
/// A folder cannot be made, or not be written to the disk.
pub(super) fn create(root: &Path, files: &[(PathBuf, &[u8])]) -> io::Result<Vec<(usize, io::Error)>> {
    let mut changed: BTreeSet<&Path> = files.iter().filter_map(|(path, _)| path.parent()).collect();
    for folder in folders(root, changed.iter().copied()) {
        if made(folder)? {
            changed.extend(folder.parent());
        }
    }
    let mut failed = Vec::new();
    for (group, few) in files.chunks(OPEN).enumerate() {
        let written: Vec<_> = few.iter().map(|(path, content)| write(path, content)).collect();
        let ended = wait_for(written).into_iter().zip(group * OPEN..);
        failed.extend(ended.filter_map(|(done, at)| Some((at, done.err()?))));
    }
    for folder in changed {
        File::open(folder)?.sync_all()?;
    }
    Ok(failed)
}

/// Some folders and those above them, below `root`, each before those in it.
fn folders<'a>(root: &Path, some: impl Iterator<Item = &'a Path>) -> BTreeSet<&'a Path> {
    some.flat_map(|it| it.ancestors().take_while(|it| it.starts_with(root) && *it != root)).collect()
}

/// Whether it was not there yet.
fn made(folder: &Path) -> io::Result<bool> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        made => made.map(|()| true),
    }
}

fn write(path: &Path, content: &[u8]) -> io::Result<File> {
    let mut file = File::create_new(path)?;
    file.write_all(content)?;
    Ok(file)
}

/// Until what was written is on the disk.
fn wait_for(mut written: Vec<io::Result<File>>) -> Vec<io::Result<()>> {
    let each = written.len().div_ceil(AT_ONCE).max(1);
    thread::scope(|scope| {
        let sync = |file: &mut io::Result<File>| std::mem::replace(file, Err(io::ErrorKind::Other.into()))?.sync_all();
        let parts = written.chunks_mut(each);
        let running: Vec<_> =
            parts.map(|part| scope.spawn(move || part.iter_mut().map(sync).collect::<Vec<_>>())).collect();
        let ended = running.into_iter().map(thread::ScopedJoinHandle::join);
        ended.flat_map(|it| it.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_files_is_made_with_their_folders() {
        for count in [0, 1, OPEN + 1, 2 * OPEN + 5] {
            let dir = tempfile::tempdir().unwrap();
            let content: Vec<String> = (0..count).map(|n| format!("content {n}")).collect();
            let path = |n: usize| dir.path().join(format!("a/{}/{n}", n % 3));
            let files: Vec<_> = content.iter().enumerate().map(|(n, it)| (path(n), it.as_bytes())).collect();
            assert!(create(dir.path(), &files).unwrap().is_empty());
            for (n, it) in content.iter().enumerate() {
                assert_eq!(&fs::read_to_string(path(n)).unwrap(), it);
            }
        }
    }

    #[test]
    fn a_file_that_is_there_is_left_alone_and_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("b"), "theirs").unwrap();
        let files: Vec<_> = ["a", "b", "c"].map(|it| (dir.path().join(it), b"ours".as_slice())).into();
        let failed = create(dir.path(), &files).unwrap();
        assert_eq!(
            failed.iter().map(|(at, it)| (*at, it.kind())).collect::<Vec<_>>(),
            [(1, io::ErrorKind::AlreadyExists)]
        );
        assert_eq!(fs::read_to_string(dir.path().join("b")).unwrap(), "theirs");
        assert_eq!(fs::read_to_string(dir.path().join("c")).unwrap(), "ours");
    }

    #[test]
    fn folders_are_made_from_the_root_down() {
        let found = folders(Path::new("/r"), ["/r/a/b/c", "/r/a", "/r"].map(Path::new).into_iter());
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["/r/a", "/r/a/b", "/r/a/b/c"].map(Path::new));
    }
}
