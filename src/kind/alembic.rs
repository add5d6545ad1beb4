//! `kind = "alembic"`: revisions as Alembic's own script directory lists them, asked through the step's interpreter without
//! touching a database. `alembic_version` says what a database has; Alembic itself applies what it lacks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Deserialize;
use sqlx::PgConnection;

use crate::outside::child::{self, ChildError};
use crate::outside::interrupt::Interrupt;
use crate::outside::postgres::{PgError, query_error};
use crate::sql::checksum::checksum;
use crate::sql::directives::Budget;

use super::limits::Limits;
use super::program::Surroundings;
use super::{Migration, Turn};

/// Lists all revisions, parents first.
const LIST: &str = r#"
import json, sys
from alembic.config import Config
from alembic.script import ScriptDirectory
scripts = ScriptDirectory.from_config(Config(sys.argv[1]))
down = lambda it: [] if it is None else [it] if isinstance(it, str) else list(it)
found = [
    {"revision": it.revision, "parents": down(it.down_revision), "depends": down(it.dependencies), "path": it.path}
    for it in scripts.walk_revisions()
]
with open(sys.argv[2], "w", encoding="utf-8") as answer:
    json.dump({"revisions": list(reversed(found)), "heads": list(scripts.get_heads())}, answer)
"#;

/// Renders the SQL of each revision that is named, from its parent on.
const RENDER: &str = r#"
import io, json, sys
from alembic import command
from alembic.config import Config
rendered = []
for span in sys.argv[3:]:
    text = io.StringIO()
    command.upgrade(Config(sys.argv[1], output_buffer=text), span, sql=True)
    rendered.append(text.getvalue())
with open(sys.argv[2], "w", encoding="utf-8") as answer:
    json.dump(rendered, answer)
"#;

/// An `alembic` step.
#[derive(Debug, Clone, Default)]
pub struct Alembic {
    /// Where and with what it runs.
    pub surroundings: Surroundings,
    /// The interpreter: a name in PATH, or a path relative to the folder.
    pub interpreter: String,
    /// Alembic's configuration, relative to the folder.
    pub config: String,
    /// Who sends the SQL.
    pub mode: AlembicMode,
    /// The folder as messages call it.
    pub shown: PathBuf,
}

/// `mode` of an `alembic` step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlembicMode {
    /// Alembic itself, over its own connection.
    #[default]
    Online,
    /// We, in a transaction with the ledger row; Alembic renders it.
    Sql,
}

/// What Alembic's script directory holds.
#[derive(Debug, Clone)]
pub struct Revisions {
    /// Parents first.
    pub migrations: Vec<Migration>,
    /// The parents of each revision, and what it depends on.
    parents: BTreeMap<String, Vec<String>>,
}

