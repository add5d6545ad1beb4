//! Listing a bucket, page by page.

use super::reply::{Answer, Refusal, Reply, escape};
use super::state::{Bucket, Object};
use base64::prelude::{BASE64_STANDARD, Engine};
use chrono::SecondsFormat;
use hyper::StatusCode;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What is asked for.
pub(super) struct Listing<'a> {
    delimiter: Option<&'a str>,
    prefix: &'a str,
    start_after: Option<&'a str>,
    /// The last item of the page before.
    after_item: Option<String>,
    most: usize,
}

/// A line of the answer; its name is what pages continue from.
enum Item<'a> {
    Object(&'a str, &'a Object),
    Prefix(&'a str),
}

impl<'a> Listing<'a> {
    pub(super) fn parse(query: &'a BTreeMap<String, String>, page_size: usize) -> Result<Self, Refusal> {
        const KNOWN: [&str; 6] = ["list-type", "delimiter", "prefix", "continuation-token", "start-after", "max-keys"];
        if let Some(name) = query.keys().find(|name| !KNOWN.contains(&name.as_str())) {
            return Err(Refusal::not_built(format!("listing with {name}")));
        }
        let get = |name: &str| query.get(name).map(String::as_str);
        if get("list-type") != Some("2") {
            return Err(Refusal::not_built("listing other than list-type=2"));
        }
        Ok(Self {
            delimiter: get("delimiter").filter(|text| !text.is_empty()),
            prefix: get("prefix").unwrap_or_default(),
            start_after: get("start-after"),
            after_item: get("continuation-token").map(item_of_token).transpose()?,
            most: get("max-keys").map_or(Ok(page_size), max_keys)?.min(page_size),
        })
    }

    pub(super) fn answer(&self, bucket: &Bucket) -> Answer {
        let (page, more) = self.page(bucket);
        let mut xml = String::from("<ListBucketResult>");
        for item in &page {
            item.write(&mut xml).expect("writing to a string cannot fail");
        }
        if let Some(last) = page.last().filter(|_| more) {
            let token = BASE64_STANDARD.encode(last.name());
            write!(xml, "<NextContinuationToken>{token}</NextContinuationToken>").expect("as above");
        }
        xml.push_str("</ListBucketResult>");
        Ok(Reply::xml(StatusCode::OK, &xml))
    }

    /// The items of one page in the order of their names, and whether more follow. Cutting keys off at the delimiter
    /// keeps their order, so one comparison with the last item skips all that earlier pages held.
    fn page<'b>(&self, bucket: &'b Bucket) -> (Vec<Item<'b>>, bool) {
        let mut page: Vec<Item> = Vec::new();
        let within = bucket.objects.range(self.prefix.to_owned()..);
        for (key, object) in within.take_while(|(key, _)| key.starts_with(self.prefix)) {
            let item = self.item(key, object);
            let seen = self.start_after.is_some_and(|start| key.as_str() <= start)
                || self.after_item.as_deref().is_some_and(|last| item.name() <= last)
                || page.last().is_some_and(|last| last.name() == item.name());
            if seen {
                continue;
            }
            if page.len() == self.most {
                return (page, true);
            }
            page.push(item);
        }
        (page, false)
    }

    fn item<'b>(&self, key: &'b str, object: &'b Object) -> Item<'b> {
        let rest = &key[self.prefix.len()..];
        match self.delimiter.and_then(|delimiter| Some(rest.find(delimiter)? + delimiter.len())) {
            Some(end) => Item::Prefix(&key[..self.prefix.len() + end]),
            None => Item::Object(key, object),
        }
    }
}

impl Item<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Object(name, _) | Self::Prefix(name) => name,
        }
    }

    fn write(&self, xml: &mut String) -> std::fmt::Result {
        let name = escape(self.name());
        match self {
            Self::Prefix(_) => write!(xml, "<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>"),
            Self::Object(_, object) => {
                let modified = object.modified.to_rfc3339_opts(SecondsFormat::Millis, true);
                let (etag, size) = (escape(&object.etag), object.content.len());
                write!(xml, "<Contents><Key>{name}</Key><LastModified>{modified}</LastModified>")?;
                write!(xml, "<ETag>{etag}</ETag><Size>{size}</Size></Contents>")
            }
        }
    }
}

fn item_of_token(token: &str) -> Result<String, Refusal> {
    let bytes = BASE64_STANDARD.decode(token).ok();
    bytes.and_then(|it| String::from_utf8(it).ok()).ok_or_else(|| Refusal::invalid("not a token of this server"))
}

fn max_keys(text: &str) -> Result<usize, Refusal> {
    text.parse().ok().filter(|most| *most > 0).ok_or_else(|| Refusal::invalid("max-keys must be a number above 0"))
}
