//! The parameters about how a session is protected, as they are read one after the other: what we honour, and by name what we
//! cannot, since an option that was meant to protect must not be ignored.

use std::collections::BTreeSet;

use super::defaults::{Defaults, VARIABLES};
use super::error::{UrlError, Whence};
use super::ssl::{ChannelBinding, Ssl, SslMode};

/// What has been said so far.
#[derive(Default)]
pub(super) struct Protection {
    mode: Option<SslMode>,
    ssl: Ssl,
    said: BTreeSet<&'static str>,
}

/// A parameter that we could not honour: its name, the values with which it asks for nothing that is not so anyhow, and what to do
/// about any other.
type Refused = (&'static str, &'static [&'static str], &'static str);

static REFUSED: [Refused; 18] = [
    ("sslcrldir", &[], "Name one file with `sslcrl`: PEM, any number of lists one after the other."),
    (
        "sslpassword",
        &[],
        "Take the password off the key, `openssl pkey -in KEY -out PLAIN`, and name that file in `sslkey`.",
    ),
    ("sslcompression", &["0"], "Remove it: compression weakens TLS, and no server offers it any more."),
    ("sslsni", &["1"], "Remove it: the server is told the name of the host that is wanted."),
    ("sslnegotiation", &["postgres"], "Remove it: TLS is asked for in the way that every server understands."),
    ("sslcertmode", &["allow"], "Remove it: a certificate is sent where the server asks and `sslcert` names one."),
    ("sslkeylogfile", &[], "Remove it: the keys of a session are written nowhere."),
    (
        "ssl_max_protocol_version",
        &["TLSv1.3"],
        "Remove it: TLS 1.3 is the newest, and 1.2 is spoken where the server has no other.",
    ),
    ("gssencmode", &["disable", "prefer"], "Encrypt with TLS, `sslmode=verify-full`: GSSAPI is not spoken here."),
    ("gsslib", &[], "Remove it: GSSAPI is not spoken here."),
    ("gssdelegation", &["0"], "Remove it: GSSAPI is not spoken here."),
    ("krbsrvname", &["postgres"], "Remove it: GSSAPI is not spoken here."),
    ("require_auth", &[], "Write `channel_binding=require`: it insists on SCRAM, with the server of that certificate."),
    ("requirepeer", &[], "Remove it, and see by the rights of the socket's folder who can be there."),
    ("hostaddr", &[], "Write the address as the host, or have the host's name lead there."),
    ("target_session_attrs", &["any"], "Remove it, and name the server that is to be changed as the host."),
    (
        "passfile",
        &[],
        "Give the password in the URL, from the environment: `postgresql://USER:${PASSWORD}@HOST/DATABASE`.",
    ),
    ("service", &[], "Write what the service stands for as a URL."),
];

impl Protection {
    /// Takes a parameter, decoded; none if it is not one of these.
    pub(super) fn read(&mut self, name: &str, value: &str) -> Option<Result<(), UrlError>> {
        let refused = REFUSED.iter().map(|(name, ..)| *name);
        let known = refused.chain(VARIABLES.iter().map(|(_, name)| *name)).chain(["ssl"]).find(|it| *it == name)?;
        self.said.insert(if known == "ssl" { "sslmode" } else { known });
        Some(self.take(known, value, Whence::Url(known)))
    }

    fn take(&mut self, name: &str, value: &str, whence: Whence) -> Result<(), UrlError> {
        let given = || Some(value.to_owned()).filter(|it| !it.is_empty());
        match name {
            "ssl" if value == "true" => self.mode = Some(SslMode::Require),
            "ssl" | "sslmode" => {
                let mode = SslMode::ALL.into_iter().find(|mode| mode.as_str() == value);
                self.mode = Some(mode.ok_or(UrlError::SslMode(whence))?);
            }
            "sslrootcert" => self.ssl.root_cert = given(),
            "sslcert" => self.ssl.cert = given(),
            "sslkey" => self.ssl.key = given(),
            "sslcrl" => self.ssl.crl = given(),
            "channel_binding" => {
                let found = ChannelBinding::ALL.into_iter().find(|it| it.as_str() == value);
                self.ssl.channel_binding = found.ok_or(UrlError::ChannelBinding(whence))?;
            }
            "ssl_min_protocol_version" => {
                let known = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"].contains(&value);
                self.ssl.tls13_only =
                    if known { value == "TLSv1.3" } else { return Err(UrlError::TlsVersion(whence)) };
            }
            _ => refuse(name, value, whence)?,
        }
        Ok(())
    }

    /// What the environment says where the URL was silent, and what comes of all.
    pub(super) fn finish(mut self, defaults: &Defaults) -> Result<Ssl, UrlError> {
        for (variable, name) in VARIABLES {
            if let Some(value) = defaults.variables.get(variable).filter(|_| !self.said.contains(name)) {
                self.take(name, value, Whence::Environment(variable))?;
            }
        }
        let system = self.ssl.root_cert.as_deref() == Some("system");
        let mode = self.mode.unwrap_or(if system { SslMode::VerifyFull } else { SslMode::default() });
        if system && mode != SslMode::VerifyFull {
            return Err(UrlError::WeakSystem);
        }
        Ok(Ssl { mode, home: defaults.home.clone(), system_file: defaults.system_file.clone(), ..self.ssl })
    }
}

fn refuse(name: &str, value: &str, whence: Whence) -> Result<(), UrlError> {
    let found = REFUSED.iter().find(|(it, ..)| *it == name);
    match found {
        Some((_, harmless, instead)) if !harmless.contains(&value) => Err(UrlError::Unsupported(whence, instead)),
        _ => Ok(()),
    }
}
