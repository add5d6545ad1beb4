//! `-- migrate:NAME` comments: what a file says about itself. Only a line comment on a line of its own is one, as the lexer
//! sees it: never one inside a string, a block comment or the data of a COPY. `-- migrate:down` cuts the file in two, and
//! each directive speaks for the part that it stands in.

use std::ops::Range;
use std::time::Duration;

use crate::sql::duration;
use crate::sql::error::{Problem, SqlTextError};
use crate::sql::place::line_column;
use crate::sql::statements::{LineComment, Statement, scan};
use crate::sql::transaction;

const NO_TRANSACTION: &str = "no-transaction";
const DOWN: &str = "down";
const IRREVERSIBLE: &str = "irreversible";
const LOCK_TIMEOUT: &str = "lock-timeout";
const STATEMENT_TIMEOUT: &str = "statement-timeout";
const ALLOW: &str = "allow";
const REPEATABLE: &str = "repeatable";
const AFTER: &str = "after";
const KNOWN: [&str; 8] =
    [NO_TRANSACTION, DOWN, IRREVERSIBLE, LOCK_TIMEOUT, STATEMENT_TIMEOUT, ALLOW, REPEATABLE, AFTER];

/// A file, cut at `-- migrate:down`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Parts {
    /// The migration.
    pub up: Part,
    /// Its way back, if the file has one.
    pub down: Option<Part>,
    /// Where the file says `-- migrate:down`.
    pub down_directive: Option<Range<usize>>,
    /// Where the file says that there is no way back.
    pub irreversible: Option<Range<usize>>,
    /// Where the file says that it is applied anew whenever it changes.
    pub repeatable: Option<Range<usize>>,
    /// The migrations of other steps that the file waits for.
    pub after: Vec<Edge>,
}

/// `-- migrate:after STEP/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The step, as typed.
    pub step: String,
    /// The migration, as the ledger calls it.
    pub name: String,
    /// The line of the directive, from 1.
    pub line: usize,
    /// Its place in the text.
    pub place: Range<usize>,
}

impl std::fmt::Display for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.step, self.name)
    }
}

/// What a file says about how long its statements may wait and run. Where it says nothing, its step or the run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// `-- migrate:lock-timeout 2s`; never zero.
    pub lock_timeout: Option<Duration>,
    /// `-- migrate:statement-timeout 5m`; zero is for ever.
    pub statement_timeout: Option<Duration>,
}

/// One part of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Part {
    /// Its place in the text.
    pub range: Range<usize>,
    /// The line on which it starts, from 1.
    pub first_line: usize,
    /// It runs outside a transaction: because it says so, or because of a statement.
    pub no_transaction: bool,
    /// The statement that cannot run in a transaction, and its name, of a part that does not say itself that it has none.
    pub undeclared: Option<(Statement, &'static str)>,
    /// Its own limits.
    pub budget: Budget,
    /// It holds nothing but comments, and one of them is no directive: it says something to people.
    pub remark: bool,
    /// Its statements; their places are counted from the start of the part.
    pub statements: Vec<Statement>,
}

/// Reads the directives of a file.
///
/// # Errors
/// Those of [`crate::sql::statements::split`]; a directive that is unknown, stands twice, has an argument, or does not
/// stand on a line of its own.
pub fn read(text: &str) -> Result<Parts, SqlTextError> {
    let script = scan(text)?;
    let directives = find(text, &script.comments)?;
    let down = unique(text, directives.iter().filter(|it| it.name == DOWN))?;
    let irreversible = unique(text, directives.iter().filter(|it| it.name == IRREVERSIBLE))?;
    let repeatable = unique(text, directives.iter().filter(|it| it.name == REPEATABLE))?;
    if let Some(down) = down {
        not_below(text, &directives, down)?;
    }
    let parts = match (down, irreversible) {
        (Some(_), Some(irreversible)) => return Err(irreversible.fail(text, Problem::IrreversibleWithDown)),
        (Some(down), None) => cut(text, &directives, down)?,
        (None, irreversible) => Parts {
            up: Part::new(text, 0..text.len(), script.statements, &directives)?,
            irreversible: irreversible.map(Directive::place),
            ..Parts::default()
        },
    };
    let after = directives.iter().filter_map(|it| it.edge(text)).collect();
    Ok(Parts { repeatable: repeatable.map(Directive::place), after, ..parts })
}

