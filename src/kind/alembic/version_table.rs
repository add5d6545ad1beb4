//! The table in which Alembic keeps what a database has: `alembic_version`, unless `env.py` gives it another name.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;

use crate::sql::quote::identifier;

/// A table, on the role's `search_path` or in a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionTable {
    schema: Option<String>,
    name: String,
}

/// What a call in `env.py` says of the table.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Said {
    /// Of its schema, not of its name.
    schema: bool,
    /// It says it by a constant.
    constant: bool,
    /// The constant.
    value: Option<String>,
}

impl Default for VersionTable {
    fn default() -> Self {
        Self { schema: None, name: "alembic_version".into() }
    }
}

impl fmt::Display for VersionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.schema.as_ref().map_or(Ok(()), |schema| write!(f, "{schema}."))?;
        write!(f, "{}", self.name)
    }
}

impl VersionTable {
    /// As SQL takes it.
    #[must_use]
    pub fn quoted(&self) -> String {
        let schema = self.schema.as_ref().map_or(String::new(), |schema| identifier(schema) + ".");
        schema + &identifier(&self.name)
    }

    /// From what `env.py` told Alembic in offline mode, if it could be run there, and from what it says in its calls.
    pub(super) fn of(learned: Option<(Option<String>, String)>, said: &[Said]) -> Result<Self, String> {
        let constants = |schema| -> BTreeSet<Option<&String>> {
            said.iter().filter(|it| it.schema == schema && it.constant).map(|it| it.value.as_ref()).collect()
        };
        let (names, schemas) = (constants(false), constants(true));
        let Some((schema, name)) = learned else { return Self::read(said, &names, &schemas) };
        let learned = Self { schema, name };
        let agrees = names.iter().all(|it| *it == Some(&learned.name))
            && schemas.iter().all(|it| *it == learned.schema.as_ref());
        if agrees {
            Ok(learned)
        } else {
            Err(format!("in offline mode it is {learned}, and another call says otherwise"))
        }
    }

    /// `env.py` cannot be run in offline mode: only what it says counts.
    fn read(
        said: &[Said],
        names: &BTreeSet<Option<&String>>,
        schemas: &BTreeSet<Option<&String>>,
    ) -> Result<Self, String> {
        if said.iter().any(|it| !it.constant) || names.len() > 1 || schemas.len() > 1 {
            return Err("`env.py` does not run in offline mode, and does not say it by a constant".into());
        }
        let first = |of: &BTreeSet<Option<&String>>| of.first().copied().flatten().cloned();
        Ok(Self { schema: first(schemas), name: first(names).unwrap_or_else(|| Self::default().name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(schema: bool, value: Option<&str>) -> Said {
        Said { schema, constant: value != Some("?"), value: value.filter(|it| *it != "?").map(str::to_owned) }
    }

    #[track_caller]
    fn check(learned: Option<(Option<&str>, &str)>, words: &[Said], expected: Result<&str, &str>) {
        let learned = learned.map(|(schema, name)| (schema.map(str::to_owned), name.to_owned()));
        match (VersionTable::of(learned, words), expected) {
            (Ok(table), Ok(name)) => assert_eq!(table.to_string(), name),
            (Err(reason), Err(part)) => assert!(reason.contains(part), "{reason}"),
            (found, _) => panic!("{found:?}, and not {expected:?}"),
        }
    }

    #[test]
    fn offline_and_online_must_say_the_same() {
        let (table, schema) = (said(false, Some("v")), said(true, Some("ops")));
        check(Some((None, "alembic_version")), &[], Ok("alembic_version"));
        check(Some((Some("ops"), "v")), &[table.clone(), schema.clone()], Ok("ops.v"));
        check(Some((None, "from_a_setting")), &[said(false, Some("?"))], Ok("from_a_setting"));
        check(Some((None, "v")), &[said(true, None)], Ok("v"));
        check(
            Some((None, "alembic_version")),
            std::slice::from_ref(&table),
            Err("in offline mode it is alembic_version"),
        );
        check(Some((None, "v")), &[schema], Err("another call says otherwise"));
    }

    #[test]
    fn without_an_offline_mode_constants_count() {
        check(None, &[], Ok("alembic_version"));
        check(None, &[said(false, Some("v")), said(false, Some("v")), said(true, Some("ops"))], Ok("ops.v"));
        check(None, &[said(false, Some("v")), said(false, Some("w"))], Err("does not say it by a constant"));
        check(None, &[said(false, Some("?"))], Err("does not say it by a constant"));
    }

    #[test]
    fn names_are_quoted() {
        let table = VersionTable { schema: Some("My".into()), name: "v\"1".into() };
        assert_eq!(table.quoted(), "\"My\".\"v\"\"1\"");
    }
}
