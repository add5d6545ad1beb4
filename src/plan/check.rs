//! What a plan must fulfil beyond its form: names that exist and are unique, steps that can be ordered, tables that differ,
//! and, once the variables are in, databases that differ. Also the one list of what is a word of the plan but not built yet.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;

use super::file::PlanFile;
use super::order::{Cycle, Node, order};
use super::problem::{PlanError, Problem, Source};
use super::tables::{FreezeWord, StepTable, TableTable, Work};
use super::{Database, LEAST_MEMORY, Target, hooks};
use crate::lint::rules::{self, RULES, Rule};
use crate::names::{DatabaseName, TargetName};
use crate::outside::url::DatabaseUrl;

/// Words of the plan that this version does not carry out. Kinds of steps and checks are refused where they are read, before
/// their keys, through [`unsupported`] too.
pub(super) fn supported(plan: &PlanFile) -> Result<(), PlanError> {
    match plan.run.freeze.as_ref().filter(|it| *it.get_ref() == FreezeWord::ReadOnly) {
        Some(word) => Err(unsupported(&plan.source, word.span(), "`freeze = \"read_only\"`".to_owned())),
        None => Ok(()),
    }
}

/// The refusal of a word of the plan that is not built yet.
pub(super) fn unsupported(source: &Source, span: Range<usize>, what: String) -> PlanError {
    PlanError::new(
        source,
        span,
        Problem::Unsupported { what, help: "Remove it, or use a version of migrate that has it." },
    )
}

/// Everything that holds for all targets alike.
pub(super) fn consistent(plan: &PlanFile) -> Result<(), PlanError> {
    targets(plan)?;
    settings(plan)?;
    allowed(plan)?;
    unique(plan, "step", plan.steps.iter().map(|it| (it.name.get_ref().as_str(), it.name.span())))?;
    unique(plan, "check", plan.checks.iter().map(|it| (it.name.get_ref().as_str(), it.name.span())))?;
    let everywhere: BTreeSet<&DatabaseName> =
        plan.targets.values().flat_map(|it| it.databases.get_ref().keys().map(Spanned::get_ref)).collect();
    known_databases(plan, None, &everywhere)?;
    plan.steps.iter().try_for_each(|step| waits(plan, step))?;
    plan.steps.iter().try_for_each(|step| work(plan, step))?;
    checks(plan)?;
    hooks::consistent(plan)
}

fn targets(plan: &PlanFile) -> Result<(), PlanError> {
    if plan.targets.is_empty() {
        return Err(PlanError::nowhere(&plan.source, Problem::NoTarget));
    }
    if let Some((name, table)) = plan.targets.iter().find(|(_, it)| it.databases.get_ref().is_empty()) {
        let problem = Problem::EmptyTarget { target: name.to_string() };
        return Err(PlanError::new(&plan.source, table.databases.span(), problem));
    }
    match &plan.default_target {
        Some(name) if !plan.targets.contains_key(name.get_ref()) => {
            let problem = Problem::UnknownTarget { name: name.to_string(), known: words(plan.targets.keys()) };
            Err(PlanError::new(&plan.source, name.span(), problem))
        }
        _ => Ok(()),
    }
}

fn settings(plan: &PlanFile) -> Result<(), PlanError> {
    let counts = [
        ("parallel", &plan.run.parallel, "Write 1 to work on one database at a time."),
        ("jobs", &plan.run.jobs, "Write 1 for one dump or restore at a time, or leave it out."),
    ];
    for (word, number, help) in counts {
        if let Some(zero) = number.as_ref().filter(|it| *it.get_ref() == 0) {
            let (place, message) = (format!("`{word}` of `[run]`"), "the number is zero".to_owned());
            let problem = Problem::Value { place, message, help: help.to_owned() };
            return Err(PlanError::new(&plan.source, zero.span(), problem));
        }
    }
    let Some(small) = plan.run.memory.as_ref().filter(|it| it.get_ref().0 < LEAST_MEMORY) else { return Ok(()) };
    let (place, message) = ("`memory` of `[run]`".to_owned(), "it is too little for one dump or restore".to_owned());
    let problem = Problem::Value { place, message, help: format!("Write at least `{}MiB`.", LEAST_MEMORY >> 20) };
    Err(PlanError::new(&plan.source, small.span(), problem))
}

/// That each rule of `[lint] allow` is one, and one that can be allowed.
fn allowed(plan: &PlanFile) -> Result<(), PlanError> {
    let known = |name: &str| rules::named(name).is_some_and(Rule::allowable);
    let Some(unknown) = plan.lint.allow.iter().find(|it| !known(it.get_ref())) else { return Ok(()) };
    let known = RULES.iter().filter(|it| it.allowable()).map(|it| it.name.to_owned()).collect();
    let problem = Problem::UnknownRule { name: unknown.get_ref().clone(), known };
    Err(PlanError::new(&plan.source, unknown.span(), problem))
}

