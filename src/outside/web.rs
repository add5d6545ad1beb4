//! The web: one thing is sent to a URL that is a secret, since whoever has it may write there.

use std::time::Duration;

use super::secret::Secret;
use crate::crash;

/// Why it was not taken.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// Nobody took it.
    #[error("the URL could not be reached: {0}")]
    Unreached(String),
    /// The answer was no.
    #[error("the answer was {0}")]
    Refused(u16),
}

/// Sends JSON by POST.
///
/// # Errors
/// [`WebError`], without the URL.
pub async fn post(url: &Secret, json: String, timeout: Duration) -> Result<(), WebError> {
    let unreached = |error: reqwest::Error| {
        let error = error.without_url();
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        WebError::Unreached(format!("{error}{cause}"))
    };
    let client = reqwest::Client::builder().timeout(timeout).build().map_err(unreached)?;
    let request = client.post(url.expose()).header("content-type", "application/json").body(json);
    crash::point("web before", "POST");
    let sent = request.send().await;
    crash::point("web after", "POST");
    let status = sent.map_err(unreached)?.status();
    if status.is_success() { Ok(()) } else { Err(WebError::Refused(status.as_u16())) }
}
