//! PostgreSQL: sessions, and what a server and a database say about themselves.

use std::collections::BTreeSet;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::postgres::{PgDatabaseError, PgQueryResult, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Either, PgConnection, Row};

use crate::crash;
use crate::outside::keepalive;
use crate::outside::tls::{Door, TlsError};
use crate::outside::url::{ChannelBinding, DatabaseUrl, SslMode};
use crate::sql::quote::literal;

/// A server that does not answer within this time is reported as unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a connection is tried again where none is free.
const LEAVING: Duration = Duration::from_secs(1);
/// Pause between two tries.
const ROUND: Duration = Duration::from_millis(50);
/// The database in which locks are held and from which databases are made and renamed.
pub const MAINTENANCE: &str = "postgres";
/// What sessions of this process bring along, and what a session is asked for that has to be ours and nobody else's: a pooler
/// hands out sessions that it has opened itself, without this.
static DIRECT: LazyLock<String> = LazyLock::new(|| format!("{:016x}", rand::random::<u64>()));
/// SQL state of a server, a role or a database that has no connection left.
const FULL: &str = "53300";
/// What PgBouncer says of a setting that a session wants to begin with.
const POOLER_SAYS: &str = "unsupported startup parameter";

/// Makes commits of the transaction at hand wait for the disk where the server, the role or the database lets them go without: what
/// the journal calls done must survive a crash of the server. What waits for more, as for a standby server, is left as it is.
pub const DURABLE: &str = "SELECT pg_catalog.set_config('synchronous_commit', 'on', true) WHERE \
     pg_catalog.current_setting('synchronous_commit') IN ('off', 'local');";
/// As [`DURABLE`], for the whole session.
pub const DURABLE_SESSION: &str = "SELECT pg_catalog.set_config('synchronous_commit', 'on', false) WHERE \
     pg_catalog.current_setting('synchronous_commit') IN ('off', 'local');";

/// Why a server did not do what was asked.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum PgError {
    /// No session.
    #[error("cannot connect to {place}")]
    #[diagnostic(code("postgres.connect"), help("{}", remedy(.source.state.as_deref())))]
    Connect {
        /// The URL without its password.
        place: String,
        /// What was said.
        #[source]
        source: Said,
    },
    /// No session is left.
    #[error("no connection is free at {place}")]
    #[diagnostic(
        code("postgres.full"),
        help(
            "End sessions that idle (`select pid, usename, application_name, state from pg_stat_activity`), or raise what is used up: \
             the server's max_connections, the role's limit (`ALTER ROLE … CONNECTION LIMIT`) or the database's (`ALTER DATABASE … \
             CONNECTION LIMIT`)."
        )
    )]
    Full {
        /// The URL without its password.
        place: String,
        /// What was said: it names what is used up.
        #[source]
        source: Said,
    },
    /// Whoever answers is not the server.
    #[error("{place}: a connection pooler answers, and not the server itself")]
    #[diagnostic(
        code("postgres.pooler"),
        help(
            "Give the server's own host and port in the URL (a PgBouncer listens on 6432 unless told, PostgreSQL on 5432). A pooler hands \
             sessions on, and with them the locks of a run, drops the settings that sessions begin with, and keeps databases open that are \
             to be exchanged. Whether it is in session mode cannot be seen from here."
        )
    )]
    Pooler {
        /// The URL without its password, or what was asked.
        place: String,
    },
    /// No session that is protected as the URL wants it.
    #[error("cannot connect to {place}")]
    Unprotected {
        /// The URL without its password.
        place: String,
        /// What is wrong.
        #[source]
        #[diagnostic_source]
        source: TlsError,
    },
    /// A statement of our own failed.
    #[error("{what} failed")]
    #[diagnostic(code("postgres.query"))]
    Query {
        /// What it was for.
        what: String,
        /// What was said.
        #[source]
        source: Said,
    },
}

