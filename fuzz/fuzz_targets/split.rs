//! Tokens and statements of any text, by us and by PostgreSQL.

#![no_main]

use libfuzzer_sys::fuzz_target;
use migrate_fuzz::compare;

fuzz_target!(|text: &str| {
    check(text, compare::places(text));
    // PostgreSQL's text ends at a NUL; a byte-order mark is left out before a text is sent.
    if !text.contains(['\0', '\u{feff}']) {
        check(text, compare::tokens(text));
        check(text, compare::statements(text).map(drop));
    }
});

fn check(text: &str, found: Result<(), String>) {
    if let Err(found) = found {
        panic!("{found}\n{text:?}");
    }
}
