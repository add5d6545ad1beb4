//! What can be wrong with a plan. A [`Problem`] is what and what to do; a [`PlanError`] adds the place in the file.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};

use super::literal;
use super::segments::EdgeError;
use crate::kind::ReadError;
use crate::names::NameError;
use crate::outside::encryption::RecipientError;
use crate::outside::url::UrlError;

/// Why there is no plan. Nothing has been touched yet.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum PlanError {
    /// The file itself.
    #[error("the plan file `{}` cannot be read", path.display())]
    #[diagnostic(
        code("plan.unreadable"),
        help("Name another file with `-p`, or in the environment as `MIGRATE_PLAN`.")
    )]
    Unreadable {
        /// As the user named it.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Something in the file, or a target that is not in it.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Invalid(Box<Invalid>),
    /// A folder of migrations, or a file in one.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Files(Box<ReadError>),
    /// A migration that waits for another, and cannot.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Edge(Box<EdgeError>),
}

impl PlanError {
    pub(super) fn new(source: &Source, span: Range<usize>, problem: Problem) -> Self {
        Self::Invalid(Box::new(Invalid { problem, source: source.clone(), span: Some(span) }))
    }

    /// A problem that no place in the file is to blame for.
    pub(super) fn nowhere(source: &Source, problem: Problem) -> Self {
        Self::Invalid(Box::new(Invalid { problem, source: source.clone(), span: None }))
    }

    /// Whether another version of the program may read it: the plan is of another version, or says what this one does not know.
    #[must_use]
    pub fn is_of_another_version(&self) -> bool {
        use Problem::{Type, UnknownKey, Unsupported, Version, Word};
        let Self::Invalid(it) = self else { return false };
        matches!(it.problem, Version { .. } | UnknownKey { .. } | Type { .. } | Word { .. } | Unsupported { .. })
    }

    /// Where it is, as `plans/production.toml:12:8`, for renderings without the labelled source. None if the error is about
    /// no place in the plan file.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        match self {
            Self::Invalid(invalid) => invalid.place(),
            Self::Unreadable { .. } | Self::Files(_) | Self::Edge(_) => None,
        }
    }
}

impl From<EdgeError> for PlanError {
    fn from(error: EdgeError) -> Self {
        Self::Edge(Box::new(error))
    }
}

impl From<ReadError> for PlanError {
    fn from(error: ReadError) -> Self {
        Self::Files(Box::new(error))
    }
}

/// A problem and where it is.
#[derive(Debug)]
pub struct Invalid {
    problem: Problem,
    source: Source,
    span: Option<Range<usize>>,
}

impl Invalid {
    fn place(&self) -> Option<String> {
        let before = self.source.text().get(..self.span.as_ref()?.start)?;
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |it| it.chars().count()) + 1;
        Some(format!("{}:{line}:{column}", self.source.name()))
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for Invalid {}

impl Diagnostic for Invalid {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.code()
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.help()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.span.is_some().then_some(&*self.source.0 as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span.clone()?;
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(Some("here".to_owned()), span))))
    }
}

/// The text that errors point into. Literal passwords in it are starred out, letter by letter, so that spans still fit.
#[derive(Clone)]
pub(super) struct Source(Arc<NamedSource<String>>, Arc<str>);

impl Source {
    pub(super) fn new(name: &str, text: &str) -> Self {
        let shown = literal::star_out(text);
        Self(Arc::new(NamedSource::new(name, shown.clone())), shown.into())
    }

    pub(super) fn name(&self) -> &str {
        self.0.name()
    }

    pub(super) fn text(&self) -> &str {
        &self.1
    }
}

/// Its name is enough: the text would bury the error.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.name()).finish()
    }
}

