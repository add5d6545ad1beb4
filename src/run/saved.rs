//! What `migrate plan` shows and saves: the exact work, bound by a digest to files and databases.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::journal;
use crate::kind::{Copy, Kind, Migration};
use crate::lint::{self, Finding};
use crate::names::{DatabaseName, StepName, TargetName};
use crate::outside::postgres::PgError;
use crate::outside::store::Store;
use crate::plan::{Plan, Segment, Step, When};
use crate::snapshot::SnapshotError;
use crate::snapshot::drill::{self, Drilled};
use crate::version::{self, Newer};

use super::standby::{self, Cost};
use super::step;
use super::survey::{StepState, Survey};

/// The version of the format of a saved plan. The first versions did not say; theirs is this one. Whatever comes, `format` and
/// `tool_version` stay.
const FORMAT: u32 = 1;

/// What `apply` would do.
#[derive(Debug, Clone, Serialize)]
pub struct Prospectus {
    /// The version of the format.
    pub format: u32,
    /// The version of `migrate`.
    pub tool_version: &'static str,
    /// The plan's name.
    pub plan: String,
    /// The target.
    pub target: TargetName,
    /// SHA-256 over the plan's text, the databases' identities and the pending files: equal digests are equal work.
    pub digest: String,
    /// Where the work is to be done.
    pub databases: Vec<Place>,
    /// What the warm copies will cost that are made before the first change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub standbys: Vec<Cost>,
    /// Every step, in the order of execution.
    pub steps: Vec<Work>,
    /// The order of execution; of a step that is cut, that of its first part.
    pub order: Vec<StepName>,
    /// The order of execution, where a step is cut because migrations wait for each other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<Stretch>,
    /// The checks.
    pub checks: Vec<CheckLine>,
}

/// A database of the plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Place {
    /// Its name in the plan.
    pub name: DatabaseName,
    /// Its name on the server.
    pub dbname: String,
    /// The server's system identifier.
    pub server: String,
    /// Its oid.
    pub oid: u32,
    /// Whether a snapshot of it will be taken.
    pub snapshot: bool,
    /// The latest drill: how long its restore took. None, if none is known.
    pub drilled: Option<Drilled>,
}

/// A step of the plan.
#[derive(Debug, Clone, Serialize)]
pub struct Work {
    /// Its name.
    pub name: StepName,
    /// Its database.
    pub database: DatabaseName,
    /// `sql`, `refinery`, `copy`.
    pub kind: &'static str,
    /// Steps that come first.
    pub after: Vec<StepName>,
    /// What is to be applied.
    pub pending: Vec<Unit>,
    /// Numbers that stand twice.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub duplicate_numbers: Vec<String>,
    /// Repeatable migrations that the ledger has and that have no file any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<String>,
}

/// A stretch of pending migrations that is carried out in one go.
#[derive(Debug, Clone, Serialize)]
pub struct Stretch {
    /// The step.
    pub step: StepName,
    /// Its database.
    pub database: DatabaseName,
    /// The first migration.
    pub first: String,
    /// The last one.
    pub last: String,
    /// How many there are.
    pub pending: usize,
}

/// One migration that is to be applied.
#[derive(Debug, Clone, Serialize)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// Its file; none of a copy and of a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// SHA-256 of its text; of a copy, of its definition.
    pub checksum: String,
    /// Whether it is one transaction with its ledger row.
    pub transactional: bool,
    /// Whether it has a way back of its own, besides the snapshot.
    pub reversible: bool,
    /// Of a repeatable migration, why it is to be applied: `new`, `changed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeatable: Option<&'static str>,
    /// The migrations of other steps that it waits for, as `STEP/NAME`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// What is dangerous about it.
    pub hazards: Vec<Hazard>,
    /// What is known beforehand, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Something dangerous in a migration.
#[derive(Debug, Clone, Serialize)]
pub struct Hazard {
    /// Its name.
    pub rule: &'static str,
    /// `warning` or `error`.
    pub severity: &'static str,
    /// From 1.
    pub line: usize,
    /// In words.
    pub message: String,
}

