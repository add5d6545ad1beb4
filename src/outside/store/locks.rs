//! Whether an object is locked. A removal does not always tell: in an Amazon bucket with Object Lock it succeeds, and hides the
//! locked object; in a folder it takes a file whose owner made it read-only. `object_store` has no question for it, so that it is
//! asked here, with `object_store`'s credentials and its HTTP client.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::DateTime;
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector, HttpRequest, HttpRequestBody, HttpResponse, ReqwestConnector,
};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::signer::{HeaderValue, Method};

use super::{gcs, s3};
use crate::outside::clock;

/// A question that the store fails to answer is asked this often.
const ATTEMPTS: u32 = 3;
/// Before the second attempt; before the third it is twice as long.
const PAUSE: Duration = Duration::from_millis(500);

/// Who knows of locks.
#[derive(Clone)]
pub(super) enum Locks {
    /// The mode of the file and of its folder.
    Folder(Arc<LocalFileSystem>),
    /// Google's holds and retention.
    Google(Arc<gcs::Holds>),
    /// Amazon's Object Lock.
    Amazon(Arc<s3::ObjectLock>),
}

impl Locks {
    /// Why the object must not be removed, if it must not: also where the store does not let us see.
    pub(super) async fn of(&self, path: &Path) -> object_store::Result<Option<String>> {
        match self {
            Self::Folder(folder) => read_only(folder, path),
            Self::Google(holds) => holds.of(path).await,
            Self::Amazon(lock) => lock.of(path).await,
        }
    }
}

/// Nobody may write to the file, or to the folder that it is in. The superuser might all the same: it is the mode that counts.
fn read_only(folder: &LocalFileSystem, path: &Path) -> object_store::Result<Option<String>> {
    let file = folder.path_to_filesystem(path)?;
    let places = [(Some(&*file), "the file"), (file.parent(), "its folder")];
    for (place, what) in places {
        match place.map(std::fs::metadata).transpose() {
            Ok(Some(meta)) if meta.permissions().readonly() => return Ok(Some(format!("{what} is read-only"))),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    Ok(None)
}

/// Asks in `object_store`'s stead, with a client like the one that it makes itself of the same options: made once it is needed, as
/// few commands ask.
pub(super) struct Questions {
    options: ClientOptions,
    client: OnceLock<HttpClient>,
}

impl Questions {
    pub(super) fn with(options: ClientOptions) -> Self {
        Self { options, client: OnceLock::new() }
    }

    /// Sends a request that changes nothing, until there is an answer. Errors do not hold the URL, which may be signed.
    pub(super) async fn ask(
        &self,
        method: &Method,
        url: &str,
        bearer: Option<&str>,
    ) -> object_store::Result<HttpResponse> {
        let mut attempt = 1;
        loop {
            let mut request = HttpRequest::new(HttpRequestBody::empty());
            *request.method_mut() = method.clone();
            *request.uri_mut() = url.parse().map_err(|_| failed("the store's URL is none"))?;
            if let Some(bearer) = bearer {
                let mut value =
                    HeaderValue::try_from(format!("Bearer {bearer}")).map_err(|_| failed("the token is none"))?;
                value.set_sensitive(true);
                let _ = request.headers_mut().insert("authorization", value);
            }
            match self.client()?.execute(request).await {
                Ok(answer) if !matches!(answer.status().as_u16(), 408 | 429 | 500 | 502..=504) => return Ok(answer),
                Ok(answer) if attempt == ATTEMPTS => return Err(unexpected(&answer)),
                Err(error) if attempt == ATTEMPTS => return Err(failed(error)),
                _ => tokio::time::sleep(PAUSE * attempt).await,
            }
            attempt += 1;
        }
    }

    fn client(&self) -> object_store::Result<&HttpClient> {
        if self.client.get().is_none() {
            let _ = self.client.set(ReqwestConnector::default().connect(&self.options)?);
        }
        Ok(self.client.get().expect("it was set"))
    }
}

/// For an answer that nobody expects.
pub(super) fn unexpected(answer: &HttpResponse) -> object_store::Error {
    failed(format!("asked whether it is locked, the store answered {}", answer.status()))
}

/// For a store that does not let us see the locks: what must not be removed might be among it.
pub(super) fn hidden(rights: &str) -> String {
    format!("the store does not say whether it is locked: give the account {rights}")
}

/// That the object is kept until a time, if that is to come. A time that cannot be read is taken for one.
pub(super) fn until(what: &str, time: &str) -> Option<String> {
    match DateTime::parse_from_rfc3339(time) {
        Ok(time) if time <= clock::now() => None,
        Ok(time) => Some(format!("{what} until {}", clock::readable(time.to_utc()))),
        Err(_) => Some(format!("{what} until {time}")),
    }
}

/// An error of `object_store`'s, for what it does not do itself.
pub(super) fn failed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> object_store::Error {
    object_store::Error::Generic { store: "locks", source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_over_locks_nothing() {
        assert_eq!(until("retained", "2020-01-01T00:00:00Z"), None);
        let shown = until("retained", "2999-01-01T00:00:00.000Z").expect("it is to come");
        assert!(shown.starts_with("retained until 2999-01-01 00:00"), "{shown}");
        assert_eq!(until("retained", "for ever").as_deref(), Some("retained until for ever"));
    }
}
