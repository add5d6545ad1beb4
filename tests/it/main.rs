//! The integration tests: one binary, one cluster, a file per subject.

mod cluster_proof;
mod fingerprint;
mod fingerprint_proof;
mod harness;
