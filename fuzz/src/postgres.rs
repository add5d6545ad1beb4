//! What PostgreSQL makes of a text.

use pg_query::NodeEnum;
use pg_query::protobuf::{DiscardMode, Node, ReindexObjectType, Token, TransactionStmtKind as Transaction};

use crate::sql::statements::StatementKind;
use crate::sql::tokens::Class;

/// A token, by the classes that `migrate` has, and its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Its first byte.
    pub start: usize,
    /// The byte after it.
    pub end: usize,
    /// What it is.
    pub class: Class,
}

/// The tokens of a text; none if PostgreSQL's scanner refuses it, with what it says.
pub fn tokens(text: &str) -> Result<Vec<Piece>, String> {
    let scanned = pg_query::scan(text).map_err(|error| error.to_string())?;
    let place = |at: i32| usize::try_from(at).expect("a place in a text is not negative");
    let mut tokens: Vec<Piece> = Vec::with_capacity(scanned.tokens.len());
    for it in scanned.tokens {
        let (start, end) = (place(it.start), place(it.end));
        let class = class(Token::try_from(it.token).ok(), &text[start..end]);
        // `N'…'` is the word NCHAR and a string to PostgreSQL, and one string to us.
        let national = class == Class::Text && tokens.last().is_some_and(|it| is_national(text, *it, start));
        // PostgreSQL says of `$1a` that there is junk after the parameter; `pg_query`, whose scanner is changed here, takes it.
        let junk = begins_name(&text[start..end]) && tokens.last().is_some_and(|it| is_parameter(text, *it, start));
        if junk && class != Class::Word {
            // Where `$1B'…'` and `$1U&"…"` go on, only a scanner that takes them knows.
            return Err("trailing junk after parameter".into());
        } else if junk && let Some(parameter) = tokens.last_mut() {
            parameter.end = end;
        } else if national && let Some(prefix) = tokens.last_mut() {
            (prefix.end, prefix.class) = (end, Class::Text);
        } else {
            tokens.push(Piece { start, end, class });
        }
    }
    Ok(tokens)
}

fn is_parameter(text: &str, token: Piece, next: usize) -> bool {
    let digits = text[token.start..token.end].strip_prefix('$').unwrap_or_default();
    token.end == next && digits.starts_with(|c: char| c.is_ascii_digit())
}

fn is_national(text: &str, token: Piece, next: usize) -> bool {
    token.end == next && text[token.start..token.end].eq_ignore_ascii_case("n")
}

/// Some characters that no statement has, such as `{`, are tokens without a name.
fn class(token: Option<Token>, text: &str) -> Class {
    match token {
        Some(Token::SqlComment) => Class::LineComment,
        Some(Token::CComment) => Class::BlockComment,
        Some(Token::Sconst | Token::Usconst | Token::Bconst | Token::Xconst) => Class::Text,
        Some(Token::Ascii40) => Class::Open,
        Some(Token::Ascii41) => Class::Close,
        Some(Token::Ascii59) => Class::Semi,
        Some(Token::Ascii92) => Class::Backslash,
        _ if begins_name(text) && !text.ends_with('"') => Class::Word,
        _ => Class::Other,
    }
}

fn begins_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii())
}

/// The statements of a text, blanks and comments around them left out; none if PostgreSQL's grammar refuses it.
pub fn statements(text: &str) -> Option<Vec<(usize, usize)>> {
    let parts = pg_query::split_with_parser(text).ok()?;
    let tokens = tokens(text).ok()?;
    let within = |part: &str| {
        let start = part.as_ptr() as usize - text.as_ptr() as usize;
        let inside = |it: &&Piece| {
            let comment = matches!(it.class, Class::LineComment | Class::BlockComment);
            it.start >= start && it.end <= start + part.len() && !comment
        };
        let mut inside = tokens.iter().filter(inside);
        let first = inside.next()?;
        Some((first.start, inside.next_back().unwrap_or(first).end))
    };
    Some(parts.into_iter().filter_map(within).collect())
}

/// What a statement is to PostgreSQL, in our words; none if it is not one statement. The places of the data of a COPY are
/// not PostgreSQL's business: they are zero.
pub fn kind(statement: &str) -> Option<StatementKind> {
    let parsed = pg_query::parse(statement, pg_query::ParserOptions::default()).ok()?;
    let [raw] = parsed.protobuf.stmts.as_slice() else { return None };
    match raw.stmt.as_ref()?.node.as_ref()? {
        // The answer has no name for a file both without one and for `FROM ''`, which is a file that cannot be opened.
        NodeEnum::CopyStmt(it) if it.filename.is_empty() && copies_a_file(statement)? => Some(StatementKind::Other),
        node => Some(kind_of(node)),
    }
}

/// Whether a name stands where a COPY would say STDIN or STDOUT.
fn copies_a_file(copy: &str) -> Option<bool> {
    let scanned = pg_query::scan(copy).ok()?;
    let mut depth = 0;
    let mut tokens = scanned.tokens.iter().filter_map(|it| Token::try_from(it.token).ok()).filter(|token| {
        depth += i32::from(*token == Token::Ascii40) - i32::from(*token == Token::Ascii41);
        depth == 0 && !matches!(token, Token::SqlComment | Token::CComment)
    });
    tokens.find(|token| matches!(token, Token::From | Token::To))?;
    Some(matches!(tokens.next(), Some(Token::Sconst | Token::Usconst)))
}

