//! What the server refuses, and its options: the strictness that makes a passing test mean something.

use super::{BUCKET, GcsServer, Raw, ask, connect, store};
use futures::TryStreamExt;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Attribute, Attributes, Error, GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

const PART: usize = 5 << 20;

#[track_caller]
fn assert_refused(raw: &Raw, status: u16, code: &str) {
    let body = String::from_utf8_lossy(&raw.body);
    assert_eq!(raw.status, status, "{body}");
    assert!(body.contains(&format!("<Code>{code}</Code>")), "{body}");
}

#[track_caller]
fn assert_caused_by<T: std::fmt::Debug>(result: Result<T, Error>, code: &str) {
    let text = format!("{:?}", result.expect_err("the server refuses this"));
    assert!(text.contains(code), "{text}");
}

#[tokio::test]
async fn another_token_is_unauthenticated() {
    let server = GcsServer::builder().token("right").start();
    let right = server.client(BUCKET).build().unwrap();
    right.put(&Path::from("a"), "x".into()).await.unwrap();
    let wrong = server.client(BUCKET).with_bearer_token("wrong").build().unwrap();
    let refused = wrong.get(&Path::from("a")).await.unwrap_err();
    assert!(matches!(refused, Error::Unauthenticated { .. }), "{refused}");
}

#[tokio::test]
async fn retention_forbids_to_replace_and_to_delete() {
    let server = GcsServer::builder().retention().start();
    let (store, key) = (store(&server), Path::from("a"));
    store.put(&key, "first".into()).await.unwrap();
    store.put(&Path::from("b"), "other".into()).await.unwrap();
    let mut upload = store.put_multipart(&key).await.unwrap();
    upload.put_part("third".into()).await.unwrap();
    let refused = [
        store.put(&key, "second".into()).await.map(drop),
        store.copy(&Path::from("b"), &key).await,
        store.delete(&key).await,
    ];
    for refused in refused {
        assert!(matches!(refused, Err(Error::PermissionDenied { .. })), "{refused:?}");
    }
    assert_caused_by(upload.complete().await, "RetentionPolicyNotMet");
    upload.abort().await.unwrap();
    let created = store.put_opts(&key, "second".into(), PutMode::Create.into()).await;
    assert!(matches!(created, Err(Error::AlreadyExists { .. })), "{created:?}");
    assert_eq!(store.get(&key).await.unwrap().bytes().await.unwrap(), "first");
}

#[tokio::test]
async fn a_replaced_generation_is_gone_without_versioning() {
    let server = GcsServer::start();
    let (store, key) = (store(&server), Path::from("a"));
    let first = store.put(&key, "first".into()).await.unwrap();
    let second = store.put(&key, "second".into()).await.unwrap();
    let of = |version| GetOptions::new().with_version(version);
    assert_eq!(store.get_opts(&key, of(second.version)).await.unwrap().bytes().await.unwrap(), "second");
    let gone = store.get_opts(&key, of(first.version)).await.unwrap_err();
    assert!(matches!(gone, Error::NotFound { .. }), "{gone}");
}

#[tokio::test]
async fn an_unknown_bucket_is_not_found() {
    let server = GcsServer::builder().bucket("one").bucket("two").start();
    server.client("two").build().unwrap().put(&Path::from("a"), "x".into()).await.unwrap();
    assert_eq!((server.objects("one").len(), server.objects("two").len()), (0, 1));
    let three = server.client("three").build().unwrap();
    assert_caused_by(three.put(&Path::from("a"), "x".into()).await, "NoSuchBucket");
    assert_caused_by(three.list(None).try_collect::<Vec<ObjectMeta>>().await, "NoSuchBucket");
}

