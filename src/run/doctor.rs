//! Everything that `apply` needs, looked at before anything is changed: programs, privileges, extensions, connections, the
//! store. Each finding that is bad comes with its remedy. `doctor/database.rs` is about one database, `doctor/files.rs` about what the
//! pending migrations want of it, `doctor/server.rs` about what databases of a server share.

mod database;
mod files;
mod server;

use std::collections::BTreeMap;

use futures::future::join_all;
use serde::Serialize;
use sqlx::PgConnection;

use crate::event::Event;
use crate::failure::{Blame, Failure, list};
use crate::names::DatabaseName;
use crate::outside::child;
use crate::outside::clock;
use crate::outside::postgres::{MAINTENANCE, PgError, connect};
use crate::outside::secret::Secret;
use crate::outside::store::Store;
use crate::plan::hooks::Hook;
use crate::plan::{Database, Plan, RunSettings, Step};
use crate::world::World;

use super::hooks;
use super::lock::who_holds;
use super::needs::Needs;
use super::readable::{self, Readable};
use super::ready::Ready;
use super::standby;
use super::survey::{Found, Sessions, StepState, Survey, UnreadError};
use files::Wanted;

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseName>,
    /// Whether `apply` can go on.
    pub outcome: Verdict,
    /// What was seen.
    pub detail: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// What a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Passed,
    /// `apply` goes on, and this should be known.
    Warned,
    /// `apply` would fail, or could not be taken back.
    Failed,
}

/// What `apply` needs is not there.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{}", .failed.join("\n"))]
#[diagnostic(code("preflight"), help("{help}"))]
struct NotReady {
    failed: Vec<String>,
    help: String,
}

/// What preflight leaves to the run.
pub struct Preflight {
    /// What it has in hand of each database that it is about to change.
    pub ready: BTreeMap<DatabaseName, Ready>,
    /// The plan's `[run]` with less at once, where the servers have not connections enough for what it says.
    pub slower: Option<RunSettings>,
}

/// Refuses to begin where something is missing. What is asked goes over the sessions of the survey, and those are handed on
/// to the steps where nothing comes between that takes long, or that wants a database for itself: no snapshot, no program.
///
/// # Errors
/// Everything that is missing, each with its remedy.
pub async fn preflight(
    world: &World,
    plan: &Plan,
    survey: &Survey,
    mut sessions: Sessions,
    snapshots: bool,
) -> Result<Preflight, Failure> {
    let busy = survey.databases_at_risk(plan);
    let wanted = Wanted::of(plan, survey);
    let looks = busy.iter().map(|database| {
        let found = survey.found(&database.name);
        look(world, database, found, snapshots, wanted.of_database(&database.name), sessions.take(&database.name))
    });
    let looked = join_all(looks).await;
    let mut findings: Vec<Finding> = looked.iter().flat_map(|it| it.findings.clone()).collect();
    let shared = server::findings(plan, survey, &looked, snapshots);
    findings.extend(shared.findings);
    findings.extend(different_databases(survey));
    findings.extend(program_findings(
        plan.steps.iter().filter(|it| survey.steps.get(&it.name).is_some_and(StepState::has_work)),
    ));
    findings.extend(hook_findings(world, plan));
    not_ready(&findings)?;
    for it in findings.iter().filter(|it| it.outcome == Verdict::Warned) {
        let help = it.help.as_ref().map(|help| format!(". {help}")).unwrap_or_default();
        world.tell(Event::Noted(format!("{}{help}", it.placed())));
    }
    let hand_on = !snapshots && !survey.runs_programs(plan);
    let ready = looked.into_iter().filter_map(|it| {
        let ready = it.ready?;
        Some((it.name, if hand_on { ready } else { ready.without_session() }))
    });
    Ok(Preflight { ready: ready.collect(), slower: shared.slower })
}

/// Whether a run may begin.
fn not_ready(findings: &[Finding]) -> Result<(), Failure> {
    // An extension may be what a pending migration installs: for `apply` it is enough that the server has it.
    let bad: Vec<&Finding> =
        findings.iter().filter(|it| it.outcome == Verdict::Failed && it.name != "extension installed").collect();
    if bad.is_empty() {
        return Ok(());
    }
    let failed = bad.iter().map(|it| it.placed()).collect();
    let mut help: Vec<String> = Vec::new();
    for it in bad.iter().filter_map(|it| it.help.as_ref()) {
        if !help.contains(it) {
            help.push(it.clone());
        }
    }
    Err(Failure::untouched(Blame::Work, NotReady { failed, help: help.join("\n") }))
}

impl Finding {
    /// What was seen, with its place.
    fn placed(&self) -> String {
        let place = self.database.as_ref().map_or_else(String::new, |name| format!("{name}: "));
        format!("{place}{}", self.detail)
    }
}