impl PgError {
    /// The five characters of the SQL state, if a server said it.
    pub fn state(&self) -> Option<&str> {
        match self {
            Self::Connect { source, .. } | Self::Full { source, .. } | Self::Query { source, .. } => {
                source.state.as_deref()
            }
            Self::Pooler { .. } | Self::Unprotected { .. } => None,
        }
    }
}

/// What the server or the driver said, with the SQL state, the detail and the hint where there are any.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Said {
    /// One or more lines.
    pub message: String,
    /// The five characters of the SQL state, if the server said it.
    pub state: Option<String>,
}

impl From<&sqlx::Error> for Said {
    fn from(error: &sqlx::Error) -> Self {
        let Some(said) = database_error(error) else {
            return Self { message: chain(error), state: None };
        };
        let mut message = format!("{} (SQLSTATE {})", said.message(), said.code());
        for (word, text) in [("detail", said.detail()), ("hint", said.hint()), ("where", said.r#where())] {
            if let Some(text) = text {
                message.push_str(&format!("\n{word}: {text}"));
            }
        }
        Self { message, state: Some(said.code().to_owned()) }
    }
}

/// The server's own error, if it was the server that said no.
#[must_use]
pub fn database_error(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// For `map_err`: a statement of our own failed.
pub fn query_error(what: impl Into<String>) -> impl FnOnce(sqlx::Error) -> PgError {
    let what = what.into();
    move |error| match &error {
        sqlx::Error::Configuration(cause) if cause.is::<NotDirect>() => PgError::Pooler { place: what },
        _ => PgError::Query { what, source: Said::from(&error) },
    }
}

/// A session that is not the one that was opened.
#[derive(Debug, thiserror::Error)]
#[error("a connection pooler answers, and not the server itself")]
struct NotDirect;

/// What a session of ours begins with.
fn direct() -> (&'static str, &'static str) {
    ("migrate.direct", DIRECT.as_str())
}

/// For SQL: whether the session is the one that was opened, and no pooler's.
#[must_use]
pub fn is_direct() -> String {
    format!("coalesce(pg_catalog.current_setting('migrate.direct', true), '') = {}", literal(&DIRECT))
}

/// For `map_err` of a query that found that [`is_direct`] does not hold.
#[must_use]
pub fn not_direct() -> sqlx::Error {
    sqlx::Error::Configuration(Box::new(NotDirect))
}

/// SQL text that we made. Every part of it that came from outside is quoted by `sql::quote`.
#[must_use]
pub fn made(sql: String) -> AssertSqlSafe<String> {
    AssertSqlSafe(sql)
}

/// The rows of a query without parameters, for one round trip: one with parameters is prepared first, for a second. `sql` is
/// ours, and what is not is quoted in it.
///
/// # Errors
/// The query failed.
pub async fn ask(session: &mut PgConnection, sql: impl Into<String>) -> Result<Vec<PgRow>, sqlx::Error> {
    sqlx::raw_sql(made(sql.into())).fetch_all(session).await
}

/// As [`ask`], for several queries in one message: the rows of each, for one round trip.
///
/// # Errors
/// One of them failed.
pub async fn ask_all<const N: usize>(
    session: &mut PgConnection,
    queries: [&str; N],
) -> Result<[Vec<PgRow>; N], sqlx::Error> {
    let mut answers = [const { Vec::new() }; N];
    let mut said = sqlx::raw_sql(made(queries.join(";\n"))).fetch_many(session);
    let mut at = 0;
    while let Some(it) = said.try_next().await? {
        match (it, answers.get_mut(at)) {
            (Either::Right(row), Some(answer)) => answer.push(row),
            (Either::Left(_), _) => at += 1,
            (Either::Right(_), None) => {}
        }
    }
    Ok(answers)
}

/// The only row of an answer to one of [`ask_all`]'s queries.
///
/// # Errors
/// There is none.
pub fn only(rows: &[PgRow]) -> Result<&PgRow, sqlx::Error> {
    rows.first().ok_or(sqlx::Error::RowNotFound)
}

/// As [`ask`], for a query that has one row.
///
/// # Errors
/// The query failed, or has none.
pub async fn ask_one(session: &mut PgConnection, sql: impl Into<String>) -> Result<PgRow, sqlx::Error> {
    sqlx::raw_sql(made(sql.into())).fetch_one(session).await
}

/// Sends what may change a server, a database or what this session may do with it: the door for all such statements but the
/// messages of migrations. `sql` is ours, and what is not is quoted in it.
///
/// # Errors
/// The server refused, or the session was lost.
pub async fn change(session: &mut PgConnection, sql: impl Into<String>) -> Result<PgQueryResult, sqlx::Error> {
    let sql = sql.into();
    crash::point("change before", &sql);
    let done = sqlx::raw_sql(made(sql)).execute(session).await;
    crash::point("change after", "");
    done
}

/// What to do about a session that was refused, by the SQL state.
fn remedy(state: Option<&str>) -> &'static str {
    match state {
        Some("28P01") => {
            "The password in the URL is not the role's: write `%25`, `%40`, `%3A`, `%2F` for `%`, `@`, `:`, `/` in it."
        }
        Some("28000") => {
            "The server's pg_hba.conf decides who may come from where and how: look there, and whether the role may log in, \
             whether it wants TLS (`sslmode`), or a client certificate (`sslcert`, `sslkey`)."
        }
        Some("3D000") => "Correct the database's name in the URL, or create the database.",
        _ => "Check that the server runs and that the URL, the role and its password are right.",
    }
}

/// Opens a session, protected as the URL says.
///
/// # Errors
/// [`PgError::Connect`], [`PgError::Unprotected`], [`PgError::Full`] or [`PgError::Pooler`], without the password.
pub async fn connect(url: &DatabaseUrl, application: &str) -> Result<PgConnection, PgError> {
    let begun = Instant::now();
    loop {
        match connect_once(url, application).await {
            // A session that has just ended, one of our own perhaps, takes a moment to leave.
            Err(PgError::Full { .. }) if begun.elapsed() < LEAVING => tokio::time::sleep(ROUND).await,
            opened => return opened,
        }
    }
}

async fn connect_once(url: &DatabaseUrl, application: &str) -> Result<PgConnection, PgError> {
    let limit = match url.connect_timeout() {
        None => Some(CONNECT_TIMEOUT),
        // As for libpq: zero is for ever, and a second is too little.
        Some(0) => None,
        Some(seconds) => Some(Duration::from_secs(seconds.max(2).into())),
    };
    let place = url.to_string();
    let opened = match limit {
        Some(limit) => tokio::time::timeout(limit, open(url, application)).await.map_err(|_| limit),
        None => Ok(open(url, application).await),
    };
    match opened {
        Ok(Ok(session)) => {
            if !url.host().starts_with('/') {
                keepalive::probe();
            }
            Ok(session)
        }
        Ok(Err(NoSession::Said(said))) => Err(refused(place, said)),
        Ok(Err(NoSession::Tls(source))) => Err(PgError::Unprotected { place, source }),
        Err(limit) => {
            let message = format!("no answer for {} s", limit.as_secs());
            Err(PgError::Connect { place, source: Said { message, state: None } })
        }
    }
}

/// A session that was refused, by what the server or somebody in its place said.
fn refused(place: String, said: Said) -> PgError {
    match said.state.as_deref() {
        Some(FULL) => PgError::Full { place, source: said },
        _ if said.message.contains(POOLER_SAYS) => PgError::Pooler { place },
        _ => PgError::Connect { place, source: said },
    }
}

/// Why there is no session, before it is said where.
enum NoSession {
    Said(Said),
    Tls(TlsError),
}

impl From<TlsError> for NoSession {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::Unreached(error) => Self::Said(Said { message: unanswered(&error), state: None }),
            other => Self::Tls(other),
        }
    }
}

