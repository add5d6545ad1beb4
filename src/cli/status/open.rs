//! A run that needs somebody: how far it got, and what each way out would do.

use serde::Serialize;

use crate::failure::list;
use crate::journal::state::RunState;
use crate::names::{DatabaseName, RunId};
use crate::plan::Plan;
use crate::run::recover::{Outlook, Stand, outlook, stand};
use crate::run::resume::word;
use crate::run::survey::Survey;
use crate::version::THIS;

use super::super::text::plural;

/// What `status --json` says of it.
#[derive(Serialize)]
pub(super) struct Open {
    run: RunId,
    state: &'static str,
    /// `forward`, or `back` if a rollback of it was cut off.
    direction: &'static str,
    /// Migrations of it that took effect.
    took_effect: usize,
    /// What `resume` would apply.
    ahead: Vec<String>,
    /// What keeps `resume` from going on.
    obstacles: Vec<String>,
    /// What has to be said first.
    resolve: Vec<String>,
    /// The databases that it has changed, or may have.
    changed: Vec<DatabaseName>,
    /// The databases for which hooks on `freeze` were called, and those on `unfreeze` were not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    frozen: Vec<DatabaseName>,
    /// The version of `migrate` that wrote it, if this one does not know all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    newer: Option<String>,
}

impl Open {
    pub(super) fn of(state: &RunState, plan: &Plan, survey: &Survey) -> Self {
        let back = matches!(stand(state), Stand::GoingBack(_));
        let outlook = if back { Outlook::default() } else { outlook(state, plan, survey) };
        let unreachable = state.databases.keys().filter(|name| survey.found(name).is_none());
        let unreachable = unreachable.map(|name| format!("{name}: what it has of the run is not known"));
        let resolve = outlook.obstacles.iter().filter(|it| it.asks).map(|it| word(&state.run, it));
        Self {
            run: state.run.clone(),
            state: state.word(),
            direction: if back { "back" } else { "forward" },
            took_effect: outlook.took.values().map(Vec::len).sum(),
            resolve: resolve.collect(),
            obstacles: outlook.obstacles.into_iter().map(|it| it.what).chain(unreachable).collect(),
            ahead: outlook.names,
            changed: state.changed().map(|it| it.identity.name.clone()).collect(),
            frozen: state.frozen.iter().cloned().collect(),
            newer: state.newer.clone(),
        }
    }

    pub(super) fn text(&self) -> String {
        let (run, state) = (&self.run, self.state);
        if let Some(version) = &self.newer {
            return format!(
                "Run {run} was written by migrate {version}, and this version ({THIS}) cannot tell whether it has ended.\n  Use \
                 migrate {version} or a later one to finish it, or to take it back.\n"
            );
        }
        if self.direction == "back" {
            return format!(
                "Run {run} is {state}: it was being rolled back.\n{}  Both `migrate resume {run}` and `migrate rollback {run}` go on \
                 with that.\n",
                self.owed()
            );
        }
        let (took, left) = (plural(self.took_effect, "migration"), self.ahead.len());
        let mut text = format!("Run {run} is {state}: {took} of it took effect, and {left} more are ahead.\n");
        text += &self.owed();
        for it in &self.obstacles {
            text += &format!("  in the way: {}\n", it.replace('\n', "\n    "));
        }
        for it in &self.resolve {
            text += &format!("  `{it}` (or `--not-applied`) says what became of it\n");
        }
        let then = match (self.obstacles.is_empty(), self.ahead.as_slice()) {
            (false, _) => "goes on once nothing is in the way".into(),
            (true, []) => "makes its checks and ends it".into(),
            (true, names) => format!("applies {}", names.join(", ")),
        };
        text += &format!("  `migrate resume {run}` {then}\n");
        let changed = list(&self.changed);
        let back = if changed.is_empty() {
            "closes it: no database was changed".into()
        } else {
            format!("takes {changed} back")
        };
        text + &format!("  `migrate rollback {run}` {back}\n")
    }

    /// Whom nobody has told yet that they can come back.
    fn owed(&self) -> String {
        if self.frozen.is_empty() {
            return String::new();
        }
        format!(
            "  hooks on freeze were called for {}: both ways out call those on unfreeze first\n",
            list(&self.frozen)
        )
    }
}
