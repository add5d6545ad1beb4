//! How it looks: arguments to core, values to text or JSON. The only place that prints.

pub mod apply;
pub mod args;
pub mod baseline;
pub mod console;
pub mod context;
pub mod demo;
pub mod doctor;
pub mod lint;
pub mod mend;
pub mod new;
pub mod plan;
pub mod progress;
pub mod resume;
pub mod rollback;
pub mod runs;
pub mod signals;
pub mod snapshot;
pub mod status;
pub mod text;
pub mod trouble;
pub mod verify;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};
use serde_json::json;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use crate::event::{Event, Report};
use crate::failure::{Blame, Exit, Failure};
use crate::outside::interrupt::Interrupt;
use crate::version::THIS;
use crate::world::World;

use args::{Command, CommandLine, LintFormat};
use console::Console;
use context::Context;
use signals::Following;

/// What a command comes to: an exit code, or a failure that is still to be told.
pub type Ended = Result<Exit, Failure>;

/// Runs the program.
pub async fn main() -> ExitCode {
    let matches = match CommandLine::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    let mut line = match CommandLine::from_arg_matches(&matches) {
        Ok(line) => line,
        Err(error) => return usage(&error),
    };
    if let Command::Lint(args) = &mut line.command {
        // Two ways to say one thing.
        line.global.json |= args.format == Some(LintFormat::Json);
        args.target_named = typed(&matches, "target");
    }
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
    let console = Console::new(&line.global, no_color);
    logging(line.global.verbose, console.has_colour());
    tell_of_panics();
    // An error here means that another part of the process chose the provider first: then there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let interrupt = Interrupt::default();
    let following = Following::new(console.report());
    let world = World::gather(Arc::<Following>::clone(&following), interrupt.clone());
    let (first, second) = (Arc::clone(&following), Arc::clone(&following));
    let heard = move || {
        let text =
            "stopping at the next safe point, which is the end of what is under way; a second signal ends it at once";
        first.event(&Event::Noted(text.into()));
    };
    let again = move || second.event(&Event::Noted(second.what_breaks()));
    if let Err(error) = interrupt.on_signals(heard, again) {
        tracing::warn!(%error, "signals will end the program at once");
    }
    let ended = match honours(&line, &matches) {
        // Dropped where it stands: programs that it started end with it.
        Ok(()) => tokio::select! {
            ended = run(&world, &console, line) => ended,
            () = interrupt.forced() => Err(following.cut_off()),
        },
        Err(failure) => Err(failure),
    };
    ExitCode::from(match ended {
        Ok(exit) => exit as u8,
        Err(failure) => told(&console, &failure),
    })
}

/// Tells a failure of which nothing has been told yet.
fn told(console: &Console, failure: &Failure) -> u8 {
    if console.json {
        console.print_json(&json!({ "error": trouble::json(failure) }));
    }
    console.say(&trouble::text(console, failure));
    failure.exit() as u8
}

/// clap prints what it has to say for people; the exit code and the JSON are ours.
fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return ExitCode::SUCCESS;
    }
    // The command line was not understood: whether it asks for JSON can only be seen in its words.
    if std::env::args_os().take_while(|it| it != "--").any(|it| it == "--json") {
        let text = error.render().to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let failure = Failure::untouched(Blame::Usage, Misunderstood { message });
        let document = serde_json::to_string_pretty(&json!({ "error": trouble::json(&failure) })).unwrap_or_default();
        let _ = writeln!(std::io::stdout().lock(), "{document}");
    }
    ExitCode::from(Exit::Usage as u8)
}

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{message}")]
#[diagnostic(code("usage"), help("`migrate help` shows the commands, `migrate help COMMAND` their flags."))]
struct Misunderstood {
    message: String,
}

fn logging(verbose: u8, colour: bool) {
    let (ours, others) = match verbose {
        0 => (Level::WARN, Level::WARN),
        1 => (Level::DEBUG, Level::WARN),
        _ => (Level::TRACE, Level::INFO),
    };
    // refinery's own reader warns of names that we refuse with more to say.
    let theirs = if verbose == 0 { Level::ERROR } else { others };
    let wanted = Targets::new().with_target("migrate", ours).with_target("refinery_core", theirs).with_default(others);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
    tracing_subscriber::registry().with(lines.with_filter(wanted)).init();
}

/// A panic is a bug of ours, and whoever sees it needs to know what was not done.
fn tell_of_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        usual(panic);
        let text = format!(
            "This is a bug in migrate {THIS}. No rollback was tried; `migrate status` and `migrate runs list` show the state."
        );
        console::say(&text);
    }));
}

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("`migrate {command}` takes no {flag}")]
#[diagnostic(code("usage.flag"), help("Leave it out."))]
struct NotHonoured {
    command: &'static str,
    flag: &'static str,
}

/// A flag that a command does not honour is refused, never ignored. (Variables of the environment are for all commands.)
fn honours(line: &CommandLine, matches: &clap::ArgMatches) -> Result<(), Failure> {
    let all = [("plan", "--plan"), ("target", "--target"), ("json", "--json"), ("quiet", "--quiet")];
    let (command, flags) = match &line.command {
        Command::Completions { .. } => ("completions", &all[..]),
        Command::Demo(_) => ("demo", &all[..]),
        // Files alone are held against no database.
        Command::Lint(args) if !args.files.is_empty() => ("lint FILE", &all[1..2]),
        Command::New(_) => ("new", &all[1..2]),
        _ => return Ok(()),
    };
    for &(id, flag) in flags {
        if typed(matches, id) {
            return Err(Failure::untouched(Blame::Usage, NotHonoured { command, flag }));
        }
    }
    Ok(())
}

/// Whether a global flag stands on the command line.
fn typed(matches: &clap::ArgMatches, id: &str) -> bool {
    let here = |matches: &clap::ArgMatches| matches.value_source(id) == Some(clap::parser::ValueSource::CommandLine);
    here(matches) || matches.subcommand().is_some_and(|(_, below)| here(below))
}

async fn run(world: &World, console: &Console, line: CommandLine) -> Ended {
    let context = Context { world, console, global: &line.global };
    match line.command {
        Command::Plan(args) => plan::run(&context, &args).await,
        Command::Apply(args) => apply::run(&context, args).await,
        Command::Resume(args) => resume::run(&context, args).await,
        Command::Rollback(args) => rollback::run(&context, args).await,
        Command::Status => status::run(&context).await,
        Command::Verify(args) => verify::run(&context, &args).await,
        Command::Snapshot(command) => snapshot::run(&context, command).await,
        Command::Runs(command) => runs::run(&context, command).await,
        Command::Baseline(args) => baseline::run(&context, args).await,
        Command::Repair(command) => mend::repair(&context, command).await,
        Command::Resolve(args) => mend::resolved(&context, args).await,
        Command::Lint(args) => lint::run(&context, &args).await,
        Command::New(args) => new::run(&context, &args),
        Command::Doctor => doctor::run(&context).await,
        Command::Demo(args) => demo::run(&context, args).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut CommandLine::command(), "migrate", &mut script);
            console.print(&String::from_utf8_lossy(&script));
            Ok(Exit::Done)
        }
    }
}
