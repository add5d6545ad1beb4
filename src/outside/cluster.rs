//! A throw-away PostgreSQL cluster, for the demo and for the tests: made by `initdb`, reached through a socket only,
//! and gone with its owner. Whatever ends the owner, `SIGKILL` included, a watcher process sees its pipe close, stops
//! the server and removes the files. It is not for anybody's real data: it trusts every user of the machine.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::{env, fs, io};

use nix::unistd::{Uid, User};

/// What a server needs to exist.
const PROGRAMS: [&str; 3] = ["initdb", "pg_ctl", "postgres"];

/// The kernel's limit for the path of a socket is 104 bytes on some systems and 108 on others.
const SOCKET_PATH_LIMIT: usize = 100;

/// There is no TCP port; this is only the last part of the socket's name.
const PORT: u16 = 5432;

/// Waits for the end of its input, which is the end of the cluster's owner. `rm` is repeated because `initdb` may still
/// be writing, and the server is stopped each time because `pg_ctl start` may only now have started it.
const WATCH: &str = r#"
trap '' HUP INT TERM
read -r word
[ "$word" = keep ] && exit 0
pg_ctl=$1 data=$2
shift
tries=0
while [ "$tries" -lt 10 ]; do
    [ -d "$data" ] && "$pg_ctl" stop -D "$data" -m immediate -w -t 30
    rm -rf "$@"
    [ -e "$data" ] || exit 0
    sleep 1
    tries=$((tries + 1))
done
exit 1
"#;

/// Why there is no cluster, or why it does not do what it was asked.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ClusterError {
    /// No folder holds all of the server's programs.
    #[error("no PostgreSQL server programs (`initdb`, `pg_ctl`, `postgres`) in {looked}")]
    #[diagnostic(
        code(migrate::cluster::no_programs),
        help(
            "Install a PostgreSQL server (Debian: `apt-get install postgresql`), or name the folder of its programs."
        )
    )]
    NoPrograms {
        /// The places that were searched.
        looked: String,
    },
    /// PostgreSQL refuses to run as root, and there is nobody else.
    #[error("PostgreSQL does not run as root, and there is no OS user `postgres` or `nobody` to run it as")]
    #[diagnostic(code(migrate::cluster::no_user), help("Run this as another OS user than root."))]
    NoUser,
    /// The given folder holds something.
    #[error("{} is not empty", dir.display())]
    #[diagnostic(
        code(migrate::cluster::dir_in_use),
        help("Name a folder that is empty or does not exist; a throw-away cluster removes its folder in the end.")
    )]
    DirInUse {
        /// The folder that was asked for.
        dir: PathBuf,
    },
    /// The OS user that runs the server cannot get at the folder.
    #[error("OS user `{user}`, which runs the server, may not enter {}", dir.display())]
    #[diagnostic(
        code(migrate::cluster::closed_dir),
        help("Name a folder that every OS user may enter, such as one below /tmp.")
    )]
    ClosedDir {
        /// The folder that is closed.
        dir: PathBuf,
        /// The OS user that needs it.
        user: String,
    },
    /// A folder, a file or a program could not be used at all.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it could not be done.
        source: io::Error,
    },
    /// One of PostgreSQL's programs gave up.
    #[error("`{program}` ended with {status}: {said}")]
    #[diagnostic(code(migrate::cluster::program))]
    Program {
        /// The program.
        program: &'static str,
        /// How it ended.
        status: String,
        /// Its last words, and those of the server's log.
        said: String,
    },
}

/// What kind of cluster.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    /// The folder of `initdb`, `pg_ctl` and `postgres`. If none is given: that of `initdb` on the `PATH`, else the
    /// newest `/usr/lib/postgresql/*/bin`.
    pub bin_dir: Option<PathBuf>,
    /// Where the cluster lives: a folder that is empty or does not exist yet. If none is given: a temporary one.
    pub dir: Option<PathBuf>,
    /// Whether server and data outlive their owner.
    pub keep: bool,
    /// Whether the data survives a crash of the machine. Slow.
    pub fsync: bool,
    /// More settings for `postgresql.conf`, as name and value.
    pub settings: Vec<(String, String)>,
}

