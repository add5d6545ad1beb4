//! Child processes: PostgreSQL's own programs, found by the server's version, run with an environment made from nothing
//! but what they need, their standard error kept.

use crate::crash;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// Lines of standard error that are kept of a child.
const TAIL: usize = 20;
/// From this major version on, `pg_dump` and `pg_restore` set `transaction_timeout`, which older servers refuse.
const TRANSACTION_TIMEOUT: u32 = 17;

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ToolError {
    /// No program of a version that suits the server.
    #[error("no pg_dump and pg_restore for a PostgreSQL {server} server: found {found}")]
    #[diagnostic(
        code("tools.version"),
        help(
            "Install the client programs of major version {server} (`apt-get install postgresql-client-{server}`), or name \
             their folder in MIGRATE_PG_BIN."
        )
    )]
    NoneFor {
        /// The server's major version.
        server: u32,
        /// What there is, in words.
        found: String,
    },
    /// It could not be started.
    #[error("{name} could not be started")]
    #[diagnostic(code("tools.start"))]
    Start {
        /// The program.
        name: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It ended badly.
    #[error("{name} {status}")]
    #[diagnostic(code("tools.failed"))]
    Failed {
        /// The program.
        name: &'static str,
        /// `exited with 1`, `was ended by signal 9`.
        status: String,
        /// The end of its standard error.
        #[source]
        stderr: Stderr,
    },
}

/// The end of a program's standard error, as the cause of its failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", if self.0.is_empty() { "it printed nothing" } else { self.0.as_str() })]
pub struct Stderr(pub String);

/// The folders in which PostgreSQL's programs are looked for, and what was found in them.
#[derive(Debug, Clone)]
pub struct Tools {
    folders: Vec<PathBuf>,
    path: String,
    home: String,
    versions: Arc<Mutex<BTreeMap<PathBuf, Option<u32>>>>,
}

/// `pg_dump` and `pg_restore` of one version.
#[derive(Debug, Clone)]
pub struct PgTools {
    folder: PathBuf,
    /// Their major version.
    pub major: u32,
    base: Vec<(String, String)>,
}

impl Tools {
    /// Looks in `MIGRATE_PG_BIN` alone if it is set, else where Debian keeps every major version, then in PATH.
    #[must_use]
    pub fn find(env: &BTreeMap<String, String>) -> Self {
        let path = env.get("PATH").cloned().unwrap_or_default();
        let folders = match env.get("MIGRATE_PG_BIN") {
            Some(folder) if !folder.is_empty() => vec![PathBuf::from(folder)],
            _ => debian_folders().into_iter().chain(std::env::split_paths(&path)).collect(),
        };
        let home = env.get("HOME").cloned().unwrap_or_else(|| "/".into());
        Self { folders, path, home, versions: Arc::default() }
    }

    /// The programs for a server of this major version: the same one, else a newer one whose archives that server can
    /// restore.
    ///
    /// # Errors
    /// [`ToolError::NoneFor`], naming what was found.
    pub async fn for_server(&self, server: u32) -> Result<PgTools, ToolError> {
        let found = self.versions(server).await;
        let suits = |major: &u32| {
            *major == server || (*major > server && (server >= TRANSACTION_TIMEOUT || *major < TRANSACTION_TIMEOUT))
        };
        let best = found.iter().filter(|(_, major)| suits(major)).min_by_key(|(_, major)| *major);
        let Some((folder, major)) = best else {
            let mut majors: Vec<String> = found.iter().map(|(_, major)| major.to_string()).collect();
            majors.dedup();
            let found = if majors.is_empty() { "none at all".into() } else { format!("version {}", majors.join(", ")) };
            return Err(ToolError::NoneFor { server, found });
        };
        Ok(PgTools { folder: folder.clone(), major: *major, base: self.base() })
    }

