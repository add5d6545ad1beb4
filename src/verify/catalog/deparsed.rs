//! Text that PostgreSQL writes from a parse tree, brought into the form that reading it again leads to.

/// The properties whose text PostgreSQL writes from a parse tree. Text that people wrote (comments, the source of
/// functions) is never touched.
pub(super) const DEPARSED: [&str; 6] = ["definition", "default", "partition key", "using", "check", "where"];

/// Undoes the one known case in which PostgreSQL's own text does not mean the very same parse tree again.
///
/// `code IN ('a', 'b')` on a `varchar` is stored as a cast of the whole array and shown as
/// `(code)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying])::text[])`. When that text is read, as
/// by a restore, the parser moves the cast into the array: it is then stored, and shown, as
/// `(code)::text = ANY (ARRAY[('a'::character varying)::text, ('b'::character varying)::text])`, and stays so. The two
/// say the same of every value. The first form is rewritten into the second one, as the parser would.
pub(super) fn canonical(text: &str) -> String {
    const OPEN: &str = "(ARRAY[";
    let mut out = String::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        // `f(ARRAY[1])` is a call, and what follows it is no cast of the array.
        let called = out.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '"'));
        if !called
            && rest.starts_with(OPEN)
            && let Some((items, end)) = array_items(rest, OPEN.len())
            && let Some(cast) = rest[end..].strip_prefix(")::")
            && let Some(name_length) = array_type_name(cast)
        {
            let element_type = &cast[..name_length];
            let items: Vec<String> = items.iter().map(|it| format!("({})::{element_type}", canonical(it))).collect();
            out.push_str(&format!("ARRAY[{}]", items.join(", ")));
            at += end + ")::".len() + name_length + "[]".len();
        } else {
            let length = token_length(rest);
            out.push_str(&rest[..length]);
            at += length;
        }
    }
    out
}

/// The items of the array constructor whose items start at `start`, and where the text goes on after its bracket.
fn array_items(text: &str, start: usize) -> Option<(Vec<&str>, usize)> {
    let (mut items, mut depth, mut item, mut at) = (Vec::new(), 0_usize, start, start);
    while at < text.len() {
        match text.as_bytes()[at] {
            b']' if depth == 0 => {
                items.push(text[item..at].trim());
                return Some((items, at + 1));
            }
            b',' if depth == 0 => {
                items.push(text[item..at].trim());
                item = at + 1;
            }
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at += token_length(&text[at..]);
    }
    None
}

/// The length of a type's name that is followed by `[]`.
fn array_type_name(text: &str) -> Option<usize> {
    let mut at = 0;
    while at < text.len() {
        match text[at..].chars().next()? {
            '[' => return (at > 0 && text[at..].starts_with("[]")).then_some(at),
            c if c.is_alphanumeric() || matches!(c, '_' | '.' | ' ' | '"') => at += token_length(&text[at..]),
            _ => return None,
        }
    }
    None
}

/// A quoted string or name as a whole, and otherwise one character.
fn token_length(text: &str) -> usize {
    let first = text.chars().next().map_or(0, char::len_utf8);
    match text.as_bytes()[0] {
        // A doubled quote looks like the end of one string and the start of the next, which comes to the same.
        // PostgreSQL writes a backslash only as `E'\\'`, never before a quote.
        quote @ (b'\'' | b'"') => text[1..].find(char::from(quote)).map_or(first, |end| end + 2),
        _ => first,
    }
}

#[cfg(test)]
mod tests {
    use super::canonical;

    #[test]
    fn a_cast_of_an_array_becomes_casts_in_the_array() {
        let before =
            "CHECK (((code)::text = ANY ((ARRAY['a'::character varying, 'b, ]'::character varying])::text[])))";
        let after =
            "CHECK (((code)::text = ANY (ARRAY[('a'::character varying)::text, ('b, ]'::character varying)::text])))";
        assert_eq!(canonical(before), after);
        assert_eq!(canonical(after), after);
    }

    #[test]
    fn what_is_quoted_stays() {
        let text = "CHECK ((note <> '(ARRAY[''a''::character varying])::text[]'::text))";
        assert_eq!(canonical(text), text);
    }

    #[test]
    fn other_values_stay_different() {
        let of = |value: &str| canonical(&format!("ANY ((ARRAY['{value}'::character varying])::text[])"));
        assert_ne!(of("a"), of("b"));
        assert_ne!(of("a"), canonical("ANY ((ARRAY['a'::character varying])::citext[])"));
    }

    #[test]
    fn an_array_that_is_not_cast_stays() {
        for text in ["(ARRAY[1, 2])", "ARRAY[(ARRAY[1])::integer", "(ARRAY[1, (2)])::text", "(ARRAY["] {
            assert_eq!(canonical(text), text);
        }
    }
}
