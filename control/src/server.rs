//! The management server: QUIC, one request a stream.
//!
//! There is one on the loopback interface, for root of this host, and, in a network, one for everybody whom the network
//! has certified. Both check [`permits`] before they look at what a request says.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use ployz_api::{
    BUSY, CertificateName, Code, Failure, HEADER_LEN, Outcome, REQUEST_LEN_MAX, RESPONSE_LEN_MAX,
    Request, Response, Role, body_len, encode,
};
use ployz_core::permits;
use quinn::{
    Connection, Endpoint, EndpointConfig, IdleTimeout, Incoming, RecvStream, SendStream,
    ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use rustls::pki_types::CertificateDer;

use crate::admission::{Admission, Full, Handshake, Verdict};
use crate::clock;
use crate::daemon::Daemon;
use crate::requests;
use crate::tls::{self, Presence};

/// Requests at a time on one connection.
const STREAMS_MAX: u32 = 16;
/// A request fits into it, and so do all of a connection's together.
const RECEIVE_WINDOW: u32 = 256 * 1024;

/// Bytes of datagrams that wait for us: the first messages of 1,000 clients, 1,200 bytes of which the kernel counts as 2,304.
const RECEIVE_BUFFER: usize = 4 << 20;
const _: () = assert!(RECEIVE_BUFFER > 1_000 * 2_304);

/// A handshake takes two round trips.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);
/// Whoever sends more slowly than a request in this time is not meant to be here.
const REQUEST_WAIT: Duration = Duration::from_secs(10);
/// More than everything that founding waits for, each with a deadline of its own, so that it is never cut off halfway.
const ANSWER_WAIT: Duration = Duration::from_secs(120);
/// Without a certificate, one request is all there is to do.
const STRANGER_WAIT: Duration = Duration::from_secs(20);
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
    open(config, listen)
        .with_context(|| format!("listen on UDP {listen}: say another address with --listen"))
}

fn open(config: ServerConfig, listen: SocketAddr) -> std::io::Result<Endpoint> {
    let socket = UdpSocket::bind(listen)?;
    // Only root may have more than the host's limit, and with that limit it works as well.
    if setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER).is_err() {
        setsockopt(&socket, RcvBuf, &RECEIVE_BUFFER)?;
    }
    let runtime = Arc::new(TokioRuntime);
    Endpoint::new(EndpointConfig::default(), Some(config), socket, runtime)
}

/// Answers everybody. Never returns while the endpoint is open.
pub(crate) async fn serve(daemon: Rc<Daemon>, endpoint: Endpoint, network: String) {
    let door = Admission::default();
    while let Some(incoming) = endpoint.accept().await {
        let (address, proven) = (
            incoming.remote_address().ip(),
            incoming.remote_address_validated(),
        );
        let handshake = match door.knock(address, proven) {
            Verdict::Welcome(handshake) => handshake,
            Verdict::Prove => {
                // Somebody who was told to retry has proven the address, and is not told again.
                let _ = incoming.retry();
                continue;
            }
            Verdict::Refuse(full) => {
                let cause = match full {
                    Full::Connections => "connections",
                    Full::Handshakes => "handshakes",
                };
                refuse(&daemon, cause, address, "there are enough at a time");
                incoming.refuse();
                continue;
            }
        };
        let (daemon, network, door) = (Rc::clone(&daemon), network.clone(), door.clone());
        tokio::task::spawn_local(async move {
            if let Err(error) = welcome(&daemon, incoming, handshake, &door, &network).await {
                tracing::debug!(error = format!("{error:#}"), "a connection ended");
            }
        });
    }
}

