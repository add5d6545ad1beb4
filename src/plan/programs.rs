//! Steps that run a program: their environment and arguments expanded for one target, their files read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;

use super::expand::{Environment, expand};
use super::file::PlanFile;
use super::literal;
use super::problem::{PlanError, Problem};
use super::tables::{SettingKeys, StepTable, Time, Work};
use crate::kind::Kind;
use crate::kind::alembic::Alembic;
use crate::kind::command::{self, Command};
use crate::kind::program::Surroundings;
use crate::kind::python::{self, Python};
use crate::outside::secret::Secret;
use crate::outside::url::{DatabaseUrl, VARIABLES, percent_encode};

/// What a step's program finds in its environment although the step does not say so.
const PASSED_ON: [&str; 3] = ["PATH", "HOME", "LANG"];
/// What a step may say of its database.
const PARTS: [&str; 6] = ["url", "host", "port", "user", "password", "dbname"];
/// The interpreter, unless the step names one.
const PYTHON: &str = "python3";

/// What a step's program may refer to: `${url}` and its parts are the step's database, everything else the environment.
struct Scope<'a> {
    file: &'a PlanFile,
    step: String,
    root: &'a Path,
    url: &'a DatabaseUrl,
    all: Environment,
    /// As `all`, but what is put on a command line is seen by every user of the machine.
    public: Environment,
}

impl PlanFile {
    /// The work of a step that runs a program; none for the other kinds.
    pub(super) fn read_program(
        &self,
        root: &Path,
        table: &StepTable,
        url: &DatabaseUrl,
        env: &Environment,
    ) -> Result<Option<Kind>, PlanError> {
        let mut all = env.clone();
        // Not what the environment happens to call by the same name, where the URL has no such part.
        PARTS.iter().for_each(|name| drop(all.remove(*name)));
        let mut public = all.clone();
        all.extend(parts(url, url.as_given().expose(), true));
        public.extend(parts(url, &url.without_password(), false));
        let scope = Scope { file: self, step: format!("step `{}`", table.name), root, url, all, public };
        Ok(Some(match &table.work {
            Work::Sql { .. } | Work::Refinery { .. } | Work::Copy { .. } => return Ok(None),
            Work::Alembic { setting, interpreter, config, mode } => Kind::Alembic(Alembic {
                surroundings: scope.surroundings(setting)?,
                interpreter: word(interpreter.as_ref(), PYTHON),
                config: word(config.as_ref(), "alembic.ini"),
                mode: *mode,
                shown: PathBuf::from(word(setting.dir.as_ref(), ".")),
            }),
            Work::Python { .. } => scope.python(table)?,
            Work::Command { .. } => scope.command(table)?,
        }))
    }
}

/// `${url}`, `${host}` and the others.
fn parts(url: &DatabaseUrl, whole: &str, with_password: bool) -> BTreeMap<String, String> {
    let mut parts = BTreeMap::from([
        ("url".to_owned(), whole.to_owned()),
        ("host".to_owned(), url.host().to_owned()),
        ("port".to_owned(), url.port().to_string()),
        ("dbname".to_owned(), url.dbname().to_owned()),
    ]);
    parts.extend(url.user().map(|user| ("user".to_owned(), user.to_owned())));
    let password = url.password().filter(|_| with_password).map(|it| it.expose().to_owned());
    parts.extend(password.map(|password| ("password".to_owned(), password)));
    parts
}

fn word(typed: Option<&Spanned<String>>, default: &str) -> String {
    typed.map_or_else(|| default.to_owned(), |it| it.get_ref().clone())
}

