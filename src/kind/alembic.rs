//! `kind = "alembic"`: revisions as Alembic's own script directory lists them, asked through the step's interpreter without
//! touching a database. `alembic_version` says what a database has; Alembic itself applies what it lacks.

mod version_table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Deserialize;
use sqlx::PgConnection;

use crate::outside::child::{self, ChildError};
use crate::outside::interrupt::Interrupt;
use crate::outside::postgres::{PgError, made, query_error};
use crate::sql::checksum::checksum;
use crate::sql::directives::Budget;
use crate::sql::transaction;

pub use version_table::VersionTable;

use super::limits::Limits;
use super::program::Surroundings;
use super::{Down, Migration};
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

/// What Alembic's script directory holds.
#[derive(Debug, Clone)]
pub struct Revisions {
    /// Parents first.
    pub migrations: Vec<Migration>,
    /// The table that says what a database has.
    pub version_table: VersionTable,
    /// The parents of each revision, and what it depends on.
    parents: BTreeMap<String, Vec<String>>,
    /// Those that Alembic itself can take back: they have a `downgrade()`.
    go_down: BTreeSet<String>,
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
    /// A file is not what Alembic understands.
    #[error("Alembic cannot read its revisions in {}: {message}", shown.display())]
    #[diagnostic(code("alembic.broken"), help("Correct the file: `python -m alembic history` must work there."))]
    Broken {
        /// The folder.
        shown: PathBuf,
        /// What Python said.
        message: String,
    },
    /// What a database has cannot be known.
    #[error("{}: it cannot be told in which table Alembic keeps its version: {reason}", shown.join("env.py").display())]
    #[diagnostic(
        code("alembic.version_table"),
        help(
            "Give `version_table` and `version_table_schema` as the same constants to every `context.configure` in `env.py`, \
             offline and online."
        )
    )]
    VersionTable {
        /// The folder.
        shown: PathBuf,
        /// Why.
        reason: String,
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
            unit.down = text.and_then(|text| way_back(unit, &text));
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
            transactional: self.mode == AlembicMode::Sql,
        })
    }
}

/// The rendered way back, if it can be sent in one transaction.
fn way_back(unit: &Migration, text: &str) -> Option<Down> {
    let text = transaction::sendable(text, true).ok()?;
    let path = unit.path.with_extension("py.down.sql");
    let checksum = checksum(&text);
    Some(Down { path, text, checksum, first_line: 1, transactional: true, budget: Budget::default() })
}

impl AlembicError {
    /// Whether a signal to us ended the question.
    #[must_use]
    pub fn is_interruption(&self) -> bool {
        matches!(self, Self::List { source: ChildError::Interrupted(_), .. })
    }

    /// Whether the folder is to blame, as a bad file of any other kind would be.
    #[must_use]
    pub fn is_about_files(&self) -> bool {
        matches!(self, Self::Heads { .. } | Self::Broken { .. } | Self::VersionTable { .. } | Self::File { .. })
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

    /// Whether Alembic itself can take a revision back.
    #[must_use]
    pub fn goes_down(&self, revision: &str) -> bool {
        self.go_down.contains(revision)
    }

    /// Where Alembic has to go so that of `mine` nothing is left and of everything else nothing is lost: a revision, or
    /// `base`. None: nothing of `mine` is applied any more.
    ///
    /// # Errors
    /// There is no such place, in words.
    pub fn way_down(&self, current: &[String], mine: &BTreeSet<String>) -> Result<Option<String>, String> {
        let unknown = |it| format!("Alembic can't locate the database's revision `{it}`");
        let applied = self.applied(current).map_err(unknown)?;
        let mine: BTreeSet<&String> = applied.intersection(mine).collect();
        let rest: BTreeSet<&String> = applied.iter().filter(|it| !mine.contains(it)).collect();
        let of = |it: &String| self.parents.get(it).map(Vec::as_slice).unwrap_or_default();
        if let Some(later) = rest.iter().find(|it| of(it).iter().any(|parent| mine.contains(parent))) {
            return Err(format!("revision `{later}` stands on it, and is not of this run"));
        }
        let under = |it: &String| rest.iter().any(|other| of(other).contains(it));
        let heads: Vec<&&String> = rest.iter().filter(|it| !under(it)).collect();
        match heads.as_slice() {
            _ if mine.is_empty() => Ok(None),
            [] => Ok(Some("base".into())),
            [head]
                if mine
                    .iter()
                    .all(|it| self.applied(std::slice::from_ref(*it)).is_ok_and(|all| all.contains(**head))) =>
            {
                Ok(Some((**head).clone()))
            }
            _ => Err("the database was on several branches before it, and one downgrade does not lead there".into()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn revisions() -> Revisions {
        let all: [(&str, &[&str]); 5] = [("a", &[]), ("b", &["a"]), ("c", &["a"]), ("m", &["b", "c"]), ("z", &["m"])];
        Revisions {
            migrations: Vec::new(),
            version_table: VersionTable::default(),
            go_down: BTreeSet::new(),
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

    #[test]
    fn a_way_down_takes_back_what_is_meant_and_nothing_else() {
        let revisions = revisions();
        let way = |current: &str, mine: &[&str]| {
            let mine = mine.iter().map(|it| (*it).to_owned()).collect();
            revisions.way_down(&[current.to_owned()], &mine)
        };
        assert_eq!(way("b", &["b"]), Ok(Some("a".into())));
        assert_eq!(way("b", &["a", "b"]), Ok(Some("base".into())));
        assert_eq!(way("m", &["m", "b", "c"]), Ok(Some("a".into())));
        assert_eq!(way("a", &["b"]), Ok(None));
        assert!(way("m", &["m"]).expect_err("two heads before").contains("several branches"));
        assert!(way("m", &["b", "m"]).is_err_and(|why| why.contains("several branches")), "c stays, a goes with b");
        assert!(way("z", &["m"]).expect_err("z is above").contains("`z` stands on it"));
        assert!(way("gone", &["m"]).expect_err("unknown").contains("can't locate"));
    }
}
