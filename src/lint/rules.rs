//! Every rule by name: how bad it is, what it finds, what to do instead. squawk's keep squawk's names.

use squawk_linter::Rule as Squawk;

use super::Severity::{self, Error, Warning};

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// Its name, in kebab case.
    pub name: &'static str,
    /// How bad a finding is.
    pub severity: Severity,
    /// What it finds, in a line.
    pub about: &'static str,
    /// What to do instead.
    pub help: &'static str,
    source: Source,
}

/// Who looks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The reading of files, and the ledgers. What cannot be understood, or is not what was applied, cannot be allowed.
    Reading,
    /// This module.
    Ours,
    /// squawk-linter.
    Squawk(Squawk),
}

const fn reading(name: &'static str, about: &'static str, help: &'static str) -> Rule {
    Rule { name, severity: Error, about, help, source: Source::Reading }
}

const fn ours(name: &'static str, severity: Severity, about: &'static str, help: &'static str) -> Rule {
    Rule { name, severity, about, help, source: Source::Ours }
}

const fn squawk(rule: Squawk, name: &'static str, severity: Severity, about: &'static str, help: &'static str) -> Rule {
    Rule { name, severity, about, help, source: Source::Squawk(rule) }
}

pub(super) const CANNOT_RUN: &str = "cannot-run-in-transaction";
pub(super) const TRANSACTION_COMMAND: &str = "transaction-command";
pub(super) const NO_STATEMENT: &str = "no-statement";
pub(super) const UNREADABLE: &str = "unreadable";
pub(super) const EDITED: &str = "edited-after-applied";
pub(super) const UNKNOWN_RULE: &str = "unknown-rule";
pub(super) const SEVERAL: &str = "several-statements-without-transaction";
pub(super) const DUPLICATE: &str = "duplicate-number";
pub(super) const NO_WAY_BACK: &str = "no-way-back";
pub(super) const MISSING_WHERE: &str = "missing-where";
pub(super) const TRUNCATE: &str = "truncate";
pub(super) const ADDING_CHECK: &str = "adding-column-with-check";

const NOT_VALID: &str = "Add it NOT VALID, and let a later migration VALIDATE CONSTRAINT.";
const CLIENTS: &str = "Release clients that do without it first; then allow it by name.";
const CONCURRENTLY: &str = "Do it CONCURRENTLY, in a file of its own.";