fn unique<'a>(
    plan: &PlanFile,
    what: &'static str,
    names: impl Iterator<Item = (&'a str, Range<usize>)>,
) -> Result<(), PlanError> {
    let mut seen = BTreeSet::new();
    for (name, span) in names {
        if !seen.insert(name) {
            return Err(PlanError::new(&plan.source, span, Problem::Duplicate { what, name: name.to_owned() }));
        }
    }
    Ok(())
}

/// That every database which is named is one of `known`: of the target, or of any.
fn known_databases(
    plan: &PlanFile,
    target: Option<&TargetName>,
    known: &BTreeSet<&DatabaseName>,
) -> Result<(), PlanError> {
    let check = |name: &DatabaseName, span: Range<usize>, by: String| {
        if known.contains(name) {
            return Ok(());
        }
        let target = target.map(ToString::to_string);
        let problem = Problem::UnknownDatabase { by, name: name.to_string(), target, known: words(known.iter()) };
        Err(PlanError::new(&plan.source, span, problem))
    };
    for step in &plan.steps {
        let by = || format!("step `{}`", step.name);
        check(step.database.get_ref(), step.database.span(), by())?;
        if let Work::Copy { from, .. } = &step.work {
            check(from.database.get_ref(), from.database.span(), by())?;
        }
    }
    for it in &plan.checks {
        for table in [&it.source, &it.target] {
            check(table.database.get_ref(), table.database.span(), format!("check `{}`", it.name))?;
        }
    }
    // A target may have fewer databases than the plan speaks of, as long as no step needs them.
    let described = plan.databases.iter().filter(|_| target.is_none());
    described.into_iter().try_for_each(|(name, (span, _))| check(name, span.clone(), format!("`[databases.{name}]`")))
}

fn waits(plan: &PlanFile, step: &StepTable) -> Result<(), PlanError> {
    let place = |name: &str| plan.steps.iter().any(|it| it.name.get_ref().as_str() == name);
    for name in &step.after {
        let problem = if name == &step.name {
            Problem::WaitsForItself { step: step.name.to_string() }
        } else if !place(name.get_ref().as_str()) {
            let known = plan.steps.iter().filter(|it| it.name != step.name).map(|it| it.name.to_string()).collect();
            Problem::UnknownStep { step: step.name.to_string(), name: name.to_string(), known }
        } else {
            continue;
        };
        return Err(PlanError::new(&plan.source, name.span(), problem));
    }
    Ok(())
}

fn work(plan: &PlanFile, step: &StepTable) -> Result<(), PlanError> {
    let by = format!("step `{}`", step.name);
    match &step.work {
        Work::Alembic { .. } | Work::Python { .. } | Work::Command { .. } => Ok(()),
        Work::Sql { dir } | Work::Refinery { dir } => {
            let help = "Write the folder of the migrations, relative to the project root.";
            not_empty(plan, &by, "dir", help, dir.get_ref().is_empty(), dir.span())
        }
        Work::Copy { from, to, key, omit } => {
            tables(plan, &by, from, (step.database.get_ref(), to))?;
            a_key(plan, &by, key)?;
            let omitted = omit.iter().find(|it| key.get_ref().contains(it.get_ref()));
            omitted.map_or(Ok(()), |column| {
                let problem = Problem::OmittedKey { step: step.name.to_string(), column: column.to_string() };
                Err(PlanError::new(&plan.source, column.span(), problem))
            })
        }
    }
}

fn checks(plan: &PlanFile) -> Result<(), PlanError> {
    plan.checks.iter().try_for_each(|it| {
        let by = format!("check `{}`", it.name);
        let help = "Write a name, such as `\"published-rag-in-sync\"`.";
        not_empty(plan, "a check", "name", help, it.name.get_ref().is_empty(), it.name.span())?;
        tables(plan, &by, &it.source, (it.target.database.get_ref(), &it.target.table))?;
        a_key(plan, &by, &it.key)
    })
}

fn tables(
    plan: &PlanFile,
    by: &str,
    from: &TableTable,
    to: (&DatabaseName, &Spanned<String>),
) -> Result<(), PlanError> {
    for table in [&from.table, to.1] {
        not_empty(plan, by, "table", "Write `table` or `schema.table`.", table.get_ref().is_empty(), table.span())?;
    }
    let public =
        |table: &Spanned<String>| table.get_ref().strip_prefix("public.").unwrap_or(table.get_ref()).to_owned();
    if from.database.get_ref() == to.0 && public(&from.table) == public(to.1) {
        return Err(PlanError::new(&plan.source, to.1.span(), Problem::SameTable { by: by.to_owned() }));
    }
    Ok(())
}

