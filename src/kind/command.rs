//! `kind = "command"`: a program of the platform's own, run always, once, or when what it depends on has changed.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::sql::directives::Budget;

use super::program::Surroundings;
use super::{Migration, ReadError, Turn};

/// A `command` step.
#[derive(Debug, Clone, Default)]
pub struct Command {
    /// Where and with what it runs.
    pub surroundings: Surroundings,
    /// The program and its arguments, expanded; no password is among them.
    pub argv: Vec<String>,
    /// When it is to be run.
    pub run: RunWhen,
    /// SQL that yields true if the command took effect: asked after a crash.
    pub probe: Option<String>,
    /// The one unit of this step; its checksum is over the arguments as typed and the inputs.
    pub migrations: Vec<Migration>,
}

/// `run` of a `command` step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunWhen {
    /// In every run.
    #[default]
    Always,
    /// In one run.
    Once,
    /// When its arguments or inputs are not what they were.
    OnChange,
}

/// The one unit of a command step.
///
/// # Errors
/// An input cannot be read.
pub fn read(name: &str, argv: &[String], root: &Path, inputs: &[String]) -> Result<Migration, ReadError> {
    let mut digest = Sha256::new();
    for word in argv {
        digest.update((word.len() as u64).to_be_bytes());
        digest.update(word);
    }
    for input in inputs {
        for file in files(&root.join(input), Path::new(input))? {
            let text =
                std::fs::read(root.join(&file)).map_err(|source| ReadError::File { file: file.clone(), source })?;
            digest.update(file.to_string_lossy().as_bytes());
            digest.update((text.len() as u64).to_be_bytes());
            digest.update(&text);
        }
    }
    Ok(Migration {
        name: name.to_owned(),
        path: argv.first().map(PathBuf::from).unwrap_or_default(),
        checksum: digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
        up: argv.join(" ") + "\n",
        down: None,
        irreversible: false,
        budget: Budget::default(),
        turn: Turn::default(),
        transactional: false,
    })
}

/// A file, or every file below a folder, sorted; as `shown`.
fn files(path: &Path, shown: &Path) -> Result<Vec<PathBuf>, ReadError> {
    if !path.is_dir() {
        return Ok(vec![shown.to_owned()]);
    }
    let failed = |source| ReadError::Folder { dir: shown.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name());
    }
    names.sort();
    let mut all = Vec::new();
    for name in names {
        all.extend(files(&path.join(&name), &shown.join(&name))?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_over_arguments_and_inputs() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("models")).expect("a folder");
        std::fs::write(dir.path().join("models/a.sql"), "select 1").expect("a file");
        let argv = ["dbt".to_owned(), "build".to_owned()];
        let sum = |argv: &[String]| read("s", argv, dir.path(), &["models".into()]).expect("readable").checksum;
        let first = sum(&argv);
        assert_eq!(first, sum(&argv));
        assert_ne!(first, sum(&["dbt".into(), "run".into()]));
        assert_ne!(first, sum(&["dbtbuild".into()]));
        std::fs::write(dir.path().join("models/a.sql"), "select 2").expect("a file");
        assert_ne!(first, sum(&argv));
    }

    #[test]
    fn an_input_that_is_not_there_is_an_error() {
        let error = read("s", &["x".into()], Path::new("/nowhere"), &["y".into()]).expect_err("missing");
        assert!(error.to_string().contains('y'), "{error}");
    }
}
