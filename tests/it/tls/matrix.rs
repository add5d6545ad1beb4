//! Every `sslmode` against every sort of server, with every sort of file: what libpq makes of a URL, and what we make of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use migrate::outside::postgres::connect;
use migrate::outside::url::{DatabaseUrl, Defaults, SslMode};

use super::authority::{Authority, Pair};
use super::server::{ENCODED, Server};

/// What came of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Encrypted,
    Plain,
    Refused(String),
}

/// What is tried.
struct Cell {
    url: String,
    env: BTreeMap<String, String>,
}

impl Cell {
    fn new(server: &Server, url: String) -> Self {
        let home = server.home.path().display().to_string();
        Self { url, env: BTreeMap::from([("HOME".to_owned(), home)]) }
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.insert(name.to_owned(), value.into());
        self
    }

    fn libpq(&self, server: &Server) -> Outcome {
        let mut command = Command::new(server.psql());
        command.env_clear().envs(&self.env).args(["-X", "-w", "-At", "-d", &self.url, "-c"]);
        let output = command.arg("select ssl from pg_stat_ssl where pid = pg_backend_pid()").output().expect("psql");
        match String::from_utf8_lossy(&output.stdout).trim() {
            "t" => Outcome::Encrypted,
            "f" => Outcome::Plain,
            _ => Outcome::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }

    async fn ours(&self) -> Outcome {
        let refused = |error: &dyn miette::Diagnostic| {
            let causes = std::iter::successors(error.source(), |it| it.source()).map(|it| format!(": {it}"));
            Outcome::Refused(format!("{error}{}", causes.collect::<String>()))
        };
        let url = match DatabaseUrl::parse_with(&self.url, &Defaults::of(&self.env)) {
            Ok(url) => url,
            Err(error) => return refused(&error),
        };
        let mut session = match connect(&url, "matrix").await {
            Ok(session) => session,
            Err(error) => return refused(&error),
        };
        let ssl = sqlx::query_scalar("select ssl from pg_stat_ssl where pid = pg_backend_pid()");
        if ssl.fetch_one(&mut session).await.expect("an answer") { Outcome::Encrypted } else { Outcome::Plain }
    }
}

/// How many cells came to the same, and which are stricter on purpose.
#[derive(Default)]
struct Count {
    same: usize,
    encrypted: usize,
    plain: usize,
    refused: usize,
    stricter: usize,
}

impl Count {
    /// Both come to the same; where they refuse, we say `why`.
    async fn same(&mut self, server: &Server, cell: &Cell, why: &str) {
        let (libpq, ours) = (cell.libpq(server), cell.ours().await);
        let what = format!("{} {:?}\nlibpq: {libpq:?}\nours:  {ours:?}", cell.url, cell.env);
        match (&libpq, &ours) {
            (Outcome::Encrypted, Outcome::Encrypted) => self.encrypted += 1,
            (Outcome::Plain, Outcome::Plain) => self.plain += 1,
            (Outcome::Refused(_), Outcome::Refused(text)) => {
                assert!(text.contains(why), "{what}\nis to say {why:?}");
                self.refused += 1;
            }
            _ => panic!("{what}"),
        }
        self.same += 1;
    }

    /// libpq goes on as if nothing had been said; we refuse, and say `why`.
    async fn stricter(&mut self, server: &Server, cell: &Cell, why: &str) {
        let (libpq, ours) = (cell.libpq(server), cell.ours().await);
        let what = format!("{} {:?}\nlibpq: {libpq:?}\nours:  {ours:?}", cell.url, cell.env);
        assert!(!matches!(libpq, Outcome::Refused(_)), "no longer a difference: {what}");
        assert!(matches!(&ours, Outcome::Refused(text) if text.contains(why)), "{what}\nis to say {why:?}");
        self.stricter += 1;
    }

