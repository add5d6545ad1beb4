//! Transactions and files. A migration runs in a transaction of ours, which its row in the ledger shares: nothing in the
//! file may end that transaction. A file that wraps itself in BEGIN … COMMIT keeps its meaning when the two are left out.

use crate::sql::checksum::without_bom;
use crate::sql::error::{Problem, SqlTextError};
use crate::sql::statements::{Statement, StatementKind, split};
use crate::sql::tokens::{Class, Tokens};

/// The text as it may be sent: without a byte-order mark, and with the words of a BEGIN … COMMIT around the whole file
/// overwritten by blanks, so that every other character stays where it was. Done twice, it changes nothing more.
///
/// # Errors
/// Those of [`split`] and of [`check`].
pub fn sendable(text: &str, transactional: bool) -> Result<String, SqlTextError> {
    let text = without_bom(text);
    blanked(text, &split(text)?, transactional)
}

/// [`sendable`] for a text that has been split already and has no byte-order mark.
///
/// # Errors
/// Those of [`check`].
pub fn blanked(text: &str, statements: &[Statement], transactional: bool) -> Result<String, SqlTextError> {
    check(text, statements, transactional)?;
    let mut sent = text.to_owned();
    if let (true, Some((begin, commit))) = (transactional, wrapper(statements)) {
        blank(&mut sent, begin)?;
        blank(&mut sent, commit)?;
    }
    Ok(sent)
}

/// Is there a statement besides a BEGIN … COMMIT around the whole?
#[must_use]
pub fn does_something(statements: &[Statement]) -> bool {
    statements.len() > if wrapper(statements).is_some() { 2 } else { 0 }
}

/// The first statement that the server refuses inside a transaction, and its name, if there is no BEGIN … COMMIT around the
/// whole.
#[must_use]
pub fn never_in_one(statements: &[Statement]) -> Option<(Statement, &'static str)> {
    let never = |it: &Statement| match it.kind {
        StatementKind::CannotRunInTransaction(name) => Some((*it, name)),
        _ => None,
    };
    statements.iter().find_map(never).filter(|_| wrapper(statements).is_none())
}

/// Checks that the statements may be sent in one transaction, or one by one.
///
/// # Errors
/// A transaction command other than a plain BEGIN … COMMIT around a transactional text; in such a text a statement that
/// the server refuses inside a transaction; `COPY … TO stdout`.
pub fn check(text: &str, statements: &[Statement], transactional: bool) -> Result<(), SqlTextError> {
    let inside = match wrapper(statements) {
        Some(_) if transactional => &statements[1..statements.len() - 1],
        _ => statements,
    };
    let first = inside.iter().find_map(|statement| Some((statement, problem(statement.kind, transactional)?)));
    first.map_or(Ok(()), |(statement, problem)| Err(SqlTextError::new(text, statement.start, statement.end, problem)))
}

fn problem(kind: StatementKind, transactional: bool) -> Option<Problem> {
    let command = if transactional { Problem::TransactionCommand } else { Problem::TransactionWithout };
    match kind {
        StatementKind::CannotRunInTransaction(name) => transactional.then_some(Problem::CannotRunInTransaction(name)),
        StatementKind::CopyToStdout => Some(Problem::CopyToStdout),
        kind => kind.transaction_command().map(command),
    }
}

/// A plain BEGIN as the first and a plain COMMIT as the last statement.
fn wrapper(statements: &[Statement]) -> Option<(Statement, Statement)> {
    match (statements.first()?, statements.last()?) {
        (
            begin @ Statement { kind: StatementKind::Begin { plain: true }, .. },
            commit @ Statement { kind: StatementKind::Commit { plain: true }, .. },
        ) => Some((*begin, *commit)),
        _ => None,
    }
}

