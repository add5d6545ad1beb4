//! The digest by which a migration is recognised.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// SHA-256 of a migration's text, in lower-case hex.
///
/// What an editor or git may change by itself does not count: a byte-order mark at the start is left out, and the line
/// ends CRLF and CR are taken as LF. Everything else counts, blanks and comments too, and so does a BEGIN … COMMIT that is
/// left out when the file is sent.
///
/// Where a file holds its own way back, this is the digest of what comes before `-- migrate:down` and the blank lines
/// above it; the way back has a digest of its own. So mending a way back, or adding one, is no drift.
///
/// ```
/// use migrate::sql::checksum::checksum;
///
/// assert_eq!(checksum("\u{feff}select 1;\r\n"), checksum("select 1;\n"));
/// assert_ne!(checksum("select 1;\n"), checksum("select 2;\n"));
/// ```
#[must_use]
pub fn checksum(text: &str) -> String {
    let mut hasher = Sha256::new();
    let mut rest = without_bom(text);
    while let Some(at) = rest.find('\r') {
        hasher.update(&rest[..at]);
        hasher.update("\n");
        rest = rest[at + 1..].strip_prefix('\n').unwrap_or(&rest[at + 1..]);
    }
    hasher.update(rest);
    hex(&hasher.finalize())
}

/// The text without the byte-order mark that some editors put at the start.
#[must_use]
pub fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(a: &str, b: &str, same: bool) {
        assert_eq!(checksum(a) == checksum(b), same, "{a:?} and {b:?}");
    }

    #[test]
    fn it_is_sha_256() {
        assert_eq!(checksum(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(checksum("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn line_ends_and_the_mark_do_not_count() {
        check("a\r\nb\r\n", "a\nb\n", true);
        check("a\rb\r", "a\nb\n", true);
        check("\u{feff}a\r\nb", "a\nb", true);
        check("a\r\r\nb", "a\n\nb", true);
    }

    #[test]
    fn all_else_counts() {
        check("a\nb", "a\nb\n", false);
        check("a b", "a  b", false);
        check("a\n\rb", "a\nb", false);
        check("a\u{feff}", "a", false);
        check("\u{feff}\u{feff}a", "a", false);
        check("select 1", "select 1 -- one", false);
    }

    proptest! {
        #[test]
        fn it_survives_a_checkout_with_other_line_ends(text in "[^\r]*") {
            prop_assert_eq!(checksum(&text), checksum(&text.replace('\n', "\r\n")));
            prop_assert_eq!(checksum(&text), checksum(&text.replace('\n', "\r")));
        }
    }
}
