//! Why a text is not the URL of a database, or not one that we could honour.

use std::fmt;

/// Where a parameter was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whence {
    /// The URL's parameter of this name.
    Url(&'static str),
    /// The environment's variable of this name.
    Environment(&'static str),
}

impl fmt::Display for Whence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(name) => write!(f, "the URL's `{name}`"),
            Self::Environment(name) => write!(f, "`{name}` in the environment"),
        }
    }
}

/// Why a text is not the URL of a database. The messages never hold the password or any other value of the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum UrlError {
    /// Not a PostgreSQL URL at all.
    #[error("the URL does not begin with `postgresql://`")]
    #[diagnostic(code("url.scheme"), help("Write `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`."))]
    Scheme,
    /// Usually a line end that came along with a secret.
    #[error("the URL begins or ends with white space")]
    #[diagnostic(
        code("url.white_space"),
        help("Remove it; a secret that was stored with a line end is a common cause.")
    )]
    WhiteSpace,
    /// libpq would go to a default socket; which one differs from machine to machine.
    #[error("the URL names no host")]
    #[diagnostic(code("url.no_host"), help("Write `?host=/run/postgresql` for the local socket."))]
    NoHost,
    /// A release goes to one server, not to whichever answers.
    #[error("the URL names several hosts")]
    #[diagnostic(code("url.several_hosts"), help("Name the one server that is to be changed."))]
    SeveralHosts,
    /// libpq would take the user's name.
    #[error("the URL names no database")]
    #[diagnostic(code("url.no_database"), help("Write the database's name after the host: `…@HOST/DATABASE`."))]
    NoDatabase,
    /// The port is not a port.
    #[error("the URL's port is not a number from 1 to 65535")]
    #[diagnostic(code("url.port"), help("Write `HOST:5432`; a `:` or `/` in the password is written `%3A` or `%2F`."))]
    Port,
    /// The host cannot be one.
    #[error("the URL's host holds a character that no host name has")]
    #[diagnostic(
        code("url.host"),
        help("Write the host as `db.example.org`, `10.0.0.7`, `[::1]` or `?host=/run/postgresql`.")
    )]
    Host,
    /// The first `@` ends the password, so the rest of the password became the host.
    #[error("the URL's host holds an `@`")]
    #[diagnostic(code("url.at_sign"), help("Write an `@` in the user or the password as `%40`."))]
    AtSign,
    /// The first `/` ends the host, so the rest of the password became the database.
    #[error("a `/` stands before the URL's `@`")]
    #[diagnostic(
        code("url.slash"),
        help("Write a `/` in the user or the password as `%2F`, and an `@` in the database's name as `%40`.")
    )]
    Slash,
    /// `[` without `]`, or not an IPv6 address between them.
    #[error("the URL's `[…]` is not an IPv6 address")]
    #[diagnostic(code("url.ipv6"), help("Write an IPv6 address as `[::1]`, followed by `:PORT`, `/` or nothing."))]
    Ipv6,
    /// Only the application replaces it.
    #[error("the URL's {0} is a placeholder that was never replaced")]
    #[diagnostic(code("url.placeholder"), help("Put the real {0} in its place."))]
    Placeholder(&'static str),
    /// Not two hexadecimal digits after `%`, or not UTF-8 once decoded.
    #[error("a `%` in the URL's {0} does not begin a valid escape")]
    #[diagnostic(code("url.percent"), help("Write a literal `%` as `%25`."))]
    Percent(&'static str),
    /// A parameter without a value.
    #[error("a parameter of the URL has no `=`")]
    #[diagnostic(code("url.parameter"), help("Write parameters as `?name=value&name=value`."))]
    NoEquals,
    /// libpq refuses it too.
    #[error("a parameter of the URL holds a second `=`")]
    #[diagnostic(code("url.parameter"), help("Write an `=` in a value as `%3D`."))]
    SecondEquals,
    /// A parameter that we could not honour.
    #[error("the URL has the parameter `{0}`, which migrate does not know")]
    #[diagnostic(
        code("url.unknown_parameter"),
        help(
            "Remove it; the parameters are `host`, `port`, `user`, `password`, `dbname`, `sslmode`, `ssl`, `sslrootcert`, \
             `sslcert`, `sslkey`, `sslcrl`, `ssl_min_protocol_version`, `channel_binding`, `options`, `connect_timeout` and \
             `application_name`."
        )
    )]
    UnknownParameter(String),
    /// The same, where even the name may be part of a password.
    #[error("the URL has a parameter that migrate does not know")]
    #[diagnostic(code("url.unknown_parameter"), help("Write a `?` or `&` in a password as `%3F` or `%26`."))]
    UnreadableParameter,
    /// A parameter of libpq that we could not honour, or such a value of it.
    #[error("{0} cannot be honoured")]
    #[diagnostic(code("url.unsupported"), help("{1}"))]
    Unsupported(Whence, &'static str),
    /// `sslmode` or `ssl`.
    #[error("{0} is not an SSL mode")]
    #[diagnostic(
        code("url.ssl_mode"),
        help("Write `disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`.")
    )]
    SslMode(Whence),
    /// Anybody can have a certificate of some authority that the system trusts.
    #[error("`sslrootcert=system` goes with `sslmode=verify-full` alone")]
    #[diagnostic(
        code("url.system_authorities"),
        help("Write `sslmode=verify-full`, or name the file of the one authority to trust in `sslrootcert`.")
    )]
    WeakSystem,
    /// `channel_binding`.
    #[error("{0} is not `disable`, `prefer` or `require`")]
    #[diagnostic(code("url.channel_binding"), help("Write `channel_binding=require`, or leave it out."))]
    ChannelBinding(Whence),
    /// `ssl_min_protocol_version`.
    #[error("{0} is not a version of TLS")]
    #[diagnostic(code("url.tls_version"), help("Write `TLSv1.2` or `TLSv1.3`."))]
    TlsVersion(Whence),
    /// `connect_timeout`.
    #[error("the URL's `connect_timeout` is not a number of seconds")]
    #[diagnostic(code("url.connect_timeout"), help("Write a whole number, as in `connect_timeout=10`."))]
    ConnectTimeout,
    /// `options`.
    #[error("the URL's `options` are not settings")]
    #[diagnostic(code("url.options"), help("Write `options=-c%20name%3Dvalue`; other switches are not supported."))]
    Options,
}
