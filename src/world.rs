//! The outside, gathered once in `main` and passed first everywhere: nothing else reads the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::event::{Event, Report};
use crate::outside::interrupt::Interrupt;
use crate::outside::process::Tools;

/// What a command needs of the world.
#[derive(Clone)]
pub struct World {
    /// The environment as it was at start.
    pub env: BTreeMap<String, String>,
    /// This machine's name, for locks and journals.
    pub host: String,
    /// The operating system's user, for locks and journals.
    pub user: String,
    /// PostgreSQL's own programs.
    pub tools: Tools,
    /// The file with the identities that encrypted snapshots are read with.
    pub identity_file: Option<PathBuf>,
    /// Whether somebody asked us to stop.
    pub interrupt: Interrupt,
    /// Who hears what happens.
    pub report: Arc<dyn Report>,
}

impl World {
    /// Gathers it from the process.
    #[must_use]
    pub fn gather(report: Arc<dyn Report>, interrupt: Interrupt) -> Self {
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        crate::crash::arm(&env);
        let host = hostname::get().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "unknown".into());
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.name);
        let user = user.or_else(|| env.get("USER").cloned()).unwrap_or_else(|| "unknown".into());
        let tools = Tools::find(&env);
        let identity_file = env.get("MIGRATE_AGE_IDENTITY_FILE").filter(|it| !it.is_empty()).map(PathBuf::from);
        Self { env, host, user, tools, identity_file, interrupt, report }
    }

    /// Tells whoever listens.
    pub fn tell(&self, event: Event) {
        self.report.event(&event);
    }
}
