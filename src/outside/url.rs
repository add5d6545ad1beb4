//! Where a database is: a PostgreSQL URL taken apart, and the two ways in which we use it, as options of a connection
//! and as the environment of `pg_dump` and `pg_restore`. The password is in no text that anybody sees.

mod parse;

use std::fmt;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

pub use self::parse::UrlError;
use crate::outside::secret::Secret;

/// Where a database is, and how to get in.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    host: String,
    port: u16,
    user: Option<String>,
    password: Option<Secret>,
    dbname: String,
    ssl_mode: SslMode,
    ssl_root_cert: Option<String>,
    ssl_cert: Option<String>,
    ssl_key: Option<String>,
    options_text: Option<String>,
    options: Vec<(String, String)>,
    connect_timeout: Option<u32>,
    application_name: Option<String>,
    given: Secret,
}

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only if the server insists.
    Allow,
    /// If the server can; the default.
    Prefer,
    /// Always, whoever answers.
    Require,
    /// Always, with a certificate of a known authority.
    VerifyCa,
    /// Always, with a certificate of a known authority for this host.
    VerifyFull,
}

impl SslMode {
    const ALL: [Self; 6] = [Self::Disable, Self::Allow, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];

    /// The word as it stands in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    fn for_sqlx(self) -> PgSslMode {
        match self {
            Self::Disable => PgSslMode::Disable,
            Self::Allow => PgSslMode::Allow,
            Self::Prefer => PgSslMode::Prefer,
            Self::Require => PgSslMode::Require,
            Self::VerifyCa => PgSslMode::VerifyCa,
            Self::VerifyFull => PgSslMode::VerifyFull,
        }
    }
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
        parse::parse(text, None)
    }

    /// The same, with the user to take where the URL names none; libpq takes the operating system's.
    ///
    /// # Errors
    /// What is wrong with it, without any value from it.
    pub fn parse_with_default_user(text: &str, default_user: Option<&str>) -> Result<Self, UrlError> {
        parse::parse(text, default_user)
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

    /// How the connection is encrypted; `prefer` unless the URL says otherwise.
    #[must_use]
    pub fn ssl_mode(&self) -> SslMode {
        self.ssl_mode
    }

    /// File with the certificates of the authorities, or `system`.
    #[must_use]
    pub fn ssl_root_cert(&self) -> Option<&str> {
        self.ssl_root_cert.as_deref()
    }

    /// File with the client's certificate.
    #[must_use]
    pub fn ssl_cert(&self) -> Option<&str> {
        self.ssl_cert.as_deref()
    }

    /// File with the client's key.
    #[must_use]
    pub fn ssl_key(&self) -> Option<&str> {
        self.ssl_key.as_deref()
    }

    /// The settings of the session, by name and value.
    #[must_use]
    pub fn options(&self) -> &[(String, String)] {
        &self.options
    }

    /// How long connecting may take, in seconds; zero is for ever. sqlx has no such option: the caller watches the clock.
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

    /// The URL for a command line, where everybody can read it: `PGPASSWORD` carries the password.
    #[must_use]
    pub fn without_password(&self) -> String {
        let text = self.to_string().replacen(":***@", "@", 1);
        let joint = if text.contains('?') { '&' } else { '?' };
        format!("{text}{joint}sslmode={}", self.ssl_mode.as_str())
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

    /// The options of a connection. Nothing is taken from a password file; `PGSSLROOTCERT`, `PGSSLCERT`, `PGSSLKEY` and
    /// `PGOPTIONS` in our own environment still count where the URL is silent, because sqlx reads them and has no way to
    /// unset them.
    #[must_use]
    pub fn connect_options(&self) -> PgConnectOptions {
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .database(&self.dbname)
            // An empty password is sqlx's own stand-in for none; set here, it keeps out a `PGPASSWORD` meant for another server.
            .password(self.password.as_ref().map_or("", Secret::expose))
            .ssl_mode(self.ssl_mode.for_sqlx())
            .application_name(self.application_name.as_deref().unwrap_or("migrate"))
            .options(self.options.iter().map(|(name, value)| (name, value)));
        if let Some(user) = &self.user {
            options = options.username(user);
        }
        // Without a file, sqlx takes the authorities of the system.
        if let Some(file) = self.ssl_root_cert.as_deref().filter(|it| *it != "system") {
            options = options.ssl_root_cert(file);
        }
        if let Some(file) = &self.ssl_cert {
            options = options.ssl_client_cert(file);
        }
        if let Some(file) = &self.ssl_key {
            options = options.ssl_client_key(file);
        }
        options
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
            ("PGSSLMODE", Some(self.ssl_mode.as_str().to_owned())),
            ("PGSSLROOTCERT", self.ssl_root_cert.clone()),
            ("PGSSLCERT", self.ssl_cert.clone()),
            ("PGSSLKEY", self.ssl_key.clone()),
            ("PGCONNECT_TIMEOUT", self.connect_timeout.map(|it| it.to_string())),
            ("PGOPTIONS", self.options_text.clone()),
            ("PGAPPNAME", self.application_name.clone()),
        ];
        always.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `host port user password dbname`, and whatever else is set.
    fn fields(url: &DatabaseUrl) -> String {
        let password = url.password().map_or("-", Secret::expose);
        let mut text =
            format!("{} {} {} {password} {}", url.host(), url.port(), url.user().unwrap_or("-"), url.dbname());
        let rest = [
            ("ssl", Some(url.ssl_mode().as_str()).filter(|it| *it != "prefer").map(str::to_owned)),
            ("root", url.ssl_root_cert().map(str::to_owned)),
            ("cert", url.ssl_cert().map(str::to_owned)),
            ("key", url.ssl_key().map(str::to_owned)),
            ("timeout", url.connect_timeout().map(|it| it.to_string())),
            ("app", url.application_name().map(str::to_owned)),
            ("options", Some(url.options()).filter(|it| !it.is_empty()).map(|it| format!("{it:?}"))),
        ];
        text.extend(rest.into_iter().filter_map(|(name, value)| Some(format!(" {name}={}", value?))));
        text
    }

    #[track_caller]
    fn good(text: &str, expected: &str) {
        let url = DatabaseUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(fields(&url), expected, "{text}");
        // What is shown is itself a URL of the same place.
        let shown = url.to_string().replace(":***@", "@");
        assert!(DatabaseUrl::parse(&shown).is_ok_and(|it| it.same_place(&url)), "{text}: {shown}");
    }

    #[track_caller]
    fn bad(text: &str, expected: &str) {
        let error = DatabaseUrl::parse(text).expect_err(text);
        assert_eq!(error.to_string(), expected, "{text}");
        let help = miette::Diagnostic::help(&error).expect("help").to_string();
        let all = format!("{error} {error:?} {help}");
        for secret in ["hunter2", "hun", "ter2"] {
            assert!(!all.contains(secret), "{text}: {all}");
        }
    }

    #[test]
    fn schemes() {
        good("postgresql://u:p@h/d", "h 5432 u p d");
        good("postgres://u:p@h/d", "h 5432 u p d");
        good("postgresql+asyncpg://u:p@h/d", "h 5432 u p d");
        good("postgresql+psycopg://u:p@h/d", "h 5432 u p d");
        good("postgresql+psycopg2://u:p@h/d", "h 5432 u p d");
        good("postgresql+pg8000://u:p@h/d", "h 5432 u p d");
        good("postgres+asyncpg://u:p@h/d", "h 5432 u p d");
        for text in ["", "h/d", "mysql://u:hunter2@h/d", "postgresql:u:hunter2@h/d", "jdbc:postgresql://h/d"] {
            bad(text, "the URL does not begin with `postgresql://`");
        }
        bad("postgresql+://u:hunter2@h/d", "the URL does not begin with `postgresql://`");
        bad("host=h password=hunter2 dbname=d", "the URL does not begin with `postgresql://`");
        bad("${MOBIUS_DATABASE_URL}", "the URL does not begin with `postgresql://`");
        bad("postgresql://u:hunter2@h/d\n", "the URL begins or ends with white space");
    }

    #[test]
    fn hosts_and_ports() {
        good("postgresql://h/d", "h 5432 - - d");
        good("postgresql://h:6432/d", "h 6432 - - d");
        good("postgresql://h:/d", "h 5432 - - d");
        good("postgresql://h?dbname=d", "h 5432 - - d");
        good("postgresql://10.0.0.7:1/d", "10.0.0.7 1 - - d");
        good("postgresql://u:p@[::1]:6432/d", "::1 6432 u p d");
        good("postgresql://[2001:db8::7]/d", "2001:db8::7 5432 - - d");
        good("postgresql://[fe80::1%25eth0]/d?port=7", "fe80::1%eth0 7 - - d");
        good("postgresql:///d?host=/run/postgresql", "/run/postgresql 5432 - - d");
        good("postgresql://%2Frun%2Fpostgresql/d", "/run/postgresql 5432 - - d");
        good("postgresql://u:p@/d?host=/cloudsql/p-1:europe-west1:i", "/cloudsql/p-1:europe-west1:i 5432 u p d");
        good(
            "postgresql://u:p@/d?host=%2Fcloudsql%2Fp-1%3Aeurope-west1%3Ai",
            "/cloudsql/p-1:europe-west1:i 5432 u p d",
        );
        good("postgresql+asyncpg://u:p@/d?host=/cloudsql/p:r:i&port=6432", "/cloudsql/p:r:i 6432 u p d");
        // The query comes last and wins, as in libpq.
        good("postgresql://u:p@h:1/d?host=g&port=2&user=v&password=q&dbname=e", "g 2 v q e");
        good("postgresql:///?host=h&dbname=d", "h 5432 - - d");
        bad("postgresql://u:hunter2@/d", "the URL names no host");
        bad("postgresql:///d", "the URL names no host");
        bad("postgresql:///d?host=", "the URL names no host");
        bad("postgresql://g,h/d", "the URL names several hosts");
        bad("postgresql://u:hunter2@g:1,h:2/d", "the URL names several hosts");
        bad("postgresql://[::1],h/d", "the URL names several hosts");
        bad("postgresql:///d?host=g,h", "the URL names several hosts");
        bad("postgresql:///d?host=g&host=h", "the URL names several hosts");
        bad("postgresql://h:x/d", "the URL's port is not a number from 1 to 65535");
        bad("postgresql://h:0/d", "the URL's port is not a number from 1 to 65535");
        bad("postgresql://h:65536/d", "the URL's port is not a number from 1 to 65535");
        bad("postgresql://h/d?port=-1", "the URL's port is not a number from 1 to 65535");
        bad("postgresql://[::1/d", "the URL's `[…]` is not an IPv6 address");
        bad("postgresql://[::g]/d", "the URL's `[…]` is not an IPv6 address");
        bad("postgresql://[::1]x/d", "the URL's `[…]` is not an IPv6 address");
        bad("postgresql:///d?host=run/postgresql", "the URL's host holds a character that no host name has");
        bad("postgresql:///d?host=h:5432", "the URL's host holds a character that no host name has");
        bad("postgresql://u:hunter2@h", "the URL names no database");
        bad("postgresql://u:hunter2@h/", "the URL names no database");
        bad("postgresql://u:hunter2@h/?sslmode=require", "the URL names no database");
    }

    #[test]
    fn users_and_passwords() {
        good("postgresql://u@h/d", "h 5432 u - d");
        good("postgresql://u:@h/d", "h 5432 u - d");
        good("postgresql://:p@h/d", "h 5432 - p d");
        good("postgresql://@h/d", "h 5432 - - d");
        good("postgresql://u:p:q@h/d", "h 5432 u p:q d");
        good("postgresql://u:a$b!c&d#e*f(g)h?i=j@h/d", "h 5432 u a$b!c&d#e*f(g)h?i=j d");
        good("postgresql://u:$ecret@h/d", "h 5432 u $ecret d");
        good("postgresql://u:$PASSWORD@h/d", "h 5432 u $PASSWORD d");
        good("postgresql://u:a b<c>[d]{e}@h/d", "h 5432 u a b<c>[d]{e} d");
        good("postgresql://u:+%2B%20%25%40%2F%3a@h/d", "h 5432 u ++ %@/: d");
        good("postgresql://a%40b:%C3%BC@h/%C3%BC%3F", "h 5432 a@b ü ü?");
        good("postgresql://h/d?user=a@b", "h 5432 a@b - d");
        bad("postgresql://u:hun@ter2@h/d", "the URL's host holds an `@`");
        bad("postgresql://u:hun/ter2@h/d", "a `/` stands before the URL's `@`");
        bad("postgresql://u:@hunter2/@h/d", "a `/` stands before the URL's `@`");
        bad("postgresql://u:?@hunter2/@h/d", "a `/` stands before the URL's `@`");
        bad("postgresql:///d@b?host=/run/postgresql", "a `/` stands before the URL's `@`");
        bad("postgresql://u:1/hunter2?ter2=x@h/d", "a `/` stands before the URL's `@`");
        bad("postgresql://u:100%hunter2@h/d", "a `%` in the URL's password does not begin a valid escape");
        bad("postgresql://u:hunter2%@h/d", "a `%` in the URL's password does not begin a valid escape");
        bad("postgresql://u:hunter2%00@h/d", "a `%` in the URL's password does not begin a valid escape");
        bad("postgresql://u:hunter2%FF@h/d", "a `%` in the URL's password does not begin a valid escape");
        bad("postgresql://u:hunter2@h/%zz", "a `%` in the URL's database does not begin a valid escape");
    }

    #[test]
    fn placeholders() {
        for text in ["[YOUR-PASSWORD]", "<password>", "{password}", "{{ db.password }}", "__PASSWORD__", "${PASSWORD}"]
        {
            bad(&format!("postgresql://u:{text}@h/d"), "the URL's password is a placeholder that was never replaced");
            bad(&format!("postgresql://{text}:hunter2@h/d"), "the URL's user is a placeholder that was never replaced");
            bad(&format!("postgresql://u:hunter2@{text}/d"), "the URL's host is a placeholder that was never replaced");
            let host = format!("postgresql://u:hunter2@/d?host=/cloudsql/{text}");
            bad(&host, "the URL's host is a placeholder that was never replaced");
        }
        bad("postgresql://u:$(PASSWORD)@h/d", "the URL's password is a placeholder that was never replaced");
        bad("postgresql://u:%(password)s@h/d", "the URL's password is a placeholder that was never replaced");
        bad("postgresql://u:%3Cpassword%3E@h/d", "the URL's password is a placeholder that was never replaced");
        bad("postgresql://h/d?password=<password>", "the URL's password is a placeholder that was never replaced");
        bad("postgresql://u:hunter2@<host>:5432/d", "the URL's host is a placeholder that was never replaced");
    }

    #[test]
    fn parameters() {
        for mode in SslMode::ALL.map(SslMode::as_str) {
            let expected = if mode == "prefer" { String::new() } else { format!(" ssl={mode}") };
            good(&format!("postgresql://h/d?sslmode={mode}"), &format!("h 5432 - - d{expected}"));
            good(&format!("postgresql+asyncpg://h/d?ssl={mode}"), &format!("h 5432 - - d{expected}"));
        }
        good("postgresql://h/d?ssl=true", "h 5432 - - d ssl=require");
        good(
            "postgresql://h/d?sslmode=verify-full&sslrootcert=/a/b.crt&sslcert=%2Fc&sslkey=/k",
            "h 5432 - - d ssl=verify-full root=/a/b.crt cert=/c key=/k",
        );
        good("postgresql://h/d?connect_timeout=10&application_name=my%20app", "h 5432 - - d timeout=10 app=my app");
        good(
            "postgresql://h/d?options=-c%20search_path%3Da\\%20b%20--lock-timeout%3D4s%20-cgeqo%3Doff",
            r#"h 5432 - - d options=[("search_path", "a b"), ("lock_timeout", "4s"), ("geqo", "off")]"#,
        );
        good("postgresql://h/d?&sslmode=require&", "h 5432 - - d ssl=require");
        bad("postgresql://h/d?sslmode=on", "the URL's `sslmode` is not an SSL mode");
        bad("postgresql://h/d?ssl=1", "the URL's `ssl` is not an SSL mode");
        bad("postgresql://h/d?connect_timeout=soon", "the URL's `connect_timeout` is not a number of seconds");
        bad("postgresql://h/d?options=-d%205", "the URL's `options` are not settings");
        bad("postgresql://h/d?options=-c", "the URL's `options` are not settings");
        bad("postgresql://h/d?options=-c%20geqo", "the URL's `options` are not settings");
        bad("postgresql://h/d?options=-c%20a=b", "a parameter of the URL holds a second `=`");
        bad("postgresql://h/d?sslmode", "a parameter of the URL has no `=`");
        bad("postgresql://h/d?pool_size=3", "the URL has the parameter `pool_size`, which migrate does not know");
        bad("postgresql://h/d?SSLMODE=require", "the URL has a parameter that migrate does not know");
        bad("postgresql://h/d?a=b?c=d", "a parameter of the URL holds a second `=`");
    }

    #[test]
    fn what_is_shown_never_holds_the_password() {
        let url = DatabaseUrl::parse("postgresql://u:hunter2@[::1]:7/d%20e?sslmode=require").expect("a URL");
        assert_eq!(url.to_string(), "postgresql://u:***@[::1]:7/d%20e");
        assert_eq!(format!("{url:?}"), "DatabaseUrl(postgresql://u:***@[::1]:7/d%20e)");
        let socket = DatabaseUrl::parse("postgresql://u:hunter2@/d?host=/cloudsql/p:r:i&port=7").expect("a URL");
        assert_eq!(socket.to_string(), "postgresql://u:***@/d?host=/cloudsql/p:r:i&port=7");
    }

    #[test]
    fn a_user_comes_from_the_url_or_from_the_default() {
        let parse = |text| DatabaseUrl::parse_with_default_user(text, Some("me")).expect("a URL");
        assert_eq!(parse("postgresql://h/d").user(), Some("me"));
        assert_eq!(parse("postgresql://you@h/d").user(), Some("you"));
    }

    #[test]
    fn another_database_of_the_same_server() {
        let url = DatabaseUrl::parse("postgresql://u:hunter2@h:7/d?sslmode=require").expect("a URL");
        let other = url.with_dbname("postgres");
        assert_eq!(fields(&other), "h 7 u hunter2 postgres ssl=require");
        assert!(!other.same_place(&url) && other.with_dbname("d").same_place(&url));
    }

    #[test]
    fn the_options_of_a_connection() {
        let options =
            DatabaseUrl::parse("postgresql://u:p@h:7/d?sslmode=verify-ca&options=-c%20geqo%3Doff").expect("a URL");
        let options = options.connect_options();
        assert_eq!((options.get_host(), options.get_port(), options.get_username()), ("h", 7, "u"));
        assert_eq!((options.get_database(), options.get_options()), (Some("d"), Some("-c geqo=off")));
        assert!(matches!(options.get_ssl_mode(), PgSslMode::VerifyCa));
        let socket = DatabaseUrl::parse("postgresql:///d?host=/run/postgresql").expect("a URL").connect_options();
        assert_eq!((socket.get_host(), socket.get_socket()), ("/run/postgresql", None));
        assert!(matches!(socket.get_ssl_mode(), PgSslMode::Prefer));
    }

    #[test]
    fn the_environment_of_a_child() {
        let env = |text| DatabaseUrl::parse(text).expect("a URL").libpq_env();
        let pairs = |text| env(text).iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
        assert_eq!(
            pairs("postgresql:///d?host=/run/postgresql"),
            ["PGHOST=/run/postgresql", "PGPORT=5432", "PGDATABASE=d", "PGSSLMODE=prefer"]
        );
        let all = "postgresql://u:p%40@h:7/d?sslmode=require&sslrootcert=r&sslcert=c&sslkey=k&connect_timeout=5\
                   &options=-c%20a%3Db&application_name=n";
        let expected = "PGHOST=h PGPORT=7 PGUSER=u PGDATABASE=d PGPASSWORD=p@ PGSSLMODE=require PGSSLROOTCERT=r PGSSLCERT=c \
                        PGSSLKEY=k PGCONNECT_TIMEOUT=5 PGOPTIONS=-c a=b PGAPPNAME=n";
        assert_eq!(pairs(all).join(" "), expected);
    }

    proptest! {
        #[test]
        fn any_password_survives_encoding(password in "\\PC{1,20}") {
            let text = format!("postgresql://u:{}@h/d", percent_encode(&password));
            match DatabaseUrl::parse(&text) {
                Ok(url) => prop_assert_eq!(url.password().map(Secret::expose), Some(password.as_str())),
                Err(error) => prop_assert_eq!(error, UrlError::Placeholder("password")),
            }
        }

        #[test]
        fn no_error_holds_a_password_however_it_is_written(before in "[:/@?#&=%\\[\\]]{0,3}", after in "[:/@?#&=%\\[\\]]{0,3}") {
            let text = format!("postgresql://user:{before}hunter2{after}@host:5432/db?sslmode=require");
            let shown = match DatabaseUrl::parse(&text) {
                Ok(url) => format!("{url} {url:?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            prop_assert!(!shown.contains("hunter2"), "{}: {}", text, shown);
        }
    }
}
