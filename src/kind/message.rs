//! What is sent to the server for a migration: one message, or several where the data of a COPY stands between them; and
//! where in the file it failed, if it did.

use std::ops::Range;

use futures::TryStreamExt;
use sqlx::PgConnection;
use sqlx::postgres::PgErrorPosition;

use super::blockers::Blocker;
use crate::crash;
use crate::outside::postgres::{Said, database_error, made};
use crate::sql::statements::{self, Statement, StatementKind};

/// SQL states after which the same transaction may succeed: a lock not had in time, a deadlock, a serialisation failure.
const WORTH_ANOTHER_TRY: [&str; 3] = ["55P03", "40P01", "40001"];
/// The settings by which the server reads the next message: it reads all of one before any of it has an effect.
pub(super) const READABLE: &str = "RESET standard_conforming_strings; RESET backslash_quote; RESET client_encoding;";
/// Data is handed on in pieces of this size.
const PIECE: usize = 64 * 1024;

/// What is sent of a text.
pub(super) struct Message<'a> {
    text: &'a str,
    pieces: Vec<Piece>,
}

enum Piece {
    /// A part of the text, with what is ours around it.
    Sql { before: String, body: Range<usize>, after: String },
    /// A COPY and its data.
    Copy { statement: Range<usize>, data: Range<usize> },
}

impl<'a> Message<'a> {
    /// The whole text between statements of ours.
    pub(super) fn whole(text: &'a str, before: &str, after: &str) -> Self {
        Self::cut(text, 0..text.len(), &statements::split(text).unwrap_or_default(), before, after)
    }

    /// One statement of the text, with its data if it has some, between statements of ours.
    pub(super) fn one(text: &'a str, it: Statement, before: &str, after: &str) -> Self {
        let end = match it.kind {
            StatementKind::CopyFromStdin { data_end, .. } => statements::after_line(text, data_end),
            _ => it.end,
        };
        Self::cut(text, it.start..end, &[it], before, after)
    }

    /// Where a COPY has its data in the text, what comes before it is a message of its own.
    fn cut(text: &'a str, range: Range<usize>, statements: &[Statement], before: &str, after: &str) -> Self {
        let (mut pieces, mut from, mut before) = (Vec::new(), range.start, before.to_owned());
        for it in statements {
            let StatementKind::CopyFromStdin { data_start, data_end } = it.kind else { continue };
            // A file that changes how its bytes are read means those behind this message, and they are UTF-8.
            pieces.push(Piece::Sql {
                before: std::mem::take(&mut before),
                body: from..it.start,
                after: format!("\n;\n{READABLE}"),
            });
            pieces.push(Piece::Copy { statement: it.start..it.end, data: data_start..data_end });
            from = statements::after_line(text, data_end);
        }
        pieces.push(Piece::Sql { before, body: from..range.end, after: after.to_owned() });
        Self { text, pieces }
    }

    /// The text that it is sent of.
    pub(super) fn text(&self) -> &str {
        self.text
    }

    /// Sends one piece after the other, each when the one before it is done.
    pub(super) async fn send(&self, session: &mut PgConnection) -> Result<(), Failed> {
        for (piece, it) in self.pieces.iter().enumerate() {
            let mut completed = 0;
            let sent = match it {
                Piece::Sql { before, body, after } => {
                    run(session, format!("{before}{}{after}", &self.text[body.clone()]), &mut completed).await
                }
                Piece::Copy { statement, data } => {
                    copy(session, &self.text[statement.clone()], &self.text[data.clone()]).await
                }
            };
            if let Err(error) = sent {
                return Err(Failed {
                    error,
                    piece,
                    completed,
                    blockers: Vec::new(),
                    left: String::new(),
                    left_something: false,
                });
            }
        }
        Ok(())
    }

