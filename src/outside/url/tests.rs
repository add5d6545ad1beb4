//! URLs as people write them, and what comes of each.

use proptest::prelude::*;

use super::*;

/// `host port user password dbname`, and whatever else is set.
fn fields(url: &DatabaseUrl) -> String {
    let password = url.password().map_or("-", Secret::expose);
    let mut text = format!("{} {} {} {password} {}", url.host(), url.port(), url.user().unwrap_or("-"), url.dbname());
    let rest = [
        ("ssl", Some(url.ssl().mode.as_str()).filter(|it| *it != "prefer").map(str::to_owned)),
        ("root", url.ssl().root_cert.clone()),
        ("cert", url.ssl().cert.clone()),
        ("key", url.ssl().key.clone()),
        ("crl", url.ssl().crl.clone()),
        ("binding", Some(url.ssl().channel_binding.as_str()).filter(|it| *it != "prefer").map(str::to_owned)),
        ("tls", url.ssl().tls13_only.then(|| "1.3".to_owned())),
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
    good("postgresql://u:p@/d?host=%2Fcloudsql%2Fp-1%3Aeurope-west1%3Ai", "/cloudsql/p-1:europe-west1:i 5432 u p d");
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
    for text in ["[YOUR-PASSWORD]", "<password>", "{password}", "{{ db.password }}", "__PASSWORD__", "${PASSWORD}"] {
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
fn protection() {
    good(
        "postgresql://h/d?sslcrl=/l&channel_binding=require&ssl_min_protocol_version=TLSv1.3",
        "h 5432 - - d crl=/l binding=require tls=1.3",
    );
    good("postgresql://h/d?sslrootcert=system", "h 5432 - - d ssl=verify-full root=system");
    good("postgresql://h/d?gssencmode=disable&sslcompression=0&ssl_min_protocol_version=TLSv1.2", "h 5432 - - d");
    bad(
        "postgresql://h/d?sslrootcert=system&sslmode=require",
        "`sslrootcert=system` goes with `sslmode=verify-full` alone",
    );
    bad("postgresql://h/d?channel_binding=yes", "the URL's `channel_binding` is not `disable`, `prefer` or `require`");
    bad(
        "postgresql://h/d?ssl_min_protocol_version=1.3",
        "the URL's `ssl_min_protocol_version` is not a version of TLS",
    );
    for parameter in
        ["sslcrldir=/l", "sslpassword=hunter2", "hostaddr=10.0.0.1", "gssencmode=require", "require_auth=md5"]
    {
        let name = parameter.split('=').next().expect("a name");
        bad(&format!("postgresql://h/d?{parameter}"), &format!("the URL's `{name}` cannot be honoured"));
    }
}

#[test]
fn what_the_environment_says_counts_where_the_url_is_silent() {
    let parse = |text, env: &[(&str, &str)]| {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        DatabaseUrl::parse_with(text, &Defaults::of(&env))
    };
    let full = [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", "/r"), ("PGHOST", "elsewhere"), ("PGSSLCERT", "")];
    assert_eq!(fields(&parse("postgresql://h/d", &full).expect("a URL")), "h 5432 - - d ssl=verify-full root=/r");
    let said = parse("postgresql://h/d?ssl=require&sslrootcert=/s", &full).expect("a URL");
    assert_eq!(fields(&said), "h 5432 - - d ssl=require root=/s");
    let error = |env| parse("postgresql://h/d", env).expect_err("refused").to_string();
    assert_eq!(error(&[("PGSSLMODE", "on")]), "`PGSSLMODE` in the environment is not an SSL mode");
    assert_eq!(error(&[("PGSSLCRLDIR", "/l")]), "`PGSSLCRLDIR` in the environment cannot be honoured");
    // What the URL says against it is not refused for it.
    assert!(parse("postgresql://h/d?gssencmode=disable", &[("PGGSSENCMODE", "require")]).is_ok());
}

#[test]
fn a_command_line_has_everything_but_the_password() {
    let url = "postgresql://u:hunter2@h:7/d?sslmode=verify-full&sslrootcert=/a%20b&sslkey=/k&options=-c%20a%3Db&connect_timeout=3";
    assert_eq!(
        DatabaseUrl::parse(url).expect("a URL").without_password(),
        "postgresql://u@h:7/d?sslmode=verify-full&sslrootcert=%2Fa%20b&sslkey=%2Fk&options=-c%20a%3Db&connect_timeout=3"
    );
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
    let defaults = Defaults::of(&[("PGUSER".to_owned(), "me".to_owned())].into());
    let parse = |text| DatabaseUrl::parse_with(text, &defaults).expect("a URL");
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
    let socket = DatabaseUrl::parse("postgresql:///d?host=/run/postgresql").expect("a URL").connect_options();
    assert_eq!((socket.get_host(), socket.get_socket()), ("/run/postgresql", None));
    // TLS is never sqlx's.
    assert!(matches!(options.get_ssl_mode(), PgSslMode::Disable));
}

#[test]
fn the_environment_of_a_child() {
    let env = |text| DatabaseUrl::parse(text).expect("a URL").libpq_env();
    let pairs = |text| env(text).iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
    assert_eq!(
        pairs("postgresql:///d?host=/run/postgresql"),
        ["PGHOST=/run/postgresql", "PGPORT=5432", "PGDATABASE=d", "PGGSSENCMODE=disable", "PGSSLMODE=prefer"]
    );
    let all = "postgresql://u:p%40@h:7/d?sslmode=require&sslrootcert=r&sslcert=c&sslkey=k&connect_timeout=5\
               &options=-c%20a%3Db&application_name=n";
    let expected = "PGHOST=h PGPORT=7 PGUSER=u PGDATABASE=d PGPASSWORD=p@ PGGSSENCMODE=disable PGCONNECT_TIMEOUT=5 \
                    PGOPTIONS=-c a=b PGAPPNAME=n PGSSLMODE=require PGSSLROOTCERT=r PGSSLCERT=c PGSSLKEY=k";
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
