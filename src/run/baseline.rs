//! `migrate baseline`: taking over databases that have their migrations already. What is adopted gets its ledger row, and is
//! never run. `--prove` first runs the files in a scratch database and compares catalogs.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sqlx::PgConnection;

use crate::event::Event;
use crate::failure::{Blame, Failure, OrFail, list};
use crate::journal::Journal;
use crate::journal::entry::{Command, Fact, Identity, Outcome};
use crate::journal::ledger::{Author, CREATE};
use crate::kind::migration::{self, Direction, MigrationError, Session, Setting};
use crate::kind::{Kind, Migration, alembic, refinery_history};
use crate::names::{DatabaseName, RunId, StepName};
use crate::outside::clock;
use crate::outside::postgres::{MAINTENANCE, PgError, change, connect, made, query_error};
use crate::outside::store::Store;
use crate::plan::{Database, Plan, Step};
use crate::snapshot::manifest;
use crate::snapshot::restore::{create_like, drop_database, name_beside};
use crate::verify::catalog::Catalog;
use crate::world::World;

use super::apply::refused;
use super::lock::Locks;
use super::survey::{StepState, Survey, survey};

/// Tables in which other tools and hand-made runners keep the names of what they applied, with the columns that may hold them.
const LEDGERS: [(&str, &[&str]); 2] = [
    ("schema_migrations", &["filename", "version", "name"]),
    ("migrations_applied", &["filename", "name", "migration", "migration_name", "version"]),
];
/// Tables of other tools are no part of what the files make.
const NOT_OURS: [&str; 4] = ["schema_migrations", "migrations_applied", "alembic_version", "refinery_schema_history"];

/// How far a database is taken to have its migrations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Through {
    /// As the ledgers of other tools in it say.
    Ledgers,
    /// One step, up to and with this migration.
    Migration(StepName, String),
    /// Everything in the files.
    All,
}

/// What is to be adopted, and from where.
#[derive(Debug, Clone, Serialize)]
pub struct Adoption {
    /// The step.
    pub step: StepName,
    /// Its database.
    pub database: DatabaseName,
    /// `schema_migrations`, `alembic_version`, …, or `files`.
    pub from: String,
    /// What gets its ledger row.
    pub adopted: Vec<String>,
    /// Names in the other ledger for which there is no file.
    pub without_file: Vec<String>,
}

/// Why a database is not taken over.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum BaselineError {
    /// Nothing says what it has.
    #[error(
        "nothing says what {databases} have: no schema_migrations, migrations_applied, alembic_version or refinery_schema_history with names of the plan's files"
    )]
    #[diagnostic(code("baseline.nothing"), help("Say it: `--through STEP/NAME`, or `--all`."))]
    Nothing {
        /// Which.
        databases: String,
    },
    /// There is no such migration.
    #[error("there is no migration `{step}/{name}`")]
    #[diagnostic(code("baseline.unknown"), help("`migrate plan` lists what is pending by step and name."))]
    Unknown {
        /// The step.
        step: StepName,
        /// The migration.
        name: String,
    },
    /// It would be overtaken.
    #[error("{database}: {ledger} does not have {missing}, and has later ones")]
    #[diagnostic(
        code("baseline.gap"),
        help("If the database has them, adopt with `--through STEP/NAME`. If not, run those files by hand first.")
    )]
    Gap {
        /// The database.
        database: DatabaseName,
        /// The other tool's table.
        ledger: String,
        /// Migrations.
        missing: String,
    },
    /// One of them was given up, and nobody knows which.
    #[error("{database}: {first} and {second} do not have the same migrations of step `{step}`: {only}")]
    #[diagnostic(
        code("baseline.two_ledgers"),
        help("See which of the two is kept up, and say what the database has: `--through STEP/NAME`, or `--all`.")
    )]
    TwoLedgers {
        /// The database.
        database: DatabaseName,
        /// A table.
        first: &'static str,
        /// Another.
        second: &'static str,
        /// The step.
        step: StepName,
        /// What one of them alone has.
        only: String,
    },
    /// Commands and copies have no state to be taken over.
    #[error("step `{step}` is of kind `{kind}`, which cannot be {what}")]
    #[diagnostic(code("baseline.kind"))]
    OfKind {
        /// The step.
        step: StepName,
        /// Its kind.
        kind: &'static str,
        /// `adopted`, `proven`.
        what: &'static str,
    },
    /// What the files make is something else.
    #[error("the files do not make what {database} is:\n{differences}")]
    #[diagnostic(
        code("baseline.differs"),
        help("Nothing was written. Each line is what the database lacks or has more than the files make.")
    )]
    Differs {
        /// The database.
        database: DatabaseName,
        /// One on each line.
        differences: String,
    },
    /// A file cannot be run on an empty database.
    #[error("{database}: the files cannot be proven in a scratch database: {source}")]
    #[diagnostic(code("baseline.unprovable"))]
    Unprovable {
        /// The database.
        database: DatabaseName,
        /// Why.
        #[source]
        #[diagnostic_source]
        source: MigrationError,
    },
    /// A database failed.
    #[error("{database}: {source}")]
    #[diagnostic(code("baseline.database"))]
    Database {
        /// Which.
        database: DatabaseName,
        /// How.
        #[source]
        #[diagnostic_source]
        source: PgError,
    },
}

