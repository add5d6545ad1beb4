//! Certificates as people make them, with the `openssl` program.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const CONFIG: &str = "
[ca]
default_ca = it
[it]
database = index.txt
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
crlnumber = crlnumber
default_crl_days = 3650
unique_subject = no
copy_extensions = none
[any]
commonName = supplied
[req]
distinguished_name = dn
[dn]
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[middle]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
[plain]
basicConstraints = CA:FALSE
[localhost]
basicConstraints = CA:FALSE
subjectAltName = DNS:localhost, IP:127.0.0.1
[address]
basicConstraints = CA:FALSE
subjectAltName = IP:127.0.0.1
[elsewhere]
basicConstraints = CA:FALSE
subjectAltName = DNS:db.example.org, DNS:*.example.net
";

/// An authority with a folder of its own.
pub(super) struct Authority {
    folder: PathBuf,
}

/// A certificate with its key.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

fn openssl(folder: &Path, args: &[&str]) {
    let output =
        Command::new("openssl").args(args).current_dir(folder).output().expect("scripts/install installs openssl");
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Authority {
    /// A new authority below `parent`, which issued itself.
    pub(super) fn new(parent: &Path, name: &str) -> Self {
        let it = Self::empty(parent, name);
        let subject = format!("/CN={name}");
        let new = [
            "req",
            "-config",
            "conf",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "3650",
            "-extensions",
            "root",
        ];
        openssl(&it.folder, &[&new[..], &["-subj", &subject, "-keyout", "ca.key", "-out", "ca.crt"]].concat());
        it
    }

    fn empty(parent: &Path, name: &str) -> Self {
        let folder = parent.join(name.replace(' ', "_"));
        fs::create_dir(&folder).expect("a folder");
        for (file, text) in [("conf", CONFIG), ("index.txt", ""), ("serial", "01\n"), ("crlnumber", "01\n")] {
            fs::write(folder.join(file), text).expect("a file");
        }
        Self { folder }
    }

    /// Another one, by grace of this one.
    pub(super) fn middle(&self, parent: &Path, name: &str) -> Self {
        let pair = self.issue(name, name, "middle");
        let it = Self::empty(parent, name);
        fs::copy(pair.cert, it.folder.join("ca.crt")).expect("a copy");
        fs::copy(pair.key, it.folder.join("ca.key")).expect("a copy");
        it
    }

    /// The authority's own certificate.
    pub(super) fn cert(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// The list of what it has revoked so far.
    pub(super) fn crl(&self, file: &str) -> PathBuf {
        openssl(
            &self.folder,
            &["ca", "-config", "conf", "-gencrl", "-cert", "ca.crt", "-keyfile", "ca.key", "-out", file],
        );
        self.folder.join(file)
    }

    pub(super) fn revoke(&self, pair: &Pair) {
        let cert = pair.cert.to_str().expect("a path");
        openssl(&self.folder, &["ca", "-config", "conf", "-cert", "ca.crt", "-keyfile", "ca.key", "-revoke", cert]);
    }

    fn request(&self, file: &str, common_name: &str) -> (String, String, Pair) {
        let (key, csr, crt) = (format!("{file}.key"), format!("{file}.csr"), format!("{file}.crt"));
        let subject = format!("/CN={common_name}");
        openssl(
            &self.folder,
            &[
                "req", "-config", "conf", "-newkey", "rsa:2048", "-nodes", "-subj", &subject, "-keyout", &key, "-out",
                &csr,
            ],
        );
        private(&self.folder.join(&key));
        let pair = Pair { cert: self.folder.join(&crt), key: self.folder.join(key) };
        (csr, crt, pair)
    }

    /// A certificate from `from` to `until`, written `20200101000000Z`.
    pub(super) fn issue_for(&self, file: &str, common_name: &str, extensions: &str, from: &str, until: &str) -> Pair {
        let (csr, crt, pair) = self.request(file, common_name);
        let ca = ["ca", "-batch", "-notext", "-config", "conf", "-cert", "ca.crt", "-keyfile", "ca.key"];
        let what = ["-in", &csr, "-out", &crt, "-extensions", extensions, "-startdate", from, "-enddate", until];
        openssl(&self.folder, &[&ca[..], &what[..]].concat());
        pair
    }

    /// A certificate that is good for long.
    pub(super) fn issue(&self, file: &str, common_name: &str, extensions: &str) -> Pair {
        self.issue_for(file, common_name, extensions, "20200101000000Z", "20491231000000Z")
    }

    /// As PostgreSQL's manual says to make one: of X.509's first version, which knows no extensions.
    pub(super) fn issue_old(&self, file: &str, common_name: &str) -> Pair {
        let (csr, crt, pair) = self.request(file, common_name);
        let sign =
            ["x509", "-req", "-in", &csr, "-days", "3650", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"];
        openssl(&self.folder, &[&sign[..], &["-out", &crt]].concat());
        pair
    }

    /// A certificate that nobody issued but itself, as PostgreSQL's manual says to make one.
    pub(super) fn self_signed(&self, file: &str, common_name: &str) -> Pair {
        let (key, crt) = (format!("{file}.key"), format!("{file}.crt"));
        let subject = format!("/CN={common_name}");
        let new = ["req", "-new", "-x509", "-days", "365", "-nodes", "-newkey", "rsa:2048", "-subj", &subject];
        openssl(&self.folder, &[&new[..], &["-out", &crt, "-keyout", &key]].concat());
        private(&self.folder.join(&key));
        Pair { cert: self.folder.join(crt), key: self.folder.join(key) }
    }

    /// The same key under a password.
    pub(super) fn encrypted(&self, pair: &Pair, file: &str) -> Pair {
        let key = pair.key.to_str().expect("a path");
        openssl(&self.folder, &["pkey", "-in", key, "-aes256", "-passout", "pass:under-lock", "-out", file]);
        private(&self.folder.join(file));
        Pair { cert: pair.cert.clone(), key: self.folder.join(file) }
    }

    /// The same key with other rights.
    pub(super) fn with_mode(&self, pair: &Pair, file: &str, mode: u32) -> Pair {
        let key = self.folder.join(file);
        fs::copy(&pair.key, &key).expect("a copy");
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("rights");
        Pair { cert: pair.cert.clone(), key }
    }

    /// Several certificates in one file.
    pub(super) fn together(&self, file: &str, certs: &[PathBuf]) -> PathBuf {
        let text: String = certs.iter().map(|it| fs::read_to_string(it).expect("PEM")).collect();
        fs::write(self.folder.join(file), text).expect("a file");
        self.folder.join(file)
    }
}

fn private(key: &Path) {
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).expect("rights");
}
