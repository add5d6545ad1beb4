//! Programs that are not ours: run in a process group of their own, with nothing in their environment but what is given,
//! their output kept, and ended as a group when their time is over.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStdout, Command};

use super::interrupt::{Interrupt, Interrupted};
use super::secret::Secret;
use crate::crash;

/// Bytes of output that are kept: the beginning and the end, each so much.
const KEPT: usize = 512 << 10;
/// Lines of output that an error shows.
const TAIL: usize = 20;
/// What a program gets to end by itself once it was asked to.
const GRACE: Duration = Duration::from_secs(5);

/// A program about to be started.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program and its arguments. No secret belongs here: every user of the machine can read it.
    pub argv: Vec<String>,
    /// Where it runs.
    pub dir: PathBuf,
    /// Its whole environment.
    pub env: BTreeMap<String, Secret>,
    /// How long it may take; none is for ever.
    pub timeout: Option<Duration>,
    /// What must not stand in its output.
    pub secrets: Vec<Secret>,
}

/// Why a program did not do its work.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ChildError {
    /// It could not be started.
    #[error("`{program}` could not be started in {}", dir.display())]
    #[diagnostic(
        code("child.start"),
        help("Check that the program exists and may be run, and that the folder is right.")
    )]
    Start {
        /// As named.
        program: String,
        /// Where.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It ended badly.
    #[error("`{program}` {how}")]
    #[diagnostic(code("child.failed"))]
    Failed {
        /// As named.
        program: String,
        /// `exited with 1`, `was ended by signal 9`, `did not end within 10 s`.
        how: String,
        /// The end of its output.
        #[source]
        tail: Tail,
    },
    /// A signal to us.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Interrupted(#[from] Interrupted),
}

/// The last lines of a program's output, as the cause of its failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", if self.0.is_empty() { "it printed nothing" } else { self.0.as_str() })]
pub struct Tail(pub String);

/// What a program printed on both of its outputs, secrets starred out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Output(pub String);

impl Output {
    /// The last lines.
    #[must_use]
    pub fn tail(&self) -> Tail {
        let lines: Vec<&str> = self.0.trim_end().lines().collect();
        Tail(lines[lines.len().saturating_sub(TAIL)..].join("\n"))
    }
}

/// Runs a program to its end. Its output comes back in any case.
///
/// # Errors
/// It could not be started, ended badly, or took too long; or we were interrupted, and it was ended.
pub async fn run(program: &Program, interrupt: &Interrupt) -> (Output, Result<(), ChildError>) {
    let name = program.argv.first().cloned().unwrap_or_default();
    crash::point("child before", &name);
    let (mut child, output) = match spawn(program, &name) {
        Ok(started) => started,
        Err(source) => {
            let error = ChildError::Start { program: name, dir: program.dir.clone(), source };
            return (Output::default(), Err(error));
        }
    };
    let group = Group(child.id());
    let watcher = group.watched();
    crash::point("child after", &name);
    let kept = Arc::new(Mutex::new(Kept::default()));
    let reading = tokio::spawn(read(output, kept.clone()));
    let ended = interrupt.or(within(program.timeout, child.wait())).await;
    crash::point("child ended", &name);
    if !matches!(ended, Ok(Some(_))) {
        group.end(&mut child).await;
    }
    if let Some(mut watcher) = watcher {
        let _ = watcher.kill().await;
    }
    // What the program left behind in its group would keep its pipes open, and us waiting; what left the group is out of
    // reach, and has no say in when we go on.
    group.signal(Signal::SIGKILL);
    let still_reading = reading.abort_handle();
    if tokio::time::timeout(GRACE, reading).await.is_err() {
        still_reading.abort();
    }
    let kept = std::mem::take(&mut *kept.lock().expect("nobody panics while holding this"));
    let output = redacted(kept.joined(), &program.secrets);
    let failed = |how: String| ChildError::Failed { program: name.clone(), how, tail: output.tail() };
    let result = match ended {
        Err(interrupted) => Err(interrupted.into()),
        Ok(None) => Err(failed(format!("did not end within {} s", program.timeout.unwrap_or_default().as_secs_f64()))),
        Ok(Some(Err(error))) => Err(failed(format!("could not be waited for: {error}"))),
        Ok(Some(Ok(status))) if status.success() => Ok(()),
        Ok(Some(Ok(status))) => Err(failed(how_it_ended(status))),
    };
    (output, result)
}

