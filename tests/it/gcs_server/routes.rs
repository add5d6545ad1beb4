//! From a request to what is done: the operations of the XML API that object_store uses, and no others. Whatever is
//! not known (a query parameter, an `x-goog-` header) is refused, so that a client cannot rely on it by accident.

use super::Shared;
use super::content::{Digest16, Received, base64, receive};
use super::listing::Listing;
use super::reading;
use super::reply::{Answer, Refusal, Reply, escape};
use super::state::Draft;
use super::tokens;
use super::uploads::Listed;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH};
use hyper::http::request::Parts;
use hyper::{HeaderMap, StatusCode};
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;

const GENERATION_MATCH: &str = "x-goog-if-generation-match";
const COPY_SOURCE: &str = "x-goog-copy-source";
const HASH: &str = "x-goog-hash";
/// Where the JSON API is, of which there is one request.
const METADATA: &str = "/storage/v1/b/";
const META: &str = "x-goog-meta-";
const LONGEST_KEY: usize = 1024;

/// A client that went away in the middle of its request, or an answer to one that did not.
pub(super) enum Failed {
    Gone,
    Refused(Refusal),
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The method, the key, and the names of the query's parameters, in order.
type Call<'a> = (&'a str, &'a str, &'a [&'a str]);

struct Target {
    bucket: String,
    key: String,
    query: BTreeMap<String, String>,
}

pub(super) async fn carry_out(server: &Shared, head: &Parts, body: &mut Incoming) -> Result<Reply, Failed> {
    if head.uri.path().starts_with(tokens::PLACE) {
        let text = match head.method.as_str() {
            "GET" => String::new(),
            _ => body_of(server, head, body).await?.text().map_err(|cause| Refusal::invalid(cause.to_string()))?,
        };
        return Ok(server.tokens().answer(head.uri.path(), &head.headers, &text)?);
    }
    check_token(server, head)?;
    if let Some(place) = head.uri.path().strip_prefix(METADATA) {
        return Ok(server.metadata(head, place)?);
    }
    let target = Target::parse(head)?;
    let names: Vec<&str> = target.query.keys().map(String::as_str).collect();
    let call: Call = (head.method.as_str(), &*target.key, &*names);
    check_headers(&head.headers, call)?;
    let reply = match call {
        ("GET", "", _) => server.list(&target),
        (_, "", _) => Err(Refusal::not_built("this operation on a bucket")),
        ("GET" | "HEAD", _, [] | ["generation"]) => server.read(&target, &head.headers),
        ("PUT", _, []) if head.headers.contains_key(COPY_SOURCE) => server.copy(&target, &head.headers),
        ("PUT", _, []) => server.put(&target, &head.headers, body_of(server, head, body).await?),
        ("PUT", _, ["partNumber", "uploadId"]) => server.put_part(&target, body_of(server, head, body).await?),
        ("POST", _, ["uploads"]) => server.initiate(&target, &head.headers),
        ("POST", _, ["uploadId"]) => server.complete(&target, &body_of(server, head, body).await?),
        ("DELETE", _, ["uploadId"]) => server.abort(&target),
        ("DELETE", _, []) => server.delete(&target),
        (method, _, query) => Err(Refusal::not_built(format!("{method} with {query:?}"))),
    };
    Ok(reply?)
}

impl Target {
    /// The bucket ends at the first literal slash; only then are it and the key decoded, as both may hold `%2F`.
    fn parse(head: &Parts) -> Result<Self, Refusal> {
        let path = head.uri.path().strip_prefix('/').ok_or_else(|| Refusal::invalid("no path"))?;
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let target = Self { bucket: decode(bucket)?, key: decode(key)?, query: query(head.uri.query())? };
        if target.bucket.is_empty() {
            return Err(Refusal::not_built("listing the buckets"));
        }
        if target.key.len() > LONGEST_KEY || target.key.contains(['\r', '\n']) {
            return Err(Refusal::invalid("a key has at most 1024 bytes and no line breaks"));
        }
        Ok(target)
    }

    fn place(&self) -> (&str, &str) {
        (&self.bucket, &self.key)
    }
}

fn decode(text: &str) -> Result<String, Refusal> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| Refusal::invalid(format!("{text} is not UTF-8")))
}

