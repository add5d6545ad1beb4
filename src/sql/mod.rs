//! SQL text: tokens, statements, directives, transaction commands, checksums, quoting. Pure: text in, values out.
//!
//! `tokens` is PostgreSQL's lexer, `statements` cuts a text with it, `directives` reads the `-- migrate:` comments that it
//! found, `transaction` decides what of a file may be sent and how.

pub mod checksum;
pub mod demands;
pub mod directives;
pub mod duration;
pub mod effect;
pub mod error;
mod head;
pub mod index;
pub mod place;
pub mod quote;
pub mod statements;
pub mod tokens;
pub mod transaction;
