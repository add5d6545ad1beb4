//! One table of the plan into one struct, with serde's and toml's errors put into words for people: which key of which
//! table, what stands there, what belongs there, and which words were possible.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeValue, ValueDeserializer};

use super::problem::{PlanError, Problem, Source};

/// Reads the table `value`, which messages call `place`.
pub(super) fn read<T: DeserializeOwned>(
    source: &Source,
    place: &str,
    value: Spanned<DeValue<'_>>,
) -> Result<T, PlanError> {
    let span = value.span();
    if !value.get_ref().is_table() {
        return Err(wrong_type(source, place, &value, "a table"));
    }
    T::deserialize(ValueDeserializer::from(value)).map_err(|error| translate(source, place, span, &error))
}

/// A TOML error before there is any table.
pub(super) fn syntax(source: &Source, error: &toml::de::Error) -> PlanError {
    PlanError::new(source, error.span().unwrap_or(0..0), Problem::Syntax { message: error.message().to_owned() })
}

/// A value of another type than `wanted`.
pub(super) fn wrong_type(source: &Source, place: &str, value: &Spanned<DeValue<'_>>, wanted: &str) -> PlanError {
    let (place, found, wanted) = (place.to_owned(), found(value.get_ref().type_str()), wanted.to_owned());
    PlanError::new(source, value.span(), Problem::Type { place, found, wanted })
}

/// An error of a type of ours, with its help: toml carries one text only.
pub(super) fn with_help(message: impl std::fmt::Display, help: &str) -> String {
    format!("{message}\n{help}")
}

/// serde has only a text for what went wrong; its forms are fixed, and the tests of bad plans hold each of them.
fn translate(source: &Source, place: &str, whole: Range<usize>, error: &toml::de::Error) -> PlanError {
    let span = error.span().unwrap_or(whole);
    let keys = path(error);
    let inner = if keys.is_empty() { place.to_owned() } else { format!("`{}` of {place}", keys.join(".")) };
    PlanError::new(source, span, problem(inner, error.message()))
}

fn problem(place: String, message: &str) -> Problem {
    let words = quoted(message);
    let (first, known) =
        words.split_first().map_or((String::new(), Vec::new()), |(it, rest)| (it.clone(), rest.to_vec()));
    if message.starts_with("unknown field") {
        return Problem::UnknownKey { key: first, place, known };
    }
    if message.starts_with("unknown variant") {
        return Problem::Word { place, word: first, known };
    }
    if message.starts_with("missing field") {
        return Problem::MissingKey { key: first, place };
    }
    let mismatch = message.strip_prefix("invalid type: ").and_then(|it| it.split_once(", expected "));
    if let Some((stands, belongs)) = mismatch {
        return Problem::Type { place, found: found(stands), wanted: wanted(belongs) };
    }
    if message.starts_with("invalid value: integer") {
        let help = "Write a whole number that is not negative.".to_owned();
        return Problem::Value { place, message: "the number is out of range".to_owned(), help };
    }
    if message == "wanted string or table" {
        return Problem::Type { place, found: "something else".to_owned(), wanted: wanted("a string") };
    }
    let (message, help) = message.split_once('\n').unwrap_or((message, "Correct this value."));
    Problem::Value { place, message: message.to_owned(), help: help.to_owned() }
}

/// The keys that lead to the error, which toml only prints: a last line ``in `a.b` ``.
fn path(error: &toml::de::Error) -> Vec<String> {
    let text = error.to_string();
    let last = text.trim_end().lines().next_back().unwrap_or_default();
    let keys = last.strip_prefix("in `").and_then(|it| it.strip_suffix('`')).unwrap_or_default();
    keys.split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect()
}

fn quoted(message: &str) -> Vec<String> {
    message.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// serde names the value too, which is left out: it is in the labelled source, and it may be long.
fn found(stands: &str) -> String {
    let kind = stands.split(' ').next().unwrap_or_default();
    match kind {
        "string" => "a text",
        "integer" => "a whole number",
        "float" | "floating" => "a number with a point",
        "boolean" => "`true` or `false`",
        "sequence" | "array" => "a list",
        "map" | "table" => "a table",
        _ => "something else",
    }
    .to_owned()
}

fn wanted(belongs: &str) -> String {
    match belongs {
        "a string" | "string" => "a text in quotes",
        "a boolean" => "`true` or `false`",
        "a sequence" => "a list in `[…]`",
        "a map" => "a table",
        it if it.starts_with("struct") => "a table",
        it if ["u", "i"].iter().any(|sign| it.starts_with(sign)) => "a whole number",
        _ => "another value",
    }
    .to_owned()
}
