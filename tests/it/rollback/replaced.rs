//! What is left on the servers, and `migrate snapshot prune --replaced`.

use serde_json::{Value, json};

use super::standby::warm;
use super::{apply, step};
use crate::harness::{OWNER, cluster, connect, execute};
use crate::world::{TestWorld, assert_same};

const PRUNE: [&str; 3] = ["snapshot", "prune", "--replaced"];

/// The names of those that are listed as dropped, or as kept.
fn names(document: &Value, what: &str) -> Vec<String> {
    let all = document[what].as_array().expect("a list").iter();
    all.map(|it| it["dbname"].as_str().expect("a name").to_owned()).collect()
}

async fn there(world: &TestWorld, dbname: &str) -> bool {
    world.ask(&format!("select exists (select from pg_database where datname = '{dbname}')")).await == "true"
}

#[tokio::test(flavor = "multi_thread")]
async fn what_finished_runs_left_is_listed_and_dropped() {
    let world = warm("replaced").await;
    let standby = world.json(0, &["apply", "--yes"])["standbys"][0]["dbname"].as_str().expect("a name").to_owned();
    let back = world.json(0, &["rollback", "--via", "snapshot", "--yes"]);
    let kept = |at: usize| back["databases"][at]["kept_as"].as_str().expect("a name").to_owned();
    let all = [kept(0), kept(1), standby.clone()];
    // Another database that took the name of one is not meant.
    let mut server = connect(&cluster().url(OWNER, "postgres")).await;
    execute(&mut server, format!("drop database \"{0}\"; ", kept(0))).await;
    execute(&mut server, format!("create database \"{0}\"", kept(0))).await;

    let dry = world.json(0, &[&PRUNE[..], &["--dry-run"]].concat());
    assert_eq!((names(&dry, "dropped"), names(&dry, "kept")), (all[1..].to_vec(), all[..1].to_vec()), "{dry}");
    assert!(there(&world, &standby).await);
    let _ = world.run(&PRUNE).expect(64).says("--yes");

    // Somebody who is on one has a reason to be.
    let looks = connect(&cluster().url(OWNER, &standby)).await;
    let first = world.json(0, &[&PRUNE[..], &["--yes"]].concat());
    assert_eq!(names(&first, "dropped"), [kept(1)], "{first}");
    assert!(first["kept"][1]["reason"].as_str().expect("words").contains("being accessed"), "{first}");
    drop(looks);
    let live = world.fingerprints().await;
    let ran = world.run(&[&PRUNE[..], &["--yes"]].concat());
    ran.expect(0);
    assert!(ran.stdout.contains(&standby) && ran.stdout.contains("took the name"), "{}", ran.stdout);
    assert!(!there(&world, &standby).await && there(&world, &kept(0)).await);
    assert_same(&live, &world.fingerprints().await);
    apply(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_run_keeps_all_that_it_has() {
    let world = warm("replaced_unfinished").await;
    world.plan(&(step("chat") + &step("rag") + "[databases.rag]\nstandby = true\n[run]\non_failure = \"halt\"\n"));
    let before = world.fingerprints().await;
    world.file("migrations/rag/002_bad.sql", "select 1/0;\n");
    let halted = world.run(&["apply", "--yes", "--json"]);
    let halted = halted.expect(4).document();
    let standby = halted["standbys"][0]["dbname"].as_str().expect("a name");
    let pruned = world.json(0, &[&PRUNE[..], &["--yes"]].concat());
    assert_eq!((names(&pruned, "dropped"), names(&pruned, "kept")), (vec![], vec![standby.to_owned()]), "{pruned}");
    assert!(pruned["kept"][0]["reason"].as_str().expect("words").contains("not finished"), "{pruned}");
    let back = world.json(0, &["rollback", "--yes"]);
    assert_eq!(back["databases"][1]["via"], "standby", "{back}");
    assert_same(&before, &world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_took_the_live_ones_place_is_the_live_one() {
    let world = warm("replaced_live").await;
    let before = world.fingerprints().await;
    apply(&world);
    world.run(&["rollback", "--yes"]).expect(0);
    let pruned = world.json(0, &[&PRUNE[..], &["--yes"]].concat());
    assert_eq!((pruned["dropped"].as_array().map(Vec::len), &pruned["kept"]), (Some(2), &json!([])), "{pruned}");
    assert!(pruned["dropped"].as_array().expect("a list").iter().all(|it| it["what"] == "replaced"), "{pruned}");
    assert_same(&before, &world.fingerprints().await);
    assert_eq!(world.json(0, &[&PRUNE[..], &["--yes"]].concat())["dropped"], json!([]));
    // The way back of a run that succeeded may go, and that is said.
    apply(&world);
    let ahead = world.json(0, &[&PRUNE[..], &["--dry-run"]].concat());
    assert_eq!(ahead["dropped"][0]["what"], "standby", "{ahead}");
    assert!(ahead["dropped"][0]["note"].as_str().expect("words").contains("by its snapshot alone"), "{ahead}");
}
