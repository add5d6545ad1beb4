//! The TOML as typed, with the place of every value that a message may point at. A [`PlanFile`] is consistent in itself
//! (see `check`); what depends on the target and the environment comes later (see `expand`). What the tables may hold is in
//! `tables`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::problem::{PlanError, Problem, Source};
use super::tables::{
    AlembicStep, CheckKind, CheckTable, CommandStep, CopyStep, DatabaseTable, FilesStep, Head, HookTable, LintTable,
    PythonStep, RunTable, SettingKeys, StepKind, StepTable, StoreTable, TargetTable, Top, Work,
};
use super::{check, literal, section};
use crate::names::{DatabaseName, TargetName};

/// A plan file that was read and found consistent, for all its targets.
#[derive(Debug)]
pub struct PlanFile {
    pub(super) source: Source,
    pub(super) name: String,
    pub(super) default_target: Option<Spanned<TargetName>>,
    pub(super) store: StoreTable,
    pub(super) run: RunTable,
    pub(super) lint: LintTable,
    pub(super) targets: BTreeMap<TargetName, TargetTable>,
    pub(super) databases: BTreeMap<DatabaseName, (Range<usize>, DatabaseTable)>,
    pub(super) steps: Vec<StepTable>,
    pub(super) checks: Vec<CheckTable>,
    pub(super) hooks: Vec<HookTable>,
}

impl PlanFile {
    /// Reads `text`, which messages call `path`, and checks all that can be checked without a target and an environment.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(path: &Path, text: &str) -> Result<Self, PlanError> {
        let source = Source::new(&path.display().to_string(), text);
        let root = DeTable::parse(text).map_err(|error| section::syntax(&source, &error))?;
        // Before all else: no later message has to think about passwords.
        refuse_passwords(&source, root.get_ref())?;
        check_version(&source, &root)?;
        let mut plan = Self::assemble(source, root)?;
        check::supported(&plan)?;
        check::consistent(&plan)?;
        plan.steps = check::in_order(&plan.source, plan.steps)?;
        Ok(plan)
    }

    fn assemble(source: Source, root: Spanned<DeTable<'_>>) -> Result<Self, PlanError> {
        let span = root.span();
        let mut root = root.into_inner();
        let top: Top = section::read(&source, "the plan", Spanned::new(span, DeValue::Table(root.clone())))?;
        let store = root.remove("store").map(|it| section::read(&source, "`[store]`", it)).transpose()?;
        let run = root.remove("run").map(|it| section::read(&source, "`[run]`", it)).transpose()?;
        let lint = root.remove("lint").map(|it| section::read(&source, "`[lint]`", it)).transpose()?;
        let targets = read_targets(&source, root.remove("targets"))?;
        let databases = read_databases(&source, root.remove("databases"))?;
        let steps = elements(&source, "steps", root.remove("steps"))?;
        let checks = elements(&source, "checks", root.remove("checks"))?;
        let hooks = elements(&source, "hooks", root.remove("hooks"))?;
        Ok(Self {
            name: top.name,
            default_target: top.default_target,
            store: store.unwrap_or_default(),
            run: run.unwrap_or_default(),
            lint: lint.unwrap_or_default(),
            targets,
            databases,
            steps: steps.into_iter().map(|it| read_step(&source, it)).collect::<Result<_, _>>()?,
            hooks: hooks.into_iter().map(|it| section::read(&source, "a hook", it)).collect::<Result<_, _>>()?,
            checks: checks.into_iter().map(|it| read_check(&source, it)).collect::<Result<_, _>>()?,
            source,
        })
    }
}

fn refuse_passwords(source: &Source, table: &DeTable<'_>) -> Result<(), PlanError> {
    if let Some(key) = table.keys().find(|key| literal::has_password(key.get_ref())) {
        return Err(PlanError::new(source, key.span(), Problem::LiteralPassword));
    }
    table.values().try_for_each(|value| refuse_password(source, value))
}