fn command(program: &Program, name: &str) -> Command {
    let mut command = Command::new(resolved(&program.dir, name));
    command.args(program.argv.iter().skip(1)).current_dir(&program.dir).env_clear();
    command.envs(program.env.iter().map(|(name, value)| (name, value.expose())));
    command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    command
}

/// Starts it, with one pipe for all that it prints: of two, nobody could tell what it said last, and a failure is told by that.
fn spawn(program: &Program, name: &str) -> std::io::Result<(tokio::process::Child, ChildStdout)> {
    let (reader, writer) = std::io::pipe()?;
    // The command holds the other end; dropping it leaves that to the program alone.
    let child = command(program, name).stdout(writer.try_clone()?).stderr(writer).spawn()?;
    let output = std::process::ChildStdout::from(std::os::fd::OwnedFd::from(reader));
    Ok((child, ChildStdout::from_std(output)?))
}

/// A name with a slash is relative to the folder that the program runs in; any other is looked up in PATH.
fn resolved(dir: &Path, name: &str) -> PathBuf {
    if name.contains('/') { dir.join(name) } else { name.into() }
}

/// The file that would be started for `name` in `dir`, by the PATH given.
#[must_use]
pub fn find(dir: &Path, name: &str, path: &str) -> Option<PathBuf> {
    let resolved = resolved(dir, name);
    let candidates = match name.contains('/') {
        true => vec![resolved],
        false => std::env::split_paths(path).map(|folder| folder.join(&resolved)).collect(),
    };
    candidates.into_iter().find(|it| {
        std::fs::metadata(it)
            .is_ok_and(|it| it.is_file() && std::os::unix::fs::PermissionsExt::mode(&it.permissions()) & 0o111 != 0)
    })
}

async fn within<T>(limit: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, work).await.ok(),
        None => Some(work.await),
    }
}

/// `exited with 1`, `was ended by signal 9`.
#[must_use]
pub fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), std::os::unix::process::ExitStatusExt::signal(&status)) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

/// The process group that a program leads.
struct Group(Option<u32>);

impl Group {
    /// To the program and everything that it started. That nobody is left is no error.
    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.0.and_then(|id| i32::try_from(id).ok()) {
            let _ = killpg(Pid::from_raw(leader), signal);
        }
    }

    /// Starts what ends the group when we are gone, however we went: it waits for the end of a pipe that we hold. A program that
    /// outlived us would go on with a database that is rolled back meanwhile.
    fn watched(&self) -> Option<tokio::process::Child> {
        let mut watcher = Command::new("sh");
        watcher.args(["-c", "read _; kill -s KILL -- -\"$0\"", &self.0?.to_string()]).env_clear();
        watcher.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        watcher.process_group(0).kill_on_drop(true).spawn().ok()
    }

    async fn end(&self, child: &mut tokio::process::Child) {
        self.signal(Signal::SIGTERM);
        if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
            self.signal(Signal::SIGKILL);
            let _ = child.wait().await;
        }
    }
}

async fn read(mut pipe: impl AsyncRead + Unpin, kept: Arc<Mutex<Kept>>) {
    let mut chunk = vec![0; 8 << 10];
    while let Ok(count) = pipe.read(&mut chunk).await {
        if count == 0 {
            break;
        }
        kept.lock().expect("nobody panics while holding this").take(&chunk[..count]);
    }
}

/// The beginning and the end of an output of any length.
#[derive(Default)]
struct Kept {
    head: Vec<u8>,
    tail: std::collections::VecDeque<u8>,
    lost: u64,
}

impl Kept {
    fn take(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(KEPT - self.head.len()));
        self.head.extend_from_slice(head);
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(KEPT);
        self.tail.drain(..over);
        self.lost += over as u64;
    }

    fn joined(self) -> Vec<u8> {
        let mut all = self.head;
        if self.lost > 0 {
            all.extend_from_slice(format!("\n… {} bytes left out …\n", self.lost).as_bytes());
        }
        all.extend(self.tail);
        all
    }
}

