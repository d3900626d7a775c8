//! The management server: QUIC, one request a stream.
//!
//! There is one on the loopback interface, for root of this host, and, in a network, one for everybody whom the network
//! has certified. Both check [`permits`] before they look at what a request says.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ployz_api::{
    CertificateName, Code, EVENTS_LIMIT_MAX, Failure, HEADER_LEN, HEARTBEAT, LOCAL_NETWORK,
    Outcome, REQUEST_LEN_MAX, RESPONSE_LEN_MAX, Request, Response, Role, body_len, encode,
};
use ployz_core::permits;
use quinn::{
    Connection, Endpoint, IdleTimeout, Incoming, RecvStream, SendStream, ServerConfig,
    TransportConfig, VarInt,
};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Semaphore;

use crate::daemon::Daemon;
use crate::events::{self, Attempt};
use crate::network::Network;
use crate::relay;
use crate::requests;
use crate::tls::{self, Presence};

/// Connections at a time: every machine of the largest network, and as many people.
const CONNECTIONS_MAX: usize = 400;
/// Handshakes at a time from addresses that have not been proven; after that, everybody has to prove theirs first.
const UNPROVEN_MAX: usize = 32;
/// Requests at a time on one connection.
const STREAMS_MAX: u32 = 16;
/// A request fits into it, and so do all of a connection's together.
const RECEIVE_WINDOW: u32 = 256 * 1024;

/// A handshake takes two round trips.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);
/// Whoever sends more slowly than a request in this time is not meant to be here.
const REQUEST_WAIT: Duration = Duration::from_secs(10);
/// More than everything that founding waits for, each with a deadline of its own, so that it is never cut off halfway.
const ANSWER_WAIT: Duration = Duration::from_secs(120);
/// Without a certificate, one request is all there is to do.
const STRANGER_WAIT: Duration = Duration::from_secs(20);
/// Whoever takes an answer more slowly than this does without.
const SEND_WAIT: Duration = Duration::from_secs(30);
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Listens at an address.
pub(crate) fn bind(listen: SocketAddr, presence: Presence<'_>) -> anyhow::Result<Endpoint> {
    let mut config = ServerConfig::with_crypto(Arc::new(tls::server(presence)?));
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE_MAX)?));
    config.transport_config(Arc::new(transport));
    Endpoint::server(config, listen)
        .with_context(|| format!("listen on UDP {listen}: say another address with --listen"))
}

/// Answers everybody. Never returns while the endpoint is open.
pub(crate) async fn serve(daemon: Rc<Daemon>, endpoint: Endpoint, network: String) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Some(incoming) = endpoint.accept().await {
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            tracing::warn!(
                connections = CONNECTIONS_MAX,
                "refusing a connection: too many"
            );
            incoming.refuse();
            continue;
        };
        let busy = CONNECTIONS_MAX - slots.available_permits() > UNPROVEN_MAX;
        if busy && !incoming.remote_address_validated() {
            // Somebody who was told to retry has proven the address, and is not told again.
            let _ = incoming.retry();
            continue;
        }
        let (daemon, network) = (Rc::clone(&daemon), network.clone());
        tokio::task::spawn_local(async move {
            let _slot = slot;
            if let Err(error) = welcome(daemon, incoming, &network).await {
                tracing::debug!(error = format!("{error:#}"), "a connection ended");
            }
        });
    }
}

async fn welcome(daemon: Rc<Daemon>, incoming: Incoming, network: &str) -> anyhow::Result<()> {
    let connection = tokio::time::timeout(HANDSHAKE_WAIT, incoming.accept()?).await??;
    let Some(caller) = caller(&connection, network) else {
        connection.close(
            VarInt::from_u32(1),
            b"the certificate says nothing of its holder",
        );
        return Ok(());
    };
    let caller = Rc::new(caller);
    let answering = answer_streams(daemon, &connection, &caller);
    if caller.role == Role::Stranger {
        tokio::time::timeout(STRANGER_WAIT, answering).await?
    } else {
        answering.await
    }
}

async fn answer_streams(
    daemon: Rc<Daemon>,
    connection: &Connection,
    caller: &Rc<CertificateName>,
) -> anyhow::Result<()> {
    loop {
        let (send, receive) = connection.accept_bi().await?;
        let (daemon, caller) = (Rc::clone(&daemon), Rc::clone(caller));
        // At most STREAMS_MAX of them, by the transport's own count.
        tokio::task::spawn_local(async move {
            if let Err(error) = answer_stream(daemon, &caller, send, receive).await {
                tracing::debug!(error = format!("{error:#}"), "a request ended");
            }
        });
    }
}

/// Who it is, from the certificate that the handshake has verified; none if it cannot be told.
fn caller(connection: &Connection, network: &str) -> Option<CertificateName> {
    match connection.peer_identity() {
        None => Some(tls::stranger(network)),
        Some(identity) => {
            let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
            tls::role(&chain, network)
        }
    }
}

