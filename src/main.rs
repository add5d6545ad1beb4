//! The program: everything is in the library, this only starts it.

use std::process::ExitCode;

/// The C library keeps much of what was given back: a dump of minutes took twice the memory that it had in use.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

#[tokio::main]
async fn main() -> ExitCode {
    migrate::cli::main().await
}