fn refuse_password(source: &Source, value: &Spanned<DeValue<'_>>) -> Result<(), PlanError> {
    match value.get_ref() {
        DeValue::String(text) if literal::has_password(text) => {
            Err(PlanError::new(source, value.span(), Problem::LiteralPassword))
        }
        DeValue::Array(values) => values.iter().try_for_each(|it| refuse_password(source, it)),
        DeValue::Table(table) => refuse_passwords(source, table),
        _ => Ok(()),
    }
}

/// First of the keys: a plan of another version may have keys that this one has not.
fn check_version(source: &Source, root: &Spanned<DeTable<'_>>) -> Result<(), PlanError> {
    let version = root.get_ref().get("version");
    let version = version.ok_or_else(|| PlanError::new(source, 0..0, Problem::NoVersion))?;
    if version.get_ref().as_integer().is_some_and(|it| it.as_str() == "1") {
        return Ok(());
    }
    let found = source.text().get(version.span()).unwrap_or("?").to_owned();
    Err(PlanError::new(source, version.span(), Problem::Version { found }))
}

type Tables<'i> = Vec<(Spanned<String>, Spanned<DeValue<'i>>)>;

/// The tables under `[key]`, by name.
fn tables<'i>(source: &Source, key: &str, value: Option<Spanned<DeValue<'i>>>) -> Result<Tables<'i>, PlanError> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let table = value.get_ref().as_table();
    let table = table.ok_or_else(|| section::wrong_type(source, &format!("`{key}`"), &value, "a table"))?;
    let named = |name: &Spanned<DeString<'_>>| Spanned::new(name.span(), name.to_string());
    Ok(table.iter().map(|(name, it)| (named(name), it.clone())).collect())
}

/// The tables of `[[key]]`.
fn elements<'i>(
    source: &Source,
    key: &str,
    value: Option<Spanned<DeValue<'i>>>,
) -> Result<Vec<Spanned<DeValue<'i>>>, PlanError> {
    let Some(value) = value else { return Ok(Vec::new()) };
    match value.get_ref() {
        DeValue::Array(array) => Ok(array.iter().cloned().collect()),
        _ => Err(section::wrong_type(source, &format!("`{key}`"), &value, &format!("a list of tables, `[[{key}]]`,"))),
    }
}

fn read_targets(
    source: &Source,
    value: Option<Spanned<DeValue<'_>>>,
) -> Result<BTreeMap<TargetName, TargetTable>, PlanError> {
    let mut targets = BTreeMap::new();
    for (name, value) in tables(source, "targets", value)? {
        let checked = TargetName::new(name.get_ref().as_str());
        let checked = checked.map_err(|error| PlanError::new(source, name.span(), Problem::Name(error)))?;
        let table: TargetTable = section::read(source, &format!("`[targets.{checked}]`"), value)?;
        targets.insert(checked, table);
    }
    Ok(targets)
}

fn read_databases(
    source: &Source,
    value: Option<Spanned<DeValue<'_>>>,
) -> Result<BTreeMap<DatabaseName, (Range<usize>, DatabaseTable)>, PlanError> {
    let mut databases = BTreeMap::new();
    for (name, value) in tables(source, "databases", value)? {
        let checked = DatabaseName::new(name.get_ref().as_str());
        let checked = checked.map_err(|error| PlanError::new(source, name.span(), Problem::Name(error)))?;
        let table = section::read(source, &format!("`[databases.{checked}]`"), value)?;
        databases.insert(checked, (name.span(), table));
    }
    Ok(databases)
}

fn read_step(source: &Source, value: Spanned<DeValue<'_>>) -> Result<StepTable, PlanError> {
    let (kind, _) = kind::<StepKind>(source, &call(&value, "step", None), &value)?;
    let word = format!("{kind:?}").to_lowercase();
    let place = call(&value, "step", Some(&word));
    match kind {
        StepKind::Sql => files_step(source, &place, value, |dir| Work::Sql { dir }),
        StepKind::Refinery => files_step(source, &place, value, |dir| Work::Refinery { dir }),
        StepKind::Copy => copy_step(source, &place, value),
        StepKind::Alembic => alembic_step(source, &place, value),
        StepKind::Python => python_step(source, &place, value),
        StepKind::Command => command_step(source, &place, value),
    }
}

