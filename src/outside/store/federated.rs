//! Google credentials that `object_store` does not know: workload identity federation (`external_account`) and impersonation, by
//! Google's own crate. It keeps a token and fetches the next one before the last one expires; every request asks here, so that a
//! long upload goes on with a new token.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use google_cloud_auth::credentials::{AccessTokenCredentials, external_account, impersonated};
use object_store::CredentialProvider;
use object_store::gcp::GcpCredential;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

/// A token endpoint that does not answer, or only with passing errors, is waited for so long. The crate itself tries again
/// every ten seconds.
const PATIENCE: Duration = Duration::from_secs(45);
/// Between two looks at whether it has.
const PAUSE: Duration = Duration::from_millis(500);

/// Credentials in a file of such a kind.
#[derive(Debug)]
pub(super) struct Federated {
    /// Where it reads who we are, if that is a file.
    subject: Option<String>,
    credentials: AccessTokenCredentials,
}

impl Federated {
    /// The credentials of `config`; none if it is of a kind that `object_store` reads itself.
    pub(super) fn new(config: Value) -> Result<Option<Self>, Box<dyn Error + Send + Sync>> {
        let kind = config.get("type").and_then(Value::as_str).unwrap_or_default();
        let subject = config.pointer("/credential_source/file").and_then(Value::as_str).map(str::to_owned);
        let built = match kind {
            "external_account" => external_account::Builder::new(config).build_access_token_credentials(),
            "impersonated_service_account" => impersonated::Builder::new(config).build_access_token_credentials(),
            _ => return Ok(None),
        };
        let credentials = built.map_err(|error| NoToken::new(None, &error))?;
        Ok(Some(Self { subject, credentials }))
    }

    async fn token(&self) -> Result<String, NoToken> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match timeout(PATIENCE, self.credentials.access_token()).await {
                Ok(Ok(token)) => return Ok(token.token),
                Ok(Err(error)) if error.is_transient() && Instant::now() < deadline => sleep(PAUSE).await,
                Ok(Err(error)) => return Err(NoToken::new(self.subject.as_deref(), &error)),
                Err(_) => {
                    let why =
                        format!("the endpoint that the file names did not answer within {} s", PATIENCE.as_secs());
                    return Err(NoToken { why });
                }
            }
        }
    }
}

#[async_trait::async_trait]
impl CredentialProvider for Federated {
    type Credential = GcpCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<GcpCredential>> {
        let failed = |source: NoToken| object_store::Error::Generic { store: "GCS", source: source.into() };
        self.token().await.map(|bearer| Arc::new(GcpCredential { bearer })).map_err(failed)
    }
}

/// No token was to be had. What the endpoints answered is shown without anything that could be one.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(super) struct NoToken {
    why: String,
}

/// What Google's crate says at every level, and what says nothing to whoever reads it.
const PHRASES: [&str; 6] = [
    " and future attempts will not succeed",
    " but future attempts may succeed",
    "Request to fetch the token failed. Subsequent calls with this credential will also fail.",
    "Fetching the token resulted in transient errors. Subsequent calls with this credential might succeed.",
    "cannot create the authentication headers",
    "cannot create auth headers",
];

impl NoToken {
    fn new(subject: Option<&str>, error: &(dyn Error + 'static)) -> Self {
        let mut levels: Vec<String> = Vec::new();
        let mut next = Some(error);
        while let Some(it) = next {
            let text = PHRASES.iter().fold(it.to_string(), |text, phrase| text.replace(phrase, ""));
            let text = text.trim();
            if !text.is_empty() && !levels.iter().any(|above| above.contains(text)) {
                levels.push(text.to_owned());
            }
            next = it.source();
        }
        levels.extend(subject.map(|file| format!("the file says that {file} holds who we are")));
        Self { why: without_tokens(&levels.join("; ")) }
    }

    /// Itself, if it is why `error` happened.
    pub(super) fn cause_of(error: &object_store::Error) -> Option<Self> {
        let mut next: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(it) = next {
            if let Some(found) = it.downcast_ref::<Self>() {
                return Some(Self { why: found.why.clone() });
            }
            next = it.source();
        }
        None
    }
}

/// Puts `[secret]` in place of every word that could be a token: long, and of capitals, small letters and digits without a break.
fn without_tokens(text: &str) -> String {
    let of_token = |c: char| c.is_ascii_alphanumeric() || "-_.~+=".contains(c);
    let (mut shown, mut rest) = (String::new(), text);
    while let Some(start) = rest.find(of_token) {
        let end = rest[start..].find(|c| !of_token(c)).map_or(rest.len(), |at| start + at);
        let word = &rest[start..end];
        let has = |kind: fn(&char) -> bool| word.chars().any(|c| kind(&c));
        let secret = word.len() >= 24
            && has(char::is_ascii_uppercase)
            && has(char::is_ascii_lowercase)
            && has(char::is_ascii_digit);
        shown += &rest[..start];
        shown += if secret { "[secret]" } else { word };
        rest = &rest[end..];
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_could_be_a_token_is_not_shown() {
        let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlMTIzNDU2Nzg5MA";
        let text = format!("body=<{{\"error\":\"invalid {jwt}\", \"got\": \"ya29.a0AfB_byC1234567890abcdefXYZ\"}}>");
        assert_eq!(without_tokens(&text), "body=<{\"error\":\"invalid [secret]\", \"got\": \"[secret]\"}>");
        for harmless in [
            "https://sts.googleapis.com/v1/token: 400 Bad Request",
            "//iam.googleapis.com/projects/1234567890123/locations/global/workloadIdentityPools/a-Pool-1/providers/p",
            "release-of-databases@a-project-1234567.iam.gserviceaccount.com",
            "",
        ] {
            assert_eq!(without_tokens(harmless), harmless);
        }
    }

    #[tokio::test]
    async fn other_kinds_are_left_to_the_store_and_bad_ones_are_named() {
        assert!(Federated::new(json!({ "type": "authorized_user" })).is_ok_and(|it| it.is_none()));
        assert!(Federated::new(json!([])).is_ok_and(|it| it.is_none()));
        let bad = Federated::new(json!({ "type": "external_account", "audience": "x" }));
        let said = bad.expect_err("half a configuration").to_string();
        assert!(said.contains("missing field"), "{said}");
    }
}
