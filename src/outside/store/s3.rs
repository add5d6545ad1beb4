//! `s3://`: the client of Amazon S3 and of what speaks like it, configured by the variables that Amazon's own tools read.
//! A create is a conditional put (`If-None-Match: *`). Completing an upload in parts is not conditional in `object_store`: the
//! run is in the key, and the manifest, which is a create, says which archives count.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::HttpResponse;
use object_store::path::Path;
use object_store::signer::{Method, SignedUrlOptions, Signer};
use object_store::{ClientConfigKey, ClientOptions};

use super::locks::{self, Locks, Questions};
use super::{Client, Env, NoClient, TIMEOUT, Who};

/// What to do without credentials.
const LOG_IN: &str = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN; those of a \
                      profile come with `eval \"$(aws configure export-credentials --format env)\"`.";

/// How long a question about a lock may be on its way.
const SIGNED_FOR: Duration = Duration::from_mins(5);

/// A client of `bucket`.
pub(super) fn client(bucket: &str, env: &Env) -> Result<Client, NoClient> {
    let who = who(env);
    let mut builder = AmazonS3Builder::new();
    let mut options =
        ClientOptions::new().with_config(ClientConfigKey::Timeout, TIMEOUT).with_allow_http(plain_endpoint(env));
    for (name, value) in env {
        let key = name.starts_with("AWS_").then(|| name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>());
        match key {
            Some(Ok(AmazonS3ConfigKey::Client(key))) => options = options.with_config(key, value),
            Some(Ok(key)) => builder = builder.with_config(key, value),
            _ => {}
        }
    }
    let questions = Questions::with(options.clone());
    // One at a time, an object that is under a lock is an answer of its own.
    let builder = builder.with_client_options(options).with_config(AmazonS3ConfigKey::DisableBulkDelete, "true");
    match builder.with_bucket_name(bucket).build().map(Arc::new) {
        Ok(inner) => {
            let locks = Locks::Amazon(Arc::new(ObjectLock { bucket: Arc::clone(&inner), questions }));
            Ok(Client { inner, locks, who: Who::with(&who, LOG_IN) })
        }
        Err(source) => Err(NoClient { who, source: source.into() }),
    }
}

/// What locks objects in a bucket with versions.
pub(super) struct ObjectLock {
    bucket: Arc<AmazonS3>,
    questions: Questions,
}

impl ObjectLock {
    /// As `HeadObject` tells it. Whoever may not know of a lock is told of none, so that the two questions that are about locks
    /// alone are asked as well: for whether they are refused, since not every store has an answer to them.
    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html>
    pub(super) async fn of(&self, path: &Path) -> object_store::Result<Option<String>> {
        let head = self.ask(Method::HEAD, path, "").await?;
        match head.status().as_u16() {
            200..=299 => {}
            404 => return Ok(None),
            403 => return Ok(Some(locks::hidden("the right to read objects (s3:GetObject)"))),
            _ => return Err(locks::unexpected(&head)),
        }
        let header = |name: &str| head.headers().get(name).and_then(|value| value.to_str().ok());
        // Without versions there are no locks.
        if header("x-amz-version-id").is_none_or(|it| it == "null") {
            return Ok(None);
        }
        if header("x-amz-object-lock-legal-hold") == Some("ON") {
            return Ok(Some("it is under a legal hold".into()));
        }
        let retained = header("x-amz-object-lock-retain-until-date").and_then(|it| locks::until("it is retained", it));
        if retained.is_some() {
            return Ok(retained);
        }
        for (question, right) in [("retention", "s3:GetObjectRetention"), ("legal-hold", "s3:GetObjectLegalHold")] {
            if self.ask(Method::GET, path, question).await?.status() == 403 {
                return Ok(Some(locks::hidden(&format!("the right {right}"))));
            }
        }
        Ok(None)
    }

    async fn ask(&self, method: Method, path: &Path, question: &str) -> object_store::Result<HttpResponse> {
        let query = Some((question, "")).filter(|_| !question.is_empty());
        let options = SignedUrlOptions::new().with_query(query);
        let url = self.bucket.signed_url_opts(method.clone(), path, SIGNED_FOR, &options).await?;
        self.questions.ask(&method, url.as_str(), None).await
    }
}

/// Whether the user named an endpoint without TLS, which is then meant so. Requests are signed, and hold no secret.
fn plain_endpoint(env: &Env) -> bool {
    let named = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"].iter().find_map(|name| env.get(*name));
    named.is_some_and(|url| url.starts_with("http://"))
}

/// Whose credentials they are, in the order in which `object_store` takes them.
fn who(env: &Env) -> String {
    let set = |name: &str| env.contains_key(name);
    if set("AWS_ACCESS_KEY_ID") || set("AWS_SECRET_ACCESS_KEY") {
        return "the key of AWS_ACCESS_KEY_ID".into();
    }
    if let (Some(file), Some(role)) = (env.get("AWS_WEB_IDENTITY_TOKEN_FILE"), env.get("AWS_ROLE_ARN")) {
        return format!("the role {role} with the token in {file}");
    }
    if set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") || set("AWS_CONTAINER_CREDENTIALS_FULL_URI") {
        return "this container's role".into();
    }
    "this machine's role".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_first_credentials_that_are_there_are_named() {
        let role = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/token"), ("AWS_ROLE_ARN", "arn:aws:iam::1:role/release")];
        assert_eq!(who(&env(&[])), "this machine's role");
        assert_eq!(who(&env(&role)), "the role arn:aws:iam::1:role/release with the token in /run/token");
        assert_eq!(who(&env(&[&role[..], &[("AWS_ACCESS_KEY_ID", "x")]].concat())), "the key of AWS_ACCESS_KEY_ID");
    }

    #[test]
    fn half_a_key_is_no_key() {
        let half = client("b", &env(&[("AWS_ACCESS_KEY_ID", "x")])).err().expect("it is refused");
        assert!(half.source.to_string().contains("SecretAccessKey"), "{}", half.source);
    }

    #[test]
    fn a_plain_endpoint_is_meant_so() {
        assert!(plain_endpoint(&env(&[("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")])));
        assert!(!plain_endpoint(&env(&[("AWS_ENDPOINT_URL", "https://s3.example.org")])));
        assert!(!plain_endpoint(&env(&[])));
    }
}
