//! `${NAME}` from the environment into the URLs of one target and of the store. What the variables hold appears in no message.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;

use super::file::PlanFile;
use super::problem::{PlanError, Problem, Source};
use super::{Database, check};
use crate::names::{DatabaseName, TargetName};
use crate::outside::encryption::Recipient;
use crate::outside::url::{DatabaseUrl, Defaults, percent_encode};

/// The variables that a plan may refer to. Always passed in, so that tests and rehearsals choose them.
pub(super) type Environment = BTreeMap<String, String>;

impl PlanFile {
    /// The databases of `target`, their URLs expanded: all, or those in `only`, so that the variables of the others need not be
    /// set. Names in `only` that the target does not have are left to the caller.
    ///
    /// # Errors
    /// A target that is not in the plan, an unset variable, a URL that is none, two URLs that are one database.
    pub fn databases(
        &self,
        target: &TargetName,
        env: &BTreeMap<String, String>,
        only: Option<&BTreeSet<DatabaseName>>,
    ) -> Result<BTreeMap<DatabaseName, Database>, PlanError> {
        let table = &self.targets.get(target).ok_or_else(|| check::unknown_target(self, target.as_str()))?.databases;
        let wanted = table.get_ref().iter().filter(|(name, _)| only.is_none_or(|only| only.contains(name.get_ref())));
        let mut databases = BTreeMap::new();
        for (name, template) in wanted {
            let url = self.database_url(target, name.get_ref(), template, env)?;
            check::different_places(&self.source, target, &databases, (name.get_ref(), &url), template.span())?;
            databases.insert(name.get_ref().clone(), self.database(name.get_ref(), url));
        }
        Ok(databases)
    }

    fn database(&self, name: &DatabaseName, url: DatabaseUrl) -> Database {
        let table = self.databases.get(name).map(|(_, it)| it);
        Database {
            name: name.clone(),
            url,
            owner: table.and_then(|it| it.owner.clone()),
            extensions: table.map(|it| it.extensions.clone()).unwrap_or_default(),
            standby: table.is_some_and(|it| it.standby),
        }
    }

    fn database_url(
        &self,
        target: &TargetName,
        name: &DatabaseName,
        template: &Spanned<String>,
        env: &Environment,
    ) -> Result<DatabaseUrl, PlanError> {
        let needed_by = format!("database `{name}` of target `{target}`");
        let text = expand(&self.source, template, &needed_by, env)?;
        DatabaseUrl::parse_with(&text, &Defaults::of(env))
            .map_err(|error| PlanError::new(&self.source, template.span(), Problem::Url { needed_by, error }))
    }

    /// The store's URL, expanded.
    pub(super) fn store_url(&self, env: &Environment) -> Result<Option<String>, PlanError> {
        let Some(template) = &self.store.url else { return Ok(None) };
        let url = expand(&self.source, template, "the store", env)?;
        check::store_url(&self.source, &url, template.span())?;
        Ok(Some(url))
    }

    /// To whom archives are encrypted, expanded.
    pub(super) fn encrypt_to(&self, env: &Environment) -> Result<Vec<Recipient>, PlanError> {
        let read = |template: &Spanned<String>| {
            let text = expand(&self.source, template, "`encrypt_to` of `[store]`", env)?;
            let wrong = |error| PlanError::new(&self.source, template.span(), Problem::Recipient { error });
            text.parse().map_err(wrong)
        };
        self.store.encrypt_to.iter().map(read).collect()
    }
}

/// `template` with every variable replaced. In the user and the password of a URL, the value is percent-encoded, as it may hold
/// any character; elsewhere, and where the whole URL is one variable, it stands as it is.
pub(super) fn expand(
    source: &Source,
    template: &Spanned<String>,
    needed_by: &str,
    env: &Environment,
) -> Result<String, PlanError> {
    let text = template.get_ref();
    let mut expanded = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(start) = text[at..].find("${").map(|it| at + it) {
        let wrong = |problem| PlanError::new(source, template.span(), problem);
        let end = text[start..].find('}').map(|it| start + it).ok_or_else(|| wrong(Problem::OpenVariable))?;
        let name = &text[start + 2..end];
        if !is_variable(name) {
            return Err(wrong(Problem::BadVariable));
        }
        let value =
            value(env, name, needed_by).map_err(|it| PlanError::new(source, place(source, template, name), it))?;
        expanded.push_str(&text[at..start]);
        expanded.push_str(&if is_credential(text, start) { percent_encode(value) } else { value.to_owned() });
        at = end + 1;
    }
    expanded.push_str(&text[at..]);
    Ok(expanded)
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn value<'a>(env: &'a Environment, name: &str, needed_by: &str) -> Result<&'a str, Problem> {
    let unset = |empty| Problem::Unset { variable: name.to_owned(), needed_by: needed_by.to_owned(), empty };
    let value = env.get(name).ok_or_else(|| unset(false))?;
    if value.is_empty() { Err(unset(true)) } else { Ok(value) }
}

