//! What object_store makes of each fault. These are the behaviours that the project's own store code is built around:
//! an answer that is lost after the work was done looks like somebody else's work, and a reset create says nothing.

use super::{BUCKET, GcsServer, ask, quick, store};
use crate::gcs_server::{Action, Fault};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::buffered::BufWriter;
use object_store::gcp::GoogleCloudStorage;
use object_store::path::Path;
use object_store::{ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode, WriteMultipart};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const PART: usize = 5 << 20;
const FOREVER: usize = usize::MAX;

fn key() -> Path {
    Path::from("runs/r1/orders.dump")
}

fn start() -> (GcsServer, GoogleCloudStorage) {
    let server = GcsServer::start();
    let store = store(&server);
    (server, store)
}

async fn create(store: &GoogleCloudStorage) -> object_store::Result<()> {
    store.put_opts(&key(), "ours".into(), PutMode::Create.into()).await.map(drop)
}

/// A client that gives up an attempt after a short while; longer than any answer takes, shorter than any delay here.
fn impatient(server: &GcsServer) -> GoogleCloudStorage {
    let options = ClientOptions::new().with_allow_http(true).with_timeout(Duration::from_millis(500));
    server.client(BUCKET).with_client_options(options).with_retry(quick()).build().unwrap()
}

const LONG: Action = Action::Delay(Duration::from_secs(3600));

#[track_caller]
fn assert_generic<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::Generic { .. })), "{result:?}");
}

#[tokio::test]
async fn an_overwriting_put_is_repeated() {
    let cases = [(Action::Status(503), 2), (Action::Status(429), 2), (Action::Status(408), 1), (Action::Reset, 2)];
    for (action, count) in cases {
        let (server, store) = start();
        server.fault(Fault::times(count, action, "PUT /"));
        store.put(&key(), "ours".into()).await.unwrap();
        assert_eq!(server.log().len(), count + 1, "{action:?}");
        assert_eq!(server.objects(BUCKET), [(key().to_string(), 4)]);
    }
}

#[tokio::test]
async fn a_put_gives_up_in_the_end() {
    let (server, store) = start();
    server.fault(Fault::times(FOREVER, Action::Status(503), "PUT /"));
    assert_generic(store.put(&key(), "ours".into()).await);
    assert_eq!(server.log().len(), 4);
    assert_eq!(server.objects(BUCKET), []);
}

#[tokio::test]
async fn a_forbidden_put_is_not_repeated() {
    let (server, store) = start();
    server.fault(Fault::once(Action::Status(403), "PUT /"));
    let refused = store.put(&key(), "ours".into()).await;
    assert!(matches!(refused, Err(Error::PermissionDenied { .. })), "{refused:?}");
    assert_eq!(server.log().len(), 1);
}

#[tokio::test]
async fn a_create_whose_answer_is_lost_finds_its_own_object() {
    for action in [Action::StatusAfter(503), Action::CloseAfter] {
        let (server, store) = start();
        server.fault(Fault::once(action, "PUT /"));
        let created = create(&store).await;
        assert!(matches!(created, Err(Error::AlreadyExists { .. })), "{action:?}: {created:?}");
        assert_eq!(server.log().len(), 2, "{action:?}");
        assert_eq!(store.get(&key()).await.unwrap().bytes().await.unwrap(), "ours");
    }
}

#[tokio::test]
async fn a_reset_create_is_not_repeated_and_may_have_been_done() {
    for (action, done) in [(Action::Reset, 0), (Action::ResetAfter, 1)] {
        let (server, store) = start();
        server.fault(Fault::once(action, "PUT /"));
        assert_generic(create(&store).await);
        assert_eq!(server.log().len(), 1, "{action:?}");
        assert_eq!(server.objects(BUCKET).len(), done, "{action:?}");
    }
}

#[tokio::test]
async fn a_create_that_times_out_is_not_repeated() {
    let server = GcsServer::start();
    server.fault(Fault::once(LONG, "PUT /"));
    assert_generic(create(&impatient(&server)).await);
    assert_eq!(server.log().len(), 1);
}

#[tokio::test]
async fn an_overwriting_put_that_stalls_is_repeated() {
    let server = GcsServer::start();
    server.fault(Fault::once(LONG, "PUT /"));
    impatient(&server).put(&key(), "ours".into()).await.unwrap();
    assert_eq!(server.log().len(), 2);
}

#[tokio::test]
async fn a_delayed_request_of_a_client_that_hung_up_is_not_carried_out() {
    let (server, patient) = start();
    server.fault(Fault::once(Action::Delay(Duration::from_millis(1500)), "PUT /"));
    // Begun later and delayed for as long: when it is answered, the time of the first is over.
    server.fault(Fault::once(Action::Delay(Duration::from_millis(1500)), "GET /"));
    assert_generic(create(&impatient(&server)).await);
    assert!(patient.get(&key()).await.is_err());
    assert_eq!(server.objects(BUCKET), []);
    assert_eq!(server.clear_faults(), []);
}

#[tokio::test]
async fn a_delete_whose_answer_is_lost_finds_nothing_to_delete() {
    for action in [Action::StatusAfter(503), Action::CloseAfter] {
        let (server, store) = start();
        store.put(&key(), "ours".into()).await.unwrap();
        server.fault(Fault::once(action, "DELETE /"));
        let deleted = store.delete(&key()).await;
        assert!(matches!(deleted, Err(Error::NotFound { .. })), "{action:?}: {deleted:?}");
        assert_eq!(server.objects(BUCKET), []);
    }
}

