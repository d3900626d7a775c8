//! Finding the first endpoint that answers.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, IdleTimeout, TransportConfig,
    TransportErrorCode, VarInt,
};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::answers::{self, Answers};
use super::error::ClientError;
use super::facts::Facts;
use super::trust::{self, Peer};
use crate::certificate::CertificateName;
use crate::code::Code;
use crate::credential::Credential;
use crate::request::{Destination, Request};
use crate::response::Response;
use crate::token::Token;

/// A handshake takes two round trips; a daemon that has not answered by then will not.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// The wait if there is another endpoint to try: two retransmissions of a handshake that was lost.
const FAILOVER_WAIT: Duration = Duration::from_secs(2);
/// Silence after which a connection is dead; kept-alive connections are never silent for so long.
const IDLE_MAX: Duration = Duration::from_secs(20);
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const GOODBYE_WAIT: Duration = Duration::from_millis(20);

/// A connection to a daemon.
#[derive(Debug)]
pub struct Session {
    endpoint: Endpoint,
    connection: Connection,
}

/// Another machine to be asked, through the one that is dialled.
#[derive(Clone, Copy, Debug)]
pub struct Relayed<'a> {
    /// The credential that the other machine sees.
    pub known_as: &'a Credential,
    /// The machine that is asked.
    pub destination: &'a Destination,
    /// Whose word counts for which machine that is.
    pub between: Between,
}

/// The trust in the machine that relays a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// It is some machine of the network: the certificate of the machine behind it has to say that it is the one.
    Untrusted,
    /// It is the daemon of this host, which says which machine is meant.
    Trusted,
}

impl Destination {
    /// The machine that has to answer.
    fn peer(&self) -> Result<Peer, ClientError> {
        match self {
            Self::Coordinator => Ok(Peer::Holder),
            Self::Machine(wanted) => {
                if let Ok(id) = wanted.parse() {
                    return Ok(Peer::Machine(id));
                }
                let named = wanted.parse().map(Peer::Named);
                named.map_err(|_| ClientError::WrongMachine(wanted.clone()))
            }
        }
    }
}

/// A session with a machine that is not the one, told apart from one that broke.
fn wrong_machine(error: std::io::Error, peer: &Peer) -> ClientError {
    let cause = error.get_ref().and_then(|it| it.downcast_ref());
    let is_other = matches!(
        cause,
        Some(rustls::Error::InvalidCertificate(
            rustls::CertificateError::NotValidForName
                | rustls::CertificateError::NotValidForNameContext { .. }
        ))
    );
    if is_other {
        ClientError::WrongMachine(peer.to_string())
    } else {
        answers::broken(error)
    }
}

/// Connects with a credential to the first of its endpoints that answers before the deadline.
///
/// # Errors
/// [`ClientError`].
pub async fn connect(credential: &Credential, deadline: Instant) -> Result<Session, ClientError> {
    connect_to(credential, &Peer::Any, None, deadline).await
}

/// As [`connect`], to one machine, whatever else answers at the endpoints. `evidence` is a clock for its certificate
/// besides this host's: the earlier of the two counts, in seconds since 1970.
///
/// # Errors
/// [`ClientError`].
pub async fn connect_to(
    credential: &Credential,
    peer: &Peer,
    evidence: Option<u64>,
    deadline: Instant,
) -> Result<Session, ClientError> {
    let tls = trust::certified(credential, peer, evidence)?;
    dial(tls, &credential.endpoints, &credential.network, deadline).await
}

/// Connects as a stranger with a token.
pub(super) async fn connect_invited(
    token: &Token,
    deadline: Instant,
) -> Result<Session, ClientError> {
    let tls = trust::invited(token)?;
    let network = token.network_id.to_string();
    let dialled = dial(tls.clone(), &token.endpoints, &network, deadline).await;
    match dialled {
        // It may come with a thousand others, whose first messages drown its own.
        Err(ClientError::Unreachable(_)) => dial(tls, &token.endpoints, &network, deadline).await,
        dialled => dialled,
    }
}

