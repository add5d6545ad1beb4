//! Whether a server is who it should be: libpq's rules over webpki's chains.

use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme};

use super::error::CertificateFault;
use super::name;
use super::x509::Certificate;

/// Whom we trust to say who a server is.
#[derive(Debug)]
pub(super) struct Trust {
    /// Where the authorities are from.
    pub(super) file: PathBuf,
    /// Those that issued themselves. As for OpenSSL, a chain ends at one of them.
    authorities: Vec<CertificateDer<'static>>,
    /// The others in the file: links that a server may leave out.
    links: Vec<CertificateDer<'static>>,
    /// The lists of what is revoked, and where they are from.
    lists: Option<PathBuf>,
    /// None if there is no authority.
    chains: Option<Arc<WebPkiServerVerifier>>,
}

impl Trust {
    /// Of the certificates in `file`. What is wrong with them comes as text.
    pub(super) fn new(
        file: PathBuf,
        certificates: Vec<CertificateDer<'static>>,
        lists: Option<(PathBuf, Vec<CertificateRevocationListDer<'static>>)>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let itself = |it: &CertificateDer<'_>| Certificate::read(it).is_some_and(|it| it.is_self_issued());
        let (authorities, links): (Vec<_>, Vec<_>) = certificates.into_iter().partition(itself);
        let mut roots = RootCertStore::empty();
        let issues = |it: &&CertificateDer<'_>| Certificate::read(it).is_some_and(|it| it.is_authority);
        roots.add_parsable_certificates(authorities.iter().filter(issues).cloned());
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let (lists, revoked) = lists.map_or((None, Vec::new()), |(file, lists)| (Some(file), lists));
        let chains = match builder.with_crls(revoked).enforce_revocation_expiration().build() {
            Ok(verifier) => Some(verifier),
            Err(rustls::server::VerifierBuilderError::NoRootAnchors) => None,
            Err(error) => return Err(error.to_string()),
        };
        Ok(Self { file, authorities, links, lists, chains })
    }

    fn check(
        &self,
        certificate: &Certificate<'_>,
        der: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), CertificateFault> {
        let when = instant(now);
        in_time(certificate, when)?;
        // webpki takes no authority's certificate for a server's, and OpenSSL does: what is trusted byte for byte is trusted.
        if self.authorities.iter().any(|it| it == der) {
            return Ok(());
        }
        self.authorities_in_time(certificate, sent, when)?;
        if certificate.version < 3 {
            return self.check_old(certificate, algorithms);
        }
        let links: Vec<CertificateDer<'_>> =
            sent.iter().chain(&self.links).map(|it| CertificateDer::from(it.as_ref())).collect();
        // Any name does: names are compared by libpq's rules, and webpki comes to them last.
        let name = ServerName::from(std::net::IpAddr::from([0, 0, 0, 0]));
        let Some(chains) = &self.chains else { return Err(self.stranger(certificate)) };
        match chains.verify_server_cert(der, &links, &name, &[], now) {
            Ok(_) => Ok(()),
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(()),
            Err(error) => Err(self.fault(certificate, error)),
        }
    }

    /// The first version has no extensions, and so nothing that could forbid anything: an authority must have signed it.
    fn check_old(
        &self,
        certificate: &Certificate<'_>,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(), CertificateFault> {
        let signed_by = |authority: &CertificateDer<'_>| {
            let authority =
                Certificate::read(authority).filter(|it| it.is_authority && it.subject == certificate.issuer);
            authority.is_some_and(|it| is_signed_with(certificate, &it, algorithms))
        };
        if !self.authorities.iter().any(signed_by) {
            return Err(self.stranger(certificate));
        }
        match &self.lists {
            None => Ok(()),
            Some(file) => {
                let why = "it is an X.509 certificate of version 1, which is not looked up in lists".to_owned();
                Err(CertificateFault::Revocation { file: file.clone(), why })
            }
        }
    }

