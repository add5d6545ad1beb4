//! `migrate` carries one release across several PostgreSQL databases and, if anything goes wrong, carries all of them
//! back. The modules, in the order in which data flows:
//!
//! - [`plan`]: what should be; pure once the files are read
//! - [`sql`]: SQL text: statements, directives, checksums; pure
//! - [`tables`]: two tables in two databases, and how they differ
//! - [`kind`]: the kinds of step: files in, effect on a database out
//! - [`lint`]: what is dangerous in migrations, by their text alone
//! - [`snapshot`]: how it was: `pg_dump` to the store, and back
//! - [`run`]: doing it: look first, lock, apply, roll back
//! - [`verify`]: is it right
//! - [`journal`]: the record: entries in the store, ledger rows in the databases
//! - [`outside`]: everything that is not us: PostgreSQL, processes, the store, the clock
//! - [`cli`]: how it looks; the only place that prints
//! - [`names`], [`event`], [`failure`], [`version`], [`world`]: the words that every stage uses
//! - [`crash`]: where tests end the process; nothing in a release build

pub mod cli;
pub mod crash;
pub mod event;
pub mod failure;
pub mod journal;
pub mod kind;
pub mod lint;
pub mod names;
pub mod outside;
pub mod plan;
pub mod run;
pub mod snapshot;
pub mod sql;
pub mod tables;
pub mod verify;
pub mod version;
pub mod world;
