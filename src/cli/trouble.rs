//! A failure as people read it: what, where, why, what now, and in which state the databases are.

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme};
use serde_json::{Value, json};

use crate::failure::Failure;

use super::console::Console;

/// Letters of a line of a file that is drawn, whatever the terminal has.
const WIDEST: usize = 400;

/// The whole failure, for stderr.
#[must_use]
pub fn text(console: &Console, failure: &Failure) -> String {
    let mut text = format!("{} {}\n", console.alarm("error:"), failure.error);
    for cause in causes(failure.error.as_ref()) {
        text += &indented("  cause: ", &cause);
    }
    if let Some(snippet) = snippet(console, failure.error.as_ref()) {
        text += &snippet;
    }
    if let Some(help) = help(failure.error.as_ref()) {
        text += &indented("   help: ", &help);
    }
    text + &failure.aftermath.sentence()
}

/// The failure, for `--json`.
#[must_use]
pub fn json(failure: &Failure) -> Value {
    let error = failure.error.as_ref();
    json!({
        "code": failure.exit() as u8,
        "id": code(error),
        "message": std::iter::once(error.to_string()).chain(causes(error)).collect::<Vec<_>>().join(": "),
        "place": place(error),
        "help": help(error),
        "aftermath": failure.aftermath.sentence(),
    })
}

/// The failure beside the results, for commands that have both.
pub fn add(document: &mut Value, failure: Option<&Failure>) {
    if let Some(failure) = failure {
        document["error"] = json(failure);
    }
}

fn indented(first: &str, text: &str) -> String {
    let rest = " ".repeat(first.len());
    text.lines().enumerate().map(|(at, line)| format!("{}{line}\n", if at == 0 { first } else { &rest })).collect()
}

/// Each cause below the error, unless it says again what stands above it.
fn causes(error: &dyn Diagnostic) -> Vec<String> {
    let mut above = error.to_string();
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !above.contains(&text) {
            above.push_str(&text);
            causes.push(text);
        }
        next = cause.source();
    }
    causes
}

/// The error's own help, or the nearest below it.
fn help(error: &dyn Diagnostic) -> Option<String> {
    nearest(error, &|it| it.help().map(|help| help.to_string()))
}

fn code(error: &dyn Diagnostic) -> Option<String> {
    nearest(error, &|it| it.code().map(|code| code.to_string()))
}

fn nearest<T>(error: &dyn Diagnostic, get: &dyn Fn(&dyn Diagnostic) -> Option<T>) -> Option<T> {
    get(error).or_else(|| nearest(error.diagnostic_source()?, get))
}

/// `plans/production.toml:42:16`, where the error is about a place in a file.
fn place(error: &dyn Diagnostic) -> Option<String> {
    let error = nearest_source(error)?;
    let label = error.labels()?.next()?;
    let line = error.source_code()?.read_span(label.inner(), 0, 0).ok()?;
    Some(format!("{}:{}:{}", line.name()?, line.line() + 1, line.column() + 1))
}

/// The lines of the file that the error is about.
fn snippet(console: &Console, error: &dyn Diagnostic) -> Option<String> {
    let theme = if console.has_colour() { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(100).with_context_lines(1);
    let with_source = nearest_source(error)?;
    let mut drawn = String::new();
    handler.render_report(&mut drawn, &Snippet(with_source)).ok()?;
    // Message and help are printed by us: only the drawing is wanted.
    let lines = drawn.lines().skip_while(|line| !line.contains('╭')).take_while(|line| !line.trim().is_empty());
    // A line that fills a screen shows nothing: the message has its place.
    let lines: Vec<&str> = lines.collect();
    let readable = lines.iter().all(|line| line.chars().count() <= WIDEST);
    readable.then(|| lines.iter().map(|line| format!("{line}\n")).collect())
}

fn nearest_source(error: &dyn Diagnostic) -> Option<&dyn Diagnostic> {
    if error.source_code().is_some() { Some(error) } else { nearest_source(error.diagnostic_source()?) }
}

/// A diagnostic with nothing but its source and labels.
#[derive(Debug)]
struct Snippet<'a>(&'a dyn Diagnostic);

impl std::fmt::Display for Snippet<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("place")
    }
}

impl std::error::Error for Snippet<'_> {}

impl Diagnostic for Snippet<'_> {
    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.0.source_code()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = miette::LabeledSpan> + '_>> {
        self.0.labels()
    }
}
