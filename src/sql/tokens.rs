//! PostgreSQL's tokens with their places. The lexer is squawk's; added here are the string that goes on after a line end
//! (its second part follows the rules of the first, so `E'a'` with `'\''` below it is one string), the errors for what is
//! never closed, and the way past the data of a COPY. `fuzz/` compares it with PostgreSQL's own scanner.

use squawk_lexer::{LiteralKind, TokenKind};

use crate::sql::error::{Problem, SqlTextError};

/// As much of a token's kind as cutting a text into statements needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// White space.
    Space,
    /// `-- …`, without the line end.
    LineComment,
    /// `/* … */`.
    BlockComment,
    /// A keyword or an unquoted name.
    Word,
    /// A string constant of any form.
    Text,
    /// `;`
    Semi,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `\`, which only psql understands.
    Backslash,
    /// Anything else.
    Other,
}

/// A token and its place.
#[derive(Debug, Clone, Copy)]
pub struct Token {
    /// Its first byte.
    pub start: usize,
    /// The byte after it.
    pub end: usize,
    /// What it is.
    pub class: Class,
}

impl Token {
    /// Is it the keyword `word`?
    pub fn is_word(self, text: &str, word: &str) -> bool {
        self.class == Class::Word && text[self.start..self.end].eq_ignore_ascii_case(word)
    }
}

/// The tokens of a text.
pub struct Tokens<'a> {
    text: &'a str,
    at: usize,
    lexer: Box<dyn Iterator<Item = squawk_lexer::Token> + 'a>,
}

impl<'a> Tokens<'a> {
    /// The tokens of `text`.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, lexer: Box::new(squawk_lexer::tokenize(text)) }
    }

    /// Goes on at byte `at`.
    pub fn seek(&mut self, at: usize) {
        self.at = at;
        self.lexer = Box::new(squawk_lexer::tokenize(&self.text[at..]));
    }

    /// Goes past the further parts of a string that ends here.
    fn continue_string(&mut self, rules: Rules) -> bool {
        let mut end = self.at;
        while let Some(quote) = continuation(self.text, end) {
            let Some(closed) = string_end(self.text, quote, rules) else { return false };
            end = closed;
        }
        if end > self.at {
            self.seek(end);
        }
        true
    }

    fn read(&mut self, token: squawk_lexer::Token) -> Result<Token, SqlTextError> {
        let start = self.at;
        self.at += token.len as usize;
        let fail = |what| SqlTextError::new(self.text, start, self.text.len(), Problem::Unterminated(what));
        if let Some(what) = unterminated(token.kind) {
            return Err(fail(what));
        }
        if is_stray_dollar(token.kind, &self.text[start..self.at]) {
            self.seek(start + 1);
            return Ok(Token { start, end: self.at, class: Class::Other });
        }
        let rules = Rules::of(token.kind);
        if rules == Rules::Bits
            && let Some(end) = string_end(self.text, start + 2, rules)
        {
            // The lexer goes on at a second quote.
            self.seek(end);
        }
        let class = class(token.kind, start, &self.text[start..self.at]);
        let quoted = class == Class::Text && self.text[..self.at].ends_with('\'');
        if quoted && !self.continue_string(rules) {
            return Err(fail("string"));
        }
        Ok(Token { start, end: self.at, class })
    }
}

impl Iterator for Tokens<'_> {
    type Item = Result<Token, SqlTextError>;

    fn next(&mut self) -> Option<Self::Item> {
        let token = self.lexer.next()?;
        Some(self.read(token))
    }
}

/// What stands for itself in a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    /// All but a quote, which is doubled.
    Plain,
    /// As in plain ones, and a backslash takes the next character with it: `E'…'`.
    Escapes,
    /// All; a quote ends it: `B'…'`, `X'…'`.
    Bits,
}

impl Rules {
    fn of(kind: TokenKind) -> Self {
        match kind {
            TokenKind::Literal { kind: LiteralKind::EscStr { .. } } => Self::Escapes,
            TokenKind::Literal { kind: LiteralKind::BitStr { .. } | LiteralKind::ByteStr { .. } } => Self::Bits,
            _ => Self::Plain,
        }
    }
}

/// A dollar sign that begins neither a string nor a parameter stands by itself: in `$E'\\''` a string follows it.
fn is_stray_dollar(kind: TokenKind, text: &str) -> bool {
    !matches!(kind, TokenKind::Literal { .. })
        && text.strip_prefix('$').is_some_and(|rest| rest.starts_with(|c: char| !c.is_ascii_digit()))
}

fn class(kind: TokenKind, start: usize, text: &str) -> Class {
    match kind {
        // The lexer takes a byte-order mark for white space wherever it is started; PostgreSQL takes it for a letter.
        TokenKind::Whitespace if start > 0 && text.starts_with('\u{feff}') => Class::Other,
        TokenKind::Whitespace => Class::Space,
        TokenKind::LineComment => Class::LineComment,
        TokenKind::BlockComment { .. } => Class::BlockComment,
        TokenKind::Ident => Class::Word,
        TokenKind::Semi => Class::Semi,
        TokenKind::OpenParen => Class::Open,
        TokenKind::CloseParen => Class::Close,
        TokenKind::Unknown if text == "\\" => Class::Backslash,
        TokenKind::Literal { kind: LiteralKind::Int { .. } | LiteralKind::Numeric { .. } } => Class::Other,
        TokenKind::Literal { .. } => Class::Text,
        _ => Class::Other,
    }
}

