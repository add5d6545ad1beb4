//! A session that goes through several migrations is for each of them as if it were new.

use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::outside::postgres::only;

/// Makes the role of the connection current again.
pub(super) const OURSELVES: &str = "RESET SESSION AUTHORIZATION; RESET ROLE;";

/// What a migration may leave in a session that takes long to look for, and what we keep there ourselves. Locks of the session's own
/// (`pg_advisory_lock` and its like) are given back by a query, and statements that were prepared go with ours, which writes
/// ledger rows: a small migration takes a server up to a tenth longer then. It is done where a migration, or a function that
/// one may call, has a word for it.
#[derive(Debug, Clone, Copy)]
pub struct Leftovers {
    locks: bool,
    statements: bool,
    /// Whether the statement that writes ledger rows is prepared.
    pub(super) prepared: bool,
}

impl Leftovers {
    /// Asks for the functions of the database; those below 16384 are the server's own. Of one whose body the server keeps parsed
    /// (`BEGIN ATOMIC`), there is no text: it may take a lock, and cannot prepare a statement.
    pub const QUERY: &str = "select coalesce(bool_or(prosrc ilike '%advisory%' or prosrc = ''), false), \
         coalesce(bool_or(prosrc ~* 'prepare|deallocate|discard'), false) from pg_catalog.pg_proc where oid >= 16384";

    /// From the answer to [`Leftovers::QUERY`], of a session that is new.
    ///
    /// # Errors
    /// It is none.
    pub fn read(answer: &[PgRow]) -> Result<Self, sqlx::Error> {
        let row = only(answer)?;
        Ok(Self { locks: row.try_get(0)?, statements: row.try_get(1)?, prepared: false })
    }

    /// There may be any of them, whatever was answered.
    pub(crate) fn expect(&mut self) {
        *self = Self { locks: true, statements: true, prepared: false };
    }

    /// A text that is about to go through the session.
    pub(super) fn meet(&mut self, text: &str) {
        self.locks = self.locks || has_one_of(text, &[b"advisory"]);
        self.statements = self.statements || has_one_of(text, &[b"prepare", b"deallocate", b"discard"]);
        self.prepared &= !self.statements;
    }

    /// Whether no migration prepares statements, so that ours may stay.
    pub(super) fn may_prepare(self) -> bool {
        !self.statements
    }

    /// What DISCARD ALL does, which itself cannot share a message: cursors, roles, settings, prepared statements, temporary tables,
    /// nothing that an earlier migration left in the session is there for the next. It is a transaction of its own, since a
    /// transaction keeps the isolation level with which it began.
    pub(super) fn as_new(self) -> String {
        let unlock = if self.locks { "SELECT pg_catalog.pg_advisory_unlock_all(); " } else { "" };
        let deallocate = if self.prepared { "" } else { "DEALLOCATE ALL; " };
        format!(
            "BEGIN; CLOSE ALL; {OURSELVES} RESET ALL; {deallocate}UNLISTEN *; {unlock}DISCARD TEMP; DISCARD SEQUENCES; COMMIT;\n"
        )
    }
}

/// Whether one of the words stands in the text, in whatever letters.
fn has_one_of(text: &str, words: &[&[u8]]) -> bool {
    let text = text.as_bytes();
    (0..text.len()).any(|at| {
        let here = |word: &&[u8]| {
            text[at].eq_ignore_ascii_case(&word[0])
                && text[at..].get(..word.len()).is_some_and(|it| it.eq_ignore_ascii_case(word))
        };
        words.iter().any(here)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_taken_away_where_there_may_be_some() {
        let after = |texts: &[&str]| {
            let mut it = Leftovers { locks: false, statements: false, prepared: true };
            texts.iter().for_each(|text| it.meet(text));
            let sent = it.as_new();
            (sent.contains("pg_advisory_unlock_all"), sent.contains("DEALLOCATE ALL"))
        };
        assert_eq!(after(&["select 1", "", "create table advisor (prepar int)"]), (false, false));
        assert_eq!(after(&["select PG_Advisory_Lock(1)", "select 1"]), (true, false));
        assert_eq!(after(&["Prepare p as select 1", "select 1"]), (false, true));
        assert_eq!(after(&["select 1", "discard all"]), (false, true));
    }
}
