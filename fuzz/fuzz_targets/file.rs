//! What is read off a migration's file: directives, checksum, and the text that is sent.

#![no_main]

use libfuzzer_sys::fuzz_target;
use migrate_fuzz::sql::checksum::{checksum, without_bom};
use migrate_fuzz::sql::{directives, place, statements, transaction};

fuzz_target!(|text: &str| {
    let digest = checksum(text);
    if !text.starts_with('\u{feff}') {
        assert_eq!(digest, checksum(&format!("\u{feff}{text}")), "a byte-order mark counts");
    }
    if !text.contains('\r') {
        assert_eq!(digest, checksum(&text.replace('\n', "\r\n")), "CRLF counts");
    }
    let _ = directives::allowed(text);
    let _ = directives::refuse_all(text, "a fuzzer");
    if let Ok(parts) = directives::read(text) {
        for part in [Some(&parts.up), parts.down.as_ref()].into_iter().flatten() {
            let part_text = text.get(part.range.clone()).expect("a part lies between characters");
            let again = statements::split(part_text).expect("what was read once");
            assert_eq!(again, part.statements);
        }
    }
    for transactional in [true, false] {
        sent(text, transactional);
    }
});

/// What is sent is as long as what was read, ends every line where it did, and is sent unchanged when it is read again.
fn sent(text: &str, transactional: bool) {
    let Ok(sent) = transaction::sendable(text, transactional) else { return };
    assert_eq!(sent.len(), without_bom(text).len());
    assert_eq!(place::line_column(&sent, sent.len()).0, place::line_column(without_bom(text), usize::MAX).0);
    if transactional && !sent.starts_with('\u{feff}') {
        assert_eq!(transaction::sendable(&sent, true).as_deref(), Ok(sent.as_str()));
    }
}