/// A running PostgreSQL cluster. It ends with this value, or with the process that holds it, unless
/// [`ClusterOptions::keep`] was asked for.
#[derive(Debug)]
pub struct Cluster {
    bin_dir: PathBuf,
    root: PathBuf,
    socket_dir: PathBuf,
    user: Option<User>,
    /// None once the cluster is to be kept.
    watcher: Mutex<Option<Child>>,
}

impl Cluster {
    /// Makes a cluster and starts its server; returns when it accepts connections. The superuser is `postgres`, and
    /// nobody needs a password.
    ///
    /// # Errors
    /// If programs or an OS user are missing, the folder cannot be used, or a program of PostgreSQL fails. Nothing is
    /// left behind then.
    pub fn start(options: ClusterOptions) -> Result<Cluster, ClusterError> {
        let bin_dir = find_programs(options.bin_dir.as_deref())?;
        let user = server_user()?;
        let root = make_root(options.dir.as_deref(), user.as_ref())?;
        let mut socket_dir = root.join("run");
        if !fits(&socket_dir) {
            socket_dir = make_temporary(user.as_ref())?;
        }
        // The watcher comes first: from here on everything has somebody who clears it away.
        let mut watch = Command::new("sh");
        watch.args(["-c", WATCH, "sh"]).arg(bin_dir.join("pg_ctl")).arg(root.join("data")).args([&socket_dir, &root]);
        become_server_user(&mut watch, user.as_ref());
        watch.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let watcher = watch.spawn().map_err(failed(|| "cannot run `sh`".to_owned()))?;
        let cluster = Cluster { bin_dir, root, socket_dir, user, watcher: Mutex::new(Some(watcher)) };

        cluster.make_dirs()?;
        cluster.init()?;
        cluster.configure(&options)?;
        cluster.start_again()?;
        if options.keep {
            cluster.release_watcher(b"keep\n");
        }
        Ok(cluster)
    }

