//! Multipart uploads: parts that belong to no object until the upload is completed.

use super::content::{Blob, Content, Digest16, Received, digest, hex};
use super::reply::Refusal;
use super::state::{Draft, State};
use hyper::HeaderMap;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

const SMALLEST_PART: u64 = 5 << 20;
const MOST_PARTS: u32 = 10_000;

#[derive(Default)]
pub(super) struct Uploads {
    live: HashMap<String, Upload>,
    finished: HashMap<String, Finished>,
    begun: u64,
}

struct Upload {
    bucket: String,
    key: String,
    attributes: HeaderMap,
    parts: BTreeMap<u32, Part>,
}

struct Part {
    blob: Arc<Blob>,
    md5: Digest16,
    etag: String,
}

/// What completing an upload made, kept so that a repeated request gets the same answer.
#[derive(Clone)]
pub(super) struct Finished {
    bucket: String,
    key: String,
    pub(super) etag: String,
    pub(super) generation: u64,
}

/// The body of the request that completes an upload.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename = "CompleteMultipartUpload")]
pub(super) struct Listed {
    #[serde(rename = "Part", default)]
    parts: Vec<ListedPart>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct ListedPart {
    #[serde(rename = "ETag")]
    etag: String,
    part_number: u32,
}

impl Uploads {
    pub(super) fn begin(&mut self, bucket: &str, key: &str, attributes: HeaderMap) -> String {
        self.begun += 1;
        // Base64 of the real ones may hold `+`, `/`, and `=`: a client must encode them in the query.
        let id = format!("up+load/{:04}==", self.begun);
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.live.insert(id.clone(), Upload { bucket, key, attributes, parts: BTreeMap::new() });
        id
    }

    /// Stores a part, in place of an earlier one with the same number, and returns its ETag.
    pub(super) fn put_part(
        &mut self,
        of: (&str, &str),
        id: &str,
        number: u32,
        received: Received,
    ) -> Result<String, Refusal> {
        let upload = self.live.get_mut(id).filter(|it| it.is_of(of)).ok_or_else(|| no_upload(id))?;
        if !(1..=MOST_PARTS).contains(&number) {
            return Err(Refusal::invalid(format!("part number {number} is not within 1..=10000")));
        }
        let etag = format!("\"{}\"", hex(&received.md5));
        upload.parts.insert(number, Part { blob: received.blob, md5: received.md5, etag: etag.clone() });
        Ok(etag)
    }

    /// Throws an upload away. One that is gone already is no error.
    pub(super) fn abort(&mut self, of: (&str, &str), id: &str) {
        if self.live.get(id).is_some_and(|it| it.is_of(of)) {
            self.live.remove(id);
        }
    }

    pub(super) fn live(&self) -> usize {
        self.live.len()
    }
}

impl State {
    pub(super) fn complete(&mut self, of: (&str, &str), id: &str, listed: &Listed) -> Result<Finished, Refusal> {
        if let Some(done) = self.uploads.finished.get(id).filter(|it| (&*it.bucket, &*it.key) == of) {
            return Ok(done.clone());
        }
        let upload = self.uploads.live.get(id).filter(|it| it.is_of(of)).ok_or_else(|| no_upload(id))?;
        let draft = upload.assemble(listed)?;
        let placed = self.place(of, draft, None)?;
        let finished = Finished {
            bucket: of.0.to_owned(),
            key: of.1.to_owned(),
            etag: placed.etag.clone(),
            generation: placed.generation,
        };
        self.uploads.live.remove(id);
        self.uploads.finished.insert(id.to_owned(), finished.clone());
        Ok(finished)
    }
}

impl Upload {
    fn is_of(&self, (bucket, key): (&str, &str)) -> bool {
        self.bucket == bucket && self.key == key
    }

    fn assemble(&self, listed: &Listed) -> Result<Draft, Refusal> {
        if listed.parts.is_empty() {
            return Err(Refusal::new(400, "MalformedXML", "an upload of no parts cannot be completed"));
        }
        if !listed.parts.is_sorted_by(|a, b| a.part_number < b.part_number) {
            return Err(Refusal::new(400, "InvalidPartOrder", "part numbers must ascend"));
        }
        let parts = listed.parts.iter().map(|part| self.listed(part)).collect::<Result<Vec<_>, _>>()?;
        if parts[..parts.len() - 1].iter().any(|part| part.blob.len() < SMALLEST_PART) {
            return Err(Refusal::new(400, "EntityTooSmall", "a part that is not the last has less than 5 MiB"));
        }
        let digests: Vec<u8> = parts.iter().flat_map(|part| part.md5).collect();
        Ok(Draft {
            content: Content::of(parts.iter().map(|part| part.blob.clone())),
            etag: format!("\"{}-{}\"", hex(&digest(&digests)), parts.len()),
            md5: None,
            attributes: self.attributes.clone(),
        })
    }

    fn listed(&self, listed: &ListedPart) -> Result<&Part, Refusal> {
        let found = self.parts.get(&listed.part_number).filter(|part| part.etag == listed.etag);
        found.ok_or_else(|| {
            let ListedPart { part_number, etag } = listed;
            Refusal::new(400, "InvalidPart", format!("there is no part {part_number} with the ETag {etag}"))
        })
    }
}

fn no_upload(id: &str) -> Refusal {
    Refusal::new(404, "NoSuchUpload", format!("there is no upload {id} of this object"))
}