fn query(text: Option<&str>) -> Result<BTreeMap<String, String>, Refusal> {
    let mut query = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
        if query.insert(name.to_string(), value.into_owned()).is_some() {
            return Err(Refusal::invalid(format!("{name} is given twice")));
        }
    }
    Ok(query)
}

fn check_token(server: &Shared, head: &Parts) -> Result<(), Refusal> {
    let given = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let of_part = head.uri.query().is_some_and(|query| query.contains("partNumber"));
    match given {
        Some(given) if given == server.token || server.tokens().accepts(given, of_part) => Ok(()),
        Some(_) => Err(Refusal::new(401, "AuthenticationRequired", "the bearer token is another")),
        None => Err(Refusal::new(401, "AuthenticationRequired", "there is no bearer token")),
    }
}

fn check_headers(headers: &HeaderMap, (method, _, query): Call) -> Result<(), Refusal> {
    for name in headers.keys().map(|name| name.as_str()).filter(|name| name.starts_with("x-goog-")) {
        let known = match name {
            GENERATION_MATCH | COPY_SOURCE => method == "PUT" && query.is_empty(),
            HASH => method == "PUT",
            "x-goog-storage-class" => true,
            other => other.starts_with(META),
        };
        if !known {
            return Err(Refusal::not_built(format!("the header {name} with this operation")));
        }
    }
    Ok(())
}

async fn body_of(server: &Shared, head: &Parts, body: &mut Incoming) -> Result<Received, Failed> {
    if !head.headers.contains_key(CONTENT_LENGTH) {
        return Err(Refusal::new(411, "MissingContentLength", "the length must be given").into());
    }
    let received = receive(body, server.folder.path(), &server.pace).await.map_err(|_| Failed::Gone)?;
    check_digest(&head.headers, &received.md5)?;
    Ok(received)
}

/// Compares what the client says about its bytes with what has arrived.
fn check_digest(headers: &HeaderMap, md5: &Digest16) -> Result<(), Refusal> {
    let claims = headers.get("content-md5").into_iter().map(|value| ("md5", value));
    let claims = claims.chain(headers.get_all(HASH).iter().map(|value| ("", value)));
    for (kind, value) in claims {
        let text = value.to_str().map_err(|_| Refusal::invalid("a digest is not text"))?;
        let claimed = if kind.is_empty() { text.strip_prefix("md5=") } else { Some(text) };
        let claimed = claimed.ok_or_else(|| Refusal::not_built(format!("checking {text}")))?;
        if claimed != base64(md5) {
            return Err(Refusal::new(400, "BadDigest", format!("the MD5 is {}, not {claimed}", base64(md5))));
        }
    }
    Ok(())
}

