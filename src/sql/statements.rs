//! A text, cut into statements where PostgreSQL would cut it. The kind of a statement is read off its keywords; what
//! stands in strings and comments is never looked at.

use std::borrow::Cow;

pub use crate::sql::error::SqlTextError;
pub use crate::sql::place::{char_to_byte, line_column};

use crate::sql::error::Problem;
use crate::sql::head::Head;
use crate::sql::tokens::{Class, Token, Tokens};

/// One statement of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statement {
    /// Its first byte: no blank, no comment.
    pub start: usize,
    /// The byte after its last token; the semicolon is not part of it.
    pub end: usize,
    /// What it is.
    pub kind: StatementKind,
}

/// What a statement is, as far as transactions and the wire protocol care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatementKind {
    /// `BEGIN` or `START TRANSACTION`.
    Begin {
        /// Without an isolation level or the like.
        plain: bool,
    },
    /// `COMMIT` or `END`.
    Commit {
        /// Without `AND CHAIN`.
        plain: bool,
    },
    /// `ROLLBACK` or `ABORT`.
    Rollback,
    /// `SAVEPOINT`.
    Savepoint,
    /// `RELEASE`.
    Release,
    /// `ROLLBACK TO`.
    RollbackTo,
    /// `PREPARE TRANSACTION`.
    PrepareTransaction,
    /// `COMMIT PREPARED`.
    CommitPrepared,
    /// `ROLLBACK PREPARED`.
    RollbackPrepared,
    /// One that the server refuses inside a transaction, by its name.
    CannotRunInTransaction(&'static str),
    /// `COPY … FROM stdin`.
    CopyFromStdin {
        /// The first byte of the data.
        data_start: usize,
        /// The byte after the data: that of the line `\.`.
        data_end: usize,
    },
    /// `COPY … TO stdout`.
    CopyToStdout,
    /// Any other.
    Other,
}

impl StatementKind {
    /// The name of a transaction command; `None` for what is none.
    #[must_use]
    pub fn transaction_command(self) -> Option<&'static str> {
        match self {
            Self::Begin { .. } => Some("BEGIN"),
            Self::Commit { .. } => Some("COMMIT"),
            Self::Rollback => Some("ROLLBACK"),
            Self::Savepoint => Some("SAVEPOINT"),
            Self::Release => Some("RELEASE SAVEPOINT"),
            Self::RollbackTo => Some("ROLLBACK TO SAVEPOINT"),
            Self::PrepareTransaction => Some("PREPARE TRANSACTION"),
            Self::CommitPrepared => Some("COMMIT PREPARED"),
            Self::RollbackPrepared => Some("ROLLBACK PREPARED"),
            Self::CannotRunInTransaction(_) | Self::CopyFromStdin { .. } | Self::CopyToStdout | Self::Other => None,
        }
    }
}

/// A line comment, and whether it stands between parentheses or in a function's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineComment {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) nested: bool,
}

/// A text, read once.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) statements: Vec<Statement>,
    pub(crate) comments: Vec<LineComment>,
}

/// Cuts a text into its statements. Empty ones are left out.
///
/// ```
/// let text = "create table t (a text default ';'); -- a ; too\ndo $$ begin perform 1; end $$;";
/// let statements = migrate::sql::statements::split(text).expect("SQL");
/// assert_eq!(&text[statements[1].start..statements[1].end], "do $$ begin perform 1; end $$");
/// ```
///
/// # Errors
/// A string, a quoted name or a comment that is never closed; a command of psql; a COPY whose data does not end; a
/// statement that changes what a backslash in a string means.
pub fn split(text: &str) -> Result<Vec<Statement>, SqlTextError> {
    scan(text).map(|script| script.statements)
}

/// The text with the data of every COPY and the line that ends it overwritten by blanks, for those who read SQL alone:
/// every other character stays where it was. What cannot be split is left as it is.
#[must_use]
pub fn without_data(text: &str) -> Cow<'_, str> {
    let data = |it: &Statement| match it.kind {
        StatementKind::CopyFromStdin { data_start, data_end } => Some((data_start, after_line(text, data_end))),
        _ => None,
    };
    let data: Vec<_> = split(text).unwrap_or_default().iter().filter_map(data).collect();
    if data.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut blanked = text.to_owned();
    for (start, end) in data {
        let blank = |byte: u8| if matches!(byte, b'\r' | b'\n') { char::from(byte) } else { ' ' };
        blanked.replace_range(start..end, &text[start..end].bytes().map(blank).collect::<String>());
    }
    Cow::Owned(blanked)
}