/// What speaks for the whole file stands above its way back.
fn not_below(text: &str, directives: &[Directive<'_>], down: &Directive<'_>) -> Result<(), SqlTextError> {
    let mut below = directives.iter().filter(|it| it.start > down.start);
    match below.find(|it| matches!(it.name, REPEATABLE | AFTER)) {
        Some(it) => Err(it.fail(text, Problem::DirectiveMisplaced { name: it.name, place: "a way back" })),
        None => Ok(()),
    }
}

/// Each part is split anew, so that a last statement without a semicolon ends with its part.
fn cut(text: &str, directives: &[Directive<'_>], down: &Directive<'_>) -> Result<Parts, SqlTextError> {
    let part = |range: Range<usize>| {
        let at = range.start;
        let shifted = |error: SqlTextError| SqlTextError::new(text, error.start + at, error.end + at, error.problem);
        let statements = scan(&text[range.clone()]).map_err(shifted)?.statements;
        Part::new(text, range, statements, directives)
    };
    Ok(Parts {
        up: part(0..up_end(text, down.start))?,
        down: Some(part(line_end(text, down.end)..text.len())?),
        down_directive: Some(down.place()),
        ..Parts::default()
    })
}

/// The end of what comes before the directive at `at`. Blank lines above the directive belong to it: a way back that is
/// added later leaves the checksum as it is.
fn up_end(text: &str, at: usize) -> usize {
    let content = text[..at].trim_end().len();
    line_end(text, content).min(line_start(text, at))
}

/// The byte after the end of the line that holds `at`.
fn line_end(text: &str, at: usize) -> usize {
    let Some(end) = text[at..].find(['\r', '\n']).map(|end| at + end) else { return text.len() };
    end + if text[end..].starts_with("\r\n") { 2 } else { 1 }
}

impl Part {
    fn new(
        text: &str,
        range: Range<usize>,
        statements: Vec<Statement>,
        directives: &[Directive<'_>],
    ) -> Result<Self, SqlTextError> {
        let here: Vec<_> = directives.iter().filter(|it| range.contains(&it.start)).collect();
        let only = |name| unique(text, here.iter().copied().filter(move |it| it.name == name));
        let says_so = only(NO_TRANSACTION)?.is_some();
        let undeclared = if says_so { None } else { transaction::never_in_one(&statements) };
        let no_transaction = says_so || undeclared.is_some();
        let time = |name| only(name).map(|found| found.and_then(|it| it.time));
        let budget = Budget { lock_timeout: time(LOCK_TIMEOUT)?, statement_timeout: time(STATEMENT_TIMEOUT)? };
        let first_line = text[..range.start].matches('\n').count() + 1;
        let remark = statements.is_empty() && has_remark(&text[range.clone()]);
        Ok(Self { range, first_line, no_transaction, undeclared, budget, remark, statements })
    }
}

/// Of a text without statements: whether one of its comments is for people.
fn has_remark(text: &str) -> bool {
    let for_people =
        |line: &str| line.starts_with("--") && line.contains(char::is_alphanumeric) && named(line).is_none();
    text.contains("/*") || text.lines().any(|line| for_people(line.trim()))
}

/// What `-- migrate:allow RULE …` names, each with the place of its directive. Which rules there are, `lint` knows; what
/// follows the name is a reason, for people.
///
/// # Errors
/// Those of [`read`].
pub fn allowed(text: &str) -> Result<Vec<(&str, Range<usize>)>, SqlTextError> {
    if !text.contains(ALLOW) {
        return Ok(Vec::new());
    }
    let directives = find(text, &scan(text)?.comments)?;
    let allow = directives.into_iter().filter(|it| it.name == ALLOW);
    Ok(allow.map(|it| (it.argument.split_whitespace().next().unwrap_or_default(), it.place())).collect())
}

/// Refuses every directive but `allow`, which changes nothing that is sent: for texts in which none belongs.
///
/// # Errors
/// The first directive, or what [`read`] finds.
pub fn refuse_all(text: &str, place: &'static str) -> Result<(), SqlTextError> {
    match find(text, &scan(text)?.comments)?.iter().find(|it| it.name != ALLOW) {
        Some(directive) => Err(directive.fail(text, Problem::DirectiveMisplaced { name: directive.name, place })),
        None => Ok(()),
    }
}

#[derive(Debug, Clone, Copy)]
struct Directive<'t> {
    name: &'static str,
    /// What follows the name.
    argument: &'t str,
    /// Of those that take one.
    time: Option<Duration>,
    start: usize,
    end: usize,
}

impl Directive<'_> {
    /// Of `-- migrate:after`.
    fn edge(&self, text: &str) -> Option<Edge> {
        let (step, name) = Some(self).filter(|it| it.name == AFTER)?.argument.split_once('/')?;
        let (step, name) = (step.to_owned(), name.to_owned());
        Some(Edge { step, name, line: line_column(text, self.start).0, place: self.place() })
    }

    fn place(&self) -> Range<usize> {
        self.start..self.end
    }

    fn fail(&self, text: &str, problem: Problem) -> SqlTextError {
        SqlTextError::new(text, self.start, self.end, problem)
    }
}

fn find<'t>(text: &'t str, comments: &[LineComment]) -> Result<Vec<Directive<'t>>, SqlTextError> {
    comments.iter().filter_map(|comment| directive(text, *comment).transpose()).collect()
}

