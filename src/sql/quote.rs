//! Values and names written into SQL, and table names as typed in a plan.

use std::fmt;

/// The longest name that PostgreSQL keeps whole, in bytes.
const NAME_LIMIT: usize = 63;

/// A string constant, read as the same text whatever `standard_conforming_strings` says.
///
/// ```
/// assert_eq!(migrate::sql::quote::literal("it's"), "'it''s'");
/// ```
#[must_use]
pub fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if text.contains('\\') {
        // The blank keeps the E from growing into a word before it.
        return format!(" E'{}'", doubled.replace('\\', r"\\"));
    }
    format!("'{doubled}'")
}

/// A quoted name.
#[must_use]
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A table as PostgreSQL knows it. Displayed, it is quoted and ready for a statement.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// The schema, if one was named; otherwise `search_path` decides.
    pub schema: Option<String>,
    /// The table.
    pub name: String,
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{}.", identifier(schema))?;
        }
        f.write_str(&identifier(&self.name))
    }
}

/// Why a text is not a table name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a table name: {rule}")]
pub struct TableNameError {
    text: String,
    rule: &'static str,
}

/// Reads `table`, `schema.table` or `"Quoted".table` as PostgreSQL would: what is not quoted becomes lower case.
///
/// # Errors
/// The rule that `text` breaks.
pub fn table(text: &str) -> Result<TableName, TableNameError> {
    let fail = |rule| TableNameError { text: text.to_owned(), rule };
    let (first, rest) = part(text).map_err(fail)?;
    let Some(rest) = rest.strip_prefix('.') else {
        return if rest.is_empty() { Ok(TableName { schema: None, name: first }) } else { Err(fail(PLAIN)) };
    };
    let (name, rest) = part(rest).map_err(fail)?;
    match rest.chars().next() {
        None => Ok(TableName { schema: Some(first), name }),
        Some('.') => Err(fail("it has more parts than a schema and a table")),
        Some(_) => Err(fail(PLAIN)),
    }
}

const PLAIN: &str = "an unquoted name holds letters, digits, `_` and `$`, and starts with a letter or `_`; put others into double quotes";

/// The first name of `text`, and what follows it.
fn part(text: &str) -> Result<(String, &str), &'static str> {
    let (name, rest) = match text.strip_prefix('"') {
        Some(quoted) => quoted_part(quoted)?,
        None => plain_part(text)?,
    };
    if name.len() > NAME_LIMIT {
        return Err("a name of more than 63 bytes is cut off by PostgreSQL");
    }
    Ok((name, rest))
}

fn plain_part(text: &str) -> Result<(String, &str), &'static str> {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii();
    let end = text.find(|c: char| !(letter(c) || c.is_ascii_digit() || c == '$')).unwrap_or(text.len());
    if !text.starts_with(letter) {
        return Err(PLAIN);
    }
    Ok((text[..end].to_ascii_lowercase(), &text[end..]))
}

fn quoted_part(text: &str) -> Result<(String, &str), &'static str> {
    let (mut name, mut rest) = (String::new(), text);
    loop {
        let at = rest.find('"').ok_or("its quote is not closed")?;
        name.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(after) = rest.strip_prefix('"') else { break };
        name.push('"');
        rest = after;
    }
    match name.as_str() {
        "" => Err("a quoted name is empty"),
        name if name.contains('\0') => Err("it holds a NUL character"),
        _ => Ok((name, rest)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(typed: &str, expected: Result<&str, &str>) {
        match (table(typed), expected) {
            (Ok(name), Ok(quoted)) => assert_eq!(name.to_string(), quoted, "{typed:?}"),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{typed:?}: {error}"),
            (got, expected) => panic!("{typed:?}: {got:?}, not {expected:?}"),
        }
    }

    #[test]
    fn tables_are_read_as_postgresql_reads_them() {
        check("users", Ok(r#""users""#));
        check("Users", Ok(r#""users""#));
        check("app.Users", Ok(r#""app"."users""#));
        check(r#""Quoted".name"#, Ok(r#""Quoted"."name""#));
        check(r#"app."User's table""#, Ok(r#""app"."User's table""#));
        check(r#""a""b"."c.d""#, Ok(r#""a""b"."c.d""#));
        check("_x$1", Ok(r#""_x$1""#));
        check("größe", Ok(r#""größe""#));
        check("user", Ok(r#""user""#));
    }

    #[test]
    fn what_is_no_table_is_refused() {
        for plain in ["", "1a", "a b", "a-b", " a", "a ", "a.", ".a", "a. b", "a;drop table b", "$a", "a'b"] {
            check(plain, Err("unquoted name"));
        }
        check("a.b.c", Err("more parts"));
        check(r#""a"#, Err("not closed"));
        check(r#""""#, Err("is empty"));
        check(r#"a."""#, Err("is empty"));
        check("\"a\0b\"", Err("NUL"));
        check(&"x".repeat(64), Err("63 bytes"));
    }

    #[test]
    fn literals_hold_their_text() {
        assert_eq!(literal("plain"), "'plain'");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\b"), r" E'a\\b'");
        assert_eq!(literal(r"\'; drop table x; --"), r" E'\\''; drop table x; --'");
        assert_eq!(literal(""), "''");
    }

    #[test]
    fn identifiers_hold_their_name() {
        assert_eq!(identifier("a"), r#""a""#);
        assert_eq!(identifier(r#"a"b"#), r#""a""b""#);
    }

    proptest! {
        #[test]
        fn quoted_names_come_back(schema in "[^\0]{1,15}", name in "[^\0]{1,15}") {
            let typed = format!("{}.{}", identifier(&schema), identifier(&name));
            prop_assert_eq!(table(&typed), Ok(TableName { schema: Some(schema), name }));
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = table(&text);
        }

        #[test]
        fn a_literal_is_one_token(text in "[^\0]*") {
            let quoted = literal(&text);
            let kinds: Vec<_> = squawk_lexer::tokenize(quoted.trim_start()).collect();
            prop_assert_eq!(kinds.len(), 1, "{}", quoted);
        }
    }
}
