//! One migration: squawk's rules without what is harmless here, and ours. Pure.

use std::collections::BTreeSet;
use std::ops::Range;

use squawk_linter::{Linter, Rule as Squawk, Violation};
use squawk_syntax::SourceFile;
use squawk_syntax::ast::{self, AstNode};

use super::rules::{self, Rule};
use super::tables::{Made, place};
use super::{Allowed, Finding, Severity};
use crate::kind::Migration;
use crate::sql::checksum::without_bom;
use crate::sql::place::line_column;
use crate::sql::{directives, statements};

/// squawk says twice what is wrong with a new constraint: these are the rules that know which kind it is.
const MORE_EXACT: [Squawk; 3] =
    [Squawk::AddingForeignKeyConstraint, Squawk::AddingSerialPrimaryKeyField, Squawk::DisallowedUniqueConstraint];

/// What is dangerous in the text of a migration, by line.
#[must_use]
pub fn findings(it: &Migration, allowed: &Allowed) -> Vec<Finding> {
    let mut look = Look::new(it, allowed);
    look.at_directives();
    look.at_statements();
    look.by_squawk();
    look.found.sort_by_key(|it| (it.line, it.column));
    // squawk names both places of a column that stands twice.
    look.found.dedup_by(|next, it| (next.rule, next.line, &next.message) == (it.rule, it.line, &it.message));
    look.found
}

/// A warning if there is neither a way back nor a word that there is none.
#[must_use]
pub fn way_back(it: &Migration, allowed: &Allowed) -> Option<Finding> {
    let missing = it.down.is_none() && !it.irreversible;
    missing.then(|| about_the_file(it, rules::NO_WAY_BACK, "there is no way back", allowed)).flatten()
}

/// A warning that `others` carry the same number.
#[must_use]
pub fn duplicate(it: &Migration, others: &[&str], allowed: &Allowed) -> Option<Finding> {
    let message = format!("the number is that of {} too", others.join(", "));
    about_the_file(it, rules::DUPLICATE, &message, allowed)
}

fn about_the_file(it: &Migration, rule: &str, message: &str, allowed: &Allowed) -> Option<Finding> {
    let mut look = Look::new(it, allowed);
    look.find(rule, 0..0, message);
    look.found.pop()
}

struct Look<'a> {
    migration: &'a Migration,
    text: &'a str,
    allowed: BTreeSet<&'a str>,
    /// Names behind `-- migrate:allow` that no rule has, and their places.
    unknown: Vec<(&'a str, Range<usize>)>,
    found: Vec<Finding>,
}

impl<'a> Look<'a> {
    fn new(migration: &'a Migration, allowed: &'a Allowed) -> Self {
        let text = without_bom(&migration.up);
        // The text was read once without an error, and is read again as it was.
        let here = directives::allowed(text).unwrap_or_default();
        let known = |(name, _): &(&str, _)| rules::named(name).is_some_and(Rule::allowable);
        let (here, unknown): (Vec<_>, Vec<_>) = here.into_iter().partition(known);
        let allowed = allowed.iter().map(String::as_str).chain(here.into_iter().map(|(name, _)| name)).collect();
        Self { migration, text, allowed, unknown, found: Vec::new() }
    }

    fn find(&mut self, rule: &str, at: Range<usize>, message: &str) {
        let Some(rule) = rules::named(rule).filter(|it| !self.allowed.contains(it.name)) else { return };
        let place = line_column(self.text, at.start);
        self.found.push(Finding::new(rule, self.migration.path.clone(), place, message.to_owned()));
    }

    fn at_directives(&mut self) {
        for (name, at) in std::mem::take(&mut self.unknown) {
            let message = match rules::named(name) {
                Some(_) => format!("`{name}` cannot be allowed: correct the file"),
                None if name.is_empty() => "`migrate:allow` names no rule".to_owned(),
                None => format!("there is no rule `{name}`"),
            };
            self.find(rules::UNKNOWN_RULE, at, &message);
        }
    }

    fn at_statements(&mut self) {
        if self.migration.transactional {
            return;
        }
        let Ok(parts) = directives::read(self.text) else { return };
        let Some(second) = parts.up.statements.get(1) else { return };
        if let Some((it, name)) = parts.up.undeclared {
            let message = format!("{name} cannot run inside a transaction, so that the whole file has none");
            self.find(rules::CANNOT_RUN, it.start..it.end, &message);
        } else {
            let message = "a failure here leaves what stands above it done, and the file half applied";
            self.find(rules::SEVERAL, second.start..second.end, message);
        }
    }

