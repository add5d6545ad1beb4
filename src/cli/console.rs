//! The terminal: results on stdout, everything else on stderr, and questions.

use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::Arc;

use serde::Serialize;

use crate::event::{Report, Silent};
use crate::failure::{Blame, Failure};

use super::args::{Color, Global};
use super::progress::{Bars, Lines};

/// How to speak to whoever started us.
#[derive(Debug, Clone, Copy)]
pub struct Console {
    /// One JSON document on stdout.
    pub json: bool,
    quiet: bool,
    colour: bool,
}

impl Console {
    /// As the flags and the terminal say.
    #[must_use]
    pub fn new(global: &Global, no_color: bool) -> Self {
        let colour = match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => io::stderr().is_terminal() && !no_color,
        };
        Self { json: global.json, quiet: global.quiet, colour }
    }

    /// Who hears of progress: bars on a terminal, plain lines elsewhere.
    #[must_use]
    pub fn report(&self) -> Arc<dyn Report> {
        match (self.quiet, io::stderr().is_terminal()) {
            (true, _) => Arc::new(Silent),
            (false, true) => Arc::new(Bars::new(self.colour)),
            (false, false) => Arc::new(Lines::default()),
        }
    }

    /// Writes a result. Nobody who listens any more is no error.
    pub fn print(&self, text: &str) {
        let mut out = io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Writes a result as JSON.
    pub fn print_json(&self, value: &impl Serialize) {
        let text = serde_json::to_string_pretty(value).expect("results have no map with keys that are not text");
        self.print(&(text + "\n"));
    }

    /// Writes what is no result.
    pub fn say(&self, text: &str) {
        say(text);
    }

    /// `text`, in bold red on a terminal.
    #[must_use]
    pub fn alarm(&self, text: &str) -> String {
        if self.colour { format!("\x1b[1;31m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Whether errors are drawn with colour.
    #[must_use]
    pub fn has_colour(&self) -> bool {
        self.colour
    }

    /// Asks for words to be typed before something is done that cannot be undone.
    ///
    /// # Errors
    /// There is no terminal to ask on, or other words were typed.
    pub fn confirm(&self, yes: bool, question: &str, words: &[String]) -> Result<(), Failure> {
        if yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(Failure::untouched(Blame::Usage, NoTerminal));
        }
        let _ = write!(io::stderr().lock(), "{question}\nType {} to go on: ", words.join(" "));
        let mut line = String::new();
        let typed = io::stdin().lock().read_line(&mut line).is_ok();
        let split = |c: char| c.is_whitespace() || c == ',';
        if typed && line.split(split).filter(|it| !it.is_empty()).eq(words.iter().map(String::as_str)) {
            return Ok(());
        }
        let help = format!("Type {} as it stands here, in this order.", words.join(" "));
        Err(Failure::untouched(Blame::Usage, NotConfirmed(help)))
    }
}

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("this wants to be confirmed, and there is no terminal to ask on")]
#[diagnostic(code("usage.no_terminal"), help("Give --yes if that is what you want."))]
struct NoTerminal;

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("not confirmed")]
#[diagnostic(code("usage.not_confirmed"), help("{0}"))]
struct NotConfirmed(String);

/// Writes a line, or several, on stderr: whole, and in one call.
pub(super) fn say(text: &str) {
    let _ = io::stderr().lock().write_all(format!("{text}\n").as_bytes());
}
