//! From the text of a URL to its parts, by the rules of libpq's `conninfo_uri_parse`, with the refusals of
//! [`UrlError`]. No error holds a value from the URL: what stands before a misplaced `/` or `@` may be a password.

use std::net::Ipv6Addr;

use super::DatabaseUrl;
use super::defaults::Defaults;
use super::error::UrlError;
use super::protection::Protection;
use crate::outside::secret::Secret;

/// The parts as they are gathered: the query comes last and overrides, as in libpq. Empty means not given.
#[derive(Default)]
struct Parts {
    host: String,
    port: String,
    user: String,
    password: String,
    dbname: String,
    protection: Protection,
    options: String,
    connect_timeout: Option<u32>,
    application_name: String,
    hosts_in_query: usize,
}

/// Reads a URL.
pub(super) fn parse(text: &str, defaults: &Defaults) -> Result<DatabaseUrl, UrlError> {
    if text != text.trim() {
        return Err(UrlError::WhiteSpace);
    }
    let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
    if !is_scheme(scheme) {
        return Err(UrlError::Scheme);
    }
    let credentials_end = rest.find(['@', '/']).filter(|at| rest[*at..].starts_with('@'));
    let read = gather(rest, credentials_end).and_then(|parts| finish(text, parts, defaults));
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
        "options" => parts.options = decode(value, "`options`")?,
        "application_name" => parts.application_name = decode(value, "`application_name`")?,
        "connect_timeout" => parts.connect_timeout = Some(value.parse().map_err(|_| UrlError::ConnectTimeout)?),
        _ => return read_protection(parts, &name, value),
    }
    Ok(())
}

fn read_protection(parts: &mut Parts, name: &str, value: &str) -> Result<(), UrlError> {
    let value = decode(value, "parameters")?;
    parts.protection.read(name, &value).unwrap_or_else(|| Err(unknown_parameter(name)))
}

/// The name is shown if it can be the name of a parameter.
fn unknown_parameter(name: &str) -> UrlError {
    let plain = name.len() <= 40 && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    if plain { UrlError::UnknownParameter(name.to_owned()) } else { UrlError::UnreadableParameter }
}

fn finish(text: &str, parts: Parts, defaults: &Defaults) -> Result<DatabaseUrl, UrlError> {
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
        user: given(parts.user).or_else(|| defaults.user.clone()),
        password: given(parts.password).map(Secret::new),
        dbname: given(parts.dbname).ok_or(UrlError::NoDatabase)?,
        ssl: parts.protection.finish(defaults)?,
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
