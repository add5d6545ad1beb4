//! One integration binary: it links once, and its tests share one cluster.

#![expect(clippy::disallowed_methods, reason = "the tests are the world outside: their clock and environment are real")]

mod cluster_proof;
mod commands;
mod copy;
mod drift;
mod exit_codes;
mod fingerprint;
mod fingerprint_proof;
mod four;
mod gcs_proof;
mod gcs_server;
mod harness;
mod kill;
mod kinds;
mod memory;
mod no_leaks;
mod release;
mod rollback;
mod round_trip;
mod store;
mod sync;
mod world;
