//! `gs://`: the client of Google Cloud Storage, and whose credentials it uses. Service accounts, users and the machine's own
//! account are `object_store`'s; what federation and impersonation need is in `federated`.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ClientConfigKey;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use serde_json::Value;

use super::federated::Federated;
use super::{Client, Env, NoClient, TIMEOUT, Who};

/// What to do without credentials.
const LOG_IN: &str = "Set GOOGLE_APPLICATION_CREDENTIALS to a file of credentials, or GOOGLE_BEARER_TOKEN to a token; where the file is \
                      named already, look at the cause below, and log in again or correct the file.";

/// Where `gcloud auth application-default login` writes, below the home folder.
const DEFAULT_FILE: &str = ".config/gcloud/application_default_credentials.json";

/// A client of `bucket`. Within a runtime: federated credentials begin to ask for a token.
pub(super) fn client(bucket: &str, env: &Env) -> Result<Client, NoClient> {
    let given = Given::of(env);
    let who = given.who();
    let fail = |source| NoClient { who: who.clone(), source };
    let mut builder =
        GoogleCloudStorageBuilder::new().with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), TIMEOUT);
    for (name, value) in env {
        let key = name.starts_with("GOOGLE_").then(|| name.to_ascii_lowercase().parse::<GoogleConfigKey>());
        if let Some(Ok(key)) = key {
            builder = builder.with_config(key, value);
        }
    }
    if let Given::File { path, .. } = &given
        && let Some(config) = config(path).map_err(&fail)?
        && let Some(federated) = Federated::new(config).map_err(&fail)?
    {
        builder = builder.with_credentials(Arc::new(federated));
    }
    match builder.with_bucket_name(bucket).build() {
        Ok(inner) => Ok(Client { inner: Arc::new(inner), who: Who::with(&who, LOG_IN) }),
        Err(source) => Err(fail(source.into())),
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
}