    /// What each of the programs finds in its environment.
    fn base(&self) -> Vec<(String, String)> {
        let base = [("PATH", &*self.path), ("HOME", &self.home), ("LC_ALL", "C.UTF-8")];
        base.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// What is in the folders, up to the first that has the programs of this very version: asking takes a while where PATH
    /// leads to Debian's wrapper, which is a Perl program.
    async fn versions(&self, server: u32) -> Vec<(PathBuf, u32)> {
        let mut known = self.versions.lock().await;
        for folder in &self.folders {
            if !known.contains_key(folder) {
                known.insert(folder.clone(), major_version(folder, &self.base()).await);
            }
            if known.get(folder) == Some(&Some(server)) {
                break;
            }
        }
        self.folders.iter().filter_map(|folder| Some((folder.clone(), (*known.get(folder)?)?))).collect()
    }
}

/// `/usr/lib/postgresql/15/bin` and its like, newest first.
fn debian_folders() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut majors: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    majors.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    majors.into_iter().map(|(_, folder)| folder).collect()
}

/// Both programs must be there; the version is `pg_dump`'s. It is asked with as little around it as when it works: our
/// environment may hold what it need not know.
async fn major_version(folder: &Path, base: &[(String, String)]) -> Option<u32> {
    if !folder.join("pg_restore").exists() {
        return None;
    }
    let mut command = Command::new(folder.join("pg_dump"));
    let output = command.arg("--version").env_clear().envs(base.iter().cloned()).output().await.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let number = text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

impl PgTools {
    /// Starts one of the programs with `env` (and PATH, HOME, LC_ALL) as its whole environment.
    ///
    /// # Errors
    /// It could not be started.
    pub fn start(
        &self,
        name: &'static str,
        args: &[String],
        env: &[(String, String)],
        stdin: Stdio,
        stdout: Stdio,
    ) -> Result<Child, ToolError> {
        let mut command = Command::new(self.folder.join(name));
        command.args(args).env_clear().envs(self.base.iter().cloned()).envs(env.iter().cloned());
        command.stdin(stdin).stdout(stdout).stderr(Stdio::piped());
        // A group of its own: a Ctrl-C at the terminal is ours to act on. Dropping it kills it.
        command.process_group(0).kill_on_drop(true);
        crash::point("program before", name);
        let mut inner = command.spawn().map_err(|source| ToolError::Start { name, source })?;
        crash::point("program after", name);
        let stderr = inner.stderr.take().map(|pipe| tokio::spawn(tail(pipe)));
        Ok(Child { name, inner, stderr })
    }
}

async fn tail(pipe: impl AsyncRead + Unpin) -> String {
    let mut kept: VecDeque<String> = VecDeque::new();
    let mut lines = BufReader::new(pipe).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        if kept.len() == TAIL {
            kept.pop_front();
        }
        kept.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
    }
    Vec::from(kept).join("\n")
}

/// A program under way.
pub struct Child {
    name: &'static str,
    inner: tokio::process::Child,
    stderr: Option<JoinHandle<String>>,
}

impl Child {
    /// Its standard output, once, if it was started with a pipe.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.inner.stdout.take()
    }

    /// Its standard input, once, if it was started with a pipe.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.inner.stdin.take()
    }

    /// Waits for its end. Whoever took the pipes must have read or closed them.
    ///
    /// # Errors
    /// It did not exit with 0.
    pub async fn finish(mut self) -> Result<(), ToolError> {
        let name = self.name;
        let status = self.inner.wait().await.map_err(|source| ToolError::Start { name, source })?;
        crash::point("program ended", name);
        let stderr = match self.stderr.take() {
            Some(reader) => reader.await.unwrap_or_default(),
            None => String::new(),
        };
        if status.success() {
            return Ok(());
        }
        let status = match (status.code(), std::os::unix::process::ExitStatusExt::signal(&status)) {
            (Some(code), _) => format!("exited with {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended".into(),
        };
        Err(ToolError::Failed { name, status, stderr: Stderr(stderr) })
    }
}
