//! Asks a daemon over QUIC.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, IdleTimeout, TransportConfig,
    TransportErrorCode, VarInt,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::certificate::CertificateName;
use crate::credential::Credential;
use crate::frame::{HEADER_LEN, REQUEST_LEN_MAX, RESPONSE_LEN_MAX, body_len, encode};
use crate::request::Request;
use crate::response::Response;
use crate::token::{Token, fingerprint};
use crate::{ALPN, BUSY};

/// A handshake takes two round trips; whoever has not answered by then will not.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// Silence after which a connection is dead; kept-alive connections are never silent for so long.
const IDLE_MAX: Duration = Duration::from_secs(20);
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// A machine that joins may come with a thousand others, whose first messages drown its own.
const INVITED_ROUNDS: u32 = 2;
/// How long the goodbye may take. Without it the daemon keeps the connection until it is idle for too long.
const GOODBYE_WAIT: Duration = Duration::from_millis(20);
/// How long to leave a busy daemon alone, at first and at most. A full house of strangers is through within a second.
const BUSY_WAIT_MIN: Duration = Duration::from_millis(100);
const BUSY_WAIT_MAX: Duration = Duration::from_millis(500);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answered at any endpoint.
    #[error("no daemon answers: {0}")]
    Unreachable(String),
    /// Somebody is there, and has no room for us. Nothing was asked.
    #[error("the daemon is busy: {0}")]
    Busy(String),
    /// The credential cannot be used.
    #[error("the credential cannot be used: {0}")]
    Credential(String),
    /// The connection broke while we waited for the answer.
    #[error("the daemon did not answer: {0}")]
    Broken(String),
    /// It took too long.
    #[error("the daemon did not answer within {0:?}")]
    TimedOut(Duration),
}