#[tokio::test]
async fn a_multipart_upload_must_fit_together() {
    let server = GcsServer::start();
    let (store, key) = (store(&server), Path::from("a"));
    let id = store.create_multipart(&key).await.unwrap();
    assert_caused_by(store.put_part(&key, &id, 10_000, "x".into()).await, "InvalidArgument");
    assert_caused_by(store.put_part(&Path::from("b"), &id, 0, "x".into()).await, "NoSuchUpload");
    let small = store.put_part(&key, &id, 0, vec![1; PART - 1].into()).await.unwrap();
    let tail = store.put_part(&key, &id, 1, "tail".into()).await.unwrap();
    let complete = async |parts: &[&PartId]| {
        let parts = parts.iter().map(|part| PartId { content_id: part.content_id.clone() }).collect();
        store.complete_multipart(&key, &id, parts).await
    };
    assert_caused_by(complete(&[&small, &tail]).await, "EntityTooSmall");
    assert_caused_by(complete(&[&tail, &small]).await, "InvalidPart");
    let large = store.put_part(&key, &id, 0, vec![2; PART].into()).await.unwrap();
    assert_caused_by(complete(&[&small, &tail]).await, "InvalidPart");
    assert_eq!(server.objects(BUCKET), []);

    let done = complete(&[&large, &tail]).await.unwrap();
    let etag = done.e_tag.clone().unwrap();
    assert!(etag.ends_with("-2\""), "{etag}");
    let again = complete(&[&large, &tail]).await.unwrap();
    assert_eq!((again.e_tag, again.version), (done.e_tag, done.version));
    assert_caused_by(store.put_part(&key, &id, 0, "x".into()).await, "NoSuchUpload");
    store.abort_multipart(&key, &id).await.unwrap();
    assert_eq!(server.objects(BUCKET), [("a".to_owned(), PART as u64 + 4)]);
    // A range over the seam of two parts, one of which lies on disk and one in memory.
    let seam = store.get_range(&key, PART as u64 - 2..PART as u64 + 2).await.unwrap();
    assert_eq!(seam, [2, 2, b't', b'a'][..]);
    let head = ask(&server, "HEAD /test-bucket/a", &[], b"").head;
    assert!(head.contains("x-goog-generation: ") && !head.contains("x-goog-hash"), "{head}");
}

#[tokio::test]
async fn an_aborted_upload_cannot_be_completed() {
    let server = GcsServer::start();
    let (store, key) = (store(&server), Path::from("a"));
    let id = store.create_multipart(&key).await.unwrap();
    let part = store.put_part(&key, &id, 0, "x".into()).await.unwrap();
    assert_eq!(server.live_uploads(), 1);
    store.abort_multipart(&key, &id).await.unwrap();
    store.abort_multipart(&key, &id).await.unwrap();
    assert_eq!(server.live_uploads(), 0);
    assert_caused_by(store.complete_multipart(&key, &id, vec![part]).await, "NoSuchUpload");
}

#[test]
fn parts_that_do_not_ascend_are_refused() {
    let server = GcsServer::start();
    let begun = ask(&server, "POST /test-bucket/a?uploads=", &[], b"");
    let xml = String::from_utf8(begun.body).unwrap();
    let id = xml.split_once("<UploadId>").unwrap().1.split_once('<').unwrap().0;
    let id = id.replace('+', "%2B");
    for (number, status) in [(0, 400), (1, 200), (2, 200), (10_000, 200), (10_001, 400)] {
        let put = ask(&server, &format!("PUT /test-bucket/a?partNumber={number}&uploadId={id}"), &[], b"x");
        assert_eq!(put.status, status, "{number}");
    }
    let part = |number| format!("<Part><ETag>\"e\"</ETag><PartNumber>{number}</PartNumber></Part>");
    let whole = |parts: String| format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    let complete = |xml: &str| ask(&server, &format!("POST /test-bucket/a?uploadId={id}"), &[], xml.as_bytes());
    assert_refused(&complete(&whole(part(2) + &part(1))), 400, "InvalidPartOrder");
    assert_refused(&complete(&whole(part(1) + &part(1))), 400, "InvalidPartOrder");
    assert_refused(&complete(&whole(String::new())), 400, "MalformedXML");
    assert_refused(&complete("<Other/>"), 400, "MalformedXML");
}

