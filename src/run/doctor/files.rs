//! What the pending migrations want of their databases, as far as their words tell, held against what is there.

use std::collections::{BTreeMap, BTreeSet};

use crate::failure::list;
use crate::kind::Kind;
use crate::names::DatabaseName;
use crate::plan::{Database, Plan};
use crate::sql::demands::Demands;
use crate::sql::quote::identifier;

use super::super::needs::Needs;
use super::super::survey::{Found, Survey};
use super::{Finding, finding, warned};

/// What all of them want.
pub(super) struct Wanted {
    databases: BTreeMap<DatabaseName, OfDatabase>,
    nothing: OfDatabase,
}

/// What those of one database want.
#[derive(Default)]
pub(super) struct OfDatabase {
    pub(super) demands: Demands,
    /// Roles that any migration makes: they belong to the server.
    makes_roles: BTreeSet<String>,
    /// Something runs whose words are not looked into: a program, a DO block.
    runs_code: bool,
}

impl Wanted {
    pub(super) fn of(plan: &Plan, survey: &Survey) -> Self {
        let mut databases: BTreeMap<DatabaseName, OfDatabase> = BTreeMap::new();
        for step in &plan.steps {
            let Some(state) = survey.steps.get(&step.name).filter(|it| it.has_work()) else { continue };
            if !matches!(step.kind, Kind::Sql(_) | Kind::Refinery(_)) {
                continue;
            }
            let wanted = databases.entry(step.database.clone()).or_default();
            for index in &state.pending {
                wanted.demands.extend(Demands::of(&state.migrations(step)[*index].up));
            }
        }
        let makes_roles: BTreeSet<String> =
            databases.values().flat_map(|it| it.demands.makes_roles.iter().cloned()).collect();
        let runs_code = survey.runs_programs(plan) || databases.values().any(|it| it.demands.runs_code);
        for it in databases.values_mut() {
            (it.makes_roles, it.runs_code) = (makes_roles.clone(), runs_code);
        }
        Self { databases, nothing: OfDatabase::default() }
    }

    pub(super) fn of_database(&self, name: &DatabaseName) -> &OfDatabase {
        self.databases.get(name).unwrap_or(&self.nothing)
    }
}

pub(super) fn findings(database: &Database, found: Option<&Found>, needs: &Needs, wanted: &OfDatabase) -> Vec<Finding> {
    let mut all = vec![schemas(database, found, needs, &wanted.demands)];
    all.extend(roles(database, needs, wanted));
    all.extend(extensions(database, needs, &wanted.demands));
    all
}

/// Whether it may make what they make, where they make it.
fn schemas(database: &Database, found: Option<&Found>, needs: &Needs, demands: &Demands) -> Finding {
    let (may, name) = (&needs.may, "creates in the database");
    let role = &may.role;
    let needs_schema = !demands.makes_schemas.is_empty() || !found.is_some_and(|it| it.has_ledger);
    let (mut what, mut grants) = (Vec::new(), Vec::new());
    if needs_schema && !may.creates_here {
        what.push("schemas, which the ledger is in".to_owned());
        grants.push(format!("GRANT CREATE ON DATABASE {} TO \"{role}\"", identifier(database.url.dbname())));
    }
    for schema in closed(needs, demands) {
        what.push(format!("anything in the schema {schema}, which pending migrations want"));
        grants.push(format!("GRANT CREATE ON SCHEMA {} TO \"{role}\"", identifier(schema)));
    }
    let fault = (!what.is_empty()).then(|| {
        (
            format!("the role {role} may not create {}", what.join(", nor ")),
            format!("As the owner: `{}`.", grants.join("; ")),
        )
    });
    finding(name, Some(database), fault, format!("the role {role} may create what the migrations do, by their words"))
}

/// Schemas that they make something in, and the role may not.
fn closed<'a>(needs: &'a Needs, demands: &'a Demands) -> Vec<&'a String> {
    if demands.moves {
        return Vec::new();
    }
    let named =
        demands.schemas.iter().filter_map(|it| if it.is_empty() { needs.may.schema.as_ref() } else { Some(it) });
    let named: BTreeSet<&String> = named.filter(|it| needs.may.closed_schemas.contains(it)).collect();
    named.into_iter().collect()
}

/// Roles that they name, and those that they make.
fn roles(database: &Database, needs: &Needs, wanted: &OfDatabase) -> Vec<Finding> {
    let (demands, may, at) = (&wanted.demands, &needs.may, Some(database));
    let mut all = Vec::new();
    if !demands.makes_roles.is_empty() && !may.creates_roles {
        let made = list(&demands.makes_roles.iter().collect::<Vec<_>>());
        let what = format!("the role {} may not create roles, and pending migrations make {made}", may.role);
        let help = format!("As an administrator: `ALTER ROLE \"{}\" CREATEROLE`.", may.role);
        all.push(finding("creates roles", at, Some((what, help)), ""));
    }
    let known = |it: &&String| needs.roles.contains(it) || wanted.makes_roles.contains(*it) || it.starts_with("pg_");
    let missing: Vec<&String> = demands.roles.iter().filter(|it| !known(it)).collect();
    if !missing.is_empty() {
        let what = format!("the server has no role {}, which pending migrations name", list(&missing));
        let create: Vec<String> = missing.iter().map(|it| format!("CREATE ROLE {} NOLOGIN", identifier(it))).collect();
        let help = format!("As an administrator: `{}`.", create.join("; "));
        all.push(match wanted.runs_code {
            // Nobody knows what code makes before it has run.
            true => warned("roles", at, what, help),
            false => finding("roles", at, Some((what, help)), ""),
        });
    }
    if !demands.superuser.is_empty() && !may.superuser {
        let names = list(&demands.superuser.iter().collect::<Vec<_>>());
        let what =
            format!("pending migrations have {names}, which is a superuser's unless the server's makers say otherwise");
        all.push(warned("superuser", at, what, "Have an administrator do it beforehand, if it is refused.".into()));
    }
    all
}

/// Extensions that they create.
fn extensions(database: &Database, needs: &Needs, demands: &Demands) -> Vec<Finding> {
    let mut all = Vec::new();
    for name in demands.extensions.iter().filter(|it| !database.extensions.contains(it)) {
        let Some(there) = needs.extensions.iter().find(|it| it.name == *name) else {
            let what = format!("the server has no extension {name}, which a pending migration creates");
            let help = "Install its package on the server.".to_owned();
            all.push(finding("extension available", Some(database), Some((what, help)), ""));
            continue;
        };
        if there.superuser && !there.installed && !needs.may.superuser {
            let what = format!(
                "a pending migration creates the extension {name}, which is a superuser's unless the server's makers say otherwise"
            );
            let help = format!("If it is refused, as an administrator: `CREATE EXTENSION {}`.", identifier(name));
            all.push(warned("extension available", Some(database), what, help));
        }
    }
    all
}
