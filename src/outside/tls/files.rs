//! The files that TLS needs, by libpq's rules, with one difference: what the URL or the environment names must be there, and is
//! never passed over.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::error::TlsError;
use super::verify::Trust;
use super::x509::Certificate;
use crate::outside::url::Ssl;

/// Whom to trust: the file that is named, else libpq's in the home folder, if it is there.
pub(super) fn trust(ssl: &Ssl, provider: &Arc<CryptoProvider>) -> Result<Option<Trust>, TlsError> {
    let Some(file) = ssl.trusted_file() else {
        let none = TlsError::NoAuthorities { mode: ssl.mode, default: ssl.default_file("root.crt") };
        return if ssl.mode.verifies() { Err(none) } else { Ok(None) };
    };
    let certificates: Vec<CertificateDer<'static>> = parts("sslrootcert", &file, "no certificate")?;
    let unusable = |what: String| TlsError::Pem { parameter: "sslcrl", file: file.clone(), what };
    Trust::new(file.clone(), certificates, lists(ssl)?, provider).map(Some).map_err(unusable)
}

type Lists = (PathBuf, Vec<CertificateRevocationListDer<'static>>);

fn lists(ssl: &Ssl) -> Result<Option<Lists>, TlsError> {
    let file = ssl.crl.as_ref().map(PathBuf::from).or_else(|| ssl.default_file("root.crl").filter(|it| it.exists()));
    let Some(file) = file else { return Ok(None) };
    let lists = parts("sslcrl", &file, "no list of revoked certificates")?;
    Ok(Some((file, lists)))
}

/// What we show of ourselves, and the file that it is from; none if there is nothing.
pub(super) fn client(
    ssl: &Ssl,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<(PathBuf, Arc<SingleCertAndKey>)>, TlsError> {
    let default = || ssl.default_file("postgresql.crt").filter(|it| it.exists());
    let Some(cert) = ssl.cert.as_ref().map(PathBuf::from).or_else(default) else { return Ok(None) };
    let chain: Vec<CertificateDer<'static>> = parts("sslcert", &cert, "no certificate")?;
    let default = ssl.default_file("postgresql.key");
    let key_file = ssl.key.as_ref().map(PathBuf::from).or_else(|| default.clone().filter(|it| it.exists()));
    let Some(key_file) = key_file else { return Err(TlsError::NoKey { cert, key: default }) };
    let der = key(&key_file)?;
    let unusable = |_| TlsError::Pem {
        parameter: "sslkey",
        file: key_file.clone(),
        what: "a key of a kind that is not known".into(),
    };
    let key = provider.key_provider.load_private_key(der).map_err(unusable)?;
    let of_cert = chain.first().and_then(|it| Certificate::read(it));
    let of_key = key.public_key();
    if of_key.is_some_and(|key| of_cert.is_some_and(|cert| key.as_ref() != cert.key_info)) {
        return Err(TlsError::KeyMismatch { cert, key: key_file });
    }
    Ok(Some((cert, Arc::new(CertifiedKey::new(chain, key).into()))))
}

/// A key that others could have read is no secret any more.
fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let meta = fs::metadata(file).map_err(unread("sslkey", file))?;
    let open = if meta.uid() == 0 { 0o037 } else { 0o077 };
    if meta.is_file() && meta.mode() & open != 0 {
        return Err(TlsError::KeyOpen(file.to_owned()));
    }
    let text = read("sslkey", file)?;
    let encrypted = memchr::memmem::find(&text, b"ENCRYPTED").is_some();
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| match encrypted {
        true => TlsError::KeyEncrypted(file.to_owned()),
        false => TlsError::Pem { parameter: "sslkey", file: file.to_owned(), what: "no private key".into() },
    })
}

fn parts<T: PemObject>(parameter: &'static str, file: &Path, none: &str) -> Result<Vec<T>, TlsError> {
    let text = read(parameter, file)?;
    let wrong = |what: String| TlsError::Pem { parameter, file: file.to_owned(), what };
    let parts: Result<Vec<T>, _> = T::pem_slice_iter(&text).collect();
    let parts = parts.map_err(|error| wrong(format!("a part that is no PEM ({error})")))?;
    if parts.is_empty() { Err(wrong(none.to_owned())) } else { Ok(parts) }
}

fn read(parameter: &'static str, file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(unread(parameter, file))
}

fn unread(parameter: &'static str, file: &Path) -> impl FnOnce(std::io::Error) -> TlsError {
    let file = file.to_owned();
    move |source| TlsError::File { parameter, file, source }
}
