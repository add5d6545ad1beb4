//! docs/runbook.md, line by line: what the responder is told to type is what is run here.

use std::path::Path;
use std::process::{Command, Output};

use migrate::outside::url::DatabaseUrl;

use super::standby::warm;
use crate::world::{TestWorld, assert_same, variable};

const DOCUMENT: &str = include_str!("../../../docs/runbook.md");

/// The shell blocks: those for `migrate`, then the one without it.
fn blocks() -> Vec<&'static str> {
    DOCUMENT.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default()).collect()
}

/// Runs blocks as one script on a bare machine: nothing but the binary, the store and the URLs.
fn typed(world: &TestWorld, blocks: &[&str], given: &[(&str, String)]) -> Output {
    let mut script = String::from("set -e\n");
    for line in blocks.iter().flat_map(|block| block.lines()) {
        let replaced = given.iter().find(|(begin, _)| line.starts_with(begin)).map(|(_, text)| text.as_str());
        // Without a terminal nobody is asked.
        let line = replaced.unwrap_or(line).replace("--save-writes", "--save-writes --yes");
        script += &(line + "\n");
    }
    for (begin, _) in given {
        assert!(
            blocks.iter().any(|block| block.lines().any(|line| line.starts_with(begin))),
            "there is no line {begin}…"
        );
    }
    let bare = tempfile::tempdir().expect("a folder");
    let binary = Path::new(env!("CARGO_BIN_EXE_migrate")).parent().expect("a folder").display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let url = DatabaseUrl::parse(world.url("rag")).expect("a URL");
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(script).env_clear().current_dir(bare.path()).env("PATH", format!("{binary}:{path}"));
    shell.envs(url.libpq_env().into_iter().filter(|(name, _)| name != "PGDATABASE"));
    shell.envs(["chat", "rag"].map(|name| (variable(name), world.url(name).to_owned())));
    shell.output().expect("bash")
}

#[track_caller]
fn said(ran: &Output) -> String {
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_the_runbook_take_a_release_back() {
    let world = warm("runbook").await;
    let before = world.fingerprints().await;
    let run = world.json(0, &["apply", "--yes"])["run"].as_str().expect("an id").to_owned();
    world.sql("rag", "insert into t values (1000, 'since')").await;
    let given = [
        ("STORE=", format!("STORE=file://{}", world.store().display())),
        ("export MIGRATE_TARGET=", "export MIGRATE_TARGET=local".to_owned()),
        ("RUN=", format!("RUN={run}")),
    ];
    let all = blocks();
    let said = said(&typed(&world, &all[..all.len() - 1], &given));
    for text in [
        "succeeded",
        "Nothing was done.",
        "exchange it for its standby",
        "restore the snapshot",
        "end  outcome=rolled_back",
    ] {
        assert!(said.contains(text), "{text:?} is not in\n{said}");
    }
    assert!(said.contains("rag: 1 rows that were written since are in"), "{said}");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn and_its_last_lines_do_without_migrate() {
    let world = warm("runbook_hand").await;
    let before = world.fingerprints().await;
    let report = world.json(0, &["apply", "--yes"]);
    let standby = report["standbys"][0]["dbname"].as_str().expect("a name");
    let given = [("LIVE=", format!("LIVE={}", world.dbname("rag"))), ("STANDBY=", format!("STANDBY={standby}"))];
    let all = blocks();
    said(&typed(&world, &all[all.len() - 1..], &given));
    let rag = before["rag"].diff(&world.fingerprints().await["rag"]);
    assert!(rag.is_empty(), "{rag:?}");
}

/// What the tables say that `migrate` says, it says.
#[test]
fn the_messages_are_those_of_the_program() {
    let sources: String = [
        include_str!("../../../src/run/rollback.rs"),
        include_str!("../../../src/cli/rollback.rs"),
        include_str!("../../../src/run/choose.rs"),
        include_str!("../../../src/run/lock.rs"),
        include_str!("../../../src/run/undo/error.rs"),
        include_str!("../../../src/snapshot/swap.rs"),
        include_str!("../../../src/failure.rs"),
        include_str!("../../../src/outside/postgres.rs"),
        include_str!("../../../src/cli/apply.rs"),
        include_str!("../../../src/cli/progress.rs"),
        include_str!("../../../src/run/freeze.rs"),
    ]
    .concat();
    let rows = DOCUMENT.lines().filter(|line| line.starts_with("| `"));
    let quoted: Vec<&str> =
        rows.flat_map(|line| line.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2)).collect();
    assert!(quoted.len() > 15, "{quoted:?}");
    for text in
        quoted.iter().filter(|it| !["down", "succeeded", "rolled_back", "failed", "unfinished", "halted"].contains(it))
    {
        assert!(sources.contains(*text), "nothing says {text:?}");
    }
}
