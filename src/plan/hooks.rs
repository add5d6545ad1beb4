//! `[[hooks]]`: what is told, or started, once something has happened. Their variables are looked up when they are needed: one that
//! is not set must not stand between a responder and a rollback.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::file::PlanFile;
use super::problem::{PlanError, Problem};
use super::programs::sounds_secret;
use super::tables::{HookTable, Time};

/// How long a hook may take, unless it says so.
const TIMEOUT: Duration = Duration::from_secs(60);

/// When a hook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Moment {
    /// Databases went back, by themselves or by hand.
    Rollback,
    /// A release succeeded.
    Success,
    /// A release that had begun failed.
    Failure,
    /// Databases are about to be cut off from whoever uses them.
    Freeze,
    /// They can be reached again.
    Unfreeze,
}

impl Moment {
    /// The word for it, as in the plan.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Freeze => "freeze",
            Self::Unfreeze => "unfreeze",
        }
    }
}

/// `[[hooks]]`, with `${NAME}` as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// When.
    pub on: Moment,
    /// What.
    pub call: Call,
    /// How long it may take.
    pub timeout: Duration,
}

/// What a hook does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Starts a program, where `migrate` was started.
    Program {
        /// It, and its arguments.
        argv: Vec<String>,
        /// Its environment, beside what every program gets.
        env: BTreeMap<String, String>,
    },
    /// Sends what happened to a URL, as JSON.
    Http {
        /// The URL.
        url: String,
    },
}

/// What must hold of the hooks.
pub(super) fn consistent(plan: &PlanFile) -> Result<(), PlanError> {
    plan.hooks.iter().try_for_each(|it| {
        let wrong = |message: String, help: &str, span| {
            let problem = Problem::Value { place: "a hook".into(), message, help: help.to_owned() };
            Err(PlanError::new(&plan.source, span, problem))
        };
        match (&it.argv, &it.http) {
            (Some(argv), None) if argv.get_ref().is_empty() => {
                wrong("`argv` is empty".into(), "Write the program and its arguments.", argv.span())
            }
            (Some(argv), None) => {
                argv.get_ref().iter().find(|word| names(word.get_ref()).any(sounds_secret)).map_or(Ok(()), |word| {
                    let help = "Every user of the machine can read arguments: give it in `env`.";
                    wrong(format!("`{}` would put a secret among the arguments", word.get_ref()), help, word.span())
                })
            }
            (None, Some(url)) if !it.env.is_empty() => wrong("`env` is for a program".into(), "Remove it.", url.span()),
            (None, Some(_)) => Ok(()),
            _ => wrong("it has both `argv` and `http`, or neither".into(), "Write one of the two.", it.on.span()),
        }
    })
}

/// The variables that a text names.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split("${").skip(1).filter_map(|rest| rest.split('}').next())
}

/// The hooks of a file that is consistent.
pub(super) fn of(tables: Vec<HookTable>) -> Vec<Hook> {
    tables.into_iter().map(hook).collect()
}

fn hook(table: HookTable) -> Hook {
    let call = match (table.argv, table.http) {
        (_, Some(url)) => Call::Http { url: url.into_inner() },
        (argv, None) => Call::Program {
            argv: argv.map(Spanned::into_inner).into_iter().flatten().map(Spanned::into_inner).collect(),
            env: table.env,
        },
    };
    Hook { on: table.on.into_inner(), call, timeout: table.timeout.map_or(TIMEOUT, |Time(it)| it) }
}