#[tokio::test]
async fn a_reset_delete_is_not_repeated() {
    let (server, store) = start();
    store.put(&key(), "ours".into()).await.unwrap();
    server.log();
    server.fault(Fault::once(Action::Reset, "DELETE /"));
    assert_generic(store.delete(&key()).await);
    assert_eq!(server.log().len(), 1);
    assert_eq!(server.objects(BUCKET).len(), 1);
}

#[tokio::test]
async fn a_read_that_is_cut_short_is_resumed() {
    let (server, store) = start();
    let bytes = Bytes::from((0..100_000u32).map(|at| at as u8).collect::<Vec<_>>());
    store.put(&key(), bytes.clone().into()).await.unwrap();
    server.log();
    server.fault(Fault::once(Action::Truncate(5000), "GET /"));
    assert_eq!(store.get(&key()).await.unwrap().bytes().await.unwrap(), bytes);
    assert_eq!(server.log().len(), 2);

    server.fault(Fault::once(Action::Truncate(5000), "GET /"));
    let cut = ask(&server, "GET /test-bucket/runs/r1/orders.dump", &[], b"");
    assert!(cut.head.contains("content-length: 100000"), "{}", cut.head);
    assert_eq!(cut.body, bytes[..5000]);
}

#[tokio::test]
async fn reset_reads_and_lists_are_repeated() {
    let (server, store) = start();
    store.put(&key(), "ours".into()).await.unwrap();
    server.fault(Fault::once(Action::Reset, "GET /test-bucket/runs"));
    server.fault(Fault::once(Action::Reset, "GET /test-bucket?list-type=2"));
    assert_eq!(store.get(&key()).await.unwrap().bytes().await.unwrap(), "ours");
    assert_eq!(store.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 1);
    assert_eq!(server.clear_faults(), []);
}

#[tokio::test]
async fn a_flipped_bit_reaches_the_client_unnoticed() {
    let (server, store) = start();
    store.put(&key(), "\0".repeat(1001).into()).await.unwrap();
    server.fault(Fault::once(Action::Flip, "GET /"));
    let read = store.get(&key()).await.unwrap().bytes().await.unwrap();
    assert_eq!(read.len(), 1001);
    assert_eq!(read.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
    let again = store.get(&key()).await.unwrap().bytes().await.unwrap();
    assert_eq!(again, "\0".repeat(1001));
}

#[tokio::test]
async fn a_reset_initiate_may_leave_an_upload_behind() {
    for (action, left) in [(Action::Reset, 0), (Action::ResetAfter, 1)] {
        let (server, store) = start();
        server.fault(Fault::once(action, "?uploads="));
        assert!(store.put_multipart(&key()).await.is_err());
        assert_eq!(server.log().len(), 1);
        assert_eq!(server.live_uploads(), left, "{action:?}");
    }
}

#[tokio::test]
async fn parts_and_completion_are_repeated() {
    for action in [Action::ResetAfter, Action::StatusAfter(503)] {
        let (server, store) = start();
        server.fault(Fault::once(Action::Reset, "partNumber=1"));
        server.fault(Fault::once(action, "POST /test-bucket/runs/r1/orders.dump?uploadId="));
        let mut upload = store.put_multipart(&key()).await.unwrap();
        upload.put_part(vec![1; PART].into()).await.unwrap();
        upload.put_part("tail".into()).await.unwrap();
        upload.complete().await.unwrap();
        assert_eq!(server.clear_faults(), []);
        assert_eq!(server.objects(BUCKET), [(key().to_string(), PART as u64 + 4)]);
        assert_eq!(server.live_uploads(), 0);
    }
}

#[tokio::test]
async fn a_writer_whose_last_part_fails_aborts() {
    let (server, store) = start();
    server.fault(Fault::times(FOREVER, Action::Status(503), "partNumber=2"));
    let mut writer = WriteMultipart::new_with_chunk_size(store.put_multipart(&key()).await.unwrap(), PART);
    writer.write(&vec![1; PART + 1]);
    assert!(writer.finish().await.is_err());
    assert_eq!(server.live_uploads(), 0);
    assert_eq!(server.objects(BUCKET), []);
}

#[tokio::test]
async fn a_buffered_writer_that_is_dropped_leaves_its_upload_behind() {
    let (server, store) = start();
    let mut writer = BufWriter::with_capacity(Arc::new(store), key(), PART);
    writer.write_all(&vec![1; PART + 1]).await.unwrap();
    writer.flush().await.unwrap();
    drop(writer);
    assert_eq!(server.live_uploads(), 1);
}

#[tokio::test]
async fn a_fault_skips_before_it_counts_and_leaves_others_alone() {
    let (server, store) = start();
    let fault = Fault { action: Action::Status(403), pattern: "orders%2Edump".into(), count: 2, skip: 1 };
    server.fault(fault.clone());
    store.put(&Path::from("other"), "x".into()).await.unwrap();
    store.put(&key(), "x".into()).await.unwrap();
    assert!(store.put(&key(), "x".into()).await.is_err());
    assert_eq!(server.clear_faults(), [Fault { count: 1, skip: 0, ..fault }]);
    store.put(&key(), "x".into()).await.unwrap();
}