    fn print(&self, what: &str) {
        let Self { same, encrypted, plain, refused, stricter } = self;
        println!(
            "{what}: {same} cells as libpq has them ({encrypted} encrypted, {plain} plain, {refused} refused), {stricter} stricter on purpose"
        );
    }
}

/// What a server shows, and why `verify-full` refuses it although the authority is known; empty if it does not.
struct Shown {
    name: &'static str,
    pair: Option<Pair>,
    /// For the name, and for the address.
    wrong: [&'static str; 2],
    /// Why `verify-ca` refuses it.
    untrusted: &'static str,
}

fn shown(ca: &Authority, middle: &Authority) -> Vec<Shown> {
    let it = |name, pair, wrong, untrusted| Shown { name, pair: Some(pair), wrong, untrusted };
    let leaf = middle.issue("leaf", "leaf", "localhost");
    let chain = Pair { cert: middle.together("chain.crt", &[leaf.cert, middle.cert()]), key: leaf.key };
    let expired = ca.issue_for("expired", "localhost", "localhost", "20200101000000Z", "20200201000000Z");
    let early = ca.issue_for("early", "localhost", "localhost", "20480101000000Z", "20490101000000Z");
    let is_for = "the server's certificate is for ";
    vec![
        it("right", ca.issue("right", "whoever", "localhost"), ["", ""], ""),
        it("expired", expired, ["", ""], "expired on 2020-02-01 00:00:00 UTC"),
        it("not valid yet", early, ["", ""], "is not valid before 2048-01-01 00:00:00 UTC"),
        it("wrong host", ca.issue("elsewhere", "localhost", "elsewhere"), [is_for, is_for], ""),
        it("by address", ca.issue("address", "whoever", "address"), [is_for, ""], ""),
        it("common name", ca.issue("cn", "localhost", "plain"), ["", is_for], ""),
        it("version 1", ca.issue_old("old", "localhost"), ["", is_for], ""),
        it("chain", chain, ["", ""], ""),
        it("self-signed", ca.self_signed("self", "localhost"), ["", is_for], "self-signed"),
        Shown { name: "plain only", pair: None, wrong: ["", ""], untrusted: "" },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_does_what_libpq_does() {
    let server = Server::start().await;
    let files = server.files.path();
    let (ca, other) = (Authority::new(files, "Test Authority"), Authority::new(files, "Another Authority"));
    let middle = ca.middle(files, "Middle Authority");
    let missing = files.join("missing.crt");
    let mut count = Count::default();
    for shown in shown(&ca, &middle) {
        server.shows(shown.pair.as_ref(), &ca).await;
        let mut roots = vec![None, Some(ca.cert()), Some(other.cert()), Some(missing.clone())];
        // Trusted byte for byte, and a link without its authority.
        roots.extend((shown.name == "self-signed").then(|| shown.pair.clone().map(|it| it.cert)));
        roots.extend((shown.name == "chain").then(|| Some(middle.cert())));
        for root in &roots {
            for mode in SslMode::ALL {
                for (at, host) in ["localhost", "127.0.0.1"].into_iter().enumerate() {
                    if at == 1 && mode != SslMode::VerifyFull {
                        continue;
                    }
                    let file = root.as_ref().map(|it| format!("&sslrootcert={}", it.display())).unwrap_or_default();
                    let url = server.url("release", host, "postgres", &format!("&sslmode={}{file}", mode.as_str()));
                    let cell = Cell::new(&server, url);
                    let of = |path: &PathBuf| root.as_ref() == Some(path);
                    let strict = of(&missing) && matches!(mode, SslMode::Prefer | SslMode::Require);
                    // Without TLS, `require` is refused by both.
                    let both = shown.pair.is_none() && mode == SslMode::Require;
                    let own = shown.name == "self-signed" && shown.pair.as_ref().is_some_and(|it| of(&it.cert));
                    let why = match root {
                        None if mode.verifies() => "no file of them is named",
                        Some(_) if of(&missing) => "the file of `sslrootcert` cannot be read",
                        _ if shown.pair.is_none() => "the server offers no TLS",
                        Some(_) if own => shown.wrong[at],
                        Some(_) if !shown.untrusted.is_empty() => shown.untrusted,
                        Some(_) if of(&other.cert()) || of(&middle.cert()) => "which is no authority in",
                        _ => shown.wrong[at],
                    };
                    if strict && !both {
                        count.stricter(&server, &cell, why).await;
                    } else {
                        count.same(&server, &cell, why).await;
                    }
                }
            }
        }
    }
    count.print("TLS, ten servers");
    assert!(count.same >= 270 && count.encrypted >= 45 && count.refused >= 100, "{}", count.same);
}

/// What `sslcert` and `sslkey` say.
fn with_client(pair: &Pair) -> String {
    format!("&sslcert={}&sslkey={}", pair.cert.display(), pair.key.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_passwords_and_files_are_as_libpq_has_them() {
    let server = Server::start().await;
    let files = server.files.path();
    let (ca, other) = (Authority::new(files, "Test Authority"), Authority::new(files, "Another Authority"));
    let right = ca.issue("right", "localhost", "localhost");
    server.shows(Some(&right), &ca).await;
    let mut count = Count::default();
    let url = |role: &str, rest: &str| server.url(role, "localhost", "postgres", rest);
    let full = format!("&sslmode=verify-full&sslrootcert={}", ca.cert().display());
    clients(&server, &ca, &other, &mut count, &full).await;
    passwords(&server, &mut count, &full).await;

    // `allow` and `prefer` go the other way where the server wants it; the others do not.
    for (role, other_way) in [("tls_only", "allow"), ("plain_only", "prefer")] {
        for mode in SslMode::ALL.map(SslMode::as_str) {
            let cell = Cell::new(&server, url(role, &format!("&sslmode={mode}")));
            let refusal = if mode.starts_with("verify") { "no file of them" } else { "pg_hba.conf" };
            count.same(&server, &cell, refusal).await;
            if mode == other_way {
                assert!(!matches!(cell.ours().await, Outcome::Refused(_)), "{role} {mode}");
            }
        }
    }
    // What the environment insists on, where the URL is silent; and what the URL says against it.
    for (name, value) in [("PGSSLMODE", "verify-full"), ("PGSSLMODE", "disable"), ("PGCHANNELBINDING", "require")] {
        for rest in ["", "&sslmode=require"] {
            let why = if name == "PGSSLMODE" {
                "no file of them is named"
            } else {
                "`channel_binding=require` cannot be had"
            };
            count.same(&server, &Cell::new(&server, url("release", rest)).with(name, value), why).await;
        }
    }
    let root = ca.cert().display().to_string();
    count
        .same(
            &server,
            &Cell::new(&server, url("release", "")).with("PGSSLROOTCERT", &root).with("PGSSLMODE", "verify-full"),
            "",
        )
        .await;
    let least = Cell::new(&server, url("release", "&sslmode=require&ssl_min_protocol_version=TLSv1.3"));
    count.same(&server, &least, "").await;
    // A socket has no TLS, whatever is asked for.
    for mode in ["require", "verify-full"] {
        let place = format!(
            "postgresql:///postgres?host={}&port={}&user=release",
            server.cluster.socket_dir().display(),
            server.port
        );
        count.same(&server, &Cell::new(&server, format!("{place}&sslmode={mode}")), "").await;
    }
    revoked(&server, &ca, &right, &mut count, &full).await;
    from_home(&server, &ca, &other, &mut count).await;
    count.print("TLS, clients, passwords, revocation, files of the home folder");
    assert!(count.same >= 80, "{}", count.same);
}

async fn clients(server: &Server, ca: &Authority, other: &Authority, count: &mut Count, full: &str) {
    let good = ca.issue("good", "by_certificate", "plain");
    let somebody = ca.issue("somebody", "somebody", "plain");
    let strange = other.issue("strange", "by_certificate", "plain");
    let expired = ca.issue_for("late", "by_certificate", "plain", "20200101000000Z", "20200201000000Z");
    let loose = ca.with_mode(&good, "loose.key", 0o644);
    let locked = ca.encrypted(&good, "locked.key");
    let mixed = Pair { cert: good.cert.clone(), key: somebody.key.clone() };
    let old = ca.issue_old("old_client", "by_certificate");
    let no_key = format!("&sslcert={}", good.cert.display());
    let cases = [
        (String::new(), "connection requires a valid client certificate"),
        (with_client(&good), ""),
        (with_client(&old), ""),
        (with_client(&somebody), "certificate authentication failed"),
        (with_client(&strange), "the server did not take the client certificate"),
        (with_client(&expired), "the server did not take the client certificate"),
        (with_client(&loose), "may be read by others than its owner"),
        (with_client(&locked), "is encrypted"),
        (with_client(&mixed), "is not that of the client certificate"),
        (no_key, "its key is nowhere"),
    ];
    for (client, why) in &cases {
        for mode in ["&sslmode=require", "&sslmode=prefer", full] {
            let url = server.url("by_certificate", "localhost", "postgres", &format!("{mode}{client}"));
            // Without TLS nobody of this name may come, so that `prefer` ends with the server's word where the first try failed.
            let refused_by_us = why.contains("owner")
                || why.contains("encrypted")
                || why.contains("key")
                || why.contains("not that of");
            let why = if mode.ends_with("prefer") && !refused_by_us { "" } else { why };
            count.same(server, &Cell::new(server, url), why).await;
        }
    }
    // Where nobody asks for a certificate, libpq's `prefer` gives up TLS over a key that it will not read.
    for client in [with_client(&loose), with_client(&locked), with_client(&mixed)] {
        let url = server.url("release", "localhost", "postgres", &format!("&sslmode=prefer{client}"));
        count.stricter(server, &Cell::new(server, url), "key").await;
    }
    let missing = "&sslmode=require&sslcert=/nowhere/it.crt&sslkey=/nowhere/it.key";
    let url = server.url("release", "localhost", "postgres", missing);
    count.stricter(server, &Cell::new(server, url), "the file of `sslcert` cannot be read").await;
}

async fn passwords(server: &Server, count: &mut Count, full: &str) {
    for mode in ["&sslmode=disable", "&sslmode=prefer", "&sslmode=require", full] {
        for binding in ["", "&channel_binding=disable", "&channel_binding=prefer", "&channel_binding=require"] {
            let plain = mode.ends_with("disable");
            for (password, wrong) in [(ENCODED, ""), ("wrong", "password authentication failed")] {
                let role = format!("by_password:{password}");
                let url = server.url(&role, "localhost", "postgres", &format!("{mode}{binding}"));
                let unbound = plain && binding.ends_with("require");
                let why = if unbound { "`channel_binding=require` cannot be had" } else { wrong };
                count.same(server, &Cell::new(server, url), why).await;
            }
            // Somebody whom the server does not ask for a password.
            let url = server.url("release", "localhost", "postgres", &format!("{mode}{binding}"));
            count.same(server, &Cell::new(server, url), "`channel_binding=require` cannot be had").await;
        }
    }
}

async fn revoked(server: &Server, ca: &Authority, right: &Pair, count: &mut Count, full: &str) {
    let unlucky = ca.issue("unlucky", "localhost", "localhost");
    let before = ca.crl("before.crl");
    ca.revoke(&unlucky);
    let after = ca.crl("after.crl");
    for (pair, list, why) in
        [(right, &before, ""), (right, &after, ""), (&unlucky, &before, ""), (&unlucky, &after, "is revoked")]
    {
        server.shows(Some(pair), ca).await;
        for mode in [full, &full.replace("verify-full", "require")] {
            let url = server.url("release", "localhost", "postgres", &format!("{mode}&sslcrl={}", list.display()));
            count.same(server, &Cell::new(server, url), why).await;
        }
    }
    server.shows(Some(right), ca).await;
    let url = server.url("release", "localhost", "postgres", &format!("{full}&sslcrl=/nowhere/it.crl"));
    count.stricter(server, &Cell::new(server, url), "the file of `sslcrl` cannot be read").await;
}

/// libpq's own files, where neither URL nor environment names one.
async fn from_home(server: &Server, ca: &Authority, other: &Authority, count: &mut Count) {
    let folder = server.home.path().join(".postgresql");
    fs::create_dir(&folder).expect("a folder");
    for (authority, why) in [(ca, ""), (other, "which is no authority in")] {
        fs::copy(authority.cert(), folder.join("root.crt")).expect("a copy");
        for mode in SslMode::ALL.map(SslMode::as_str) {
            let url = server.url("release", "localhost", "postgres", &format!("&sslmode={mode}"));
            count.same(server, &Cell::new(server, url), why).await;
        }
    }
    fs::copy(ca.cert(), folder.join("root.crt")).expect("a copy");
    let good = ca.issue("at_home", "by_certificate", "plain");
    fs::copy(&good.cert, folder.join("postgresql.crt")).expect("a copy");
    let url = server.url("by_certificate", "localhost", "postgres", "&sslmode=verify-full");
    count.same(server, &Cell::new(server, url.clone()), "its key is nowhere").await;
    fs::copy(&good.key, folder.join("postgresql.key")).expect("a copy, with its rights");
    count.same(server, &Cell::new(server, url), "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authorities_of_the_system_go_with_verify_full_alone() {
    let server = Server::start().await;
    let ca = Authority::new(server.files.path(), "Test Authority");
    server.shows(Some(&ca.issue("right", "localhost", "localhost")), &ca).await;
    let cell = |rest: &str| {
        let url = server.url("release", "localhost", "postgres", &format!("&sslrootcert=system{rest}"));
        Cell::new(&server, url)
    };
    let refused = |outcome: Outcome, why: &str| {
        assert!(matches!(&outcome, Outcome::Refused(it) if it.contains(why)), "{outcome:?}")
    };
    // The authorities of this machine have not issued it. libpq knows the word from version 16 on.
    refused(cell("").ours().await, "which is no authority in /etc/ssl/certs/ca-certificates.crt");
    refused(cell("&sslmode=require").ours().await, "`sslrootcert=system` goes with `sslmode=verify-full` alone");
    let here = ca.cert().display().to_string();
    assert_eq!(cell("").with("SSL_CERT_FILE", here).ours().await, Outcome::Encrypted);
}
