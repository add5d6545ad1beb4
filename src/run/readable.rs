//! Whether the snapshots that a plan takes can be read back here. Those that are encrypted need an identity for every rollback, and
//! that it is missing must not be learned after the first change.

use crate::event::Event;
use crate::failure::{Blame, Failure};
use crate::outside::encryption::IdentityError;
use crate::plan::{OnFailure, Plan};
use crate::snapshot::keys;
use crate::world::World;

/// What this process can do with the snapshots that it would take.
#[derive(Debug)]
pub enum Readable {
    /// They are not encrypted.
    Plain,
    /// They are, to somebody whose identity is at hand.
    Decrypted(String),
    /// They are, and nobody's is; but a failure leaves everything as it is.
    Elsewhere(String),
}

/// Why `apply` does not begin.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum NotReadable {
    /// What the file of identities holds is of no use.
    #[error("snapshots are encrypted to {recipients}, and {here}: {needed_by} could not read them")]
    #[diagnostic(
        code("preflight.identity"),
        help(
            "Set MIGRATE_AGE_IDENTITY_FILE to the file with the identity of one of them. Without one, write `[run] on_failure = \
             \"halt\"` and no `drill`: a failure then leaves the databases as they are, and `migrate rollback` is run where the identity is."
        )
    )]
    Nobody {
        /// `age1…`, with commas.
        recipients: String,
        /// What is here in place of the identity.
        here: String,
        /// A rollback, or a drill.
        needed_by: &'static str,
    },
    /// The file of identities cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] IdentityError),
}

/// Looks at the plan's recipients and at the identities at hand.
///
/// # Errors
/// A rollback or a drill of this plan would need an identity that is not here.
pub fn look(world: &World, plan: &Plan) -> Result<Readable, NotReadable> {
    let to: Vec<String> = plan.store.encrypt_to.iter().map(ToString::to_string).collect();
    if to.is_empty() {
        return Ok(Readable::Plain);
    }
    let here = match keys::at_hand(world)? {
        Some(it) if it.open_for(&to) => {
            return Ok(Readable::Decrypted(format!("snapshots are encrypted, and {} reads them", it.file().display())));
        }
        Some(it) => format!("none of them is in {}", it.file().display()),
        None => "MIGRATE_AGE_IDENTITY_FILE is not set".into(),
    };
    let recipients = to.join(", ");
    let needed_by = match (plan.run.drill, plan.run.on_failure) {
        (true, _) => "the drill of this plan",
        (_, OnFailure::Rollback) => "a rollback",
        _ => {
            let what = format!("snapshots are encrypted to {recipients}, and {here}: they can be read elsewhere alone");
            return Ok(Readable::Elsewhere(what));
        }
    };
    Err(NotReadable::Nobody { recipients, here, needed_by })
}

/// Refuses before anything is changed, and says so where a rollback will have to be run elsewhere.
///
/// # Errors
/// As [`look`].
pub fn preflight(world: &World, plan: &Plan) -> Result<(), Failure> {
    match look(world, plan) {
        Ok(Readable::Elsewhere(what)) => world.tell(Event::Noted(what)),
        Ok(_) => {}
        Err(error) => return Err(Failure::untouched(Blame::Work, error)),
    }
    Ok(())
}
