//! One integration binary: it links once, and its tests share one cluster.

mod cluster_proof;
mod copy;
mod fingerprint;
mod fingerprint_proof;
mod gcs_proof;
mod gcs_server;
mod harness;
mod kill;
mod memory;
mod release;
mod rollback;
mod round_trip;
mod store;
mod sync;
mod world;
