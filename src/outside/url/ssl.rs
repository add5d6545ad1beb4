//! What a URL says of encryption, in libpq's words: `sslmode` and its like, and the files that they name.

use std::path::{Path, PathBuf};

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only if the server insists.
    Allow,
    /// If the server can; the default.
    #[default]
    Prefer,
    /// Always, whoever answers; with a file of authorities, as `verify-ca`.
    Require,
    /// Always, with a certificate of a known authority.
    VerifyCa,
    /// Always, with a certificate of a known authority for this host.
    VerifyFull,
}

impl SslMode {
    /// Every mode, the weakest first.
    pub const ALL: [Self; 6] =
        [Self::Disable, Self::Allow, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];

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

    /// Whether the server must prove who it is, whatever files there are.
    #[must_use]
    pub fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }

    /// Whether a session without TLS would do.
    #[must_use]
    pub fn may_be_plain(self) -> bool {
        matches!(self, Self::Disable | Self::Allow | Self::Prefer)
    }
}

/// libpq's `channel_binding`: whether a password is tied to the certificate that the server showed, so that nobody between
/// can pass it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where the server offers it; the default.
    #[default]
    Prefer,
    /// Always.
    Require,
}

impl ChannelBinding {
    /// Every word, the weakest first.
    pub const ALL: [Self; 3] = [Self::Disable, Self::Prefer, Self::Require];

    /// The word as it stands in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
        }
    }
}

/// What a URL says of encryption, and the environment where the URL is silent. Files are as they were written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ssl {
    /// `sslmode`.
    pub mode: SslMode,
    /// `sslrootcert`: certificates of the authorities, or `system`.
    pub root_cert: Option<String>,
    /// `sslcert`: the client's certificate.
    pub cert: Option<String>,
    /// `sslkey`: the client's key.
    pub key: Option<String>,
    /// `sslcrl`: certificates that are revoked.
    pub crl: Option<String>,
    /// `channel_binding`.
    pub channel_binding: ChannelBinding,
    /// `ssl_min_protocol_version=TLSv1.3`. TLS 1.2 is the least in any case.
    pub tls13_only: bool,
    /// The folder in which libpq looks for `.postgresql/root.crt` and its like.
    pub(super) home: Option<String>,
    /// Where the environment says that this system's authorities are.
    pub(super) system_file: Option<String>,
}

/// Where distributions keep the certificates of the authorities that they trust.
const SYSTEM_FILES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

impl Ssl {
    /// The file of the authorities that the URL names. libpq knows `system` from version 16 on only: for it as for us, it stands
    /// for the file of this system.
    #[must_use]
    pub fn root_file(&self) -> Option<PathBuf> {
        match self.root_cert.as_deref()? {
            "system" => Some(self.system_file()),
            file => Some(file.into()),
        }
    }

    fn system_file(&self) -> PathBuf {
        let there = || SYSTEM_FILES.into_iter().find(|it| Path::new(it).exists()).unwrap_or(SYSTEM_FILES[0]);
        self.system_file.as_deref().unwrap_or_else(there).into()
    }

    /// The file of authorities that counts: the one that is named, else libpq's, if it is there. With one, the server must prove
    /// who it is wherever there is TLS, `require` and less included.
    #[must_use]
    pub fn trusted_file(&self) -> Option<PathBuf> {
        self.root_file().or_else(|| self.default_file("root.crt").filter(|it| it.exists()))
    }

    /// libpq's file of this name, `root.crt` for one, if there is a home folder at all. It counts where the URL names no file, and
    /// only if it exists.
    #[must_use]
    pub fn default_file(&self, name: &str) -> Option<PathBuf> {
        Some(Path::new(self.home.as_deref()?).join(".postgresql").join(name))
    }

    /// Each parameter as libpq has it: its name in a URL, its variable, its value.
    pub(super) fn parameters(&self) -> Vec<(&'static str, &'static str, String)> {
        let binding = Some(self.channel_binding).filter(|it| *it != ChannelBinding::Prefer);
        let all = [
            ("sslmode", "PGSSLMODE", Some(self.mode.as_str().to_owned())),
            ("sslrootcert", "PGSSLROOTCERT", self.root_file().map(|it| it.display().to_string())),
            ("sslcert", "PGSSLCERT", self.cert.clone()),
            ("sslkey", "PGSSLKEY", self.key.clone()),
            ("sslcrl", "PGSSLCRL", self.crl.clone()),
            ("channel_binding", "PGCHANNELBINDING", binding.map(|it| it.as_str().to_owned())),
            ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", self.tls13_only.then(|| "TLSv1.3".to_owned())),
        ];
        all.into_iter().filter_map(|(name, variable, value)| Some((name, variable, value?))).collect()
    }
}
