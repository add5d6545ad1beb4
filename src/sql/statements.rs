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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use StatementKind as Kind;

    fn texts(text: &str) -> Vec<&str> {
        split(text).unwrap_or_else(|error| panic!("{text}: {error}")).iter().map(|it| &text[it.start..it.end]).collect()
    }

    /// A text and its statements.
    #[track_caller]
    fn check(text: &str, statements: &[&str]) {
        assert_eq!(texts(text), statements, "{text}");
    }

    #[track_caller]
    fn check_kind(text: &str, kind: Kind) {
        let found: Vec<_> = split(text).unwrap().iter().map(|statement| statement.kind).collect();
        assert_eq!(found, [kind], "{text}");
    }

    #[track_caller]
    fn check_error(text: &str, line: usize, part: &str) {
        let error = split(text).expect_err(text);
        assert_eq!(error.line, line, "{text}");
        assert!(error.problem.to_string().contains(part), "{text}: {error}");
        assert!(error.start <= error.end && text.get(error.start..error.end).is_some(), "{text}: {error:?}");
    }

    #[test]
    fn semicolons_end_statements() {
        check("", &[]);
        check("  \n\t ", &[]);
        check(";;;", &[]);
        check("select 1", &["select 1"]);
        check("select 1;", &["select 1"]);
        check("select 1;;select 2", &["select 1", "select 2"]);
        check(" select 1 ; \n select 2 ; ", &["select 1", "select 2"]);
        check("\u{feff}select 1;", &["select 1"]);
        check("\u{feff};", &[]);
        check("select\r\n1;\r\nselect 2;\r\n", &["select\r\n1", "select 2"]);
    }

    #[test]
    fn comments_end_nothing() {
        check("-- only; a comment", &[]);
        check("/* only; a comment */", &[]);
        check("-- a;\nselect 1 -- b;\n;", &["select 1"]);
        check("select /* ; */ 1; /* ; */", &["select /* ; */ 1"]);
        check("/* a /* nested; */ still; */ select 1;", &["select 1"]);
        check("/* it's */ select 1; -- it's\nselect 2", &["select 1", "select 2"]);
        check("select 1 --\r;select 2", &["select 1", "select 2"]);
        check("select 1 -- /*\n; select 2 -- */", &["select 1", "select 2"]);
        check("select 1 /* -- */; select 2", &["select 1", "select 2"]);
        check("select 4*/* ; */2; select 1", &["select 4*/* ; */2", "select 1"]);
        check("select 1 +-- ;\n 2; select 3", &["select 1 +-- ;\n 2", "select 3"]);
        check("/***/select 1;/**/select 2", &["select 1", "select 2"]);
    }

    #[test]
    fn strings_end_nothing() {
        check("select ';'; select 2", &["select ';'", "select 2"]);
        check("select 'it''s; '; select 2", &["select 'it''s; '", "select 2"]);
        check("select ''''; select ';'", &["select ''''", "select ';'"]);
        check(r"select '\'; select 2", &[r"select '\'", "select 2"]);
        check("select '--'; select '/*'; select '*/'", &["select '--'", "select '/*'", "select '*/'"]);
        check("select '$$;'; select '$$'", &["select '$$;'", "select '$$'"]);
        check("select 'a'\n'b;'; select 2", &["select 'a'\n'b;'", "select 2"]);
        check(r"select E'\';'; select 2", &[r"select E'\';'", "select 2"]);
        check(r"select e'\\'; select 2", &[r"select e'\\'", "select 2"]);
        check(r"select E'a''b\';c'; select 2", &[r"select E'a''b\';c'", "select 2"]);
        check("select E'a'\n'\\';'; select 2", &["select E'a'\n'\\';'", "select 2"]);
        check("select E'a' -- ;\n'\\';'; select 2", &["select E'a' -- ;\n'\\';'", "select 2"]);
        check(r"select U&'\0441;' UESCAPE '!'; select 2", &[r"select U&'\0441;' UESCAPE '!'", "select 2"]);
        check(r"select U&'\'; select 2", &[r"select U&'\'", "select 2"]);
        check("select B'1', X'1F', N';'; select 2", &["select B'1', X'1F', N';'", "select 2"]);
        check(r"select date'\'; select 2", &[r"select date'\'", "select 2"]);
        check("select 'a\0b;'", &["select 'a\0b;'"]);
    }

    #[test]
    fn names_end_nothing() {
        check(r#"select ";"; select 2"#, &[r#"select ";""#, "select 2"]);
        check(r#"select "a"";b"; select 2"#, &[r#"select "a"";b""#, "select 2"]);
        check(r#"select U&"\0041;"; select 2"#, &[r#"select U&"\0041;""#, "select 2"]);
        check(r#"select "it's"; select "--""#, &[r#"select "it's""#, r#"select "--""#]);
    }

    #[test]
    fn dollar_quotes_end_nothing() {
        check("select $$;$$; select 2", &["select $$;$$", "select 2"]);
        check("select $a$;$b$;$$;$a$; select 2", &["select $a$;$b$;$$;$a$", "select 2"]);
        check("select $a$ $a $aa$ ; $a$; select 2", &["select $a$ $a $aa$ ; $a$", "select 2"]);
        check("select a$$; select b$$", &["select a$$", "select b$$"]);
        check("select a$b$; select c$b$", &["select a$b$", "select c$b$"]);
        check("select $1; select $2", &["select $1", "select $2"]);
        check("select $1$$;$$; select 2", &["select $1$$;$$", "select 2"]);
        check("select $_ü1$ ; $_ü1$; select 2", &["select $_ü1$ ; $_ü1$", "select 2"]);
        check("select $x; select 2", &["select $x", "select 2"]);
        check("select $a$ ; $A$ ; $a$; select 2", &["select $a$ ; $A$ ; $a$", "select 2"]);
        check("do $$ begin x := 'it''s'; end $$; select 2", &["do $$ begin x := 'it''s'; end $$", "select 2"]);
        check(
            "do $a$ begin execute $$ ; $$; end; $a$;select 2",
            &["do $a$ begin execute $$ ; $$; end; $a$", "select 2"],
        );
        check(
            "create function f() returns text as $body$ select $q$;$q$; $body$ language sql; select 2",
            &["create function f() returns text as $body$ select $q$;$q$; $body$ language sql", "select 2"],
        );
    }

    #[test]
    fn parentheses_end_nothing() {
        let rule = "create rule r as on insert to t do also (insert into a values (1); insert into b values (2))";
        check(&format!("{rule}; select 2"), &[rule, "select 2"]);
        check(
            "create rule r as on delete to t do instead (delete from a; delete from b;); select 2",
            &["create rule r as on delete to t do instead (delete from a; delete from b;)", "select 2"],
        );
        check("select ')'; select (1)", &["select ')'", "select (1)"]);
        check("select (')'); select (1)", &["select (')')", "select (1)"]);
        check("select 1); select 2", &["select 1)", "select 2"]);
        check("select (1; select 2", &["select (1; select 2"]);
        check("select a[1;2]; select 2", &["select a[1", "2]", "select 2"]);
    }

    #[test]
    fn sql_bodies_end_nothing() {
        let bodies = [
            "create function f() returns int begin atomic select 1; select 2; end",
            "create or replace function f(a int) returns int language sql begin atomic; select 1; end",
            "CREATE PROCEDURE p() BEGIN ATOMIC INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); END",
            "create function f() returns int begin atomic end",
            "create function f() returns int begin atomic select case when true then 1 else 2 end; end",
            "create function f() returns int begin atomic select (case when a then case b when 1 then 2 end end); end",
            "create function f() returns int begin atomic select 1 as end; select t.end from t; end",
            "create function f() returns int begin atomic select 1 end; end",
            "create function f(begin int, atomic int) returns int begin atomic select ';'; end",
            "create function f() returns int begin /* ; */ atomic -- ;\n select 1; end",
        ];
        for body in bodies {
            check(&format!("{body}; select 2"), &[body, "select 2"]);
        }
        check(
            "create function begin() returns int return 1; select 2",
            &["create function begin() returns int return 1", "select 2"],
        );
        check("begin; select 1; end; select 2", &["begin", "select 1", "end", "select 2"]);
        check("create table atomic (a int); select 2", &["create table atomic (a int)", "select 2"]);
        check(
            "create function \"begin\"() returns begin language sql as ''; select 2",
            &["create function \"begin\"() returns begin language sql as ''", "select 2"],
        );
    }

    #[test]
    fn statements_of_all_sorts() {
        check(
            "create schema s create table a (b int) create view v as select 1; select 2",
            &["create schema s create table a (b int) create view v as select 1", "select 2"],
        );
        check(
            "select a->>'x;y', b @> '{}' , c ? ';' ; select 2",
            &["select a->>'x;y', b @> '{}' , c ? ';'", "select 2"],
        );
        check(
            "select 1::int, a[1:2], 1.5e-3, .5, 0x1F; select 2",
            &["select 1::int, a[1:2], 1.5e-3, .5, 0x1F", "select 2"],
        );
        check("select 'größe'; -- ü\nselect 'ß';", &["select 'größe'", "select 'ß'"]);
        check("prepare p as select $1; execute p('; ')", &["prepare p as select $1", "execute p('; ')"]);
    }

    #[test]
    fn data_of_a_copy_is_no_sql() {
        let text = "copy t (a, b) from stdin;\n1\tit's; \\N\n-- $$\n\\.\nselect 2;";
        check(text, &["copy t (a, b) from stdin", "select 2"]);
        let Kind::CopyFromStdin { data_start, data_end } = split(text).unwrap()[0].kind else { panic!("{text}") };
        assert_eq!(&text[data_start..data_end], "1\tit's; \\N\n-- $$\n");
        check(
            "COPY t FROM STDIN WITH (FORMAT csv); -- data\r\n1\r\n\\.\r\nselect 2",
            &["COPY t FROM STDIN WITH (FORMAT csv)", "select 2"],
        );
        check("copy t from stdin;\n\\.", &["copy t from stdin"]);
        check(
            "copy t from 'stdin'; copy stdin to stdout; copy (select 1 from stdin) to '/x'",
            &["copy t from 'stdin'", "copy stdin to stdout", "copy (select 1 from stdin) to '/x'"],
        );
        check_error("select 1;\ncopy t from stdin;\n1\n", 2, "does not end");
        check_error("copy t from stdin", 1, "does not end");
        check_error("copy t from stdin; select 1;\n1\n\\.\n", 1, "more on the line");
        for binary in [
            "copy binary t from stdin;",
            "copy t from stdin with binary;",
            "copy t (a) from stdin (format binary);",
            "copy t from stdin with (freeze, FORMAT 'binary');",
        ] {
            check_error(&format!("select 1;\n{binary}\n1\n\\.\n"), 2, "binary");
        }
        check("copy t (binary) from stdin (format csv);\n1\n\\.\n", &["copy t (binary) from stdin (format csv)"]);
        check_kind("copy t to stdout", Kind::CopyToStdout);
        check_kind("copy (select 1) to stdin with (format csv)", Kind::CopyToStdout);
        check_kind("copy t to '/tmp/stdout'", Kind::Other);
    }

    #[test]
    fn data_can_be_left_out_of_a_text() {
        let text = "copy t from stdin;\r\nü'\t;\r\n\\.\r\nselect 'a';\ncopy t from stdin;\n\\.\n";
        let blanked = "copy t from stdin;\r\n     \r\n  \r\nselect 'a';\ncopy t from stdin;\n  \n";
        assert_eq!(without_data(text), blanked);
        assert_eq!(without_data("select $$"), "select $$");
        assert!(matches!(without_data("select 1"), Cow::Borrowed(_)));
    }

    #[test]
    fn what_is_never_closed_is_an_error_with_its_line() {
        check_error("select 1;\n\nselect 'a;\n", 3, "string is never closed");
        check_error(r"select E'a\';", 1, "string is never closed");
        check_error("select 1,\nE'a'\n'b\\'", 2, "string is never closed");
        check_error("select U&'a", 1, "string is never closed");
        check_error("select \"a", 1, "quoted name is never closed");
        check_error("select 1;\n/* a /* b */", 2, "comment is never closed");
        check_error("select\n$a$ ; $b$", 2, "dollar-quoted string is never closed");
    }

    #[test]
    fn commands_of_psql_are_errors_with_their_line() {
        check_error("select 1;\n\\connect other\n", 2, r"`\connect` is a command of psql");
        check_error("\\restrict abc\nselect 1;", 1, r"`\restrict`");
        check_error(r"\i other.sql", 1, r"`\i`");
        check_error("select 1;\n  \\copy t from 'a;b'", 2, r"`\copy`");
        check_error(r"select 1 \gset", 1, r"`\gset`");
        check_error("select 1;\n\\.\n", 2, r"`\.`");
        check(
            "select '\n\\connect x'; select $$\n\\i x\n$$ -- \\i\n/*\n\\i */",
            &["select '\n\\connect x'", "select $$\n\\i x\n$$"],
        );
    }

    #[test]
    fn strings_must_keep_their_meaning() {
        check_error("select 1;\nset standard_conforming_strings = off;", 2, "must stay on");
        check_error("SET LOCAL standard_conforming_strings TO 'off'", 1, "must stay on");
        check(
            "set standard_conforming_strings = on; set session standard_conforming_strings to 'ON'",
            &["set standard_conforming_strings = on", "set session standard_conforming_strings to 'ON'"],
        );
        check("select 'set standard_conforming_strings = off'", &["select 'set standard_conforming_strings = off'"]);
    }

    #[test]
    fn transaction_commands_are_told_by_their_words() {
        for plain in ["begin", "BEGIN WORK", "begin /* x */ transaction", "start transaction"] {
            check_kind(plain, Kind::Begin { plain: true });
        }
        for special in ["begin isolation level serializable", "start transaction read only", "begin work deferrable"] {
            check_kind(special, Kind::Begin { plain: false });
        }
        for plain in ["commit", "COMMIT WORK", "end", "end transaction", "commit and no chain"] {
            check_kind(plain, Kind::Commit { plain: true });
        }
        check_kind("commit and chain", Kind::Commit { plain: false });
        check_kind("rollback", Kind::Rollback);
        check_kind("abort work", Kind::Rollback);
        check_kind("rollback and chain", Kind::Rollback);
        check_kind("rollback to a", Kind::RollbackTo);
        check_kind("rollback work to savepoint a", Kind::RollbackTo);
        check_kind("savepoint a", Kind::Savepoint);
        check_kind("release a", Kind::Release);
        check_kind("prepare transaction 'x'", Kind::PrepareTransaction);
        check_kind("commit prepared 'x'", Kind::CommitPrepared);
        check_kind("rollback prepared 'x'", Kind::RollbackPrepared);
        check_kind("prepare transaction as select 1", Kind::Other);
        check_kind("\"begin\"", Kind::Other);
        check_kind("select 'begin' -- commit", Kind::Other);
        check_kind("do $$ begin commit; end $$", Kind::Other);
        check_kind("set transaction isolation level serializable", Kind::Other);
    }

    #[test]
    fn statements_that_cannot_run_in_a_transaction() {
        for text in [
            "create index concurrently i on t (a)",
            "CREATE UNIQUE /* x */ INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)",
            "create index concurrently on t (a)",
            "drop index concurrently if exists i",
            "reindex index concurrently i",
            "reindex (concurrently) table t",
            "reindex (verbose, concurrently true) index i",
            "reindex (verbose) table concurrently t",
            "reindex database d",
            "vacuum",
            "vacuum (analyze) t",
            "create database d",
            "drop database if exists d",
            "alter system set work_mem = '1GB'",
            "create tablespace s location '/x'",
            "drop tablespace s",
            "alter database d set tablespace s",
            "alter database d with tablespace s",
            "alter database d tablespace s",
            "alter table t detach partition p concurrently",
            "alter table only \"t\" detach partition p concurrently",
            "cluster",
            "cluster verbose",
            "discard all",
            "create subscription s connection 'x' publication p",
        ] {
            let kind = split(text).unwrap()[0].kind;
            assert!(matches!(kind, Kind::CannotRunInTransaction(_)), "{text}: {kind:?}");
        }
    }

    #[test]
    fn statements_that_only_look_like_it() {
        for text in [
            "create index i on t (a) where b = 'concurrently'",
            "create index i on t (a) -- concurrently",
            "create index \"concurrently\" on t (a)",
            "refresh materialized view concurrently v",
            "alter type e add value 'x'",
            "reindex table t",
            "reindex (concurrently false) table t",
            "cluster t using i",
            "alter table t detach partition p",
            "alter table t add column concurrently int",
            "discard temp",
            "alter database d set work_mem = '1GB'",
            "create subscription s connection 'x' publication p with (create_slot = false, slot_name = none)",
            "select vacuum from t",
            "comment on table t is 'vacuum; create database'",
            "analyze t",
        ] {
            check_kind(text, Kind::Other);
        }
    }

    /// One statement without an open end.
    fn statement() -> impl Strategy<Value = String> {
        let token = prop_oneof![
            "[a-z_ü][a-z0-9_$ü]{0,6}",
            "[0-9]{1,4}",
            "[ -~ü\n]{0,8}".prop_map(|text| crate::sql::quote::literal(&text)),
            "[ -~\n]{1,8}".prop_map(|text| crate::sql::quote::identifier(&text)),
            "[ -#%-~\n]{0,8}".prop_map(|text| format!("$q$ {text} $q$")),
            "[ -)+-.0-~]{0,8}".prop_map(|text| format!("/* {text} */")),
            "[ -~]{0,8}".prop_map(|text| format!("-- {text}\n")),
            "[a-z;, ]{0,8}".prop_map(|text| format!("({text})")),
            Just("= ".to_owned()),
        ];
        prop::collection::vec(token, 0..6).prop_map(|tokens| format!("select {} x", tokens.join(" ")))
    }

    /// Pieces that open, close and hide things.
    fn pieces() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "'",
            "E'",
            "\\",
            "$$",
            "$a$",
            "/*",
            "*/",
            "--",
            "\n",
            ";",
            "(",
            ")",
            "\"",
            " ",
            "begin ",
            "atomic ",
            "end ",
            "create function ",
            "copy t from stdin;\n",
            "\n\\.\n",
            "ü",
            "\u{feff}",
            "\r",
            "x",
            "\0",
        ]);
        prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = split(&text);
        }

        #[test]
        fn ranges_lie_in_the_text_and_in_order(text in pieces()) {
            let Ok(statements) = split(&text) else { return Ok(()) };
            let mut end = 0;
            for statement in statements {
                prop_assert!(end <= statement.start && statement.start < statement.end);
                prop_assert!(text.get(statement.start..statement.end).is_some());
                end = statement.end;
            }
        }

        #[test]
        fn statements_come_back(statements in prop::collection::vec(statement(), 0..5)) {
            let text = statements.join(";");
            prop_assert_eq!(texts(&text), statements.iter().map(String::as_str).collect::<Vec<_>>());
            let again = texts(&text).join(";\n");
            prop_assert_eq!(texts(&again), texts(&text));
        }
    }
}