impl Session {
    /// Sends a request; its answers come one after the other, mostly only one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn open(&self, request: &Request) -> Result<Answers, ClientError> {
        let (send, receive) = self.connection.open_bi().await.map_err(answers::closed)?;
        let stream = tokio::io::join(receive, send);
        Answers::to(Box::new(stream), request).await
    }

    /// Sends a request to another machine through this one, in a TLS session of its own with that machine; or says why
    /// this machine does not pass it on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn relay(
        &self,
        relayed: &Relayed<'_>,
        request: &Request,
    ) -> Result<Result<Answers, Box<Response>>, ClientError> {
        let Relayed {
            known_as,
            destination,
            between,
        } = *relayed;
        let name = ServerName::try_from(CertificateName::any_machine(&known_as.network))
            .map_err(|e| ClientError::Credential(e.to_string()))?;
        let (send, receive) = self.connection.open_bi().await.map_err(answers::closed)?;
        let mut stream = tokio::io::join(receive, send);
        let relay = Request::Relay {
            destination: destination.clone(),
        };
        answers::write(&mut stream, &relay).await?;
        stream.flush().await.map_err(answers::broken)?;
        let response = answers::read(&mut stream).await?;
        let response = response
            .ok_or_else(|| ClientError::Broken("the daemon closed the connection".to_owned()))?;
        if response.code == Code::Busy {
            return Err(ClientError::Busy(response.message));
        }
        if !response.ok {
            return Ok(Err(Box::new(response)));
        }
        let peer = match between {
            Between::Untrusted => destination.peer()?,
            // A daemon of an earlier version does not say which one it has found.
            Between::Trusted => response.message.parse().map_or(Peer::Any, Peer::Machine),
        };
        let tls = TlsConnector::from(Arc::new(trust::certified(known_as, &peer, None)?));
        let connecting = tls.connect(name, stream).await;
        let inner = connecting.map_err(|error| wrong_machine(error, &peer))?;
        Answers::to(Box::new(inner), request).await.map(Ok)
    }

    /// The certificate of the machine at the other end.
    pub fn peer(&self) -> Option<Facts> {
        let identity = self.connection.peer_identity()?;
        let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        Facts::read(chain.first()?)
    }

    /// Says goodbye: a connection that is merely left keeps its place at the daemon until it is missed.
    pub async fn close(self) {
        self.connection.close(VarInt::from_u32(0), b"");
        // The goodbye leaves at once; whether it has arrived is not worth waiting for.
        let _ = tokio::time::timeout(GOODBYE_WAIT, self.endpoint.wait_idle()).await;
    }

    /// Another stream for bytes that are none of our business.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn pipe(
        &self,
    ) -> Result<tokio::io::Join<quinn::RecvStream, quinn::SendStream>, ClientError> {
        let (send, receive) = self.connection.open_bi().await.map_err(answers::closed)?;
        let mut stream = tokio::io::join(receive, send);
        answers::write(&mut stream, &Request::Relayed).await?;
        Ok(stream)
    }
}

async fn dial(
    tls: rustls::ClientConfig,
    endpoints: &[SocketAddr],
    network: &str,
    deadline: Instant,
) -> Result<Session, ClientError> {
    let quic =
        QuicClientConfig::try_from(tls).map_err(|e| ClientError::Credential(e.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(quic));
    config.transport_config(Arc::new(transport()));
    let name = CertificateName::any_machine(network);
    let (mut causes, mut busy) = (Vec::new(), false);
    for (at, endpoint) in endpoints.iter().enumerate() {
        let is_last = at + 1 == endpoints.len();
        let wait = if is_last { CONNECT_WAIT } else { FAILOVER_WAIT };
        let until = deadline.min(Instant::now() + wait);
        match handshake(&config, *endpoint, &name, until).await {
            Ok(session) => return Ok(session),
            Err(cause) => {
                busy |= cause.busy;
                causes.push(format!("{endpoint}: {}", cause.text));
            }
        }
    }
    let causes = causes.join("; ");
    Err(if busy {
        ClientError::Busy(causes)
    } else {
        ClientError::Unreachable(causes)
    })
}

/// Why there is no connection.
struct NoConnection {
    text: String,
    busy: bool,
}

impl<T: std::fmt::Display> From<T> for NoConnection {
    fn from(cause: T) -> Self {
        Self {
            text: cause.to_string(),
            busy: false,
        }
    }
}

async fn handshake(
    config: &ClientConfig,
    remote: SocketAddr,
    name: &str,
    until: Instant,
) -> Result<Session, NoConnection> {
    let local: SocketAddr = match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let endpoint = Endpoint::client(local)?;
    let connecting = endpoint.connect_with(config.clone(), remote, name)?;
    let connection = tokio::time::timeout_at(until, connecting)
        .await
        .map_err(|_| "no answer")?
        .map_err(|error| NoConnection {
            busy: is_refusal(&error),
            ..error.into()
        })?;
    Ok(Session {
        endpoint,
        connection,
    })
}

/// RFC 9000, section 20.1: CONNECTION_REFUSED.
fn is_refusal(error: &ConnectionError) -> bool {
    matches!(
        error,
        ConnectionError::ConnectionClosed(close)
            if close.error_code == TransportErrorCode::CONNECTION_REFUSED
    )
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    transport.max_idle_timeout(IdleTimeout::try_from(IDLE_MAX).ok());
    transport
}
