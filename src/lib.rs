//! `migrate` carries one release across several PostgreSQL databases and, if anything goes wrong, carries all of them
//! back. The modules, in the order in which data flows:
//!
//! - [`plan`]: what should be; pure once the files are read
//! - [`sql`]: SQL text: statements, directives, checksums; pure
//! - [`tables`]: two tables in two databases, and how they differ
//! - [`kind`]: the kinds of step: files in, effect on a database out
//! - [`verify`]: is it right
//! - [`outside`]: everything that is not us: PostgreSQL, processes, the store, the clock
//! - [`names`]: the words that every stage uses

pub mod kind;
pub mod names;
pub mod outside;
pub mod plan;
pub mod sql;
pub mod tables;
pub mod verify;
