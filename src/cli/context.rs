//! What most commands begin with: the plan and the store.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use crate::failure::{Blame, Failure, OrFail};
use crate::journal;
use crate::journal::state::RunState;
use crate::names::{DatabaseName, RunId, TargetName};
use crate::outside::store::{Store, StoreError};
use crate::plan::{Plan, PlanError};
use crate::version::THIS;
use crate::world::World;

use super::args::Global;
use super::console::Console;

/// Where a plan is, unless `-p` says otherwise.
const DEFAULT_PLAN: &str = "plans/production.toml";

/// What a command works with.
pub struct Context<'a> {
    /// The world.
    pub world: &'a World,
    /// The terminal.
    pub console: &'a Console,
    /// The flags that every command takes.
    pub global: &'a Global,
}

#[derive(Debug, Error, Diagnostic)]
#[error("no store is named")]
#[diagnostic(
    code("store.none"),
    help("Write `[store] url = \"gs://bucket/prefix\"` into the plan, or give --store URL.")
)]
struct NoStore;

#[derive(Debug, Error, Diagnostic)]
#[error("the plan of run {run} is not in {store}")]
#[diagnostic(
    code("store.no_plan"),
    help(
        "A run keeps it before it changes anything. If this one did, somebody has removed it since: bring it back (`runs/{run}/plan.toml`)."
    )
)]
struct NoStoredPlan {
    run: RunId,
    store: String,
}

/// What the run kept is fine, for the version that kept it.
#[derive(Debug, Error, Diagnostic)]
#[error("the plan of run {run} was written by migrate {version}, and this version ({THIS}) cannot read it")]
#[diagnostic(code("store.newer_plan"), help("Use migrate {version} or a later one."))]
struct PlanOfAnotherVersion {
    run: RunId,
    version: String,
    source: PlanError,
}

#[derive(Debug, Error, Diagnostic)]
#[error("there is no run of the target `{target}` in {store}")]
#[diagnostic(code("run.none"), help("`migrate runs list` shows the runs of a store."))]
struct NoRun {
    target: String,
    store: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("run {run} was for the target `{of}`, and this is for `{asked}`")]
#[diagnostic(code("run.other_target"), help("Give `--target {of}`, or name a run of `{asked}`."))]
struct OtherTarget {
    run: RunId,
    of: TargetName,
    asked: String,
}

#[derive(Debug, Error, Diagnostic)]
#[error("--target is needed to find the latest run")]
#[diagnostic(code("usage.target"), help("Give `-t NAME`, or name a run."))]
struct TargetNeeded;

