//! What a run has in hand of a database that it is about to change.

use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};

use crate::kind::fresh::Leftovers;
use crate::kind::migration::Session;
use crate::outside::url::DatabaseUrl;

/// A session that was silent for longer may be gone without our knowing, and then a new one is opened.
const SILENT: Duration = Duration::from_secs(10);

/// What preflight learnt of a database, and the session that it asked.
pub struct Ready {
    /// The roles of its server.
    pub roles: Vec<String>,
    session: Option<Asked>,
}

struct Asked {
    connection: PgConnection,
    pid: i32,
    leftovers: Leftovers,
    /// When it last answered.
    at: Instant,
}

impl Ready {
    /// `connection` is in no transaction and has just answered; `pid` is the server's process behind it.
    pub(super) fn new(roles: Vec<String>, (pid, leftovers): (i32, Leftovers), connection: PgConnection) -> Self {
        Self { roles, session: Some(Asked { connection, pid, leftovers, at: Instant::now() }) }
    }

    /// What was learnt alone: the session is closed.
    pub(super) fn without_session(self) -> Self {
        Self { session: None, ..self }
    }

    /// The session, once, for a step: its next migration makes it as if it were new. None, if it may be gone.
    pub(super) fn session(&mut self) -> Option<Spare> {
        let it = self.session.take().filter(|it| it.at.elapsed() < SILENT)?;
        Some(Spare(it))
    }
}

/// A session that is handed on.
pub(super) struct Spare(Asked);

impl Spare {
    /// For a step. None, if it is gone after all. The server is asked only where a survey prepared statements.
    pub(super) async fn into_session<'a>(self, url: &'a DatabaseUrl, application: &str) -> Option<Session<'a>> {
        let Asked { mut connection, pid, leftovers, .. } = self.0;
        // Migrations begin with DEALLOCATE ALL: the driver must not believe in a statement that is no more.
        connection.clear_cached_statements().await.ok()?;
        Some(Session::over(connection, pid, leftovers, url, application))
    }
}
