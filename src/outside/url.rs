//! Where a database is: a PostgreSQL URL taken apart, and the two ways in which we use it, as options of a connection
//! and as the environment of `pg_dump` and `pg_restore`. The password is in no text that anybody sees.

mod defaults;
mod error;
mod parse;
mod protection;
mod ssl;

use std::fmt;

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

pub use self::defaults::{Defaults, VARIABLES};
pub use self::error::{UrlError, Whence};
pub use self::ssl::{ChannelBinding, Ssl, SslMode};
use crate::outside::secret::Secret;

/// Where a database is, and how to get in.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    host: String,
    port: u16,
    user: Option<String>,
    password: Option<Secret>,
    dbname: String,
    ssl: Ssl,
    options_text: Option<String>,
    options: Vec<(String, String)>,
    connect_timeout: Option<u32>,
    application_name: Option<String>,
    given: Secret,
}

impl DatabaseUrl {
    /// Reads a URL by libpq's rules, in any of the spellings that the frameworks use.
    ///
    /// ```
    /// use migrate::outside::url::DatabaseUrl;
    ///
    /// let url = DatabaseUrl::parse("postgresql+asyncpg://app:pw@/chat?host=/cloudsql/p:r:i").expect("a URL");
    /// assert_eq!((url.host(), url.dbname()), ("/cloudsql/p:r:i", "chat"));
    /// assert_eq!(url.to_string(), "postgresql://app:***@/chat?host=/cloudsql/p:r:i");
    /// ```
    ///
    /// # Errors
    /// What is wrong with it, without any value from it.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        parse::parse(text, &Defaults::default())
    }

    /// The same, with what counts where the URL is silent.
    ///
    /// # Errors
    /// What is wrong with it, without any value from it.
    pub fn parse_with(text: &str, defaults: &Defaults) -> Result<Self, UrlError> {
        parse::parse(text, defaults)
    }

    /// A host name, an address without brackets, or the folder of a socket, which begins with `/`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; of a socket, the number in its name.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The role, if the URL or the default names one.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The password, if the URL holds one.
    #[must_use]
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// The database's name on the server.
    #[must_use]
    pub fn dbname(&self) -> &str {
        &self.dbname
    }

    /// How the session is encrypted.
    #[must_use]
    pub fn ssl(&self) -> &Ssl {
        &self.ssl
    }

    /// Whether the host is the folder of a socket. There is no TLS then, whatever `sslmode` says: nothing is between.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    /// Whether the host is this machine, by its name or its address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<std::net::IpAddr>().is_ok_and(|it| it.is_loopback())
    }

    /// The settings of the session, by name and value.
    #[must_use]
    pub fn options(&self) -> &[(String, String)] {
        &self.options
    }

    /// How long connecting may take, in seconds; zero is for ever.
    #[must_use]
    pub fn connect_timeout(&self) -> Option<u32> {
        self.connect_timeout
    }

    /// What `pg_stat_activity` shows.
    #[must_use]
    pub fn application_name(&self) -> Option<&str> {
        self.application_name.as_deref()
    }

    /// The URL as it was given, for programs that have their own ideas about its scheme. It holds the password.
    #[must_use]
    pub fn as_given(&self) -> &Secret {
        &self.given
    }

    /// The URL for a command line, where everybody can read it: `PGPASSWORD` carries the password. Everything else is in it, so
    /// that what uses it is protected as we are.
    #[must_use]
    pub fn without_password(&self) -> String {
        let mut text = self.to_string().replacen(":***@", "@", 1);
        let timeout = self.connect_timeout.map(|it| it.to_string());
        let others = [("options", &self.options_text), ("connect_timeout", &timeout)];
        let others = others.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        let ssl = self.ssl.parameters().into_iter().map(|(name, _, value)| (name, value));
        for (name, value) in ssl.chain(others) {
            let joint = if text.contains('?') { '&' } else { '?' };
            text.push_str(&format!("{joint}{name}={}", percent_encode(&value)));
        }
        text
    }

    /// The same server and role, another database.
    #[must_use]
    pub fn with_dbname(&self, dbname: &str) -> Self {
        Self { dbname: dbname.to_owned(), ..self.clone() }
    }

    /// True if both name one database of one server, as far as the text can tell.
    #[must_use]
    pub fn same_place(&self, other: &Self) -> bool {
        self.host.eq_ignore_ascii_case(&other.host) && self.port == other.port && self.dbname == other.dbname
    }

    /// The options of a connection. Nothing is taken from a password file; `PGOPTIONS` in our own environment still counts, because
    /// sqlx reads it and has no way to unset it. TLS is not sqlx's: `outside/tls` makes it, as libpq would.
    #[must_use]
    pub fn connect_options(&self) -> PgConnectOptions {
        let options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .database(&self.dbname)
            // An empty password is sqlx's own stand-in for none; set here, it keeps out a `PGPASSWORD` meant for another server.
            .password(self.password.as_ref().map_or("", Secret::expose))
            .ssl_mode(PgSslMode::Disable)
            .application_name(self.application_name.as_deref().unwrap_or("migrate"))
            .options(self.options.iter().map(|(name, value)| (name, value)));
        match &self.user {
            Some(user) => options.username(user),
            None => options,
        }
    }

    /// The options of a session of ours, as `application`.
    #[must_use]
    pub fn session_options(&self, application: &str) -> PgConnectOptions {
        // Networks drop a connection on which nothing is said for ten minutes: the server is asked to probe it every minute.
        let settings =
            [("tcp_keepalives_idle", "60"), ("tcp_keepalives_interval", "10"), ("client_min_messages", "warning")];
        self.connect_options().application_name(application).options(settings).disable_statement_logging()
    }

    /// The environment of a child that uses libpq, such as `pg_dump`. The password is in it: it goes to the child and nowhere
    /// else.
    #[must_use]
    pub fn libpq_env(&self) -> Vec<(String, String)> {
        let always = [
            ("PGHOST", Some(self.host.clone())),
            ("PGPORT", Some(self.port.to_string())),
            ("PGUSER", self.user.clone()),
            ("PGDATABASE", Some(self.dbname.clone())),
            ("PGPASSWORD", self.password.as_ref().map(|it| it.expose().to_owned())),
            // A ticket of Kerberos that happens to lie about would go before TLS, and we have none.
            ("PGGSSENCMODE", Some("disable".to_owned())),
            ("PGCONNECT_TIMEOUT", self.connect_timeout.map(|it| it.to_string())),
            ("PGOPTIONS", self.options_text.clone()),
            ("PGAPPNAME", self.application_name.clone()),
        ];
        let ssl = self.ssl.parameters().into_iter().map(|(_, variable, value)| (variable, Some(value)));
        always.into_iter().chain(ssl).filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// As a URL, with `***` for the password and without the parameters.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgresql://")?;
        if let Some(user) = &self.user {
            write!(f, "{}{}@", percent_encode(user), if self.password.is_some() { ":***" } else { "" })?;
        }
        let dbname = percent_encode(&self.dbname);
        match self.host.as_str() {
            socket if socket.starts_with('/') && self.port == 5432 => write!(f, "/{dbname}?host={socket}"),
            socket if socket.starts_with('/') => write!(f, "/{dbname}?host={socket}&port={}", self.port),
            address if address.contains(':') => {
                write!(f, "[{}]:{}/{dbname}", address.replace('%', "%25"), self.port)
            }
            name => write!(f, "{name}:{}/{dbname}", self.port),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({self})")
    }
}

/// `text` so that it can stand in any part of a URL and is read back as it was.
pub(crate) fn percent_encode(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests;
