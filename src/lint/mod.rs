//! What is dangerous in migrations, found in their text: no database is asked. `rules` is every rule by name, `text` looks at
//! one migration, `tables` tells which of its statements touch only tables that the file makes itself, `folder` reads a
//! folder's files and looks at all of them.
//!
//! What is harmless is not reported. A file that was edited after it was applied is not found here: only a database knows,
//! and `plan` and `status` ask it.

pub mod folder;
pub mod rules;
mod tables;
pub mod text;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::thread;

use serde::Serialize;

use crate::kind::Migration;
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
    fn new(rule: &'static Rule, file: PathBuf, (line, column): (usize, usize), message: String) -> Self {
        let (severity, help) = (rule.severity, rule.help.to_owned());
        Self { rule: rule.name, severity, file, line, column, message, help }
    }
}

/// Names of rules whose findings are not wanted: those of the plan's `[lint] allow`.
pub type Allowed = BTreeSet<String>;

/// Fewer migrations than this are not worth a second thread.
const FEW: usize = 64;

/// What is dangerous in each of `migrations`, in their order, apart from a missing way back.
#[must_use]
pub fn hazards(migrations: &[&Migration], allowed: &Allowed) -> Vec<Vec<Finding>> {
    side_by_side(migrations, |it| text::findings(it, allowed))
}

/// `work` on each of `items`, in their order, on as many threads as there are processors.
fn side_by_side<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(items.len() / FEW + 1);
    let work = &work;
    thread::scope(|scope| {
        let parts = items.chunks(items.len().div_ceil(threads).max(1));
        let running: Vec<_> =
            parts.map(|part| scope.spawn(move || part.iter().map(work).collect::<Vec<_>>())).collect();
        let ended = running.into_iter().map(|it| it.join());
        ended.flat_map(|it| it.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

#[cfg(test)]
mod tests;
