//! What the journal says about one database of a run, and how each entry changes that.

use chrono::{DateTime, Utc};

use crate::names::StepName;

use super::super::entry::{Identity, Swap};

/// What the journal says about one database.
#[derive(Debug, Clone, PartialEq)]
pub struct DatabaseState {
    /// The database, as the run found it.
    pub identity: Identity,
    /// Whether a proven snapshot of it is in the store.
    pub snapshot: bool,
    /// Whether it was changed.
    pub changed: Changed,
    /// Migrations that were applied and not rolled back.
    pub applied: u64,
    /// How far its restore got.
    pub restore: Restore,
    /// Its warm copy.
    pub standby: Standby,
    /// Whether a program of a step that was not meant for it changed it.
    pub strayed: bool,
    /// Steps on it that failed and may have left something.
    pub left_by: Vec<StepName>,
    /// Whether it was taken back by undoing every migration of the run.
    pub undone: bool,
    /// The roles of its server before the run, if a step has begun on it.
    pub roles: Vec<String>,
    /// Whether it was found changed when the run was taken up again.
    pub found_changed: bool,
}

/// Whether a run changed a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Changed {
    /// It is as it was before the run.
    No,
    /// A step was about to; only the database knows whether it did.
    Maybe,
    /// It was.
    Yes,
}

/// How far the restore of a database got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restore {
    /// Not begun.
    None,
    /// A side database of this name may exist, in any state.
    Begun(String),
    /// The side database of this name is whole.
    Ready(String),
    /// The exchange was about to be committed; only the server knows whether it was.
    Swapping(Swap),
    /// Exchanged.
    Swapped(Swap),
}

/// What the journal says about the warm copy of a database.
#[derive(Debug, Clone, PartialEq)]
pub enum Standby {
    /// None was begun.
    None,
    /// One of this name may be there; nobody would use it.
    Begun(String),
    /// It was made.
    Made(WarmCopy),
}

/// A warm copy that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct WarmCopy {
    /// Its name on the server.
    pub name: String,
    /// Its oid.
    pub oid: u32,
    /// Bytes on disk.
    pub bytes: u64,
    /// How long it took to make.
    pub seconds: f64,
    /// `txid_current_snapshot()` before it was made.
    pub horizon: String,
    /// When it was there.
    pub at: DateTime<Utc>,
}

impl DatabaseState {
    pub(super) fn new(identity: &Identity) -> Self {
        Self {
            identity: identity.clone(),
            snapshot: false,
            changed: Changed::No,
            applied: 0,
            restore: Restore::None,
            standby: Standby::None,
            strayed: false,
            left_by: Vec::new(),
            undone: false,
            roles: Vec::new(),
            found_changed: false,
        }
    }

    /// By which way an exchange took it back: `standby` or `snapshot`.
    #[must_use]
    pub fn via(&self, swap: &Swap) -> &'static str {
        match &self.standby {
            Standby::Made(copy) if copy.name == swap.side => "standby",
            _ => "snapshot",
        }
    }

    /// Whether the journal alone says that it is changed.
    #[must_use]
    pub fn is_known_changed(&self) -> bool {
        self.changed == Changed::Yes
    }

    pub(super) fn strayed(&mut self) {
        (self.changed, self.strayed) = (Changed::Yes, true);
    }

    pub(super) fn all_undone(&mut self) {
        (self.changed, self.applied, self.undone, self.found_changed) = (Changed::No, 0, true, false);
        self.left_by.clear();
    }

    pub(super) fn step_began(&mut self, roles: &[String]) {
        self.changed = self.changed.max(Changed::Maybe);
        // Once: a run that is taken up again has made some of those that it finds.
        if self.roles.is_empty() {
            self.roles = roles.to_vec();
        }
    }

    pub(super) fn step_ended(&mut self, applied: usize, changed: bool) {
        self.applied += applied as u64;
        let earlier = self.applied > 0 || self.strayed || self.found_changed || !self.left_by.is_empty();
        self.changed = if earlier || changed { Changed::Yes } else { Changed::No };
    }

    pub(super) fn step_failed(&mut self, step: &StepName, applied: usize, left_something: bool) {
        self.step_ended(applied, left_something);
        if left_something {
            self.left_by.push(step.clone());
        }
    }

    pub(super) fn swapped(&mut self, swap: Swap) {
        (self.changed, self.applied, self.strayed, self.found_changed) = (Changed::No, 0, false, false);
        self.left_by.clear();
        self.restore = Restore::Swapped(swap);
    }
}
