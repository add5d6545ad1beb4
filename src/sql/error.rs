//! What can be wrong with a text before it is sent anywhere. Each is about one place; which file it is in, the reader of
//! the file adds.

/// A [`Problem`] and where it is in the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct SqlTextError {
    /// What is wrong.
    pub problem: Problem,
    /// The first byte of the place.
    pub start: usize,
    /// The byte after the place.
    pub end: usize,
    /// The line of `start`, from 1.
    pub line: usize,
}

impl SqlTextError {
    /// A problem with `text[start..end]`.
    #[must_use]
    pub fn new(text: &str, start: usize, end: usize, problem: Problem) -> Self {
        Self { problem, start, end, line: crate::sql::place::line_column(text, start).0 }
    }
}

/// What is wrong with a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum Problem {
    /// The text ends inside a string, a quoted name or a comment.
    #[error("this {0} is never closed")]
    #[diagnostic(
        code("sql.unterminated"),
        help("Everything from here to the end of the file belongs to it: close it.")
    )]
    Unterminated(&'static str),
    /// A command of psql.
    #[error("`{0}` is a command of psql, not SQL")]
    #[diagnostic(
        code("sql.psql_command"),
        help("The file is sent to the server, not to psql: remove the line, or write what it does in SQL.")
    )]
    PsqlCommand(String),
    /// `COPY … FROM stdin` whose data does not end.
    #[error("the data of this COPY does not end")]
    #[diagnostic(code("sql.copy_unterminated"), help(r"The data starts on the next line and ends with a line `\.`"))]
    CopyUnterminated,
    /// Something follows `COPY … FROM stdin;` on its line.
    #[error("there is more on the line of this COPY, where its data should start on the next")]
    #[diagnostic(code("sql.copy_line"), help("Move what follows the semicolon behind the data."))]
    CopyLine,
    /// `COPY … FROM stdin` in a format that no text can hold.
    #[error("the data of a binary COPY cannot stand in a file of SQL")]
    #[diagnostic(code("sql.copy_binary"), help("Use COPY's text format or csv."))]
    CopyBinary,
    /// `COPY … FROM stdin` where the file is not only ours to send.
    #[error("COPY FROM stdin with its data in a refinery migration")]
    #[diagnostic(
        code("sql.copy_from_stdin"),
        help(
            "An application that embeds refinery sends the file as one message, and cannot send data with it: write the \
             rows as INSERT, or use a step of kind \"sql\"."
        )
    )]
    CopyFromStdin,
    /// `COPY … TO stdout`.
    #[error("COPY TO stdout in a migration: there is nobody to take the rows")]
    #[diagnostic(
        code("sql.copy_to_stdout"),
        help("Remove it; a step of kind \"copy\" brings the rows of a table to another database.")
    )]
    CopyToStdout,
    /// `SET standard_conforming_strings = off`.
    #[error("standard_conforming_strings must stay on")]
    #[diagnostic(
        code("sql.standard_conforming_strings"),
        help("Without it a backslash has another meaning in each string: write E'…' where an escape is meant.")
    )]
    EscapesInPlainStrings,
    /// `-- migrate:xyz`.
    #[error("`migrate:{0}` is not a directive")]
    #[diagnostic(
        code("sql.directive_unknown"),
        help(
            "The directives are no-transaction, lock-timeout, statement-timeout, down, irreversible, repeatable, after and \
             allow."
        )
    )]
    DirectiveUnknown(String),
    /// Something else where a migration belongs.
    #[error("`migrate:after` wants STEP/NAME, and has `{0}`")]
    #[diagnostic(
        code("sql.directive_edge"),
        help(
            "Write the step and the migration as `migrate plan` and `migrate status` show them, as in `rag-schema/001_a`."
        )
    )]
    DirectiveEdge(String),
    /// An argument where none belongs.
    #[error("`migrate:{name}` takes no argument, and has `{argument}`")]
    #[diagnostic(code("sql.directive_argument"), help("Put remarks into a comment of their own."))]
    DirectiveArgument {
        /// The directive.
        name: &'static str,
        /// What follows it.
        argument: String,
    },
    /// Something else where a time belongs.
    #[error("`migrate:{name}` wants a duration, and has `{argument}`")]
    #[diagnostic(code("sql.directive_time"), help("{}", crate::sql::duration::HELP))]
    DirectiveTime {
        /// The directive.
        name: &'static str,
        /// What follows it.
        argument: String,
    },
    /// A wait for a lock without an end.
    #[error("`migrate:lock-timeout {0}` would wait for ever")]
    #[diagnostic(
        code("sql.directive_endless"),
        help(
            "Write how long a statement may wait for a lock, as in `2s`: every query that comes after it waits behind it."
        )
    )]
    DirectiveEndless(String),
    /// The same directive twice.
    #[error("`migrate:{0}` stands here for the second time")]
    #[diagnostic(code("sql.directive_repeated"), help("Remove one of the two."))]
    DirectiveRepeated(&'static str),
    /// A directive at the end of a line of SQL.
    #[error("`migrate:{0}` does not stand on a line of its own")]
    #[diagnostic(code("sql.directive_line"), help("Give the directive a line of its own, or reword the comment."))]
    DirectiveLine(String),
    /// A directive between the parentheses of a statement, or in a function's body.
    #[error("`migrate:{0}` stands inside a statement")]
    #[diagnostic(code("sql.directive_in_statement"), help("Move it in front of the statement or behind it."))]
    DirectiveInStatement(&'static str),
    /// A directive that makes no sense in this file.
    #[error("`migrate:{name}` has no place in {place}")]
    #[diagnostic(code("sql.directive_misplaced"), help("Remove the directive."))]
    DirectiveMisplaced {
        /// The directive.
        name: &'static str,
        /// `a file that is a way back`, `a refinery migration`.
        place: &'static str,
    },
    /// Irreversible, with a way back.
    #[error("`migrate:irreversible` says that there is no way back, and there is one")]
    #[diagnostic(code("sql.irreversible_with_down"), help("Remove the directive or the way back."))]
    IrreversibleWithDown,
    /// A command that would end or nest the transaction of the migration.
    #[error("{0} in a migration that runs in a transaction of its own")]
    #[diagnostic(
        code("sql.transaction_command"),
        help(
            "A plain BEGIN as the first and a plain COMMIT as the last statement may stay; any other transaction command \
             has to go, so that the migration and its row in the ledger are one commit."
        )
    )]
    TransactionCommand(&'static str),
    /// A transaction of the file's own in a file without.
    #[error("{0} in a file without a transaction")]
    #[diagnostic(
        code("sql.transaction_command"),
        help(
            "Its statements are sent one by one, each its own transaction: put what belongs together into a file of its own."
        )
    )]
    TransactionWithout(&'static str),
    /// A statement that the server refuses inside a transaction.
    #[error("{0} cannot run inside a transaction")]
    #[diagnostic(
        code("sql.cannot_run_in_transaction"),
        help(
            "Put it into a file of its own, of a step of kind `sql` and without BEGIN … COMMIT: such a file goes statement by statement."
        )
    )]
    CannotRunInTransaction(&'static str),
}
