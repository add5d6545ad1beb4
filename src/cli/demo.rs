//! `migrate demo`: the whole story on throw-away databases.

use crate::failure::Exit;

use super::Ended;
use super::args::DemoArgs;
use super::context::Context;

/// Runs it.
///
/// # Errors
/// A step of the story failed.
pub async fn run(_context: &Context<'_>, _args: DemoArgs) -> Ended {
    Ok(Exit::Done)
}