fn read_check(source: &Source, value: Spanned<DeValue<'_>>) -> Result<CheckTable, PlanError> {
    let (kind, span) = kind::<CheckKind>(source, &call(&value, "check", None), &value)?;
    let word = format!("{kind:?}").to_lowercase();
    match kind {
        CheckKind::Sync => section::read(source, &call(&value, "check", Some(&word)), value),
        CheckKind::Sql | CheckKind::Http | CheckKind::Command | CheckKind::Git => {
            Err(check::unsupported(source, span, format!("a check of kind `{word}`")))
        }
    }
}

/// ``the `copy` step `publish` ``, or as much of it as there is.
fn call(value: &Spanned<DeValue<'_>>, what: &str, kind: Option<&str>) -> String {
    let name = value.get_ref().as_table().and_then(|it| it.get("name")).and_then(|it| it.get_ref().as_str());
    let kind = kind.map_or_else(String::new, |kind| format!("`{kind}` "));
    name.map_or_else(|| format!("a {kind}{what}"), |name| format!("the {kind}{what} `{name}`"))
}

fn kind<K: serde::de::DeserializeOwned>(
    source: &Source,
    place: &str,
    value: &Spanned<DeValue<'_>>,
) -> Result<(K, Range<usize>), PlanError> {
    let head: Head<K> = section::read(source, place, value.clone())?;
    let missing = Problem::MissingKey { key: "kind".to_owned(), place: place.to_owned() };
    let kind = head.kind.ok_or_else(|| PlanError::new(source, value.span(), missing))?;
    let span = kind.span();
    Ok((kind.into_inner(), span))
}

fn files_step(
    source: &Source,
    place: &str,
    value: Spanned<DeValue<'_>>,
    work: fn(Spanned<String>) -> Work,
) -> Result<StepTable, PlanError> {
    let FilesStep { name, database, after, lock_timeout, statement_timeout, dir, .. } =
        section::read(source, place, value)?;
    Ok(StepTable { name, database, after, lock_timeout, statement_timeout, work: work(dir) })
}

fn copy_step(source: &Source, place: &str, value: Spanned<DeValue<'_>>) -> Result<StepTable, PlanError> {
    let CopyStep { name, database, after, lock_timeout, statement_timeout, from, to, key, omit, .. } =
        section::read(source, place, value)?;
    let work = Work::Copy { from, to: to.table, key, omit };
    Ok(StepTable { name, database, after, lock_timeout, statement_timeout, work })
}

fn alembic_step(source: &Source, place: &str, value: Spanned<DeValue<'_>>) -> Result<StepTable, PlanError> {
    let it: AlembicStep = section::read(source, place, value)?;
    let setting = SettingKeys { dir: Some(it.dir), env: it.env, timeout: it.timeout };
    let work = Work::Alembic { setting, interpreter: it.interpreter, config: it.config, mode: it.mode };
    let AlembicStep { name, database, after, lock_timeout, statement_timeout, .. } = it;
    Ok(StepTable { name, database, after, lock_timeout, statement_timeout, work })
}

fn python_step(source: &Source, place: &str, value: Spanned<DeValue<'_>>) -> Result<StepTable, PlanError> {
    let it: PythonStep = section::read(source, place, value)?;
    let PythonStep { interpreter, modules, order_file, entry, .. } = it;
    let setting = SettingKeys { dir: Some(it.dir), env: it.env, timeout: it.timeout };
    let work = Work::Python { setting, interpreter, modules, order_file, entry };
    let PythonStep { name, database, after, lock_timeout, statement_timeout, .. } = it;
    Ok(StepTable { name, database, after, lock_timeout, statement_timeout, work })
}

fn command_step(source: &Source, place: &str, value: Spanned<DeValue<'_>>) -> Result<StepTable, PlanError> {
    let it: CommandStep = section::read(source, place, value)?;
    let setting = SettingKeys { dir: it.dir, env: it.env, timeout: it.timeout };
    let work = Work::Command { setting, argv: it.argv, run: it.run, inputs: it.inputs, probe: it.probe };
    let CommandStep { name, database, after, lock_timeout, statement_timeout, .. } = it;
    Ok(StepTable { name, database, after, lock_timeout, statement_timeout, work })
}
