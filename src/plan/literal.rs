//! Literal passwords in a plan: found, so that they can be refused, and starred out of everything that is shown or kept.

use std::ops::Range;

/// What the secret keys of `age` begin with.
const IDENTITY: &str = "AGE-SECRET-KEY-";

/// True if `text` holds a password that is not a `${NAME}`.
pub(super) fn has_password(text: &str) -> bool {
    !find(text).is_empty()
}

/// `text` with a `*` for each byte of a literal password, comments included; every other byte stays where it is.
pub(super) fn star_out(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        for span in find(line) {
            bytes[start + span.start..start + span.end].fill(b'*');
        }
        start += line.len();
    }
    String::from_utf8(bytes).expect("whole characters were replaced")
}

/// The places of the literal passwords.
fn find(text: &str) -> Vec<Range<usize>> {
    let in_credentials = text.match_indices("://").filter_map(|(at, mark)| credentials(text, at + mark.len()));
    let in_query = text.match_indices("password=").map(|(at, mark)| {
        let start = at + mark.len();
        start..until(text, start, &['&', '"', '\'', ' ', '\n'])
    });
    let identities = text.match_indices(IDENTITY).map(|(at, _)| at..until(text, at, &['"', '\'', ' ', '\n']));
    in_credentials
        .chain(in_query)
        .chain(identities)
        .filter(|span| !without_variables(&text[span.clone()]).is_empty())
        .collect()
}

/// The password of a URL whose `://` ends at `start`. A password that was not escaped ends at the last `@` that can be its own.
fn credentials(text: &str, start: usize) -> Option<Range<usize>> {
    // A quote may be part of a password, unless it is the one that holds the URL.
    let scheme = text[..start - 3].trim_end_matches(|c: char| c.is_ascii_alphanumeric() || c == '+');
    let end = match scheme.chars().next_back() {
        Some(quote @ ('"' | '\'')) => until(text, start, &[quote, '\n']),
        Some(_) => until(text, start, &[' ', '"', '\'', '\n']),
        None => text.len(),
    };
    let rest = &text[start..end];
    let first = rest.find('@')?;
    let query = rest[first..].find('?').map_or(rest.len(), |at| first + at);
    let last = rest[..query].rfind('@').unwrap_or(first);
    let colon = rest[..first].find(':')?;
    let port = rest[colon + 1..first].split(['/', '?']).next().unwrap_or_default();
    let is_port = port.len() < first - colon - 1 && port.chars().all(|c| c.is_ascii_digit());
    (!is_port).then_some(start + colon + 1..start + last)
}

fn until(text: &str, start: usize, ends: &[char]) -> usize {
    text[start..].find(ends).map_or(text.len(), |at| start + at)
}

/// What remains of `text` once every `${NAME}` is taken out of it.
fn without_variables(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::new();
    while let Some((before, after)) = rest.split_once("${") {
        let Some((_, after)) = after.split_once('}') else { break };
        kept.push_str(before);
        rest = after;
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(star_out(text), expected);
        assert_eq!(has_password(text), text != expected, "{text}");
    }

    #[test]
    fn passwords_are_starred_and_nothing_else() {
        check("postgresql://u:secret@h/db", "postgresql://u:******@h/db");
        check("a = \"postgresql+asyncpg://u:se'c ret@h/db\" # b", "a = \"postgresql+asyncpg://u:********@h/db\" # b");
        check("# was postgres://u:sürsecret@h/db once", "# was postgres://u:**********@h/db once");
        check("postgresql://u:se@cr@h/db?user=a@b", "postgresql://u:*****@h/db?user=a@b");
        check("postgresql://u:se/cr@h/db", "postgresql://u:*****@h/db");
        check("postgresql://u:se?cr@h/db", "postgresql://u:*****@h/db");
        check("postgresql://u:pre${X}@h/db", "postgresql://u:*******@h/db");
        check("\"${URL}?password=secret&sslmode=require\"", "\"${URL}?password=******&sslmode=require\"");
        check("host=h sslpassword=secret", "host=h sslpassword=******");
        check("encrypt_to = [\"AGE-SECRET-KEY-1QQQ\"]", "encrypt_to = [\"*******************\"]");
        for harmless in [
            "postgresql://u:${PASSWORD}@h/db",
            "postgresql://${USER}:${A}${B}@h/db",
            "postgresql://u:@h/db",
            "postgresql://u@h:5432/db",
            "postgresql://h:5432/db?user=a@b",
            "postgresql://h:5432?user=a@b",
            "${URL}?password=${PASSWORD}",
            "https://example.org/a@b",
            "gs://bucket/prefix",
            "${URL}",
        ] {
            check(harmless, harmless);
        }
    }
}