/// Everything, for `migrate doctor`.
pub async fn examine(
    world: &World,
    plan: &Plan,
    survey: &Survey,
    mut sessions: Sessions,
    store: Result<&Store, String>,
) -> Vec<Finding> {
    let mut findings = vec![store_finding(store.clone()).await];
    let wanted = &Wanted::of(plan, survey);
    let looks = plan.databases.values().map(|database| {
        let session = sessions.take(&database.name);
        async move {
            match survey.databases.get(&database.name) {
                Some(Err(error)) => Looked::unreachable(database, error),
                found => {
                    let (found, wanted) = (found.and_then(|it| it.as_ref().ok()), wanted.of_database(&database.name));
                    let mut looked = look(world, database, found, true, wanted, session).await;
                    looked.findings.push(lock_finding(database).await);
                    looked
                }
            }
        }
    });
    let looked = join_all(looks).await;
    findings.extend(looked.iter().flat_map(|it| it.findings.clone()));
    findings.extend(server::findings(plan, survey, &looked, true).findings);
    findings.extend(standby_findings(plan, survey, store.ok()).await);
    findings.extend(different_databases(survey));
    findings.extend(program_findings(plan.steps.iter()));
    findings.extend(hook_findings(world, plan));
    findings.extend(unread_findings(plan, survey));
    findings.extend(encryption_finding(world, plan));
    findings
}

/// What the standbys that the plan wants will cost: a release cuts the applications off meanwhile.
async fn standby_findings(plan: &Plan, survey: &Survey, store: Option<&Store>) -> Vec<Finding> {
    // What cannot be reached has a finding of its own.
    let there = survey.databases.keys().filter(|name| survey.found(name).is_some()).cloned().collect();
    let costs = standby::costs(plan, store, Some(&there)).await.unwrap_or_default();
    let finding = |it: &standby::Cost| {
        let how = it.measured.as_ref().map_or("an estimate".to_owned(), |run| format!("as measured in run {run}"));
        let (size, time) = (it.bytes.div_ceil(1 << 20), it.seconds);
        let fine = format!(
            "{size} MiB more on the server's disk; its sessions are ended, and it cannot be reached for about {time:.1} s ({how})"
        );
        finding("standby", plan.databases.get(&it.database), None, fine)
    };
    costs.iter().map(finding).collect()
}

/// Whether encrypted snapshots could be read back here.
fn encryption_finding(world: &World, plan: &Plan) -> Option<Finding> {
    match readable::look(world, plan) {
        Ok(Readable::Plain) => None,
        Ok(Readable::Decrypted(fine) | Readable::Elsewhere(fine)) => Some(finding("encryption", None, None, fine)),
        Err(error) => Some(explained("encryption", &error)),
    }
}

/// Steps of which it cannot be said what is pending.
fn unread_findings(plan: &Plan, survey: &Survey) -> Vec<Finding> {
    let unread = plan.steps.iter().filter_map(|step| Some((step, survey.steps.get(&step.name)?.unread.as_ref()?)));
    let finding = |(step, error): (&Step, &std::sync::Arc<UnreadError>)| {
        let found = explained("revisions", error.as_ref());
        Finding { database: Some(step.database.clone()), ..found }
    };
    unread.map(finding).collect()
}

/// Whether the programs of steps are there. One that is not would be noticed only after snapshots and other steps.
fn program_findings<'a>(steps: impl Iterator<Item = &'a Step>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for step in steps {
        let Some((surroundings, name)) = step.kind.program() else { continue };
        let path = surroundings.env.get("PATH").map(Secret::expose).unwrap_or_default();
        let found = child::find(&surroundings.dir, name, path);
        let fault = found.is_none().then(|| {
            let place = if name.contains('/') { surroundings.dir.display().to_string() } else { "PATH".to_owned() };
            let help = "Install it, or correct the step: a name with a slash is relative to the step's `dir`.";
            (format!("`{name}` of step `{}` is not in {place}, or may not be run", step.name), help.to_owned())
        });
        let fine = format!("step `{}` runs {}", step.name, found.unwrap_or_default().display());
        findings.push(Finding { database: Some(step.database.clone()), ..finding("program", None, fault, fine) });
    }
    findings
}

/// Whether the hooks could be called. One that cannot is known before the night on which it is needed, and keeps nothing from going on.
fn hook_findings(world: &World, plan: &Plan) -> Vec<Finding> {
    let finding = |hook: &Hook| match hooks::ready(world, hook) {
        Ok(()) => finding("hook", None, None, format!("the hook on `{}` can be called", hook.on.word())),
        Err((why, help)) => {
            warned("hook", None, format!("the hook on `{}` cannot be called: {why}", hook.on.word()), help)
        }
    };
    plan.hooks.iter().map(finding).collect()
}

/// One that fails, if there is a fault: what is wrong, and the remedy.
fn finding(
    name: &'static str,
    database: Option<&Database>,
    fault: Option<(String, String)>,
    fine: impl Into<String>,
) -> Finding {
    let database = database.map(|it| it.name.clone());
    match fault {
        None => Finding { name, database, outcome: Verdict::Passed, detail: fine.into(), help: None },
        Some((detail, help)) => Finding { name, database, outcome: Verdict::Failed, detail, help: Some(help) },
    }
}

