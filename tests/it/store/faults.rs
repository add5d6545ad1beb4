//! What goes wrong with a snapshot of several archives, each of several parts or of one: what passes is survived, and the rest ends
//! the run before a database is changed, with nothing left behind.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use super::stored;
use crate::fingerprint::Fingerprint;
use crate::gcs_server::{Action, BUCKET, Fault, GcsServer};
use crate::rollback::apply;
use crate::snapshots::divided;
use crate::world::{Ran, TestWorld, assert_same};

/// Added to a divided database: a table whose archive is several parts of an upload.
const NOISE: &str =
    "create table noise as select n, sha512((random() * n)::text::bytea) a, sha512(random()::text::bytea) b
    from generate_series(1, 250000) n";

struct Scene {
    world: TestWorld,
    server: GcsServer,
    before: BTreeMap<String, Fingerprint>,
}

impl Scene {
    async fn new(hint: &str) -> Self {
        let mut world = divided(hint, "").await;
        world.sql("big", NOISE).await;
        let server = GcsServer::start();
        for (name, value) in server.env(BUCKET) {
            world.set(&name, value);
        }
        world.set("MIGRATE_STORE", format!("gs://{BUCKET}/deep"));
        let before = world.fingerprints().await;
        Self { world, server, before }
    }

    /// It fails with nothing changed, no snapshot and no upload left.
    async fn fails(&self, says: &[&str]) {
        let ran = self.world.run(&["apply", "--yes"]);
        ran.expect(1).ends("No database was changed.");
        for text in says {
            ran.says(text);
        }
        assert_same(&self.before, &self.world.fingerprints().await);
        assert_eq!(self.server.live_uploads(), 0);
        assert!(!self.server.objects(BUCKET).iter().any(|(key, _)| key.ends_with("manifest.json")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn that_pass() {
    let mut scene = Scene::new("parts_pass").await;
    // A request that stalls is given up, and sent again.
    scene.world.set("GOOGLE_TIMEOUT", "5 seconds");
    let (begun, part, ended) = ("?uploads", "?partNumber=", "?uploadId");
    for (action, object, what) in [
        (Action::Status(429), "2-data-01.dump.gz", begun),
        (Action::Status(503), "2-data-01.dump.gz", "?partNumber=2"),
        (Action::Reset, "2-data-01.dump.gz", "?partNumber=1"),
        (Action::Delay(Duration::from_secs(3600)), "2-data-01.dump.gz", "?partNumber=3"),
        (Action::ResetAfter, "2-data-01.dump.gz", ended),
        (Action::Status(429), "2-data-02.dump.gz", part),
        (Action::StatusAfter(503), "2-data-02.dump.gz", ended),
        (Action::ResetAfter, "2-data-rest.dump.gz", part),
        (Action::CloseAfter, "2-data-rest.dump.gz", ended),
        (Action::CloseAfter, "1-pre-data.dump.gz", part),
        (Action::Status(503), "3-post-data.dump.gz", ended),
        (Action::StatusAfter(503), "big/manifest.json", ""),
    ] {
        scene.server.fault(Fault::once(action, &format!("{object}{what}")));
    }
    // What is read back and restored breaks off as well.
    scene.server.fault(Fault { action: Action::Truncate(70_000), pattern: "GET ".into(), count: 3, skip: 12 });
    apply(&scene.world);
    assert_eq!(scene.server.clear_faults(), [], "every fault took place");
    assert_eq!(scene.server.live_uploads(), 0);
    for (action, object) in [
        (Action::Reset, "2-data-01.dump.gz"),
        (Action::Status(429), "2-data-02.dump.gz"),
        (Action::Truncate(1000), "2-data-rest.dump.gz"),
        (Action::Status(503), "3-post-data.dump.gz"),
        (Action::Delay(Duration::from_secs(3600)), "1-pre-data.dump.gz"),
    ] {
        let pattern = format!("GET /{BUCKET}/deep/runs/");
        let of = scene.server.objects(BUCKET).iter().find(|(key, _)| key.ends_with(object)).cloned();
        let key = of.expect("the archive is there").0;
        scene.server.fault(Fault::once(action, &pattern.replace("deep/runs/", &key)));
    }
    assert_eq!(scene.world.json(0, &["rollback", "--yes"])["outcome"], "rolled_back");
    assert_eq!(scene.server.clear_faults(), [], "every fault took place");
    assert_same(&scene.before, &scene.world.fingerprints().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_archive_end_them_all() {
    let scene = Scene::new("parts_denied").await;
    scene.server.fault(Fault::times(usize::MAX, Action::Status(403), "2-data-rest.dump.gz?partNumber"));
    scene.fails(&["big: the store does not let the token of GOOGLE_BEARER_TOKEN write", "2-data-rest.dump.gz"]).await;
    scene.server.clear_faults();
    // An expired token, in the middle of an upload, that nobody can renew.
    scene.server.fault(Fault::times(usize::MAX, Action::Status(401), "2-data-01.dump.gz?partNumber=3"));
    scene
        .fails(&["does not let the token of GOOGLE_BEARER_TOKEN write", "credentials expired", "2-data-01.dump.gz"])
        .await;
    scene.server.clear_faults();
    // An upload that cannot be made whole.
    scene.server.fault(Fault::once(Action::Status(400), "2-data-01.dump.gz?uploadId"));
    scene.fails(&["the store could not write", "2-data-01.dump.gz"]).await;
    scene.server.clear_faults();
    // What is read back is not what was sent.
    scene.server.fault(Fault { action: Action::Flip, pattern: "2-data-02.dump.gz".into(), count: 1, skip: 4 });
    scene.fails(&["2-data-02.dump.gz is damaged"]).await;
    scene.server.clear_faults();
    apply(&scene.world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_no_more() {
    let world = divided("parts_disk", "").await;
    let before = world.fingerprints().await;
    let whole = world.command(&["apply", "--yes"]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 1000; exec \"$@\"", "sh"]);
    limited.arg(whole.get_program()).args(whole.get_args()).current_dir(world.path()).env_clear();
    limited.envs(whole.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran: Ran = limited.output().expect("a shell").into();
    ran.expect(1).says("big: the store could not write").says("2-data-0").says("File too large");
    ran.ends("No database was changed.");
    assert_same(&before, &world.fingerprints().await);
    assert_eq!(stored(&world, "manifest"), Vec::<std::path::PathBuf>::new());
    apply(&world);
}