impl From<Finding> for Hazard {
    fn from(it: Finding) -> Self {
        Self { rule: it.rule, severity: it.severity.word(), line: it.line, message: it.message }
    }
}

/// A check of the plan.
#[derive(Debug, Clone, Serialize)]
pub struct CheckLine {
    /// Its name.
    pub name: String,
    /// `before` or `after`.
    pub when: &'static str,
    /// `sync`.
    pub kind: &'static str,
}

impl Prospectus {
    /// What `apply` would do with what `survey` found.
    #[must_use]
    pub fn new(plan: &Plan, survey: &Survey, only: Option<&BTreeSet<DatabaseName>>) -> Self {
        let wanted = |step: &&Step| only.is_none_or(|only| only.contains(&step.database));
        let steps: Vec<Work> = plan.steps.iter().filter(wanted).map(|step| work(step, survey)).collect();
        let mut it = Self {
            format: FORMAT,
            tool_version: version::THIS,
            plan: plan.name.clone(),
            target: plan.target.name.clone(),
            digest: String::new(),
            databases: places(plan, survey),
            standbys: Vec::new(),
            order: steps.iter().map(|step| step.name.clone()).collect(),
            segments: stretches(plan, survey),
            steps,
            checks: plan
                .checks
                .iter()
                .map(|check| CheckLine { name: check.name.clone(), when: word(check.when), kind: "sync" })
                .collect(),
        };
        it.digest = it.compute(&plan.text);
        it
    }

    /// The same, with what warm copies will cost. No digest has it.
    ///
    /// # Errors
    /// A database cannot be reached.
    pub async fn with_standbys(mut self, plan: &Plan, store: Option<&Store>) -> Result<Self, PgError> {
        let busy = self.databases.iter().filter(|it| it.snapshot).map(|it| it.name.clone()).collect();
        self.standbys = standby::costs(plan, store, Some(&busy)).await?;
        Ok(self)
    }

    /// The same, with what is dangerous about each pending migration. That takes its time with thousands of them, and is
    /// for people and scripts alone: no digest has it.
    #[must_use]
    pub fn with_hazards(mut self, plan: &Plan, survey: &Survey) -> Self {
        let pending = |step: &StepName| survey.steps.get(step).map_or(&[][..], |state| &state.pending[..]);
        let of_step = |step: &Work| {
            let kind = plan.steps.iter().find(|it| it.name == step.name).map(|it| &it.kind);
            let (Some(Kind::Sql(files)) | Some(Kind::Refinery(files))) = kind else { return Vec::new() };
            pending(&step.name).iter().map(|index| &files.migrations[*index]).collect()
        };
        let migrations: Vec<&Migration> = self.steps.iter().flat_map(of_step).collect();
        let units = self.steps.iter_mut().filter(|step| step.kind != "copy").flat_map(|step| &mut step.pending);
        for (unit, found) in units.zip(lint::hazards(&migrations, &plan.allowed)) {
            unit.hazards = found.into_iter().map(Hazard::from).collect();
        }
        self
    }

    /// The same, with what the latest drill of each database that a snapshot will be taken of has measured. No digest has it.
    ///
    /// # Errors
    /// The store failed.
    pub async fn with_drills(mut self, store: &Store) -> Result<Self, SnapshotError> {
        let runs = journal::runs(store).await.map_err(|error| SnapshotError::Journal(Box::new(error)))?;
        for place in self.databases.iter_mut().filter(|it| it.snapshot) {
            place.drilled = drill::latest_of(store, &runs, &place.name).await?;
        }
        Ok(self)
    }

