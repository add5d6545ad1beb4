//! `s3://`: the client of Amazon S3 and of what speaks like it, configured by the variables that Amazon's own tools read.
//! A create is a conditional put (`If-None-Match: *`). Completing an upload in parts is not conditional in `object_store`: the
//! run is in the key, and the manifest, which is a create, says which archives count.

use std::sync::Arc;

use object_store::ClientConfigKey;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

use super::{Client, Env, NoClient, TIMEOUT, Who};

/// What to do without credentials.
const LOG_IN: &str = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN; those of a \
                      profile come with `eval \"$(aws configure export-credentials --format env)\"`.";

/// A client of `bucket`.
pub(super) fn client(bucket: &str, env: &Env) -> Result<Client, NoClient> {
    let who = who(env);
    let mut builder = AmazonS3Builder::new()
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), TIMEOUT)
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp), plain_endpoint(env).to_string());
    for (name, value) in env {
        let key = name.starts_with("AWS_").then(|| name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>());
        if let Some(Ok(key)) = key {
            builder = builder.with_config(key, value);
        }
    }
    // One at a time, an object that is under a lock is an answer of its own.
    let built = builder.with_config(AmazonS3ConfigKey::DisableBulkDelete, "true").with_bucket_name(bucket).build();
    match built {
        Ok(inner) => Ok(Client { inner: Arc::new(inner), who: Who::with(&who, LOG_IN) }),
        Err(source) => Err(NoClient { who, source: source.into() }),
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