/// Encrypted or plain, in libpq's order. Where that ends without encryption, it is said.
async fn open(url: &DatabaseUrl, application: &str) -> Result<PgConnection, NoSession> {
    if url.is_socket() {
        return plain(url, application).await;
    }
    match url.ssl().mode {
        SslMode::Disable => plain(url, application).await,
        SslMode::Allow => match plain(url, application).await {
            Err(NoSession::Said(said)) if said.state.is_some() => match encrypted(url, application).await {
                Err(NoSession::Tls(TlsError::NotOffered(_))) => Err(NoSession::Said(said)),
                other => other,
            },
            other => other,
        },
        SslMode::Prefer => match encrypted(url, application).await {
            Err(error) => match why_plain(&error) {
                Some(why) => {
                    let session = plain(url, application).await?;
                    let offered = !matches!(error, NoSession::Tls(TlsError::NotOffered(_)));
                    if offered || !url.is_loopback() {
                        warn_of_plain(url, &why);
                    }
                    Ok(session)
                }
                None => Err(error),
            },
            session => session,
        },
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => encrypted(url, application).await,
    }
}

/// Why `prefer` goes on without TLS, if it does. A password that was refused is not said again where others can hear it, and
/// what is wrong with our own files is not passed over.
fn why_plain(error: &NoSession) -> Option<String> {
    match error {
        NoSession::Tls(TlsError::NotOffered(_)) => Some("the server offers no TLS".into()),
        NoSession::Tls(
            error @ (TlsError::Certificate(_)
            | TlsError::ClientRefused { .. }
            | TlsError::Handshake(_)
            | TlsError::Lost(_)),
        ) => Some(error.to_string()),
        NoSession::Said(said) if said.state.as_deref() == Some("28000") => Some(said.message.clone()),
        _ => None,
    }
}

