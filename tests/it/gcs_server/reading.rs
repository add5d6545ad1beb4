//! Reading an object: conditions first, then the range.

use super::reply::{Answer, Refusal, Reply};
use super::state::Object;
use chrono::{DateTime, Utc};
use hyper::header::{HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, RANGE};
use hyper::{HeaderMap, StatusCode};
use std::ops::Range;

pub(super) fn answer(object: &Object, asked: &HeaderMap) -> Answer {
    if !unchanged(object, asked)? {
        return Err(Refusal::new(412, "PreconditionFailed", "the object is not the one that was expected"));
    }
    if !newer(object, asked)? {
        return Ok(object.describe(Reply::empty(StatusCode::NOT_MODIFIED)));
    }
    let (content, size) = (object.content.clone(), object.content.len());
    let reply = match text(asked, RANGE)? {
        None => Reply::content(StatusCode::OK, content),
        Some(text) => {
            let range = range(text, size)?;
            let shown = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            Reply::part(content, range).with("content-range", &shown)
        }
    };
    let modified = object.modified.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    Ok(object.describe(reply.with("last-modified", &modified).with_all(&object.attributes)))
}

/// If-Match, or without it If-Unmodified-Since.
fn unchanged(object: &Object, asked: &HeaderMap) -> Result<bool, Refusal> {
    if let Some(etags) = text(asked, IF_MATCH)? {
        return Ok(names(etags, object));
    }
    Ok(date(asked, IF_UNMODIFIED_SINCE)?.is_none_or(|since| seconds(object) <= since))
}

/// If-None-Match, or without it If-Modified-Since.
fn newer(object: &Object, asked: &HeaderMap) -> Result<bool, Refusal> {
    if let Some(etags) = text(asked, IF_NONE_MATCH)? {
        return Ok(!names(etags, object));
    }
    Ok(date(asked, IF_MODIFIED_SINCE)?.is_none_or(|since| seconds(object) > since))
}

fn names(etags: &str, object: &Object) -> bool {
    etags.split(',').map(str::trim).any(|etag| etag == "*" || etag == object.etag)
}

/// HTTP dates know no fractions, so the object's time is compared without.
fn seconds(object: &Object) -> i64 {
    object.modified.timestamp()
}

fn text(asked: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Refusal> {
    let text = asked.get(&name).map(|value| value.to_str()).transpose();
    text.map_err(|_| Refusal::invalid(format!("{name} is not text")))
}

fn date(asked: &HeaderMap, name: HeaderName) -> Result<Option<i64>, Refusal> {
    let parsed = text(asked, name)?.map(DateTime::parse_from_rfc2822).transpose();
    let date = parsed.map_err(|cause| Refusal::invalid(format!("not a date: {cause}")))?;
    Ok(date.map(|date| date.with_timezone(&Utc).timestamp()))
}

/// The bytes that `bytes=a-b`, `bytes=a-`, or `bytes=-n` means in an object of this size.
fn range(text: &str, size: u64) -> Result<Range<u64>, Refusal> {
    let bad = || Refusal::invalid(format!("cannot read the range {text}"));
    let number = |text: &str| text.parse::<u64>().map_err(|_| bad());
    let (first, last) = text.strip_prefix("bytes=").and_then(|it| it.split_once('-')).ok_or_else(bad)?;
    let range = match (first, last) {
        ("", last) => size.saturating_sub(number(last)?)..size,
        (first, "") => number(first)?..size,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return Err(bad());
            }
            first..last.saturating_add(1).min(size)
        }
    };
    if range.is_empty() {
        return Err(Refusal::new(416, "InvalidRange", format!("{text} is not within the {size} bytes")));
    }
    Ok(range)
}