#[test]
fn a_digest_that_does_not_fit_is_refused() {
    let server = GcsServer::start();
    let put = |header: &str| ask(&server, "PUT /test-bucket/a", &[header], b"hello");
    assert_refused(&put("content-md5: AAAAAAAAAAAAAAAAAAAAAA=="), 400, "BadDigest");
    assert_refused(&put("x-goog-hash: md5=AAAAAAAAAAAAAAAAAAAAAA=="), 400, "BadDigest");
    assert_refused(&put("x-goog-hash: crc32c=AAAAAA=="), 501, "NotImplemented");
    assert_eq!(server.objects(BUCKET), []);
    let stored = put("content-md5: XUFAKrxLKna5cZ2REBfFkg==");
    assert_eq!(stored.status, 200);
    assert!(stored.head.contains("etag: \"5d41402abc4b2a76b9719d911017c592\""), "{}", stored.head);
    assert!(stored.head.contains("x-goog-hash: md5=xufakrxlkna5cz2rebffkg=="), "{}", stored.head);
}

#[test]
fn what_the_server_does_not_know_is_refused() {
    let server = GcsServer::start();
    let refused =
        |line: &str, headers: &[&str]| assert_refused(&ask(&server, line, headers, b""), 501, "NotImplemented");
    refused("PUT /test-bucket/a?acl=", &[]);
    refused("GET /test-bucket/a?alt=media", &[]);
    refused("GET /test-bucket?list-type=2&versions=", &[]);
    refused("GET /test-bucket", &[]);
    refused("PUT /test-bucket", &[]);
    refused("GET /", &[]);
    refused("PUT /test-bucket/a", &["x-goog-if-metageneration-match: 1"]);
    refused("DELETE /test-bucket/a", &["x-goog-if-generation-match: 1"]);
    refused("POST /test-bucket/a?uploads=", &["x-goog-if-generation-match: 0"]);
    refused("POST /test-bucket/a?uploads=", &["x-goog-hash: md5=AAAAAAAAAAAAAAAAAAAAAA=="]);
    assert_eq!((server.objects(BUCKET).len(), server.live_uploads()), (0, 0));
}

#[test]
fn a_refusal_waits_for_the_body() {
    let server = GcsServer::start();
    // Far more than the sockets hold: if the server closed the connection early, writing would fail.
    let refused = ask(&server, "PUT /test-bucket/a?acl=", &[], &vec![0; 32 << 20]);
    assert_refused(&refused, 501, "NotImplemented");
}

#[test]
fn nonsense_is_refused() {
    let server = GcsServer::start();
    let refused =
        |line: &str, headers: &[&str]| assert_refused(&ask(&server, line, headers, b""), 400, "InvalidArgument");
    refused("PUT /test-bucket/a", &["x-goog-if-generation-match: x"]);
    refused("GET /test-bucket/a?generation=x", &[]);
    refused("GET /test-bucket?list-type=2&list-type=2", &[]);
    refused("GET /test-bucket?list-type=2&max-keys=0", &[]);
    refused("GET /test-bucket?list-type=2&continuation-token=!", &[]);
    refused("PUT /test-bucket/%FF", &[]);
    refused("PUT /test-bucket/a%0Ab", &[]);
    refused(&format!("PUT /test-bucket/{}", "x".repeat(1025)), &[]);
    assert_eq!(ask(&server, "PUT /test-bucket/a", &[], b"0123").status, 200);
    refused("GET /test-bucket/a", &["range: bytes=3-2"]);
    refused("GET /test-bucket/a", &["range: lines=1-2"]);
    let beyond = ask(&server, "GET /test-bucket/a", &["range: bytes=4-"], b"");
    assert_refused(&beyond, 416, "InvalidRange");
}

