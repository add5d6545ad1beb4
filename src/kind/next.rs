//! What the next migration of a folder is called, in the style of those that are there. Pure: names in, names out.

use crate::kind::sql::digits;

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct New {
    /// Its name.
    pub name: String,
    /// Its text: comments, and the rest is the author's.
    pub text: String,
}

/// A name as file names have it: `[a-z0-9_]`. None if nothing is left.
#[must_use]
pub fn sanitised(name: &str) -> Option<String> {
    let letters = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    let words: String = letters.collect();
    let words: Vec<&str> = words.split('_').filter(|word| !word.is_empty()).collect();
    (!words.is_empty()).then(|| words.join("_"))
}

/// The next of a folder of kind `sql` with these files. `now` is the time as `YYYYMMDDhhmmss`, for folders that number so;
/// `sections` is how many of the files hold their own way back.
#[must_use]
pub fn sql(names: &[String], sections: usize, name: &str, now: &str) -> Vec<New> {
    let ups = names.iter().filter(|it| !it.ends_with(".down.sql"));
    let last = ups.max_by_key(|it| number(digits(it)));
    let downs = names.iter().filter(|it| it.ends_with(".down.sql")).count();
    let last_digits = last.map_or("", |it| digits(it));
    let separator = last.and_then(|it| it[last_digits.len()..].chars().next());
    let separator = separator.filter(|it| ['_', '-'].contains(it)).unwrap_or('_');
    let stem = format!("{}{separator}{name}", following(last_digits, now));
    let up = format!("-- {name}: write the statements below this line.\n\n");
    if downs > sections {
        let down = format!("-- The way back of {stem}.sql.\n\n");
        return vec![
            New { name: format!("{stem}.sql"), text: up },
            New { name: format!("{stem}.down.sql"), text: down },
        ];
    }
    vec![New { name: format!("{stem}.sql"), text: format!("{up}-- migrate:down\n") }]
}

/// The next of a folder of kind `refinery`; `names` are those of its files and of the files below it.
#[must_use]
pub fn refinery(names: &[String], name: &str) -> New {
    let versions = names.iter().filter_map(|it| it.strip_prefix(['V', 'U'])?.split_once("__")).map(|(it, _)| it);
    let last = versions.max_by_key(|it| number(it)).unwrap_or("0");
    let next = format!("{:0width$}", number(last) + 1, width = last.len());
    New { name: format!("V{next}__{name}.sql"), text: format!("-- {name}: write the statements below this line.\n") }
}

fn number(digits: &str) -> u128 {
    digits.parse().unwrap_or(0)
}

/// The number after `last`, as wide; the time, where `last` is one.
fn following(last: &str, now: &str) -> String {
    let width = if last.is_empty() { 3 } else { last.len() };
    let next = format!("{:0width$}", number(last) + 1);
    let is_time = [12, 14].contains(&width) && (last.starts_with("19") || last.starts_with("20"));
    match now.get(..width).filter(|_| is_time) {
        Some(now) if number(now) > number(last) => now.to_owned(),
        _ => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "20261121193000";

    #[track_caller]
    fn check(names: &[&str], sections: usize, expected: &[&str]) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let found: Vec<String> = sql(&names, sections, "x", NOW).into_iter().map(|it| it.name).collect();
        assert_eq!(found, expected, "{names:?}");
    }

    #[test]
    fn a_number_follows_in_the_same_width() {
        check(&[], 0, &["001_x.sql"]);
        check(&["001_a.sql", "017_b.sql", "009_c.sql"], 0, &["018_x.sql"]);
        check(&["0099_a.sql"], 0, &["0100_x.sql"]);
        check(&["9_a.sql", "10_b.sql"], 0, &["11_x.sql"]);
        check(&["999_a.sql"], 0, &["1000_x.sql"]);
        check(&["01-a.sql"], 0, &["02-x.sql"]);
        check(&["1.sql"], 0, &["2_x.sql"]);
    }

    #[test]
    fn times_follow_times() {
        check(&["20250101000000_a.sql"], 0, &["20261121193000_x.sql"]);
        check(&["202501010000_a.sql"], 0, &["202611211930_x.sql"]);
        check(&["20991231235959_a.sql"], 0, &["20991231235960_x.sql"]);
    }

    #[test]
    fn the_way_back_is_where_the_folder_has_it() {
        check(&["1_a.sql", "1_a.down.sql"], 0, &["2_x.sql", "2_x.down.sql"]);
        check(&["1_a.sql", "1_a.down.sql", "2_b.sql"], 1, &["3_x.sql"]);
        assert!(sql(&[], 0, "x", NOW)[0].text.ends_with("-- migrate:down\n"));
    }

    #[test]
    fn versions_of_refinery_follow() {
        let next = |names: &[&str]| refinery(&names.iter().map(ToString::to_string).collect::<Vec<_>>(), "x").name;
        assert_eq!(next(&[]), "V1__x.sql");
        assert_eq!(next(&["V1__a.sql", "V10__b.sql", "U9__c.sql"]), "V11__x.sql");
        assert_eq!(next(&["V007__a.sql", "README.md"]), "V008__x.sql");
    }

    #[test]
    fn names_are_made_safe() {
        assert_eq!(sanitised("Add  due-dates!").as_deref(), Some("add_due_dates"));
        assert_eq!(sanitised("../../etc/passwd").as_deref(), Some("etc_passwd"));
        assert_eq!(sanitised("straße 7").as_deref(), Some("stra_e_7"));
        assert_eq!(sanitised("·—·"), None);
    }
}
