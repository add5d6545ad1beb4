//! How to go on with a file without a transaction that was cut off: what the ledger meant and what the database shows, and
//! from the two, a decision. Pure.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::sql::effect::{self, Effect};
use crate::sql::statements::{self, Statement, StatementKind};

/// What the ledger says of a file without a transaction that was begun and did not end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meant {
    /// The run that it was begun in, or last gone on with.
    pub run: String,
    /// Its text at that time.
    pub text: String,
    /// So many of its statements have ended.
    pub ended: usize,
    /// Whether the next one may have taken effect. Else it did not.
    pub unclear: bool,
    /// What the next one found.
    pub before: Option<Before>,
}

/// What a statement found that works on an index concurrently, by oid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Before {
    /// `CREATE INDEX CONCURRENTLY`.
    CreateIndex {
        /// Its table.
        table: i64,
        /// The table's indexes, valid or not.
        indexes: Vec<i64>,
    },
    /// `DROP INDEX CONCURRENTLY`.
    DropIndex {
        /// What it is to drop.
        index: i64,
    },
}

/// What the database shows of the statement that may have taken effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// It did; what was seen.
    Done(String),
    /// It did not, or to run it again does no harm.
    Nothing,
    /// It left this index, which is invalid, and which nobody is building.
    Invalid(String),
    /// Its table has these indexes that were not there before, and it names none: somebody else may have made them.
    Unnamed(Vec<NewIndex>),
    /// That cannot be told; what was seen.
    Unclear(String),
}

/// An index that was not there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewIndex {
    /// Quoted, with its schema.
    pub name: String,
    /// Whether queries use it.
    pub valid: bool,
    /// Whether another session works on its table as those do that build one.
    pub busy: bool,
}

impl NewIndex {
    /// Whether nobody will ever make it valid.
    #[must_use]
    pub fn is_left(&self) -> bool {
        !self.valid && !self.busy
    }
}

impl std::fmt::Display for NewIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = if self.valid { "valid" } else { "invalid" };
        let busy = if self.busy { ", with a session at work on its table" } else { "" };
        write!(f, "{} ({state}{busy})", self.name)
    }
}

/// How to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Within the file.
    GoOn(GoOn),
    /// Not at all: a statement that has run is not what it was.
    Edited {
        /// Which, from 1.
        statement: usize,
    },
    /// By a person's word about one statement.
    Ask(Question),
}

/// Where a file goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoOn {
    /// So many statements are passed over.
    pub from: usize,
    /// The line of the first that is sent; none, if only the end is to be written down.
    pub line: Option<usize>,
    /// An invalid index to be dropped first.
    pub drop: Option<String>,
}

/// What only a person can say: whether a statement took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The statement, from 1.
    pub statement: usize,
    /// Its line in the text that was sent.
    pub line: usize,
    /// Its beginning.
    pub text: String,
    /// What was seen in the database.
    pub seen: String,
}

impl Meant {
    /// The statement that may have taken effect, and how that can be told; none, if it is known that none did.
    #[must_use]
    pub fn in_question(&self) -> Option<(&str, Effect)> {
        let next = *statements::split(&self.text).ok()?.get(self.ended)?;
        let text = &self.text[next.start..next.end];
        self.unclear.then(|| (text, effect::of(text, next.kind)))
    }
}

/// How to go on with what was meant, in the text as it is now, by what the database shows of [`Meant::in_question`].
#[must_use]
pub fn decide(meant: &Meant, now: &str, shown: &Shown) -> Decision {
    let (then_all, now_all) = (statements::split(&meant.text), statements::split(now));
    let (Ok(then_all), Ok(now_all)) = (then_all, now_all) else { return Decision::Edited { statement: 1 } };
    let same = |at: usize| {
        let (then, new) = (then_all.get(at), now_all.get(at));
        then.zip(new).is_some_and(|(then, new)| whole(&meant.text, *then) == whole(now, *new))
    };
    if let Some(at) = (0..meant.ended).find(|at| !same(*at)) {
        return Decision::Edited { statement: at + 1 };
    }
    let go_on = |from: usize, drop: Option<String>| {
        let line = now_all.get(from).map(|it| statements::line_column(now, it.start).0);
        Decision::GoOn(GoOn { from, line, drop })
    };
    let Some(next) = then_all.get(meant.ended).filter(|_| meant.unclear) else { return go_on(meant.ended, None) };
    let ask = |seen: String| {
        let (line, _) = statements::line_column(&meant.text, next.start);
        let text = beginning(&meant.text[next.start..next.end]);
        Decision::Ask(Question { statement: meant.ended + 1, line, text, seen })
    };
    match shown {
        Shown::Nothing => go_on(meant.ended, None),
        Shown::Invalid(index) => go_on(meant.ended, Some(index.clone())),
        Shown::Done(_) if same(meant.ended) => go_on(meant.ended + 1, None),
        Shown::Done(seen) => ask(format!("{seen}; and it was edited since")),
        Shown::Unclear(seen) => ask(seen.clone()),
        Shown::Unnamed(indexes) => {
            let indexes = indexes.iter().map(NewIndex::to_string).collect::<Vec<_>>().join(", ");
            ask(format!("the statement names no index, and its table has new ones: {indexes}"))
        }
    }
}