async fn welcome(
    daemon: &Rc<Daemon>,
    incoming: Incoming,
    handshake: Handshake,
    door: &Admission,
    network: &str,
) -> anyhow::Result<()> {
    let address = incoming.remote_address().ip();
    let shaken = tokio::time::timeout(HANDSHAKE_WAIT, incoming.accept()?).await;
    let _place = handshake.done();
    let failed = |why: &str| refuse(daemon, "handshake", address, why);
    let connection = shaken
        .inspect_err(|_| failed("it was not over in time"))?
        .inspect_err(|error| failed(&error.to_string()))?;
    let Some(caller) = caller(&connection, network) else {
        refuse(
            daemon,
            "certificate",
            address,
            "it says nothing of its holder",
        );
        connection.close(
            VarInt::from_u32(1),
            b"the certificate says nothing of its holder",
        );
        return Ok(());
    };
    if caller.role == Role::Machine && !daemon.has_member(&caller.subject) {
        refuse(
            daemon,
            "certificate",
            address,
            "its machine is not in the network",
        );
        connection.close(VarInt::from_u32(1), b"this machine is not in the network");
        return Ok(());
    }
    let caller = Rc::new(caller);
    if caller.role == Role::Stranger {
        let Some(_place) = door.stranger() else {
            refuse(daemon, "strangers", address, "there are enough at a time");
            connection.close(VarInt::from_u32(BUSY), b"too many strangers");
            return Ok(());
        };
        tokio::time::timeout(STRANGER_WAIT, answer_one(daemon, &connection, &caller)).await?
    } else {
        answer_streams(daemon, &connection, &caller).await
    }
}

/// A stranger has one thing to ask, once.
async fn answer_one(
    daemon: &Rc<Daemon>,
    connection: &Connection,
    caller: &CertificateName,
) -> anyhow::Result<()> {
    let (send, receive) = connection.accept_bi().await?;
    let address = connection.remote_address().ip();
    answer(Rc::clone(daemon), caller, address, send, receive).await
}

async fn answer_streams(
    daemon: &Rc<Daemon>,
    connection: &Connection,
    caller: &Rc<CertificateName>,
) -> anyhow::Result<()> {
    let address = connection.remote_address().ip();
    loop {
        let (send, receive) = connection.accept_bi().await?;
        let (daemon, caller) = (Rc::clone(daemon), Rc::clone(caller));
        // At most STREAMS_MAX of them, by the transport's own count.
        tokio::task::spawn_local(async move {
            if let Err(error) = answer(daemon, &caller, address, send, receive).await {
                tracing::debug!(error = format!("{error:#}"), "a request ended");
            }
        });
    }
}

fn refuse(daemon: &Daemon, cause: &str, address: IpAddr, why: &str) {
    daemon
        .refusals
        .note(cause, address, why, clock::now().instant);
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

async fn answer(
    daemon: Rc<Daemon>,
    caller: &CertificateName,
    address: IpAddr,
    mut send: SendStream,
    mut receive: RecvStream,
) -> anyhow::Result<()> {
    let outcome = match tokio::time::timeout(REQUEST_WAIT, read(&mut receive)).await {
        Err(_) => Err(Failure::new(
            Code::Timeout,
            "the request did not arrive in time",
        )),
        Ok(Err(failure)) => Err(failure),
        Ok(Ok(request)) => carry_out(Rc::clone(&daemon), caller, request).await,
    };
    if let Err(failure) = &outcome {
        let who = format!("{} {} at {address}", caller.role.name(), caller.subject);
        let (code, now) = (failure.code.to_string(), clock::now().instant);
        daemon.refusals.note(&code, who, failure, now);
    }
    let frame = encode(&Response::from(outcome), RESPONSE_LEN_MAX)?;
    send.write_all(&frame).await?;
    send.finish()?;
    // Or the connection could close before it has arrived.
    let _ = tokio::time::timeout(REQUEST_WAIT, send.stopped()).await;
    Ok(())
}

async fn read(receive: &mut RecvStream) -> Result<Request, Failure> {
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

async fn carry_out(daemon: Rc<Daemon>, caller: &CertificateName, request: Request) -> Outcome {
    let operation = request.operation();
    if !permits(caller.role, operation) {
        let message = format!("role {} may not ask for {operation:?}", caller.role.name());
        return Err(Failure::new(Code::Forbidden, message));
    }
    tokio::time::timeout(ANSWER_WAIT, requests::carry_out(daemon, request))
        .await
        .unwrap_or_else(|_| {
            let message = format!("it was not done within {ANSWER_WAIT:?}");
            Err(Failure::new(Code::Timeout, message))
        })
}
