//! Archives there and back, in pieces of every size, whole and damaged.

use std::io::Read;

use flate2::read::MultiGzDecoder as GzReader;
use futures::stream;
use proptest::prelude::*;

use super::*;
use crate::plan::Compression;

const BOTH: [Compression; 2] = [Compression::Gzip, Compression::Zstd];

async fn packed(compression: Compression, content: &[u8], chunk: usize) -> (Vec<u8>, Digests) {
    let Packing { input, mut output, done } = compress(compression, 2, &[]).expect("nothing random");
    let chunks: Vec<Bytes> = content.chunks(chunk).map(Bytes::copy_from_slice).collect();
    let feeding = tokio::spawn(async move {
        for chunk in chunks {
            input.send(chunk).await.expect("the stage reads");
        }
    });
    let mut stored = Vec::new();
    while let Some(chunk) = output.recv().await {
        stored.extend_from_slice(&chunk);
    }
    feeding.await.expect("no panic");
    (stored, join(done).await.expect("compressed").digests)
}

async fn read_back(compression: Compression, stored: &[u8]) -> Result<Digests, Unreadable> {
    let chunks: Vec<_> = stored.chunks(1000).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    read_through(compression, None, stream::iter(chunks)).await
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
}

fn plain(compression: Compression, stored: &[u8]) -> Vec<u8> {
    let mut back = Vec::new();
    match compression {
        Compression::Gzip => GzReader::new(stored).read_to_end(&mut back).expect("gzip"),
        Compression::Zstd => zstd::Decoder::new(stored).expect("zstd").read_to_end(&mut back).expect("zstd"),
    };
    back
}

#[test]
fn silence_has_an_end() {
    let waited =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(async {
            let (mut to, mut from) = tokio::io::duplex(64);
            tokio::io::AsyncWriteExt::write_all(&mut to, b"PGDMP").await.expect("there is room");
            read_within(Duration::from_millis(1), &mut from).await
        });
    assert_eq!(waited.expect_err("nothing more comes").to_string(), "no byte came for 0 s");
}

/// Several blocks, of which stock tools make one stream again; some cannot be made smaller.
#[test]
fn blocks_are_one_stream() {
    let length = 3 * BLOCK + 17;
    let regular: Vec<u8> = (0..length).map(|n| u8::try_from(n * n / 7 % 251).expect("small")).collect();
    let random: Vec<u8> = rand::random_iter().take(length).collect();
    for (compression, content) in BOTH.iter().flat_map(|it| [(*it, &regular), (*it, &random)]) {
        run(async {
            let (stored, digests) = packed(compression, content, BLOCK).await;
            assert!(plain(compression, &stored) == *content);
            assert_eq!(read_back(compression, &stored).await.expect("readable"), digests);
            let pieces = stored.chunks(999).map(|it| Ok(Bytes::copy_from_slice(it))).collect::<Vec<_>>();
            let (bytes, sha256) = digest_stored(stream::iter(pieces)).await.expect("readable");
            assert_eq!((bytes, sha256), (digests.stored_bytes, digests.stored_sha256));
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_bytes_up_and_down_again_are_equal(content: Vec<u8>, chunk in 1usize..5000, which in 0usize..2) {
        let compression = BOTH[which];
        run(async {
            let (stored, digests) = packed(compression, &content, chunk).await;
            assert_eq!(plain(compression, &stored), content);
            assert_eq!(read_back(compression, &stored).await.expect("readable"), digests);
        });
    }

    #[test]
    fn a_flipped_bit_or_a_missing_end_is_found(
        content in proptest::collection::vec(any::<u8>(), 1..2000), at: usize, bit in 0u8..8, which in 0usize..2
    ) {
        let compression = BOTH[which];
        run(async {
            let (mut stored, digests) = packed(compression, &content, 512).await;
            let at = at % stored.len();
            let cut = read_back(compression, &stored[..at]).await;
            assert!(cut.is_err() || cut.is_ok_and(|it| it != digests));
            stored[at] ^= 1u8 << bit;
            let flipped = read_back(compression, &stored).await;
            assert!(flipped.is_err() || flipped.is_ok_and(|it| it != digests));
        });
    }
}