/// Every rule.
pub static RULES: &[Rule] = &[
    reading(
        CANNOT_RUN,
        "a statement that the server refuses inside a transaction: between BEGIN and COMMIT, in a `refinery` file, or beside \
         others, which then have none without a word",
        "Put it into a file of its own; or say `-- migrate:no-transaction`.",
    ),
    reading(
        TRANSACTION_COMMAND,
        "a transaction command other than a BEGIN … COMMIT around the whole file",
        "Remove it: the migration and its row in the ledger are one commit.",
    ),
    reading(
        NO_STATEMENT,
        "nothing to run, in a migration or its way back (a file with a comment alone: a warning)",
        "Write the statement, or remove the file. One that was emptied after it had been applied stays.",
    ),
    reading(UNREADABLE, "a file, a name or a directive that is not understood", "Correct the file or its name."),
    reading(
        UNKNOWN_RULE,
        "`-- migrate:allow` without a rule that there is and that can be allowed",
        "README.md has the table of rules.",
    ),
    reading(
        EDITED,
        "a file that is not what was applied, by the ledgers of the target",
        "Restore it, and write a new migration; or accept it with `migrate repair checksum STEP/NAME`.",
    ),
    ours(
        SEVERAL,
        Warning,
        "several statements in a file without a transaction: a failure leaves some of them done",
        "Keep such a file to one statement.",
    ),
    ours(DUPLICATE, Warning, "a number that another file carries too", "Give the newer file the next free number."),
    ours(
        NO_WAY_BACK,
        Warning,
        "neither a way back nor `-- migrate:irreversible`",
        "Write `-- migrate:down` and what undoes it, or say `-- migrate:irreversible`.",
    ),
    ours(
        MISSING_WHERE,
        Error,
        "UPDATE or DELETE without WHERE: every row of the table",
        "Write the WHERE; where every row is meant, allow it by name.",
    ),
    ours(TRUNCATE, Error, "TRUNCATE: every row of the table", "Delete what is meant; or allow it by name."),
    ours(
        ADDING_CHECK,
        Error,
        "ADD COLUMN with a CHECK: the table is read under a lock that stops everybody",
        "Add the column alone, then the CHECK as a constraint NOT VALID, and let a later migration VALIDATE it.",
    ),
    squawk(
        Squawk::RequireConcurrentIndexCreation,
        "require-concurrent-index-creation",
        Error,
        "CREATE INDEX that stops writes for as long as it builds",
        CONCURRENTLY,
    ),
    squawk(
        Squawk::RequireConcurrentReindex,
        "require-concurrent-reindex",
        Error,
        "REINDEX that stops writes for as long as it builds",
        CONCURRENTLY,
    ),
    squawk(
        Squawk::RequireConcurrentIndexDeletion,
        "require-concurrent-index-deletion",
        Warning,
        "DROP INDEX that stops everybody until it has its lock",
        CONCURRENTLY,
    ),
    squawk(
        Squawk::RequireConcurrentPartitionDetach,
        "require-concurrent-partition-detach",
        Warning,
        "DETACH PARTITION that stops everybody until it has its lock",
        CONCURRENTLY,
    ),
    squawk(
        Squawk::ConstraintMissingNotValid,
        "constraint-missing-not-valid",
        Error,
        "a new constraint whose rows are read while writes wait",
        NOT_VALID,
    ),
    squawk(
        Squawk::AddingForeignKeyConstraint,
        "adding-foreign-key-constraint",
        Error,
        "a new foreign key whose rows are read while writes to both tables wait",
        NOT_VALID,
    ),
    squawk(
        Squawk::AddingNotNullableField,
        "adding-not-nullable-field",
        Error,
        "SET NOT NULL: the table is read under a lock that stops everybody",
        "Add CHECK (column IS NOT NULL) NOT VALID, validate it in a later migration, then SET NOT NULL.",
    ),
    squawk(
        Squawk::AddingRequiredField,
        "adding-required-field",
        Error,
        "ADD COLUMN that is NOT NULL without a default: it fails on a table with rows",
        "Give it a DEFAULT that is not volatile, or leave NOT NULL to a later migration.",
    ),
    squawk(
        Squawk::AddingFieldWithDefault,
        "adding-field-with-default",
        Error,
        "ADD COLUMN with a volatile default or a generated value: the table is rewritten",
        "Add the column without it, fill it in batches, then set the default.",
    ),
    squawk(
        Squawk::AddingSerialPrimaryKeyField,
        "adding-serial-primary-key-field",
        Error,
        "a new primary key whose index is built under a lock that stops everybody",
        "Create the unique index CONCURRENTLY first, then ADD PRIMARY KEY USING INDEX.",
    ),
    squawk(
        Squawk::DisallowedUniqueConstraint,
        "disallowed-unique-constraint",
        Error,
        "a new UNIQUE whose index is built under a lock that stops everybody",
        "Create the unique index CONCURRENTLY first, then ADD CONSTRAINT … UNIQUE USING INDEX.",
    ),
    squawk(
        Squawk::ChangingColumnType,
        "changing-column-type",
        Error,
        "a change of type that may rewrite the table (to text or varchar without a length: a warning)",
        "Add a column of the new type, fill it, and let clients move; or allow it where no rewrite happens.",
    ),
    squawk(Squawk::BanDropTable, "ban-drop-table", Error, "DROP TABLE: its rows are gone", CLIENTS),
    squawk(Squawk::BanDropColumn, "ban-drop-column", Error, "DROP COLUMN: its values are gone", CLIENTS),
    squawk(Squawk::BanDropSchema, "ban-drop-schema", Error, "DROP SCHEMA", CLIENTS),
    squawk(Squawk::BanDropDatabase, "ban-drop-database", Error, "DROP DATABASE", "Do that by hand."),
    squawk(
        Squawk::BanDuplicateColumnAssignments,
        "ban-duplicate-column-assignments",
        Error,
        "a column that one statement names twice",
        "Name it once.",
    ),
    squawk(
        Squawk::BanAlterDomainWithAddConstraint,
        "ban-alter-domain-with-add-constraint",
        Warning,
        "a new constraint on a domain: every table with such a column is read",
        NOT_VALID,
    ),
    squawk(Squawk::RenamingTable, "renaming-table", Warning, "a table that clients know by another name", CLIENTS),
    squawk(Squawk::RenamingColumn, "renaming-column", Warning, "a column that clients know by another name", CLIENTS),
    squawk(Squawk::BanDropView, "ban-drop-view", Warning, "DROP VIEW", CLIENTS),
    squawk(Squawk::BanDropFunction, "ban-drop-function", Warning, "DROP FUNCTION", CLIENTS),
    squawk(Squawk::BanDropType, "ban-drop-type", Warning, "DROP TYPE", CLIENTS),
    squawk(Squawk::BanDropSequence, "ban-drop-sequence", Warning, "DROP SEQUENCE", CLIENTS),
    squawk(
        Squawk::BanDropNotNull,
        "ban-drop-not-null",
        Warning,
        "DROP NOT NULL: clients may not expect a NULL",
        CLIENTS,
    ),
    squawk(Squawk::BanSetSchema, "ban-set-schema", Warning, "SET SCHEMA: clients know it in another", CLIENTS),
    squawk(
        Squawk::BanCharField,
        "ban-char-field",
        Warning,
        "char(n), which is padded with blanks",
        "Use text, with a CHECK of its length where it matters.",
    ),
    squawk(
        Squawk::IdentifierTooLong,
        "identifier-too-long",
        Warning,
        "a name of more than 63 bytes, which the server cuts",
        "Choose a shorter name.",
    ),
];

impl Rule {
    /// Whether it may be allowed by name, in a file or in the plan.
    #[must_use]
    pub fn allowable(&self) -> bool {
        self.source != Source::Reading
    }

    /// Whether it is one of squawk-linter's.
    #[must_use]
    pub fn of_squawk(&self) -> bool {
        self.squawk().is_some()
    }

    fn squawk(&self) -> Option<Squawk> {
        match self.source {
            Source::Squawk(rule) => Some(rule),
            Source::Reading | Source::Ours => None,
        }
    }
}

/// The rule of that name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|it| it.name == name)
}

/// squawk's rules that are used.
pub(super) fn of_squawk() -> impl Iterator<Item = Squawk> {
    RULES.iter().filter_map(Rule::squawk)
}

/// Ours for squawk's.
pub(super) fn by_squawk(rule: Squawk) -> Option<&'static Rule> {
    RULES.iter().find(|it| it.squawk() == Some(rule))
}