fn failed(database: &DatabaseName) -> impl Fn(PgError) -> BaselineError {
    move |source| BaselineError::Database { database: database.clone(), source }
}

/// What would be adopted. Nothing is written.
///
/// # Errors
/// Nothing says what the databases have, or what says it has gaps.
pub async fn look(world: &World, plan: &Plan, through: &Through) -> Result<(Survey, Vec<Adoption>), Failure> {
    let survey = survey(world, plan, None).await.whole(plan)?;
    if let Through::Migration(step, name) = through {
        let known = plan
            .steps
            .iter()
            .find(|it| it.name == *step)
            .filter(|it| files(&survey, it).iter().any(|f| f.name == *name));
        if known.is_none() {
            let error = BaselineError::Unknown { step: step.clone(), name: name.clone() };
            return Err(Failure::untouched(Blame::Usage, error));
        }
    }
    let mut adoptions = Vec::new();
    for step in plan.steps.iter().filter(|step| !matches!(step.kind, Kind::Copy(_) | Kind::Command(_))) {
        adoptions.extend(adoption(plan, &survey, step, through).await.or_blame(Blame::Drift)?);
    }
    if adoptions.is_empty() && *through == Through::Ledgers {
        let databases = list(&plan.databases.keys().collect::<Vec<_>>());
        return Err(Failure::untouched(Blame::Usage, BaselineError::Nothing { databases }));
    }
    adoptions.retain(|it| !it.adopted.is_empty() || !it.without_file.is_empty());
    Ok((survey, adoptions))
}

fn files<'a>(survey: &'a Survey, step: &'a Step) -> &'a [Migration] {
    survey.steps.get(&step.name).map_or(step.kind.migrations(), |state| state.migrations(step))
}

/// What is pending of a step, and by `through` is there already.
async fn adoption(
    plan: &Plan,
    survey: &Survey,
    step: &Step,
    through: &Through,
) -> Result<Option<Adoption>, BaselineError> {
    let none = StepState::default();
    let state = survey.steps.get(&step.name).unwrap_or(&none);
    let files = state.migrations(step);
    let new = |from: &str, adopted: Vec<String>, without_file: Vec<String>| Adoption {
        step: step.name.clone(),
        database: step.database.clone(),
        from: from.to_owned(),
        adopted,
        without_file,
    };
    let open: BTreeSet<&str> = state.pending.iter().map(|index| files[*index].name.as_str()).collect();
    let pending = |it: &&Migration| open.contains(it.name.as_str());
    let names = |these: &[Migration]| these.iter().filter(pending).map(|it| it.name.clone()).collect::<Vec<_>>();
    match through {
        Through::All => Ok(Some(new("files", names(files), Vec::new()))),
        Through::Migration(name, _) if *name != step.name => Ok(None),
        Through::Migration(_, last) => {
            let end = files.iter().position(|it| it.name == *last).map_or(0, |at| at + 1);
            Ok(Some(new("files", names(&files[..end]), Vec::new())))
        }
        Through::Ledgers => {
            let mut session = connect(&plan.databases[&step.database].url, "migrate baseline")
                .await
                .map_err(failed(&step.database))?;
            from_ledgers(&mut session, step, state, files).await.map(|found| found.map(|(from, a, w)| new(&from, a, w)))
        }
    }
}

