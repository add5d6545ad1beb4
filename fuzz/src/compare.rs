//! Two readings of one text, compared. Each function ends with the first disagreement, in words, or with nothing.

use crate::postgres::{self, Piece};
use crate::sql::error::Problem;
use crate::sql::statements::{Statement, StatementKind, split};
use crate::sql::tokens::{Class, Token, Tokens};

/// The tokens of a text, by both. PostgreSQL's scanner may refuse what we let pass for the server to refuse, as a number
/// with letters at its end; it may not see another string, comment, word or semicolon in a text that it takes.
pub fn tokens(text: &str) -> Result<(), String> {
    let ours: Result<Vec<Token>, _> = Tokens::new(text).collect();
    match (postgres::tokens(text), ours) {
        (Ok(theirs), Ok(ours)) => same(text, &told(&theirs), &told(&pieces(&ours))),
        (Ok(_), Err(error)) => Err(format!("PostgreSQL scans it, and we say: {error}")),
        (Err(message), Ok(_)) if message.contains("unterminated") => {
            Err(format!("we scan it, and PostgreSQL says: {message}"))
        }
        (Err(_), _) => Ok(()),
    }
}

fn pieces(tokens: &[Token]) -> Vec<Piece> {
    let piece = |it: &Token| Piece { start: it.start, end: it.end, class: it.class };
    tokens.iter().filter(|it| it.class != Class::Space).map(piece).collect()
}

/// The pieces but for operators, numbers and quoted names: we take an operator character by character, and where a number
/// ends matters to nobody here. Were a quoted name cut elsewhere, what follows it would be.
fn told(pieces: &[Piece]) -> Vec<Piece> {
    pieces.iter().copied().filter(|it| it.class != Class::Other).collect()
}

fn same(text: &str, theirs: &[Piece], ours: &[Piece]) -> Result<(), String> {
    let Some(at) = (0..theirs.len().max(ours.len())).find(|at| theirs.get(*at) != ours.get(*at)) else { return Ok(()) };
    let show = |it: Option<&Piece>| it.map(|it| (it.class, it.start, short(&text[it.start..it.end])));
    Err(format!("PostgreSQL's token is {:?}, and ours {:?}", show(theirs.get(at)), show(ours.get(at))))
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

/// What holds of every text: the statements come in order, start and end between characters, and what lies between them is
/// blank, comment, semicolon or the data of a COPY. An error has a place, too.
pub fn places(text: &str) -> Result<(), String> {
    match split(text) {
        Ok(statements) => ordered(text, &statements).and_then(|()| covered(text, &statements)),
        Err(error) if text.get(error.start..error.end).is_none() => Err(format!("the place of {error:?}")),
        Err(_) => Ok(()),
    }
}

fn ordered(text: &str, statements: &[Statement]) -> Result<(), String> {
    let mut at = 0;
    for it in statements {
        if it.start < at || text.get(it.start..it.end).is_none_or(str::is_empty) {
            return Err(format!("the place of {it:?} after {at}"));
        }
        at = end_of(it);
        if text.get(it.end..at).is_none() {
            return Err(format!("the data of {it:?}"));
        }
    }
    Ok(())
}

fn end_of(statement: &Statement) -> usize {
    match statement.kind {
        StatementKind::CopyFromStdin { data_end, .. } => data_end,
        _ => statement.end,
    }
}

fn covered(text: &str, statements: &[Statement]) -> Result<(), String> {
    let ends = statements.iter().map(end_of);
    let starts = statements.iter().map(|it| it.start).chain([text.len()]);
    for ((from, to), copied) in
        [0].into_iter().chain(ends).zip(starts).zip([false].into_iter().chain(copies(statements)))
    {
        // The line `\.` of a COPY.
        let between =
            if copied { text[from..to].strip_prefix("\\.").unwrap_or(&text[from..to]) } else { &text[from..to] };
        let something = Tokens::new(between).find_map(|token| {
            let (token, first) = (token.ok()?, from == 0);
            let nothing = matches!(token.class, Class::Space | Class::LineComment | Class::BlockComment | Class::Semi);
            let mark = first && token.start == 0 && between.starts_with('\u{feff}');
            (!nothing && !mark).then_some(token)
        });
        if let Some(token) = something {
            return Err(format!("{:?} belongs to no statement", short(&between[token.start..])));
        }
    }
    Ok(())
}

fn copies(statements: &[Statement]) -> impl Iterator<Item = bool> {
    statements.iter().map(|it| matches!(it.kind, StatementKind::CopyFromStdin { .. }))
}

/// The statements of a text that PostgreSQL's grammar takes as a whole, by both; whether there was anything to compare.
pub fn statements(text: &str) -> Result<bool, String> {
    let Some(theirs) = postgres::statements(text) else { return Ok(false) };
    let ours = match split(text) {
        Ok(ours) => ours,
        // Refused for a reason that the server would not have.
        Err(error) if is_ours(&error.problem) => return Ok(false),
        Err(error) => return Err(format!("PostgreSQL parses it, and we say: {error}")),
    };
    // The grammar knows nothing of data between statements.
    if copies(&ours).any(|it| it) {
        return Ok(false);
    }
    let places: Vec<_> = ours.iter().map(|it| (it.start, it.end)).collect();
    if places != theirs {
        return Err(format!("PostgreSQL's statements are {theirs:?}, and ours {places:?}"));
    }
    ours.iter().try_for_each(|it| kind(&text[it.start..it.end], it.kind))?;
    Ok(true)
}

fn is_ours(problem: &Problem) -> bool {
    use Problem::{CopyBinary, CopyLine, CopyUnterminated, EscapesInPlainStrings};
    matches!(problem, EscapesInPlainStrings | CopyUnterminated | CopyLine | CopyBinary)
}

/// What a statement is, by both. Statements that PostgreSQL's grammar refuses are not compared.
pub fn kind(statement: &str, ours: StatementKind) -> Result<(), String> {
    let ours = match ours {
        StatementKind::CopyFromStdin { .. } => StatementKind::CopyFromStdin { data_start: 0, data_end: 0 },
        kind => kind,
    };
    match postgres::kind(statement) {
        Some(theirs) if theirs != ours => {
            Err(format!("to PostgreSQL it is {theirs:?}, and to us {ours:?}: {}", short(statement)))
        }
        _ => Ok(()),
    }
}