/// What is never closed, if the token is.
fn unterminated(kind: TokenKind) -> Option<&'static str> {
    match kind {
        TokenKind::BlockComment { terminated: false } => Some("comment"),
        TokenKind::QuotedIdent { terminated: false, .. } => Some("quoted name"),
        TokenKind::Literal { kind } => match kind {
            LiteralKind::DollarQuotedString { terminated: false } => Some("dollar-quoted string"),
            LiteralKind::Str { terminated: false }
            | LiteralKind::NationalStr { terminated: false }
            | LiteralKind::ByteStr { terminated: false }
            | LiteralKind::BitStr { terminated: false }
            | LiteralKind::UnicodeEscStr { terminated: false }
            | LiteralKind::EscStr { terminated: false } => Some("string"),
            _ => None,
        },
        _ => None,
    }
}

/// The byte after the quote with which the string that ended at `end` goes on: past blanks and line comments, with a line
/// end among them.
fn continuation(text: &str, end: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut newline) = (end, false);
    loop {
        match bytes.get(at)? {
            b'\n' | b'\r' => newline = true,
            b' ' | b'\t' | 0x0b | 0x0c => {}
            b'-' if bytes.get(at + 1) == Some(&b'-') => {
                at += text[at..].find(['\n', '\r'])?;
                continue;
            }
            b'\'' if newline => return Some(at + 1),
            _ => return None,
        }
        at += 1;
    }
}

/// The byte after the quote that closes the string whose content starts at `from`.
fn string_end(text: &str, from: usize, rules: Rules) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = from;
    loop {
        match bytes.get(at)? {
            b'\\' if rules == Rules::Escapes => at += 2,
            b'\'' if rules != Rules::Bits && bytes.get(at + 1) == Some(&b'\'') => at += 2,
            b'\'' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The strings and words of a text.
    #[track_caller]
    fn check(text: &str, expected: &[(Class, &str)]) {
        let tokens: Vec<Token> = Tokens::new(text).collect::<Result<_, _>>().unwrap();
        let found: Vec<_> = tokens
            .iter()
            .filter(|token| token.class != Class::Space)
            .map(|token| (token.class, &text[token.start..token.end]))
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn an_escape_string_goes_on_by_its_own_rules() {
        check("E'a'\n'b\\'c'", &[(Class::Text, "E'a'\n'b\\'c'")]);
        check("E'a' -- it's\n 'b\\'' x", &[(Class::Text, "E'a' -- it's\n 'b\\''"), (Class::Word, "x")]);
        check("E'a'\n'b'\n'c\\'d'", &[(Class::Text, "E'a'\n'b'\n'c\\'d'")]);
        check("E'a' 'b'", &[(Class::Text, "E'a'"), (Class::Text, "'b'")]);
        check("'a'\n'b\\'", &[(Class::Text, "'a'\n'b\\'")]);
        check("U&'a' -- it's\n 'b' x", &[(Class::Text, "U&'a' -- it's\n 'b'"), (Class::Word, "x")]);
        check("-- 'a'\n'b\\'", &[(Class::LineComment, "-- 'a'"), (Class::Text, "'b\\'")]);
        check(
            "E'a'\n/* no */ 'b\\'",
            &[(Class::Text, "E'a'"), (Class::BlockComment, "/* no */"), (Class::Text, "'b\\'")],
        );
        check("E'a'\n'ü\\ü'x", &[(Class::Text, "E'a'\n'ü\\ü'"), (Class::Word, "x")]);
    }

    #[test]
    fn a_letter_before_a_quote_is_a_prefix_only_by_itself() {
        check("type'a\\'", &[(Class::Word, "type"), (Class::Text, "'a\\'")]);
        check("U&'\\0041'", &[(Class::Text, "U&'\\0041'")]);
        check("b'''' x", &[(Class::Text, "b''"), (Class::Text, "''"), (Class::Word, "x")]);
        check("X'1'\n'F'''", &[(Class::Text, "X'1'\n'F'"), (Class::Text, "''")]);
        check("$E'\\''", &[(Class::Other, "$"), (Class::Text, "E'\\''")]);
        check("N'a'", &[(Class::Text, "N'a'")]);
        check("a$$b$$", &[(Class::Word, "a$$b$$")]);
        check("$1$$b$$", &[(Class::Other, "$1"), (Class::Text, "$$b$$")]);
    }

    proptest! {
        #[test]
        fn tokens_cover_the_text(text in "[eE]?[a-z'\\\\\n $\";(){}*/\u{feff}ü-]{0,40}") {
            let mut at = 0;
            for token in Tokens::new(&text) {
                let Ok(token) = token else { return Ok(()) };
                prop_assert_eq!(token.start, at);
                prop_assert!(text.get(token.start..token.end).is_some_and(|it| !it.is_empty()));
                at = token.end;
            }
            prop_assert_eq!(at, text.len());
        }
    }
}
