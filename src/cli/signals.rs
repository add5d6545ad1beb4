//! What a person hears who asks twice to stop: what is under way, and what becomes of it if it is ended at once.

use std::sync::{Arc, Mutex};

use crate::event::{Event, Report, Stage};
use crate::failure::{Aftermath, Blame, Failure};
use crate::names::RunId;

/// Hears everything first, and remembers how far it got.
pub struct Following {
    listener: Arc<dyn Report>,
    seen: Mutex<Seen>,
}

#[derive(Default, Clone)]
struct Seen {
    run: Option<RunId>,
    stage: Option<Stage>,
}

impl Report for Following {
    fn event(&self, event: &Event) {
        {
            let mut seen = self.seen.lock().expect("nobody panics while holding this");
            match event {
                Event::RunBegan { run, .. } | Event::RunResumed { run, .. } => seen.run = Some(run.clone()),
                Event::Stage(stage) => seen.stage = Some(*stage),
                _ => {}
            }
        }
        self.listener.event(event);
    }
}

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("interrupted by a second signal, {}", .place)]
#[diagnostic(code("interrupted.at_once"), help("{help}"))]
struct AtOnce {
    place: &'static str,
    help: String,
}

impl Following {
    /// Before `listener`.
    #[must_use]
    pub fn new(listener: Arc<dyn Report>) -> Arc<Self> {
        Arc::new(Self { listener, seen: Mutex::default() })
    }

    fn seen(&self) -> Seen {
        self.seen.lock().expect("nobody panics while holding this").clone()
    }

    /// What ending it at once breaks, said before it is ended.
    #[must_use]
    pub fn what_breaks(&self) -> String {
        format!("ending at once: {}", breaks(self.seen().stage))
    }

    /// The failure of a command that was ended at once.
    #[must_use]
    pub fn cut_off(&self) -> Failure {
        let Seen { run, stage } = self.seen();
        let help = match &run {
            Some(run) => format!("`migrate status` says where it stands; `migrate resume {run}` finishes it."),
            None => "`migrate status` says where everything stands.".into(),
        };
        let aftermath = match (run, stage) {
            (Some(run), Some(Stage::Migrations | Stage::Checks)) => Aftermath::Unknown { run: Some(run) },
            (run, Some(Stage::Restore | Stage::Swap | Stage::Undo | Stage::Verification)) => Aftermath::Unknown { run },
            _ => Aftermath::Untouched,
        };
        Failure { blame: Blame::Interrupted, aftermath, error: Box::new(AtOnce { place: place(stage), help }) }
    }
}

fn place(stage: Option<Stage>) -> &'static str {
    match stage {
        None | Some(Stage::Preflight | Stage::Gates) => "before anything was begun",
        Some(Stage::Snapshots | Stage::Drill) => "while snapshots were taken",
        Some(Stage::Standbys) => "while standbys were made",
        Some(Stage::Migrations) => "while migrations were applied",
        Some(Stage::Checks) => "while checks were made",
        Some(Stage::Verification) => "while archives were read",
        Some(Stage::Restore) => "while databases were restored",
        Some(Stage::Swap) => "while databases were exchanged",
        Some(Stage::Undo) => "while migrations were undone",
    }
}

fn breaks(stage: Option<Stage>) -> &'static str {
    match stage {
        None | Some(Stage::Preflight | Stage::Gates) => "nothing is under way that could break",
        Some(Stage::Snapshots) => {
            "the snapshots under way are lost, and their run stays unfinished; no database was changed"
        }
        Some(Stage::Drill) => {
            "a scratch database may stay on the server, and the run stays unfinished; no database was changed"
        }
        Some(Stage::Standbys) => {
            "a warm copy may stay on the server, and the run stays unfinished; no database was changed"
        }
        Some(Stage::Migrations) => {
            "the migrations under way are cut off. The server takes a transaction back; a statement outside one, or a program, may have \
             done its work or a part of it. The run stays unfinished"
        }
        Some(Stage::Checks) => "every migration is applied, and the run stays unfinished",
        Some(Stage::Verification) => "nothing is restored yet; the run stays what it was",
        Some(Stage::Restore) => {
            "side databases stay half restored; the live ones were not touched. The rollback stays unfinished"
        }
        Some(Stage::Swap) => {
            "the exchange takes place as a whole or not at all, and which of the two is found out by the next command. The rollback \
             stays unfinished"
        }
        Some(Stage::Undo) => {
            "the down scripts under way are cut off, as migrations are. Some databases may be back and others not. The rollback stays \
             unfinished"
        }
    }
}
