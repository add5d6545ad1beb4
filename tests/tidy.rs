//! Rules about what is absent, which no reader can see in the code itself. docs/ARCHITECTURE.md lists them in words.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Lines of a file of the library, its unit tests not counted. Past it, a file has become a place where things go.
const LONGEST: usize = 600;
/// Lines of a file of tests.
const LONGEST_TEST: usize = 1000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below `folder`, by its path in it.
fn sources(folder: &str) -> Vec<(String, String)> {
    let folder = root().join(folder);
    let (mut found, mut folders) = (Vec::new(), vec![folder.clone()]);
    while let Some(next) = folders.pop() {
        for path in entries(&next) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let at = path.strip_prefix(&folder).expect("it is below").display().to_string();
                found.push((at, fs::read_to_string(&path).expect("a source is text")));
            }
        }
    }
    assert!(!found.is_empty(), "{} has no sources", folder.display());
    found.sort();
    found
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// The text without comments that have a line of their own.
fn code(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// `allowed` are the beginnings of paths below src/.
#[track_caller]
fn only_in(allowed: &[&str], words: &[&str]) {
    for (at, text) in sources("src") {
        let free = allowed.iter().any(|it| at.starts_with(it));
        let word = words.iter().find(|word| code(&text).contains(**word));
        assert!(free || word.is_none(), "src/{at} must not mention `{}`", word.expect("it was found"));
    }
}

/// `places` are the beginnings of paths below src/.
#[track_caller]
fn never_in(places: &[&str], words: &[&str]) {
    let mut seen = 0;
    for (at, text) in sources("src").into_iter().filter(|(at, _)| places.iter().any(|it| at.starts_with(it))) {
        seen += 1;
        let word = words.iter().find(|word| code(&text).contains(**word));
        assert!(word.is_none(), "src/{at} must not mention `{}`", word.expect("it was found"));
    }
    assert!(seen >= places.len(), "{places:?} are no longer where this test looks");
}

#[test]
fn the_store_has_one_door() {
    only_in(&["outside/store.rs", "outside/store/"], &["object_store", "google_cloud_auth"]);
    only_in(&["outside/store.rs", "snapshot/prune.rs"], &["store.remove("]);
    only_in(&["outside/encryption.rs"], &["use age", "age::Encryptor", "age::Decryptor", "x25519"]);
}

#[test]
fn sessions_are_opened_in_one_place() {
    only_in(&["outside/url.rs"], &["PgConnectOptions"]);
    only_in(&["outside/tls/"], &["rustls::client", "tokio_rustls"]);
    only_in(&["outside/postgres.rs"], &[".connect()"]);
    only_in(&[], &["PgConnection::connect", "PgPool"]);
}

#[test]
fn the_environment_is_read_once() {
    // The throw-away cluster is a tool of the tests and the demo, and makes its own children's environment.
    only_in(&["world.rs", "cli/mod.rs", "outside/cluster.rs"], &["env::var", "env::set_var"]);
}

#[test]
fn programs_are_started_outside_alone() {
    // The demo types commands of our own, as a person would.
    only_in(&["outside/", "cli/demo.rs"], &["Command::new"]);
}

/// A place through which something outside is changed and at which no test can end the process is one that no test has tried.
#[test]
fn nothing_is_changed_where_no_test_can_die() {
    let doors = [
        ".put_opts(",
        ".put_multipart(",
        ".put_part(",
        ".complete()",
        ".delete(&",
        ".execute(",
        "fetch_many(",
        "copy_in_raw(",
        ".spawn()",
        "request.send()",
    ];
    // The demo and the throw-away cluster are not the product; the watcher of a program changes nothing, and neither does a
    // question for locks; sessions are ended within an exchange or a copy, which have their own points; and several queries in one
    // message are queries.
    let free = [
        ("cli/demo.rs", ".execute("),
        ("outside/cluster.rs", ".spawn()"),
        ("outside/postgres.rs", "fetch_many("),
        ("outside/store/locks.rs", ".execute("),
        ("snapshot/obstacles.rs", ".execute("),
    ];
    let mut seen = 0;
    for (at, text) in sources("src") {
        let own = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(&text);
        let lines: Vec<&str> = own.lines().collect();
        for (number, line) in lines.iter().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            let Some(door) = doors.iter().find(|door| line.contains(**door)) else { continue };
            if free.contains(&(at.as_str(), *door)) || line.contains("self.complete()") || line.contains("watcher.") {
                continue;
            }
            seen += 1;
            let before = &lines[number.saturating_sub(5)..number];
            let point = before.iter().any(|line| line.contains("crash::point("));
            let spawns = at == "outside/child.rs" && text.contains("crash::point(\"child before\"");
            assert!(point || spawns, "src/{at}:{}: `{door}` needs a crash::point before it", number + 1);
        }
        let (before, after) = (text.matches(" before\"").count(), text.matches(" after\"").count());
        assert!(
            !text.contains("crash::point(") || before == after,
            "src/{at}: points before and after belong together"
        );
    }
    assert!(seen >= 10, "{seen} doors are no longer where this test looks");
    // Renames go through the door, and the journal through the store's.
    only_in(&["snapshot/swap.rs", "sql/", "kind/", "lint/"], &["RENAME TO"]);
    only_in(&["outside/store.rs"], &["put_opts", "put_multipart"]);
}

