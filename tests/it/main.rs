//! The integration tests, all in one binary, so that they are linked once and can share what is costly to start.

mod gcs_proof;
mod gcs_server;
