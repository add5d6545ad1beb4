//! Why there is no encrypted session, named so that whoever reads it knows which file, which certificate, and what to do.

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use crate::outside::url::SslMode;

/// Why there is no encrypted session with a server.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum TlsError {
    /// The server said that it has no TLS.
    #[error("the server offers no TLS, and `sslmode={}` insists on it", .0.as_str())]
    #[diagnostic(
        code("tls.not_offered"),
        help(
            "Set `ssl = on` at the server, with its certificate and key; or write `sslmode=disable` where nobody can listen in."
        )
    )]
    NotOffered(SslMode),
    /// Nothing to verify with.
    #[error("`sslmode={}` needs the certificates of the authorities to trust, and no file of them is named", .mode.as_str())]
    #[diagnostic(
        code("tls.no_authorities"),
        help(
            "Write `sslrootcert=FILE` into the URL, or `sslrootcert=system` for the authorities that this system trusts. {}",
            .default.as_ref().map_or_else(
                || "HOME is not set, so that libpq's file in it is not looked for.".to_owned(),
                |it| format!("Else it is {}, which is not there.", it.display()),
            )
        )
    )]
    NoAuthorities {
        /// As asked for.
        mode: SslMode,
        /// Where libpq's file would be.
        default: Option<PathBuf>,
    },
    /// A file that is named, or found where libpq has it.
    #[error("the file of `{parameter}` cannot be read: {}", file.display())]
    #[diagnostic(
        code("tls.file"),
        help(
            "Correct `{parameter}` in the URL: a file that is named there must be there. It is relative to where migrate runs."
        )
    )]
    File {
        /// `sslrootcert` and its like.
        parameter: &'static str,
        /// As it is opened.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file with something else in it.
    #[error("the file of `{parameter}` holds {what}: {}", file.display())]
    #[diagnostic(
        code("tls.pem"),
        help("It must be PEM, with lines `-----BEGIN …-----` and `-----END …-----` around each part.")
    )]
    Pem {
        /// `sslrootcert` and its like.
        parameter: &'static str,
        /// As it was read.
        file: PathBuf,
        /// `no certificate`.
        what: String,
    },
    /// A key that others could have read.
    #[error("the key {} may be read by others than its owner", .0.display())]
    #[diagnostic(code("tls.key_open"), help("`chmod 600 {}`; 640 will do where root owns it.", .0.display()))]
    KeyOpen(PathBuf),
    /// A certificate is of no use alone.
    #[error("there is a client certificate, {}, and its key is nowhere", .cert.display())]
    #[diagnostic(
        code("tls.no_key"),
        help("Write `sslkey=FILE` into the URL{}.", .key.as_ref().map(|it| format!(", or put it at {}", it.display())).unwrap_or_default())
    )]
    NoKey {
        /// The certificate.
        cert: PathBuf,
        /// Where libpq's key would be.
        key: Option<PathBuf>,
    },
    /// A key under a password.
    #[error("the key {} is encrypted", .0.display())]
    #[diagnostic(
        code("tls.key_encrypted"),
        help("Take the password off, `openssl pkey -in {} -out PLAIN && chmod 600 PLAIN`, and name that file in `sslkey`.", .0.display())
    )]
    KeyEncrypted(PathBuf),
    /// The key of another certificate.
    #[error("the key {} is not that of the client certificate {}", key.display(), cert.display())]
    #[diagnostic(code("tls.key_mismatch"), help("Correct `sslcert` or `sslkey` in the URL."))]
    KeyMismatch {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// What the server showed is not to be trusted.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Certificate(#[from] CertificateFault),
    /// What we showed was not taken.
    #[error("the server did not take {}: it said `{alert}`", .sent.as_ref().map_or_else(|| "a session without a client certificate".to_owned(), |it| format!("the client certificate {}", it.display())))]
    #[diagnostic(
        code("tls.client_refused"),
        help(
            "Name a certificate in `sslcert`, and its key in `sslkey`, that an authority in the server's `ssl_ca_file` has issued."
        )
    )]
    ClientRefused {
        /// In TLS's words.
        alert: String,
        /// The file of the certificate.
        sent: Option<PathBuf>,
    },
    /// Anything else that went wrong before there was encryption.
    #[error("TLS with the server failed: {0}")]
    #[diagnostic(
        code("tls.handshake"),
        help("TLS 1.2 or 1.3 is needed; look at the server's log, and at `ssl_min_protocol_version` there.")
    )]
    Handshake(String),
    /// The other side of the connection.
    #[error("the connection was lost while TLS was being set up")]
    #[diagnostic(code("tls.lost"), help("Look at the server's log, and at what is between."))]
    Lost(#[source] std::io::Error),
    /// The address itself.
    #[error("the server cannot be reached")]
    #[diagnostic(
        code("tls.unreached"),
        help("Check that the server runs, and that host and port of the URL are right.")
    )]
    Unreached(#[source] std::io::Error),
    /// `channel_binding=require`, and no channel.
    #[error("`channel_binding=require` cannot be had: {0}")]
    #[diagnostic(
        code("tls.channel_binding"),
        help(
            "It needs TLS, `sslmode=require` or more, and a role whose password the server keeps as `scram-sha-256`."
        )
    )]
    Unbound(&'static str),
    /// The server asked for proof of the password, and could not show that it knows it as well.
    #[error("the server did not prove that it knows the password: {0}")]
    #[diagnostic(
        code("tls.scram"),
        help("Somebody may be between: compare the server's certificate, and use `sslmode=verify-full`.")
    )]
    Unproven(String),
}