/// What is wrong with a plan.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub(super) enum Problem {
    #[error("{message}")]
    #[diagnostic(code("plan.syntax"), help("Correct the TOML at this place."))]
    Syntax { message: String },

    #[error("the plan is of version {found}, and this migrate reads version 1")]
    #[diagnostic(code("plan.version"), help("Write `version = 1`, or use a newer migrate."))]
    Version { found: String },

    #[error("`{key}` is not a key of {place}")]
    #[diagnostic(code("plan.unknown_key"), help("{}The keys of {place} are {}.", suggestion(key, known), list(known)))]
    UnknownKey { key: String, place: String, known: Vec<String> },

    #[error("the plan has no `version`")]
    #[diagnostic(code("plan.version"), help("Add `version = 1`."))]
    NoVersion,

    #[error("{place} has no `{key}`")]
    #[diagnostic(code("plan.missing_key"), help("Add `{key} = …`."))]
    MissingKey { key: String, place: String },

    #[error("{place}: {found} stands where {wanted} belongs")]
    #[diagnostic(code("plan.type"), help("Write {wanted} here."))]
    Type { place: String, found: String, wanted: String },

    #[error("{place}: {message}")]
    #[diagnostic(code("plan.value"), help("{help}"))]
    Value { place: String, message: String, help: String },

    #[error("{place}: `{word}` is not one of {}", list(known))]
    #[diagnostic(code("plan.word"), help("{}Write one of {}.", suggestion(word, known), list(known)))]
    Word { place: String, word: String, known: Vec<String> },

    #[error("{what} is not supported by this version of migrate")]
    #[diagnostic(code("plan.unsupported"), help("{help}"))]
    Unsupported { what: String, help: &'static str },

    #[error("{0}")]
    #[diagnostic(code("plan.name"), help("Choose another name."))]
    Name(NameError),

    #[error("the plan holds a literal password")]
    #[diagnostic(
        code("plan.literal_password"),
        help(
            "Put `${{NAME}}` in its place and the password in the environment; change the password if the file was shared."
        )
    )]
    LiteralPassword,

    #[error("a `${{` has no `}}`")]
    #[diagnostic(code("plan.variable"), help("A variable is written `${{NAME}}`."))]
    OpenVariable,

    #[error("a `${{…}}` does not hold the name of a variable")]
    #[diagnostic(code("plan.variable"), help("A variable is written `${{NAME}}`, with letters, digits and `_`."))]
    BadVariable,

    #[error("the variable `{variable}` is {}, and {needed_by} needs it", if *empty { "empty" } else { "not set" })]
    #[diagnostic(code("plan.unset_variable"), help("Set `{variable}` in the environment."))]
    Unset { variable: String, needed_by: String, empty: bool },

    #[error("{needed_by}: {error}")]
    #[diagnostic(code("plan.url"), help("{}", error.help().map(|it| it.to_string()).unwrap_or_default()))]
    Url { needed_by: String, error: UrlError },

    #[error("the store's URL {what}")]
    #[diagnostic(code("plan.store"), help("Write `gs://BUCKET/PREFIX`, `s3://BUCKET/PREFIX` or `file:///FOLDER`."))]
    Store { what: &'static str },

    #[error("`encrypt_to` of `[store]`: {error}")]
    #[diagnostic(
        code("plan.recipient"),
        help(
            "Make an identity with `age-keygen -o FILE`, which prints its recipient: write that, and keep FILE where it is safe."
        )
    )]
    Recipient { error: RecipientError },

    #[error("the plan has no target")]
    #[diagnostic(code("plan.no_target"), help("Add `[targets.local.databases]` with a URL for each database."))]
    NoTarget,

    #[error("the plan has no target `{name}`")]
    #[diagnostic(code("plan.unknown_target"), help("{}The targets are {}.", suggestion(name, known), list(known)))]
    UnknownTarget { name: String, known: Vec<String> },

    #[error("no target is chosen")]
    #[diagnostic(
        code("plan.no_target_chosen"),
        help("Name one with `-t`, or set `default_target` in the plan; the targets are {}.", list(known))
    )]
    NoTargetChosen { known: Vec<String> },

    #[error("target `{target}` has no database")]
    #[diagnostic(code("plan.empty_target"), help("Add `NAME = \"${{URL_VARIABLE}}\"` for each database."))]
    EmptyTarget { target: String },

    #[error("{by} names the database `{name}`, which {}", target.as_ref().map_or_else(|| "no target has".to_owned(), |it| format!("target `{it}` does not have")))]
    #[diagnostic(code("plan.unknown_database"), help("{}The databases are {}.", suggestion(name, known), list(known)))]
    UnknownDatabase { by: String, name: String, target: Option<String>, known: Vec<String> },

    #[error("databases `{first}` and `{second}` of target `{target}` are one database")]
    #[diagnostic(
        code("plan.same_database"),
        help("Correct one of the two URLs: their host, port and database are the same.")
    )]
    SameDatabase { first: String, second: String, target: String },

    #[error("two {what}s are called `{name}`")]
    #[diagnostic(code("plan.duplicate"), help("Give one of them another name."))]
    Duplicate { what: &'static str, name: String },

    #[error("step `{step}` waits for `{name}`, which is not in the plan")]
    #[diagnostic(code("plan.unknown_step"), help("{}The other steps are {}.", suggestion(name, known), list(known)))]
    UnknownStep { step: String, name: String, known: Vec<String> },

    #[error("step `{step}` waits for itself")]
    #[diagnostic(code("plan.self_dependency"), help("Remove `{step}` from its own `after`."))]
    WaitsForItself { step: String },

    #[error("the steps wait for one another: {}", cycle.join(" → "))]
    #[diagnostic(
        code("plan.cycle"),
        help("Each waits for the next; remove one of them from the `after` of the one before it.")
    )]
    Cycle { cycle: Vec<String> },

    #[error("{by} names the same table as its source and its target")]
    #[diagnostic(code("plan.same_table"), help("Name another table, or a table of another database."))]
    SameTable { by: String },

    #[error("`{key}` of {by} is empty")]
    #[diagnostic(code("plan.empty"), help("{help}"))]
    Empty { by: String, key: &'static str, help: &'static str },

    #[error("step `{step}` omits `{column}`, which is in its `key`")]
    #[diagnostic(
        code("plan.omitted_key"),
        help("Remove `{column}` from `omit`: without it the rows cannot be told apart.")
    )]
    OmittedKey { step: String, column: String },

    #[error("{by} has {} of `modules` and `order_file`", if *both { "both" } else { "neither" })]
    #[diagnostic(
        code("plan.one_of"),
        help(
            "{} The order of the modules stands in one place.",
            if *both { "Remove one of the two." } else { "Add `modules = [\"app.migrations.NAME\"]`, or `order_file`." }
        )
    )]
    OneOf { by: String, both: bool },

    #[error("`argv` of {step} holds a password: `{word}`")]
    #[diagnostic(
        code("plan.password_in_argv"),
        help("Every user of the machine can read arguments. Pass it in `env`; PGPASSWORD is set already.")
    )]
    PasswordInArguments { step: String, word: String },

    #[error("`allow` of `[lint]` names `{name}`, which is no rule that can be allowed")]
    #[diagnostic(code("plan.unknown_rule"), help("{}README.md has the table of rules.", suggestion(name, known)))]
    UnknownRule { name: String, known: Vec<String> },

    #[error("the folder `{dir}` of step `{step}` does not exist")]
    #[diagnostic(code("plan.no_folder"), help("Create it, or correct `dir`; it is relative to `{}`.", root.display()))]
    NoFolder { step: String, dir: String, root: PathBuf },

    #[error("`{key}` of {by} names `{path}`, which does not exist")]
    #[diagnostic(
        code("plan.no_file"),
        help(
            "Correct it; it is relative to `{}`. A pattern such as `*.sql` is not expanded: of `inputs`, name the folder.",
            root.display()
        )
    )]
    NoFile { key: &'static str, by: String, path: String, root: PathBuf },

    #[error("`{key}` of {by} names the module `{module}`, and there is no {}", file.display())]
    #[diagnostic(
        code("plan.no_module"),
        help("Correct the name, or `dir`: modules are looked for in `{}`.", dir.display())
    )]
    NoModule { key: &'static str, by: String, module: String, file: PathBuf, dir: PathBuf },
}

