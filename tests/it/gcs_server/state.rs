//! The buckets and what may be done to them. Everything here happens under one lock and is pure: preconditions are
//! checked and the change is made in one step, which is what the callers' create-only protocols rely on.

use super::content::{Content, Digest16, Received, base64, hex};
use super::reply::{Refusal, Reply};
use super::uploads::Uploads;
use chrono::{DateTime, TimeDelta, Utc};
use hyper::HeaderMap;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone)]
pub(super) struct Object {
    pub(super) content: Content,
    pub(super) etag: String,
    /// Only of objects that came in one piece, as in the real store.
    pub(super) md5: Option<Digest16>,
    pub(super) generation: u64,
    pub(super) modified: DateTime<Utc>,
    pub(super) attributes: HeaderMap,
}

/// An object that has no place yet, and therefore no generation and no time.
pub(super) struct Draft {
    pub(super) content: Content,
    pub(super) etag: String,
    pub(super) md5: Option<Digest16>,
    pub(super) attributes: HeaderMap,
}

impl Draft {
    pub(super) fn whole(received: Received, attributes: HeaderMap) -> Self {
        let etag = format!("\"{}\"", hex(&received.md5));
        Self { content: Content::of([received.blob]), etag, md5: Some(received.md5), attributes }
    }
}

impl Object {
    /// The headers that every answer about an object carries.
    pub(super) fn describe(&self, reply: Reply) -> Reply {
        let reply = reply.with("etag", &self.etag).with("x-goog-generation", &self.generation.to_string());
        match &self.md5 {
            Some(md5) => reply.with("x-goog-hash", &format!("md5={}", base64(md5))),
            None => reply,
        }
    }
}

#[derive(Default)]
pub(super) struct Bucket {
    pub(super) objects: BTreeMap<String, Object>,
    /// Replaced and deleted objects, kept only by a server with versioning.
    older: Vec<(String, Object)>,
}

/// How the buckets of this server are set up.
#[derive(Clone, Copy, Default)]
pub(super) struct Policy {
    pub(super) retention: bool,
    pub(super) versioning: bool,
}

pub(super) struct State {
    buckets: BTreeMap<String, Bucket>,
    pub(super) uploads: Uploads,
    policy: Policy,
    /// Objects under a temporary hold, by bucket and key.
    pub(super) held: BTreeSet<(String, String)>,
    last_generation: u64,
}

impl State {
    pub(super) fn new(buckets: &[String], policy: Policy) -> Self {
        let buckets = buckets.iter().map(|name| (name.clone(), Bucket::default())).collect();
        // Generations of the real store are microseconds since 1970: sixteen digits, more than 32 bits hold.
        Self {
            buckets,
            uploads: Uploads::default(),
            policy,
            held: BTreeSet::new(),
            last_generation: 1_760_000_000_000_000,
        }
    }

    pub(super) fn bucket(&self, name: &str) -> Result<&Bucket, Refusal> {
        self.buckets.get(name).ok_or_else(|| no_bucket(name))
    }

    pub(super) fn bucket_mut(&mut self, name: &str) -> Result<&mut Bucket, Refusal> {
        self.buckets.get_mut(name).ok_or_else(|| no_bucket(name))
    }

    pub(super) fn find(&self, bucket: &str, key: &str, generation: Option<u64>) -> Result<&Object, Refusal> {
        let bucket = self.bucket(bucket)?;
        let current = bucket.objects.get(key);
        let found = match generation {
            None => current,
            Some(wanted) => {
                let older = bucket.older.iter().filter(|(older, _)| older == key).map(|(_, object)| object);
                older.chain(current).find(|object| object.generation == wanted)
            }
        };
        found.ok_or_else(|| no_key(key))
    }

    /// Puts an object in its place; `expected` is the generation that must be there, 0 for none.
    pub(super) fn place(
        &mut self,
        (bucket, key): (&str, &str),
        draft: Draft,
        expected: Option<u64>,
    ) -> Result<&Object, Refusal> {
        let present = self.bucket(bucket)?.objects.get(key).map_or(0, |object| object.generation);
        if expected.is_some_and(|expected| expected != present) {
            return Err(Refusal::new(412, "PreconditionFailed", format!("the generation of {key} is {present}")));
        }
        if self.policy.retention && present != 0 {
            return Err(retained(key));
        }
        self.last_generation += 1;
        let Draft { content, etag, md5, attributes } = draft;
        let generation = self.last_generation;
        let object = Object { content, etag, md5, generation, modified: Utc::now(), attributes };
        self.retire(bucket, key)?;
        Ok(self.bucket_mut(bucket)?.objects.entry(key.to_owned()).or_insert(object))
    }

    pub(super) fn copy(
        &mut self,
        from: (&str, &str),
        to: (&str, &str),
        expected: Option<u64>,
    ) -> Result<&Object, Refusal> {
        // A missing source is reported before a failed precondition.
        let Object { content, etag, md5, attributes, .. } = self.find(from.0, from.1, None)?.clone();
        self.place(to, Draft { content, etag, md5, attributes }, expected)
    }

    pub(super) fn delete(&mut self, bucket: &str, key: &str) -> Result<(), Refusal> {
        self.find(bucket, key, None)?;
        if self.policy.retention {
            return Err(retained(key));
        }
        if self.is_held(bucket, key) {
            return Err(Refusal::new(403, "ObjectUnderActiveHold", format!("{key} is under an active temporary hold")));
        }
        self.retire(bucket, key)
    }

    fn is_held(&self, bucket: &str, key: &str) -> bool {
        self.held.contains(&(bucket.to_owned(), key.to_owned()))
    }

    /// What the JSON API tells of what keeps an object.
    pub(super) fn holds(&self, bucket: &str, key: &str) -> Result<serde_json::Value, Refusal> {
        let object = self.find(bucket, key, None)?;
        let mut told = serde_json::Map::new();
        if self.is_held(bucket, key) {
            let _ = told.insert("temporaryHold".into(), true.into());
        }
        if self.policy.retention {
            let until = (object.modified + TimeDelta::days(30)).to_rfc3339();
            let _ = told.insert("retentionExpirationTime".into(), until.into());
        }
        Ok(told.into())
    }

    fn retire(&mut self, bucket: &str, key: &str) -> Result<(), Refusal> {
        let versioning = self.policy.versioning;
        let bucket = self.bucket_mut(bucket)?;
        let gone = bucket.objects.remove(key);
        bucket.older.extend(gone.filter(|_| versioning).map(|object| (key.to_owned(), object)));
        Ok(())
    }
}

fn no_bucket(name: &str) -> Refusal {
    Refusal::new(404, "NoSuchBucket", format!("there is no bucket {name}"))
}

fn no_key(key: &str) -> Refusal {
    Refusal::new(404, "NoSuchKey", format!("there is no object {key}"))
}

fn retained(key: &str) -> Refusal {
    Refusal::new(403, "RetentionPolicyNotMet", format!("{key} is under retention"))
}
