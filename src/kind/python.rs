//! `kind = "python"`: modules in the order that the plan gives, each run once, by its own entry point.

use std::fs;
use std::path::{Path, PathBuf};

use crate::kind::sql::read_text;
use crate::sql::checksum::checksum;
use crate::sql::directives::Budget;

use super::program::Surroundings;
use super::{Migration, ReadError, Turn};

/// Imports a module and calls its entry point. A coroutine is run to its end; whatever goes wrong is a traceback and exit code
/// 1, or a sentence.
const RUNNER: &str = r#"
import asyncio, importlib, inspect, os, runpy, sys
name, entry = sys.argv[1], sys.argv[2]
sys.path.insert(0, os.getcwd())
sys.argv = [name]
if entry == "__main__":
    runpy.run_module(name, run_name="__main__", alter_sys=True)
    sys.exit(0)
module = importlib.import_module(name)
names = [entry] if entry else ["migrate", "run_migration", "backfill", "main"]
found = [it for it in names if callable(getattr(module, it, None))]
if not found:
    sys.exit(f"module {name} has no function {' or '.join(names)}; name one with `entry`, or \"__main__\" for python -m")
result = getattr(module, found[0])()
if inspect.isawaitable(result):
    async def wait():
        return await result
    asyncio.run(wait())
"#;

/// A `python` step.
#[derive(Debug, Clone, Default)]
pub struct Python {
    /// Where and with what it runs.
    pub surroundings: Surroundings,
    /// The interpreter: a name in PATH, or a path relative to the folder.
    pub interpreter: String,
    /// The function to call; none is the first of `migrate`, `run_migration`, `backfill` and `main`; `__main__` is `python -m`.
    pub entry: Option<String>,
    /// One for each module, named by it, in order.
    pub migrations: Vec<Migration>,
}

impl Python {
    /// The command line that runs one module.
    #[must_use]
    pub fn argv(&self, module: &str) -> Vec<String> {
        let entry = self.entry.clone().unwrap_or_default();
        vec![self.interpreter.clone(), "-c".into(), RUNNER.into(), module.into(), entry]
    }
}

/// Reads the files of modules below `dir`; messages call the folder `shown`. No module is imported.
///
/// # Errors
/// A module has no file, or one that cannot be read.
pub fn read(dir: &Path, shown: &Path, modules: &[String]) -> Result<Vec<Migration>, ReadError> {
    modules.iter().map(|module| read_module(dir, shown, module)).collect()
}

/// The file of a module, relative to `dir`; where there is none, where it should be.
#[must_use]
pub fn file(dir: &Path, module: &str) -> PathBuf {
    let stem: PathBuf = module.split('.').collect();
    let (as_file, as_package) = (stem.with_extension("py"), stem.join("__init__.py"));
    [as_file.clone(), as_package].into_iter().find(|it| dir.join(it).is_file()).unwrap_or(as_file)
}

fn read_module(dir: &Path, shown: &Path, module: &str) -> Result<Migration, ReadError> {
    let file = file(dir, module);
    let text = read_text(&dir.join(&file), &shown.join(&file))?;
    Ok(Migration {
        name: module.to_owned(),
        path: shown.join(&file),
        checksum: checksum(&text),
        up: text,
        down: None,
        irreversible: false,
        budget: Budget::default(),
        turn: Turn::default(),
        transactional: false,
    })
}

/// The modules that an order file lists: one on each line; `#` begins a comment.
///
/// # Errors
/// The file cannot be read.
pub fn order(file: &Path, shown: &Path) -> Result<Vec<String>, ReadError> {
    let text = fs::read_to_string(file).map_err(|source| ReadError::File { file: shown.to_owned(), source })?;
    let words = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    Ok(words.filter(|it| !it.is_empty()).map(str::to_owned).collect())
}
