//! One integration binary: it links once, and its tests share one cluster.

mod cluster_proof;
mod copy;
mod fingerprint;
mod fingerprint_proof;
mod gcs_proof;
mod gcs_server;
mod harness;
mod release;
mod sync;
mod world;
