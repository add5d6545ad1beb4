//! Versions of `migrate`. What it stores says by which version it was written, and in which format; what a later one wrote in a
//! format that this one does not know is refused by name, and never guessed at.

use serde::Deserialize;

/// The version of this program.
pub const THIS: &str = env!("CARGO_PKG_VERSION");

/// Something stored is of a format that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
#[error("{what} was written by migrate {} in format {format}, and this version ({THIS}) reads formats up to {known}", self.writer())]
#[diagnostic(code("version.newer"), help("Use {}{otherwise}.", self.remedy()))]
pub struct Newer {
    /// The object in the store, or the file.
    pub what: String,
    /// The version that wrote it, if it says so.
    pub by: Option<String>,
    /// Its format.
    pub format: u64,
    /// The latest format that this version reads.
    pub known: u32,
    /// What else can be done, as the end of a sentence; empty: nothing.
    pub otherwise: &'static str,
}

impl Newer {
    fn writer(&self) -> &str {
        self.by.as_deref().unwrap_or("of a later version")
    }

    fn remedy(&self) -> String {
        self.by.as_ref().map_or_else(|| "a later version".into(), |by| format!("migrate {by} or a later one"))
    }

    /// With another way out, as the end of a sentence.
    #[must_use]
    pub fn or(self, otherwise: &'static str) -> Self {
        Self { otherwise, ..self }
    }
}

/// What every version and every format begins with. The first versions wrote no `tool_version`.
#[derive(Deserialize)]
struct Head {
    format: u64,
    #[serde(default)]
    tool_version: Option<String>,
}

/// Refuses JSON of a format past `known`. What has no format at all is left to whoever reads it in full.
///
/// # Errors
/// [`Newer`].
pub fn known(text: &[u8], what: impl Into<String>, known: u32) -> Result<(), Newer> {
    match serde_json::from_slice::<Head>(text) {
        Ok(Head { format, tool_version }) if format > u64::from(known) => {
            Err(Newer { what: what.into(), by: tool_version, format, known, otherwise: "" })
        }
        _ => Ok(()),
    }
}

/// Whether `other` is a later version than this one. What is no version is none.
#[must_use]
pub fn is_later(other: &str) -> bool {
    numbers(other).zip(numbers(THIS)).is_some_and(|(other, this)| other > this)
}

/// `1.20.3`, with whatever follows the third number left out.
fn numbers(version: &str) -> Option<[u64; 3]> {
    let plain = version.split(['-', '+']).next()?;
    let mut numbers = plain.split('.').map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    Some([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert_eq!(numbers("0.10.2-rc.1+x"), Some([0, 10, 2]));
        assert!(numbers("0.10.2") > numbers("0.9.20"));
        assert!(is_later("1000.0.0") && !is_later(THIS) && !is_later("0.0.1") && !is_later("next"));
    }

    #[test]
    fn a_later_format_is_refused_with_the_version_that_reads_it() {
        assert_eq!(known(br#"{"format": 3}"#, "x", 3), Ok(()));
        assert_eq!(known(b"[]", "x", 3), Ok(()));
        let newer = known(br#"{"format": 4, "tool_version": "9.1.0", "rest": []}"#, "runs/x", 3).expect_err("newer");
        assert_eq!(
            newer.to_string(),
            format!("runs/x was written by migrate 9.1.0 in format 4, and this version ({THIS}) reads formats up to 3")
        );
        let help = |it: Newer| miette::Diagnostic::help(&it).map(|it| it.to_string());
        assert_eq!(help(newer.clone()).as_deref(), Some("Use migrate 9.1.0 or a later one."));
        let nobody = Newer { by: None, ..newer }.or(", or look yourself");
        assert_eq!(help(nobody).as_deref(), Some("Use a later version, or look yourself."));
    }
}