#[test]
fn the_clock_has_one_face() {
    only_in(&["outside/clock.rs"], &["Utc::now", "Local::now", "SystemTime::now"]);
}

#[test]
fn only_the_command_line_prints() {
    only_in(&["cli/"], &["io::stdout", "io::stderr"]);
    only_in(&[], &["println!", "print!(", "dbg!", "process::exit"]);
}

#[test]
fn the_command_line_is_known_to_nobody() {
    only_in(&["cli/", "lib.rs", "main.rs"], &["crate::cli", "cli::"]);
}

#[test]
fn the_outside_knows_nothing_of_the_stages() {
    let stages =
        ["plan", "kind", "snapshot", "run", "verify", "journal", "doctor", "tables", "world", "event", "failure"];
    let words: Vec<String> = stages.iter().map(|it| format!("crate::{it}")).collect();
    never_in(&["outside/", "names.rs", "sql/"], &words.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn lint_knows_files_and_nothing_beyond() {
    never_in(&["lint/"], &["crate::plan", "crate::run", "crate::world", "crate::journal", "crate::outside"]);
}

#[test]
fn a_kind_never_sees_a_plan_or_a_run() {
    never_in(&["kind/"], &["crate::plan", "crate::run", "crate::world", "crate::snapshot", "crate::cli"]);
}

#[test]
fn what_is_called_pure_does_nothing() {
    let effects = ["async fn", ".await", "tokio::", "sqlx::", "std::fs", "fs::read", "std::process", "Instant::now"];
    never_in(
        &["sql/", "names.rs", "event.rs", "failure.rs", "journal/state.rs", "journal/state/", "tables/canonical.rs"],
        &effects,
    );
    never_in(
        &[
            "lint/mod.rs",
            "lint/rules.rs",
            "lint/tables.rs",
            "lint/text.rs",
            "kind/next.rs",
            "kind/decide.rs",
            "run/choose.rs",
            "run/loss/split.rs",
            "run/selective.rs",
            "run/recover.rs",
        ],
        &effects,
    );
    let pure = ["check.rs", "expand.rs", "file.rs", "literal.rs", "order.rs", "problem.rs", "section.rs", "tables.rs"];
    never_in(&pure.map(|it| format!("plan/{it}")).each_ref().map(String::as_str), &effects);
}

#[test]
fn every_file_says_what_it_is_for() {
    for folder in ["src", "tests"] {
        for (at, text) in sources(folder) {
            assert!(text.starts_with("//!"), "{folder}/{at} must open with what it is for");
        }
    }
}

#[test]
fn no_file_is_a_collecting_place() {
    for folder in ["src", "tests"] {
        for (at, text) in sources(folder) {
            let stem = Path::new(&at).file_stem().expect("a file").to_string_lossy().into_owned();
            let vague = ["util", "utils", "common", "helper", "helpers", "types", "misc", "errors"];
            assert!(!vague.contains(&stem.as_str()), "{folder}/{at}: name the file after what is in it");
            let tests = folder == "tests" || stem == "tests";
            let own = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(&text).lines().count();
            let limit = if tests { LONGEST_TEST } else { LONGEST };
            assert!(own <= limit, "{folder}/{at} has {own} lines, and {limit} are the limit: what can leave?");
        }
    }
}

/// A file that nobody names is compiled by nobody, and its tests pass for ever.
#[test]
fn every_file_of_the_integration_tests_is_listed() {
    let listed = |file: &Path, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        text.lines().any(|line| line.trim_start_matches("pub(crate) ") == format!("mod {name};"))
    };
    let mut folders = vec![(root().join("tests/it"), root().join("tests/it/main.rs"))];
    while let Some((folder, lister)) = folders.pop() {
        for path in entries(&folder) {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            if path == lister || !(path.is_dir() || path.extension().is_some_and(|it| it == "rs")) {
                continue;
            }
            assert!(listed(&lister, &name), "{} must say `mod {name};`", lister.display());
            if path.is_dir() {
                let inside = path.join("mod.rs");
                folders.push((path.clone(), if inside.exists() { inside } else { path.with_extension("rs") }));
            }
        }
    }
}

#[test]
fn every_module_is_on_the_map() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("the library");
    let architecture = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("the map");
    for line in lib.lines() {
        let Some(name) = line.strip_prefix("pub mod ").and_then(|it| it.strip_suffix(';')) else { continue };
        assert!(lib.contains(&format!("[`{name}`]")), "src/lib.rs must say what `{name}` is for");
        assert!(architecture.contains(&format!("`{name}")), "docs/ARCHITECTURE.md must say what `{name}` is for");
    }
}

#[test]
fn scripts_can_be_run() {
    for path in ["scripts/install", "scripts/test", "scripts/demo", "scripts/soak", ".ci/run"] {
        let path = root().join(path);
        let mode =
            fs::metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode();
        assert!(mode & 0o111 == 0o111, "{} must be executable", path.display());
        let text = fs::read_to_string(&path).expect("a script is text");
        assert!(text.contains("set -euo pipefail"), "{} must stop at the first error", path.display());
    }
}