/// A statement with its data; line ends make no difference.
fn whole(text: &str, it: Statement) -> Cow<'_, str> {
    let end = match it.kind {
        StatementKind::CopyFromStdin { data_end, .. } => data_end,
        _ => it.end,
    };
    let text = &text[it.start..end];
    if text.contains('\r') { Cow::Owned(text.replace("\r\n", "\n")) } else { Cow::Borrowed(text) }
}

/// Enough of a statement to know it again.
fn beginning(statement: &str) -> String {
    let words: String = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = words.chars().take(80).collect();
    if short.len() < words.len() { short + "…" } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "create table a ();\ncreate index concurrently i on a (b);\ncall p();\n";

    fn meant(ended: usize, unclear: bool) -> Meant {
        Meant { run: "r".into(), text: FILE.into(), ended, unclear, before: None }
    }

    #[track_caller]
    fn goes_on(meant: &Meant, now: &str, shown: &Shown, from: usize, line: Option<usize>) {
        assert_eq!(decide(meant, now, shown), Decision::GoOn(GoOn { from, line, drop: None }), "{meant:?}");
    }

    #[test]
    fn what_is_clear_goes_on_where_it_stopped() {
        for shown in [Shown::Nothing, Shown::Unclear("x".into())] {
            goes_on(&meant(0, false), FILE, &shown, 0, Some(1));
            goes_on(&meant(2, false), FILE, &shown, 2, Some(3));
            goes_on(&meant(3, false), FILE, &shown, 3, None);
            goes_on(&meant(3, true), FILE, &shown, 3, None);
        }
    }

    #[test]
    fn what_has_run_may_not_be_edited_and_the_rest_may() {
        let edited = FILE.replace("table a", "table z");
        assert_eq!(decide(&meant(1, false), &edited, &Shown::Nothing), Decision::Edited { statement: 1 });
        goes_on(&meant(0, false), &edited, &Shown::Nothing, 0, Some(1));
        assert_eq!(decide(&meant(2, false), "create table a ();", &Shown::Nothing), Decision::Edited { statement: 2 });
        // Comments, blanks between statements and line ends are no part of them.
        let same = format!("-- what for\r\n\r\n{}", FILE.replace('\n', "\r\n"));
        goes_on(&meant(2, false), &same, &Shown::Nothing, 2, Some(5));
        goes_on(&meant(3, false), &format!("{FILE}vacuum a;"), &Shown::Nothing, 3, Some(4));
        let data = Meant { text: "copy t from stdin;\n1\n\\.\n".into(), ..meant(1, false) };
        let changed = data.text.replace('1', "2");
        assert_eq!(decide(&data, &changed, &Shown::Nothing), Decision::Edited { statement: 1 });
    }

    #[test]
    fn the_database_decides_where_it_shows_something() {
        let it = meant(1, true);
        assert_eq!(it.in_question(), Some(("create index concurrently i on a (b)", Effect::CreatesIndex)));
        goes_on(&it, FILE, &Shown::Nothing, 1, Some(2));
        goes_on(&it, FILE, &Shown::Done("there".into()), 2, Some(3));
        let invalid = decide(&it, FILE, &Shown::Invalid("s.i".into()));
        assert_eq!(invalid, Decision::GoOn(GoOn { from: 1, line: Some(2), drop: Some("s.i".into()) }));
        assert_eq!(meant(1, false).in_question(), None);
        assert_eq!(meant(3, true).in_question(), None);
    }

    #[test]
    fn a_person_decides_where_it_does_not() {
        let Decision::Ask(it) = decide(&meant(2, true), FILE, &Shown::Unclear("nothing tells".into())) else {
            panic!("it must ask");
        };
        assert_eq!((it.statement, it.line, it.text.as_str()), (3, 3, "call p()"));
        assert_eq!(it.seen, "nothing tells");
        // It is done, and now it would be another: nobody but a person knows what is meant.
        let edited = FILE.replace("index concurrently i", "index concurrently j");
        let decided = decide(&meant(1, true), &edited, &Shown::Done("i is there".into()));
        assert!(matches!(decided, Decision::Ask(it) if it.seen.starts_with("i is there; and it was edited")));
        goes_on(&meant(1, true), &edited, &Shown::Nothing, 1, Some(2));
    }
}
