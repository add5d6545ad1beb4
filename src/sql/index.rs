//! What a `CREATE INDEX` is about: its name, and the table; and what a `REINDEX` is about.

use std::ops::Range;

use crate::sql::tokens::{Class, Token, Tokens};

/// The places of name and table in a `CREATE INDEX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateIndex {
    /// As written; none if the server is to choose.
    pub name: Option<Range<usize>>,
    /// As written, perhaps with its schema.
    pub table: Range<usize>,
}

/// Reads `CREATE [UNIQUE] INDEX [CONCURRENTLY] [[IF NOT EXISTS] name] ON [ONLY] table …`.
#[must_use]
pub fn created(statement: &str) -> Option<CreateIndex> {
    let tokens: Vec<Token> = Tokens::new(statement).filter_map(Result::ok).filter(|it| is_solid(*it)).collect();
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|it| it.is_word(statement, word));
    let skip = |at: usize, word: &str| at + usize::from(is(at, word));
    let index = skip(skip(0, "CREATE"), "UNIQUE");
    if !is(0, "CREATE") || !is(index, "INDEX") {
        return None;
    }
    let mut at = skip(index + 1, "CONCURRENTLY");
    if is(at, "IF") && is(at + 1, "NOT") && is(at + 2, "EXISTS") {
        at += 3;
    }
    let name = (!is(at, "ON")).then(|| tokens.get(at).map(|it| it.start..it.end)).flatten();
    at += usize::from(name.is_some());
    if !is(at, "ON") {
        return None;
    }
    let first = skip(at + 1, "ONLY");
    let ends = |it: &Token| it.class == Class::Open || it.is_word(statement, "USING");
    let after = first + tokens.get(first..)?.iter().position(ends)?;
    (after > first).then(|| CreateIndex { name, table: tokens[first].start..tokens[after - 1].end })
}

/// What a `REINDEX … CONCURRENTLY` builds anew; names as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reindexed {
    /// One index.
    Index(Range<usize>),
    /// Those of a table.
    Table(Range<usize>),
    /// Those of a schema.
    Schema(Range<usize>),
    /// All.
    Database,
}

/// Reads `REINDEX [(…)] {INDEX | TABLE | SCHEMA | DATABASE} [CONCURRENTLY] [name]`. None, if it is not concurrent.
#[must_use]
pub fn reindexed(statement: &str) -> Option<Reindexed> {
    let tokens: Vec<Token> = Tokens::new(statement).filter_map(Result::ok).filter(|it| is_solid(*it)).collect();
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|it| it.is_word(statement, word));
    let concurrently = tokens.iter().any(|it| it.is_word(statement, "CONCURRENTLY"));
    let mut at = 1;
    if tokens.get(1)?.class == Class::Open {
        at += 1 + tokens[1..].iter().position(|it| it.class == Class::Close)?;
    }
    let first = at + 1 + usize::from(is(at + 1, "CONCURRENTLY"));
    let name = || Some(tokens.get(first)?.start..tokens.last()?.end);
    match () {
        () if !is(0, "REINDEX") || !concurrently => None,
        () if is(at, "INDEX") => name().map(Reindexed::Index),
        () if is(at, "TABLE") => name().map(Reindexed::Table),
        () if is(at, "SCHEMA") => name().map(Reindexed::Schema),
        () if is(at, "DATABASE") => Some(Reindexed::Database),
        () => None,
    }
}

fn is_solid(token: Token) -> bool {
    !matches!(token.class, Class::Space | Class::LineComment | Class::BlockComment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(statement: &str, name: Option<&str>, table: &str) {
        let found = created(statement).unwrap_or_else(|| panic!("{statement}"));
        assert_eq!(found.name.map(|it| &statement[it]), name, "{statement}");
        assert_eq!(&statement[found.table], table, "{statement}");
    }

    #[test]
    fn name_and_table_are_read() {
        check("create index concurrently i on t (a)", Some("i"), "t");
        check(
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS \"I x\" ON ONLY s.\"T\" USING gin (a)",
            Some("\"I x\""),
            "s.\"T\"",
        );
        check("create index concurrently on t(a)", None, "t");
        check("create index /* on x */ concurrently i -- on y\n on \"on\" . t (a)", Some("i"), "\"on\" . t");
        check("create index concurrently \"on\" on t (lower(a)) where b is not null", Some("\"on\""), "t");
    }

    #[test]
    fn what_is_built_anew_is_read() {
        let text = |statement: &str| match reindexed(statement)? {
            Reindexed::Index(it) => Some(format!("index {}", &statement[it])),
            Reindexed::Table(it) => Some(format!("table {}", &statement[it])),
            Reindexed::Schema(it) => Some(format!("schema {}", &statement[it])),
            Reindexed::Database => Some("database".to_owned()),
        };
        assert_eq!(text("reindex index concurrently s.\"I x\"").as_deref(), Some("index s.\"I x\""));
        assert_eq!(text("REINDEX (verbose, concurrently) TABLE t").as_deref(), Some("table t"));
        assert_eq!(text("reindex (tablespace x) schema concurrently s").as_deref(), Some("schema s"));
        assert_eq!(text("reindex database concurrently").as_deref(), Some("database"));
        assert_eq!(text("reindex table t"), None);
        assert_eq!(text("vacuum"), None);
    }

    #[test]
    fn nothing_else_is_taken_for_one() {
        for other in
            ["", "create table t (a int)", "drop index concurrently i", "create index", "create index i on", "x"]
        {
            assert_eq!(created(other), None, "{other}");
        }
    }
}
