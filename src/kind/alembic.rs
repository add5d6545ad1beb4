//! `kind = "alembic"`: revisions as Alembic's own script directory lists them, asked through the step's interpreter without
//! touching a database. `alembic_version` says what a database has; Alembic itself applies what it lacks.

mod error;
mod revisions;
mod version_table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Deserialize;
use sqlx::PgConnection;

use crate::outside::child;
use crate::outside::interrupt::Interrupt;
use crate::outside::postgres::{PgError, made, query_error};
use crate::sql::checksum::checksum;
use crate::sql::directives::Budget;
use crate::sql::quote::literal;
use crate::sql::transaction;

pub use error::AlembicError;
pub use revisions::Revisions;
pub use version_table::VersionTable;

use super::limits::Limits;
use super::program::Surroundings;
use super::{Down, Migration, Turn};
use version_table::Said;

/// Lists all revisions, parents first, and which table says what a database has. That only `env.py` knows: it is run in offline
/// mode, in which it opens no session, with nothing to render; and it is looked through for what it says in online mode.
const LIST: &str = r#"
import ast, io, json, sys, traceback
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
config = Config(sys.argv[1], output_buffer=io.StringIO())
scripts = ScriptDirectory.from_config(config)
answer = {"broken": None, "revisions": [], "heads": [], "learned": None, "said": []}
down = lambda it: [] if it is None else [it] if isinstance(it, str) else list(it)
try:
    found = [
        {"revision": it.revision, "parents": down(it.down_revision), "depends": down(it.dependencies), "path": it.path,
         "goes_down": callable(getattr(it.module, "downgrade", None))}
        for it in scripts.walk_revisions()
    ]
    answer["revisions"], answer["heads"] = list(reversed(found)), list(scripts.get_heads())
except Exception as error:
    answer["broken"] = "".join(traceback.format_exception_only(type(error), error)).strip()

def see(revision, context):
    answer["learned"] = [context.version_table_schema, context.version_table]
    return []

if not answer["broken"]:
    try:
        with EnvironmentContext(config, scripts, fn=see, as_sql=True, destination_rev="head"):
            scripts.run_env()
    except (Exception, SystemExit):
        traceback.print_exc()
    try:
        with open(scripts.env_py_location, "rb") as file:
            calls = [it for it in ast.walk(ast.parse(file.read())) if isinstance(it, ast.Call)]
        for word in (word for it in calls for word in it.keywords if word.arg in ("version_table", "version_table_schema")):
            constant = isinstance(word.value, ast.Constant)
            answer["said"].append({"schema": word.arg == "version_table_schema", "constant": constant,
                                   "value": str(word.value.value) if constant and word.value.value is not None else None})
    except (OSError, SyntaxError):
        traceback.print_exc()
with open(sys.argv[2], "w", encoding="utf-8") as file:
    json.dump(answer, file)
"#;

/// Renders the SQL of each span that is named, up or down. The table that says what a database has may be there already, and
/// stays when it is empty again, as in Alembic's online mode. A way down that cannot be rendered is none; a way up that
/// cannot is an error.
const RENDER: &str = r#"
import io, json, sys, traceback
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy.schema import CreateTable
make = MigrationContext.__init__

def make_and_keep_table(self, *args, **more):
    make(self, *args, **more)
    if self.as_sql:
        self._version.create = lambda *_, **__: self.impl._exec(CreateTable(self._version, if_not_exists=True))
        self._version.drop = lambda *_, **__: None

MigrationContext.__init__ = make_and_keep_table
rendered = []
for span in sys.argv[4:]:
    text = io.StringIO()
    try:
        getattr(command, sys.argv[3])(Config(sys.argv[1], output_buffer=text), span, sql=True)
        rendered.append(text.getvalue())
    except (Exception, SystemExit):
        if sys.argv[3] == "upgrade":
            raise
        traceback.print_exc()
        rendered.append(None)
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

#[derive(Deserialize)]
struct Answer {
    broken: Option<String>,
    revisions: Vec<Listed>,
    heads: Vec<String>,
    learned: Option<(Option<String>, String)>,
    said: Vec<Said>,
}

#[derive(Deserialize)]
struct Listed {
    revision: String,
    parents: Vec<String>,
    depends: Vec<String>,
    path: PathBuf,
    goes_down: bool,
}

impl Alembic {
    /// The command line that brings a database up to `revision`.
    #[must_use]
    pub fn upgrade(&self, revision: &str) -> Vec<String> {
        self.alembic("upgrade", revision)
    }