fn kind_of(node: &NodeEnum) -> StatementKind {
    use StatementKind as Kind;
    match node {
        NodeEnum::TransactionStmt(it) => match it.kind() {
            Transaction::TransStmtBegin | Transaction::TransStmtStart => Kind::Begin { plain: it.options.is_empty() },
            Transaction::TransStmtCommit => Kind::Commit { plain: !it.chain },
            Transaction::TransStmtRollback => Kind::Rollback,
            Transaction::TransStmtSavepoint => Kind::Savepoint,
            Transaction::TransStmtRelease => Kind::Release,
            Transaction::TransStmtRollbackTo => Kind::RollbackTo,
            Transaction::TransStmtPrepare => Kind::PrepareTransaction,
            Transaction::TransStmtCommitPrepared => Kind::CommitPrepared,
            Transaction::TransStmtRollbackPrepared => Kind::RollbackPrepared,
            Transaction::Undefined => Kind::Other,
        },
        NodeEnum::CopyStmt(it) if !it.is_program && it.filename.is_empty() => match it.is_from {
            true => Kind::CopyFromStdin { data_start: 0, data_end: 0 },
            false => Kind::CopyToStdout,
        },
        node => cannot_run_in_transaction(node).map_or(Kind::Other, Kind::CannotRunInTransaction),
    }
}

/// The statements for which PostgreSQL's `utility.c` and the commands themselves call `PreventInTransactionBlock`, as far
/// as the statement alone decides.
fn cannot_run_in_transaction(node: &NodeEnum) -> Option<&'static str> {
    match node {
        NodeEnum::IndexStmt(it) if it.concurrent => Some("CREATE INDEX CONCURRENTLY"),
        NodeEnum::DropStmt(it) if it.concurrent => Some("DROP INDEX CONCURRENTLY"),
        NodeEnum::VacuumStmt(it) if it.is_vacuumcmd => Some("VACUUM"),
        NodeEnum::CreatedbStmt(_) => Some("CREATE DATABASE"),
        NodeEnum::DropdbStmt(_) => Some("DROP DATABASE"),
        NodeEnum::AlterSystemStmt(_) => Some("ALTER SYSTEM"),
        NodeEnum::CreateTableSpaceStmt(_) => Some("CREATE TABLESPACE"),
        NodeEnum::DropTableSpaceStmt(_) => Some("DROP TABLESPACE"),
        NodeEnum::DiscardStmt(it) if it.target() == DiscardMode::DiscardAll => Some("DISCARD ALL"),
        NodeEnum::ClusterStmt(it) if it.relation.is_none() => Some("CLUSTER without a table"),
        NodeEnum::ReindexStmt(it) => match it.kind() {
            ReindexObjectType::ReindexObjectSchema => Some("REINDEX SCHEMA"),
            ReindexObjectType::ReindexObjectDatabase => Some("REINDEX DATABASE"),
            ReindexObjectType::ReindexObjectSystem => Some("REINDEX SYSTEM"),
            _ => switched_on(&it.params, "concurrently").then_some("REINDEX CONCURRENTLY"),
        },
        NodeEnum::AlterTableStmt(it) => it.cmds.iter().find_map(|command| match command.node.as_ref()? {
            NodeEnum::AlterTableCmd(command) => match command.def.as_ref()?.node.as_ref()? {
                NodeEnum::PartitionCmd(it) if it.concurrent => Some("DETACH PARTITION CONCURRENTLY"),
                _ => None,
            },
            _ => None,
        }),
        NodeEnum::CreateSubscriptionStmt(it)
            if !names(&it.options).any(|name| matches!(name, "connect" | "create_slot")) =>
        {
            Some("CREATE SUBSCRIPTION with a replication slot")
        }
        NodeEnum::AlterDatabaseStmt(it) if names(&it.options).next() == Some("tablespace") => {
            Some("ALTER DATABASE SET TABLESPACE")
        }
        _ => None,
    }
}

fn names(options: &[Node]) -> impl Iterator<Item = &str> {
    options.iter().filter_map(|option| match option.node.as_ref()? {
        NodeEnum::DefElem(it) => Some(it.defname.as_str()),
        _ => None,
    })
}

/// As `defGetBoolean` of PostgreSQL reads it.
fn switched_on(options: &[Node], name: &str) -> bool {
    let on = |value: &Option<Box<Node>>| match value.as_ref().and_then(|it| it.node.as_ref()) {
        Some(NodeEnum::String(it)) => !["false", "off"].iter().any(|off| it.sval.eq_ignore_ascii_case(off)),
        Some(NodeEnum::Boolean(it)) => it.boolval,
        Some(NodeEnum::Integer(it)) => it.ival != 0,
        _ => true,
    };
    let last = options.iter().rev().find_map(|option| match option.node.as_ref()? {
        NodeEnum::DefElem(it) if it.defname == name => Some(on(&it.arg)),
        _ => None,
    });
    last.unwrap_or(false)
}
