//! Archives as `pg_dump` writes them, whole and broken, in pieces of every size.

use proptest::prelude::*;

use super::*;

/// Writes as `pg_dump` does, with integers of four bytes and offsets of eight.
struct Written(Vec<u8>, u8);

impl Written {
    fn int(&mut self, value: i32) -> &mut Self {
        self.0.push(u8::from(value < 0));
        self.0.extend_from_slice(&value.unsigned_abs().to_le_bytes());
        self
    }

    fn text(&mut self, text: Option<&str>) -> &mut Self {
        self.int(text.map_or(-1, |it| i32::try_from(it.len()).expect("short")));
        self.0.extend_from_slice(text.unwrap_or_default().as_bytes());
        self
    }

    fn head(minor: u8, entries: i32) -> Self {
        let mut to = Self(MAGIC.to_vec(), minor);
        to.0.extend_from_slice(&[1, minor, 0, 4, 8, 1]);
        if minor >= 15 {
            to.0.push(0);
        } else {
            to.int(0);
        }
        for it in [1, 2, 3, 4, 5, 126, 0] {
            to.int(it);
        }
        to.text(Some("mobius")).text(Some("15.20")).text(Some("15.20")).int(entries);
        to
    }

    fn entry(&mut self, id: i32, kind: &str, schema: Option<&str>, tag: &str) {
        self.int(id).int(1).text(Some("1259")).text(Some("16385")).text(Some(tag)).text(Some(kind)).int(3);
        self.text(None).text(None).text(Some("COPY …")).text(schema).text(None).text(Some("heap"));
        if self.1 >= 16 {
            self.int(114);
        }
        self.text(Some("release")).text(Some("false")).text(Some("7")).text(Some("8")).text(None);
        self.0.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    fn data(&mut self, id: i32, chunks: &[&str]) {
        self.0.push(BLOCK_DATA);
        self.int(id);
        for chunk in chunks {
            self.text(Some(chunk));
        }
        self.int(0);
    }

    fn large_objects(&mut self, id: i32, objects: &[(i32, &str)]) {
        self.0.push(BLOCK_LARGE_OBJECTS);
        self.int(id);
        for (oid, body) in objects {
            self.int(*oid).text(Some(body)).int(0);
        }
        self.int(0);
    }
}

fn archive(minor: u8) -> Vec<u8> {
    let mut to = Written::head(minor, 5);
    to.entry(10, "TABLE", Some("public"), "a");
    to.entry(11, "TABLE DATA", Some("public"), "a");
    to.entry(12, "TABLE DATA", Some("Sch öma"), "b c");
    to.entry(13, "BLOBS", None, "BLOBS");
    to.entry(14, "SEQUENCE SET", Some("public"), "s");
    to.data(12, &["1\tx\n", "2\t\\\\.\n3\t", "y\n", "\\.\n\n\n"]);
    to.large_objects(13, &[(77, "\\.\nbody"), (78, "more")]);
    to.data(11, &["\\.\n\n\n"]);
    to.0
}

fn read(bytes: &[u8], chunk: usize) -> Result<Vec<Passed>, CustomError> {
    let mut reader = Reader::<Counting>::default();
    bytes.chunks(chunk).try_for_each(|it| reader.push(it))?;
    reader.finish()
}

#[test]
fn rows_are_counted_whatever_the_pieces() {
    for minor in KNOWN {
        let archive = archive(minor);
        let whole = read(&archive, usize::MAX).expect("an archive");
        let found: Vec<_> = whole.iter().map(|it| (it.schema.as_str(), it.name.as_str(), it.rows)).collect();
        assert_eq!(found, [("Sch öma", "b c", 3), ("public", "a", 0)]);
        let expected = ["1\tx", "2\t\\\\.", "3\ty"]
            .iter()
            .fold(0u128, |sum, line| sum.wrapping_add(twox_hash::XxHash3_128::oneshot(line.as_bytes())));
        assert_eq!(whole[0].hash, format!("{expected:032x}"));
        assert_eq!(whole[1].hash, "0".repeat(32));
        for chunk in 1..60 {
            assert_eq!(read(&archive, chunk).expect("an archive"), whole, "in pieces of {chunk}");
        }
    }
}

fn rewritten(bytes: &[u8], chunk: usize, owner: &str) -> Result<Vec<u8>, CustomError> {
    let mut rewriting = Rewriting::new(|entry: &Entry<'_>| Rewritten {
        definition: (entry.kind == b"SEQUENCE SET").then(|| b"select 1".to_vec()),
        owner: (entry.owner == b"release").then(|| owner.as_bytes().to_vec()),
    });
    let parts: Result<Vec<Vec<u8>>, CustomError> = bytes.chunks(chunk).map(|it| rewriting.push(it)).collect();
    assert!(parts.is_err() || rewriting.is_over());
    Ok(parts?.concat())
}