    fn by_squawk(&mut self) {
        let text = statements::without_data(self.text);
        let parsed = SourceFile::parse(&text);
        if parsed.tree().stmts().next().is_none() && statements::split(self.text).is_ok_and(|it| it.is_empty()) {
            let before = self.found.len();
            self.find(rules::NO_STATEMENT, 0..0, "the file holds a comment alone, and will be applied as that");
            self.found[before..].iter_mut().for_each(|it| it.severity = Severity::Warning);
            return;
        }
        let mut harmless = Harmless::default();
        let mut made = Made::default();
        for statement in parsed.tree().stmts() {
            if made.has_all_of(&statement) {
                harmless.all.push(place(&statement));
            } else {
                self.at_statement(&statement, &mut harmless);
            }
            self.at_rows(&statement, &made);
            made.note(&statement);
        }
        let mut linter = Linter::from(rules::of_squawk());
        // The transaction is ours. Without one, a table is as new.
        linter.settings.assume_in_transaction = true;
        let violations = linter.lint(&parsed, &text);
        let exact: Vec<_> = violations.iter().filter(|it| MORE_EXACT.contains(&it.code)).map(range).collect();
        for violation in &violations {
            let place = range(violation);
            let told = violation.code == Squawk::ConstraintMissingNotValid
                && exact.iter().any(|exact| within(exact, &place) || within(&place, exact));
            if !told && !harmless.covers(violation.code, &place) {
                self.take(violation, place);
            }
        }
    }

    fn take(&mut self, violation: &Violation, place: Range<usize>) {
        let Some(rule) = rules::by_squawk(violation.code) else { return };
        let gentle = violation.code == Squawk::ChangingColumnType && widens(&self.text[place.clone()]);
        let before = self.found.len();
        self.find(rule.name, place, violation.message.trim_end_matches('.'));
        if let Some(found) = self.found.get_mut(before).filter(|_| gentle) {
            found.severity = Severity::Warning;
        }
    }

    /// New columns of a table that was there before.
    fn at_statement(&mut self, statement: &ast::Stmt, harmless: &mut Harmless) {
        if let ast::Stmt::Truncate(it) = statement {
            self.find(rules::TRUNCATE, place(it), "TRUNCATE removes every row");
        }
        let ast::Stmt::AlterTable(table) = statement else { return };
        for action in table.actions() {
            let ast::AlterTableAction::AddColumn(column) = action else { continue };
            let is_default = |it: &ast::Constraint| matches!(it, ast::Constraint::DefaultConstraint(_));
            if !column.constraints().any(|it| is_default(&it)) {
                harmless.columns_of_null.push(place(&column));
            }
            if let Some(check) = column.constraints().find(|it| matches!(it, ast::Constraint::CheckConstraint(_))) {
                let message = "the CHECK of a new column reads the whole table under an `ACCESS EXCLUSIVE` lock";
                self.find(rules::ADDING_CHECK, place(&check), message);
            }
        }
    }

    /// UPDATE and DELETE, those in WITH too; not those that a function or a rule is made of.
    fn at_rows(&mut self, statement: &ast::Stmt, made: &Made) {
        if matches!(statement, ast::Stmt::CreateFunction(_) | ast::Stmt::CreateProcedure(_) | ast::Stmt::CreateRule(_))
        {
            return;
        }
        for node in statement.syntax().descendants() {
            if let Some(it) = ast::Update::cast(node.clone()) {
                if it.where_clause_or_current_of().is_none() && !made.has_rows_of(it.relation_name()) {
                    self.find(rules::MISSING_WHERE, place(&it), "UPDATE without WHERE changes every row");
                }
            } else if let Some(it) = ast::Delete::cast(node)
                && it.where_clause_or_current_of().is_none()
                && !made.has_rows_of(it.relation_name())
            {
                self.find(rules::MISSING_WHERE, place(&it), "DELETE without WHERE removes every row");
            }
        }
    }
}

/// Where squawk's findings do not count.
#[derive(Default)]
struct Harmless {
    /// Statements about tables that the text makes itself.
    all: Vec<Range<usize>>,
    /// New columns without a default: the server knows that a foreign key holds for NULL alone, and reads no row.
    columns_of_null: Vec<Range<usize>>,
}

impl Harmless {
    fn covers(&self, rule: Squawk, place: &Range<usize>) -> bool {
        let covered = |by: &[Range<usize>]| by.iter().any(|it| within(place, it));
        covered(&self.all) || rule == Squawk::AddingForeignKeyConstraint && covered(&self.columns_of_null)
    }
}

fn range(violation: &Violation) -> Range<usize> {
    violation.text_range.start().into()..violation.text_range.end().into()
}

fn within(inner: &Range<usize>, outer: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// `TYPE text`: from varchar, the usual case, no row is touched.
fn widens(set_type: &str) -> bool {
    let words: Vec<String> = set_type.split_whitespace().map(str::to_ascii_lowercase).collect();
    let at = words.iter().position(|it| it == "type").map_or(0, |at| at + 1);
    matches!(words[at..].join(" ").as_str(), "text" | "varchar" | "character varying")
}
