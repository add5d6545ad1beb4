//! Places where a test may end the process as a power cut would. In a release build there are none, and nothing asks for them.
//!
//! Each stands at a door through which something outside is changed (`outside/store.rs`, `postgres::change`, the messages of
//! migrations, the programs that are started), once before and once after: `tests/tidy.rs` holds that nothing goes around them.

/// The variable that says where to die: `NAME#N`, at the Nth time that NAME is passed, from 1.
pub const AT: &str = "MIGRATE_CRASH_AT";
/// The variable that names a file to which each point is written as it is passed: `NAME#N`, a tab, and what it is about.
pub const LIST: &str = "MIGRATE_CRASH_LIST";

#[cfg(debug_assertions)]
mod armed {
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::io::Write;
    use std::sync::{Mutex, OnceLock};

    static ARMED: OnceLock<Armed> = OnceLock::new();

    struct Armed {
        at: Option<String>,
        list: Option<Mutex<File>>,
        passed: Mutex<BTreeMap<&'static str, u64>>,
    }

    pub(super) fn arm(env: &BTreeMap<String, String>) {
        let (at, list) = (env.get(super::AT).cloned(), env.get(super::LIST));
        if at.is_none() && list.is_none() {
            return;
        }
        let open = |path| File::options().create(true).append(true).open(path);
        let list = list.map(|path| Mutex::new(open(path).unwrap_or_else(|error| panic!("{path}: {error}"))));
        // Armed once: a process has one world.
        let _ = ARMED.set(Armed { at, list, passed: Mutex::default() });
    }

    pub(super) fn point(name: &'static str, about: &str) {
        let Some(armed) = ARMED.get() else { return };
        let mut passed = armed.passed.lock().expect("nobody panics while holding this");
        let count = passed.entry(name).or_default();
        *count += 1;
        let here = format!("{name}#{count}");
        if let Some(list) = &armed.list {
            let about: String = about.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(2_000).collect();
            let written = writeln!(list.lock().expect("nobody panics while holding this"), "{here}\t{about}");
            written.expect("the list can be written");
        }
        if armed.at.as_deref() == Some(&here) {
            // No unwinding and no destructors: nothing is told, closed or taken back.
            std::process::abort();
        }
    }
}

/// Reads from the environment whether and where to die.
#[cfg(debug_assertions)]
pub fn arm(env: &std::collections::BTreeMap<String, String>) {
    armed::arm(env);
}

/// A place to die.
#[cfg(debug_assertions)]
pub fn point(name: &'static str, about: &str) {
    armed::point(name, about);
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn arm(_: &std::collections::BTreeMap<String, String>) {}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_: &'static str, _: &str) {}