type Found = Option<(String, Vec<String>, Vec<String>)>;

/// Reads the other tool's ledger. Alembic's and refinery's are asked by those steps in every run; their rows in our ledger only
/// follow.
async fn from_ledgers(
    session: &mut PgConnection,
    step: &Step,
    state: &StepState,
    files: &[Migration],
) -> Result<Found, BaselineError> {
    let own = crate::journal::ledger::read(session).await.map_err(failed(&step.database))?.unwrap_or_default();
    let is_new = |name: &str| !own.iter().any(|row| row.step == step.name.as_str() && row.name == name);
    let applied_otherwise = |table: &str, there: bool| {
        let pending: Vec<&str> = state.pending.iter().map(|index| files[*index].name.as_str()).collect();
        let applied = files.iter().map(|it| it.name.as_str()).filter(|name| !pending.contains(name) && is_new(name));
        there.then(|| (table.to_owned(), applied.map(str::to_owned).collect(), Vec::new()))
    };
    match &step.kind {
        Kind::Alembic(_) => {
            let Some(revisions) = &state.listed else { return Ok(None) };
            let table = &revisions.version_table;
            let current = alembic::current(session, table).await.map_err(failed(&step.database))?;
            return Ok(applied_otherwise(&table.to_string(), !current.is_empty()));
        }
        Kind::Refinery(_) => {
            let there = refinery_history::is_there(session).await.map_err(failed(&step.database))?;
            return Ok(applied_otherwise("refinery_schema_history", there));
        }
        _ => {}
    }
    let Some((table, names)) = other_ledger(session, step, files).await? else { return Ok(None) };
    let numbered: Vec<&str> = files.iter().filter(|it| !it.turn.repeatable).map(|it| it.name.as_str()).collect();
    let theirs: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let known = |name: &&str| theirs.contains(name);
    let last = numbered.iter().rposition(known).unwrap_or(0);
    let missing: Vec<&str> = numbered.iter().take(last).copied().filter(|name| !known(name)).collect();
    if !missing.is_empty() {
        let (database, ledger, missing) = (step.database.clone(), table.to_owned(), missing.join(", "));
        return Err(BaselineError::Gap { database, ledger, missing });
    }
    let adopted = files.iter().map(|it| it.name.clone()).filter(|it| names.contains(it) && is_new(it)).collect();
    let without = names.iter().filter(|name| !files.iter().any(|it| it.name == **name)).cloned().collect();
    Ok(Some((table.to_owned(), adopted, without)))
}

