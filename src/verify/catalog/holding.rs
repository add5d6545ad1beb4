//! Who an object belongs to and who may do what with it, in clear and apart from everything else: by this a copy is compared in which
//! the roles are others.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::sql::quote::identifier;

use super::{Catalog, Digested, changes, digest};

/// Objects whose key names the role that they are of, by what comes before it.
const OF_A_ROLE: [&str; 2] = ["default acl for role ", "user mapping for "];
/// How the privileges of nobody at all are written.
const NOBODY: &str = "nobody";

/// What an object has to do with roles.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Holding {
    /// A digest of everything else in it.
    rest: String,
    /// Its owner; none of an extension, which is its maker's, and no restore can give it to anybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// Its privileges, as in the catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    acl: Option<String>,
    /// To whom a policy applies, as in the catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    roles: Option<String>,
    /// As whom a function is carried out, as in its definition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    carried_out_as: Vec<String>,
}

/// The objects of a catalog that have to do with roles, by their keys.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Holdings(BTreeMap<String, Holding>);

impl Holdings {
    /// Every role that owns something.
    pub fn owners(&self) -> impl Iterator<Item = &str> {
        self.0.values().filter_map(|it| it.owner.as_deref())
    }
}

impl Catalog {
    /// What its objects have to do with roles.
    #[must_use]
    pub fn holdings(&self) -> Holdings {
        let all = self.0.iter().filter_map(|(key, value)| Some((key.clone(), Holding::of(key, value.clone())?)));
        Holdings(all.collect())
    }

    /// What is not as it was before, in words. `role` says who is somebody else now.
    #[must_use]
    pub fn changes_under(&self, before: &Digested, holdings: &Holdings, role: impl Fn(&str) -> String) -> Vec<String> {
        let after = compared(&self.digested(), &self.holdings(), &str::to_owned);
        changes(&compared(before, holdings, &role), &after)
    }
}

impl Holding {
    /// None, if it has nothing to do with any role.
    pub(super) fn of(key: &str, mut value: Map<String, Value>) -> Option<Self> {
        let mut text = |name: &str| match value.remove(name) {
            Some(Value::String(text)) => Some(text),
            other => other.map(|it| it.to_string()),
        };
        let (owner, acl, roles) = (text("owner"), text("acl"), text("roles"));
        let carried_out_as = ["source", "definition"].iter().flat_map(|it| cut_settings(&mut value, it)).collect();
        let it = Self { rest: digest(&value), owner, acl: acl.filter(|it| it != NOBODY), roles, carried_out_as };
        let none = it.owner.is_none() && it.acl.is_none() && it.roles.is_none() && it.carried_out_as.is_empty();
        let is_extension = key.starts_with("extension ");
        let is_of_a_role = OF_A_ROLE.iter().any(|prefix| key.starts_with(prefix));
        (!none || is_of_a_role).then(|| Self { owner: it.owner.filter(|_| !is_extension), ..it })
    }
}

/// Takes the lines `SET role TO 'name'` out of the head of a function's definition.
fn cut_settings(value: &mut Map<String, Value>, name: &str) -> Vec<String> {
    let Some(Value::String(text)) = value.get_mut(name) else { return Vec::new() };
    let (mut kept, mut cut, mut is_head) = (Vec::new(), Vec::new(), text.starts_with("CREATE OR REPLACE "));
    for line in text.split('\n') {
        is_head &= !["AS ", "BEGIN", "RETURN "].iter().any(|it| line.starts_with(it));
        match is_head && [" SET role TO ", " SET session_authorization TO "].iter().any(|it| line.starts_with(it)) {
            true => cut.push(line.to_owned()),
            false => kept.push(line),
        }
    }
    *text = kept.join("\n");
    cut
}

/// A holding as roles see it: two of them that say the same are equal.
#[derive(Debug, Default)]
pub(super) struct Held {
    rest: BTreeSet<String>,
    owners: BTreeSet<String>,
    /// By who has them and who gave them; each letter, and whether it may be given on.
    privileges: BTreeMap<(String, String), BTreeMap<char, bool>>,
    /// What is no list of privileges.
    words: BTreeSet<String>,
    roles: BTreeSet<String>,
    carried_out_as: Vec<String>,
}

