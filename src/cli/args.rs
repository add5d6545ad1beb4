//! The command line as typed: clap's structures and their help texts, and nothing else.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::names::{DatabaseName, RunId};
use crate::run::mend::Which;
use crate::snapshot::role_map::Mapping;

/// Carries one release across several PostgreSQL databases and, if anything goes wrong, carries all of them back.
#[derive(Debug, Parser)]
#[command(name = "migrate", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct CommandLine {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
    0  done (with `plan --detailed-exitcode`: nothing pending)
    1  failed; no database was changed
    2  `plan --detailed-exitcode`: there is work to do
    3  failed; every database that the run touched was rolled back
    4  failed; something is NOT rolled back: `migrate resume` or `migrate rollback` is needed, and the message says which
    5  refused: another run holds the lock, or an earlier run is unfinished
    6  refused: drift, a changed checksum, or a saved plan that no longer matches
    7  a check failed
   64  wrong usage, or the plan is invalid
  130  interrupted, and left in a state that `resume` and `rollback` understand";

/// What every command takes; one that does not honour a flag refuses it.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The plan file [default: plans/production.toml]
    #[arg(short, long, global = true, value_name = "FILE", env = "MIGRATE_PLAN")]
    pub plan: Option<PathBuf>,
    /// The target [default: the plan's default_target]
    #[arg(short, long, global = true, value_name = "NAME", env = "MIGRATE_TARGET")]
    pub target: Option<String>,
    /// Print one JSON document on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// Use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
    /// Log more (twice: much more), on stderr
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// No progress, only results and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// Where the output is a terminal, and NO_COLOR is not set.
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what apply would do, in order
    Plan(PlanArgs),
    /// Carry the release: snapshots, migrations, checks; on failure, back
    Apply(ApplyArgs),
    /// Finish a run that was cut off or halted: forward, or back if it was on its way back
    Resume(ResumeArgs),
    /// Take the databases that a run changed back: to their standbys or snapshots, or by undoing its migrations
    Rollback(RollbackArgs),
    /// Show what each database has, lacks, and which run was the last
    Status,
    /// Run the checks alone
    Verify(VerifyArgs),
    /// Take, list, verify, drill, restore or prune snapshots
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Look at the runs in the store
    #[command(subcommand)]
    Runs(RunsCommand),
    /// Take over databases that have their migrations already: ledger rows are written, nothing is run
    Baseline(BaselineArgs),
    /// Accept what is not as the ledger has it
    #[command(subcommand)]
    Repair(RepairCommand),
    /// Say what became of a migration that was cut off in a run
    Resolve(ResolveArgs),
    /// Find what is dangerous in migration files, and files that were edited after they were applied
    Lint(LintArgs),
    /// Write a new migration file in the step's own style
    New(NewArgs),
    /// Test everything that apply needs; no database is changed
    Doctor,
    /// Show the whole story on throw-away databases of this machine
    Demo(DemoArgs),
    /// Print a completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// `migrate plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Save the plan, for `migrate apply FILE`
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Exit with 2 if there is work to do
    #[arg(long)]
    pub detailed_exitcode: bool,
}

/// `migrate apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// What `migrate plan --out` wrote: apply exactly that, or refuse. A protected target wants one
    pub saved_plan: Option<PathBuf>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Work on these databases alone
    #[arg(long, value_name = "DB", value_delimiter = ',', value_parser = database)]
    pub only: Vec<DatabaseName>,
    /// Take no snapshots: there is then no way back
    #[arg(long, requires = "reason")]
    pub no_snapshot: bool,
    /// Why there are no snapshots, for the record
    #[arg(long, value_name = "TEXT", requires = "no_snapshot", value_parser = reason)]
    pub reason: Option<String>,
}

/// `migrate resume`.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// The run [default: the latest of the target]
    #[arg(value_parser = run)]
    pub run: Option<RunId>,
    /// Do not ask. Without a terminal nothing is asked: what the run meant was confirmed when it began
    #[arg(short, long)]
    pub yes: bool,
}

/// `migrate rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The run [default: the latest of the target]
    #[arg(value_parser = run)]
    pub run: Option<RunId>,
    /// The way back
    #[arg(long, default_value = "auto")]
    pub via: Via,
    /// Take these databases back alone
    #[arg(long, value_name = "DB", value_delimiter = ',', value_parser = database)]
    pub only: Vec<DatabaseName>,
    /// Save what was written since in the store, before databases are exchanged
    #[arg(long)]
    pub save_writes: bool,
    /// Show what would happen and what it costs, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// The store, in place of the plan's: no plan file is needed then
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
}

/// `rollback --via`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// Of each database, the cheapest that is proven for this run: the standby, else the snapshot.
    Auto,
    /// Undo the run's migrations, the last one first: what was written since stays.
    Down,
    /// Exchange for the warm copy that was made before the first change: seconds, whatever the size.
    Standby,
    /// Restore beside, then exchange.
    Snapshot,
}

/// `migrate verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The checks [default: all]
    pub checks: Vec<String>,
}