/// What is kept with an object and comes back when it is read.
fn attributes(headers: &HeaderMap) -> HeaderMap {
    const KEPT: [&str; 6] = [
        "content-type",
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "x-goog-storage-class",
    ];
    let kept = headers.iter().filter(|(name, _)| KEPT.contains(&name.as_str()) || name.as_str().starts_with(META));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn generation(text: &str) -> Result<u64, Refusal> {
    text.parse().map_err(|_| Refusal::invalid(format!("{text} is not a generation")))
}

fn expected(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let value = headers.get(GENERATION_MATCH).map(|value| value.to_str().unwrap_or_default());
    value.map(generation).transpose()
}

impl Shared {
    /// `GET b/BUCKET/o/KEY?fields=…` of the JSON API, for what keeps an object.
    fn metadata(&self, head: &Parts, place: &str) -> Answer {
        let (bucket, key) = place.split_once("/o/").ok_or_else(|| Refusal::not_built("JSON of a bucket"))?;
        let asked = query(head.uri.query())?;
        match (head.method.as_str(), asked.get("fields").map(String::as_str), asked.len()) {
            ("GET", Some("temporaryHold,eventBasedHold,retentionExpirationTime"), 1) => {}
            (method, ..) => return Err(Refusal::not_built(format!("{method} of JSON with {asked:?}"))),
        }
        let told = self.state().holds(&decode(bucket)?, &decode(key)?)?;
        Ok(Reply::json(StatusCode::OK, &told))
    }

    fn list(&self, target: &Target) -> Answer {
        let listing = Listing::parse(&target.query, self.page_size)?;
        listing.answer(self.state().bucket(&target.bucket)?)
    }

    fn read(&self, target: &Target, headers: &HeaderMap) -> Answer {
        let generation = target.query.get("generation").map(|text| generation(text)).transpose()?;
        let object = self.state().find(&target.bucket, &target.key, generation)?.clone();
        reading::answer(&object, headers)
    }

    fn put(&self, target: &Target, headers: &HeaderMap, received: Received) -> Answer {
        let draft = Draft::whole(received, attributes(headers));
        let mut state = self.state();
        let object = state.place(target.place(), draft, expected(headers)?)?;
        Ok(object.describe(Reply::empty(StatusCode::OK)))
    }

    fn copy(&self, target: &Target, headers: &HeaderMap) -> Answer {
        let source = headers.get(COPY_SOURCE).map(|value| value.to_str().unwrap_or_default()).unwrap_or_default();
        let (bucket, key) = source.split_once('/').ok_or_else(|| Refusal::invalid("the source has no bucket"))?;
        let source = (&*decode(bucket)?, &*decode(key)?);
        let mut state = self.state();
        let object = state.copy(source, target.place(), expected(headers)?)?;
        let modified = object.modified.to_rfc3339();
        let etag = escape(&object.etag);
        let xml =
            format!("<CopyObjectResult><LastModified>{modified}</LastModified><ETag>{etag}</ETag></CopyObjectResult>");
        Ok(Reply::xml(StatusCode::OK, &xml).with("x-goog-generation", &object.generation.to_string()))
    }

    fn delete(&self, target: &Target) -> Answer {
        self.state().delete(&target.bucket, &target.key)?;
        Ok(Reply::empty(StatusCode::NO_CONTENT))
    }

    fn initiate(&self, target: &Target, headers: &HeaderMap) -> Answer {
        let mut state = self.state();
        state.bucket(&target.bucket)?;
        let id = state.uploads.begin(&target.bucket, &target.key, attributes(headers));
        let (bucket, key) = (escape(&target.bucket), escape(&target.key));
        let xml = format!("<Bucket>{bucket}</Bucket><Key>{key}</Key><UploadId>{id}</UploadId>");
        Ok(Reply::xml(StatusCode::OK, &format!("<InitiateMultipartUploadResult>{xml}</InitiateMultipartUploadResult>")))
    }

    fn put_part(&self, target: &Target, received: Received) -> Answer {
        let number = &target.query["partNumber"];
        let number = number.parse().map_err(|_| Refusal::invalid(format!("{number} is not a part number")))?;
        let hash = format!("md5={}", base64(&received.md5));
        let etag = self.state().uploads.put_part(target.place(), &target.query["uploadId"], number, received)?;
        Ok(Reply::empty(StatusCode::OK).with("etag", &etag).with(HASH, &hash))
    }

    fn complete(&self, target: &Target, received: &Received) -> Answer {
        let text = received.text().map_err(|cause| Refusal::invalid(cause.to_string()))?;
        let listed: Listed =
            quick_xml::de::from_str(&text).map_err(|cause| Refusal::new(400, "MalformedXML", cause.to_string()))?;
        let done = self.state().complete(target.place(), &target.query["uploadId"], &listed)?;
        let (bucket, key, etag) = (escape(&target.bucket), escape(&target.key), escape(&done.etag));
        let location = format!("{}/{bucket}/{key}", self.url);
        let xml =
            format!("<Location>{location}</Location><Bucket>{bucket}</Bucket><Key>{key}</Key><ETag>{etag}</ETag>");
        let reply = Reply::xml(
            StatusCode::OK,
            &format!("<CompleteMultipartUploadResult>{xml}</CompleteMultipartUploadResult>"),
        );
        Ok(reply.with("x-goog-generation", &done.generation.to_string()))
    }

    fn abort(&self, target: &Target) -> Answer {
        let mut state = self.state();
        state.bucket(&target.bucket)?;
        state.uploads.abort(target.place(), &target.query["uploadId"]);
        Ok(Reply::empty(StatusCode::NO_CONTENT))
    }
}
