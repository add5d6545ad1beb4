//! A server that shows one certificate after the other, and says of each session whether it is encrypted.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use migrate::outside::cluster::{Cluster, ClusterOptions};

use super::authority::{Authority, Pair};
use crate::world::until;

/// Who may come how. `release` may come in any way, so that a session that is not encrypted is not refused for that.
const HBA: &str = "
local all all trust
hostssl all tls_only all trust
host all tls_only all reject
hostnossl all plain_only all trust
host all plain_only all reject
hostssl all by_certificate all cert
host all by_certificate all reject
host all by_password all scram-sha-256
hostssl all by_both all scram-sha-256 clientcert=verify-full
host all by_both all reject
host all all all trust
";

/// What `by_password` and `by_both` log in with.
pub(super) const PASSWORD: &str = "p:w/7Zt@\u{f6}";
/// The same in a URL.
pub(super) const ENCODED: &str = "p%3Aw%2F7Zt%40%C3%B6";

pub(super) struct Server {
    pub(super) cluster: Cluster,
    pub(super) port: u16,
    /// Where libpq and we find nothing in `~/.postgresql`, unless a test puts it there.
    pub(super) home: tempfile::TempDir,
    pub(super) files: tempfile::TempDir,
}

impl Server {
    pub(super) async fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port();
        let settings = [
            ("port", port.to_string()),
            ("listen_addresses", "localhost".to_owned()),
            ("log_connections", "on".to_owned()),
            ("log_statement", "all".to_owned()),
            ("log_line_prefix", "%p|".to_owned()),
            ("max_connections", "60".to_owned()),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value)).into();
        let cluster = Cluster::start(ClusterOptions { settings, ..ClusterOptions::default() }).expect("a cluster");
        fs::write(cluster.data_dir().join("pg_hba.conf"), HBA).expect("a file");
        let (home, files) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let it = Self { cluster, port, home, files };
        it.admin(&format!("SET log_statement = 'none'; SET password_encryption = 'scram-sha-256'; CREATE ROLE release LOGIN CREATEDB; CREATE ROLE tls_only LOGIN \
             CREATEDB; CREATE ROLE plain_only LOGIN; CREATE ROLE by_certificate LOGIN CREATEDB; CREATE ROLE by_password LOGIN \
             CREATEDB PASSWORD '{PASSWORD}'; CREATE ROLE by_both LOGIN CREATEDB PASSWORD '{PASSWORD}'; SELECT pg_reload_conf()"));
        it
    }

    pub(super) fn psql(&self) -> PathBuf {
        self.cluster.bin_dir().join("psql")
    }

    /// The superuser's, by the socket.
    pub(super) fn admin(&self, sql: &str) -> String {
        self.admin_in("postgres", sql)
    }

    /// The same in another database.
    pub(super) fn admin_in(&self, database: &str, sql: &str) -> String {
        let place = format!("host={}&port={}", self.cluster.socket_dir().display(), self.port);
        let url = format!("postgresql:///{database}?{place}&user=postgres");
        let mut command = Command::new(self.psql());
        command.args(["-X", "-At", "-q", "-v", "ON_ERROR_STOP=1", "-d", &url]);
        command.args(sql.split("; ").flat_map(|it| ["-c", it]));
        let output = command.output().expect("psql");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    }

    /// From now on the server shows this certificate, and takes client certificates of this authority; without a pair, it has no TLS.
    pub(super) async fn shows(&self, pair: Option<&Pair>, clients_of: &Authority) {
        let data = self.cluster.data_dir();
        let owner = fs::metadata(&data).expect("a folder");
        let give = |from: &Path, name: &str| {
            let to = data.join(name);
            fs::copy(from, &to).expect("a copy");
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).expect("rights");
            chown(&to, Some(owner.uid()), Some(owner.gid())).expect("an owner");
        };
        give(&clients_of.cert(), "clients.crt");
        if let Some(pair) = pair {
            give(&pair.cert, "server.crt");
            give(&pair.key, "server.key");
        }
        let before = self.admin("SELECT pg_conf_load_time()");
        let ssl = if pair.is_some() { "on" } else { "off" };
        self.admin(&format!(
            "ALTER SYSTEM SET ssl_ca_file = 'clients.crt'; ALTER SYSTEM SET ssl = {ssl}; SELECT pg_reload_conf()"
        ));
        // Sessions begin with what the postmaster has read.
        until("the settings are read", async || self.admin("SELECT pg_conf_load_time()") != before).await;
    }

    /// What the server's log says that each process did, after the line that let it in; without the superuser's.
    pub(super) fn log(&self) -> Vec<(String, Vec<String>)> {
        let log = fs::read_to_string(self.cluster.log_file()).expect("a log");
        let mut all: BTreeMap<&str, (String, Vec<String>)> = BTreeMap::new();
        for (pid, line) in log.lines().filter_map(|it| it.split_once('|')) {
            let process = all.entry(pid).or_default();
            if line.contains("connection authorized: ") {
                process.0 = line.to_owned()
            } else {
                process.1.push(line.to_owned())
            }
        }
        all.into_values().filter(|(came, _)| !came.is_empty() && !came.contains("user=postgres")).collect()
    }

    /// The URL for a role; `rest` begins with `&` if it is there.
    pub(super) fn url(&self, role: &str, host: &str, database: &str, rest: &str) -> String {
        format!("postgresql://{role}@{host}:{}/{database}?connect_timeout=10{rest}", self.port)
    }
}
