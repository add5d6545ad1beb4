//! From the text of a URL to its parts, by the rules of libpq's `conninfo_uri_parse`, with the refusals of
//! [`UrlError`]. No error holds a value from the URL: what stands before a misplaced `/` or `@` may be a password.

use std::net::Ipv6Addr;

use super::{DatabaseUrl, SslMode};
use crate::outside::secret::Secret;

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
             `sslcert`, `sslkey`, `options`, `connect_timeout` and `application_name`."
        )
    )]
    UnknownParameter(String),
    /// The same, where even the name may be part of a password.
    #[error("the URL has a parameter that migrate does not know")]
    #[diagnostic(code("url.unknown_parameter"), help("Write a `?` or `&` in a password as `%3F` or `%26`."))]
    UnreadableParameter,
    /// `sslmode` or `ssl`.
    #[error("the URL's `{0}` is not an SSL mode")]
    #[diagnostic(
        code("url.ssl_mode"),
        help("Write `disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`.")
    )]
    SslMode(&'static str),
    /// `connect_timeout`.
    #[error("the URL's `connect_timeout` is not a number of seconds")]
    #[diagnostic(code("url.connect_timeout"), help("Write a whole number, as in `connect_timeout=10`."))]
    ConnectTimeout,
    /// `options`.
    #[error("the URL's `options` are not settings")]
    #[diagnostic(code("url.options"), help("Write `options=-c%20name%3Dvalue`; other switches are not supported."))]
    Options,
}

/// The parts as they are gathered: the query comes last and overrides, as in libpq. Empty means not given.
#[derive(Default)]
struct Parts {
    host: String,
    port: String,
    user: String,
    password: String,
    dbname: String,
    ssl_mode: Option<SslMode>,
    ssl_root_cert: String,
    ssl_cert: String,
    ssl_key: String,
    options: String,
    connect_timeout: Option<u32>,
    application_name: String,
    hosts_in_query: usize,
}

/// Reads a URL.
pub(super) fn parse(text: &str, default_user: Option<&str>) -> Result<DatabaseUrl, UrlError> {
    if text != text.trim() {
        return Err(UrlError::WhiteSpace);
    }
    let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
    if !is_scheme(scheme) {
        return Err(UrlError::Scheme);
    }
    let credentials_end = rest.find(['@', '/']).filter(|at| rest[*at..].starts_with('@'));
    let read = gather(rest, credentials_end).and_then(|parts| finish(text, parts, default_user));
    // A password with a `/` in it would otherwise be reported as a wrong port, or shown as a host or a database.
    let after = credentials_end.map_or(rest, |at| &rest[at + 1..]);
    let in_path = after.split('?').next().and_then(|it| it.split_once('/')).is_some_and(|(_, path)| path.contains('@'));
    let behind = credentials_end.is_none() && !rest.starts_with(['/', '?']) && rest.contains('@');
    if in_path || behind && read.is_err() { Err(UrlError::Slash) } else { read }
}

/// `postgresql`, `postgres`, and SQLAlchemy's `postgresql+driver`.
fn is_scheme(scheme: &str) -> bool {
    let (dialect, driver) = scheme.split_once('+').unwrap_or((scheme, "none"));
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    matches!(dialect, "postgresql" | "postgres") && !driver.is_empty() && driver.chars().all(plain)
}

fn gather(rest: &str, credentials_end: Option<usize>) -> Result<Parts, UrlError> {
    let mut parts = Parts::default();
    let after = match credentials_end {
        Some(at) => {
            let (user, password) = rest[..at].split_once(':').unwrap_or((&rest[..at], ""));
            parts.user = component(user, "user")?;
            parts.password = component(password, "password")?;
            &rest[at + 1..]
        }
        None => rest,
    };
    let (place, query) = after.split_once('?').unwrap_or((after, ""));
    let (authority, dbname) = place.split_once('/').unwrap_or((place, ""));
    read_authority(&mut parts, authority)?;
    parts.dbname = decode(dbname, "database")?;
    query.split('&').filter(|it| !it.is_empty()).try_for_each(|it| read_parameter(&mut parts, it))?;
    Ok(parts)
}

fn read_authority(parts: &mut Parts, authority: &str) -> Result<(), UrlError> {
    if authority.contains('@') {
        return Err(UrlError::AtSign);
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']').ok_or(UrlError::Ipv6)?;
            // libpq takes what stands in brackets on trust; here it is an address or nothing.
            let host = decode(host, "host")?;
            if !is_ipv6(&host) {
                return Err(bracketed_error(&host));
            }
            let port = if after.is_empty() { "" } else { after.strip_prefix(':').ok_or_else(|| odd_tail(after))? };
            (host, port)
        }
        None => {
            let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
            (component(host, "host")?, port)
        }
    };
    parts.host = host;
    parts.port = component(port, "port")?;
    Ok(())
}

/// `[YOUR-HOST]` is a placeholder, `[::g]` is a mistake.
fn bracketed_error(host: &str) -> UrlError {
    if host.contains(':') { UrlError::Ipv6 } else { UrlError::Placeholder("host") }
}

fn odd_tail(after: &str) -> UrlError {
    if after.starts_with(',') { UrlError::SeveralHosts } else { UrlError::Ipv6 }
}