/// Why there are no revisions to apply.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum AlembicError {
    /// Alembic could not be asked.
    #[error("Alembic cannot be asked for its revisions in {}", shown.display())]
    #[diagnostic(
        code("alembic.list"),
        help("Check `dir`, `config`, `interpreter` and `env`: `python -m alembic heads` must work there.")
    )]
    List {
        /// The folder.
        shown: PathBuf,
        /// Why.
        #[source]
        source: ChildError,
    },
    /// Alembic answered, but not what was asked.
    #[error("Alembic's answer in {} cannot be understood", shown.display())]
    #[diagnostic(code("alembic.answer"), help("Alembic 1.5 or later is needed."))]
    Answer {
        /// The folder.
        shown: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// There is more than one end.
    #[error("Alembic has several heads in {}: {heads}", shown.display())]
    #[diagnostic(code("alembic.heads"), help("Join them with `alembic merge heads`."))]
    Heads {
        /// The folder.
        shown: PathBuf,
        /// Which.
        heads: String,
    },
    /// What Alembic renders for a revision depends on more than one parent.
    #[error("revision `{revision}` cannot be rendered as SQL: it does not follow `{before}` alone")]
    #[diagnostic(
        code("alembic.not_linear"),
        help("Leave `mode = \"sql\"` away: Alembic itself knows its way through branches.")
    )]
    NotLinear {
        /// The revision.
        revision: String,
        /// The one before it.
        before: String,
    },
    /// No file for the answer.
    #[error("there is no temporary file for Alembic's answer")]
    #[diagnostic(code("alembic.exchange"), help("Check that the folder for temporary files can be written."))]
    Exchange {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file of a revision cannot be read.
    #[error("{} cannot be read", path.display())]
    #[diagnostic(code("alembic.file"))]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

#[derive(Deserialize)]
struct Answer {
    revisions: Vec<Listed>,
    heads: Vec<String>,
}

#[derive(Deserialize)]
struct Listed {
    revision: String,
    parents: Vec<String>,
    depends: Vec<String>,
    path: PathBuf,
}

impl Alembic {
    /// The command line that brings a database up to `revision`.
    #[must_use]
    pub fn upgrade(&self, revision: &str) -> Vec<String> {
        let words = [self.interpreter.as_str(), "-m", "alembic", "-c", &self.config, "upgrade", revision];
        words.map(str::to_owned).into()
    }

    /// All revisions. No database is touched.
    ///
    /// # Errors
    /// Alembic cannot be asked, or has several heads.
    pub async fn revisions(&self, interrupt: &Interrupt, limits: &Limits) -> Result<Revisions, AlembicError> {
        let answer: Answer = self.ask(LIST, &[], interrupt, limits).await?;
        if answer.heads.len() > 1 {
            return Err(AlembicError::Heads { shown: self.shown.clone(), heads: answer.heads.join(", ") });
        }
        let mut migrations = Vec::new();
        let mut parents = BTreeMap::new();
        for it in answer.revisions {
            migrations.push(self.migration(&it)?);
            parents.insert(it.revision, [it.parents, it.depends].concat());
        }
        Ok(Revisions { migrations, parents })
    }

    /// The SQL of each of `pending`, in order.
    ///
    /// # Errors
    /// Alembic cannot render it.
    pub async fn render(
        &self,
        revisions: &Revisions,
        pending: &[&str],
        interrupt: &Interrupt,
        limits: &Limits,
    ) -> Result<Vec<String>, AlembicError> {
        self.ask(RENDER, &revisions.spans(pending)?, interrupt, limits).await
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        script: &str,
        more: &[String],
        interrupt: &Interrupt,
        limits: &Limits,
    ) -> Result<T, AlembicError> {
        // Not over its output: that belongs to `env.py` and the revisions, is cut where it is long, and has stars in it.
        let exchange = |source| AlembicError::Exchange { source };
        let answer = tempfile::NamedTempFile::new().map_err(exchange)?;
        let place = answer.path().display().to_string();
        let first = [self.interpreter.as_str(), "-c", script, &self.config, &place].map(str::to_owned);
        let program = self.surroundings.program([&first, more].concat(), limits, None);
        let (_, result) = child::run(&program, interrupt).await;
        result.map_err(|source| AlembicError::List { shown: self.shown.clone(), source })?;
        let text = std::fs::read(answer.path()).map_err(exchange)?;
        serde_json::from_slice(&text).map_err(|source| AlembicError::Answer { shown: self.shown.clone(), source })
    }

    fn migration(&self, it: &Listed) -> Result<Migration, AlembicError> {
        let path = self.surroundings.dir.join(&it.path);
        let text =
            std::fs::read_to_string(&path).map_err(|source| AlembicError::File { path: path.clone(), source })?;
        let shown = path.strip_prefix(&self.surroundings.dir).map_or(path.clone(), |rest| self.shown.join(rest));
        Ok(Migration {
            name: it.revision.clone(),
            path: shown,
            checksum: checksum(&text),
            up: text,
            down: None,
            irreversible: false,
            budget: Budget::default(),
            turn: Turn::default(),
            transactional: self.mode == AlembicMode::Sql,
        })
    }
}

impl Revisions {
    /// What is to be rendered, each as Alembic writes it: `PARENT:REVISION`.
    fn spans(&self, pending: &[&str]) -> Result<Vec<String>, AlembicError> {
        let mut spans: Vec<String> = Vec::new();
        for (at, revision) in pending.iter().enumerate() {
            let parents = self.parents.get(*revision).map(Vec::as_slice).unwrap_or_default();
            let follows = match at.checked_sub(1) {
                Some(before) => parents.iter().map(String::as_str).eq([pending[before]]),
                None => parents.len() < 2,
            };
            if !follows {
                let before = at.checked_sub(1).map_or_else(|| parents.join(", "), |at| pending[at].to_owned());
                return Err(AlembicError::NotLinear { revision: (*revision).to_owned(), before });
            }
            spans.push(format!("{}:{revision}", parents.first().map_or("base", String::as_str)));
        }
        Ok(spans)
    }

    /// Everything that a database has whose `alembic_version` holds `current`.
    ///
    /// # Errors
    /// The first of `current` that the script directory does not have.
    pub fn applied(&self, current: &[String]) -> Result<BTreeSet<String>, String> {
        let mut applied = BTreeSet::new();
        let mut ahead: Vec<String> = current.to_vec();
        while let Some(revision) = ahead.pop() {
            let Some(parents) = self.parents.get(&revision) else { return Err(revision) };
            if applied.insert(revision) {
                ahead.extend(parents.iter().cloned());
            }
        }
        Ok(applied)
    }
}

/// What `alembic_version` holds; nothing if there is no such table.
///
/// # Errors
/// The query failed.
pub async fn current(session: &mut PgConnection) -> Result<Vec<String>, PgError> {
    let there: bool = sqlx::query_scalar("select to_regclass('alembic_version') is not null")
        .fetch_one(&mut *session)
        .await
        .map_err(query_error("looking for alembic_version"))?;
    if !there {
        return Ok(Vec::new());
    }
    sqlx::query_scalar("select version_num::text from alembic_version order by 1")
        .fetch_all(session)
        .await
        .map_err(query_error("reading alembic_version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revisions() -> Revisions {
        let all: [(&str, &[&str]); 5] = [("a", &[]), ("b", &["a"]), ("c", &["a"]), ("m", &["b", "c"]), ("z", &["m"])];
        Revisions {
            migrations: Vec::new(),
            parents: all.iter().map(|(it, up)| ((*it).into(), up.iter().map(|it| (*it).into()).collect())).collect(),
        }
    }

    #[test]
    fn only_what_stands_in_one_row_is_rendered() {
        let spans = |pending: &[&str]| revisions().spans(pending).map_err(|error| error.to_string());
        assert_eq!(spans(&["a", "b"]), Ok(vec!["base:a".to_owned(), "a:b".to_owned()]));
        assert_eq!(spans(&["z"]), Ok(vec!["m:z".to_owned()]));
        let wrong = |revision: &str, before: &str| {
            Err(format!("revision `{revision}` cannot be rendered as SQL: it does not follow `{before}` alone"))
        };
        assert_eq!(spans(&["a", "b", "c", "m"]), wrong("c", "b"));
        assert_eq!(spans(&["m"]), wrong("m", "b, c"));
    }

    #[test]
    fn what_is_applied_follows_from_the_parents() {
        let revisions = revisions();
        let applied = |current: &[&str]| {
            let current: Vec<String> = current.iter().map(|it| (*it).to_owned()).collect();
            revisions.applied(&current).map(|it| it.into_iter().collect::<Vec<_>>().join(" "))
        };
        assert_eq!(applied(&[]), Ok(String::new()));
        assert_eq!(applied(&["c"]), Ok("a c".into()));
        assert_eq!(applied(&["m"]), Ok("a b c m".into()));
        assert_eq!(applied(&["gone"]), Err("gone".into()));
    }
}
