//! How `migrate` reads SQL, compared with how PostgreSQL does: its scanner and its grammar, as `pg_query` packs them.
//! `tests/regress.rs` compares over PostgreSQL's regression tests, `fuzz_targets/` over what a fuzzer makes of them.

pub mod compare;
pub mod postgres;
// The module itself, and not the crate: it is pure, and this way nothing else of `migrate` is built.
#[allow(dead_code)]
#[path = "../../src/sql/mod.rs"]
pub mod sql;