/// Statements and line comments of a text.
pub(crate) fn scan(text: &str) -> Result<Script, SqlTextError> {
    let mut scanner = Scanner::new(text);
    while let Some(token) = scanner.tokens.next() {
        scanner.take(token?)?;
    }
    scanner.finish(text.len(), false)?;
    Ok(scanner.script)
}

struct Scanner<'a> {
    text: &'a str,
    tokens: Tokens<'a>,
    script: Script,
    head: Head<'a>,
    /// The place of the statement so far.
    span: Option<(usize, usize)>,
    depth: usize,
    /// In a body of `BEGIN ATOMIC … END`.
    atomic: bool,
    /// The token before this one, without blanks and comments.
    previous: Option<Token>,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        let (tokens, script) = (Tokens::new(text), Script::default());
        Self { text, tokens, script, head: Head::new(text), span: None, depth: 0, atomic: false, previous: None }
    }

    fn nested(&self) -> bool {
        self.depth > 0 || self.atomic
    }

    fn take(&mut self, token: Token) -> Result<(), SqlTextError> {
        let Token { start, end, class } = token;
        match class {
            Class::Space | Class::BlockComment => {}
            Class::LineComment => self.script.comments.push(LineComment { start, end, nested: self.nested() }),
            Class::Backslash => return Err(psql_command(self.text, start)),
            Class::Semi if !self.nested() => self.finish(end, true)?,
            _ => self.push(token),
        }
        Ok(())
    }

    fn push(&mut self, token: Token) {
        match token.class {
            Class::Open => self.depth += 1,
            Class::Close => self.depth = self.depth.saturating_sub(1),
            Class::Word => self.follow_body(token),
            _ => {}
        }
        self.head.push(token, self.depth);
        self.span = Some((self.span.map_or(token.start, |(start, _)| start), token.end));
        self.previous = Some(token);
    }

    /// `BEGIN ATOMIC` opens a body. Each statement in it ends in a semicolon, so that an END right after one (or after
    /// ATOMIC) closes the body, and the END of a CASE does not.
    fn follow_body(&mut self, token: Token) {
        let Some(previous) = self.previous else { return };
        let is = |token: Token, word| token.is_word(self.text, word);
        if self.atomic {
            self.atomic = !(is(token, "END") && (previous.class == Class::Semi || is(previous, "ATOMIC")));
        } else {
            self.atomic =
                self.depth == 0 && is(token, "ATOMIC") && is(previous, "BEGIN") && self.head.defines_a_routine();
        }
    }

    /// Ends the statement so far; `at` is the byte after its semicolon or the end of the text.
    fn finish(&mut self, at: usize, semicolon: bool) -> Result<(), SqlTextError> {
        let head = std::mem::replace(&mut self.head, Head::new(self.text));
        (self.depth, self.atomic, self.previous) = (0, false, None);
        let Some((start, end)) = self.span.take() else { return Ok(()) };
        if head.turns_escapes_on() {
            return Err(SqlTextError::new(self.text, start, end, Problem::EscapesInPlainStrings));
        }
        let mut kind = head.kind();
        if head.reads_stdin() {
            let fail = |problem| SqlTextError::new(self.text, start, end, problem);
            if head.is_binary() {
                return Err(fail(Problem::CopyBinary));
            }
            if !semicolon {
                return Err(fail(Problem::CopyUnterminated));
            }
            let (data_start, data_end) = copy_data(self.text, at).map_err(fail)?;
            self.tokens.seek(after_line(self.text, data_end));
            kind = StatementKind::CopyFromStdin { data_start, data_end };
        }
        self.script.statements.push(Statement { start, end, kind });
        Ok(())
    }
}

fn psql_command(text: &str, start: usize) -> SqlTextError {
    let length = text[start..].find(|c: char| c.is_whitespace() || c == ';').unwrap_or(text.len() - start);
    let command = text[start..start + length].to_owned();
    SqlTextError::new(text, start, start + length, Problem::PsqlCommand(command))
}

/// The data of a COPY whose semicolon ends at `at`: from the next line to the line `\.`.
fn copy_data(text: &str, at: usize) -> Result<(usize, usize), Problem> {
    let start = after_line(text, at);
    let rest = text[at..start].trim();
    if !(rest.is_empty() || rest.starts_with("--")) {
        return Err(Problem::CopyLine);
    }
    let mut line = start;
    while line < text.len() {
        let next = after_line(text, line);
        if text[line..next].trim_end_matches(['\r', '\n']) == "\\." {
            return Ok((start, line));
        }
        line = next;
    }
    Err(Problem::CopyUnterminated)
}

/// The first byte of the line after the one that holds `at`.
pub(crate) fn after_line(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1)
}

#[cfg(test)]
mod tests;
