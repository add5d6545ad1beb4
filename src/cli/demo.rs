//! `migrate demo`: the whole story on throw-away databases of this machine. It types the commands of a release as a person
//! would, each in a process of its own, and shows what they print.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use include_dir::{Dir, DirEntry, include_dir};
use tokio::process::Command;

use crate::failure::{Blame, Exit, Failure, OrFail};
use crate::names::RunId;
use crate::outside::clock;
use crate::outside::cluster::{Cluster, ClusterError, ClusterOptions};
use crate::outside::postgres::{MAINTENANCE, PgError, connect, made, query_error};
use crate::outside::url::{DatabaseUrl, UrlError};
use crate::sql::quote::identifier;
use crate::world::World;

use super::Ended;
use super::args::DemoArgs;
use super::console::Console;
use super::context::Context;

static MIGRATIONS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/migrations");
static PLAN: &str = include_str!("../../plans/production.toml");

/// The databases, with the variables that the plan's target `local` takes their URLs from.
const DATABASES: [(&str, &str); 4] = [
    ("mobius", "LOCAL_MOBIUS_URL"),
    ("mobius_rag", "LOCAL_RAG_URL"),
    ("mobius_chat", "LOCAL_CHAT_URL"),
    ("mobius_user", "LOCAL_USER_URL"),
];
/// The role of the demo: no superuser, as on managed PostgreSQL.
const ROLE: &str = "release";
/// Migrations below this number are what the databases had before the release.
const FIRST_OF_RELEASE: u32 = 100;
/// The copy and its check begin at this line of the plan: before the release there was none.
const COPY: &str = "# What RAG has published";

/// Why the story broke off.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum DemoError {
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Postgres(#[from] PgError),
    #[error(transparent)]
    #[diagnostic(transparent)]
    Url(#[from] UrlError),
    #[error("{} cannot be written", path.display())]
    #[diagnostic(code("demo.file"), help("Name another folder with --dir."))]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`migrate {command}` ended with {found}, and the story wants {wanted}")]
    #[diagnostic(code("demo.story"), help("What it printed is above."))]
    Story { command: String, found: String, wanted: u8 },
}

/// Runs it.
///
/// # Errors
/// A step of the story failed.
pub async fn run(context: &Context<'_>, args: DemoArgs) -> Ended {
    let name = format!("migrate-demo-{}", RunId::generate(clock::now()));
    let dir = args.dir.unwrap_or_else(|| std::env::temp_dir().join(name));
    let demo = Demo::begin(context.world, context.console, dir).await.or_blame(Blame::Work)?;
    let told = demo.tell().await;
    if args.stop {
        demo.cluster.stop_immediate().or_fail()?;
    }
    told.map_err(|error| Failure::untouched(Blame::Work, error))?;
    demo.farewell(args.stop);
    Ok(Exit::Done)
}

struct Demo<'a> {
    world: &'a World,
    console: &'a Console,
    dir: PathBuf,
    cluster: Cluster,
    env: BTreeMap<String, String>,
}

impl<'a> Demo<'a> {
    /// A server, four databases of a role without superuser, and a project folder.
    async fn begin(world: &'a World, console: &'a Console, dir: PathBuf) -> Result<Self, DemoError> {
        console.print("A throw-away PostgreSQL server with the four databases of the platform is being made …\n");
        let project = dir.join("project");
        make_folder(&project)?;
        let options = ClusterOptions { dir: Some(dir.join("server")), keep: true, ..ClusterOptions::default() };
        let cluster = Cluster::start(options)?;
        let admin = DatabaseUrl::parse(&cluster.url("postgres", MAINTENANCE))?;
        let mut session = connect(&admin, "migrate demo").await?;
        let mut statements = vec![format!("CREATE ROLE {ROLE} LOGIN CREATEDB")];
        statements.extend(DATABASES.map(|(name, _)| format!("CREATE DATABASE {} OWNER {ROLE}", identifier(name))));
        for statement in statements {
            let failed = query_error(statement.clone());
            sqlx::raw_sql(made(statement)).execute(&mut session).await.map_err(failed)?;
        }
        let mut env: BTreeMap<String, String> =
            DATABASES.iter().map(|(name, variable)| ((*variable).to_owned(), cluster.url(ROLE, name))).collect();
        env.insert("MIGRATE_STORE".into(), format!("file://{}", dir.join("store").display()));
        let mut text: String = env.iter().map(|(name, value)| format!("export {name}='{value}'\n")).collect();
        if let Some(folder) = program().parent() {
            let _ = writeln!(text, "export PATH='{}':\"$PATH\"", folder.display());
        }
        write(&dir.join("env.sh"), &text)?;
        Ok(Self { world, console, dir, cluster, env })
    }

