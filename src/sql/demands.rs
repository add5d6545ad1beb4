//! What the statements of a text want of a server beforehand, as far as their words tell: extensions, roles, privileges. What a DO block
//! or a function does is not looked into.

use std::collections::BTreeSet;

use crate::sql::statements::{self, Statement};
use crate::sql::tokens::{Class, Token, Tokens};

/// What a text wants.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Demands {
    /// Extensions that it creates.
    pub extensions: BTreeSet<String>,
    /// Roles that it gives something to, or acts as.
    pub roles: BTreeSet<String>,
    /// Roles that it makes.
    pub makes_roles: BTreeSet<String>,
    /// Schemas that it makes.
    pub makes_schemas: BTreeSet<String>,
    /// Schemas in which it makes something; the empty name is the first of the `search_path`.
    pub schemas: BTreeSet<String>,
    /// Statements that are a superuser's, by their names.
    pub superuser: BTreeSet<&'static str>,
    /// It has code of its own that may make roles and schemas: DO, CALL.
    pub runs_code: bool,
    /// It acts as another role, or makes what names no schema somewhere else: what it makes where is not known.
    pub moves: bool,
}

/// Names that stand for a role and are none.
const NO_ROLES: [&str; 5] = ["public", "current_user", "current_role", "session_user", "group"];
/// What is made in a schema.
const IN_A_SCHEMA: [&str; 10] =
    ["table", "view", "sequence", "function", "procedure", "type", "domain", "aggregate", "collation", "operator"];
/// What may stand between CREATE and that.
const BETWEEN: [&str; 6] = ["or", "replace", "unlogged", "materialized", "recursive", "foreign"];
/// What a superuser alone can do, wherever PostgreSQL is as its makers give it away.
const A_SUPERUSERS: [(&[&str], &str); 5] = [
    (&["create", "event", "trigger"], "CREATE EVENT TRIGGER"),
    (&["create", "access", "method"], "CREATE ACCESS METHOD"),
    (&["create", "foreign", "data", "wrapper"], "CREATE FOREIGN DATA WRAPPER"),
    (&["create", "tablespace"], "CREATE TABLESPACE"),
    (&["alter", "system"], "ALTER SYSTEM"),
];

impl Demands {
    /// Those of a text. One that cannot be read wants nothing.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut demands = Self::default();
        for it in statements::split(text).unwrap_or_default() {
            demands.take(text, it);
        }
        demands
    }

    /// With those of another text that comes after it.
    pub fn extend(&mut self, other: Self) {
        self.extensions.extend(other.extensions);
        self.roles.extend(other.roles);
        self.makes_roles.extend(other.makes_roles);
        self.makes_schemas.extend(other.makes_schemas);
        self.schemas.extend(other.schemas);
        self.superuser.extend(other.superuser);
        self.runs_code |= other.runs_code;
        self.moves |= other.moves;
    }

    fn take(&mut self, text: &str, it: Statement) {
        let body = &text[it.start..it.end];
        let first = body.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default().to_ascii_lowercase();
        match first.as_str() {
            "do" | "call" => self.runs_code = true,
            "create" | "alter" | "grant" | "set" | "reassign" => self.words(&words(body)),
            _ => {}
        }
    }

    fn words(&mut self, words: &[String]) {
        let found = A_SUPERUSERS.iter().find(|(begin, _)| starts(words, begin));
        self.superuser.extend(found.map(|(_, name)| *name));
        match words.first().map(String::as_str) {
            Some("create") => self.create(words),
            Some("grant") => self.after(words, "to"),
            Some("set") => self.set(words),
            Some("reassign") => self.after(words, "to"),
            _ => {}
        }
        if let Some(at) = words.windows(2).position(|pair| pair == ["owner", "to"]) {
            self.role(words.get(at + 2));
        }
        if starts(words, &["alter", "default", "privileges"]) {
            self.after(words, "to");
        }
    }

    fn set(&mut self, words: &[String]) {
        let name = 1 + usize::from(words.get(1).is_some_and(|it| it == "local" || it == "session"));
        match words.get(name).map(String::as_str) {
            Some("role") => {
                self.role(words.get(name + 1));
                self.moves = true;
            }
            Some("search_path" | "authorization") => self.moves = true,
            _ => {}
        }
    }

    fn create(&mut self, words: &[String]) {
        let at = 1 + words[1..].iter().take_while(|word| BETWEEN.contains(&word.as_str())).count();
        let name = skip(words, at + 1, &["if", "not", "exists"]);
        match words.get(at).map(String::as_str) {
            Some("extension") => self.extensions.extend(words.get(name).cloned()),
            Some("role" | "group") => self.makes_roles.extend(words.get(name).cloned()),
            Some("user") if words.get(at + 1).is_some_and(|it| it != "mapping") => {
                self.makes_roles.extend(words.get(name).cloned());
            }
            Some("schema") => self.schema(words, name),
            Some(what) if IN_A_SCHEMA.contains(&what) => {
                let qualified = words.get(name + 1).is_some_and(|it| it == ".");
                self.schemas.insert(words.get(name).filter(|_| qualified).cloned().unwrap_or_default());
            }
            _ => {}
        }
    }

    fn schema(&mut self, words: &[String], name: usize) {
        if let Some(at) = words.iter().position(|it| it == "authorization") {
            self.role(words.get(at + 1));
        }
        self.makes_schemas.extend(words.get(name).filter(|it| *it != "authorization").cloned());
    }

    /// The roles of a list behind the last `word`.
    fn after(&mut self, words: &[String], word: &str) {
        let Some(at) = words.iter().rposition(|it| it == word) else { return };
        let list = words[at + 1..].split(|it| it == ",");
        for one in list {
            self.role(one.iter().find(|it| *it != "group"));
        }
    }

    fn role(&mut self, name: Option<&String>) {
        let name = name.map(|it| it.trim_matches('\'')).filter(|it| !it.is_empty() && !NO_ROLES.contains(it));
        self.roles.extend(name.filter(|it| *it != "none" && *it != "default").map(str::to_owned));
    }
}