/// Once for each server: a run has many sessions with it.
fn warn_of_plain(url: &DatabaseUrl, why: &str) {
    static TOLD: Mutex<BTreeSet<(String, u16)>> = Mutex::new(BTreeSet::new());
    let (host, port) = (url.host(), url.port());
    if TOLD.lock().is_ok_and(|mut told| told.insert((host.to_owned(), port))) {
        tracing::warn!("sessions with {host}:{port} are not encrypted, which sslmode=prefer allows: {why}");
    }
}

async fn plain(url: &DatabaseUrl, application: &str) -> Result<PgConnection, NoSession> {
    if url.ssl().channel_binding == ChannelBinding::Require {
        return Err(NoSession::Tls(TlsError::Unbound("the session is not encrypted")));
    }
    url.session_options(application).options([direct()]).connect().await.map_err(|error| match error {
        sqlx::Error::Io(error) => NoSession::Said(Said { message: unanswered(&error), state: None }),
        error => NoSession::Said(Said::from(&error)),
    })
}

fn unanswered(error: &std::io::Error) -> String {
    format!("no server answers there: {error}")
}

/// The driver comes in by a socket of ours, and learns of a failure of TLS only that its connection is gone.
async fn encrypted(url: &DatabaseUrl, application: &str) -> Result<PgConnection, NoSession> {
    let door = Door::open(url).await?;
    let options = url.session_options(application).options([direct()]).socket(door.folder());
    let (session, let_in) = futures::join!(options.connect(), door.let_in(url));
    let_in?;
    session.map_err(|error| NoSession::Said(Said::from(&error)))
}

/// A server, told apart from every other one that this process can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Made by `initdb`; a physical copy has the same.
    pub system_identifier: String,
    /// When the postmaster started: tells a physical copy from its original.
    pub started_at: DateTime<Utc>,
    /// `150020`.
    pub version_num: u32,
    /// `15.20 (Debian 15.20-0+deb12u1)`.
    pub version: String,
}