    /// Whether there is anything to apply.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.steps.iter().any(|step| !step.pending.is_empty())
    }

    /// What a copy would carry over changes from minute to minute, and is left out.
    fn compute(&self, text: &str) -> String {
        let mut digest = Sha256::new();
        let mut take = |text: &str| {
            digest.update((text.len() as u64).to_be_bytes());
            digest.update(text);
        };
        take(text);
        take(self.target.as_str());
        for place in &self.databases {
            take(&format!("{} {} {} {}", place.name, place.dbname, place.server, place.oid));
        }
        for step in self.steps.iter().filter(|step| step.kind != "copy") {
            take(step.name.as_str());
            step.pending.iter().for_each(|unit| take(&format!("{} {}", unit.name, unit.checksum)));
        }
        self.segments.iter().for_each(|it| take(&format!("{} {} {}", it.step, it.first, it.last)));
        digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn word(when: When) -> &'static str {
    match when {
        When::Before => "before",
        When::After => "after",
    }
}

/// What is pending, cut as it will be carried out; nothing if no step with work is cut.
fn stretches(plan: &Plan, survey: &Survey) -> Vec<Stretch> {
    if plan.segments.len() == plan.steps.len() {
        return Vec::new();
    }
    let stretch = |segment: &Segment| {
        let step = &plan.steps[segment.step];
        let names = step::names(step, &survey.part(plan, segment)?);
        let (first, last) = (names.first()?.clone(), names.last()?.clone());
        Some(Stretch { step: step.name.clone(), database: step.database.clone(), first, last, pending: names.len() })
    };
    let found: Vec<Stretch> = plan.segments.iter().filter_map(stretch).collect();
    let steps: BTreeSet<&StepName> = found.iter().map(|it| &it.step).collect();
    if steps.len() == found.len() { Vec::new() } else { found }
}

fn places(plan: &Plan, survey: &Survey) -> Vec<Place> {
    let busy: Vec<&DatabaseName> = survey.databases_at_risk(plan).into_iter().map(|it| &it.name).collect();
    let place = |name: &DatabaseName| {
        let (found, database) = (survey.found(name)?, plan.databases.get(name)?);
        Some(Place {
            name: name.clone(),
            dbname: database.url.dbname().to_owned(),
            server: found.server.system_identifier.clone(),
            oid: found.oid,
            snapshot: busy.contains(&name),
            drilled: None,
        })
    };
    survey.databases.keys().filter_map(place).collect()
}

fn work(step: &Step, survey: &Survey) -> Work {
    let none = StepState::default();
    let state = survey.steps.get(&step.name).unwrap_or(&none);
    let (pending, duplicate_numbers) = match &step.kind {
        Kind::Sql(files) => (units(step, state), duplicates(files)),
        Kind::Copy(it) => (copy_units(it, state), Vec::new()),
        Kind::Refinery(_) | Kind::Alembic(_) | Kind::Python(_) | Kind::Command(_) => (units(step, state), Vec::new()),
    };
    Work {
        name: step.name.clone(),
        database: step.database.clone(),
        kind: step.kind.word(),
        after: step.after.clone(),
        pending,
        duplicate_numbers,
        gone: state.gone.clone(),
    }
}

fn duplicates(files: &crate::kind::Files) -> Vec<String> {
    let all = crate::kind::sql::duplicate_numbers(&files.migrations);
    all.into_iter().map(|(number, names)| format!("{number}: {}", names.join(", "))).collect()
}

fn units(step: &Step, state: &StepState) -> Vec<Unit> {
    let listed = |it: &Migration| state.listed.as_ref().is_some_and(|listed| listed.goes_down(&it.name));
    // Of one that is applied anew, the text before it is not brought back by its way back.
    let goes_down = |it: &Migration| it.down.is_some() || listed(it);
    let unit = |index: &usize| {
        let it = &state.migrations(step)[*index];
        Unit {
            name: it.name.clone(),
            file: (!matches!(step.kind, Kind::Command(_))).then(|| it.path.display().to_string()),
            checksum: it.checksum.clone(),
            transactional: it.transactional,
            reversible: goes_down(it) && !state.replaced.contains_key(index),
            repeatable: state.repeatable(step, *index),
            after: it.turn.after.iter().map(ToString::to_string).collect(),
            hazards: Vec::new(),
            note: state.going_on.get(&it.name).map(ToString::to_string),
        }
    };
    state.pending.iter().map(unit).collect()
}

