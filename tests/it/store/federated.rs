//! `gs://` with the credentials that Google's own crate gives: workload identity federation and impersonation. The files name the
//! endpoints, which are those of the test's server: real HTTP is spoken.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::fingerprint::Fingerprint;
use crate::gcs_server::{Action, BUCKET, Builder, Fault, GcsServer, SUBJECT};
use crate::rollback::{apply, release};
use crate::world::{TestWorld, assert_same};

/// Rows that no compression shortens: some parts of an upload.
const NOISE: &str =
    "create table noise as select n, sha512((random() * n)::text::bytea) a, sha512(random()::text::bytea) b
    from generate_series(1, 120000) n";

struct Scene {
    world: TestWorld,
    server: GcsServer,
    before: BTreeMap<String, Fingerprint>,
}

impl Scene {
    /// A release whose store is reached with the credentials that `config` makes of the server's URL.
    async fn new(hint: &str, builder: Builder, config: impl FnOnce(&str) -> Value) -> Self {
        let mut world = release(hint, &["rag"]).await;
        let server = builder.start();
        let config = config(&format!("{}/_tokens", server.url()));
        world.file("subject.jwt", SUBJECT);
        let subject = world.path().join("subject.jwt").display().to_string();
        world.file("adc.json", &config.to_string().replace("SUBJECT_FILE", &subject));
        world.set("GOOGLE_APPLICATION_CREDENTIALS", world.path().join("adc.json").display().to_string());
        world.set("GOOGLE_BASE_URL", server.url());
        world.set("NO_PROXY", "127.0.0.1");
        world.set("MIGRATE_STORE", format!("gs://{BUCKET}/deep"));
        let before = world.fingerprints().await;
        Self { world, server, before }
    }

    async fn there_and_back(&self) {
        apply(&self.world);
        self.world.run(&["snapshot", "verify"]).expect(0);
        assert_eq!(self.world.json(0, &["rollback", "--yes"])["outcome"], "rolled_back");
        assert_same(&self.before, &self.world.fingerprints().await);
        assert_eq!(self.server.live_uploads(), 0);
    }

    /// It ends with nothing changed, and says what is wanted and no token.
    async fn refuses(&self, says: &[&str]) {
        let ran = self.world.run(&["apply", "--yes"]);
        ran.expect(1).ends("No database was changed.").says("adc.json");
        for text in says {
            ran.says(text);
        }
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(!said.contains(SUBJECT) && !said.contains("ya29.Issued0Here0As0Number-1"), "{said}");
        assert_same(&self.before, &self.world.fingerprints().await);
    }
}

fn federation(tokens: &str) -> Value {
    json!({
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": format!("{tokens}/sts"),
        "credential_source": { "file": "SUBJECT_FILE", "format": { "type": "text" } },
    })
}

const IMPERSONATION: &str = "iam/serviceAccounts/release@p.iam.gserviceaccount.com:generateAccessToken";

fn federation_of_an_account(tokens: &str) -> Value {
    let mut config = federation(tokens);
    config["service_account_impersonation_url"] = json!(format!("{tokens}/{IMPERSONATION}"));
    let source =
        json!({ "url": format!("{tokens}/subject"), "format": { "type": "json", "subject_token_field_name": "id" } });
    config["credential_source"] = source;
    config
}

fn impersonation(tokens: &str) -> Value {
    json!({
        "type": "impersonated_service_account",
        "service_account_impersonation_url": format!("{tokens}/{IMPERSONATION}"),
        "source_credentials": {
            "type": "authorized_user", "client_id": "id", "client_secret": "not much of one", "refresh_token": SUBJECT,
            "token_uri": format!("{tokens}/refresh"),
        },
    })
}

/// The upload takes some seconds, a token one: parts go on with the next, and what expired is no longer accepted.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_in_the_middle_of_an_upload() {
    let builder = GcsServer::builder().tokens(2).upload_rate(4 << 20);
    let scene = Scene::new("gs_federated", builder, federation).await;
    scene.world.sql("rag", NOISE).await;
    let scene = Scene { before: scene.world.fingerprints().await, ..scene };
    apply(&scene.world);
    assert!(scene.server.tokens_of_parts() >= 2, "{}", scene.server.tokens_of_parts());
    assert_eq!(scene.world.json(0, &["rollback", "--yes"])["outcome"], "rolled_back");
    assert_same(&scene.before, &scene.world.fingerprints().await);
    assert_eq!(scene.server.live_uploads(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn federation_of_a_service_account() {
    let scene = Scene::new("gs_fed_account", GcsServer::builder(), federation_of_an_account).await;
    // The endpoint may be busy for a while.
    scene.server.fault(Fault::once(Action::Status(503), "/_tokens/sts"));
    scene.there_and_back().await;
    assert_eq!(scene.server.clear_faults(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn impersonation_by_a_user() {
    Scene::new("gs_impersonated", GcsServer::builder(), impersonation).await.there_and_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_names_the_file_and_shows_no_token() {
    for (hint, config) in [("gs_fed_no", federation as fn(&str) -> Value), ("gs_imp_no", impersonation)] {
        let scene = Scene::new(hint, GcsServer::builder(), config).await;
        scene.server.refuse_tokens();
        scene.refuses(&["gave none", "invalid_grant", "log in again"]).await;
    }
    // The token is given, and the store does not accept it: it has expired, by the store's clock.
    let scene = Scene::new("gs_fed_expired", GcsServer::builder().tokens(0), federation).await;
    scene.refuses(&["(GOOGLE_APPLICATION_CREDENTIALS) ", "does not let ", "log in again"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_none_is_named() {
    let mut scene = Scene::new("gs_fed_none", GcsServer::builder(), federation).await;
    scene.world.file("adc.json", "{ \"type\": \"external_account\" }");
    scene.refuses(&["cannot be set up with"]).await;
    scene.world.file("adc.json", "{ \"type\": \"external_account_authorized_user\" }");
    scene.refuses(&["cannot be set up with", "external_account_authorized_user"]).await;
    scene.world.remove("adc.json");
    scene.refuses(&["cannot be set up with", "No such file"]).await;
    scene.world.remove("subject.jwt");
    let config = federation(&format!("{}/_tokens", scene.server.url())).to_string();
    scene.world.file("adc.json", &config.replace("SUBJECT_FILE", "/nowhere/subject.jwt"));
    scene.world.set("GOOGLE_SERVICE_ACCOUNT", "");
    scene.refuses(&["gave none", "/nowhere/subject.jwt"]).await;
}
