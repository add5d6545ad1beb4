//! Encrypted sessions, by libpq's rules. The driver knows less of them: it trusts the system's authorities beside the file that is
//! named, passes over that file under `require`, takes `allow` for `disable`, and binds no password to a certificate. So TLS is
//! made here, and the driver, which is built without any, talks to a socket of ours that nobody else can reach.

mod error;
mod files;
mod name;
mod scram;
mod verify;
mod x509;

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error as RustlsError, OtherError, SupportedProtocolVersion,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub use self::error::{CertificateFault, TlsError};
use self::scram::Login;
use self::verify::Verifier;
use crate::outside::url::{DatabaseUrl, Ssl, SslMode};

/// PostgreSQL's request for TLS: a length, and a number in the place of a version.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// Bytes that are passed on at a time.
const PIECE: usize = 64 << 10;
/// Networks drop a connection on which nothing is said for ten minutes.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// An encrypted connection with a server, and the socket on which the driver finds it.
pub struct Door {
    server: TlsStream<TcpStream>,
    listener: UnixListener,
    folder: PathBuf,
    sent: Option<PathBuf>,
}

impl Door {
    /// Connects to the server of `url` and makes TLS with it, or says why that is not to be had.
    ///
    /// # Errors
    /// [`TlsError`].
    pub async fn open(url: &DatabaseUrl) -> Result<Self, TlsError> {
        let (config, sent) = config(url)?;
        let mut socket = TcpStream::connect((url.host(), url.port())).await.map_err(TlsError::Unreached)?;
        let kept_alive = SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
        kept_alive.and_then(|()| socket.set_nodelay(true)).map_err(TlsError::Unreached)?;
        if !offers_tls(&mut socket).await? {
            return Err(TlsError::NotOffered(url.ssl().mode));
        }
        let connecting = TlsConnector::from(Arc::new(config)).connect(server_name(url.host()), socket);
        let server = connecting.await.map_err(|error| explained(error, sent.as_ref()))?;
        let (listener, folder) = listener(url.port()).map_err(TlsError::Lost)?;
        Ok(Self { server, listener, folder, sent })
    }

    /// Where the driver is to connect: the folder of a socket, whose port is the server's.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lets the driver in, logs in together with it, and from then on passes on what the two say until one of them has gone.
    ///
    /// # Errors
    /// [`TlsError`]: the driver learns no more than that its connection is gone.
    pub async fn let_in(mut self, url: &DatabaseUrl) -> Result<(), TlsError> {
        let mut driver = visitor(&self.listener).await.map_err(TlsError::Lost)?;
        let shown = self.server.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let login = Login {
            binding: url.ssl().channel_binding,
            password: url.password(),
            end_point: shown.and_then(|it| x509::end_point(it)),
        };
        let sent = self.sent.as_ref();
        scram::log_in(&login, &mut self.server, &mut driver).await.map_err(|error| match error {
            TlsError::Lost(error) => explained(error, sent),
            other => other,
        })?;
        tokio::spawn(pass_on(self.server, driver));
        Ok(())
    }
}

/// What TLS is to be like, and the file of the certificate that we show.
fn config(url: &DatabaseUrl) -> Result<(ClientConfig, Option<PathBuf>), TlsError> {
    let ssl: &Ssl = url.ssl();
    let provider = Arc::new(ring::default_provider());
    let trust = files::trust(ssl, &provider)?;
    let host = (ssl.mode == SslMode::VerifyFull).then(|| url.host().to_owned());
    let verifier = Verifier { trust, host, provider: Arc::clone(&provider) };
    let client = files::client(ssl, &provider)?;
    let versions: &[&SupportedProtocolVersion] = if ssl.tls13_only { &[&TLS13] } else { &[&TLS13, &TLS12] };
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
    let builder = builder.map_err(|error| TlsError::Handshake(error.to_string()))?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    Ok(match client {
        Some((file, client)) => (builder.with_client_cert_resolver(client), Some(file)),
        None => (builder.with_no_client_auth(), None),
    })
}

/// The name that the server is told. It is verified elsewhere: a host that is no name, such as `fe80::1%eth0`, is told nothing.
fn server_name(host: &str) -> ServerName<'static> {
    let nothing = || ServerName::from(std::net::IpAddr::from([0, 0, 0, 0]));
    ServerName::try_from(host.to_owned()).unwrap_or_else(|_| nothing())
}

async fn offers_tls(socket: &mut TcpStream) -> Result<bool, TlsError> {
    socket.write_all(&SSL_REQUEST).await.map_err(TlsError::Lost)?;
    match socket.read_u8().await.map_err(TlsError::Lost)? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        _ => Err(TlsError::Handshake("what answers is not a PostgreSQL server, or an ancient one".into())),
    }
}

/// A socket that is in no folder, so that nothing of it is left whatever ends us, and that needs none where we may write.
fn listener(port: u16) -> io::Result<(UnixListener, PathBuf)> {
    let name = format!("migrate-{}-{:032x}", std::process::id(), rand::random::<u128>());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(format!("{name}/.s.PGSQL.{port}"))?;
    let listener = std::os::unix::net::UnixListener::bind_addr(&address)?;
    listener.set_nonblocking(true)?;
    // A zero byte before the name is how such sockets are told from files.
    Ok((UnixListener::from_std(listener)?, PathBuf::from(format!("\0{name}"))))
}

/// Our own driver. Whoever else finds the socket in /proc is sent away.
async fn visitor(listener: &UnixListener) -> io::Result<UnixStream> {
    loop {
        let (stream, _) = listener.accept().await?;
        let pid = stream.peer_cred()?.pid().and_then(|it| u32::try_from(it).ok());
        if pid == Some(std::process::id()) {
            return Ok(stream);
        }
    }
}

/// What one says before it goes is passed on to the other, in both directions.
async fn pass_on(server: TlsStream<TcpStream>, driver: UnixStream) {
    let (from_server, to_server) = tokio::io::split(server);
    let (from_driver, to_driver) = driver.into_split();
    tokio::join!(pump(from_server, to_driver), pump(from_driver, to_server));
}

async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut piece = vec![0; PIECE];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        // Encryption holds back what is not flushed.
        if to.write_all(&piece[..count]).await.is_err() || to.flush().await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// What rustls says of a handshake, in our words.
fn explained(error: io::Error, sent: Option<&PathBuf>) -> TlsError {
    let found = error.get_ref().and_then(|it| it.downcast_ref::<RustlsError>());
    match found {
        Some(RustlsError::InvalidCertificate(CertificateError::Other(OtherError(fault)))) => {
            match fault.downcast_ref::<CertificateFault>() {
                Some(fault) => fault.clone().into(),
                None => CertificateFault::Other(fault.to_string()).into(),
            }
        }
        Some(RustlsError::InvalidCertificate(other)) => CertificateFault::Other(format!("{other:?}")).into(),
        Some(RustlsError::AlertReceived(alert)) if is_about_client(*alert) => {
            TlsError::ClientRefused { alert: format!("{alert:?}"), sent: sent.cloned() }
        }
        Some(other) => TlsError::Handshake(other.to_string()),
        None => TlsError::Lost(error),
    }
}

fn is_about_client(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    matches!(
        alert,
        A::NoCertificate
            | A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
            | A::AccessDenied
            | A::DecryptError
            | A::CertificateRequired
    )
}
