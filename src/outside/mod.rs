//! Everything that is not us: PostgreSQL, child processes, the store, the clock.

pub mod child;
pub mod clock;
pub mod cluster;
pub mod disk;
mod durable;
pub mod encryption;
pub mod interrupt;
pub mod keepalive;
pub mod pool;
pub mod postgres;
pub mod process;
pub mod secret;
pub mod store;
pub mod tls;
pub mod url;
pub mod web;