/// Secrets are starred out, the longest first: a password is a part of its URL. Very short ones are left: starring out every
/// `a` would leave no output.
fn redacted(bytes: Vec<u8>, secrets: &[Secret]) -> Output {
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    let mut words: Vec<&str> = secrets.iter().map(Secret::expose).filter(|it| it.len() >= 3).collect();
    words.sort_by_key(|it| std::cmp::Reverse(it.len()));
    for word in words {
        text = text.replace(word, "***");
    }
    Output(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program {
            argv: vec!["sh".into(), "-c".into(), script.into()],
            dir: "/".into(),
            env: BTreeMap::from([("PATH".into(), Secret::new("/usr/bin:/bin")), ("PW".into(), Secret::new("hunter2"))]),
            timeout: Some(Duration::from_secs(20)),
            secrets: vec![Secret::new("hunter2")],
        }
    }

    #[tokio::test]
    async fn output_is_kept_and_secrets_are_starred_out() {
        let (output, result) = run(&shell("echo out; echo \"pw is $PW\" >&2"), &Interrupt::default()).await;
        result.expect("exit 0");
        assert!(output.0.contains("out\n") && output.0.contains("pw is ***\n"), "{}", output.0);
    }

    #[tokio::test]
    async fn the_environment_is_what_was_given() {
        let (output, _) = run(
            &shell("env | cut -d= -f1 | grep -v -e PWD -e SHLVL -e _ | sort | tr '\\n' ' '"),
            &Interrupt::default(),
        )
        .await;
        assert_eq!(output.0, "PATH PW ");
    }

    #[tokio::test]
    async fn a_failure_has_the_end_of_the_output() {
        let (_, result) = run(&shell("seq 100; exit 3"), &Interrupt::default()).await;
        let Err(ChildError::Failed { how, tail, .. }) = result else { panic!("{result:?}") };
        assert_eq!(how, "exited with 3");
        assert!(tail.0.starts_with("81\n") && tail.0.ends_with("\n100"), "{tail}");
    }

    #[tokio::test]
    async fn a_group_that_ignores_sigterm_is_ended_when_its_time_is_over() {
        let mut program = shell("trap '' TERM; echo $$; (trap '' TERM; sleep 1000) & echo $!; wait");
        program.timeout = Some(Duration::from_millis(300));
        let (output, result) = run(&program, &Interrupt::default()).await;
        let Err(ChildError::Failed { how, .. }) = result else { panic!("{result:?}") };
        assert_eq!(how, "did not end within 0.3 s");
        for pid in output.0.split_whitespace() {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            assert!(state.is_empty() || state.contains(") Z "), "{pid} lives: {state}");
        }
    }

    #[tokio::test]
    async fn what_runs_on_in_the_background_does_not_hold_us_up() {
        let (output, result) = run(&shell("sleep 1000 & echo done"), &Interrupt::default()).await;
        result.expect("exit 0");
        assert_eq!(output.0, "done\n");
    }

    #[tokio::test]
    async fn what_leaves_the_group_does_not_hold_us_up() {
        let begun = std::time::Instant::now();
        let (output, result) = run(&shell("setsid sleep 30 & echo done"), &Interrupt::default()).await;
        result.expect("exit 0");
        assert_eq!(output.0, "done\n");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_program_is_found_as_it_will_be_started() {
        let found = |dir: &str, name: &str, path: &str| find(Path::new(dir), name, path).is_some();
        assert!(found("/nowhere", "sh", "/nowhere:/usr/bin:/bin"));
        assert!(found("/", "bin/sh", "") && found("/bin", "./sh", "") && found("/nowhere", "/bin/sh", ""));
        assert!(!found("/bin", "sh", "/nowhere") && !found("/", "etc/passwd", "") && !found("/", "usr/bin", ""));
    }

    #[test]
    fn the_beginning_and_the_end_of_a_long_output_are_kept() {
        let mut kept = Kept::default();
        for _ in 0..40 {
            kept.take(&vec![b'x'; 100 << 10]);
        }
        kept.take(b"the end");
        let all = kept.joined();
        assert!(all.len() < 2 * KEPT + 100 && all.ends_with(b"the end"));
    }
}