fn a_key(plan: &PlanFile, by: &str, key: &Spanned<Vec<String>>) -> Result<(), PlanError> {
    let empty = key.get_ref().is_empty() || key.get_ref().iter().any(String::is_empty);
    not_empty(plan, by, "key", "Name the columns that tell rows apart, as in `key = [\"id\"]`.", empty, key.span())
}

fn not_empty(
    plan: &PlanFile,
    by: &str,
    key: &'static str,
    help: &'static str,
    empty: bool,
    span: Range<usize>,
) -> Result<(), PlanError> {
    if !empty {
        return Ok(());
    }
    Err(PlanError::new(&plan.source, span, Problem::Empty { by: by.to_owned(), key, help }))
}

/// The steps in order of execution.
pub(super) fn in_order(source: &Source, steps: Vec<StepTable>) -> Result<Vec<StepTable>, PlanError> {
    let place = |name: &str| steps.iter().position(|it| it.name.get_ref().as_str() == name);
    let after = |step: &StepTable| step.after.iter().filter_map(|it| place(it.get_ref().as_str())).collect();
    let nodes: Vec<Node<'_>> =
        steps.iter().map(|it| Node { database: it.database.get_ref().as_str(), after: after(it) }).collect();
    let order = order(&nodes).map_err(|cycle| cyclic(source, &steps, &cycle))?;
    let mut steps: Vec<Option<StepTable>> = steps.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|at| steps[at].take()).collect())
}

fn cyclic(source: &Source, steps: &[StepTable], Cycle(cycle): &Cycle) -> PlanError {
    let first = &steps[cycle[0]];
    let next = &steps[cycle[1 % cycle.len()]];
    let span = first.after.iter().find(|it| **it == next.name).map_or(first.name.span(), Spanned::span);
    let names = cycle.iter().chain(cycle.first()).map(|at| steps[*at].name.to_string()).collect();
    PlanError::new(source, span, Problem::Cycle { cycle: names })
}

impl PlanFile {
    /// The target called `name`, or the default one, with every database that the plan speaks of.
    ///
    /// # Errors
    /// There is no such target, no default, or a step or check needs a database that the target does not have.
    pub fn target(&self, name: Option<&str>) -> Result<Target, PlanError> {
        let nothing = || {
            let known = words(self.targets.keys());
            PlanError::nowhere(&self.source, Problem::NoTargetChosen { known })
        };
        let default = self.default_target.as_ref().map(|it| it.get_ref().as_str());
        let name = name.or(default).ok_or_else(nothing)?;
        let found = self.targets.iter().find(|(it, _)| it.as_str() == name);
        let (name, table) = found.ok_or_else(|| unknown_target(self, name))?;
        let known = table.databases.get_ref().keys().map(Spanned::get_ref).collect();
        known_databases(self, Some(name), &known)?;
        Ok(Target { name: name.clone(), protected: table.protected, disposable: table.disposable })
    }
}

/// A target that the command line or the environment names, and the plan does not have.
pub(super) fn unknown_target(plan: &PlanFile, name: &str) -> PlanError {
    let problem = Problem::UnknownTarget { name: name.to_owned(), known: words(plan.targets.keys()) };
    PlanError::nowhere(&plan.source, problem)
}

/// That `url` is none of the databases before it, as far as the texts can tell.
pub(super) fn different_places(
    source: &Source,
    target: &TargetName,
    before: &BTreeMap<DatabaseName, Database>,
    (name, url): (&DatabaseName, &DatabaseUrl),
    span: Range<usize>,
) -> Result<(), PlanError> {
    let Some(twin) = before.values().find(|it| it.url.same_place(url)) else { return Ok(()) };
    let (first, second, target) = (twin.name.to_string(), name.to_string(), target.to_string());
    Err(PlanError::new(source, span, Problem::SameDatabase { first, second, target }))
}

/// That the store is one that we can write to. The URL itself is not shown: it comes from the environment.
pub(super) fn store_url(source: &Source, url: &str, span: Range<usize>) -> Result<(), PlanError> {
    let what = match url.split_once("://") {
        Some(("gs" | "s3", rest)) if rest.is_empty() || rest.starts_with('/') => "names no bucket",
        Some(("file", rest)) if !rest.starts_with('/') => "does not begin with `file:///`",
        Some(("gs" | "s3" | "file", _)) => return Ok(()),
        _ => "begins neither with `gs://` nor with `s3://` nor with `file:///`",
    };
    Err(PlanError::new(source, span, Problem::Store { what }))
}

fn words<T: ToString>(names: impl IntoIterator<Item = T>) -> Vec<String> {
    names.into_iter().map(|it| it.to_string()).collect()
}
