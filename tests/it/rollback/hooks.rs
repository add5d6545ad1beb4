//! Hooks: who hears of what became of a run, and what it is worth when one fails.

use std::fs;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{prepare, step};
use crate::world::TestWorld;

const HOOKS: &str = "[[hooks]]\non = \"success\"\n\
     argv = [\"sh\", \"-c\", \"echo $MIGRATE_ON $MIGRATE_TARGET $MIGRATE_OUTCOME $WORD >> heard\"]\nenv = { WORD = \"${A_WORD}\" }\n\
     [[hooks]]\non = \"failure\"\nargv = [\"sh\", \"-c\", \"echo $MIGRATE_ON $MIGRATE_OUTCOME $MIGRATE_ROLLED_BACK >> heard\"]\n\
     [[hooks]]\non = \"rollback\"\nargv = [\"sh\", \"-c\", \"echo $MIGRATE_ON $MIGRATE_RUN $MIGRATE_ROLLED_BACK >> heard; echo no channel; exit 3\"]\n\
     [[hooks]]\non = \"rollback\"\nhttp = \"${ALARM}\"\n";

async fn hooked(hint: &str) -> TestWorld {
    let mut world = TestWorld::new(hint, &["rag"]).await;
    prepare(&world, &["rag"]);
    world.plan(&(step("rag") + HOOKS));
    world.set("A_WORD", "well");
    world
}

pub(super) fn heard(world: &TestWorld) -> String {
    let text = fs::read_to_string(world.path().join("heard")).unwrap_or_default();
    fs::write(world.path().join("heard"), "").expect("a file");
    text
}

/// Takes one request, answers it, and gives what it was.
pub(super) async fn one_request(listener: TcpListener, answer: &'static str) -> String {
    let (mut stream, _) = listener.accept().await.expect("a client");
    let mut text = String::new();
    let mut bytes = [0; 4096];
    while !text.ends_with('}') {
        let read = stream.read(&mut bytes).await.expect("a request");
        assert!(read > 0, "the request ends early: {text}");
        text += std::str::from_utf8(&bytes[..read]).expect("UTF-8");
    }
    let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.expect("a client that listens");
    text
}

/// Rolls back with somebody who takes what is posted; gives the report, and what was posted.
async fn posted(world: &mut TestWorld, answer: &'static str) -> (Value, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    world.set("ALARM", format!("http://{}/secret-path", listener.local_addr().expect("an address")));
    let request = tokio::spawn(one_request(listener, answer));
    let back = world.json(0, &["rollback", "--yes"]);
    (back, request.await.expect("no panic"))
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_and_urls_hear_of_it_and_a_failure_changes_nothing() {
    let mut world = hooked("hooks").await;
    let report = world.json(0, &["apply", "--yes"]);
    assert_eq!(heard(&world), "success local succeeded well\n");
    assert_eq!(report["hooks"][0]["outcome"], "passed", "{report}");
    let (back, request) = posted(&mut world, "204 No Content").await;
    let run = back["run"].as_str().expect("a run").to_owned();
    assert_eq!((&back["outcome"], heard(&world)), (&json!("rolled_back"), format!("rollback {run} rag\n")), "{back}");
    let outcomes: Vec<&Value> = back["hooks"].as_array().expect("a list").iter().map(|it| &it["outcome"]).collect();
    assert_eq!(outcomes, ["failed", "passed"], "{back}");
    assert_eq!(back["hooks"][0]["detail"], "`sh` exited with 3: no channel", "{back}");
    let body: Value = serde_json::from_str(&request[request.find('{').expect("a body")..]).expect("JSON");
    let expected = json!({ "on": "rollback", "run": run, "plan": "test", "target": "local", "outcome": "rolled_back", "databases": ["rag"],
        "rolled_back": ["rag"] });
    assert_eq!((body, request.starts_with("POST /secret-path ")), (expected, true), "{request}");

    // Refused, and without the variable: the databases go back all the same, and the URL is nowhere.
    world.run(&["apply", "--yes"]).expect(0);
    let (back, _) = posted(&mut world, "500 Internal Server Error").await;
    assert_eq!(back["hooks"][1]["detail"], "the answer was 500", "{back}");
    world.run(&["apply", "--yes"]).expect(0);
    world.unset("ALARM");
    let ran = world.run(&["rollback", "--yes"]);
    ran.expect(0).says("hook on rollback: http FAILED, the variable `ALARM` is not set");
    world.run(&["apply", "--yes"]).expect(0);
    world.set("ALARM", "http://127.0.0.1:1/secret-path");
    let ran = world.run(&["rollback", "--yes"]);
    ran.expect(0).says("hook on rollback: http FAILED, the URL could not be reached");
    assert!(!(ran.stdout.clone() + &ran.stderr).contains("secret-path"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_fails_is_told_after_it_went_back() {
    let world = hooked("hooks_failed").await;
    world.file("migrations/rag/002_bad.sql", "select 1/0;\n");
    let ran = world.run(&["apply", "--yes", "--json"]);
    let report = ran.expect(3).document();
    let run = report["run"].as_str().expect("a run");
    assert_eq!(heard(&world), format!("rollback {run} rag\nfailure rolled_back rag\n"), "{report}");
}