    /// The byte of the text at which it failed: the position that the server gives, else the statement that did not
    /// complete. None, if it was a statement of ours.
    pub(super) fn place(&self, failed: &Failed) -> Option<usize> {
        match self.pieces.get(failed.piece)? {
            Piece::Copy { statement, data } => {
                let in_data = failed.line_of_data().and_then(|line| self.line(data, line));
                let position = failed.position().map_or(0, |at| char_to_byte(&self.text[statement.clone()], at));
                Some(in_data.unwrap_or(statement.start + position))
            }
            Piece::Sql { before, body, after } => {
                let text = &self.text[body.clone()];
                let by_position = failed.position().and_then(|at| (at - 1).checked_sub(before.chars().count()));
                let by_position = by_position.map(|chars| char_to_byte(text, chars + 1)).filter(|at| *at < text.len());
                let found = by_position.or_else(|| by_statement(before, text, after, failed.completed))?;
                Some(body.start + found)
            }
        }
    }

    /// The first byte of a line of some data, from 1.
    fn line(&self, data: &Range<usize>, line: usize) -> Option<usize> {
        let (mut at, mut left) = (data.start, line.checked_sub(1)?);
        while left > 0 && at < data.end {
            (at, left) = (statements::after_line(self.text, at), left - 1);
        }
        (at < data.end).then_some(at)
    }
}

fn char_to_byte(text: &str, position: usize) -> usize {
    statements::char_to_byte(text, position)
}

/// The statement of `text` that did not complete. Behind it stands what is ours; a COMMIT that fails there does so for what
/// the text did, as with a deferred constraint, and no statement of it can be told from another.
fn by_statement(before: &str, text: &str, after: &str, completed: usize) -> Option<usize> {
    let theirs = statements::split(text).unwrap_or_default();
    let at = completed.checked_sub(count(before))?;
    let failed_at_commit = after.ends_with("COMMIT;") && at + 1 == theirs.len() + count(after);
    let found = theirs.get(at).or_else(|| theirs.last().filter(|_| failed_at_commit));
    found.map(|it| it.start)
}

fn count(text: &str) -> usize {
    statements::split(text).map_or(0, |them| them.len())
}

async fn run(session: &mut PgConnection, text: String, completed: &mut usize) -> Result<(), sqlx::Error> {
    crash::point("message before", &text);
    let mut results = sqlx::raw_sql(made(text)).fetch_many(session);
    while let Some(result) = results.try_next().await? {
        *completed += usize::from(result.is_left());
    }
    crash::point("message after", "");
    Ok(())
}

async fn copy(session: &mut PgConnection, statement: &str, data: &str) -> Result<(), sqlx::Error> {
    crash::point("rows before", statement);
    let mut sink = session.copy_in_raw(statement).await?;
    for piece in data.as_bytes().chunks(PIECE) {
        sink.send(piece).await?;
    }
    let done = sink.finish().await.map(drop);
    crash::point("rows after", statement);
    done
}

/// Whether the same transaction may succeed if it is tried again.
pub(super) fn worth_another_try(error: &sqlx::Error) -> bool {
    database_error(error).is_some_and(|said| WORTH_ANOTHER_TRY.contains(&said.code()))
}

/// A message that failed.
pub(super) struct Failed {
    error: sqlx::Error,
    /// Which piece of it.
    piece: usize,
    /// So many statements of the piece are done.
    completed: usize,
    pub(super) blockers: Vec<Blocker>,
    /// What it left, in a sentence.
    pub(super) left: String,
    /// Whether that is still there.
    pub(super) left_something: bool,
}

impl Failed {
    pub(super) fn is_lost(&self) -> bool {
        // An administrator's command ends the session after the server has said so.
        database_error(&self.error).is_none_or(|said| said.code().starts_with("57P"))
    }

    /// With those who were seen in the way.
    pub(super) fn with(self, blockers: Vec<Blocker>) -> Self {
        Self { blockers, ..self }
    }

    /// A message that does not parse begins nothing.
    pub(super) fn began(&self) -> bool {
        self.piece > 0 || self.completed > 0
    }

    pub(super) fn worth_another_try(&self) -> bool {
        worth_another_try(&self.error)
    }

    pub(super) fn state(&self) -> Option<&str> {
        database_error(&self.error).map(sqlx::postgres::PgDatabaseError::code)
    }

    pub(super) fn said(&self) -> Said {
        Said::from(&self.error)
    }

    /// From 1, in characters of the whole piece.
    fn position(&self) -> Option<usize> {
        match database_error(&self.error)?.position()? {
            PgErrorPosition::Original(at) if at > 0 => Some(at),
            _ => None,
        }
    }

