//! Looks at the processes of the machine, again and again, while something runs: what stands on a command line, and what is in the
//! environment of what `migrate` starts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What was seen.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    /// Command lines with a secret in them.
    pub(super) leaks: BTreeSet<String>,
    /// By the name of each program that was started, the variables that it had, with their values.
    pub(super) children: BTreeMap<String, BTreeSet<(String, String)>>,
    /// How many times everything was looked at.
    pub(super) looks: usize,
}

pub(super) struct Watch {
    seen: Arc<Mutex<Seen>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins: `secrets` on any command line, and the children of each `migrate` that runs in `folder`.
    pub(super) fn begin(secrets: Vec<String>, folder: PathBuf) -> Self {
        let (seen, over) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let (of_thread, until) = (Arc::clone(&seen), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                look(&secrets, &folder, &mut of_thread.lock().expect("nobody panics here"));
                // Between two looks others get their turn: this machine has few processors.
                std::thread::park_timeout(Duration::from_millis(2));
            }
        });
        Self { seen, over, thread: Some(thread) }
    }

    /// Ends, and says what was seen.
    pub(super) fn end(mut self) -> Seen {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().expect("it ends once").join().expect("it does not panic");
        self.seen.lock().expect("nobody panics here").clone()
    }
}

fn look(secrets: &[String], folder: &Path, seen: &mut Seen) {
    seen.looks += 1;
    let mut ours = BTreeSet::new();
    let mut parents = BTreeMap::new();
    for process in fs::read_dir("/proc").expect("Linux").flatten().map(|it| it.path()) {
        let Some(pid) = process.file_name().and_then(|it| it.to_str()?.parse::<u32>().ok()) else { continue };
        let Ok(line) = fs::read(process.join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if secrets.iter().any(|it| line.contains(it)) {
            seen.leaks.insert(line);
        }
        let is_migrate =
            fs::read_link(process.join("exe")).is_ok_and(|it| it == Path::new(env!("CARGO_BIN_EXE_migrate")));
        if is_migrate {
            // Between fork and exec, a child of ours looks like us.
            ours.extend(fs::read_link(process.join("cwd")).is_ok_and(|it| it == folder).then_some(pid));
        } else {
            parents.extend(parent(&process).map(|parent| (pid, parent)));
        }
    }
    for (pid, _) in parents.iter().filter(|(_, parent)| descends(**parent, &parents, &ours)) {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let (Ok(exe), Ok(env)) = (fs::read_link(process.join("exe")), fs::read(process.join("environ"))) else {
            continue;
        };
        let name = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let env = String::from_utf8_lossy(&env).into_owned();
        let pairs = env.split('\0').filter_map(|it| it.split_once('='));
        seen.children.entry(name).or_default().extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}

fn descends(parent: u32, parents: &BTreeMap<u32, u32>, ours: &BTreeSet<u32>) -> bool {
    ours.contains(&parent) || parents.get(&parent).is_some_and(|it| *it != parent && descends(*it, parents, ours))
}

/// The number behind the state, which is behind the name in brackets.
fn parent(process: &Path) -> Option<u32> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}