impl Held {
    pub(super) fn add(&mut self, it: &Holding, role: &impl Fn(&str) -> String) {
        self.rest.insert(it.rest.clone());
        self.owners.extend(it.owner.as_deref().map(role));
        let acl = it.acl.as_deref().unwrap_or_default();
        match privileges(acl) {
            Some(all) => {
                for Privileges { grantee, letters, grantor } in all {
                    let grantee = if grantee.is_empty() { grantee } else { role(&grantee) };
                    let given = self.privileges.entry((grantee, role(&grantor))).or_default();
                    letters.into_iter().for_each(|(letter, on)| *given.entry(letter).or_default() |= on);
                }
            }
            None => drop(self.words.insert(acl.to_owned())),
        }
        self.roles.extend(names(it.roles.as_deref().unwrap_or_default()).iter().map(|it| role(it)));
        let renamed =
            |line: &String| match line.split_once('\'').and_then(|(head, rest)| Some((head, rest.strip_suffix('\'')?)))
            {
                Some((head, name)) => format!("{head}'{}'", role(&name.replace("''", "'"))),
                None => line.clone(),
            };
        self.carried_out_as.extend(it.carried_out_as.iter().map(renamed));
    }
}

/// Something to compare for each object. Objects that become one are compared as one.
fn compared(digests: &Digested, holdings: &Holdings, role: &impl Fn(&str) -> String) -> BTreeMap<String, String> {
    let (mut held, mut all): (BTreeMap<String, Held>, _) = (BTreeMap::new(), BTreeMap::new());
    for (key, digest) in &digests.0 {
        match holdings.0.get(key) {
            Some(it) => held.entry(key_under(key, role)).or_default().add(it, role),
            None => drop(all.insert(key.clone(), digest.clone())),
        }
    }
    all.extend(held.into_iter().map(|(key, it)| (key, format!("{it:?}"))));
    all
}

/// A key with another role in it, quoted in one way.
fn key_under(key: &str, role: &impl Fn(&str) -> String) -> String {
    for prefix in OF_A_ROLE {
        if let Some((name, rest)) = key.strip_prefix(prefix).and_then(|it| name(it, ' ')) {
            return format!("{prefix}{}{rest}", identifier(&role(&name)));
        }
    }
    key.to_owned()
}

/// The name at the beginning of a text, quoted or ending before `end`, and what follows it.
fn name(text: &str, end: char) -> Option<(String, &str)> {
    let Some(mut rest) = text.strip_prefix('"') else {
        let at = text.find(end).unwrap_or(text.len());
        return Some((text[..at].to_owned(), &text[at..]));
    };
    let mut name = String::new();
    loop {
        let at = rest.find('"')?;
        name += &rest[..at];
        rest = &rest[at + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return Some((name, rest)),
        }
    }
}

/// The names of a list with commas.
fn names(list: &str) -> Vec<String> {
    let (mut rest, mut all) = (list, Vec::new());
    while let Some((name, after)) = name(rest, ',').filter(|(it, _)| !it.is_empty()) {
        all.push(name);
        rest = after.strip_prefix(", ").unwrap_or_default();
    }
    all
}

/// One item of a list of privileges.
#[derive(Debug, PartialEq, Eq)]
struct Privileges {
    /// Nothing is PUBLIC.
    grantee: String,
    letters: Vec<(char, bool)>,
    grantor: String,
}

