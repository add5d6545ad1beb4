//! What the tables of a plan file may hold: a struct for each, as serde reads it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use toml::Spanned;

use super::hooks::Moment;
use super::section::with_help;
use super::{Compression, OnFailure, Retention, When};
use crate::kind::alembic::AlembicMode;
use crate::kind::command::RunWhen;
use crate::names::{DatabaseName, StepName, TargetName};
use crate::sql::duration;

/// The keys at the top; those of [`IgnoredAny`] are read on their own, under names that messages can use.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Top {
    #[serde(rename = "version")]
    _version: IgnoredAny,
    pub(super) name: String,
    pub(super) default_target: Option<Spanned<TargetName>>,
    #[serde(rename = "store")]
    _store: Option<IgnoredAny>,
    #[serde(rename = "targets")]
    _targets: Option<IgnoredAny>,
    #[serde(rename = "run")]
    _run: Option<IgnoredAny>,
    #[serde(rename = "lint")]
    _lint: Option<IgnoredAny>,
    #[serde(rename = "databases")]
    _databases: Option<IgnoredAny>,
    #[serde(rename = "steps")]
    _steps: Option<IgnoredAny>,
    #[serde(rename = "checks")]
    _checks: Option<IgnoredAny>,
    #[serde(rename = "hooks")]
    _hooks: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoreTable {
    pub(super) url: Option<Spanned<String>>,
    pub(super) compression: Option<Compression>,
    #[serde(default)]
    pub(super) encrypt_to: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) retention: Retention,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunTable {
    pub(super) freeze: Option<Spanned<FreezeWord>>,
    pub(super) on_failure: Option<OnFailure>,
    pub(super) parallel: Option<Spanned<u32>>,
    pub(super) jobs: Option<Spanned<u32>>,
    pub(super) memory: Option<Spanned<Size>>,
    #[serde(default)]
    pub(super) drill: bool,
    pub(super) lock_timeout: Option<Wait>,
    pub(super) lock_retries: Option<u32>,
    pub(super) statement_timeout: Option<Time>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LintTable {
    #[serde(default)]
    pub(super) allow: Vec<Spanned<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FreezeWord {
    None,
    ReadOnly,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetTable {
    #[serde(default)]
    pub(super) protected: bool,
    #[serde(default)]
    pub(super) disposable: bool,
    pub(super) databases: Spanned<BTreeMap<Spanned<DatabaseName>, Spanned<String>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DatabaseTable {
    pub(super) owner: Option<String>,
    #[serde(default)]
    pub(super) extensions: Vec<String>,
    #[serde(default)]
    pub(super) standby: bool,
}

/// What every step has, and what only its kind has.
#[derive(Debug)]
pub(super) struct StepTable {
    pub(super) name: Spanned<StepName>,
    pub(super) database: Spanned<DatabaseName>,
    pub(super) after: Vec<Spanned<StepName>>,
    pub(super) lock_timeout: Option<Wait>,
    pub(super) statement_timeout: Option<Time>,
    pub(super) work: Work,
}

#[derive(Debug)]
pub(super) enum Work {
    Sql {
        dir: Spanned<String>,
    },
    Refinery {
        dir: Spanned<String>,
    },
    Copy {
        from: TableTable,
        to: Spanned<String>,
        key: Spanned<Vec<String>>,
        omit: Vec<Spanned<String>>,
    },
    Alembic {
        setting: SettingKeys,
        interpreter: Option<Spanned<String>>,
        config: Option<Spanned<String>>,
        mode: AlembicMode,
    },
    Python {
        setting: SettingKeys,
        interpreter: Option<Spanned<String>>,
        modules: Option<Spanned<Vec<Spanned<String>>>>,
        order_file: Option<Spanned<String>>,
        entry: Option<Spanned<String>>,
    },
    Command {
        setting: SettingKeys,
        argv: Spanned<Vec<Spanned<String>>>,
        run: RunWhen,
        inputs: Vec<Spanned<String>>,
        probe: Option<Spanned<String>>,
    },
}

/// Where and with what a program of a step runs.
#[derive(Debug)]
pub(super) struct SettingKeys {
    pub(super) dir: Option<Spanned<String>>,
    pub(super) env: BTreeMap<Spanned<String>, Spanned<String>>,
    pub(super) timeout: Option<Time>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum StepKind {
    Sql,
    Refinery,
    Alembic,
    Python,
    Command,
    Copy,
}

/// The keys of a step of kind `sql` or `refinery`. The common ones stand in each struct: `serde(flatten)` would lose the places
/// of errors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FilesStep {
    pub(super) name: Spanned<StepName>,
    pub(super) database: Spanned<DatabaseName>,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    #[serde(default)]
    pub(super) after: Vec<Spanned<StepName>>,
    pub(super) lock_timeout: Option<Wait>,
    pub(super) statement_timeout: Option<Time>,
    pub(super) dir: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CopyStep {
    pub(super) name: Spanned<StepName>,
    pub(super) database: Spanned<DatabaseName>,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    #[serde(default)]
    pub(super) after: Vec<Spanned<StepName>>,
    pub(super) lock_timeout: Option<Wait>,
    pub(super) statement_timeout: Option<Time>,
    pub(super) from: TableTable,
    pub(super) to: ToTable,
    pub(super) key: Spanned<Vec<String>>,
    #[serde(default)]
    pub(super) omit: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AlembicStep {
    pub(super) name: Spanned<StepName>,
    pub(super) database: Spanned<DatabaseName>,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    #[serde(default)]
    pub(super) after: Vec<Spanned<StepName>>,
    pub(super) lock_timeout: Option<Wait>,
    pub(super) statement_timeout: Option<Time>,
    pub(super) dir: Spanned<String>,
    #[serde(default)]
    pub(super) env: BTreeMap<Spanned<String>, Spanned<String>>,
    pub(super) timeout: Option<Time>,
    pub(super) interpreter: Option<Spanned<String>>,
    pub(super) config: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) mode: AlembicMode,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PythonStep {
    pub(super) name: Spanned<StepName>,
    pub(super) database: Spanned<DatabaseName>,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    #[serde(default)]
    pub(super) after: Vec<Spanned<StepName>>,
    pub(super) lock_timeout: Option<Wait>,
    pub(super) statement_timeout: Option<Time>,
    pub(super) dir: Spanned<String>,
    #[serde(default)]
    pub(super) env: BTreeMap<Spanned<String>, Spanned<String>>,
    pub(super) timeout: Option<Time>,
    pub(super) interpreter: Option<Spanned<String>>,
    pub(super) modules: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) order_file: Option<Spanned<String>>,
    pub(super) entry: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommandStep {
    pub(super) name: Spanned<StepName>,
    pub(super) database: Spanned<DatabaseName>,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    #[serde(default)]
    pub(super) after: Vec<Spanned<StepName>>,
    pub(super) lock_timeout: Option<Wait>,
    pub(super) statement_timeout: Option<Time>,
    pub(super) dir: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) env: BTreeMap<Spanned<String>, Spanned<String>>,
    pub(super) timeout: Option<Time>,
    pub(super) argv: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    pub(super) run: RunWhen,
    #[serde(default)]
    pub(super) inputs: Vec<Spanned<String>>,
    pub(super) probe: Option<Spanned<String>>,
}

/// `{ database = "…", table = "…" }`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TableTable {
    pub(super) database: Spanned<DatabaseName>,
    pub(super) table: Spanned<String>,
}

/// `{ table = "…" }`: the database is the step's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ToTable {
    pub(super) table: Spanned<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CheckKind {
    Sync,
    Sql,
    Http,
    Command,
    Git,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckTable {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) when: When,
    #[serde(rename = "kind")]
    _kind: IgnoredAny,
    pub(super) owner: Option<String>,
    pub(super) source: TableTable,
    pub(super) target: TableTable,
    pub(super) key: Spanned<Vec<String>>,
    #[serde(default)]
    pub(super) compare: Vec<String>,
    pub(super) min_rows: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HookTable {
    pub(super) on: Spanned<Moment>,
    pub(super) argv: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) http: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    pub(super) timeout: Option<Time>,
}

/// A duration as it is written in a plan: `"4s"`, `"500ms"`, `"2m"`, `"1h"`, `"0"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Time(pub(super) Duration);

/// Bytes as they are written in a plan: `"256MiB"`, `"1GiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Size(pub(super) u64);

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number = |unit: &str| text.strip_suffix(unit).filter(|it| it.bytes().all(|byte| byte.is_ascii_digit()));
        let in_units = |(unit, bytes): (&str, u64)| number(unit)?.parse::<u64>().ok()?.checked_mul(bytes);
        let size = [("MiB", 1 << 20), ("GiB", 1 << 30)].into_iter().find_map(in_units);
        size.map(Self).ok_or_else(|| {
            let help = "Write a whole number and `MiB` or `GiB`, as in `256MiB`.";
            with_help(format_args!("`{text}` is not a size"), help)
        })
    }
}

/// A [`Time`] that ends: one that a statement may wait for a lock, with every other query on the table behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Wait(pub(super) Duration);

impl TryFrom<String> for Time {
    type Error = NotATime;

    fn try_from(text: String) -> Result<Self, NotATime> {
        duration::parse(&text).map(Self).ok_or(NotATime::Unreadable(text))
    }
}

impl TryFrom<String> for Wait {
    type Error = NotATime;

    fn try_from(text: String) -> Result<Self, NotATime> {
        let Time(time) = Time::try_from(text.clone())?;
        if time.is_zero() { Err(NotATime::Endless(text)) } else { Ok(Self(time)) }
    }
}

pub(super) enum NotATime {
    Unreadable(String),
    Endless(String),
}

impl fmt::Display for NotATime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Unreadable(text) => {
                let help = format!("{} `\"0\"` is for ever.", duration::HELP);
                with_help(format_args!("`{text}` is not a duration"), &help)
            }
            Self::Endless(text) => with_help(
                format_args!("`{text}` would wait for ever"),
                "Write how long a statement may wait for a lock, as in `\"4s\"`: every query that comes after it waits behind it.",
            ),
        };
        f.write_str(&text)
    }
}

/// The words that every step and every check begins with, read before the rest so that messages can use them.
#[derive(Deserialize)]
pub(super) struct Head<K> {
    pub(super) kind: Option<Spanned<K>>,
}
