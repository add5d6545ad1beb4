//! TLS means what libpq means by it: certificates of an authority that the test makes, a server that shows each of them, and for
//! every cell `psql` with the same URL beside us.

mod authority;
mod children;
mod matrix;
mod server;
