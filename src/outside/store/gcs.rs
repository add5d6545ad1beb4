//! `gs://`: the client of Google Cloud Storage, and whose credentials it uses. Service accounts, users and the machine's own
//! account are `object_store`'s; what federation and impersonation need is in `federated`.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::gcp::{GcpCredentialProvider, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::signer::Method;
use object_store::{ClientConfigKey, ClientOptions};
use serde::Deserialize;
use serde_json::Value;

use super::federated::Federated;
use super::locks::{self, Locks, Questions};
use super::{Client, Env, NoClient, TIMEOUT, Who};
use crate::outside::url::percent_encode;

/// What to do without credentials.
const LOG_IN: &str = "Set GOOGLE_APPLICATION_CREDENTIALS to a file of credentials, or GOOGLE_BEARER_TOKEN to a token; where the file is \
                      named already, look at the cause below, and log in again or correct the file.";

/// Where `gcloud auth application-default login` writes, below the home folder.
const DEFAULT_FILE: &str = ".config/gcloud/application_default_credentials.json";

/// Where buckets are, unless something else says so.
const BASE: &str = "https://storage.googleapis.com";

/// A client of `bucket`. Within a runtime: federated credentials begin to ask for a token.
pub(super) fn client(bucket: &str, env: &Env) -> Result<Client, NoClient> {
    let given = Given::of(env);
    let who = given.who();
    let fail = |source| NoClient { who: who.clone(), source };
    let mut builder = GoogleCloudStorageBuilder::new();
    // As of itself, `object_store` lets a URL without TLS be meant so.
    let mut options = ClientOptions::new().with_config(ClientConfigKey::Timeout, TIMEOUT).with_allow_http(true);
    for (name, value) in env {
        let key = name.starts_with("GOOGLE_").then(|| name.to_ascii_lowercase().parse::<GoogleConfigKey>());
        match key {
            Some(Ok(GoogleConfigKey::Client(key))) => options = options.with_config(key, value),
            Some(Ok(key)) => builder = builder.with_config(key, value),
            _ => {}
        }
    }
    let base = builder.get_config_value(&GoogleConfigKey::BaseUrl).or_else(|| given.base_url(env));
    if let Given::File { path, .. } = &given
        && let Some(config) = config(path).map_err(&fail)?
        && let Some(federated) = Federated::new(config).map_err(&fail)?
    {
        builder = builder.with_credentials(Arc::new(federated));
    }
    let questions = Questions::with(options.clone());
    let inner = builder.with_client_options(options).with_bucket_name(bucket).build().map_err(|it| fail(it.into()))?;
    let holds = Holds {
        credentials: Arc::clone(inner.credentials()),
        objects: format!("{}/storage/v1/b/{}/o", base.as_deref().unwrap_or(BASE), percent_encode(bucket)),
        questions,
    };
    Ok(Client { inner: Arc::new(inner), locks: Locks::Google(Arc::new(holds)), who: Who::with(&who, LOG_IN) })
}

/// What keeps objects in a bucket.
pub(super) struct Holds {
    credentials: GcpCredentialProvider,
    /// The URL of all objects.
    objects: String,
    questions: Questions,
}

/// Of an object, what keeps it: <https://cloud.google.com/storage/docs/json_api/v1/objects#resource>.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Held {
    #[serde(default)]
    temporary_hold: bool,
    #[serde(default)]
    event_based_hold: bool,
    /// By the bucket's retention policy, or by its own retention.
    retention_expiration_time: Option<String>,
}

impl Holds {
    /// As the JSON API tells it: the XML API, which `object_store` speaks, says nothing of holds.
    pub(super) async fn of(&self, path: &Path) -> object_store::Result<Option<String>> {
        let credential = self.credentials.get_credential().await?;
        let fields = "temporaryHold,eventBasedHold,retentionExpirationTime";
        let url = format!("{}/{}?fields={fields}", self.objects, percent_encode(path.as_ref()));
        let answer = self.questions.ask(&Method::GET, &url, Some(&credential.bearer)).await?;
        match answer.status().as_u16() {
            200 => {}
            404 => return Ok(None),
            403 => return Ok(Some(locks::hidden("the right to read objects (storage.objects.get)"))),
            _ => return Err(locks::unexpected(&answer)),
        }
        let body = answer.into_body().bytes().await.map_err(locks::failed)?;
        let held: Held = serde_json::from_slice(&body).map_err(locks::failed)?;
        Ok(match held {
            Held { temporary_hold: true, .. } => Some("it is under a temporary hold".into()),
            Held { event_based_hold: true, .. } => Some("it is under an event-based hold".into()),
            Held { retention_expiration_time: time, .. } => time.and_then(|time| locks::until("it is retained", &time)),
        })
    }
}