impl Scope<'_> {
    fn folder(&self, dir: Option<&Spanned<String>>) -> Result<PathBuf, PlanError> {
        let Some(dir) = dir else { return Ok(self.root.to_owned()) };
        let folder = self.root.join(dir.get_ref());
        if folder.is_dir() {
            return Ok(folder);
        }
        let step = self.step.trim_start_matches("step `").trim_end_matches('`').to_owned();
        let problem = Problem::NoFolder { step, dir: dir.get_ref().clone(), root: self.root.to_owned() };
        Err(PlanError::new(&self.file.source, dir.span(), problem))
    }

    fn surroundings(&self, setting: &SettingKeys) -> Result<Surroundings, PlanError> {
        let mut env: BTreeMap<String, Secret> = BTreeMap::new();
        // A program that uses libpq protects its sessions as our environment says, where its URL is silent.
        for name in PASSED_ON.into_iter().chain(VARIABLES.map(|(variable, _)| variable)) {
            env.extend(self.all.get(name).map(|value| (name.to_owned(), Secret::new(value))));
        }
        env.entry("LANG".into()).or_insert_with(|| Secret::new("C.UTF-8"));
        let mut secrets = self.database_secrets();
        for (name, template) in &setting.env {
            let value = Secret::new(expand(&self.file.source, template, &self.step, &self.all)?);
            if sounds_secret(name.get_ref()) {
                secrets.push(value.clone());
            }
            env.insert(name.get_ref().clone(), value);
        }
        let timeout = setting.timeout.map(|Time(it)| it).filter(|it| !it.is_zero());
        Ok(Surroundings { dir: self.folder(setting.dir.as_ref())?, env, secrets, timeout })
    }

    /// The arguments of a command, expanded; none of them holds a password.
    fn arguments(&self, argv: &[Spanned<String>]) -> Result<Vec<String>, PlanError> {
        let mut expanded = Vec::new();
        for word in argv {
            let with_password = || {
                let problem = Problem::PasswordInArguments { step: self.step.clone(), word: word.get_ref().clone() };
                PlanError::new(&self.file.source, word.span(), problem)
            };
            if word.get_ref().contains("${password}") {
                return Err(with_password());
            }
            let text = expand(&self.file.source, word, &self.step, &self.public)?;
            // The variable that holds a database's URL holds its password too.
            if literal::has_password(&text) || self.names_password(word.get_ref()) {
                return Err(with_password());
            }
            expanded.push(text);
        }
        Ok(expanded)
    }

    /// Whether `word` refers to a variable of the environment that holds the step's password.
    fn names_password(&self, word: &str) -> bool {
        let Some(password) = self.url.password() else { return false };
        let outer = self.public.iter().filter(|(name, _)| !PARTS.contains(&name.as_str()));
        outer.into_iter().any(|(name, value)| value == password.expose() && word.contains(&format!("${{{name}}}")))
    }

    fn database_secrets(&self) -> Vec<Secret> {
        let Some(password) = self.url.password() else { return Vec::new() };
        vec![password.clone(), Secret::new(percent_encode(password.expose()))]
    }

    fn python(&self, table: &StepTable) -> Result<Kind, PlanError> {
        let Work::Python { setting, interpreter, modules, order_file, entry } = &table.work else {
            unreachable!("called for python steps alone")
        };
        let surroundings = self.surroundings(setting)?;
        let shown = PathBuf::from(word(setting.dir.as_ref(), "."));
        let names = self.modules(table, modules.as_ref(), order_file.as_ref())?;
        let listed = modules.as_ref().map_or(&[][..], |it| it.get_ref());
        for (at, module) in names.iter().enumerate() {
            let (key, place) = match (listed.get(at), order_file) {
                (None, Some(file)) => ("order_file", file.span()),
                (module, _) => ("modules", module.map(Spanned::span).unwrap_or_default()),
            };
            let (file, dir) = (python::file(&surroundings.dir, module), surroundings.dir.clone());
            if !dir.join(&file).is_file() {
                let (by, module, file) = (self.step.clone(), module.clone(), shown.join(file));
                let problem = Problem::NoModule { key, by, module, file, dir };
                return Err(PlanError::new(&self.file.source, place, problem));
            }
        }
        Ok(Kind::Python(Python {
            migrations: python::read(&surroundings.dir, &shown, &names)?,
            surroundings,
            interpreter: word(interpreter.as_ref(), PYTHON),
            entry: entry.as_ref().map(|it| it.get_ref().clone()),
        }))
    }

    /// The modules of a `python` step, in order.
    fn modules(
        &self,
        table: &StepTable,
        modules: Option<&Spanned<Vec<Spanned<String>>>>,
        order_file: Option<&Spanned<String>>,
    ) -> Result<Vec<String>, PlanError> {
        let names: Vec<String> = match (modules, order_file) {
            (Some(modules), None) => modules.get_ref().iter().map(|it| it.get_ref().clone()).collect(),
            (None, Some(file)) => {
                self.is_there("order_file", file)?;
                python::order(&self.root.join(file.get_ref()), Path::new(file.get_ref()))?
            }
            (both, file) => {
                let span = file.map_or_else(|| table.name.span(), Spanned::span);
                let problem = Problem::OneOf { by: self.step.clone(), both: both.is_some() };
                return Err(PlanError::new(&self.file.source, span, problem));
            }
        };
        let place = || modules.map(Spanned::span).or(order_file.map(Spanned::span)).unwrap_or(0..0);
        if names.is_empty() {
            let key = if modules.is_some() { "modules" } else { "order_file" };
            let help = "Write the modules in their order, as in `[\"app.migrations.add_table\"]`.";
            let problem = Problem::Empty { by: self.step.clone(), key, help };
            return Err(PlanError::new(&self.file.source, place(), problem));
        }
        if let Some((_, twice)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            let problem = Problem::Duplicate { what: "module", name: twice.clone() };
            return Err(PlanError::new(&self.file.source, place(), problem));
        }
        Ok(names)
    }

    fn is_there(&self, key: &'static str, path: &Spanned<String>) -> Result<(), PlanError> {
        if self.root.join(path.get_ref()).exists() {
            return Ok(());
        }
        let (by, root) = (self.step.clone(), self.root.to_owned());
        let problem = Problem::NoFile { key, by, path: path.get_ref().clone(), root };
        Err(PlanError::new(&self.file.source, path.span(), problem))
    }

    fn command(&self, table: &StepTable) -> Result<Kind, PlanError> {
        let Work::Command { setting, argv, run, inputs, probe } = &table.work else {
            unreachable!("called for command steps alone")
        };
        if argv.get_ref().is_empty() {
            let (by, help) =
                (self.step.clone(), "Write the program and its arguments, as in `argv = [\"dbt\", \"build\"]`.");
            return Err(PlanError::new(&self.file.source, argv.span(), Problem::Empty { by, key: "argv", help }));
        }
        let typed: Vec<String> = argv.get_ref().iter().map(|it| it.get_ref().clone()).collect();
        let expanded = self.arguments(argv.get_ref())?;
        inputs.iter().try_for_each(|it| self.is_there("inputs", it))?;
        let inputs: Vec<String> = inputs.iter().map(|it| it.get_ref().clone()).collect();
        let mut surroundings = self.surroundings(setting)?;
        if let Some(password) = self.url.password() {
            surroundings.env.entry("PGPASSWORD".into()).or_insert_with(|| password.clone());
        }
        Ok(Kind::Command(Command {
            surroundings,
            argv: expanded,
            run: *run,
            probe: probe.as_ref().map(|it| it.get_ref().clone()),
            migrations: vec![command::read(table.name.get_ref().as_str(), &typed, self.root, &inputs)?],
        }))
    }
}

/// Whether what a variable of this name holds is better starred out.
pub(super) fn sounds_secret(name: &str) -> bool {
    let name = name.to_uppercase();
    ["PASS", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "URL", "DSN"].iter().any(|word| name.contains(word))
}