impl Context<'_> {
    /// The plan file that is meant; whether it is there is not looked at.
    #[must_use]
    pub fn plan_path(&self) -> PathBuf {
        self.global.plan.clone().unwrap_or_else(|| Path::new(DEFAULT_PLAN).into())
    }

    /// The plan file, read and checked whole.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn plan(&self) -> Result<Plan, Failure> {
        Plan::load(&self.plan_path(), self.global.target.as_deref(), &self.world.env).or_blame(Blame::Usage)
    }

    /// The store of the plan, or the one that the command line names, which must be there.
    ///
    /// # Errors
    /// None is named, or it cannot be opened.
    pub fn store(&self, plan: Option<&Plan>, url: Option<&str>) -> Result<Store, Failure> {
        let opened = match (url, plan.and_then(|plan| plan.store.url.as_deref())) {
            (Some(url), _) => Store::open_existing(url, &self.world.env),
            (None, Some(url)) => Store::open(url, &self.world.env),
            (None, None) => return Err(Failure::untouched(Blame::Usage, NoStore)),
        };
        opened.map_err(|error| {
            let blame = if matches!(error, StoreError::Url { .. }) { Blame::Usage } else { Blame::Work };
            Failure::untouched(blame, error)
        })
    }

    /// The store alone, for commands that need no database: without `url` the plan is read for it.
    ///
    /// # Errors
    /// As [`Context::plan`] and [`Context::store`].
    pub fn store_alone(&self, url: Option<&str>) -> Result<Store, Failure> {
        match url {
            Some(url) => self.store(None, Some(url)),
            None => self.store(Some(&self.plan()?), None),
        }
    }

    /// The run that is meant: the one named, or the latest of the target.
    ///
    /// # Errors
    /// There is none.
    pub async fn run_state(
        &self,
        store: &Store,
        run: Option<&RunId>,
        target: Option<&TargetName>,
    ) -> Result<RunState, Failure> {
        let asked = target.map(TargetName::as_str).or(self.global.target.as_deref());
        let Some(run) = run else {
            let target = asked.ok_or(TargetNeeded).or_blame(Blame::Usage)?;
            let name = TargetName::new(target).or_blame_name()?;
            let latest = crate::run::latest(store, &name).await.or_fail()?;
            let none = NoRun { target: target.into(), store: store.url().into() };
            return latest.ok_or(none).or_blame(Blame::Usage);
        };
        let state = journal::state(store, run).await.map_err(|error| {
            let blame = if matches!(error, journal::JournalError::NoRun { .. }) { Blame::Usage } else { Blame::Work };
            Failure::untouched(blame, error)
        })?;
        match (&state.target, asked) {
            (Some(of), Some(asked)) if of.as_str() != asked => {
                let error = OtherTarget { run: run.clone(), of: of.clone(), asked: asked.into() };
                Err(Failure::untouched(Blame::Usage, error))
            }
            _ => Ok(state),
        }
    }

    /// The plan as a run kept it: nothing of the working tree is needed, and only the URLs of `only` have to be set.
    ///
    /// # Errors
    /// The run kept none, or a variable is not set.
    pub async fn stored_plan(
        &self,
        store: &Store,
        state: &RunState,
        only: Option<&BTreeSet<DatabaseName>>,
    ) -> Result<Plan, Failure> {
        let missing = || NoStoredPlan { run: state.run.clone(), store: store.url().into() };
        let key = format!("{}/plan.toml", journal::folder(&state.run));
        let text = store.get(&key).await.or_fail()?.ok_or_else(missing).or_fail()?;
        let target = state.target.as_ref().ok_or_else(missing).or_fail()?;
        let text = String::from_utf8_lossy(&text).into_owned();
        Plan::load_stored(&text, &key, target.as_str(), &self.world.env, only).map_err(|source| {
            if !source.is_of_another_version() {
                return Failure::untouched(Blame::Usage, source);
            }
            let (run, version) = (state.run.clone(), state.last_by.version.clone());
            Failure::untouched(Blame::Work, PlanOfAnotherVersion { run, version, source })
        })
    }
}

/// A name that clap took as text.
trait OrBlameName<T> {
    fn or_blame_name(self) -> Result<T, Failure>;
}

#[derive(Debug, Error, Diagnostic)]
#[error(transparent)]
#[diagnostic(code("usage.name"))]
struct BadName(#[from] crate::names::NameError);

impl<T> OrBlameName<T> for Result<T, crate::names::NameError> {
    fn or_blame_name(self) -> Result<T, Failure> {
        self.map_err(BadName).or_blame(Blame::Usage)
    }
}

/// `--only`, as a set; none if it was not given.
#[must_use]
pub fn only(names: Vec<DatabaseName>) -> Option<BTreeSet<DatabaseName>> {
    (!names.is_empty()).then(|| names.into_iter().collect())
}

#[derive(Debug, Error, Diagnostic)]
#[error("--only names `{name}`, which is no database of the plan")]
#[diagnostic(code("usage.only"), help("The plan has {known}."))]
struct UnknownOnly {
    name: DatabaseName,
    known: String,
}

/// `--only`, checked against the plan.
///
/// # Errors
/// It names a database that the plan does not have.
pub fn only_of(plan: &Plan, names: Vec<DatabaseName>) -> Result<Option<BTreeSet<DatabaseName>>, Failure> {
    if let Some(name) = names.iter().find(|name| !plan.databases.contains_key(*name)) {
        let known = crate::failure::list(&plan.databases.keys().collect::<Vec<_>>());
        return Err(Failure::untouched(Blame::Usage, UnknownOnly { name: name.clone(), known }));
    }
    Ok(only(names))
}