#[test]
fn half_a_body_is_no_object() {
    let server = GcsServer::start();
    let mut stream = connect(&server);
    let head = "PUT /test-bucket/a HTTP/1.1\r\nhost: x\r\nauthorization: Bearer test\r\ncontent-length: 10\r\n\r\n";
    stream.write_all(format!("{head}01234").as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    // The server has understood when it closes its side.
    stream.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(server.log(), ["PUT /test-bucket/a"]);
    assert_eq!(server.objects(BUCKET), []);
}

#[tokio::test]
async fn odd_keys_come_back_from_a_list_as_they_were_put() {
    let server = GcsServer::start();
    let store = store(&server);
    let keys = ["a&b<c>\"d'.txt", "a+b c%2Fd", "ü#?"].map(|key| Path::parse(key).unwrap());
    for key in &keys {
        store.put(key, "x".into()).await.unwrap();
    }
    let listed: Vec<Path> = store.list(None).map_ok(|it| it.location).try_collect().await.unwrap();
    assert_eq!(listed, keys);
}

#[tokio::test]
async fn prefixes_are_listed_once_however_short_the_pages() {
    let keys = ["a/1", "a/2", "a/3", "b", "c/1", "c/2", "c0", "d"];
    for page_size in 1..=8 {
        let server = GcsServer::builder().page_size(page_size).start();
        let store = store(&server);
        for key in keys {
            store.put(&Path::from(key), "x".into()).await.unwrap();
        }
        server.log();
        let listed = store.list_with_delimiter(None).await.unwrap();
        assert_eq!(listed.common_prefixes, ["a", "c"].map(Path::from));
        let objects: Vec<Path> = listed.objects.into_iter().map(|it| it.location).collect();
        assert_eq!(objects, ["b", "c0", "d"].map(Path::from));
        assert_eq!(server.log().len(), 5_usize.div_ceil(page_size), "pages of {page_size}");
    }
}

#[tokio::test]
async fn a_copy_carries_the_attributes() {
    let server = GcsServer::start();
    let store = store(&server);
    let attributes = Attributes::from_iter([
        (Attribute::ContentType, "application/zstd"),
        (Attribute::Metadata("digest".into()), "sha256:00"),
    ]);
    store.put_opts(&Path::from("a"), "x".into(), PutOptions::from(attributes.clone())).await.unwrap();
    store.copy(&Path::from("a"), &Path::from("b")).await.unwrap();
    assert_eq!(store.get(&Path::from("b")).await.unwrap().attributes, attributes);
}

#[tokio::test]
async fn tampering_leaves_the_description_as_it_was() {
    let server = GcsServer::start();
    let (store, key) = (store(&server), Path::from("a"));
    store.put(&key, "right".into()).await.unwrap();
    let before = store.head(&key).await.unwrap();
    server.tamper(BUCKET, "a", |bytes| bytes[0] = b'l');
    assert_eq!(store.head(&key).await.unwrap(), before);
    assert_eq!(store.get(&key).await.unwrap().bytes().await.unwrap(), "light");
    server.remove(BUCKET, "a");
    assert!(matches!(store.head(&key).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn a_slow_server_takes_its_time() {
    let server = GcsServer::builder().upload_rate(4 << 20).start();
    let begun = Instant::now();
    store(&server).put(&Path::from("a"), vec![0; 2 << 20].into()).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[test]
fn the_environment_leads_a_client_here() {
    let server = GcsServer::start();
    let env = server.env(BUCKET);
    let get = |name| env.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str());
    assert_eq!(get("GOOGLE_BASE_URL"), Some(server.url()));
    assert_eq!(get("GOOGLE_BEARER_TOKEN"), Some("test"));
    assert_eq!(get("NO_PROXY"), Some("127.0.0.1"));
}