/// Whose certificates count.
#[derive(Debug)]
enum Trust {
    Ca(CertificateDer<'static>),
    /// The other side shows its CA, which has to be this one.
    Fingerprint(String),
}

/// Asks with a credential, at its endpoints in their order, and waits up to `patience` for the answer of the first that
/// is there.
///
/// # Errors
/// [`ClientError`].
pub async fn ask(
    credential: &Credential,
    request: &Request,
    patience: Duration,
) -> Result<Response, ClientError> {
    let unusable = |error: &dyn std::fmt::Display| ClientError::Credential(error.to_string());
    let ca =
        CertificateDer::from_pem_slice(credential.ca_pem.as_bytes()).map_err(|e| unusable(&e))?;
    let chain = vec![
        CertificateDer::from_pem_slice(credential.certificate_pem.as_bytes())
            .map_err(|e| unusable(&e))?,
    ];
    let key = PrivateKeyDer::from_pem_slice(credential.key_pem.expose().as_bytes())
        .map_err(|e| unusable(&e))?;
    let config = tls(Trust::Ca(ca))
        .with_client_auth_cert(chain, key)
        .map_err(|e| unusable(&e))?;
    ask_any(
        config,
        &credential.endpoints,
        &credential.network,
        request,
        Patience {
            answer: patience,
            rounds: 1,
        },
    )
    .await
}

/// Asks as a stranger whom an invite tells whom to trust.
///
/// # Errors
/// [`ClientError`].
pub async fn ask_invited(
    token: &Token,
    request: &Request,
    patience: Duration,
) -> Result<Response, ClientError> {
    let config = tls(Trust::Fingerprint(token.ca_fingerprint.clone())).with_no_client_auth();
    let network = token.network_id.to_string();
    let patience = Patience {
        answer: patience,
        rounds: INVITED_ROUNDS,
    };
    ask_any(config, &token.endpoints, &network, request, patience).await
}

/// How long to wait, and for how often to dial all endpoints if nobody is there.
#[derive(Clone, Copy)]
struct Patience {
    answer: Duration,
    rounds: u32,
}

async fn ask_any(
    mut tls: rustls::ClientConfig,
    endpoints: &[SocketAddr],
    network: &str,
    request: &Request,
    patience: Patience,
) -> Result<Response, ClientError> {
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let quic =
        QuicClientConfig::try_from(tls).map_err(|e| ClientError::Credential(e.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(quic));
    config.transport_config(Arc::new(transport()));
    let name = CertificateName::any_machine(network);
    ask_until_heard(&config, endpoints, &name, request, patience).await
}

/// Asks again while the daemon is there and has no room, for no longer than it may take to answer.
async fn ask_until_heard(
    config: &ClientConfig,
    endpoints: &[SocketAddr],
    name: &str,
    request: &Request,
    patience: Patience,
) -> Result<Response, ClientError> {
    let mut wait = BUSY_WAIT_MIN;
    let mut left = patience.answer;
    let mut round = 1;
    loop {
        match ask_each(config, endpoints, name, request, patience.answer).await {
            Err(ClientError::Unreachable(_)) if round < patience.rounds => round += 1,
            Err(ClientError::Busy(_)) if wait < left => {
                tokio::time::sleep(wait).await;
                left -= wait;
                wait = (wait * 2).min(BUSY_WAIT_MAX);
            }
            heard => return heard,
        }
    }
}

async fn ask_each(
    config: &ClientConfig,
    endpoints: &[SocketAddr],
    name: &str,
    request: &Request,
    patience: Duration,
) -> Result<Response, ClientError> {
    let (mut causes, mut busy) = (Vec::new(), false);
    for endpoint in endpoints {
        let wait = CONNECT_WAIT.min(patience);
        match connect(config, *endpoint, name, wait).await {
            Ok((local, connection)) => {
                let answer = tokio::time::timeout(patience, exchange(&connection, request)).await;
                let sent_away = is_sent_away(&connection);
                connection.close(VarInt::from_u32(0), b"");
                let _ = tokio::time::timeout(GOODBYE_WAIT, local.wait_idle()).await;
                return match answer {
                    Ok(Err(error)) if sent_away => Err(ClientError::Busy(error.to_string())),
                    Ok(answer) => answer,
                    Err(_) => Err(ClientError::TimedOut(patience)),
                };
            }
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

async fn connect(
    config: &ClientConfig,
    remote: SocketAddr,
    name: &str,
    wait: Duration,
) -> Result<(Endpoint, Connection), NoConnection> {
    let local: SocketAddr = match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let endpoint = Endpoint::client(local)?;
    let connecting = endpoint.connect_with(config.clone(), remote, name)?;
    let connection = tokio::time::timeout(wait, connecting)
        .await
        .map_err(|_| format!("no answer within {wait:?}"))?
        .map_err(|error| NoConnection {
            busy: is_refusal(&error),
            ..error.into()
        })?;
    Ok((endpoint, connection))
}

/// Whether the daemon has closed a connection because it has no room, before it has read what was asked.
fn is_sent_away(connection: &Connection) -> bool {
    match connection.close_reason() {
        Some(ConnectionError::ApplicationClosed(close)) => {
            close.error_code == VarInt::from_u32(BUSY)
        }
        Some(_) | None => false,
    }
}

/// RFC 9000, section 20.1: CONNECTION_REFUSED.
fn is_refusal(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::ConnectionClosed(close) => {
            close.error_code == TransportErrorCode::CONNECTION_REFUSED
        }
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::ApplicationClosed(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => false,
    }
}

async fn exchange(connection: &Connection, request: &Request) -> Result<Response, ClientError> {
    let broken = |error: &dyn std::fmt::Display| ClientError::Broken(error.to_string());
    let frame = encode(request, REQUEST_LEN_MAX).map_err(|e| broken(&e))?;
    let (mut send, mut receive) = connection.open_bi().await.map_err(|e| broken(&e))?;
    send.write_all(&frame).await.map_err(|e| broken(&e))?;
    send.finish().map_err(|e| broken(&e))?;
    let mut header = [0; HEADER_LEN];
    receive
        .read_exact(&mut header)
        .await
        .map_err(|e| broken(&e))?;
    let mut body = vec![0; body_len(header, RESPONSE_LEN_MAX).map_err(|e| broken(&e))?];
    receive
        .read_exact(&mut body)
        .await
        .map_err(|e| broken(&e))?;
    serde_json::from_slice(&body).map_err(|e| broken(&e))
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    transport.max_idle_timeout(IdleTimeout::try_from(IDLE_MAX).ok());
    transport
}

fn tls(
    trust: Trust,
) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Pinned {
        trust,
        provider: Arc::clone(&provider),
    };
    #[expect(clippy::expect_used, reason = "the provider has TLS 1.3")]
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
}

/// Verifies as rustls does, with one root: the pinned one.
#[derive(Debug)]
struct Pinned {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn root<'a>(&'a self, shown: &'a [CertificateDer<'a>]) -> Option<&'a CertificateDer<'a>> {
        match &self.trust {
            Trust::Ca(ca) => Some(ca),
            Trust::Fingerprint(pin) => shown.iter().find(|shown| fingerprint(shown) == *pin),
        }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let root = self.root(intermediates).ok_or_else(|| {
            rustls::Error::General("this is another network's machine".to_owned())
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?
            // Nothing but the root counts: a chain has one link.
            .verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
