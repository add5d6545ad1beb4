//! The catalog of a database as text: every object with what anybody could see of it. Nothing in it depends on oids or on physical
//! places, so that a dump and its restore have the same catalog, and a program that changed a database it was not meant
//! for is found out.
//!
//! Not in it: rows; the database's own properties, which are asked for apart; roles, tablespaces and other things of the whole
//! server; subscriptions' connection strings unless a superuser asks; C code; planner statistics; temporary objects; objects
//! that belong to extensions, except for changed privileges; our ledger, if it is left out.

mod deparsed;
mod holding;
mod large_objects;
mod relations;
mod routines;
mod surroundings;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection, Row};

use crate::outside::postgres::{PgError, change, made, query_error};

pub use holding::{Holding, Holdings};
pub use large_objects::LargeObjects;

/// What the text of definitions depends on.
const SETTINGS: &str = "SET LOCAL search_path = ''; SET LOCAL row_security = off; SET LOCAL statement_timeout = 0;
    SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres';
    SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; SET LOCAL quote_all_identifiers = off;
    SET LOCAL jit = off";

/// Every object by kind and identity (`index public.foo_idx`), with a JSON object of what it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalog(BTreeMap<String, Map<String, Value>>);

/// A catalog in short: a digest for each object. It tells which objects differ, and not how.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digested(BTreeMap<String, String>);

impl Catalog {
    /// The catalog of the database of `session`.
    ///
    /// # Errors
    /// The query failed.
    pub async fn read(session: &mut PgConnection) -> Result<Self, PgError> {
        let failed = || query_error("reading the catalog");
        let mut transaction = session.begin().await.map_err(failed())?;
        let catalog = Self::within(&mut transaction).await?;
        transaction.rollback().await.map_err(failed())?;
        Ok(catalog)
    }

    /// The same, within a transaction that is open already, and whose settings (`search_path` among them) it changes.
    ///
    /// # Errors
    /// The query failed.
    pub async fn within(session: &mut PgConnection) -> Result<Self, PgError> {
        let failed = || query_error("reading the catalog");
        change(session, SETTINGS).await.map_err(failed())?;
        let (superuser, version_num): (bool, i32) =
            sqlx::query_as("select current_setting('is_superuser')::bool, current_setting('server_version_num')::int4")
                .fetch_one(&mut *session)
                .await
                .map_err(failed())?;
        let around = surroundings::server(superuser, version_num);
        Self::of(session, &[relations::queries(), routines::queries(), around, surroundings::words()].concat()).await
    }

    /// What belongs to the database itself: owner, encoding, privileges, settings, comment. Within an open transaction.
    ///
    /// # Errors
    /// The query failed.
    pub async fn of_database(session: &mut PgConnection) -> Result<Self, PgError> {
        Self::of(session, &surroundings::database()).await
    }

    /// What queries say that give a key and a JSON object each.
    async fn of(session: &mut PgConnection, queries: &[String]) -> Result<Self, PgError> {
        let as_text = |query: &String| format!("SELECT q.key::text, q.value::text FROM ({query}) AS q (key, value)");
        let sql = queries.iter().map(as_text).collect::<Vec<_>>().join(";\n");
        let rows = sqlx::raw_sql(made(sql)).fetch_all(session).await.map_err(query_error("reading the catalog"))?;
        let mut found = BTreeMap::new();
        for row in rows {
            let read = || Ok((row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?));
            let (key, value) = read().map_err(query_error("reading the catalog"))?;
            let broken = |error| query_error("reading the catalog")(sqlx::Error::Decode(Box::new(error)));
            let properties: Map<String, Value> = serde_json::from_str(&value).map_err(broken)?;
            found.insert(key, canonical(properties));
        }
        Ok(Self(found))
    }

    /// Without our own ledger, which every database gets that is worked on.
    #[must_use]
    pub fn without_ledger(mut self) -> Self {
        self.0.retain(|key, _| !key.contains(" migrate.") && !key.ends_with("schema migrate"));
        self
    }

    /// Its objects, each with what it is.
    pub fn objects(&self) -> impl Iterator<Item = (&str, &Map<String, Value>)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// A digest for each object.
    #[must_use]
    pub fn digested(&self) -> Digested {
        Digested(self.0.iter().map(|(key, value)| (key.clone(), digest(value))).collect())
    }

    /// What is not as it was before, in words.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Vec<String> {
        changes(&before.0, &self.0)
    }
}

impl Digested {
    /// What is not as it was before, in words.
    #[must_use]
    pub fn changes_since(&self, before: &Self) -> Vec<String> {
        changes(&before.0, &self.0)
    }
}

fn digest(value: &Map<String, Value>) -> String {
    let text = serde_json::to_string(value).expect("a map of JSON values is JSON");
    Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn changes<T: PartialEq>(before: &BTreeMap<String, T>, after: &BTreeMap<String, T>) -> Vec<String> {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let word = |key: &String| match (before.get(key), after.get(key)) {
        (None, _) => Some(format!("{key} appeared")),
        (_, None) => Some(format!("{key} vanished")),
        (before, after) => (before != after).then(|| format!("{key} changed")),
    };
    // The columns of a table that appeared say nothing more.
    let whole = |key: &str| owner_of_column(key).is_some_and(|it| before.contains_key(&it) != after.contains_key(&it));
    keys.into_iter().filter(|key| !whole(key)).filter_map(word).collect()
}

/// Of a column (`table column public.t.c`), what it is a column of (`table public.t`).
fn owner_of_column(key: &str) -> Option<String> {
    let (kind, identity) = key.split_once(" column ")?;
    let mut quoted = false;
    let dot = identity.char_indices().rfind(|(_, c)| {
        quoted ^= *c == '"';
        *c == '.' && !quoted
    })?;
    Some(format!("{kind} {}", &identity[..dot.0]))
}

/// Definitions in the form that a restore gives them. An absent property says the same as one that is null.
fn canonical(mut properties: Map<String, Value>) -> Map<String, Value> {
    properties.retain(|_, value| !value.is_null());
    for name in deparsed::DEPARSED {
        if let Some(Value::String(text)) = properties.get_mut(name) {
            *text = deparsed::canonical(text);
        }
    }
    properties
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_are_named() {
        let of = |all: &[(&str, Value)]| {
            let object =
                |(it, value): &(&str, Value)| ((*it).into(), canonical(value.as_object().expect("an object").clone()));
            Catalog(all.iter().map(object).collect())
        };
        let before = of(&[("a", json!({"x": 1})), ("b", json!({"x": 1})), ("c", json!({"x": null}))]);
        let after = of(&[("b", json!({"x": 2})), ("c", json!({})), ("d", json!({}))]);
        let said = ["a vanished", "b changed", "d appeared"];
        assert_eq!(after.changes_since(&before), said);
        assert_eq!(after.digested().changes_since(&before.digested()), said);
        assert!(after.changes_since(&after).is_empty());
    }

    #[test]
    fn columns_go_with_their_table() {
        let of = |all: &[&str]| Catalog(all.iter().map(|it| ((*it).to_owned(), Map::new())).collect());
        let before = of(&["table public.t", "table column public.t.a"]);
        let added = r#"table column public.t."b.""c""#;
        let after = of(&["table public.t", added, r#"table x."y.z""#, r#"table column x."y.z".c"#]);
        let said = [
            format!("{added} appeared"),
            "table column public.t.a vanished".to_owned(),
            r#"table x."y.z" appeared"#.into(),
        ];
        assert_eq!(after.changes_since(&before), said);
    }
}