/// Where `${name}` stands in the file; the whole value, if it is written with escapes.
fn place(source: &Source, template: &Spanned<String>, name: &str) -> Range<usize> {
    let whole = template.span();
    let written = source.text().get(whole.clone()).unwrap_or_default();
    let reference = format!("${{{name}}}");
    written.find(&reference).map_or(whole.clone(), |at| whole.start + at..whole.start + at + reference.len())
}

/// Whether `at` is inside the user or the password of the URL `template`.
fn is_credential(template: &str, at: usize) -> bool {
    let before = &template[..at];
    if let Some((_, query)) = before.split_once('?')
        && let Some((key, _)) = query.rsplit('&').next().and_then(|parameter| parameter.split_once('='))
    {
        return matches!(key, "user" | "password");
    }
    let Some(start) = template.find("://").map(|it| it + 3) else { return false };
    let end = template[start..].find(['@', '/']).map(|it| start + it).filter(|it| template[*it..].starts_with('@'));
    end.is_some_and(|end| (start..end).contains(&at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> Environment {
        [("P", "s3:cr/t@#%"), ("U", "a b"), ("HOST", "db.example.org"), ("URL", "postgresql://x@y/z"), ("EMPTY", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[track_caller]
    fn check(template: &str, expected: Result<&str, &str>) {
        let source = Source::new("plan.toml", template);
        let spanned = Spanned::new(0..template.len(), template.to_owned());
        let got = expand(&source, &spanned, "database `a` of target `t`", &env());
        let got = got.map_err(|error| format!("{} {error}", error.place().expect("a place")));
        assert_eq!(got.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn variables_are_replaced_and_encoded_where_they_are_credentials() {
        check("", Ok(""));
        check("${URL}", Ok("postgresql://x@y/z"));
        check("${URL}?sslmode=require", Ok("postgresql://x@y/z?sslmode=require"));
        check(
            "postgresql://${U}:${P}@${HOST}:5432/db",
            Ok("postgresql://a%20b:s3%3Acr%2Ft%40%23%25@db.example.org:5432/db"),
        );
        check(
            "postgresql://${HOST}/db?user=${U}&password=${P}&dbname=${HOST}",
            Ok("postgresql://db.example.org/db?user=a%20b&password=s3%3Acr%2Ft%40%23%25&dbname=db.example.org"),
        );
        check("${URL}?password=${P}", Ok("postgresql://x@y/z?password=s3%3Acr%2Ft%40%23%25"));
        check("gs://${HOST}/a", Ok("gs://db.example.org/a"));
        check("a$b$$c{d}", Ok("a$b$$c{d}"));
        check(
            "x/${NOPE}",
            Err("plan.toml:1:3 the variable `NOPE` is not set, and database `a` of target `t` needs it"),
        );
        check("${EMPTY}", Err("plan.toml:1:1 the variable `EMPTY` is empty, and database `a` of target `t` needs it"));
        check("${HOST", Err("plan.toml:1:1 a `${` has no `}`"));
        check("${}", Err("plan.toml:1:1 a `${…}` does not hold the name of a variable"));
        check("${HOST:-x}", Err("plan.toml:1:1 a `${…}` does not hold the name of a variable"));
    }

    #[test]
    fn a_value_is_never_expanded_again() {
        let env = [("A", "${B}"), ("B", "deep")].map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let source = Source::new("plan.toml", "${A}");
        let got = expand(&source, &Spanned::new(0..4, "${A}".to_owned()), "the store", &env).expect("set");
        assert_eq!(got, "${B}");
    }
}
