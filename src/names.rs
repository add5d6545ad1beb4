//! The names that every stage uses. Each is made only by checking, so that holding one is proof of its form.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}: {rule}")]
pub struct NameError {
    text: String,
    what: &'static str,
    rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $ok:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks `text` and makes it a name.
            ///
            /// # Errors
            /// The rule that `text` breaks.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                let ok: fn(&str) -> bool = $ok;
                if ok(&text) { Ok(Self(text)) } else { Err(NameError { text, what: $what, rule: $rule }) }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// Letters, digits, `_`, `-` and `.`, starting with a letter or digit: safe as a path segment, an object key and a word
/// in a message.
fn plain(text: &str) -> bool {
    text.len() <= 100
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        && !text.contains("..")
}

name!(
    /// A database of the plan, by the plan's own name for it (`mobius_chat`), not by the name on the server.
    DatabaseName,
    "database name",
    "it may hold letters, digits, `_`, `-` and `.`, and starts with a letter or a digit",
    plain
);
name!(
    /// A step of the plan.
    StepName,
    "step name",
    "it may hold letters, digits, `_`, `-` and `.`, and starts with a letter or a digit",
    plain
);
name!(
    /// A target of the plan: `production`, `clone`, `local`.
    TargetName,
    "target name",
    "it may hold letters, digits, `_`, `-` and `.`, and starts with a letter or a digit",
    plain
);
name!(
    /// A run: `20261121-174311-482k3f`, UTC date, time, milliseconds and three random characters, so that ids sort by
    /// time.
    RunId,
    "run id",
    "it looks like `20261121-174311-482k3f`",
    |text| {
        let bytes = text.as_bytes();
        bytes.len() == 22
            && bytes.iter().enumerate().all(|(at, byte)| match at {
                8 | 15 => *byte == b'-',
                0..=18 => byte.is_ascii_digit(),
                _ => byte.is_ascii_digit() || byte.is_ascii_lowercase(),
            })
    }
);

impl RunId {
    /// A new id for a run that begins `now`.
    #[must_use]
    pub fn generate(now: chrono::DateTime<chrono::Utc>) -> Self {
        const LETTERS: &[u8; 32] =
            b"abcdefghjkmnpqrstuvwxyz0123456789".first_chunk().expect("33 letters are more than 32");
        let tail: String = (0..3).map(|_| char::from(LETTERS[usize::from(rand::random::<u8>()) % 32])).collect();
        Self(format!("{}{tail}", now.format("%Y%m%d-%H%M%S-%3f")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_sort_by_time_and_pass_their_own_check() {
        let at = |ms| chrono::DateTime::from_timestamp_millis(ms).expect("in range");
        let (early, late) = (RunId::generate(at(1_763_746_991_482)), RunId::generate(at(1_763_746_991_483)));
        assert!(early < late, "{early} {late}");
        assert_eq!(RunId::new(early.as_str()).as_ref(), Ok(&early));
        assert_eq!(&early.as_str()[..19], "20251121-174311-482");
    }

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        for bad in ["", ".", "..", "a/b", "-p", "a..b", "ü", "a b"] {
            assert!(DatabaseName::new(bad).is_err(), "{bad:?}");
        }
    }
}