    /// The command line that takes a database back to `revision`, or to `base`.
    #[must_use]
    pub fn downgrade(&self, revision: &str) -> Vec<String> {
        self.alembic("downgrade", revision)
    }

    fn alembic(&self, command: &str, revision: &str) -> Vec<String> {
        let words = [self.interpreter.as_str(), "-m", "alembic", "-c", &self.config, command, revision];
        words.map(str::to_owned).into()
    }

    /// All revisions. No database is touched.
    ///
    /// # Errors
    /// Alembic cannot be asked, or has several heads.
    pub async fn revisions(&self, interrupt: &Interrupt, limits: &Limits) -> Result<Revisions, AlembicError> {
        let answer: Answer = self.ask(LIST, &[], interrupt, limits).await?;
        let shown = || self.shown.clone();
        if let Some(message) = answer.broken {
            return Err(AlembicError::Broken { shown: shown(), message });
        }
        if answer.heads.len() > 1 {
            return Err(AlembicError::Heads { shown: shown(), heads: answer.heads.join(", ") });
        }
        let version_table = VersionTable::of(answer.learned, &answer.said);
        let version_table = version_table.map_err(|reason| AlembicError::VersionTable { shown: shown(), reason })?;
        let (mut migrations, mut parents, mut go_down) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        for it in answer.revisions {
            migrations.push(self.migration(&it)?);
            if it.goes_down && self.mode == AlembicMode::Online {
                go_down.insert(it.revision.clone());
            }
            parents.insert(it.revision, [it.parents, it.depends].concat());
        }
        Ok(Revisions { migrations, version_table, parents, go_down })
    }

    /// Gives the revisions at `pending` the way back that Alembic renders, each where it can. In online mode nothing is
    /// rendered: Alembic itself takes them back.
    ///
    /// # Errors
    /// Alembic cannot be asked.
    pub async fn add_ways_back(
        &self,
        revisions: &mut Revisions,
        pending: &[usize],
        interrupt: &Interrupt,
        limits: &Limits,
    ) -> Result<(), AlembicError> {
        let names: Vec<String> = pending.iter().map(|at| revisions.migrations[*at].name.clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        // What does not stand in one row cannot be applied in this mode, and is refused there by name.
        let (AlembicMode::Sql, Ok(spans), false) = (self.mode, revisions.spans(&names), names.is_empty()) else {
            return Ok(());
        };
        let turned = spans.iter().filter_map(|span| span.split_once(':')).map(|(parent, it)| format!("{it}:{parent}"));
        let words: Vec<String> = std::iter::once("downgrade".to_owned()).chain(turned).collect();
        let texts: Vec<Option<String>> = self.ask(RENDER, &words, interrupt, limits).await?;
        for (at, text) in pending.iter().zip(texts) {
            let unit = &mut revisions.migrations[*at];
            unit.down = text.and_then(|text| way_back(unit, &revisions.version_table, &text));
        }
        Ok(())
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
        let words = [vec!["upgrade".to_owned()], revisions.spans(pending)?].concat();
        self.ask(RENDER, &words, interrupt, limits).await
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

/// The rendered way back, if it can be sent in one transaction. Alembic's own statement on the version table changes nothing
/// where the database has gone on by other hands, and would not say so.
fn way_back(unit: &Migration, table: &VersionTable, text: &str) -> Option<Down> {
    let text = transaction::sendable(text, true).ok()?;
    let is_there = format!("SELECT FROM {} WHERE version_num = {}", table.quoted(), literal(&unit.name));
    let message = literal(&format!("{table} does not have {}: the database has gone on", unit.name).replace('%', "%%"));
    let text = format!(
        "DO $migrate$ BEGIN IF NOT EXISTS ({is_there}) THEN RAISE EXCEPTION {message}; END IF; END $migrate$;\n{text}"
    );
    let path = unit.path.with_extension("py.down.sql");
    let checksum = checksum(&text);
    Some(Down { path, text, checksum, first_line: 1, transactional: true, budget: Budget::default() })
}

/// What `alembic_version`, or the table in its place, holds; nothing if there is no such table.
///
/// # Errors
/// The query failed.
pub async fn current(session: &mut PgConnection, table: &VersionTable) -> Result<Vec<String>, PgError> {
    let there: bool = sqlx::query_scalar("select to_regclass($1) is not null")
        .bind(table.quoted())
        .fetch_one(&mut *session)
        .await
        .map_err(query_error(format!("looking for {table}")))?;
    if !there {
        return Ok(Vec::new());
    }
    sqlx::query_scalar(made(format!("select version_num::text from {} order by 1", table.quoted())))
        .fetch_all(session)
        .await
        .map_err(query_error(format!("reading {table}")))
}