    /// The line of the data, from 1, by the context that the server gives.
    fn line_of_data(&self) -> Option<usize> {
        let context = database_error(&self.error)?.r#where()?;
        context.lines().filter_map(|line| line_of_copy(line.strip_prefix("COPY ")?)).next_back()
    }
}

/// The number in `t, line 3, column a: "x"`, whatever the server's language calls a line.
fn line_of_copy(context: &str) -> Option<usize> {
    let after_commas = context.match_indices(", ").map(|(at, comma)| &context[at + comma.len()..]);
    let number = |text: &str| {
        let (word, rest) = text.split_once(' ')?;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        word.chars().all(char::is_alphabetic).then(|| digits.parse().ok())?
    };
    after_commas.filter_map(number).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces of a text between `B;` and `;A;`.
    #[track_caller]
    fn check(text: &str, pieces: &[&str]) {
        let show = |piece: &Piece| match piece {
            Piece::Sql { before, body, after } => format!("{before}{}{after}", &text[body.clone()]),
            Piece::Copy { statement, data } => format!("{}<{}", &text[statement.clone()], &text[data.clone()]),
        };
        let found = Message::whole(text, "B;", ";A;");
        let found: Vec<String> = found.pieces.iter().map(show).collect();
        let pieces: Vec<String> = pieces.iter().map(|it| it.replace('R', &format!("\n;\n{READABLE}"))).collect();
        assert_eq!(found, pieces, "{text}");
    }

    #[test]
    fn a_text_is_one_message_but_for_the_data_in_it() {
        check("select 1;\nselect 2", &["B;select 1;\nselect 2;A;"]);
        check(
            "select 1;\ncopy t from stdin;\n1\n2\n\\.\nselect 2;",
            &["B;select 1;\nR", "copy t from stdin<1\n2\n", "select 2;;A;"],
        );
        check(
            "copy t from stdin;\r\n1\r\n\\.\r\ncopy u from stdin;\n\\.",
            &["B;R", "copy t from stdin<1\r\n", "R", "copy u from stdin<", ";A;"],
        );
    }

    #[test]
    fn one_statement_of_a_text_is_sent_alone() {
        let text = "copy t from stdin;\n1\n\\.\nselect 'ü';\ncopy u from stdin;\n2\n\\.\n";
        let statements = statements::split(text).unwrap();
        let pieces = |at: usize| Message::one(text, statements[at], "", "").pieces.len();
        assert_eq!([pieces(0), pieces(1), pieces(2)], [3, 1, 3]);
    }

    #[test]
    fn the_line_of_some_data_is_read_in_any_language() {
        assert_eq!(line_of_copy("t, line 3, column a: \"1, line 7\""), Some(3));
        assert_eq!(line_of_copy("t, line 12"), Some(12));
        assert_eq!(line_of_copy("t, line 12: \"x\""), Some(12));
        assert_eq!(line_of_copy("t, Zeile 4, Spalte a: »x«"), Some(4));
        assert_eq!(line_of_copy("t"), None);
        assert_eq!(line_of_copy("t, line x"), None);
    }

    #[test]
    fn a_failure_is_at_the_statement_that_did_not_complete() {
        let at =
            |completed| by_statement("BEGIN; SET x = 1;", "select 1;\nselect 2", "\n;UPDATE x; COMMIT;", completed);
        assert_eq!([at(0), at(1)], [None, None]);
        assert_eq!([at(2), at(3)], [Some(0), Some(10)]);
        assert_eq!(at(4), None, "the statement is ours");
        assert_eq!(at(5), Some(10), "what was deferred to the end");
    }

    #[test]
    fn lines_of_data_have_their_places() {
        let text = "copy t from stdin;\n1\nü\n3\n\\.\n";
        let message = Message::whole(text, "", "");
        assert_eq!(message.line(&(19..26), 1), Some(19));
        assert_eq!(message.line(&(19..26), 3), Some(24));
        assert_eq!(message.line(&(19..26), 4), None);
        assert_eq!(message.line(&(19..26), 0), None);
    }
}