impl Server {
    /// The major version.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.version_num / 10_000
    }

    /// Asks it what it is; [`Server::read`] reads the answer.
    pub const QUERY: &str = "select (select system_identifier::text from pg_control_system()), \
         pg_postmaster_start_time(), current_setting('server_version_num')::int4, current_setting('server_version'), \
         coalesce(current_setting('migrate.direct', true), '')";

    /// What it says about itself.
    ///
    /// # Errors
    /// The query failed.
    pub async fn of(session: &mut PgConnection) -> Result<Self, PgError> {
        let row = ask_one(session, Self::QUERY).await.map_err(query_error("asking the server for its identity"))?;
        Self::read(&row).map_err(query_error("reading the server's identity"))
    }

    /// What [`Server::QUERY`] says.
    ///
    /// # Errors
    /// It says something else, or somebody between says it.
    pub fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        if row.try_get::<&str, _>(4)? != DIRECT.as_str() {
            return Err(not_direct());
        }
        Ok(Self {
            system_identifier: row.try_get(0)?,
            started_at: row.try_get(1)?,
            version_num: row.try_get::<i32, _>(2)?.unsigned_abs(),
            version: row.try_get(3)?,
        })
    }
}

/// Sessions of clients, for the WHERE of a query on `pg_stat_activity`: of which sort a session is, a role is told of its own alone,
/// but what serves no client is in no database or has no role, and what replicates is listed elsewhere and counted apart.
pub const OF_CLIENTS: &str = "coalesce(backend_type, 'client backend') = 'client backend' and datid is not null and usesysid is not \
     null and pid not in (select pid from pg_stat_replication)";

/// Asks how many connections the server has left for roles without privileges; [`free`] reads the answer.
const FREE_CONNECTIONS: &str = "select current_setting('max_connections')::int8 - \
     current_setting('superuser_reserved_connections')::int8 - coalesce(current_setting('reserved_connections', true)::int8, 0) - \
     (select count(*) from pg_stat_activity where ";

fn free(row: &PgRow) -> Result<usize, sqlx::Error> {
    Ok(usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0))
}

/// Connections that the server has left for roles without privileges.
///
/// # Errors
/// The query failed.
pub async fn free_connections(session: &mut PgConnection) -> Result<usize, PgError> {
    let found = ask_one(session, format!("{FREE_CONNECTIONS}{OF_CLIENTS})")).await.and_then(|row| free(&row));
    found.map_err(query_error("counting free connections"))
}

/// The process of the server that a session talks to.
///
/// # Errors
/// The query failed.
pub async fn backend_pid(session: &mut PgConnection) -> Result<i32, PgError> {
    let pid = ask_one(session, "select pg_backend_pid()").await.and_then(|row| row.try_get(0));
    pid.map_err(query_error("asking for the session's process"))
}

/// The oid of a database on the server of `session`, or none if there is no such database.
///
/// # Errors
/// The query failed.
pub async fn database_oid(session: &mut PgConnection, dbname: &str) -> Result<Option<u32>, PgError> {
    let found = ask(session, oid_query(dbname)).await.and_then(|rows| oid(&rows));
    found.map_err(query_error(format!("looking for the database {dbname}")))
}

/// Asks for the oid of a database of the server; [`oid`] reads the answer.
#[must_use]
pub fn oid_query(dbname: &str) -> String {
    format!("select oid::int8 from pg_database where datname = {}", literal(dbname))
}

/// What [`oid_query`] says: none if there is no such database.
///
/// # Errors
/// It says something else.
pub fn oid(rows: &[PgRow]) -> Result<Option<u32>, sqlx::Error> {
    let oid: Option<i64> = rows.first().map(|row| row.try_get(0)).transpose()?;
    Ok(oid.and_then(|oid| u32::try_from(oid).ok()))
}