/// Where credentials come from, in the order in which `object_store` takes them.
#[derive(Debug, PartialEq)]
enum Given {
    Token,
    Key,
    ServiceAccount(String),
    File { path: PathBuf, named: bool },
    Machine,
}

impl Given {
    fn of(env: &Env) -> Self {
        let first = |names: &[&str]| names.iter().find_map(|name| env.get(*name)).cloned();
        if env.contains_key("GOOGLE_BEARER_TOKEN") {
            return Self::Token;
        }
        if let Some(path) = first(&["GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH"]) {
            return Self::ServiceAccount(path);
        }
        if env.contains_key("GOOGLE_SERVICE_ACCOUNT_KEY") {
            return Self::Key;
        }
        if let Some(path) = first(&["GOOGLE_APPLICATION_CREDENTIALS"]) {
            return Self::File { path: path.into(), named: true };
        }
        let home = env.get("HOME").map(|home| PathBuf::from(home).join(DEFAULT_FILE));
        home.filter(|path| path.exists()).map_or(Self::Machine, |path| Self::File { path, named: false })
    }

    /// What a service account says itself, which only one of a private server does.
    fn base_url(&self, env: &Env) -> Option<String> {
        let text = match self {
            Self::Key => env.get("GOOGLE_SERVICE_ACCOUNT_KEY")?.clone().into_bytes(),
            Self::ServiceAccount(path) => std::fs::read(path).ok()?,
            _ => return None,
        };
        let account: Value = serde_json::from_slice(&text).ok()?;
        account["gcs_base_url"].as_str().map(str::to_owned)
    }

    fn who(&self) -> String {
        match self {
            Self::Token => "the token of GOOGLE_BEARER_TOKEN".into(),
            Self::Key => "the key of GOOGLE_SERVICE_ACCOUNT_KEY".into(),
            Self::ServiceAccount(path) => format!("{path} (GOOGLE_SERVICE_ACCOUNT)"),
            Self::File { path, named: true } => format!("{} (GOOGLE_APPLICATION_CREDENTIALS)", path.display()),
            Self::File { path, named: false } => path.display().to_string(),
            Self::Machine => "this machine's service account".into(),
        }
    }
}

/// What the file holds, if it is JSON; what is wrong with it otherwise is for `object_store` to say.
fn config(path: &std::path::Path) -> Result<Option<Value>, Box<dyn std::error::Error + Send + Sync>> {
    let text = std::fs::read(path)?;
    Ok(serde_json::from_slice(&text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_credentials_that_are_there_are_taken() {
        let home = tempfile::tempdir().expect("a folder");
        let mut env = Env::from([("HOME".to_owned(), home.path().display().to_string())]);
        assert_eq!(Given::of(&env), Given::Machine);
        let default = home.path().join(DEFAULT_FILE);
        std::fs::create_dir_all(default.parent().expect("a folder")).expect("ours");
        std::fs::write(&default, "{}").expect("ours");
        assert_eq!(Given::of(&env), Given::File { path: default, named: false });
        for (name, value, who) in [
            ("GOOGLE_APPLICATION_CREDENTIALS", "/run/adc", "/run/adc (GOOGLE_APPLICATION_CREDENTIALS)"),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", "{\"secret\"}", "the key of GOOGLE_SERVICE_ACCOUNT_KEY"),
            ("GOOGLE_SERVICE_ACCOUNT", "/run/key", "/run/key (GOOGLE_SERVICE_ACCOUNT)"),
            ("GOOGLE_BEARER_TOKEN", "secret", "the token of GOOGLE_BEARER_TOKEN"),
        ] {
            env.insert(name.into(), value.into());
            assert_eq!(Given::of(&env).who(), who);
        }
    }
    #[test]
    fn a_service_account_may_name_its_server() {
        let key = "GOOGLE_SERVICE_ACCOUNT_KEY";
        let account = |text: &str| Env::from([(key.to_owned(), text.to_owned())]);
        let env = account(r#"{"gcs_base_url": "http://127.0.0.1:9"}"#);
        assert_eq!(Given::of(&env).base_url(&env).as_deref(), Some("http://127.0.0.1:9"));
        let env = account(r#"{"client_email": "x"}"#);
        assert_eq!(Given::of(&env).base_url(&env), None);
    }
}