    /// webpki does not ask whether an authority's time is over. OpenSSL does.
    fn authorities_in_time(
        &self,
        certificate: &Certificate<'_>,
        sent: &[CertificateDer<'_>],
        when: DateTime<Utc>,
    ) -> Result<(), CertificateFault> {
        let chain = sent.iter().chain(&self.links).filter_map(|it| Certificate::read(it));
        let issuers: Vec<&[u8]> = chain.map(|it| it.issuer).chain([certificate.issuer]).collect();
        let ours: Vec<Certificate<'_>> = self.authorities.iter().filter_map(|it| Certificate::read(it)).collect();
        let used = || ours.iter().filter(|it| issuers.contains(&it.subject));
        match used().find(|it| it.not_after < when) {
            // A renewed certificate of the same authority may stand beside it.
            Some(old) if !used().any(|it| it.subject == old.subject && it.not_after >= when) => {
                let (called, file) = (old.called(), self.file.clone());
                Err(CertificateFault::AuthorityExpired { called, file, at: old.not_after })
            }
            _ => Ok(()),
        }
    }

    fn stranger(&self, certificate: &Certificate<'_>) -> CertificateFault {
        let file = self.file.clone();
        if certificate.is_self_issued() {
            CertificateFault::SelfSigned { called: certificate.called(), file }
        } else {
            CertificateFault::UnknownAuthority { issuer: certificate.issuer_called(), file }
        }
    }

    fn fault(&self, certificate: &Certificate<'_>, error: Error) -> CertificateFault {
        use CertificateError as E;
        let lists = || self.lists.clone().unwrap_or_default();
        match error {
            Error::InvalidCertificate(error) => match error {
                E::UnknownIssuer | E::BadSignature => self.stranger(certificate),
                // An authority's certificate, as `openssl req -x509` makes them, that is not ours.
                E::Other(_) if certificate.is_self_issued() => self.stranger(certificate),
                E::Expired | E::ExpiredContext { .. } => {
                    CertificateFault::Other("one of the certificates between it and its authority has expired".into())
                }
                E::Revoked => CertificateFault::Revoked(lists()),
                E::UnknownRevocationStatus => {
                    CertificateFault::Revocation { file: lists(), why: "it has no list of its authority".into() }
                }
                E::ExpiredRevocationList | E::ExpiredRevocationListContext { .. } => {
                    CertificateFault::Revocation { file: lists(), why: "its list is out of date".into() }
                }
                other => CertificateFault::Other(Error::InvalidCertificate(other).to_string()),
            },
            other => CertificateFault::Other(other.to_string()),
        }
    }
}

fn instant(now: UnixTime) -> DateTime<Utc> {
    i64::try_from(now.as_secs()).ok().and_then(|it| DateTime::from_timestamp(it, 0)).unwrap_or_default()
}

fn in_time(certificate: &Certificate<'_>, when: DateTime<Utc>) -> Result<(), CertificateFault> {
    match certificate {
        it if it.not_after < when => Err(CertificateFault::Expired(it.not_after)),
        it if it.not_before > when => Err(CertificateFault::NotYet(it.not_before)),
        _ => Ok(()),
    }
}

fn is_signed_with(
    certificate: &Certificate<'_>,
    authority: &Certificate<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let mut fits = algorithms.all.iter().filter(|it| {
        *it.public_key_alg_id() == *authority.key_algorithm && *it.signature_alg_id() == *certificate.algorithm
    });
    fits.any(|it| it.verify_signature(authority.key, certificate.signed, certificate.signature).is_ok())
}

/// Decides about a server's certificate.
#[derive(Debug)]
pub(super) struct Verifier {
    /// None is anybody: `require` and less, without a file of authorities.
    pub(super) trust: Option<Trust>,
    /// The host that it must be for, if it must.
    pub(super) host: Option<String>,
    pub(super) provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn decide(
        &self,
        der: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), CertificateFault> {
        let Some(trust) = &self.trust else { return Ok(()) };
        let unread = || CertificateFault::Other("it is not an X.509 certificate".into());
        let certificate = Certificate::read(der).ok_or_else(unread)?;
        trust.check(&certificate, der, sent, now, &self.provider.signature_verification_algorithms)?;
        match &self.host {
            Some(host) if !name::is_for(&certificate, host) => {
                Err(CertificateFault::WrongHost { host: host.clone(), names: name::names(&certificate) })
            }
            _ => Ok(()),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let wrapped = |fault| Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(fault))));
        self.decide(end_entity, intermediates, now).map(|()| ServerCertVerified::assertion()).map_err(wrapped)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // By the key alone: webpki reads no certificate of version 1, in which PostgreSQL's manual makes them.
        let key = Certificate::read(cert).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let key = SubjectPublicKeyInfoDer::from(key.key_info);
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