fn starts(words: &[String], begin: &[&str]) -> bool {
    words.len() >= begin.len() && words.iter().zip(begin).all(|(word, it)| word == it)
}

/// The place behind `words`, if they stand at `at`.
fn skip(all: &[String], at: usize, words: &[&str]) -> usize {
    let there = all.len() >= at && starts(&all[at.min(all.len())..], words);
    if there { at + words.len() } else { at }
}

/// The words of a statement outside parentheses as the server reads them: names in small letters unless they are quoted.
fn words(statement: &str) -> Vec<String> {
    let (mut words, mut depth) = (Vec::new(), 0_usize);
    for token in Tokens::new(statement).map_while(Result::ok) {
        match token.class {
            Class::Open => depth += 1,
            Class::Close => depth = depth.saturating_sub(1),
            Class::Space | Class::LineComment | Class::BlockComment => {}
            _ if depth > 0 => {}
            _ => words.push(word(statement, token)),
        }
    }
    words
}

fn word(statement: &str, token: Token) -> String {
    let text = &statement[token.start..token.end];
    match text.strip_prefix('"').and_then(|it| it.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => text.to_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<T: Ord>(all: impl IntoIterator<Item = T>) -> BTreeSet<T> {
        all.into_iter().collect()
    }

    fn names(all: &[&str]) -> BTreeSet<String> {
        set(all.iter().map(|it| (*it).to_owned()))
    }

    #[test]
    fn extensions_and_what_is_a_superusers() {
        let text = "create extension if not exists Vector with schema public; CREATE EXTENSION \"uuid-ossp\";\n\
                    -- create extension no;\n create event trigger t on ddl_command_end execute function f(); alter system set a = 1;";
        let found = Demands::of(text);
        assert_eq!(found.extensions, names(&["vector", "uuid-ossp"]));
        assert_eq!(found.superuser, set(["CREATE EVENT TRIGGER", "ALTER SYSTEM"]));
    }

    #[test]
    fn roles_that_are_made_and_roles_that_must_be_there() {
        let text = "create role Reader nologin; create user \"Bob\"; create user mapping for carol server s;\n\
                    grant select on t to reader, \"Bob\", group staff with grant option; grant a to b granted by c;\n\
                    alter table t owner to \"App\"; alter table t owner to current_user; grant usage on schema s to public;\n\
                    alter default privileges for role x grant select on tables to y; set role z; reset role; set role none;\n\
                    create schema authorization joe; create schema j authorization jim; reassign owned by o to p";
        let found = Demands::of(text);
        assert_eq!(found.makes_roles, names(&["reader", "Bob"]));
        let expected = names(&["reader", "Bob", "staff", "b", "App", "y", "z", "joe", "jim", "p"]);
        assert_eq!(found.roles, expected);
        assert_eq!(found.makes_schemas, names(&["j"]));
        assert!(found.moves && !found.runs_code && Demands::of("do $$ begin end $$").runs_code);
        assert!(Demands::of("set local search_path = s").moves && !Demands::of("set lock_timeout = 1").moves);
    }

    #[test]
    fn schemas_in_which_something_is_made() {
        let text = "create table a.t (id int); create table if not exists \"B\".t (); create or replace view v as select 1;\n\
                    create materialized view c.m as select 1; create unlogged table d.t (); create index i on e.t (x);\n\
                    create function f() returns int language sql as 'select 1'; insert into g.t values (1)";
        assert_eq!(Demands::of(text).schemas, names(&["a", "B", "", "c", "d"]));
        let temporary = Demands::of("create temp table t (id int); create temporary view v as select 1");
        assert_eq!(temporary, Demands::default());
    }

    #[test]
    fn what_cannot_be_read_wants_nothing() {
        assert_eq!(Demands::of("create extension 'never closed"), Demands::default());
        for text in ["create", "create extension", "grant", "alter default privileges", "create schema", "set role", ""]
        {
            let _ = Demands::of(text);
        }
    }
}
