//! The program: everything is in the library, this only starts it.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    migrate::cli::main().await
}
