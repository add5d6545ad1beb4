//! The program: everything is in the library, this only starts it.

use std::process::ExitCode;

// On one thread: an answer is heard where it is waited for. Compressing, digests and reading files have threads of their own.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    migrate::cli::main().await
}