    /// The folder of the server's socket: what a client takes for the host.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// The folder of the server's programs.
    #[must_use]
    pub fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// The server's data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.root.join("data")
    }

    /// The server's log file.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.root.join("log")
    }

    /// Where to connect as `user` to `database`.
    ///
    /// The user and the socket are parameters because that is the form which everybody reads alike: the `url` crate
    /// refuses `postgresql://user@/database` for its empty host, and SQLAlchemy does not decode a host.
    #[must_use]
    pub fn url(&self, user: &str, database: &str) -> String {
        format!(
            "postgresql:///{}?host={}&port={PORT}&user={}",
            percent_encoded(database.as_bytes(), b""),
            percent_encoded(self.socket_dir.as_os_str().as_bytes(), b"/"),
            percent_encoded(user.as_bytes(), b""),
        )
    }

    /// Stops the server as a power cut would: nobody is asked to finish, and the next start recovers from the log.
    ///
    /// # Errors
    /// If `pg_ctl` fails, for instance because the server is not running.
    pub fn stop_immediate(&self) -> Result<(), ClusterError> {
        let mut stop = self.command("pg_ctl");
        stop.arg("stop").arg("-D").arg(self.data_dir()).args(["-m", "immediate", "-w", "-t", "60"]);
        self.run("pg_ctl", stop)
    }

    /// Starts the server after [`Cluster::stop_immediate`], and returns when it accepts connections.
    ///
    /// # Errors
    /// If `pg_ctl` fails; the error then holds the end of the server's log.
    pub fn start_again(&self) -> Result<(), ClusterError> {
        let mut start = self.command("pg_ctl");
        start.arg("start").arg("-D").arg(self.data_dir()).arg("-l").arg(self.log_file()).args(["-w", "-t", "60"]);
        self.run("pg_ctl", start)
    }

    fn make_dirs(&self) -> Result<(), ClusterError> {
        for dir in [&self.data_dir(), &self.socket_dir] {
            if !dir.exists() {
                fs::create_dir(dir).map_err(failed(|| format!("cannot make {}", dir.display())))?;
            }
            give_to(dir, self.user.as_ref())?;
        }
        set_mode(&self.data_dir(), 0o700)?;
        // Clients may be other OS users than the server.
        set_mode(&self.socket_dir, 0o755)
    }

    fn init(&self) -> Result<(), ClusterError> {
        let init = |locale: &str| {
            let mut init = self.command("initdb");
            init.args(["-A", "trust", "--no-sync", "-U", "postgres", "-E", "UTF8"]);
            init.arg(format!("--locale={locale}")).arg("-D").arg(self.data_dir());
            self.run("initdb", init)
        };
        match init("C.UTF-8") {
            // Not every system has it; `initdb` has then emptied the folder again.
            Err(ClusterError::Program { said, .. }) if said.contains("locale") => init("C"),
            other => other,
        }
    }

    fn configure(&self, options: &ClusterOptions) -> Result<(), ClusterError> {
        let mut text = Vec::from(*b"\n");
        let mut set = |name: &str, value: &[u8]| {
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b" = '");
            for &byte in value {
                if matches!(byte, b'\'' | b'\\') {
                    text.push(byte);
                }
                text.push(byte);
            }
            text.extend_from_slice(b"'\n");
        };
        set("listen_addresses", b"");
        set("port", PORT.to_string().as_bytes());
        // A list; the double quotes keep a comma or a blank in the path from ending its element.
        set("unix_socket_directories", &[b"\"", self.socket_dir.as_os_str().as_bytes(), b"\""].concat());
        set("max_prepared_transactions", b"10");
        if !options.fsync {
            set("fsync", b"off");
            set("synchronous_commit", b"off");
            set("full_page_writes", b"off");
        }
        for (name, value) in &options.settings {
            set(name, value.as_bytes());
        }
        let path = self.data_dir().join("postgresql.conf");
        let append = || fs::OpenOptions::new().append(true).open(&path)?.write_all(&text);
        append().map_err(failed(|| format!("cannot write {}", path.display())))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin_dir.join(program));
        command.current_dir(&self.root).stdin(Stdio::null());
        // The server's folder, port and time zone are ours to say, not the environment's.
        for (name, _) in env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        command.env("LC_ALL", "C").env("TZ", "UTC");
        become_server_user(&mut command, self.user.as_ref());
        command
    }

    fn run(&self, program: &'static str, mut command: Command) -> Result<(), ClusterError> {
        let output = command.output().map_err(failed(|| format!("cannot run `{program}`")))?;
        if output.status.success() {
            return Ok(());
        }
        let mut said = last_lines(&output.stderr);
        if let Ok(log) = fs::read(self.log_file()) {
            let _ = write!(said, "\n{}:\n{}", self.log_file().display(), last_lines(&log));
        }
        Err(ClusterError::Program { program, status: output.status.to_string(), said })
    }

    /// Says `word` to the watcher and waits until it has done its work.
    fn release_watcher(&self, word: &[u8]) {
        let watcher = self.watcher.lock().map(|mut watcher| watcher.take()).unwrap_or_default();
        if let Some(mut watcher) = watcher {
            if let Some(mut pipe) = watcher.stdin.take() {
                let _ = pipe.write_all(word);
            }
            let _ = watcher.wait();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let kept = self.watcher.lock().is_ok_and(|watcher| watcher.is_none());
        if !kept {
            self.release_watcher(b"");
            // The server's OS user may empty the folder but not remove it from a folder of ours.
            let _ = fs::remove_dir(&self.root);
        }
    }
}

fn find_programs(given: Option<&Path>) -> Result<PathBuf, ClusterError> {
    // Debian links `initdb` into the PATH but not all of its neighbours: the link's target has them.
    let complete = |dir: &Path| {
        let dir = dir.join("initdb").canonicalize().ok()?.parent()?.to_owned();
        PROGRAMS.iter().all(|program| dir.join(program).is_file()).then_some(dir)
    };
    if let Some(dir) = given {
        let none = || ClusterError::NoPrograms { looked: dir.display().to_string() };
        return complete(dir).ok_or_else(none);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let mut packaged: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.flatten().map(|version| version.path()).collect())
        .unwrap_or_default();
    let version = |dir: &PathBuf| dir.file_name().and_then(OsStr::to_str).and_then(|it| it.parse::<u32>().ok());
    packaged.sort_by_key(version);
    env::split_paths(&path)
        .chain(packaged.into_iter().rev().map(|dir| dir.join("bin")))
        .find_map(|dir| complete(&dir))
        .ok_or_else(|| ClusterError::NoPrograms { looked: "PATH or /usr/lib/postgresql/*/bin".to_owned() })
}

