//! What a statement is, read off its first tokens.

use crate::sql::statements::StatementKind;
use crate::sql::tokens::{Class, Token};

/// So many tokens, outside parentheses and inside, are enough to tell what a statement is.
const KEPT: usize = 64;

/// The first tokens of a statement: enough to tell what it is, whatever its length.
pub(crate) struct Head<'a> {
    text: &'a str,
    /// Those outside parentheses.
    outer: Vec<Token>,
    /// Those inside.
    inner: Vec<Token>,
}

impl<'a> Head<'a> {
    /// A statement of `text`, of which nothing is known.
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, outer: Vec::new(), inner: Vec::new() }
    }

    /// The next token, and the number of parentheses that are open.
    pub(crate) fn push(&mut self, token: Token, depth: usize) {
        let tokens = if depth > 0 { &mut self.inner } else { &mut self.outer };
        if token.class != Class::Close && tokens.len() < KEPT {
            tokens.push(token);
        }
    }

    fn is(&self, place: usize, word: &str) -> bool {
        self.outer.get(place).is_some_and(|token| token.is_word(self.text, word))
    }

    /// The words from `place` on, `|` between alternatives.
    fn at(&self, place: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(i, word)| word.split('|').any(|word| self.is(place + i, word)))
    }

    fn starts(&self, words: &[&str]) -> bool {
        self.at(0, words)
    }

    fn text_at(&self, place: usize) -> bool {
        self.outer.get(place).is_some_and(|token| token.class == Class::Text)
    }

    fn contains(&self, words: &[&str]) -> bool {
        (0..self.outer.len()).any(|place| self.at(place, words))
    }

    fn option(&self, word: &str) -> bool {
        self.inner.iter().any(|token| token.is_word(self.text, word))
    }

    /// Nothing follows the first `place` tokens.
    fn ends(&self, place: usize) -> bool {
        self.outer.len() == place && self.inner.is_empty()
    }

    /// What the statement is. `COPY … FROM stdin` is told by [`Head::reads_stdin`].
    pub(crate) fn kind(&self) -> StatementKind {
        self.transaction_command()
            .or_else(|| self.cannot_run_in_transaction().map(StatementKind::CannotRunInTransaction))
            .or_else(|| self.writes_stdout().then_some(StatementKind::CopyToStdout))
            .unwrap_or(StatementKind::Other)
    }

    fn transaction_command(&self) -> Option<StatementKind> {
        use StatementKind as Kind;
        let noise = usize::from(self.at(1, &["WORK|TRANSACTION"])) + 1;
        let to = noise + usize::from(self.at(noise, &["TO"]));
        Some(match () {
            () if self.starts(&["BEGIN"]) => Kind::Begin { plain: self.ends(noise) },
            () if self.starts(&["START", "TRANSACTION"]) => Kind::Begin { plain: self.ends(2) },
            () if self.starts(&["COMMIT", "PREPARED"]) => Kind::CommitPrepared,
            () if self.starts(&["ROLLBACK", "PREPARED"]) => Kind::RollbackPrepared,
            () if self.starts(&["COMMIT|END"]) => {
                let no_chain = self.at(noise, &["AND", "NO", "CHAIN"]);
                Kind::Commit { plain: self.ends(if no_chain { noise + 3 } else { noise }) }
            }
            () if self.starts(&["ROLLBACK"]) && to > noise => Kind::RollbackTo,
            () if self.starts(&["ROLLBACK|ABORT"]) => Kind::Rollback,
            () if self.starts(&["SAVEPOINT"]) => Kind::Savepoint,
            () if self.starts(&["RELEASE"]) => Kind::Release,
            () if self.starts(&["PREPARE", "TRANSACTION"]) && self.text_at(2) => Kind::PrepareTransaction,
            () => return None,
        })
    }

    /// Only what the server is sure to refuse: for what depends on its state, the server has the last word.
    fn cannot_run_in_transaction(&self) -> Option<&'static str> {
        const FIXED: &[(&[&str], &str)] = &[
            (&["CREATE", "INDEX", "CONCURRENTLY"], "CREATE INDEX CONCURRENTLY"),
            (&["CREATE", "UNIQUE", "INDEX", "CONCURRENTLY"], "CREATE INDEX CONCURRENTLY"),
            (&["DROP", "INDEX", "CONCURRENTLY"], "DROP INDEX CONCURRENTLY"),
            (&["REINDEX", "SCHEMA"], "REINDEX SCHEMA"),
            (&["REINDEX", "DATABASE"], "REINDEX DATABASE"),
            (&["REINDEX", "SYSTEM"], "REINDEX SYSTEM"),
            (&["REINDEX", "INDEX|TABLE", "CONCURRENTLY"], "REINDEX CONCURRENTLY"),
            (&["VACUUM"], "VACUUM"),
            (&["CREATE", "DATABASE"], "CREATE DATABASE"),
            (&["DROP", "DATABASE"], "DROP DATABASE"),
            (&["ALTER", "SYSTEM"], "ALTER SYSTEM"),
            (&["CREATE", "TABLESPACE"], "CREATE TABLESPACE"),
            (&["DROP", "TABLESPACE"], "DROP TABLESPACE"),
            (&["DISCARD", "ALL"], "DISCARD ALL"),
        ];
        let fixed = FIXED.iter().find(|(words, _)| self.starts(words)).map(|(_, name)| *name);
        fixed.or_else(|| self.cannot_run_by_its_options())
    }

    fn cannot_run_by_its_options(&self) -> Option<&'static str> {
        let cluster_all = self.starts(&["CLUSTER"]) && self.outer.len() == 1 + usize::from(self.is(1, "VERBOSE"));
        let detach = self.starts(&["ALTER", "TABLE"]) && self.contains(&["DETACH", "PARTITION"]);
        let last_is_concurrently = self.outer.len().checked_sub(1).is_some_and(|last| self.is(last, "CONCURRENTLY"));
        match () {
            () if self.starts(&["REINDEX"]) && self.concurrently_option() => Some("REINDEX CONCURRENTLY"),
            () if cluster_all => Some("CLUSTER without a table"),
            () if detach && last_is_concurrently => Some("DETACH PARTITION CONCURRENTLY"),
            () if self.starts(&["ALTER", "DATABASE"])
                && (self.at(3, &["TABLESPACE"]) || self.at(3, &["SET|WITH", "TABLESPACE"])) =>
            {
                Some("ALTER DATABASE SET TABLESPACE")
            }
            () if self.starts(&["CREATE", "SUBSCRIPTION"])
                && !self.option("CREATE_SLOT")
                && !self.option("CONNECT") =>
            {
                Some("CREATE SUBSCRIPTION with a replication slot")
            }
            () => None,
        }
    }

    /// `(CONCURRENTLY)`, unless it is switched off. In `(verbose CONCURRENTLY)` it is the value of another option.
    fn concurrently_option(&self) -> bool {
        let text = |token: &Token| &self.text[token.start..token.end];
        let begins = |place: usize| place == 0 || matches!(text(&self.inner[place - 1]), "," | "(");
        let is_option = |place: &usize| self.inner[*place].is_word(self.text, "CONCURRENTLY") && begins(*place);
        let place = (0..self.inner.len()).rfind(is_option);
        let value = place.and_then(|place| self.inner.get(place + 1));
        place.is_some()
            && !value.is_some_and(|value| {
                let word = self.text[value.start..value.end].trim_matches('\'');
                ["false", "off", "0"].iter().any(|off| word.eq_ignore_ascii_case(off))
            })
    }

    /// `CREATE FUNCTION` or `CREATE PROCEDURE`.
    pub(crate) fn defines_a_routine(&self) -> bool {
        self.starts(&["CREATE", "FUNCTION|PROCEDURE"])
            || self.starts(&["CREATE", "OR", "REPLACE", "FUNCTION|PROCEDURE"])
    }

    /// `COPY … FROM stdin`. PostgreSQL takes STDOUT for STDIN here.
    pub(crate) fn reads_stdin(&self) -> bool {
        self.starts(&["COPY"]) && self.contains(&["FROM", "STDIN|STDOUT"])
    }

    /// Of a COPY: binary, in any of the ways in which that was ever written.
    pub(crate) fn is_binary(&self) -> bool {
        let named = |token: &Token| self.text[token.start..token.end].trim_matches('\'').eq_ignore_ascii_case("binary");
        let option = self.inner.windows(2).any(|pair| pair[0].is_word(self.text, "FORMAT") && named(&pair[1]));
        option || self.contains(&["BINARY"])
    }

    /// `COPY … TO stdout`. PostgreSQL takes STDIN for STDOUT here.
    fn writes_stdout(&self) -> bool {
        self.starts(&["COPY"]) && self.contains(&["TO", "STDOUT|STDIN"])
    }

    /// `SET standard_conforming_strings` to anything but on.
    pub(crate) fn turns_escapes_on(&self) -> bool {
        let name = 1 + usize::from(self.at(1, &["SESSION|LOCAL"]));
        let value = self.outer.get(name + 2).map(|token| self.text[token.start..token.end].trim_matches('\''));
        let on = ["on", "true", "yes", "1", "default"];
        self.starts(&["SET"])
            && self.is(name, "standard_conforming_strings")
            && !value.is_some_and(|value| on.iter().any(|word| value.eq_ignore_ascii_case(word)))
    }
}
