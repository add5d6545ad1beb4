//! The one part of logging in that needs to know of TLS: SCRAM, bound to the certificate that the server showed. The driver cannot
//! see it, and would log in unbound.

use std::io;

use bytes::{Buf as _, BytesMut};
use postgres_protocol::authentication::sasl::{
    ChannelBinding as Bound, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::error::TlsError;
use crate::outside::secret::Secret;
use crate::outside::url::ChannelBinding;

/// The longest message of a server before a session: an error with its detail.
const LONGEST: usize = 1 << 20;
const AUTHENTICATION: u8 = b'R';
const SASL: u32 = 10;
const SASL_CONTINUE: u32 = 11;
const SASL_FINAL: u32 = 12;

/// How this session logs in.
pub(super) struct Login<'a> {
    pub(super) binding: ChannelBinding,
    pub(super) password: Option<&'a Secret>,
    /// The hash of the server's certificate, where it has one.
    pub(super) end_point: Option<Vec<u8>>,
}

/// Passes on what driver and server say until the session is theirs. The driver sees no SCRAM where this does it.
pub(super) async fn log_in<S, D>(login: &Login<'_>, server: &mut S, driver: &mut D) -> Result<(), TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: AsyncRead + AsyncWrite + Unpin,
{
    let startup = startup(driver).await.map_err(TlsError::Lost)?;
    if let Err(gone) = send(server, &startup).await {
        // What the server said before it went tells more than that it has gone.
        return Err(message(server).await.err().unwrap_or(gone));
    }
    if login.binding == ChannelBinding::Disable {
        return Ok(());
    }
    let mut bound = false;
    loop {
        let message = message(server).await?;
        match (message[0], code(&message)) {
            (AUTHENTICATION, Some(SASL)) if login.password.is_some() => match scram(login, server, &message).await? {
                Proof::Given { bound: it } => bound = it,
                Proof::Refused(said) => return send(driver, &said).await,
            },
            (AUTHENTICATION, Some(SASL)) if login.binding == ChannelBinding::Require => {
                return Err(TlsError::Unbound("the URL has no password"));
            }
            (AUTHENTICATION, _) if login.binding == ChannelBinding::Require && !bound => {
                return Err(TlsError::Unbound("the server does not ask for a password by SCRAM"));
            }
            // A word of the server's before it decides.
            (b'N' | b'v', _) => send(driver, &message).await?,
            // The session is there, or refused, or logging in goes on between the two without us.
            _ => return send(driver, &message).await,
        }
    }
}

async fn send(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), TlsError> {
    let sent = async {
        to.write_all(bytes).await?;
        to.flush().await
    };
    sent.await.map_err(TlsError::Lost)
}

/// The driver's first message has a length and no type.
async fn startup(driver: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut message = driver.read_u32().await?.to_be_bytes().to_vec();
    rest(driver, &mut message, 0).await?;
    Ok(message)
}

/// A whole message of the server's, its type first.
async fn message(server: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, TlsError> {
    let read = async {
        let mut message = vec![server.read_u8().await?];
        message.extend(server.read_u32().await?.to_be_bytes());
        rest(server, &mut message, 1).await?;
        Ok::<_, io::Error>(message)
    };
    read.await.map_err(TlsError::Lost)
}

/// What is missing after the length, which counts itself, and stands at `at`.
async fn rest(from: &mut (impl AsyncRead + Unpin), message: &mut Vec<u8>, at: usize) -> io::Result<()> {
    let length = usize::try_from((&message[at..]).get_u32()).unwrap_or(usize::MAX);
    if !(4..=LONGEST).contains(&length) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of an impossible length"));
    }
    let have = message.len();
    message.resize(at + length, 0);
    from.read_exact(&mut message[have..]).await.map(drop)
}

fn code(message: &[u8]) -> Option<u32> {
    message.get(5..9).map(|mut it| it.get_u32())
}

/// What came of SCRAM.
enum Proof {
    /// Both know the password.
    Given {
        /// Whether that was bound to the server's certificate.
        bound: bool,
    },
    /// What the server said in place of going on, for the driver to read.
    Refused(Vec<u8>),
}

/// The whole of SCRAM, up to the server's proof.
async fn scram<S>(login: &Login<'_>, server: &mut S, offer: &[u8]) -> Result<Proof, TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mechanism, binding) = mechanism(login, offer)?;
    let password = login.password.map(Secret::expose).unwrap_or_default();
    let mut scram = ScramSha256::new(password.as_bytes(), binding);
    let mut buffer = BytesMut::new();
    let unsaid = |error: io::Error| TlsError::Lost(error);
    frontend::sasl_initial_response(mechanism, scram.message(), &mut buffer).map_err(unsaid)?;
    send(server, &buffer.split()).await?;
    let challenge = message(server).await?;
    if code(&challenge) != Some(SASL_CONTINUE) || challenge[0] != AUTHENTICATION {
        return Ok(Proof::Refused(challenge));
    }
    let unproven = |error: io::Error| TlsError::Unproven(error.to_string());
    scram.update(&challenge[9..]).map_err(unproven)?;
    frontend::sasl_response(scram.message(), &mut buffer).map_err(unsaid)?;
    send(server, &buffer.split()).await?;
    let proof = message(server).await?;
    if code(&proof) != Some(SASL_FINAL) || proof[0] != AUTHENTICATION {
        return Ok(Proof::Refused(proof));
    }
    scram.finish(&proof[9..]).map_err(unproven)?;
    Ok(Proof::Given { bound: mechanism == SCRAM_SHA_256_PLUS })
}

/// By what SCRAM is bound, of what the server offers.
fn mechanism(login: &Login<'_>, offer: &[u8]) -> Result<(&'static str, Bound), TlsError> {
    let offered: Vec<&[u8]> = offer[9..].split(|it| *it == 0).collect();
    let offers = |name: &str| offered.contains(&name.as_bytes());
    match &login.end_point {
        Some(hash) if offers(SCRAM_SHA_256_PLUS) => Ok((SCRAM_SHA_256_PLUS, Bound::tls_server_end_point(hash.clone()))),
        _ if login.binding == ChannelBinding::Require => {
            Err(TlsError::Unbound("the server does not offer it, or its certificate has no hash for it"))
        }
        // The server learns that we would have: somebody between who took the offer away is found out by that.
        Some(_) => Ok((SCRAM_SHA_256, Bound::unrequested())),
        None => Ok((SCRAM_SHA_256, Bound::unsupported())),
    }
}