/// The table of a hand-made runner that has names of these files, and what it has. Two such tables must have the same ones.
async fn other_ledger(
    session: &mut PgConnection,
    step: &Step,
    files: &[Migration],
) -> Result<Option<(&'static str, Vec<String>)>, BaselineError> {
    let ours = |names: &[String]| -> BTreeSet<String> {
        files.iter().map(|it| it.name.clone()).filter(|name| names.contains(name)).collect()
    };
    let mut found: Option<(&'static str, Vec<String>)> = None;
    for (table, columns) in LEDGERS {
        let names = named_in(session, table, columns).await.map_err(failed(&step.database))?;
        let stem = |name: &String| name.rsplit('/').next().unwrap_or(name).trim_end_matches(".sql").to_owned();
        let names: Vec<String> = names.iter().map(stem).collect();
        let own = ours(&names);
        if own.is_empty() {
            continue;
        }
        let Some((first, others)) = &found else {
            found = Some((table, names));
            continue;
        };
        let only: Vec<String> = own.symmetric_difference(&ours(others)).cloned().collect();
        if !only.is_empty() {
            let (database, step, only) = (step.database.clone(), step.name.clone(), only.join(", "));
            return Err(BaselineError::TwoLedgers { database, first, second: table, step, only });
        }
    }
    Ok(found)
}

/// What a table holds in the first of the columns that it has; nothing if there is no such table.
async fn named_in(session: &mut PgConnection, table: &str, columns: &[&str]) -> Result<Vec<String>, PgError> {
    let column: Option<String> = sqlx::query_scalar(
        "select a.attname::text from pg_attribute a where a.attrelid = to_regclass($1) and a.attnum > 0 and not \
         a.attisdropped and a.attname = any($2) order by array_position($2, a.attname::text) limit 1",
    )
    .bind(table)
    .bind(columns)
    .fetch_optional(&mut *session)
    .await
    .map_err(query_error(format!("looking for {table}")))?;
    let Some(column) = column else { return Ok(Vec::new()) };
    let sql = format!(
        "select {0}::text from {table} where {0} is not null order by 1",
        crate::sql::quote::identifier(&column)
    );
    sqlx::query_scalar(made(sql)).fetch_all(session).await.map_err(query_error(format!("reading {table}")))
}

/// Writes the rows: one transaction for each database, and a run of its own in the store.
///
/// # Errors
/// Somebody works on a database, or one failed. A database has all of its rows or none.
pub async fn adopt(
    world: &World,
    plan: &Plan,
    store: &Store,
    survey: &Survey,
    adoptions: &[Adoption],
) -> Result<RunId, Failure> {
    let run = RunId::generate(clock::now());
    let databases: Vec<&Database> = plan.databases.values().collect();
    let _locks = Locks::take(world, &run, &databases).await.map_err(refused)?;
    let journal = Journal::begin(world, store, &run, begin(plan, survey)).await.or_fail()?;
    world.tell(Event::RunBegan { run: run.clone(), store: store.url().to_owned() });
    for database in databases {
        let here: Vec<&Adoption> = adoptions.iter().filter(|it| it.database == database.name).collect();
        write_rows(world, plan, survey, &run, database, &here).await.or_fail()?;
        for it in here {
            let fact =
                Fact::Adopted { step: it.step.clone(), database: it.database.clone(), adopted: it.adopted.clone() };
            journal.write(fact).await.or_fail()?;
        }
    }
    journal.write(Fact::End { outcome: Outcome::Succeeded, message: None }).await.or_fail()?;
    Ok(run)
}

fn begin(plan: &Plan, survey: &Survey) -> Fact {
    let identity = |database: &Database| {
        let found = survey.found(&database.name)?;
        let (name, dbname) = (database.name.clone(), database.url.dbname().to_owned());
        Some(Identity { name, dbname, server: found.server.system_identifier.clone(), oid: found.oid })
    };
    Fact::Begin {
        command: Command::Baseline,
        plan: plan.name.clone(),
        target: plan.target.name.clone(),
        databases: plan.databases.values().filter_map(identity).collect(),
        no_snapshot: None,
        work: Vec::new(),
    }
}

fn author(world: &World, run: &RunId, step: &Step) -> Author {
    Author {
        run: run.clone(),
        step: step.name.clone(),
        kind: step.kind.word(),
        applied_by: format!("{}@{} (baseline)", world.user, world.host),
    }
}

async fn write_rows(
    world: &World,
    plan: &Plan,
    survey: &Survey,
    run: &RunId,
    database: &Database,
    adoptions: &[&Adoption],
) -> Result<(), BaselineError> {
    let mut sql = format!("BEGIN;\n{CREATE}");
    let mut rows = 0;
    for it in adoptions {
        let Some(step) = plan.steps.iter().find(|step| step.name == it.step) else { continue };
        let adopted: BTreeSet<&String> = it.adopted.iter().collect();
        for file in files(survey, step).iter().filter(|file| adopted.contains(&file.name)) {
            let author = author(world, run, step);
            sql += &if file.turn.repeatable { author.applied_again(file.into()) } else { author.applied(file.into()) };
            sql += ";\n";
            rows += 1;
        }
    }
    if rows == 0 {
        return Ok(());
    }
    let mut session = connect(&database.url, &format!("migrate {run}")).await.map_err(failed(&database.name))?;
    let written = change(&mut session, sql + "COMMIT").await;
    written.map(drop).map_err(query_error("writing the ledger")).map_err(failed(&database.name))
}

/// Runs what would be adopted in scratch databases, and compares each with the live one.
///
/// # Errors
/// Every difference; a file that does not run on its own; a kind that cannot be run without its database.
pub async fn prove(world: &World, plan: &Plan, survey: &Survey, adoptions: &[Adoption]) -> Result<(), Failure> {
    let mut by_database: BTreeMap<&DatabaseName, Vec<&Adoption>> = BTreeMap::new();
    for it in adoptions {
        by_database.entry(&it.database).or_default().push(it);
    }
    for (name, these) in by_database {
        let database = &plan.databases[name];
        let scratch = name_beside(database.url.dbname(), "prove", &RunId::generate(clock::now()));
        let compared = prove_one(world, plan, survey, database, &these, &scratch).await;
        let dropped = drop_database(&database.url, &scratch).await.map_err(failed(name));
        compared.or_blame(Blame::Drift)?;
        dropped.or_fail()?;
    }
    Ok(())
}

async fn prove_one(
    world: &World,
    plan: &Plan,
    survey: &Survey,
    database: &Database,
    adoptions: &[&Adoption],
    scratch: &str,
) -> Result<(), BaselineError> {
    let name = &database.name;
    let mut live = connect(&database.url, "migrate baseline").await.map_err(failed(name))?;
    let properties = manifest::properties(&mut live).await.map_err(failed(name))?;
    let mut maintenance =
        connect(&database.url.with_dbname(MAINTENANCE), "migrate baseline").await.map_err(failed(name))?;
    create_like(&mut maintenance, &properties, scratch).await.map_err(failed(name))?;
    let beside = database.url.with_dbname(scratch);
    let mut session = Session::open(&beside, "migrate baseline").await.map_err(failed(name))?;
    let run = RunId::generate(clock::now());
    let mut has_ledger = false;
    for it in adoptions {
        let Some(step) = plan.steps.iter().find(|step| step.name == it.step) else { continue };
        if !matches!(step.kind, Kind::Sql(_) | Kind::Refinery(_)) {
            return Err(BaselineError::OfKind { step: it.step.clone(), kind: step.kind.word(), what: "proven" });
        }
        // What the ledger has already belongs to what the database is, too.
        let pending = survey.steps.get(&step.name).map(|state| state.pending.clone()).unwrap_or_default();
        let all = files(survey, step);
        let there = |(index, file): &(usize, &Migration)| !pending.contains(index) || it.adopted.contains(&file.name);
        for (_, file) in all.iter().enumerate().filter(there) {
            let setting = Setting {
                direction: Direction::Forward { author: &author(world, &run, step), has_ledger },
                before: &[],
                also: &[],
                meant: None,
                durable: false,
                limits: plan.limits(step),
                on_retry: &|_, _, _| (),
                on_older: &|_| (),
            };
            let unprovable = |source| BaselineError::Unprovable { database: name.clone(), source };
            migration::carry(&mut session, file, &setting).await.map_err(unprovable)?;
            has_ledger = true;
        }
    }
    let is = Catalog::read(&mut live).await.map_err(failed(name))?.without_ledger();
    let made = Catalog::read(&mut session.connection).await.map_err(failed(name))?.without_ledger();
    let differences: Vec<String> = differences(&is, &made);
    if differences.is_empty() {
        return Ok(());
    }
    Err(BaselineError::Differs { database: name.clone(), differences: differences.join("\n") })
}

/// What the live database has more, less, or otherwise than what the files make.
fn differences(live: &Catalog, files: &Catalog) -> Vec<String> {
    let ours = |it: &String| !NOT_OURS.iter().any(|table| it.contains(table));
    let word = |it: String| {
        it.replace(" appeared", ": only in the database")
            .replace(" vanished", ": only in the files")
            .replace(" changed", ": differs")
    };
    live.changes_since(files).into_iter().filter(ours).map(word).collect()
}