async fn answer_stream(
    daemon: Rc<Daemon>,
    caller: &CertificateName,
    send: SendStream,
    receive: RecvStream,
) -> anyhow::Result<()> {
    let mut stream = tokio::io::join(receive, send);
    match hear(&daemon, caller, &mut stream).await {
        Ok(Request::Relay { destination }) => {
            Box::pin(relay::pass_on(daemon, &destination, stream)).await
        }
        Ok(Request::Relayed) => Box::pin(relay::take(daemon, stream)).await,
        heard => {
            reply(&daemon, caller, heard, &mut stream).await?;
            // Or the connection could close before it has arrived.
            let (_, send) = stream.into_inner();
            let _ = tokio::time::timeout(REQUEST_WAIT, send.stopped()).await;
            Ok(())
        }
    }
}

/// Answers the one request of a stream, whatever carries it.
pub(crate) async fn answer(
    daemon: &Rc<Daemon>,
    caller: &CertificateName,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> anyhow::Result<()> {
    let heard = hear(daemon, caller, stream).await;
    reply(daemon, caller, heard, stream).await
}

/// Reads a request, and refuses it if it is not the caller's to make.
async fn hear(
    daemon: &Daemon,
    caller: &CertificateName,
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Request, Failure> {
    let request = tokio::time::timeout(REQUEST_WAIT, read(stream))
        .await
        .unwrap_or_else(|_| {
            let message = "the request did not arrive in time";
            Err(Failure::new(Code::Timeout, message))
        })?;
    if let Some(network) = daemon.network() {
        still_believed(&network, caller)?;
    }
    let operation = request.operation();
    if !permits(caller.role, operation) {
        let message = format!("role {} may not ask for {operation:?}", caller.role.name());
        return Err(Failure::new(Code::Forbidden, message));
    }
    Ok(request)
}

/// A certificate is good for as long as its connection; its holder may be believed for less.
pub(crate) fn still_believed(network: &Network, caller: &CertificateName) -> Result<(), Failure> {
    // What the host's own authority certifies is not the network's to judge.
    if caller.network == LOCAL_NETWORK || network.view().believes(caller) {
        return Ok(());
    }
    let message = "this credential has been revoked, or its machine was removed";
    Err(Failure::new(Code::Forbidden, message))
}

async fn reply(
    daemon: &Rc<Daemon>,
    caller: &CertificateName,
    heard: Result<Request, Failure>,
    stream: &mut (impl AsyncWrite + Unpin),
) -> anyhow::Result<()> {
    let outcome = match heard {
        Ok(Request::Events {
            follow: true,
            limit,
        }) => {
            let limit = limit.min(EVENTS_LIMIT_MAX);
            events::follow(daemon, caller, limit, stream).await?;
            return Ok(stream.shutdown().await?);
        }
        Ok(request) => {
            let attempt = Attempt::of(&request);
            let outcome = carry_out(Rc::clone(daemon), request).await;
            if let Some(attempt) = attempt {
                attempt.tell(daemon, caller, &outcome).await;
            }
            outcome
        }
        Err(failure) => Err(failure),
    };
    if let Err(failure) = &outcome {
        let (code, role) = (failure.code, caller.role.name());
        tracing::info!(%code, role, subject = caller.subject, cause = %failure, "refused");
    }
    send(stream, &Response::from(outcome)).await?;
    Ok(stream.shutdown().await?)
}

/// Sends an answer to somebody who takes it in time.
pub(crate) async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    response: &Response,
) -> anyhow::Result<()> {
    send_frame(stream, &encode(response, RESPONSE_LEN_MAX)?).await
}

/// Sends that there is nothing new. Nothing else tells whether somebody still listens.
pub(crate) async fn send_heartbeat(stream: &mut (impl AsyncWrite + Unpin)) -> anyhow::Result<()> {
    send_frame(stream, &HEARTBEAT).await
}

async fn send_frame(stream: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> anyhow::Result<()> {
    let sending = async {
        stream.write_all(frame).await?;
        stream.flush().await
    };
    Ok(tokio::time::timeout(SEND_WAIT, sending).await??)
}

async fn read(receive: &mut (impl AsyncRead + Unpin)) -> Result<Request, Failure> {
    let refused = |cause: String| Failure::new(Code::InvalidArgument, cause);
    let mut header = [0; HEADER_LEN];
    let read = receive.read_exact(&mut header).await;
    read.map_err(|error| refused(error.to_string()))?;
    let len = body_len(header, REQUEST_LEN_MAX).map_err(|error| refused(error.to_string()))?;
    let mut body = zeroize::Zeroizing::new(vec![0; len]);
    let read = receive.read_exact(&mut body).await;
    read.map_err(|error| refused(error.to_string()))?;
    serde_json::from_slice(&body).map_err(|error| {
        refused(format!(
            "no request that {} knows: {error}",
            env!("CARGO_PKG_VERSION")
        ))
    })
}

async fn carry_out(daemon: Rc<Daemon>, request: Request) -> Outcome {
    tokio::time::timeout(ANSWER_WAIT, requests::carry_out(daemon, request))
        .await
        .unwrap_or_else(|_| {
            let message = format!("it was not done within {ANSWER_WAIT:?}");
            Err(Failure::new(Code::Timeout, message))
        })
}
