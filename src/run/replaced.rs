//! What rollbacks and releases left beside the live databases: replaced databases, warm copies, side databases that nobody
//! exchanged. Nothing but `migrate snapshot prune --replaced` drops them, and never those of a run that is not finished.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sqlx::PgConnection;

use crate::failure::{Failure, OrFail};
use crate::journal::entry::Outcome;
use crate::journal::state::{DatabaseState, Restore, RunState, Standby};
use crate::journal::{self, JournalError};
use crate::names::{DatabaseName, RunId};
use crate::outside::clock;
use crate::outside::postgres::{MAINTENANCE, PgError, Said, Server, change, connect, query_error};
use crate::outside::store::Store;
use crate::plan::{Database, Plan};
use crate::sql::quote::identifier;
use crate::world::World;

use super::apply::refused;
use super::lock::Locks;

/// SQLSTATE `undefined_database`: it was dropped between two looks.
const GONE: &str = "3D000";

/// A database beside a live one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Beside {
    /// The run that left it.
    pub run: RunId,
    /// The database that it is beside.
    pub database: DatabaseName,
    /// Its name on the server.
    pub dbname: String,
    /// `replaced`, `standby`, `side`.
    pub what: &'static str,
    /// On disk.
    pub bytes: u64,
    /// Why it stays; none: it may go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What should be known before it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What a journal says was left.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Left {
    dbname: String,
    /// Where the journal has it.
    oid: Option<u32>,
    what: &'static str,
}

fn left(it: &DatabaseState) -> Vec<Left> {
    let side = |name: &String| Left { dbname: name.clone(), oid: None, what: "side" };
    let mut all: Vec<Left> = match &it.restore {
        Restore::Swapped(swap) | Restore::Swapping(swap) if swap.replaces() => {
            vec![Left { dbname: swap.kept_as.clone(), oid: Some(swap.oid), what: "replaced" }]
        }
        Restore::Begun(name) | Restore::Ready(name) => vec![side(name)],
        _ => Vec::new(),
    };
    match &it.standby {
        Standby::None => {}
        Standby::Begun(name) => all.push(Left { dbname: name.clone(), oid: None, what: "standby" }),
        Standby::Made(copy) => all.push(Left { dbname: copy.name.clone(), oid: Some(copy.oid), what: "standby" }),
    }
    all
}

/// Why what a run left has to stay, by its journal alone.
fn still_needed(state: &RunState) -> Option<&'static str> {
    match state.outcome {
        _ if state.newer.is_some() => Some("a newer version of migrate wrote its run"),
        _ if state.unfinished() || state.outcome.is_none() => Some("its run is not finished"),
        Some(Outcome::Halted) => Some("its run was halted, and may have to go back"),
        _ => None,
    }
}

/// Why a database of a name that a journal gives is not the one that is meant.
fn is_another(left: &Left, oid: u32, live: &BTreeSet<u32>) -> Option<&'static str> {
    match left.oid {
        _ if live.contains(&oid) => Some("it is a live database of the plan"),
        Some(expected) if expected != oid => Some("it is another database, which took the name"),
        _ => None,
    }
}

/// Everything that runs of the plan's target left on its servers, newest run first.
///
/// # Errors
/// The store or a server failed.
pub async fn find(store: &Store, plan: &Plan) -> Result<Vec<Beside>, Failure> {
    let mut servers = BTreeMap::new();
    for database in plan.databases.values() {
        let mut session = connect(&database.url.with_dbname(MAINTENANCE), "migrate prune").await.or_fail()?;
        let server = Server::of(&mut session).await.or_fail()?.system_identifier;
        let there = databases(&mut session).await.or_fail()?;
        servers.insert(database.name.clone(), (server, there, session));
    }
    let mut all = Vec::new();
    for run in journal::runs(store).await.or_fail()? {
        let state = match journal::state(store, &run).await {
            // A folder without a journal is not ours to judge.
            Err(JournalError::NoRun { .. }) => continue,
            state => state.or_fail()?,
        };
        if state.target.as_ref() != Some(&plan.target.name) {
            continue;
        }
        for it in state.databases.values() {
            let Some((server, there, session)) = servers.get_mut(&it.identity.name) else { continue };
            if *server != it.identity.server {
                continue;
            }
            let live = live(plan, there);
            for mut beside in left(it).into_iter().filter_map(|left| beside(&state, it, left, there, &live)) {
                if let Some(bytes) = size(session, &beside.dbname).await.or_fail()? {
                    beside.bytes = bytes;
                    all.push(beside);
                }
            }
        }
    }
    Ok(all)
}

