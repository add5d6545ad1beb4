//! One integration binary: it links once, and its tests share one cluster.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "tests print what they measured")]
#![allow(clippy::disallowed_methods, reason = "tests make the world that `World` gathers")]

mod at_once;
mod bad_inputs;
mod baseline;
mod cluster_proof;
mod commands;
mod copy;
mod crash;
mod cut_off;
mod drift;
mod edges;
mod exit_codes;
mod fingerprint;
mod fingerprint_proof;
mod four;
mod gcs_proof;
mod gcs_server;
mod harness;
mod kill;
mod kinds;
mod lost;
mod memory;
mod mend;
mod no_leaks;
mod programs;
mod quirks;
mod release;
mod repair_index;
mod resume;
mod rollback;
mod round_trip;
mod round_trips;
mod s3_server;
mod snapshots;
mod soak;
mod store;
mod sync;
mod tls;
mod versions;
mod world;
