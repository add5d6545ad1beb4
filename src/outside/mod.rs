//! Everything that is not us: PostgreSQL, child processes, the store, the clock.

pub mod secret;
pub mod url;
