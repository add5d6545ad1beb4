//! What is dangerous in migrations, found in their text: no database is asked. `rules` is every rule by name, `text` looks at
//! one migration, `tables` tells which of its statements touch only tables that the file makes itself, `folder` reads a
//! folder's files and looks at all of them.
//!
//! What is harmless is not reported. That a file was edited after it was applied, only a database knows: `run` asks it, and
//! words the finding by [`edited_since`].

pub mod folder;
pub mod rules;
mod tables;
pub mod text;

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Serialize;

use crate::kind::Migration;
use crate::kind::side_by_side::side_by_side;
use rules::Rule;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It fails, loses data, or stops others for as long as the table is big.
    Error,
    /// Clients may trip over it, or there is a better way.
    Warning,
}

impl Severity {
    /// `error`, `warning`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that a rule found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's name.
    pub rule: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The file, as shown in messages.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What was found.
    pub message: String,
    /// What to do instead.
    pub help: String,
}

impl Finding {
    /// Whether it is about a file that was read to its end.
    #[must_use]
    pub fn was_understood(&self) -> bool {
        self.severity == Severity::Warning || rules::named(self.rule).is_some_and(Rule::allowable)
    }

    fn new(rule: &'static Rule, file: PathBuf, (line, column): (usize, usize), message: String) -> Self {
        let (severity, help) = (rule.severity, rule.help.to_owned());
        Self { rule: rule.name, severity, file, line, column, message, help }
    }
}

/// Names of rules whose findings are not wanted: those of the plan's `[lint] allow`.
pub type Allowed = BTreeSet<String>;

/// A file that is not what was applied.
#[must_use]
pub fn edited_since(file: PathBuf, message: &str) -> Finding {
    let rule = rules::named(rules::EDITED).expect("it is in the table");
    Finding::new(rule, file, (1, 1), message.to_owned())
}

/// What is dangerous in each of `migrations`, in their order, apart from a missing way back.
#[must_use]
pub fn hazards(migrations: &[&Migration], allowed: &Allowed) -> Vec<Vec<Finding>> {
    side_by_side(migrations, |it| text::findings(it, allowed))
}

#[cfg(test)]
mod tests;
