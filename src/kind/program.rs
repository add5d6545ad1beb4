//! What the steps that run a program have in common: where it runs, and with which environment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::names::RunId;
use crate::outside::child::Program;
use crate::outside::keepalive::{IDLE, INTERVAL};
use crate::outside::secret::Secret;

use super::limits::Limits;

/// Where and with what a program of a step runs. Its environment is made from nothing but what the step declares, and PATH,
/// HOME and LANG: no stray variable sends it to another database.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The folder, absolute.
    pub dir: PathBuf,
    /// The environment, expanded.
    pub env: BTreeMap<String, Secret>,
    /// What must not stand in its output.
    pub secrets: Vec<Secret>,
    /// How long it may take; none is for ever.
    pub timeout: Option<Duration>,
}

impl Surroundings {
    /// The program to start. What it opens through libpq waits for locks no longer than our own statements do, and can be told
    /// by its application name.
    #[must_use]
    pub fn program(&self, argv: Vec<String>, limits: &Limits, run: Option<&RunId>) -> Program {
        let mut env = self.env.clone();
        let (lock, statement) = (limits.lock_timeout.as_millis(), limits.statement_timeout.as_millis());
        let mut default = |name: &str, value: String| {
            env.entry(name.to_owned()).or_insert_with(|| Secret::new(value));
        };
        let (idle, interval) = (IDLE.as_secs(), INTERVAL.as_secs());
        let limits = format!("-c lock_timeout={lock} -c statement_timeout={statement}");
        let probes = format!("-c tcp_keepalives_idle={idle} -c tcp_keepalives_interval={interval}");
        default("PGOPTIONS", format!("{limits} {probes}"));
        default("PGAPPNAME", run.map_or_else(|| "migrate".into(), |run| format!("migrate {run}")));
        // The platform's applications load a `.env` that overrides the environment they were given.
        default("PYTHON_DOTENV_DISABLED", "1".into());
        default("PYTHONUNBUFFERED", "1".into());
        // The checkout is somebody else's, and may be among a command's inputs.
        default("PYTHONDONTWRITEBYTECODE", "1".into());
        Program { argv, dir: self.dir.clone(), env, timeout: self.timeout, secrets: self.secrets.clone() }
    }
}