/// Overwrites the words of a statement. They are keywords, hence ASCII; comments among them stay.
fn blank(text: &mut String, statement: Statement) -> Result<(), SqlTextError> {
    let words: Vec<_> = Tokens::new(&text[statement.start..statement.end]).collect::<Result<_, _>>()?;
    for word in words.iter().filter(|token| token.class == Class::Word) {
        let range = statement.start + word.start..statement.start + word.end;
        text.replace_range(range.clone(), &" ".repeat(range.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, sent: &str) {
        let found = sendable(text, true).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(found, sent, "{text}");
        assert_eq!(found.len(), without_bom(text).len(), "{text}");
        assert_eq!(sendable(&found, true).as_ref(), Ok(&found), "{text}");
    }

    #[track_caller]
    fn check_error(text: &str, transactional: bool, line: usize, part: &str) {
        let error = sendable(text, transactional).expect_err(text);
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(error.problem.to_string().contains(part), "{text}: {error}");
    }

    #[test]
    fn a_wrapper_is_blanked_where_it_stands() {
        check("BEGIN;select 1;COMMIT;", "     ;select 1;      ;");
        check("begin\nwork;\nselect 'begin';\nend", "     \n    ;\nselect 'begin';\n   ");
        check("-- ü\nSTART TRANSACTION; select 1; COMMIT WORK;", "-- ü\n                 ; select 1;            ;");
        check("BEGIN /* ü */ TRANSACTION; select 1; COMMIT;", "      /* ü */            ; select 1;       ;");
        check("\u{feff}begin; select 1; commit and no chain;", "     ; select 1;                    ;");
    }

    #[test]
    fn a_file_without_a_wrapper_is_sent_as_it_is() {
        for text in ["", "select 1;", "do $$ begin null; end $$;", "select 'begin;'; select 'commit;'", "-- begin;\n"] {
            check(text, text);
        }
    }

    #[test]
    fn other_transaction_commands_are_errors_with_their_line() {
        check_error("select 1;\ncommit;", true, 2, "COMMIT");
        check_error("begin;\nselect 1;", true, 1, "BEGIN");
        check_error("begin;\nselect 1;\ncommit;\nselect 2;", true, 1, "BEGIN");
        check_error("select 1;\nbegin;\nselect 1;\ncommit;", true, 2, "BEGIN");
        check_error("begin;\nselect 1;\nrollback;\ncommit;", true, 3, "ROLLBACK");
        check_error("begin;\nselect 1;\nrollback;", true, 1, "BEGIN");
        check_error("begin;\nselect 1;\ncommit; begin;\nselect 2;\ncommit;", true, 3, "COMMIT");
        check_error("begin isolation level serializable;\nselect 1;\ncommit;", true, 1, "BEGIN");
        check_error("begin;\nselect 1;\ncommit and chain;", true, 1, "BEGIN");
        check_error("select 1;\nsavepoint a;", true, 2, "SAVEPOINT");
        check_error("select 1;\nprepare transaction 'x';", true, 2, "PREPARE TRANSACTION");
    }

    #[test]
    fn statements_that_need_no_transaction_are_errors_in_one() {
        check_error(
            "select 1;\ncreate index concurrently i on t (a);",
            true,
            2,
            "CREATE INDEX CONCURRENTLY cannot run",
        );
        check_error("begin;\nvacuum;\ncommit;", true, 2, "VACUUM cannot run");
        assert_eq!(sendable("vacuum; select 1;", false).as_deref(), Ok("vacuum; select 1;"));
    }

    #[test]
    fn without_a_transaction_there_is_none() {
        check_error("select 1;\nbegin;\nselect 2;\ncommit;", false, 2, "BEGIN in a file without");
        check_error("begin;\nselect 2;\ncommit;", false, 1, "BEGIN in a file without");
    }

    #[test]
    fn data_may_come_in_and_not_go_out() {
        check("begin;\ncopy t from stdin;\ncommit;\n\\.\nend;", "     ;\ncopy t from stdin;\ncommit;\n\\.\n   ;");
        check("copy t from stdin;\n1\n\\.\n", "copy t from stdin;\n1\n\\.\n");
        check_error("select 1;\ncopy t to stdout;", true, 2, "nobody to take the rows");
        check_error("copy (select 1) to stdout;", false, 1, "nobody to take the rows");
    }

    #[test]
    fn a_wrapper_alone_does_nothing() {
        let does = |text| does_something(&split(text).unwrap());
        assert!(!does("") && !does("-- x") && !does("begin; commit;"));
        assert!(does("select 1") && does("begin; select 1; commit"));
    }

    proptest! {
        #[test]
        fn blanking_keeps_length_and_lines(before in "[ \n]{0,3}(-- ü[a-z]{0,3}\n)?", inside in "[a-zü\n ]{1,9}x") {
            let text = format!("{before}begin {before}work;{inside};{before}commit;");
            let sent = sendable(&text, true).unwrap();
            prop_assert_eq!(sent.len(), text.len());
            prop_assert_eq!(sent.chars().count(), text.chars().count());
            prop_assert_eq!(sent.find(&inside), text.find(&inside));
            prop_assert_eq!(sent.lines().count(), text.lines().count());
            prop_assert_eq!(split(&sent).unwrap().len(), 1);
        }
    }
}