fn read_parameter(parts: &mut Parts, parameter: &str) -> Result<(), UrlError> {
    let (name, value) = parameter.split_once('=').ok_or(UrlError::NoEquals)?;
    if value.contains('=') {
        return Err(UrlError::SecondEquals);
    }
    let name = decode(name, "parameters")?;
    match name.as_str() {
        "host" => {
            parts.hosts_in_query += 1;
            parts.host = component(value, "host")?;
        }
        "port" => parts.port = component(value, "port")?,
        "user" => parts.user = component(value, "user")?,
        "password" => parts.password = component(value, "password")?,
        "dbname" => parts.dbname = decode(value, "database")?,
        "sslmode" => parts.ssl_mode = Some(ssl_mode(value).ok_or(UrlError::SslMode("sslmode"))?),
        "ssl" if value == "true" => parts.ssl_mode = Some(SslMode::Require),
        "ssl" => parts.ssl_mode = Some(ssl_mode(value).ok_or(UrlError::SslMode("ssl"))?),
        "sslrootcert" => parts.ssl_root_cert = decode(value, "`sslrootcert`")?,
        "sslcert" => parts.ssl_cert = decode(value, "`sslcert`")?,
        "sslkey" => parts.ssl_key = decode(value, "`sslkey`")?,
        "options" => parts.options = decode(value, "`options`")?,
        "application_name" => parts.application_name = decode(value, "`application_name`")?,
        "connect_timeout" => parts.connect_timeout = Some(value.parse().map_err(|_| UrlError::ConnectTimeout)?),
        _ => return Err(unknown_parameter(name)),
    }
    Ok(())
}

/// The name is shown if it can be the name of a parameter.
fn unknown_parameter(name: String) -> UrlError {
    let plain = name.len() <= 40 && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    if plain { UrlError::UnknownParameter(name) } else { UrlError::UnreadableParameter }
}

fn ssl_mode(text: &str) -> Option<SslMode> {
    SslMode::ALL.into_iter().find(|mode| mode.as_str() == text)
}

fn finish(text: &str, parts: Parts, default_user: Option<&str>) -> Result<DatabaseUrl, UrlError> {
    if parts.hosts_in_query > 1 || parts.host.contains(',') || parts.port.contains(',') {
        return Err(UrlError::SeveralHosts);
    }
    check_host(&parts.host)?;
    let port = if parts.port.is_empty() { Some(5432) } else { parts.port.parse().ok() };
    let given = |text: String| Some(text).filter(|it| !it.is_empty());
    let options = settings(&parts.options)?;
    Ok(DatabaseUrl {
        host: parts.host,
        port: port.filter(|port| *port != 0).ok_or(UrlError::Port)?,
        user: given(parts.user).or_else(|| default_user.map(str::to_owned)),
        password: given(parts.password).map(Secret::new),
        dbname: given(parts.dbname).ok_or(UrlError::NoDatabase)?,
        ssl_mode: parts.ssl_mode.unwrap_or(SslMode::Prefer),
        ssl_root_cert: given(parts.ssl_root_cert),
        ssl_cert: given(parts.ssl_cert),
        ssl_key: given(parts.ssl_key),
        options_text: given(parts.options),
        options,
        connect_timeout: parts.connect_timeout,
        application_name: given(parts.application_name),
        given: Secret::new(text),
    })
}

fn check_host(host: &str) -> Result<(), UrlError> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    // A socket: the instance after `/cloudsql/` may be a placeholder of its own.
    if let Some((_, last)) = host.rsplit_once('/').filter(|_| host.starts_with('/')) {
        return if is_placeholder(last) { Err(UrlError::Placeholder("host")) } else { Ok(()) };
    }
    match host {
        "" => Err(UrlError::NoHost),
        _ if host.contains('@') => Err(UrlError::AtSign),
        _ if host.chars().all(plain) || is_ipv6(host) => Ok(()),
        _ => Err(UrlError::Host),
    }
}

/// With or without a zone, as in `fe80::1%eth0`.
fn is_ipv6(host: &str) -> bool {
    host.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

/// Decodes one part, and refuses what only an application or a deployment script would have replaced.
fn component(raw: &str, what: &'static str) -> Result<String, UrlError> {
    if is_placeholder(raw) {
        return Err(UrlError::Placeholder(what));
    }
    let text = decode(raw, what)?;
    if is_placeholder(&text) { Err(UrlError::Placeholder(what)) } else { Ok(text) }
}

/// True if the whole of `text` is a placeholder. A password that merely contains `$` or `<` is a password.
fn is_placeholder(text: &str) -> bool {
    const FORMS: [(&str, &str); 7] =
        [("[", "]"), ("<", ">"), ("{", "}"), ("__", "__"), ("${", "}"), ("$(", ")"), ("%(", ")s")];
    FORMS.iter().any(|(open, close)| {
        text.strip_prefix(open).and_then(|rest| rest.strip_suffix(close)).is_some_and(|inner| {
            let name = inner.trim_matches(|c: char| matches!(c, '{' | '}' | ' '));
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ' ' | '.'))
        })
    })
}

/// Percent-decoding as libpq does it: everywhere, `+` stays `+`, no zero bytes.
fn decode(raw: &str, what: &'static str) -> Result<String, UrlError> {
    let wrong = || UrlError::Percent(what);
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_first_chunk::<2>().ok_or_else(wrong)?;
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        let (high, low) = digit(0).zip(digit(1)).filter(|pair| *pair != (0, 0)).ok_or_else(wrong)?;
        bytes.push(u8::try_from(high * 16 + low).expect("two hexadecimal digits are a byte"));
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// `-c a=b --c-d=e` as pairs; a backslash keeps the next character, as the server has it.
fn settings(options: &str) -> Result<Vec<(String, String)>, UrlError> {
    let mut words = words(options).into_iter();
    let mut pairs = Vec::new();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("--") {
            Some(long) => Some(long.to_owned()),
            None if word == "-c" => words.next(),
            None => word.strip_prefix("-c").map(str::to_owned),
        };
        let setting = setting.ok_or(UrlError::Options)?;
        let (name, value) = setting.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or(UrlError::Options)?;
        pairs.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(pairs)
}

fn words(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = options.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