    async fn tell(&self) -> Result<(), DemoError> {
        self.before().await?;
        self.release().await?;
        self.failing_release().await?;
        self.back_by_hand().await
    }

    /// The state that production is in on the morning of the release.
    async fn before(&self) -> Result<(), DemoError> {
        self.heading("Before the release", "The tables of the last release, and some ten thousand rows.");
        self.lay_out(&MIGRATIONS, |number| number < FIRST_OF_RELEASE)?;
        let until = PLAN.find(COPY).unwrap_or(PLAN.len());
        write(&self.project().join("plans/before.toml"), &PLAN[..until])?;
        write(&self.project().join("plans/production.toml"), PLAN)?;
        self.migrate(&["-q", "-p", "plans/before.toml", "apply", "--yes"], Exit::Done).await?;
        for (name, _) in DATABASES {
            let seed = MIGRATIONS.get_file(format!("demo/seed/{name}.sql")).and_then(|file| file.contents_utf8());
            let url = DatabaseUrl::parse(&self.cluster.url(ROLE, name))?;
            let mut session = connect(&url, "migrate demo").await?;
            let failed = query_error(format!("filling {name}"));
            sqlx::raw_sql(made(seed.unwrap_or_default().to_owned())).execute(&mut session).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn release(&self) -> Result<(), DemoError> {
        self.heading("The release", "New migrations for all four databases. What would it do?");
        self.lay_out(&MIGRATIONS, |number| number >= FIRST_OF_RELEASE)?;
        self.migrate(&["plan"], Exit::Done).await?;
        self.say("Chat answers from published_rag_metadata. Is it in sync with what RAG has published?");
        self.migrate(&["-q", "verify"], Exit::CheckFailed).await?;
        self.say(
            "It is not: the release carries the rows over. Snapshots first, then everything in order, then the check.",
        );
        self.migrate(&["apply", "--yes"], Exit::Done).await?;
        self.migrate(&["-q", "verify"], Exit::Done).await
    }

    async fn failing_release(&self) -> Result<(), DemoError> {
        self.heading(
            "A second release, which fails",
            "Its third migration for chat does not suit the rows that are there.",
        );
        let failing = MIGRATIONS.get_dir("demo/failing").expect("the demo's content is compiled in");
        self.lay_out(failing, |_| true)?;
        self.migrate(&["apply", "--yes"], Exit::RolledBack).await?;
        self.say("Everything that the run had touched went back by itself:");
        self.migrate(&["status"], Exit::Done).await
    }

    async fn back_by_hand(&self) -> Result<(), DemoError> {
        self.heading("The next night", "The first release has to go, too. What will that cost?");
        let run = self.first_release().await?;
        self.migrate(&["rollback", &run, "--dry-run"], Exit::Done).await?;
        self.migrate(&["rollback", &run, "--yes"], Exit::Done).await?;
        self.migrate(&["runs", "list"], Exit::Done).await
    }

    /// The newest run that succeeded.
    async fn first_release(&self) -> Result<String, DemoError> {
        let listed = self.command(&["runs", "list"]).output().await;
        let text = listed.map(|it| String::from_utf8_lossy(&it.stdout).into_owned()).unwrap_or_default();
        let succeeded = text.lines().find(|line| line.contains("succeeded"));
        Ok(succeeded.and_then(|line| line.split_whitespace().next()).unwrap_or_default().to_owned())
    }

    fn farewell(&self, stopped: bool) {
        let dir = self.dir.display();
        self.heading("That was all", "");
        let mut text = format!("The project, the store and the server are in {dir}.\n");
        if stopped {
            text += "The server is stopped.\n";
        } else {
            let socket = self.cluster.socket_dir().display();
            let pid = self.cluster.data_dir().join("postmaster.pid");
            let _ = write!(
                text,
                "The server is running. To try more:\n    cd {dir}/project && . ../env.sh\n    migrate status\n    migrate \
                 doctor\n    migrate snapshot take && migrate snapshot verify\n    migrate runs list\n    psql -h {socket} -U \
                 {ROLE} mobius_chat\nTo stop the server and remove everything:\n    kill -INT $(head -1 {}); rm -r {dir}\n",
                pid.display()
            );
        }
        self.console.print(&text);
    }

    fn project(&self) -> PathBuf {
        self.dir.join("project")
    }

    /// Writes the migrations of all databases whose number is wanted.
    fn lay_out(&self, from: &Dir<'_>, wanted: impl Fn(u32) -> bool) -> Result<(), DemoError> {
        for (name, _) in DATABASES {
            let Some(folder) = from.entries().iter().filter_map(DirEntry::as_dir).find(|it| it.path().ends_with(name))
            else {
                continue;
            };
            for file in folder.files() {
                let file_name = file.path().file_name().unwrap_or_default().to_string_lossy();
                if number(&file_name).is_some_and(&wanted) {
                    let path = self.project().join("migrations").join(name).join(file_name.as_ref());
                    write(&path, file.contents_utf8().unwrap_or_default())?;
                }
            }
        }
        Ok(())
    }

    fn heading(&self, title: &str, text: &str) {
        let rule = "─".repeat(100 - title.chars().count().min(90) - 4);
        self.console.print(&format!("\n── {title} {rule}\n{text}{}", if text.is_empty() { "" } else { "\n" }));
    }

    fn say(&self, text: &str) {
        self.console.print(&format!("\n{text}\n"));
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(args).current_dir(self.project()).env_clear().envs(&self.env).stdin(Stdio::null());
        for name in ["PATH", "HOME", "TERM", "NO_COLOR", "MIGRATE_PG_BIN"] {
            command.envs(self.world.env.get(name).map(|value| (name, value)));
        }
        command
    }

    /// Types a command and shows what it prints; the story goes on only with the exit code that it wants.
    async fn migrate(&self, args: &[&str], wanted: Exit) -> Result<(), DemoError> {
        let typed = args.join(" ");
        self.console.print(&format!("\n$ migrate {typed}\n"));
        let status = self.command(args).status().await;
        let code = status.as_ref().ok().and_then(std::process::ExitStatus::code);
        if code == Some(i32::from(wanted as u8)) {
            let note = if wanted == Exit::Done { String::new() } else { format!("(exit code {})\n", wanted as u8) };
            self.console.print(&note);
            return Ok(());
        }
        let found = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        Err(DemoError::Story { command: typed, found, wanted: wanted as u8 })
    }
}

/// This very program.
fn program() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| "migrate".into())
}

/// `12` of `012_name.sql` and of `V12__name.sql`.
fn number(file: &str) -> Option<u32> {
    let digits = file.trim_start_matches(['V', 'U']);
    digits[..digits.find(|c: char| !c.is_ascii_digit())?].parse().ok()
}

fn make_folder(path: &Path) -> Result<(), DemoError> {
    fs::create_dir_all(path).map_err(|source| DemoError::File { path: path.into(), source })
}

fn write(path: &Path, text: &str) -> Result<(), DemoError> {
    make_folder(path.parent().unwrap_or(Path::new(".")))?;
    fs::write(path, text).map_err(|source| DemoError::File { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_story_has_what_it_needs() {
        assert!(PLAN.contains(COPY), "the plan no longer has the line at which the copy begins");
        assert!(MIGRATIONS.get_dir("demo/failing").is_some());
        for (name, variable) in DATABASES {
            assert!(PLAN.contains(variable), "{variable}");
            assert!(MIGRATIONS.get_file(format!("demo/seed/{name}.sql")).is_some(), "{name}");
        }
    }

    #[test]
    fn numbers_are_those_of_files() {
        assert_eq!([number("012_a.sql"), number("V103__b.sql"), number("README.md")], [Some(12), Some(103), None]);
    }
}
