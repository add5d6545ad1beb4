//! docs/restore-by-hand.md, line by line: what it tells the responder to type is what is run here.

use std::process::Command;

use migrate::outside::url::DatabaseUrl;

use super::divided;
use super::encrypted::{VARIABLE, encrypt_to, key};
use crate::world::{TestWorld, assert_same};

const DOCUMENT: &str = include_str!("../../../docs/restore-by-hand.md");

/// The shell blocks that need no Google.
fn blocks() -> Vec<&'static str> {
    let blocks = DOCUMENT.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    blocks.filter(|block| !block.contains("gcloud")).collect()
}

/// The document's lines as one script, with this world's store, run and server in place of the examples.
fn script(world: &TestWorld, run: &str, identity: &str) -> String {
    let given = [
        ("IDENTITY=", format!("IDENTITY='{identity}'")),
        ("STORE=", format!("STORE='{}'", world.store().display())),
        ("RUN=", format!("RUN={run}")),
        ("DB=", "DB=big".to_owned()),
        ("export PGHOST=", String::new()),
    ];
    let mut script = String::from("set -e\n");
    for line in blocks().iter().flat_map(|block| block.lines()) {
        let replaced = given.iter().find(|(begin, _)| line.starts_with(begin)).map(|(_, text)| text.as_str());
        script += replaced.unwrap_or(line);
        script.push('\n');
    }
    for (begin, _) in &given {
        assert!(DOCUMENT.lines().any(|line| line.starts_with(begin)), "the document has no line {begin}…");
    }
    script
}

async fn restored_by_hand(hint: &str, store: &str, encrypted: bool) {
    let mut world = divided(hint, store).await;
    let ours = key(&world, "ours.txt");
    if encrypted {
        encrypt_to(&world, &[&ours]);
        world.set(VARIABLE, &ours.file);
    }
    let dbname = world.dbname("big");
    let settings = format!(
        "alter database {dbname} set work_mem = '7MB'; alter database {dbname} set search_path = public, \"Sch ema\"; comment on \
         database {dbname} is 'it''s'; alter database {dbname} connection limit 40"
    );
    world.sql("big", &settings).await;
    let before = world.fingerprints().await;
    let run = world.json(0, &["apply", "--yes"])["run"].as_str().expect("an id").to_owned();
    let url = DatabaseUrl::parse(world.url("big")).expect("a URL");
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(script(&world, &run, &ours.file)).env_clear().current_dir(world.path());
    shell.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    // The document's reader gives psql its database by name.
    shell.envs(url.libpq_env().into_iter().filter(|(name, _)| name != "PGDATABASE"));
    let ran = shell.output().expect("bash");
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{said}");
    assert!(said.contains("every table has the rows of the snapshot"), "{said}");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lines_of_the_document_restore_a_database() {
    restored_by_hand("by_hand_gzip", "", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn and_one_that_was_compressed_with_zstd() {
    restored_by_hand("by_hand_zstd", "compression = \"zstd\"", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn and_one_that_is_encrypted() {
    restored_by_hand("by_hand_age", "compression = \"zstd\"", true).await;
}
