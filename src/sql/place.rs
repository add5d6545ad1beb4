//! Places in a text: byte offsets, lines and columns, and PostgreSQL's character positions.

/// The line and the column of a byte, both from 1, the column in characters. An offset past the end is the end; one
/// inside a character is that character's.
#[must_use]
pub fn line_column(text: &str, byte_offset: usize) -> (usize, usize) {
    let mut at = byte_offset.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The byte at which the character stands that PostgreSQL reports as `P`, counted in characters from 1. A position past
/// the end is the end.
#[must_use]
pub fn char_to_byte(text: &str, char_position: usize) -> usize {
    text.char_indices().nth(char_position.saturating_sub(1)).map_or(text.len(), |(byte, _)| byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, byte_offset: usize, expected: (usize, usize)) {
        assert_eq!(line_column(text, byte_offset), expected, "{text:?} at {byte_offset}");
    }

    #[test]
    fn lines_and_columns_start_at_one_and_count_characters() {
        check("", 0, (1, 1));
        check("abc", 0, (1, 1));
        check("abc", 2, (1, 3));
        check("abc", 99, (1, 4));
        check("a\nb", 1, (1, 2));
        check("a\nb", 2, (2, 1));
        check("a\r\nb", 3, (2, 1));
        check("äö\nüx", 4, (1, 3));
        check("äö\nüx", 7, (2, 2));
        check("ä", 1, (1, 1));
    }

    #[test]
    fn positions_of_the_server_become_bytes() {
        assert_eq!(char_to_byte("select ä, x", 11), 11);
        assert_eq!(char_to_byte("select", 1), 0);
        assert_eq!(char_to_byte("select", 0), 0);
        assert_eq!(char_to_byte("ä", 2), 2);
        assert_eq!(char_to_byte("ä", 3), 2);
    }

    proptest! {
        #[test]
        fn any_place_in_any_text(text in any::<String>(), at in 0_usize..200) {
            let (line, column) = line_column(&text, at);
            prop_assert!(line >= 1 && column >= 1);
            prop_assert!(text.is_char_boundary(char_to_byte(&text, at)));
        }
    }
}