fn copy_units(it: &Copy, state: &StepState) -> Vec<Unit> {
    if !state.has_work() {
        return Vec::new();
    }
    vec![Unit {
        name: it.to.table.clone(),
        file: None,
        checksum: crate::sql::checksum::checksum(&it.definition()),
        transactional: true,
        reversible: false,
        repeatable: None,
        after: Vec::new(),
        hazards: Vec::new(),
        note: state.copy.as_ref().map(ToString::to_string),
    }]
}

/// A saved plan that cannot be used.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum SavedPlanError {
    /// It cannot be read.
    #[error("the saved plan {} cannot be read", path.display())]
    #[diagnostic(code("saved_plan.read"), help("Make one with `migrate plan --out {}`.", path.display()))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is something else.
    #[error("{} is not a saved plan", path.display())]
    #[diagnostic(code("saved_plan.format"), help("Make one with `migrate plan --out {}`.", path.display()))]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It is of a later version.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Newer(#[from] Newer),
    /// Files, ledgers or databases are not what they were.
    #[error("the saved plan no longer matches: {what}")]
    #[diagnostic(
        code("saved_plan.differs"),
        help("Make a new one with `migrate plan --out FILE`, look at it, and apply that.")
    )]
    Differs {
        /// What differs.
        what: String,
    },
}

/// What `plan --out` wrote.
#[derive(Debug, Clone)]
pub struct SavedPlan {
    /// Its target.
    pub target: TargetName,
    /// The file's text, kept with the run.
    pub text: String,
    kept: Kept,
}

#[derive(Debug, Clone, Deserialize)]
struct Kept {
    target: TargetName,
    digest: String,
    steps: Vec<KeptStep>,
}

#[derive(Debug, Clone, Deserialize)]
struct KeptStep {
    name: StepName,
    pending: Vec<KeptUnit>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct KeptUnit {
    name: String,
    checksum: String,
}

impl SavedPlan {
    /// Reads one.
    ///
    /// # Errors
    /// It cannot be read, is none, or is of a later version.
    pub fn read(path: &Path) -> Result<Self, SavedPlanError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| SavedPlanError::Read { path: path.into(), source })?;
        Self::parse(path, text)
    }

    /// Reads `text`, which messages call `path`.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(path: &Path, text: String) -> Result<Self, SavedPlanError> {
        let known = version::known(text.as_bytes(), path.display().to_string(), FORMAT);
        known.map_err(|it| it.or(", or make another with `migrate plan --out FILE`"))?;
        let kept: Kept =
            serde_json::from_str(&text).map_err(|source| SavedPlanError::Format { path: path.into(), source })?;
        Ok(Self { target: kept.target.clone(), text, kept })
    }

    /// Whether the work is still exactly what was saved.
    ///
    /// # Errors
    /// [`SavedPlanError::Differs`], naming the first difference.
    pub fn still_matches(
        &self,
        plan: &Plan,
        survey: &Survey,
        only: Option<&BTreeSet<DatabaseName>>,
    ) -> Result<(), SavedPlanError> {
        let now = Prospectus::new(plan, survey, only);
        // What people read in the file is compared as well as its digest: an edited one is not what they agreed to.
        let differs = |what: String| Err(SavedPlanError::Differs { what });
        if now.target != self.kept.target {
            return differs(format!("it is for the target {}, and this is {}", self.kept.target, now.target));
        }
        for step in now.steps.iter().filter(|step| step.kind != "copy") {
            let units = |step: &Work| -> Vec<KeptUnit> {
                step.pending
                    .iter()
                    .map(|it| KeptUnit { name: it.name.clone(), checksum: it.checksum.clone() })
                    .collect()
            };
            let kept = self.kept.steps.iter().find(|it| it.name == step.name).map(|it| it.pending.clone());
            if kept.as_ref() != Some(&units(step)) {
                return differs(format!("what is pending in step `{}` is not what was saved", step.name));
            }
        }
        if now.digest != self.kept.digest || now.steps.len() != self.kept.steps.len() {
            return differs("the plan file or a database is another one".into());
        }
        Ok(())
    }
}