/// Whom the server runs as: nobody else, unless we are root.
fn server_user() -> Result<Option<User>, ClusterError> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let user = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
    user.map(Some).ok_or(ClusterError::NoUser)
}

fn become_server_user(command: &mut Command, user: Option<&User>) {
    if let Some(user) = user {
        // This also drops root's supplementary groups.
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
}

fn make_root(given: Option<&Path>, user: Option<&User>) -> Result<PathBuf, ClusterError> {
    let Some(dir) = given else {
        return make_temporary(user);
    };
    let using = || format!("cannot use {}", dir.display());
    fs::create_dir_all(dir).map_err(failed(using))?;
    let dir = dir.canonicalize().map_err(failed(using))?;
    if fs::read_dir(&dir).map_err(failed(using))?.next().is_some() {
        return Err(ClusterError::DirInUse { dir });
    }
    if let Some((closed, user)) = user.and_then(|user| closed_to(dir.parent().unwrap_or(&dir), user).zip(Some(user))) {
        return Err(ClusterError::ClosedDir { dir: closed, user: user.name.clone() });
    }
    give_to(&dir, user)?;
    set_mode(&dir, 0o755)?;
    Ok(dir)
}

fn make_temporary(user: Option<&User>) -> Result<PathBuf, ClusterError> {
    let usual = env::temp_dir();
    let fitting = fits(&usual.join("migrate-pg-XXXXXX/run")) && user.is_none_or(|it| closed_to(&usual, it).is_none());
    let base = if fitting { usual } else { PathBuf::from("/tmp") };
    let dir = tempfile::Builder::new()
        .prefix("migrate-pg-")
        .tempdir_in(&base)
        .map_err(failed(|| format!("cannot make a folder in {}", base.display())))?
        .keep();
    give_to(&dir, user)?;
    set_mode(&dir, 0o755)?;
    Ok(dir)
}

/// The first folder on the way to `dir` that `user` may not enter. Groups are not looked at.
fn closed_to(dir: &Path, user: &User) -> Option<PathBuf> {
    let enters = |dir: &Path| {
        fs::metadata(dir).is_ok_and(|it| {
            let bit = if it.uid() == user.uid.as_raw() { 0o100 } else { 0o001 };
            it.mode() & bit != 0
        })
    };
    dir.ancestors().find(|dir| !enters(dir)).map(Path::to_owned)
}

fn fits(socket_dir: &Path) -> bool {
    socket_dir.join(format!(".s.PGSQL.{PORT}")).as_os_str().len() < SOCKET_PATH_LIMIT
}

fn give_to(dir: &Path, user: Option<&User>) -> Result<(), ClusterError> {
    let Some(user) = user else {
        return Ok(());
    };
    std::os::unix::fs::chown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
        .map_err(failed(|| format!("cannot give {} to OS user `{}`", dir.display(), user.name)))
}

fn set_mode(dir: &Path, mode: u32) -> Result<(), ClusterError> {
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
        .map_err(failed(|| format!("cannot set the permissions of {}", dir.display())))
}

fn failed(what: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> ClusterError {
    move |source| ClusterError::Io { what: what(), source }
}

fn last_lines(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn percent_encoded(bytes: &[u8], plain: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || plain.contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_in_a_url_is_encoded() {
        assert_eq!(percent_encoded("/tmp/a b&ü".as_bytes(), b"/"), "/tmp/a%20b%26%C3%BC");
        assert_eq!(percent_encoded(b"a/b", b""), "a%2Fb");
    }

    #[test]
    fn missing_programs_are_named_with_the_place() {
        let options = ClusterOptions { bin_dir: Some("/nonexistent".into()), ..ClusterOptions::default() };
        let error = Cluster::start(options).expect_err("there are no programs");
        let expected = "no PostgreSQL server programs (`initdb`, `pg_ctl`, `postgres`) in /nonexistent";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_folder_in_use_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::write(dir.path().join("mine"), "").expect("a file in it");
        let options = ClusterOptions { dir: Some(dir.path().to_owned()), ..ClusterOptions::default() };
        assert!(matches!(Cluster::start(options), Err(ClusterError::DirInUse { .. })));
        assert!(dir.path().join("mine").exists());
    }
}
