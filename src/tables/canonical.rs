//! A canonical text for every value, so that equal values are equal text whatever type either side gives them. Pure.
//!
//! The text is made by the server under [`CANONICAL_SETTINGS`](super::end::CANONICAL_SETTINGS): moments in UTC,
//! numbers without trailing zeros, JSON in the order of jsonb.

use crate::sql::quote::identifier;
use crate::tables::shape::Column;

/// What values of a type can be equal to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Integer,
    Numeric,
    Float,
    Date,
    Timestamp,
    TimestampTz,
    Json,
    Uuid,
    Other,
}

fn family(column: &Column) -> Family {
    match column.base.as_str() {
        "int2" | "int4" | "int8" => Family::Integer,
        "numeric" => Family::Numeric,
        "float4" | "float8" => Family::Float,
        "date" => Family::Date,
        "timestamp" => Family::Timestamp,
        "timestamptz" => Family::TimestampTz,
        "json" | "jsonb" => Family::Json,
        "uuid" => Family::Uuid,
        _ => Family::Other,
    }
}

/// The expression that writes `own` so that it can be compared with `other`, the column of the other side.
pub(super) fn text(own: &Column, other: &Column) -> String {
    let name = identifier(&own.name);
    match (family(own), family(other)) {
        (Family::Numeric, _) => format!("trim_scale({name})::text"),
        // By way of the shortest text that gives the same float again: this is what a copy carries.
        (Family::Float, _) => format!("trim_scale({name}::text::numeric)::text"),
        (Family::Timestamp, _) | (Family::Date, Family::Timestamp | Family::TimestampTz) => {
            format!("{name}::timestamptz::text")
        }
        (Family::Json, _) => format!("{name}::jsonb::text"),
        // The server writes a uuid in lower case; people do not.
        (Family::Other, Family::Uuid) => format!("lower({name}::text COLLATE \"C\")"),
        _ => format!("{name}::text"),
    }
}

/// One text for several canonical texts: quoted, so that no two rows share one, and NULL is not the empty string.
pub(super) fn row(texts: &[String]) -> String {
    // A function takes 100 arguments at most, while a table may have 1600 columns.
    let groups: Vec<String> = texts.chunks(90).map(group).collect();
    if groups.is_empty() { "''".to_owned() } else { groups.join(" || ',' || ") }
}

fn group(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| format!("quote_nullable({text})")).collect();
    format!("concat_ws(',', {})", quoted.join(", "))
}

/// MD5 of one text for several canonical texts, over the same bytes whatever the encoding of the database.
pub(super) fn digest(texts: &[String]) -> String {
    format!("md5(convert_to({}, 'UTF8'))", row(texts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::shape::Identity;

    fn column(base: &str) -> Column {
        let (name, base) = ("x".to_owned(), base.to_owned());
        Column { name, base, not_null: false, generated: false, identity: Identity::No, default: false }
    }

    #[test]
    fn a_uuid_and_its_text_are_written_alike() {
        let (uuid, words) = (column("uuid"), column("text"));
        assert_eq!(text(&uuid, &words), r#""x"::text"#);
        assert_eq!(text(&words, &uuid), r#"lower("x"::text COLLATE "C")"#);
        assert_eq!(text(&words, &words), r#""x"::text"#);
    }

    #[test]
    fn a_date_is_a_moment_only_beside_a_moment() {
        assert_eq!(text(&column("date"), &column("date")), r#""x"::text"#);
        assert_eq!(text(&column("date"), &column("timestamptz")), r#""x"::timestamptz::text"#);
    }

    #[test]
    fn many_columns_do_not_exceed_the_arguments_of_a_function() {
        let texts: Vec<String> = (0..200).map(|at| format!("c{at}")).collect();
        assert_eq!(row(&texts).matches("concat_ws").count(), 3);
        assert_eq!(row(&[]), "''");
    }
}
