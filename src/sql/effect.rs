//! What a statement that runs outside a transaction leaves, as far as that can be asked for afterwards.

use std::ops::Range;

use crate::sql::statements::StatementKind;
use crate::sql::tokens::{Class, Token, Tokens};

/// How one can tell afterwards whether a statement took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// By the index that it makes, concurrently.
    CreatesIndex,
    /// By the index that it drops, concurrently; the place of its name.
    DropsIndex(Range<usize>),
    /// It does not matter: to run it again does no harm.
    Repeatable,
    /// Nothing tells.
    Unknown,
}

/// The effect of a statement of this kind.
#[must_use]
pub fn of(statement: &str, kind: StatementKind) -> Effect {
    let StatementKind::CannotRunInTransaction(name) = kind else { return Effect::Unknown };
    let words = Words::of(statement);
    let if_exists = words.has(&["IF", "EXISTS"]);
    match name {
        "CREATE INDEX CONCURRENTLY" => Effect::CreatesIndex,
        "DROP INDEX CONCURRENTLY" if !if_exists => words.dropped().map_or(Effect::Unknown, Effect::DropsIndex),
        "DROP DATABASE" | "DROP TABLESPACE" if !if_exists => Effect::Unknown,
        "CREATE DATABASE" | "CREATE TABLESPACE" => Effect::Unknown,
        "DETACH PARTITION CONCURRENTLY" | "CREATE SUBSCRIPTION with a replication slot" => Effect::Unknown,
        _ => Effect::Repeatable,
    }
}

/// Whether the statement cannot share a transaction with another one: the server refuses, or it may end transactions by
/// itself, as procedures and DO blocks may.
#[must_use]
pub fn stands_alone(statement: &str, kind: StatementKind) -> bool {
    let words = Words::of(statement);
    matches!(kind, StatementKind::CannotRunInTransaction(_)) || words.starts(&["CALL"]) || words.starts(&["DO"])
}

/// Whether the statement says how the session goes on: `SET`, `RESET`, `SELECT set_config(…)`. A session that takes over
/// has to say it again.
#[must_use]
pub fn sets_the_session(statement: &str) -> bool {
    let words = Words::of(statement);
    let passing = ["LOCAL", "TRANSACTION", "CONSTRAINTS"].iter().any(|word| words.is(1, word));
    let set_config = words.starts(&["SELECT", "set_config"])
        || (words.starts(&["SELECT", "pg_catalog"]) && words.is(3, "set_config"));
    (words.starts(&["SET"]) && !passing) || words.starts(&["RESET"]) || (set_config && words.is_one_call())
}

/// The tokens of a statement, without blanks and comments.
struct Words<'a> {
    text: &'a str,
    tokens: Vec<Token>,
}

impl<'a> Words<'a> {
    fn of(text: &'a str) -> Self {
        let blank = |it: &Token| matches!(it.class, Class::Space | Class::LineComment | Class::BlockComment);
        Self { text, tokens: Tokens::new(text).filter_map(Result::ok).filter(|it| !blank(it)).collect() }
    }

    fn is(&self, at: usize, word: &str) -> bool {
        self.tokens.get(at).is_some_and(|it| it.is_word(self.text, word))
    }

    fn at(&self, at: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(i, word)| self.is(at + i, word))
    }

    fn starts(&self, words: &[&str]) -> bool {
        self.at(0, words)
    }

    fn has(&self, words: &[&str]) -> bool {
        (0..self.tokens.len()).any(|at| self.at(at, words))
    }

    /// Nothing stands behind the first parentheses, and no call within.
    fn is_one_call(&self) -> bool {
        let count = |class| self.tokens.iter().filter(|it| it.class == class).count();
        count(Class::Open) == 1 && self.tokens.last().is_some_and(|it| it.class == Class::Close)
    }

    /// The name in `DROP INDEX CONCURRENTLY name`.
    fn dropped(&self) -> Option<Range<usize>> {
        let mut names = self.tokens.get(3..)?;
        while let [rest @ .., last] = names
            && (last.is_word(self.text, "CASCADE") || last.is_word(self.text, "RESTRICT"))
        {
            names = rest;
        }
        Some(names.first()?.start..names.last()?.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::statements::split;

    fn kind(statement: &str) -> StatementKind {
        split(statement).unwrap()[0].kind
    }

    #[track_caller]
    fn check(statement: &str, effect: &Effect) {
        assert_eq!(of(statement, kind(statement)), *effect, "{statement}");
    }

    #[test]
    fn effects_are_told_by_the_words() {
        check("create unique index concurrently if not exists i on t (a)", &Effect::CreatesIndex);
        check("drop index concurrently a.\"I x\" cascade", &Effect::DropsIndex(24..31));
        check("drop index concurrently -- i\n i", &Effect::DropsIndex(30..31));
        for repeatable in [
            "drop index concurrently if exists i",
            "vacuum full t",
            "reindex (concurrently) table t",
            "reindex database d",
            "cluster",
            "alter system set work_mem = '1GB'",
            "drop database if exists d",
        ] {
            check(repeatable, &Effect::Repeatable);
        }
        for unknown in [
            "create database d",
            "drop database d",
            "alter table t detach partition p concurrently",
            "call p()",
            "insert into t values (1)",
            "create table if not exists t ()",
        ] {
            check(unknown, &Effect::Unknown);
        }
    }

    #[test]
    fn some_statements_stand_alone() {
        for alone in ["vacuum", "call p()", "do $$ begin commit; end $$", "/* x */ DO 'begin end'"] {
            assert!(stands_alone(alone, kind(alone)), "{alone}");
        }
        for shared in ["select 1", "create table call (a int)", "copy t from stdin;\n\\.", "alter type t add value 'x'"]
        {
            assert!(!stands_alone(shared, kind(shared)), "{shared}");
        }
    }

    #[test]
    fn a_session_is_set_by_few_words() {
        for sets in [
            "set search_path = a",
            "SET ROLE x",
            "reset all",
            "select pg_catalog.set_config('a', '', false)",
            "select set_config('a','b',false)",
        ] {
            assert!(sets_the_session(sets), "{sets}");
        }
        for passes in [
            "set local role x",
            "set transaction read only",
            "set constraints all deferred",
            "select 1",
            "select set_config('a', 'b', false), f()",
            "select set_config('a', f(), false)",
            "update t set a = 1",
        ] {
            assert!(!sets_the_session(passes), "{passes}");
        }
    }
}