/// `` `a`, `b`, `c` ``.
fn list(words: &[String]) -> String {
    if words.is_empty() {
        return "none".to_owned();
    }
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

fn suggestion(word: &str, known: &[String]) -> String {
    nearest(word, known).map_or_else(String::new, |it| format!("Did you mean `{it}`? "))
}

/// The known word that is nearest to `word`, if it is near enough to be what was meant.
fn nearest<'a>(word: &str, known: &'a [String]) -> Option<&'a str> {
    let letters = word.chars().count();
    let limit = (letters / 3).max(1).min(letters.saturating_sub(1));
    let near = known.iter().map(|it| (distance(word, it), it)).filter(|(distance, _)| *distance <= limit);
    near.min_by_key(|(distance, _)| *distance).map(|(_, it)| it.as_str())
}

/// How many letters must be added, removed, replaced, or swapped with their neighbour.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![(0..=other.len()).collect::<Vec<_>>()];
    for i in 1..=one.len() {
        let mut row = vec![i];
        for j in 1..=other.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
            let swap = i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1];
            let swapped = if swap { rows[i - 2][j - 2] + 1 } else { usize::MAX };
            row.push(replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1).min(swapped));
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_suggested_only_if_it_is_near() {
        assert_eq!((distance("", "abc"), distance("kitten", "sitting"), distance("ü", "u")), (3, 3, 1));
        assert_eq!((distance("ulr", "url"), distance("on_failrue", "on_failure")), (1, 1));
        let known = ["compression".to_owned(), "url".to_owned(), "retention".to_owned()];
        assert_eq!(nearest("compresion", &known), Some("compression"));
        assert_eq!(nearest("uri", &known), Some("url"));
        assert_eq!(nearest("bucket", &known), None);
        assert_eq!(nearest("c", &["a".to_owned()]), None);
    }
}
