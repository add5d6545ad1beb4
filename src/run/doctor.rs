//! Everything that `apply` needs, looked at before anything is changed: programs, privileges, extensions, connections, the
//! store. Each finding that is bad comes with its remedy.

use std::collections::BTreeMap;

use futures::future::join_all;
use serde::Serialize;
use sqlx::PgConnection;

use crate::failure::{Blame, Failure, list};
use crate::names::DatabaseName;
use crate::outside::child;
use crate::outside::clock;
use crate::outside::postgres::{MAINTENANCE, PgError, Server, connect};
use crate::outside::secret::Secret;
use crate::outside::store::Store;
use crate::outside::url::SslMode;
use crate::plan::{Database, Plan, Step};
use crate::world::World;

use super::lock::who_holds;
use super::needs::Needs;
use super::readable::{self, Readable};
use super::ready::Ready;
use super::standby;
use super::survey::{Sessions, StepState, Survey, UnreadError};

/// Sessions that a run needs for one database at its widest: the lock, the snapshot and `pg_dump`, or a step and its copy.
const SESSIONS_EACH: usize = 3;

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
) -> Result<BTreeMap<DatabaseName, Ready>, Failure> {
    let busy = survey.databases_at_risk(plan);
    let looks = busy.iter().map(|database| {
        let server = survey.found(&database.name).map(|it| &it.server).filter(|_| snapshots);
        database_findings(world, database, server, sessions.take(&database.name))
    });
    let (looked, ready): (Vec<_>, Vec<_>) = join_all(looks).await.into_iter().unzip();
    let mut findings: Vec<Finding> = looked.into_iter().flatten().collect();
    findings.extend(different_databases(survey));
    findings.extend(program_findings(
        plan.steps.iter().filter(|it| survey.steps.get(&it.name).is_some_and(StepState::has_work)),
    ));
    // An extension may be what a pending migration installs: for `apply` it is enough that the server has it.
    let bad: Vec<&Finding> =
        findings.iter().filter(|it| it.outcome == Verdict::Failed && it.name != "extension installed").collect();
    if bad.is_empty() {
        let hand_on = !snapshots && !survey.runs_programs(plan);
        let names = busy.iter().map(|it| it.name.clone());
        let ready = ready.into_iter().flatten().map(|it| if hand_on { it } else { it.without_session() });
        return Ok(names.zip(ready).collect());
    }
    let place = |it: &Finding| it.database.as_ref().map_or_else(String::new, |name| format!("{name}: "));
    let failed = bad.iter().map(|it| format!("{}{}", place(it), it.detail)).collect();
    let mut help: Vec<String> = bad.iter().filter_map(|it| it.help.clone()).collect();
    help.dedup();
    Err(Failure::untouched(Blame::Work, NotReady { failed, help: help.join("\n") }))
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
    let looks = plan.databases.values().map(|database| {
        let session = sessions.take(&database.name);
        async move {
            match survey.databases.get(&database.name) {
                Some(Err(error)) => vec![unreachable(database, error)],
                found => {
                    let server = found.and_then(|it| it.as_ref().ok()).map(|it| &it.server);
                    let (mut found, _) = database_findings(world, database, server, session).await;
                    found.push(lock_finding(database).await);
                    found
                }
            }
        }
    });
    let looked = join_all(looks).await;
    findings.extend(looked.into_iter().flatten());
    findings.extend(standby_findings(plan, survey, store.ok()).await);
    findings.extend(different_databases(survey));
    findings.extend(program_findings(plan.steps.iter()));
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

fn unreachable(database: &Database, error: &impl miette::Diagnostic) -> Finding {
    Finding { database: Some(database.name.clone()), ..explained("connection", error) }
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

/// The programs that a server needs are looked at while the database is.
async fn database_findings(
    world: &World,
    database: &Database,
    server: Option<&Server>,
    session: Option<PgConnection>,
) -> (Vec<Finding>, Option<Ready>) {
    let programs = async {
        match server {
            Some(server) => Some(tools(world, database, server).await),
            None => None,
        }
    };
    let asked = async {
        let mut session = match session {
            Some(session) => session,
            None => connect(&database.url, "migrate doctor").await?,
        };
        let needs = Needs::of(&mut session, database).await?;
        Ok::<_, PgError>((needs, session))
    };
    let (programs, asked) = futures::join!(programs, asked);
    match asked {
        Ok((needs, session)) => {
            let asked = [privileges(&needs, database), extensions(&needs, database)].concat();
            let rest = asked.into_iter().chain([connections(needs.free, database)]);
            let alone = [not_maintenance(database), protection(&needs, database)];
            let findings = programs.into_iter().chain(alone).chain(rest).collect();
            (findings, Some(Ready::new(needs.roles, needs.pid, session)))
        }
        Err(error) => (vec![unreachable(database, &error)], None),
    }
}

/// How the session is protected, which nobody should have to guess.
fn protection(needs: &Needs, database: &Database) -> Finding {
    let (url, ssl) = (&database.url, database.url.ssl());
    let mode = ssl.mode.as_str();
    let verified = match ssl.mode {
        _ if ssl.trusted_file().is_none() => "it is not verified who the server is".to_owned(),
        SslMode::VerifyFull => format!("the server's certificate is verified, and is for {}", url.host()),
        _ => "the server's certificate is verified".to_owned(),
    };
    let fine = match &needs.tls {
        Some(version) => format!("sessions are encrypted with {version}; {verified} (sslmode={mode})"),
        None if url.is_socket() => "sessions go through a socket of this machine".to_owned(),
        None => format!("sessions are not encrypted (sslmode={mode})"),
    };
    finding("session", Some(database), None, fine)
}

/// Locks are held in the maintenance database, and databases are renamed from it: it cannot be swapped itself.
fn not_maintenance(database: &Database) -> Finding {
    let fault = (database.url.dbname() == MAINTENANCE).then(|| {
        let help = "Keep the tables in a database of their own.";
        (format!("the database `{MAINTENANCE}` cannot be carried back: locks are held in it"), help.to_owned())
    });
    finding("not the maintenance database", Some(database), fault, format!("it is not `{MAINTENANCE}`"))
}

async fn tools(world: &World, database: &Database, server: &Server) -> Finding {
    let found = world.tools.for_server(server.major()).await;
    let fine = found.as_ref().map(|it| format!("server {}, pg_dump and pg_restore {}", server.version, it.major));
    let fault = found.as_ref().err().map(|error| {
        let help = miette::Diagnostic::help(error).map(|help| help.to_string()).unwrap_or_default();
        (error.to_string(), help)
    });
    finding("client programs", Some(database), fault, fine.unwrap_or_default())
}

/// What a restore into a side database and a swap need. Without them there is no way back, and so no way forward.
fn privileges(needs: &Needs, database: &Database) -> Vec<Finding> {
    let Needs { role, owner, strangers, .. } = needs;
    let may_create = (!needs.creates).then(|| {
        let help = format!("As an administrator: `ALTER ROLE \"{role}\" CREATEDB`.");
        (format!("the role {role} may not create databases, which a rollback needs"), help)
    });
    let may_rename = (!needs.owns).then(|| {
        let help = format!("As an administrator: `GRANT \"{owner}\" TO \"{role}\"`.");
        (format!("the role {role} is not a member of {owner}, which owns the database: it could not rename it"), help)
    });
    let may_own = (!strangers.is_empty()).then(|| {
        let grants: Vec<String> = strangers.iter().map(|it| format!("GRANT \"{it}\" TO \"{role}\"")).collect();
        let what = format!(
            "the role {role} is not a member of {}, which own objects: it could not restore them",
            list(strangers)
        );
        (what, format!("As an administrator: `{}`.", grants.join("; ")))
    });
    let it = Some(database);
    vec![
        finding("creates databases", it, may_create, format!("the role {role} may create databases")),
        finding("owns the database", it, may_rename, format!("the role {role} is {owner}, or a member of it")),
        finding("owns the objects", it, may_own, format!("the role {role} could own every object of a restore")),
    ]
}

fn extensions(needs: &Needs, database: &Database) -> Vec<Finding> {
    let mut found = Vec::new();
    for name in &database.extensions {
        let there = needs.extensions.iter().find(|(it, _)| it == name);
        let available = there.is_none().then(|| {
            let help = "Install its package on the server, or remove it from `extensions` in the plan.";
            (format!("the server has no extension {name}"), help.into())
        });
        found.push(finding("extension available", Some(database), available, format!("the server has {name}")));
        if let Some((_, installed)) = there {
            let fault = (!installed).then(|| {
                let help = format!("`CREATE EXTENSION \"{name}\"`, by hand or by a migration.");
                (format!("the extension {name} is not installed"), help)
            });
            found.push(finding("extension installed", Some(database), fault, format!("{name} is installed")));
        }
    }
    found
}

fn connections(free: usize, database: &Database) -> Finding {
    let fault = (free < SESSIONS_EACH).then(|| {
        let help = "End idle sessions, or raise max_connections.";
        (
            format!("the server has {free} free connections, and a run needs {SESSIONS_EACH} for each database"),
            help.into(),
        )
    });
    finding("connections", Some(database), fault, format!("{free} free connections"))
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