fn directive(text: &str, comment: LineComment) -> Result<Option<Directive<'_>>, SqlTextError> {
    let LineComment { start, end, nested } = comment;
    let Some((word, argument)) = named(&text[start..end]) else { return Ok(None) };
    let fail = |problem| Err(SqlTextError::new(text, start, end, problem));
    let Some(name) = KNOWN.into_iter().find(|name| *name == word) else {
        return fail(Problem::DirectiveUnknown(word.to_owned()));
    };
    if !text[line_start(text, start)..start].trim_start_matches('\u{feff}').trim().is_empty() {
        return fail(Problem::DirectiveLine(name.to_owned()));
    }
    if nested {
        return fail(Problem::DirectiveInStatement(name));
    }
    match argument_of(name, argument) {
        Ok(time) => Ok(Some(Directive { name, argument, time, start, end })),
        Err(problem) => fail(problem),
    }
}

/// The time that a directive takes; none for one that takes nothing.
fn argument_of(name: &'static str, argument: &str) -> Result<Option<Duration>, Problem> {
    let given = || argument.to_owned();
    if name == ALLOW {
        return Ok(None);
    }
    if name == AFTER {
        let whole = argument.split_once('/').is_some_and(|(step, name)| !step.trim().is_empty() && !name.is_empty());
        return if whole { Ok(None) } else { Err(Problem::DirectiveEdge(given())) };
    }
    if !matches!(name, LOCK_TIMEOUT | STATEMENT_TIMEOUT) {
        let nothing = argument.is_empty().then_some(None);
        return nothing.ok_or_else(|| Problem::DirectiveArgument { name, argument: given() });
    }
    match duration::parse(argument) {
        None => Err(Problem::DirectiveTime { name, argument: given() }),
        Some(Duration::ZERO) if name == LOCK_TIMEOUT => Err(Problem::DirectiveEndless(given())),
        time => Ok(time),
    }
}

/// Name and argument of `-- migrate:NAME ARGUMENT`. Near misses such as `-- Migrate: down` are taken for what they seem to
/// mean, since passing over one could run a way back as part of the migration; `-- migrate: some prose` is prose.
fn named(comment: &str) -> Option<(&str, &str)> {
    let (word, rest) = comment.trim_start_matches('-').trim().split_once(':')?;
    if !word.trim_end().eq_ignore_ascii_case("migrate") {
        return None;
    }
    let body = rest.trim_start();
    let (name, argument) = body.split_once(char::is_whitespace).unwrap_or((body, ""));
    let meant = KNOWN.iter().any(|known| known.eq_ignore_ascii_case(name)) || name == "up";
    (meant || body.len() == rest.len()).then(|| (name, argument.trim()))
}

fn unique<'a, 't: 'a>(
    text: &str,
    mut directives: impl Iterator<Item = &'a Directive<'t>>,
) -> Result<Option<&'a Directive<'t>>, SqlTextError> {
    let first = directives.next();
    match directives.next() {
        Some(second) => Err(second.fail(text, Problem::DirectiveRepeated(second.name))),
        None => Ok(first),
    }
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind(['\n', '\r']).map_or(0, |newline| newline + 1)
}

#[cfg(test)]
mod tests;