/// The oids of a server's databases, by name.
type There = BTreeMap<String, u32>;

async fn databases(session: &mut PgConnection) -> Result<There, PgError> {
    let rows: Vec<(String, i64)> = sqlx::query_as("select datname::text, oid::int8 from pg_database")
        .fetch_all(session)
        .await
        .map_err(query_error("listing the databases of the server"))?;
    Ok(rows.into_iter().map(|(name, oid)| (name, u32::try_from(oid).unwrap_or_default())).collect())
}

/// What a database takes on disk, 0 where the role may not know; none if it has gone meanwhile.
async fn size(session: &mut PgConnection, dbname: &str) -> Result<Option<u64>, PgError> {
    let asked = sqlx::query_scalar::<_, i64>(
        "select case when has_database_privilege(oid, 'connect') or pg_has_role(datdba, 'member') \
         then coalesce(pg_database_size(oid), 0) else 0 end from pg_database where datname = $1",
    )
    .bind(dbname)
    .fetch_optional(session)
    .await;
    match asked {
        Ok(size) => Ok(size.map(i64::unsigned_abs)),
        Err(error) if Said::from(&error).state.as_deref() == Some(GONE) => Ok(None),
        Err(error) => Err(query_error("asking for the size of a database")(error)),
    }
}

/// The oids that the plan's databases have now.
fn live(plan: &Plan, there: &There) -> BTreeSet<u32> {
    plan.databases.values().filter_map(|it| there.get(it.url.dbname())).copied().collect()
}

fn beside(state: &RunState, it: &DatabaseState, left: Left, there: &There, live: &BTreeSet<u32>) -> Option<Beside> {
    let oid = *there.get(&left.dbname)?;
    let reason = is_another(&left, oid, live).or_else(|| still_needed(state)).map(str::to_owned);
    let way_back = left.what == "standby" && state.outcome == Some(Outcome::Succeeded) && reason.is_none();
    Some(Beside {
        run: state.run.clone(),
        database: it.identity.name.clone(),
        dbname: left.dbname,
        what: left.what,
        bytes: 0,
        reason,
        note: way_back.then(|| "without it the run can go back by its snapshot alone".to_owned()),
    })
}

/// Drops what may go, with the locks of the databases that it is beside, and looks at the journals once more before. One that the
/// server does not let go stays, with the reason.
///
/// # Errors
/// Another run is at work, or the store or a server failed.
pub async fn drop_all(world: &World, store: &Store, plan: &Plan, going: &[Beside]) -> Result<Vec<Beside>, Failure> {
    let names: BTreeSet<&DatabaseName> = going.iter().map(|it| &it.database).collect();
    let involved: Vec<&Database> = names.into_iter().filter_map(|name| plan.databases.get(name)).collect();
    let locks = Locks::take(world, &RunId::generate(clock::now()), &involved).await.map_err(refused)?;
    let mut now = find(store, plan).await?;
    for it in &mut now {
        let chosen = going.iter().any(|other| (&other.run, &other.dbname) == (&it.run, &it.dbname));
        if !chosen || it.reason.is_some() {
            it.reason.get_or_insert_with(|| "it was not there when you were asked".to_owned());
            continue;
        }
        let url = plan.databases[&it.database].url.with_dbname(MAINTENANCE);
        it.reason = drop_one(&mut connect(&url, "migrate prune").await.or_fail()?, &it.dbname).await;
    }
    drop(locks);
    Ok(now)
}

/// Drops one database. Somebody who is on it has a reason to be: nobody is sent away.
async fn drop_one(session: &mut PgConnection, dbname: &str) -> Option<String> {
    let it = identifier(dbname);
    let template = sqlx::query_scalar("select datistemplate from pg_database where datname = $1").bind(dbname);
    let dropped = async {
        if template.fetch_optional(&mut *session).await?.unwrap_or(false) {
            change(session, format!("ALTER DATABASE {it} IS_TEMPLATE false")).await?;
        }
        change(session, format!("DROP DATABASE IF EXISTS {it}")).await
    };
    let error = dropped.await.err()?;
    Some(format!("the server does not let it go: {}", Said::from(&error).message.replace('\n', "; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_database_of_the_name_is_never_meant() {
        let (left, live) = (Left { dbname: "d".into(), oid: Some(7), what: "replaced" }, BTreeSet::from([9]));
        assert_eq!(is_another(&left, 7, &live), None);
        assert!(is_another(&left, 8, &live).is_some());
        assert!(is_another(&Left { oid: Some(9), ..left.clone() }, 9, &live).is_some());
        assert!(is_another(&Left { oid: None, ..left }, 9, &live).is_some());
    }
}