/// One that does not keep `apply` from going on.
fn warned(name: &'static str, database: Option<&Database>, detail: String, help: String) -> Finding {
    let database = database.map(|it| it.name.clone());
    Finding { name, database, outcome: Verdict::Warned, detail, help: Some(help) }
}

/// An error as a finding, with its cause and its help.
fn explained(name: &'static str, error: &impl miette::Diagnostic) -> Finding {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let help = error.help().or_else(|| error.diagnostic_source()?.help()).map(|help| help.to_string());
    let help = help.unwrap_or_else(|| "Look at the cause.".to_owned());
    finding(name, None, Some((format!("{error}{cause}"), help)), "")
}

/// Writes an object and reads it back.
async fn store_finding(store: Result<&Store, String>) -> Finding {
    let help = "Check [store] url, the credentials, and that the account may create and read objects.";
    let store = match store {
        Ok(store) => store,
        Err(error) => return finding("store", None, Some((error, help.into())), ""),
    };
    // One for each day: nothing in the store is ever deleted by us.
    let key = format!("doctor/{}.txt", clock::now().format("%Y-%m-%d"));
    let tried = async {
        store.put_new(&key, "written by migrate doctor\n").await?;
        store.get(&key).await
    };
    let fault = match tried.await {
        Ok(Some(_)) => None,
        Ok(None) => Some((format!("{}: what was written cannot be read back", store.url()), help.into())),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            Some((format!("{error}{cause}"), help.into()))
        }
    };
    finding("store", None, fault, format!("{} can be written and read", store.url()))
}

/// Two names of the plan that lead to one database would be migrated, dumped and swapped twice.
fn different_databases(survey: &Survey) -> Vec<Finding> {
    let mut places: BTreeMap<(String, u32, i64), Vec<&DatabaseName>> = BTreeMap::new();
    for name in survey.databases.keys() {
        let Some(found) = survey.found(name) else { continue };
        let place = (found.server.system_identifier.clone(), found.oid, found.server.started_at.timestamp_micros());
        places.entry(place).or_default().push(name);
    }
    let same: Vec<String> = places.values().filter(|names| names.len() > 1).map(|names| list(names)).collect();
    let fault = (!same.is_empty()).then(|| {
        let help = "Two URLs of the target lead to one database: correct the one that is wrong.";
        (format!("these are one and the same database: {}", same.join("; ")), help.to_owned())
    });
    vec![finding("different databases", None, fault, "every name of the plan is a database of its own")]
}

/// What was seen of one database.
struct Looked {
    name: DatabaseName,
    findings: Vec<Finding>,
    /// What it said, if it answered.
    needs: Option<Needs>,
    ready: Option<Ready>,
}

impl Looked {
    fn unreachable(database: &Database, error: &impl miette::Diagnostic) -> Self {
        let findings = vec![Finding { database: Some(database.name.clone()), ..explained("connection", error) }];
        Self { name: database.name.clone(), findings, needs: None, ready: None }
    }
}

/// Looks at a database. The programs that its server needs are looked at while it answers; `snapshots`, if there will be any.
async fn look(
    world: &World,
    database: &Database,
    found: Option<&Found>,
    snapshots: bool,
    wanted: &files::OfDatabase,
    session: Option<PgConnection>,
) -> Looked {
    let programs = async {
        match found.filter(|_| snapshots) {
            Some(found) => Some(database::tools(world, database, &found.server).await),
            None => None,
        }
    };
    let asked = async {
        let mut session = match session {
            Some(session) => session,
            None => connect(&database.url, "migrate doctor").await?,
        };
        let needs = Needs::of(&mut session, database, !wanted.demands.extensions.is_empty()).await?;
        Ok::<_, PgError>((needs, session))
    };
    let (programs, asked) = futures::join!(programs, asked);
    let (mut needs, session) = match asked {
        Ok(asked) => asked,
        Err(error) => return Looked::unreachable(database, &error),
    };
    let mut findings: Vec<Finding> = programs.into_iter().collect();
    findings.extend(database::findings(database, found, &needs));
    findings.extend(files::findings(database, found, &needs, wanted));
    let ready = Ready::new(std::mem::take(&mut needs.roles), (needs.pid, needs.leftovers), session);
    Looked { name: database.name.clone(), findings, needs: Some(needs), ready: Some(ready) }
}

async fn lock_finding(database: &Database) -> Finding {
    let looked = async {
        let mut session = connect(&database.url.with_dbname(MAINTENANCE), "migrate doctor").await?;
        who_holds(&mut session, database.url.dbname()).await
    };
    let fault = match looked.await {
        Ok(None) => None,
        Ok(Some(holder)) => Some((format!("the lock is held {holder}"), "Wait for that run to end.".into())),
        Err(error) => {
            let help = format!("Locks are held in the database `{MAINTENANCE}`: GRANT CONNECT on it.");
            Some((error.to_string(), help))
        }
    };
    finding("lock", Some(database), fault, "nobody holds the lock")
}