/// The items of `grantee=letters/grantor …`, as PostgreSQL writes them, with blanks or commas between them; none, if it is something
/// else.
fn privileges(acl: &str) -> Option<Vec<Privileges>> {
    let (mut rest, mut all) = (acl, Vec::new());
    while !rest.is_empty() {
        let (grantee, after) = name(rest, '=')?;
        let (letters, after) = after.strip_prefix('=')?.split_once('/')?;
        let (grantor, after) = name(after, ' ')?;
        // What is joined by `, ` ends a name that is not quoted with its comma.
        let grantor = if after.is_empty() { grantor } else { grantor.trim_end_matches(',').to_owned() };
        let on = |at: usize| letters[at..].starts_with('*');
        let letters = letters.char_indices().filter(|(_, it)| *it != '*');
        let letters = letters.map(|(at, it)| (it, on(at + it.len_utf8()))).collect();
        all.push(Privileges { grantee, letters, grantor });
        rest = after.trim_start_matches(',').trim_start();
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn catalog(all: &[(&str, Value)]) -> Catalog {
        let object = |(it, value): &(&str, Value)| ((*it).to_owned(), value.as_object().expect("an object").clone());
        Catalog(all.iter().map(object).collect())
    }

    /// What differs between a catalog and another one, where `a` and `b` are `n` now.
    fn differs(before: &[(&str, Value)], after: &[(&str, Value)]) -> Vec<String> {
        let before = catalog(before);
        let role = |it: &str| if ["a", "b"].contains(&it) { "n".to_owned() } else { it.to_owned() };
        catalog(after).changes_under(&before.digested(), &before.holdings(), role)
    }

    #[test]
    fn privileges_are_read_as_postgresql_writes_them() {
        let item = |grantee: &str, letters: &[(char, bool)], grantor: &str| Privileges {
            grantee: grantee.into(),
            letters: letters.to_vec(),
            grantor: grantor.into(),
        };
        let all = [item("", &[('X', false)], "a"), item("o\"= /x", &[('r', true), ('w', false)], "a b")];
        assert_eq!(privileges("=X/a \"o\"\"= /x\"=r*w/\"a b\"").as_deref(), Some(&all[..]));
        assert_eq!(privileges("=X/a, \"o\"\"= /x\"=r*w/\"a b\"").as_deref(), Some(&all[..]));
        assert_eq!(privileges("").as_deref(), Some(&[][..]));
        assert_eq!(privileges("{the default}"), None);
        assert_eq!(names("a, \"b, c\", d"), ["a", "b, c", "d"]);
    }

    #[test]
    fn owners_and_privileges_are_compared_as_others() {
        let table = |owner: &str, acl: &str| [("table t", json!({"owner": owner, "acl": acl, "kind": "r"}))];
        let before = table("a", "a=arw/a b=d*/a c=r/b");
        assert_eq!(differs(&before, &table("n", "c=r/n n=ard*w/n")), [""; 0]);
        for (owner, acl) in [("c", "c=r/n n=ard*w/n"), ("n", "c=r/n n=ardw/n"), ("n", "n=ard*w/n"), ("n", NOBODY)] {
            assert_eq!(differs(&before, &table(owner, acl)), ["table t changed"], "{owner} {acl}");
        }
        let other = [("table t", json!({"owner": "n", "acl": "c=r/n n=ard*w/n", "kind": "p"}))];
        assert_eq!(differs(&before, &other), ["table t changed"]);
    }

    #[test]
    fn what_belongs_to_roles_becomes_one() {
        let of = |role: &str, acl: &str| (format!("default acl for role {role} on tables"), json!({"acl": acl}));
        let (a, b, n) = (of("a", "a=r/a c=r/a"), of("b", "b=w/b"), of("n", "c=r/n n=rw/n"));
        let before = [(a.0.as_str(), a.1.clone()), (b.0.as_str(), b.1)];
        assert_eq!(differs(&before, &[(n.0.as_str(), n.1)]), [""; 0]);
        let missing = differs(&before, &[]);
        assert_eq!(missing, ["default acl for role \"n\" on tables vanished"]);
        let mapping = |it| [(it, json!({"options": "x=y"}))];
        assert_eq!(
            differs(&mapping("user mapping for a on server s"), &mapping("user mapping for n on server s")),
            [""; 0]
        );
    }

    #[test]
    fn policies_functions_and_extensions() {
        let policy = |roles: &str| [("policy p", json!({"roles": roles, "using": "true"}))];
        assert_eq!(differs(&policy("a, b, c"), &policy("c, n")), [""; 0]);
        assert_eq!(differs(&policy("a, b, c"), &policy("n")), ["policy p changed"]);
        let function = |role: &str| {
            let source = format!("CREATE OR REPLACE FUNCTION f()\n SET role TO '{role}'\nAS $$\n SET role TO 'a'\n$$");
            [("function f", json!({"owner": "c", "acl": "=X/c", "source": source}))]
        };
        assert_eq!(differs(&function("a"), &function("n")), [""; 0]);
        assert_eq!(differs(&function("a"), &function("c")), ["function f changed"]);
        let extension = |owner: &str, version: &str| [("extension e", json!({"owner": owner, "version": version}))];
        assert_eq!(differs(&extension("c", "1"), &extension("d", "1")), [""; 0]);
        assert_eq!(differs(&extension("c", "1"), &extension("d", "2")), ["extension e changed"]);
    }
}
