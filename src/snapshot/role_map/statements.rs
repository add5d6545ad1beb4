//! The statements in which `pg_dump` names roles, with other roles in them. They are few, and always written the same way
//! (`buildACLCommands` and `buildDefaultACLCommands` in PostgreSQL's `dumputils.c`; `dumpPolicy`, `dumpUserMappings` and `dumpFunc` in
//! its `pg_dump.c`). Owners are no part of a statement: an archive has them beside it.
//!
//! Texts are bytes here, each taken for a character: what matters is ASCII in every encoding that a server has, and names are
//! compared as they are.

use std::ops::Range;

use crate::sql::quote::{identifier, literal};
use crate::sql::tokens::{Class, Token, Tokens};

use super::RoleMap;

/// The definition of an entry of this kind with other roles in it; nothing, if it stays as it is. One that is not SQL stays: the
/// server will say so.
pub(super) fn renamed(kind: &[u8], definition: &[u8], map: &RoleMap) -> Option<Vec<u8>> {
    let find: fn(&Words<'_>) -> Vec<Place> = match kind {
        b"ACL" | b"DEFAULT ACL" => |it| it.statements().iter().flat_map(Words::privilege).collect(),
        b"POLICY" => |it| it.policy().into_iter().collect(),
        b"USER MAPPING" => |it| it.after(&["CREATE", "USER", "MAPPING", "FOR"]).into_iter().collect(),
        b"FUNCTION" | b"PROCEDURE" => |it| it.settings(),
        _ => return None,
    };
    let text: String = definition.iter().copied().map(char::from).collect();
    let all: Vec<Token> = Tokens::new(&text).collect::<Result<_, _>>().ok()?;
    let is_word = |it: &Token| !matches!(it.class, Class::Space | Class::LineComment | Class::BlockComment);
    let words = Words { text: &text, all: all.into_iter().filter(is_word).collect() };
    let mut out = String::new();
    let mut done = 0;
    for place in find(&words) {
        if place.roles.iter().all(|role| new_name(map, role).is_none()) {
            continue;
        }
        out += &text[done..place.at.start];
        out += &place.written(map);
        done = place.at.end;
    }
    // A character is a byte again.
    (done > 0).then(|| (out + &text[done..]).chars().map(|it| u8::try_from(it).unwrap_or(b'?')).collect())
}

/// A role's new name, both as they lie in an archive.
fn new_name(map: &RoleMap, role: &str) -> Option<String> {
    let bytes: Vec<u8> = role.chars().map(|it| u8::try_from(it).unwrap_or(b'?')).collect();
    let new = map.all().get(std::str::from_utf8(&bytes).ok()?)?;
    Some(new.bytes().map(char::from).collect())
}

/// Roles in a statement, one after the other.
struct Place {
    at: Range<usize>,
    roles: Vec<String>,
    /// A string constant and no name.
    is_literal: bool,
}

impl Place {
    fn written(&self, map: &RoleMap) -> String {
        let quoted = if self.is_literal { literal } else { identifier };
        let mut names: Vec<String> = Vec::new();
        for role in &self.roles {
            let name = quoted(new_name(map, role).as_ref().unwrap_or(role));
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.join(", ")
    }
}

/// A text as tokens, without blanks and comments.
struct Words<'a> {
    text: &'a str,
    all: Vec<Token>,
}

