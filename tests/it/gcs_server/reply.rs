//! Answers and refusals, and how they are put on the wire: whole, or spoilt by a fault.

use super::content::Content;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};
use std::io;
use std::ops::Range;

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;
pub(super) type Answer = Result<Reply, Refusal>;

pub(super) struct Reply {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    content: Content,
    range: Range<u64>,
}

/// What a fault does to the bytes of an answer.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Spoil {
    Nothing,
    Cut(u64),
    Flip,
}

impl Reply {
    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), content: Content::default(), range: 0..0 }
    }

    pub(super) fn xml(status: StatusCode, text: &str) -> Self {
        let content = Content::memory(format!("<?xml version='1.0' encoding='UTF-8'?>{text}"));
        Self::content(status, content).with("content-type", "application/xml; charset=UTF-8")
    }

    pub(super) fn json(status: StatusCode, body: &serde_json::Value) -> Self {
        Self::content(status, Content::memory(body.to_string())).with("content-type", "application/json")
    }

    pub(super) fn content(status: StatusCode, content: Content) -> Self {
        let range = 0..content.len();
        Self { status, headers: HeaderMap::new(), content, range }
    }

    pub(super) fn part(content: Content, range: Range<u64>) -> Self {
        Self { status: StatusCode::PARTIAL_CONTENT, headers: HeaderMap::new(), content, range }
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        let value = HeaderValue::from_str(value).expect("the server makes only valid header values");
        self.headers.insert(HeaderName::from_static(name), value);
        self
    }

    pub(super) fn with_all(mut self, headers: &HeaderMap) -> Self {
        self.headers.extend(headers.clone());
        self
    }

    pub(super) fn into_response(self, head_only: bool, spoil: Spoil) -> Response<Body> {
        let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        if self.status == StatusCode::NO_CONTENT || self.status == StatusCode::NOT_MODIFIED {
            return response;
        }
        response.headers_mut().insert(CONTENT_LENGTH, (self.range.end - self.range.start).into());
        if !head_only && !self.range.is_empty() {
            *response.body_mut() = body(self.content, self.range, spoil);
        }
        response
    }
}

fn body(content: Content, range: Range<u64>, spoil: Spoil) -> Body {
    let start = range.start;
    let cut = match spoil {
        Spoil::Cut(bytes) => Some(start + bytes).filter(|cut| *cut < range.end),
        Spoil::Nothing | Spoil::Flip => None,
    };
    let flip_at = (spoil == Spoil::Flip).then(|| start + (range.end - start) / 2);
    let mut at = start;
    let bytes = content.stream(start..cut.unwrap_or(range.end)).map_ok(move |bytes| {
        let from = at;
        at += bytes.len() as u64;
        match flip_at {
            Some(flip) if (from..at).contains(&flip) => flipped(&bytes, (flip - from) as usize),
            _ => bytes,
        }
    });
    StreamBody::new(bytes.chain(ending(cut.is_some())).map_ok(Frame::data)).boxed_unsync()
}

fn flipped(bytes: &[u8], at: usize) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes.into()
}

/// The failure after the last byte of an answer that is cut short. It waits one turn, in which the connection sends
/// what it holds; without it the bytes before the cut would be lost as well.
fn ending(cut: bool) -> impl futures::Stream<Item = io::Result<Bytes>> + Send {
    stream::iter(cut.then_some(())).then(|()| async {
        tokio::task::yield_now().await;
        Err(io::Error::other("the answer is cut here"))
    })
}

/// Why a request was not carried out.
#[derive(Debug)]
pub(super) struct Refusal {
    status: u16,
    code: &'static str,
    message: String,
}

impl Refusal {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidArgument", message)
    }

    /// For what the real store may well do and this server does not: better an error than a silent difference.
    pub(super) fn not_built(what: impl Into<String>) -> Self {
        Self::new(501, "NotImplemented", what)
    }

    pub(super) fn into_reply(self) -> Reply {
        let status = StatusCode::from_u16(self.status).expect("the server makes only valid statuses");
        let message = escape(&self.message);
        Reply::xml(status, &format!("<Error><Code>{}</Code><Message>{message}</Message></Error>", self.code))
    }
}

/// The answer of a fault that is a status.
pub(super) fn fault(status: u16) -> Reply {
    let code = match status {
        403 => "AccessDenied",
        408 => "RequestTimeout",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    Refusal::new(status, code, "a fault of the test").into_reply()
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&apos;")
}
