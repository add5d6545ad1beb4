//! Why the store did not do what was asked, in the words of a message.

use std::path::PathBuf;
use std::sync::Arc;

use super::federated::NoToken;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum StoreError {
    /// The URL is not of a kind that is known.
    #[error("`{url}` is not a store")]
    #[diagnostic(code("store.url"), help("Write `file:///folder`, `gs://bucket/prefix` or `s3://bucket/prefix`."))]
    Url {
        /// As given.
        url: String,
    },
    /// A folder store cannot be opened.
    #[error("the store folder {} cannot be used", path.display())]
    #[diagnostic(code("store.folder"), help("Create it, or name another with `[store] url` or `--store`."))]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The client cannot be made, for want of credentials for example.
    #[error("the store {url} cannot be set up with {who}")]
    #[diagnostic(
        code("store.setup"),
        help("Correct it, or name other credentials: README.md has the table of those that are read.")
    )]
    Setup {
        /// The store.
        url: String,
        /// Whose credentials.
        who: String,
        /// What the client said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An operation failed after the client's own retries.
    #[error("the store could not {what} `{key}`")]
    #[diagnostic(code("store.io"), help("Run `migrate doctor`, which writes to the store and reads back."))]
    Io {
        /// `write`, `read`, `list`.
        what: &'static str,
        /// The object.
        key: String,
        /// What the client said.
        #[source]
        source: Box<object_store::Error>,
    },
    /// Nobody says who we are.
    #[error("the store has no credentials to {what} `{key}` with: {who} gave none")]
    #[diagnostic(code("store.credentials"), help("{help}"))]
    Credentials {
        /// `write`, `read`, `list`.
        what: &'static str,
        /// The object.
        key: String,
        /// Whose credentials were tried.
        who: String,
        /// What to do.
        help: &'static str,
        /// What the client said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store knows who we are, or does not believe it, and refuses.
    #[error("the store does not let {who} {what} `{key}`")]
    #[diagnostic(code("store.denied"), help("{help}"))]
    Denied {
        /// `write`, `read`, `list`.
        what: &'static str,
        /// The object.
        key: String,
        /// Whose credentials.
        who: String,
        /// What to do.
        help: &'static str,
        /// What the store said.
        #[source]
        source: Box<object_store::Error>,
    },
    /// Another writer has created the object with other content.
    #[error("`{key}` exists already, with other content")]
    #[diagnostic(code("store.taken"), help("Another `migrate` works on the same run; see `migrate status`."))]
    Taken {
        /// The object.
        key: String,
    },
}

/// Whose credentials the store is reached with, in the words of a message.
#[derive(Clone)]
pub(super) struct Who {
    text: Arc<str>,
    /// What to do where they give nothing; none, where nothing has to be given.
    log_in: Option<&'static str>,
}

impl Who {
    /// For a folder.
    pub(super) fn this_user() -> Self {
        Self { text: "this user".into(), log_in: None }
    }

    /// For a bucket.
    pub(super) fn with(text: &str, log_in: &'static str) -> Self {
        Self { text: text.into(), log_in: Some(log_in) }
    }

    /// For `map_err`: what `key` could not be done to.
    pub(super) fn io(&self, what: &'static str, key: &str) -> impl FnOnce(object_store::Error) -> StoreError {
        let (key, who, log_in) = (key.to_owned(), self.text.to_string(), self.log_in);
        move |source| {
            let text = source.to_string();
            if let Some(help) = log_in {
                if let Some(why) = NoToken::cause_of(&source) {
                    return StoreError::Credentials { what, key, who, help, source: why.into() };
                }
                if NO_TOKEN.iter().any(|it| text.contains(it)) {
                    return StoreError::Credentials { what, key, who, help, source: source.into() };
                }
            }
            match &source {
                object_store::Error::Unauthenticated { .. } | object_store::Error::PermissionDenied { .. } => {
                    StoreError::Denied { what, key, who, help: DENIED, source: source.into() }
                }
                // Of a listing, `object_store` says it in words alone.
                _ if ["status code: 401", "status code: 403"].iter().any(|it| text.contains(it)) => {
                    StoreError::Denied { what, key, who, help: DENIED, source: source.into() }
                }
                _ => StoreError::Io { what, key, source: source.into() },
            }
        }
    }
}

/// How `object_store` speaks of tokens that it could not get: from Google, and from Amazon's machines and roles.
const NO_TOKEN: [&str; 4] = ["token request", "/latest/api/token", "AssumeRoleWithWebIdentity", "security-credentials"];

const DENIED: &str = "If it says that credentials expired or are not valid, log in again or name others; else give the account the \
                      right to create, read and list objects of the bucket. `migrate doctor` tries both.";

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "GCS", source: text.into() }
    }

    #[test]
    fn what_to_do_without_a_token_is_said_by_the_kind_of_the_store() {
        let text = "Error performing token request: /home/S3/adc.json";
        match Who::with("the file", "log in").io("list", "runs")(said(text)) {
            StoreError::Credentials { help, .. } => assert_eq!(help, "log in"),
            other => panic!("{other:?}"),
        }
        // A folder asks for no token, whatever it is called.
        assert!(matches!(Who::this_user().io("list", "runs")(said(text)), StoreError::Io { .. }));
    }
}