/// Notes what entries say, and lets nothing else through.
#[derive(Default)]
struct Noting(Vec<(String, String)>);

impl Watches for Noting {
    fn entry(&mut self, entry: &Entry<'_>) {
        let text = |it: &[u8]| String::from_utf8(it.to_vec()).expect("UTF-8");
        self.0.push((text(entry.definition), text(entry.owner)));
    }
    fn begin(&mut self, _id: i64) {}
    fn body(&mut self, _bytes: &[u8]) {}
    fn end(&mut self) -> Result<(), CustomError> {
        Ok(())
    }
}

#[test]
fn texts_of_any_length_are_put_in_place_of_others() {
    for minor in KNOWN {
        let archive = archive(minor);
        for owner in ["", "x", "release", "somebody with quite another name"] {
            let whole = rewritten(&archive, usize::MAX, owner).expect("an archive");
            for chunk in 1..60 {
                assert_eq!(rewritten(&archive, chunk, owner).expect("an archive"), whole, "in pieces of {chunk}");
            }
            assert_eq!(read(&whole, 9).expect("an archive"), read(&archive, 9).expect("an archive"));
            let mut reader = Reader::<Noting>::default();
            reader.push(&whole).expect("an archive");
            let said: Vec<_> = reader.watcher.0.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            assert_eq!(said, [("", owner), ("", owner), ("", owner), ("", owner), ("select 1", owner)]);
        }
    }
}

#[test]
fn every_missing_end_is_found() {
    let archive = archive(14);
    let ends_of_blocks = (0..archive.len()).filter(|end| read(&archive[..*end], 7).is_ok()).count();
    // After the table of contents, and after each of the first two blocks: what is missing there is missing from the tables.
    assert_eq!(ends_of_blocks, 3);
}

#[test]
fn what_is_no_archive_or_of_another_version_says_so() {
    assert_eq!(read(b"", 1), Err(CustomError::NoArchive));
    assert_eq!(read(b"PGDX", 1), Err(CustomError::NoArchive));
    assert_eq!(read(b"-- a plain dump", 3), Err(CustomError::NoArchive));
    assert_eq!(read(&Written::head(13, 1).0, 9), Err(CustomError::Version { major: 1, minor: 13 }));
    assert_eq!(read(&Written::head(17, 1).0, 9), Err(CustomError::Version { major: 1, minor: 17 }));
}

proptest! {
    #[test]
    fn no_bytes_are_too_much(mut bytes: Vec<u8>, at: usize, chunk in 1usize..40, real: bool) {
        if real {
            let mut archive = archive(16);
            let at = at % archive.len();
            archive.splice(at..at, bytes.iter().copied());
            bytes = archive;
        }
        let _ = read(&bytes, chunk);
        let mut rewriting = Rewriting::new(|_: &Entry<'_>| Rewritten { definition: None, owner: Some(b"x".to_vec()) });
        let _ = bytes.chunks(chunk).try_for_each(|it| rewriting.push(it).map(drop));
    }

    #[test]
    fn the_order_of_rows_does_not_matter(mut rows in proptest::collection::vec("[a-z]{0,12}", 0..20)) {
        let of = |rows: &[String]| {
            let mut to = Written::head(15, 1);
            to.entry(1, "TABLE DATA", Some("public"), "t");
            let lines: Vec<String> = rows.iter().map(|it| format!("{it}\n")).chain(["\\.\n".into()]).collect();
            to.data(1, &lines.iter().map(String::as_str).collect::<Vec<_>>());
            read(&to.0, 11).expect("an archive")
        };
        let first = of(&rows);
        rows.reverse();
        prop_assert_eq!(of(&rows), first);
    }
}