/// `migrate snapshot`.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Take snapshots now, without a release
    Take {
        /// Of these databases alone
        #[arg(long, value_name = "DB", value_delimiter = ',', value_parser = database)]
        only: Vec<DatabaseName>,
    },
    /// List the snapshots in the store
    List {
        /// The store, in place of the plan's
        #[arg(long, value_name = "URL")]
        store: Option<String>,
    },
    /// Restore snapshots into scratch databases, compare them with their manifests, and drop them again
    Drill {
        /// The run that took them [default: the latest with snapshots]
        #[arg(value_parser = run)]
        run: Option<RunId>,
        /// Of these databases alone
        #[arg(long, value_name = "DB", value_delimiter = ',', value_parser = database)]
        only: Vec<DatabaseName>,
        /// What refers to the role OLD in the snapshot refers to NEW, which the server has; for each role once
        #[arg(long, value_name = "OLD=NEW")]
        map_role: Vec<Mapping>,
    },
    /// Restore one snapshot into a new database on the target's server; nothing that is there is touched
    Restore {
        /// The run that took it [default: the latest with snapshots]
        #[arg(value_parser = run)]
        run: Option<RunId>,
        /// The database, by its name in the plan
        #[arg(long, value_name = "DB", value_parser = database)]
        only: DatabaseName,
        /// The new database's name on the server
        #[arg(long = "as", value_name = "NAME")]
        dbname: String,
        /// Make the roles that the server lacks, without the right to log in
        #[arg(long, conflicts_with = "no_owner")]
        create_roles: bool,
        /// Let everything belong to the role that restores, and leave privileges out
        #[arg(long)]
        no_owner: bool,
        /// What refers to the role OLD in the snapshot refers to NEW, which the server has; for each role once
        #[arg(long, value_name = "OLD=NEW")]
        map_role: Vec<Mapping>,
    },
    /// Remove the snapshots that `[store] retention` does not keep and no lock holds; with --replaced, drop what was left on the servers instead
    Prune {
        /// Drop replaced databases and standbys of finished runs, and no snapshot
        #[arg(long)]
        replaced: bool,
        /// Show what would go, and remove nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Read archives back and compare them with their manifests
    Verify {
        /// The run that took them [default: the latest with snapshots]
        #[arg(value_parser = run)]
        run: Option<RunId>,
        /// Of these databases alone
        #[arg(long, value_name = "DB", value_delimiter = ',', value_parser = database)]
        only: Vec<DatabaseName>,
        /// The store, in place of the plan's
        #[arg(long, value_name = "URL")]
        store: Option<String>,
    },
}

/// `migrate runs`.
#[derive(Debug, Subcommand)]
pub enum RunsCommand {
    /// List the runs in the store, newest first
    List {
        /// The store, in place of the plan's
        #[arg(long, value_name = "URL")]
        store: Option<String>,
    },
    /// Show the journal of a run
    Show {
        /// The run
        #[arg(value_parser = run)]
        run: RunId,
        /// The store, in place of the plan's
        #[arg(long, value_name = "URL")]
        store: Option<String>,
    },
}

/// `migrate baseline`.
#[derive(Debug, Args)]
pub struct BaselineArgs {
    /// Adopt this step's migrations up to and with this one
    /// [default: what schema_migrations, migrations_applied, alembic_version and refinery_schema_history say]
    #[arg(long, value_name = "STEP/NAME", conflicts_with = "all")]
    pub through: Option<String>,
    /// Adopt every migration of every step
    #[arg(long)]
    pub all: bool,
    /// First run the files in scratch databases, and refuse if what they make differs from the live ones
    #[arg(long)]
    pub prove: bool,
    /// Show what would be adopted, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// `migrate repair`.
#[derive(Debug, Subcommand)]
pub enum RepairCommand {
    /// Accept a file that was changed after it had been applied: its checksum becomes the ledger's
    Checksum {
        /// The migration
        #[arg(value_name = "STEP/NAME")]
        which: Which,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Drop the invalid indexes that a migration left which works concurrently; a valid one is never dropped
    Index(RepairIndexArgs),
}

/// `migrate repair index`.
#[derive(Debug, Args)]
pub struct RepairIndexArgs {
    /// The migration
    #[arg(value_name = "STEP/NAME")]
    pub which: Which,
    /// Show what would be dropped, and drop nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// `migrate resolve`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("word").required(true).args(["applied", "not_applied"])))]
pub struct ResolveArgs {
    /// The run in which it was cut off
    #[arg(value_parser = run)]
    pub run: RunId,
    /// The migration
    #[arg(value_name = "STEP/NAME")]
    pub which: Which,
    /// It took effect: the ledger will say so
    #[arg(long)]
    pub applied: bool,
    /// It did not: it will be pending again
    #[arg(long)]
    pub not_applied: bool,
    /// Say it of this statement alone, of a file without a transaction: the next apply goes on behind it, or with it
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub statement: Option<u32>,
}

/// `migrate lint`.
#[derive(Debug, Args)]
pub struct LintArgs {
    /// Look at these files alone [default: all of the plan's]
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How to print what was found [default: text]
    #[arg(long)]
    pub format: Option<LintFormat>,
    /// Fail on warnings too
    #[arg(long)]
    pub strict: bool,
    /// Whether `--target` stands on the command line.
    #[arg(skip)]
    pub target_named: bool,
}

/// `lint --format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LintFormat {
    /// For people.
    Text,
    /// As --json.
    Json,
    /// SARIF 2.1.0, for code hosts.
    Sarif,
}

/// `migrate new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// The step, of kind sql or refinery
    pub step: String,
    /// What the migration does, in a word or two
    pub name: String,
}

/// `migrate demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where to put the servers, the store and the plan; kept for a look [default: a new folder in the temporary directory]
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
    /// Stop the server at the end
    #[arg(long)]
    pub stop: bool,
}

fn database(text: &str) -> Result<DatabaseName, String> {
    DatabaseName::new(text).map_err(|error| error.to_string())
}

fn reason(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("say in a word or two why".to_owned()) } else { Ok(text.to_owned()) }
}

fn run(text: &str) -> Result<RunId, String> {
    RunId::new(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }
}