impl Words<'_> {
    fn is(&self, at: usize, word: &str) -> bool {
        self.all.get(at).is_some_and(|it| it.is_word(self.text, word))
    }

    fn are(&self, at: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(n, word)| self.is(at + n, word))
    }

    /// One after the other, each without its semicolon.
    fn statements(&self) -> Vec<Self> {
        let one = |it: &[Token]| Self { text: self.text, all: it.to_vec() };
        self.all.split(|it| it.class == Class::Semi).map(one).collect()
    }

    /// The places of tokens that are in no parentheses.
    fn outermost(&self) -> impl Iterator<Item = usize> {
        let mut depth = 0_usize;
        self.all.iter().enumerate().filter_map(move |(at, it)| {
            depth += usize::from(it.class == Class::Open);
            let is_outside = depth == 0;
            depth = depth.saturating_sub(usize::from(it.class == Class::Close));
            is_outside.then_some(at)
        })
    }

    /// The name at a place.
    fn name(&self, at: usize) -> Option<Place> {
        let token = self.all.get(at)?;
        let text = &self.text[token.start..token.end];
        let name = match (token.class, text.strip_prefix('"').and_then(|it| it.strip_suffix('"'))) {
            (Class::Word, _) => text.to_ascii_lowercase(),
            (_, Some(quoted)) => quoted.replace("\"\"", "\""),
            _ => return None,
        };
        Some(Place { at: token.start..token.end, roles: vec![name], is_literal: false })
    }

    /// The name after these words, with which it begins.
    fn after(&self, words: &[&str]) -> Option<Place> {
        self.are(0, words).then(|| self.name(words.len())).flatten()
    }

    /// `GRANT … TO role [WITH GRANT OPTION]`, `REVOKE … FROM role`, both after `ALTER DEFAULT PRIVILEGES FOR ROLE role [IN SCHEMA
    /// name]` as well, and `SET SESSION AUTHORIZATION role` around those of somebody else.
    fn privilege(&self) -> Vec<Place> {
        let whose = self.after(&["ALTER", "DEFAULT", "PRIVILEGES", "FOR", "ROLE"]);
        let is_privilege = whose.is_some() || self.is(0, "GRANT") || self.is(0, "REVOKE");
        let word = |at: &usize| self.is(*at, "TO") || self.is(*at, "FROM");
        let to = self.outermost().filter(word).last().filter(|_| is_privilege).and_then(|at| self.name(at + 1));
        self.after(&["SET", "SESSION", "AUTHORIZATION"]).into_iter().chain(whose).chain(to).collect()
    }

    /// `CREATE POLICY name ON table [AS RESTRICTIVE] [FOR command] [TO role, …] [USING (…)] [WITH CHECK (…)]`
    fn policy(&self) -> Option<Place> {
        let to = self.outermost().find(|at| self.is(*at, "TO"))?;
        let mut place = self.name(to + 1)?;
        let mut at = to + 2;
        while self.all.get(at).is_some_and(|it| &self.text[it.start..it.end] == ",") {
            let Place { at: next, roles, .. } = self.name(at + 1)?;
            place.at.end = next.end;
            place.roles.extend(roles);
            at += 2;
        }
        Some(place)
    }

    /// `SET role TO 'role'` before the body of a function.
    fn settings(&self) -> Vec<Place> {
        let is_body = |at: &usize| ["AS", "BEGIN", "RETURN"].iter().any(|word| self.is(*at, word));
        let head = self.outermost().take_while(|at| !is_body(at));
        let set = |at: &usize| {
            self.are(*at, &["SET", "role", "TO"]) || self.are(*at, &["SET", "session_authorization", "TO"])
        };
        head.filter(set).filter_map(|at| self.constant(at + 3)).collect()
    }

    /// The plain string constant at a place.
    fn constant(&self, at: usize) -> Option<Place> {
        let token = self.all.get(at)?;
        let text = self.text[token.start..token.end].strip_prefix('\'')?.strip_suffix('\'')?;
        Some(Place { at: token.start..token.end, roles: vec![text.replace("''", "'")], is_literal: true })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Mapping;
    use super::*;

    /// As `pg_dump` writes it, and as it is then.
    #[track_caller]
    fn check(kind: &str, before: &str, after: &str) {
        let typed =
            [("old", "New One"), ("Old\"2", "it's"), ("Ältester", "jung"), ("to", "from"), ("third", "New One")];
        let typed = typed.map(|(old, new)| Mapping { old: old.into(), new: new.into() });
        let map = RoleMap::new(typed.to_vec()).expect("each role once");
        let found = renamed(kind.as_bytes(), before.as_bytes(), &map);
        let found = found.map(|it| String::from_utf8(it).expect("UTF-8"));
        assert_eq!(found.as_deref().unwrap_or(before), after);
        assert_eq!(found.is_some(), before != after);
    }

    #[test]
    fn privileges() {
        check(
            "ACL",
            "REVOKE ALL ON TABLE public.t FROM old;\nGRANT SELECT,INSERT ON TABLE public.t TO old;\nGRANT ALL ON TABLE public.t TO other;\n",
            "REVOKE ALL ON TABLE public.t FROM \"New One\";\nGRANT SELECT,INSERT ON TABLE public.t TO \"New One\";\nGRANT ALL ON TABLE public.t TO \
             other;\n",
        );
        check(
            "ACL",
            "GRANT SELECT(\"to old; \"\"\") ON TABLE old.\"from\" TO \"Old\"\"2\" WITH GRANT OPTION;\n",
            "GRANT SELECT(\"to old; \"\"\") ON TABLE old.\"from\" TO \"it's\" WITH GRANT OPTION;\n",
        );
        check(
            "ACL",
            "GRANT ALL ON FUNCTION old.f(\"to\" old, at timestamp with time zone) TO \"Ältester\";\n",
            "GRANT ALL ON FUNCTION old.f(\"to\" old, at timestamp with time zone) TO \"jung\";\n",
        );
        check(
            "ACL",
            "SET SESSION AUTHORIZATION old;\nGRANT SELECT ON TABLE t TO \"to\";\nRESET SESSION AUTHORIZATION;\nREVOKE GRANT OPTION FOR ALL \
             ON LARGE OBJECT 7 FROM PUBLIC;\n",
            "SET SESSION AUTHORIZATION \"New One\";\nGRANT SELECT ON TABLE t TO \"from\";\nRESET SESSION AUTHORIZATION;\nREVOKE GRANT OPTION \
             FOR ALL ON LARGE OBJECT 7 FROM PUBLIC;\n",
        );
        check("ACL", "GRANT USAGE ON SCHEMA old TO PUBLIC;\n", "GRANT USAGE ON SCHEMA old TO PUBLIC;\n");
    }

    #[test]
    fn default_privileges() {
        check(
            "DEFAULT ACL",
            "ALTER DEFAULT PRIVILEGES FOR ROLE old IN SCHEMA old GRANT SELECT ON TABLES  TO other;\nALTER DEFAULT PRIVILEGES FOR ROLE other \
             REVOKE ALL ON FUNCTIONS  FROM old;\n",
            "ALTER DEFAULT PRIVILEGES FOR ROLE \"New One\" IN SCHEMA old GRANT SELECT ON TABLES  TO other;\nALTER DEFAULT PRIVILEGES FOR ROLE \
             other REVOKE ALL ON FUNCTIONS  FROM \"New One\";\n",
        );
        check(
            "DEFAULT ACL",
            "ALTER DEFAULT PRIVILEGES FOR ROLE old REVOKE ALL ON TYPES  FROM PUBLIC;\n",
            "ALTER DEFAULT PRIVILEGES FOR ROLE \"New One\" REVOKE ALL ON TYPES  FROM PUBLIC;\n",
        );
    }

    #[test]
    fn policies() {
        check(
            "POLICY",
            "CREATE POLICY old ON old.t AS RESTRICTIVE FOR UPDATE TO other, old, third, \"Old\"\"2\" USING ((pg_has_role('old', 'to') OR (a = \
             'old'))) WITH CHECK (true);\n",
            "CREATE POLICY old ON old.t AS RESTRICTIVE FOR UPDATE TO \"other\", \"New One\", \"it's\" USING ((pg_has_role('old', 'to') OR (a \
             = 'old'))) WITH CHECK (true);\n",
        );
        let everybody = "CREATE POLICY p ON t USING ((a IN ( SELECT x.old FROM x)));\n";
        check("POLICY", everybody, everybody);
    }

    #[test]
    fn user_mappings_and_settings_of_functions() {
        check(
            "USER MAPPING",
            "CREATE USER MAPPING FOR old SERVER old OPTIONS (\n    \"user\" 'old'\n);\n",
            "CREATE USER MAPPING FOR \"New One\" SERVER old OPTIONS (\n    \"user\" 'old'\n);\n",
        );
        check(
            "FUNCTION",
            "CREATE FUNCTION f(role text DEFAULT 'SET role TO ''old'''::text) RETURNS text\n    LANGUAGE sql\n    SET search_path TO 'old'\n    SET \
             role TO 'old'\n    AS $$ SET role TO 'old' $$;\n",
            "CREATE FUNCTION f(role text DEFAULT 'SET role TO ''old'''::text) RETURNS text\n    LANGUAGE sql\n    SET search_path TO 'old'\n    SET \
             role TO 'New One'\n    AS $$ SET role TO 'old' $$;\n",
        );
        check(
            "PROCEDURE",
            "CREATE PROCEDURE p()\n    LANGUAGE sql\n    SET session_authorization TO 'Old\"2'\n    BEGIN ATOMIC\n END;\n",
            "CREATE PROCEDURE p()\n    LANGUAGE sql\n    SET session_authorization TO 'it''s'\n    BEGIN ATOMIC\n END;\n",
        );
    }

    /// A column called like a role stays, and so does what cannot be read.
    #[test]
    fn nothing_else_is_touched() {
        for (kind, text) in [
            ("TABLE", "CREATE TABLE t (old text); GRANT SELECT ON t TO old"),
            ("COMMENT", "COMMENT ON ROLE old IS 'x'"),
            ("ACL", "GRANT SELECT ON TABLE \"t TO old"),
            ("ACL", ""),
        ] {
            check(kind, text, text);
        }
        let latin = b"GRANT SELECT ON TABLE \"\xe4\" TO old;\n";
        let map = RoleMap::new(vec![Mapping { old: "old".into(), new: "new".into() }]).expect("one");
        assert_eq!(renamed(b"ACL", latin, &map).expect("renamed"), b"GRANT SELECT ON TABLE \"\xe4\" TO \"new\";\n");
    }
}
