//! PostgreSQL's regression tests (`fuzz/regress/`), read by us and by PostgreSQL's own parser.

use std::fs;
use std::path::Path;

use migrate_fuzz::sql::error::Problem;
use migrate_fuzz::sql::statements::{Statement, StatementKind, split};
use migrate_fuzz::sql::tokens::Class;
use migrate_fuzz::{compare, postgres};

/// What was compared.
#[derive(Debug, Default)]
struct Counted {
    files: usize,
    /// Lines that are for psql alone.
    psql: usize,
    /// Tokens that PostgreSQL's scanner finds.
    tokens: usize,
    statements: usize,
    /// Statements that PostgreSQL's grammar takes: the others are there to be refused, or hold a variable of psql.
    parsed: usize,
    /// Statements of which PostgreSQL's grammar has one that begins and ends there.
    agreed: usize,
}

/// Where we differ, and mean to: a part of the disagreement's text, and why.
const KNOWN: &[(&str, &str, &str)] = &[
    ("copy2.sql", "the data of a binary COPY cannot stand in a file of SQL", BINARY),
    ("plpgsql.sql", "line 3776: standard_conforming_strings must stay on", OFF),
    ("strings.sql", "line 53: standard_conforming_strings must stay on", OFF),
    ("strings.sql", "line 825: standard_conforming_strings must stay on", OFF),
    ("strings.sql", "line 838: standard_conforming_strings must stay on", OFF),
    ("strings.sql", "line 847: standard_conforming_strings must stay on", OFF),
];
const BINARY: &str = "`COPY … FROM stdin (FORMAT binary)` is refused: its data has no line that would end it";
const OFF: &str =
    "`SET standard_conforming_strings = off` is refused: a scanner that does not run it misreads what follows";

#[test]
fn postgresql_reads_its_regression_tests_as_we_do() {
    let (mut counted, mut found) = (Counted::default(), Vec::new());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regress");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|it| it == "sql"));
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Ok(text) = String::from_utf8(fs::read(&path).unwrap()) else {
            // `migrate` refuses such a file before it reads any SQL.
            assert_eq!(name, "collate.windows.win1252.sql", "no UTF-8");
            continue;
        };
        counted.files += 1;
        found.extend(read(&text, &mut counted).into_iter().map(|it| format!("{name}: {it}")));
    }
    let known = |it: &str| KNOWN.iter().position(|(file, part, _)| it.starts_with(file) && it.contains(part));
    let new: Vec<_> = found.iter().filter(|it| known(it).is_none()).collect();
    println!("{counted:?}, {} disagreements", found.len());
    assert!(new.is_empty(), "{} new:\n{}", new.len(), new.iter().map(|it| format!("{it}\n")).collect::<String>());
    let gone: Vec<_> = (0..KNOWN.len()).filter(|at| !found.iter().any(|it| known(it) == Some(*at))).collect();
    assert!(gone.is_empty(), "no longer there: {:?}", gone.iter().map(|at| KNOWN[*at]).collect::<Vec<_>>());
    assert!(counted.files > 200 && counted.parsed > 40_000, "{counted:?}");
}

/// One file: first as psql would send it, then by both.
fn read(text: &str, counted: &mut Counted) -> Vec<String> {
    let mut found = Vec::new();
    let (text, statements) = for_the_server(text, counted, &mut found);
    found.extend(compare::places(&text).err());
    let sent = without_data(&text, &statements);
    found.extend(compare::tokens(&sent).err());
    // Of a text that PostgreSQL's scanner refuses somewhere, statement by statement.
    let whole = postgres::tokens(&sent).map(|tokens| counted.tokens += tokens.len()).is_ok();
    counted.statements += statements.len();
    for (at, statement) in statements.iter().enumerate() {
        let one = &text[statement.start..statement.end];
        found.extend(compare::kind(one, statement.kind).err());
        if !whole {
            counted.tokens += postgres::tokens(one).map_or(0, |tokens| tokens.len());
            found.extend(compare::tokens(one).err());
        }
        match postgres::statements(one).as_deref() {
            Some([whole]) if *whole == (0, one.len()) => {
                counted.parsed += 1;
                counted.agreed += 1;
            }
            Some(theirs) => {
                counted.parsed += 1;
                found.push(format!("one statement of ours is {theirs:?} to PostgreSQL: {one}"));
            }
            None => found.extend(cut_too_often(&text, &statements[at..])),
        }
    }
    found
}

/// Statements that PostgreSQL refuses one by one, and takes together.
fn cut_too_often(text: &str, statements: &[Statement]) -> Option<String> {
    let start = statements[0].start;
    statements.iter().skip(1).take(8).find_map(|last| {
        let joined = &text[start..last.end];
        let one = postgres::statements(joined).is_some_and(|theirs| theirs == [(0, joined.len())]);
        one.then(|| format!("one statement of PostgreSQL's is several to us: {joined}"))
    })
}

/// Leaves out what psql keeps to itself: its commands, from the backslash to the end of the line. A command ends the
/// statement before it or sends it, so that a semicolon takes its place. That it is a command, and no character of a
/// string, PostgreSQL's scanner has to confirm.
fn for_the_server(text: &str, counted: &mut Counted, found: &mut Vec<String>) -> (String, Vec<Statement>) {
    let mut text = text.to_owned();
    loop {
        let error = match split(&text) {
            Ok(statements) => return (text, statements),
            Err(error) => error,
        };
        let (start, end) = match error.problem {
            Problem::PsqlCommand(_) => {
                counted.psql += 1;
                if !is_backslash(&text, error.start) {
                    found.push(format!("{error}: PostgreSQL sees no backslash there"));
                }
                (error.start, text[error.start..].find('\n').map_or(text.len(), |at| error.start + at))
            }
            _ => {
                found.push(error.to_string());
                (error.start, error.end)
            }
        };
        text.replace_range(start..end, &format!(";{}", " ".repeat(end - start - 1)));
    }
}

/// Is the byte at `at` a backslash to PostgreSQL's scanner? It is asked from the start of the text, and where something
/// before is refused on purpose, from the last statement on, or from its end.
fn is_backslash(text: &str, at: usize) -> bool {
    let statements = split(&text[..at]).unwrap_or_default();
    let last = statements.last().map(|it| [it.start, it.end]);
    [0].into_iter().chain(last.into_iter().flatten()).any(|from| {
        let tokens = postgres::tokens(&text[from..=at]).unwrap_or_default();
        tokens.last().is_some_and(|it| from + it.start == at && it.class == Class::Backslash)
    })
}

/// The text with the data of every COPY blanked: PostgreSQL's scanner is never shown them.
fn without_data(text: &str, statements: &[Statement]) -> String {
    let mut text = text.to_owned();
    for statement in statements {
        if let StatementKind::CopyFromStdin { data_start, data_end } = statement.kind {
            let end = text[data_end..].find('\n').map_or(text.len(), |at| data_end + at);
            text.replace_range(data_start..end, &" ".repeat(end - data_start));
        }
    }
    text
}