/// What is wrong with a server's certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum CertificateFault {
    /// Its time is over.
    #[error("the server's certificate expired on {}", .0.format("%Y-%m-%d %H:%M:%S UTC"))]
    #[diagnostic(
        code("tls.expired"),
        help("Renew the server's certificate. It is not trusted without, whatever else is right.")
    )]
    Expired(DateTime<Utc>),
    /// Its time is to come.
    #[error("the server's certificate is not valid before {}", .0.format("%Y-%m-%d %H:%M:%S UTC"))]
    #[diagnostic(
        code("tls.not_yet"),
        help("Look at the clock of this machine, and at that of the one that made the certificate.")
    )]
    NotYet(DateTime<Utc>),
    /// Its authority's time is over.
    #[error("the certificate of the authority `{called}` in {} expired on {}", file.display(), at.format("%Y-%m-%d %H:%M:%S UTC"))]
    #[diagnostic(
        code("tls.authority_expired"),
        help("Get the authority's new certificate, and put it into that file.")
    )]
    AuthorityExpired {
        /// Its common name.
        called: String,
        /// Where it is.
        file: PathBuf,
        /// Since when.
        at: DateTime<Utc>,
    },
    /// Issued by itself.
    #[error("the server's certificate is self-signed (`{called}`), and is not in {}", file.display())]
    #[diagnostic(
        code("tls.self_signed"),
        help("If the server is the right one, name a file with this very certificate in `sslrootcert`.")
    )]
    SelfSigned {
        /// Its common name.
        called: String,
        /// What is trusted.
        file: PathBuf,
    },
    /// Issued by a stranger.
    #[error("the server's certificate was issued by `{issuer}`, which is no authority in {}", file.display())]
    #[diagnostic(
        code("tls.unknown_authority"),
        help(
            "If the server is the right one, name the file of the authority that issued its certificate in `sslrootcert`."
        )
    )]
    UnknownAuthority {
        /// The issuer's common name.
        issuer: String,
        /// What is trusted.
        file: PathBuf,
    },
    /// The right certificate, of another host.
    #[error("the server's certificate is for {names}, and not for {host}")]
    #[diagnostic(
        code("tls.wrong_host"),
        help(
            "Connect by a name that the certificate is for; `sslmode=verify-ca` trusts every host of that authority."
        )
    )]
    WrongHost {
        /// As the URL has it.
        host: String,
        /// For whom it is.
        names: String,
    },
    /// On the list.
    #[error("the server's certificate is revoked, by {}", .0.display())]
    #[diagnostic(code("tls.revoked"), help("Give the server a new certificate."))]
    Revoked(PathBuf),
    /// The list says nothing.
    #[error("whether the server's certificate is revoked cannot be told from {}: {why}", file.display())]
    #[diagnostic(
        code("tls.revocation"),
        help("The file of `sslcrl` needs the newest list of each authority in the chain.")
    )]
    Revocation {
        /// The file of lists.
        file: PathBuf,
        /// `it has no list of its authority`.
        why: String,
    },
    /// In the library's words.
    #[error("the server's certificate cannot be trusted: {0}")]
    #[diagnostic(
        code("tls.certificate"),
        help("Look at it with `openssl s_client -starttls postgres -connect HOST:PORT`.")
    )]
    Other(String),
}
