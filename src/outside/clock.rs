//! The clock: the one place that asks what time it is.

use chrono::{DateTime, SecondsFormat, Utc};

/// Now, in UTC.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the door")]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}

/// `2026-11-21 17:43:11 UTC`, as people read it.
#[must_use]
pub fn readable(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// RFC 3339 with milliseconds, as machines read it.
#[must_use]
pub fn exact(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
