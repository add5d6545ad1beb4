//! Hooks on `freeze` and `unfreeze`: whoever uses databases hears that they are about to be cut off, and afterwards that they can
//! be reached again. The second word is owed from the moment at which the first is about to be said, whatever comes between, this
//! process's death included: the journal says so.

use crate::event::Event;
use crate::failure::list;
use crate::journal::entry::Fact;
use crate::journal::state::RunState;
use crate::journal::{Journal, JournalError};
use crate::names::DatabaseName;
use crate::plan::Plan;
use crate::plan::hooks::Moment;
use crate::world::World;

use super::hooks;
use super::report::RunReport;

/// Who is told, of which run.
#[derive(Clone, Copy)]
pub(super) struct Told<'a> {
    pub(super) world: &'a World,
    pub(super) journal: &'a Journal,
    /// The plan whose hooks are called.
    pub(super) plan: &'a Plan,
}

/// Databases whose users were told. Dropping it pays nothing: a second word takes [`Told::unfreeze`].
#[must_use = "whoever was told that databases are cut off must hear that they are back"]
pub(super) struct Frozen {
    databases: Vec<DatabaseName>,
    /// Hooks that failed, with the reason.
    pub(super) failures: Vec<String>,
}

impl Told<'_> {
    /// Tells whoever uses `databases` that they are about to be cut off. Without a hook that would hear of it nothing is written,
    /// so that an earlier version of the program can still read the journal.
    ///
    /// # Errors
    /// The journal failed, and nobody was told. A hook that failed is no error.
    pub(super) async fn freeze(
        &self,
        databases: Vec<DatabaseName>,
        report: &mut RunReport,
    ) -> Result<Option<Frozen>, JournalError> {
        if databases.is_empty() || !speaks_of_freezes(self.plan) {
            return Ok(None);
        }
        self.journal.write(Fact::FreezeStart { databases: databases.clone() }).await?;
        let failures = hooks::call(self.world, self.plan, Moment::Freeze, Some(&databases), report).await;
        Ok(Some(Frozen { databases, failures }))
    }

    /// Tells whoever heard of a freeze that it is over.
    ///
    /// # Errors
    /// The journal failed: they were told, and may be told again.
    pub(super) async fn unfreeze(&self, frozen: Option<Frozen>, report: &mut RunReport) -> Result<(), JournalError> {
        match frozen {
            Some(it) => self.over(it.databases, report).await,
            None => Ok(()),
        }
    }

    /// Says the second word that a process owed when it died. Its sessions are ended by now, and with them whatever kept the
    /// databases from being reached.
    ///
    /// # Errors
    /// As [`Told::unfreeze`].
    pub(super) async fn pay(&self, state: &RunState, report: &mut RunReport) -> Result<(), JournalError> {
        if state.frozen.is_empty() {
            return Ok(());
        }
        let databases: Vec<DatabaseName> = state.frozen.iter().cloned().collect();
        let names = list(&databases.iter().collect::<Vec<_>>());
        let note =
            format!("the hooks on freeze were called for {names} before the run was cut off: now those on unfreeze");
        self.world.tell(Event::Noted(note));
        self.over(databases, report).await
    }

    async fn over(&self, databases: Vec<DatabaseName>, report: &mut RunReport) -> Result<(), JournalError> {
        hooks::call(self.world, self.plan, Moment::Unfreeze, Some(&databases), report).await;
        self.journal.write(Fact::Unfrozen { databases }).await
    }
}

fn speaks_of_freezes(plan: &Plan) -> bool {
    plan.hooks.iter().any(|it| matches!(it.on, Moment::Freeze | Moment::Unfreeze))
}
