//! The management server: QUIC, one request a stream.
//!
//! There is one on the loopback interface, for root of this host, and, in a network, one for everybody whom the network
//! has certified. Both check [`permits`] before they look at what a request says.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use ployz_api::{
    Authority, BUSY, CertificateName, Code, EVENTS_LIMIT_MAX, Failure, HEADER_LEN, HEARTBEAT,
    LOCAL_NETWORK, NO_MEMBER, Operation, Outcome, REQUEST_LEN_MAX, RESPONSE_LEN_MAX, Request,
    Response, Role, body_len, encode,
};
use ployz_core::permits;
use quinn::{
    Connection, Endpoint, EndpointConfig, IdleTimeout, Incoming, RecvStream, SendStream,
    ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::admission::{Admission, CONNECTIONS_MAX, Full, Handshake, Verdict};
use crate::clock;
use crate::daemon::Daemon;
use crate::events::{self, Attempt};
use crate::network::Network;
use crate::relay;
use crate::requests;
use crate::tls::{self, Presence};
use crate::watchdog::Pulse;

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
/// Whoever takes an answer more slowly than this does without.
const SEND_WAIT: Duration = Duration::from_secs(30);
const IDLE_MAX: Duration = Duration::from_secs(30);

/// A server that was closed leaves its port to the kernel, which takes a moment to let go of it.
const RELEASE_WAIT: Duration = Duration::from_secs(2);
const RELEASE_POLL: Duration = Duration::from_millis(20);
/// How long the answer to the request that closes a server may take to arrive.
const RETIRE_WAIT: Duration = Duration::from_secs(2);
/// How long the last words may take to arrive.
const GOODBYE_WAIT: Duration = Duration::from_millis(500);
/// Requests at a time on all connections.
pub(crate) const REQUESTS_MAX: u32 = CONNECTIONS_MAX as u32 * STREAMS_MAX;

/// A server that runs; a handle of it.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    endpoint: Endpoint,
    pulse: Rc<Pulse>,
}

impl Server {
    /// Begins to answer everybody.
    pub(crate) fn start(
        daemon: &Rc<Daemon>,
        endpoint: Endpoint,
        network: String,
        name: &'static str,
    ) -> Self {
        let pulse = Pulse::new(name);
        let serving = serve(
            Rc::clone(daemon),
            endpoint.clone(),
            network,
            Rc::clone(&pulse),
        );
        tokio::task::spawn_local(serving);
        Self { endpoint, pulse }
    }

    /// Whether it turns.
    pub(crate) fn pulse(&self) -> Rc<Pulse> {
        Rc::clone(&self.pulse)
    }

    /// Takes no new connections.
    pub(crate) fn refuse(&self) {
        self.endpoint.set_server_config(None);
    }

    /// Takes no new connections, lets those that are there hear what they wait for, and ends.
    pub(crate) fn retire(self) {
        self.refuse();
        tokio::task::spawn_local(async move {
            self.drain().await;
            self.close().await;
        });
    }

    /// Takes no new connections, and lets those that are there hear what they wait for.
    pub(crate) async fn drain(&self) {
        self.refuse();
        // Whoever stays for longer has nothing to wait for.
        let _ = tokio::time::timeout(RETIRE_WAIT, self.endpoint.wait_idle()).await;
    }

    /// Ends every connection.
    pub(crate) async fn close(&self) {
        self.endpoint
            .close(VarInt::from_u32(0), b"the daemon stops");
        // Whoever does not hear it will notice.
        let _ = tokio::time::timeout(GOODBYE_WAIT, self.endpoint.wait_idle()).await;
    }
}

/// Listens at an address.
pub(crate) async fn bind(listen: SocketAddr, presence: Presence<'_>) -> anyhow::Result<Endpoint> {
    let mut config = ServerConfig::with_crypto(Arc::new(tls::server(presence)?));
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE_MAX)?));
    config.transport_config(Arc::new(transport));
    let attempts = RELEASE_WAIT.as_millis() / RELEASE_POLL.as_millis();
    for _ in 0..attempts {
        match open(config.clone(), listen) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                tokio::time::sleep(RELEASE_POLL).await;
            }
            bound => return bound.with_context(|| cannot_listen(listen)),
        }
    }
    open(config, listen).with_context(|| cannot_listen(listen))
}

fn cannot_listen(listen: SocketAddr) -> String {
    format!("listen on UDP {listen}: say another address with --listen")
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
async fn serve(daemon: Rc<Daemon>, endpoint: Endpoint, network: String, pulse: Rc<Pulse>) {
    let door = Admission::default();
    loop {
        let incoming = tokio::select! {
            () = pulse.beat() => continue,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else {
            return;
        };
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
            let welcomed = welcome(&daemon, incoming, handshake, &door, &network);
            if let Err(error) = Box::pin(welcomed).await {
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
            VarInt::from_u32(NO_MEMBER),
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
        connection.close(
            VarInt::from_u32(NO_MEMBER),
            b"this machine is not in the network",
        );
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
    answer_stream(Rc::clone(daemon), caller, address, send, receive).await
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
            if let Err(error) = answer_stream(daemon, &caller, address, send, receive).await {
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

async fn answer_stream(
    daemon: Rc<Daemon>,
    caller: &CertificateName,
    address: IpAddr,
    send: SendStream,
    receive: RecvStream,
) -> anyhow::Result<()> {
    let mut stream = tokio::io::join(receive, send);
    match hear(&daemon, caller, &mut stream).await {
        Ok(Request::Relay { destination }) => {
            Box::pin(relay::pass_on(daemon, address, &destination, stream)).await
        }
        Ok(Request::Relayed) => Box::pin(relay::take(daemon, address, stream)).await,
        heard => {
            reply(&daemon, caller, address, heard, &mut stream).await?;
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
    address: IpAddr,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> anyhow::Result<()> {
    let heard = hear(daemon, caller, stream).await;
    reply(daemon, caller, address, heard, stream).await
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
    if operation == Operation::MachineRetire && !holds_store(daemon, caller) {
        let message = "only a machine that holds the store removes others";
        return Err(Failure::new(Code::Forbidden, message));
    }
    Ok(request)
}

/// Whether it is one of the machines that the network's authority is with.
fn holds_store(daemon: &Daemon, caller: &CertificateName) -> bool {
    let (Some(network), Ok(id)) = (daemon.network(), caller.subject.parse()) else {
        return false;
    };
    let view = network.view();
    let machine = view.machine(id);
    machine.is_some_and(|machine| machine.authority == Authority::Storage)
}

/// Connections may be older than the news of whose certificate is believed no more, and relayed sessions have not been
/// looked at before.
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
    address: IpAddr,
    heard: Result<Request, Failure>,
    stream: &mut (impl AsyncWrite + Unpin),
) -> anyhow::Result<()> {
    let outcome = match heard {
        Ok(Request::Events {
            follow: true,
            limit,
        }) => {
            let limit = limit.min(EVENTS_LIMIT_MAX);
            events::follow(daemon, caller, address, limit, stream).await?;
            return Ok(stream.shutdown().await?);
        }
        Ok(Request::MachineRtt { machines, count }) => {
            // It is never closed.
            let _under_way = daemon.requests.acquire().await;
            match Box::pin(requests::rtt::tell(daemon, &machines, count, stream)).await? {
                Ok(()) => return Ok(stream.shutdown().await?),
                Err(failure) => Err(failure),
            }
        }
        Ok(request) => {
            let attempt = Attempt::of(&request);
            let outcome = carry_out(Rc::clone(daemon), caller, address, request).await;
            if let Some(attempt) = attempt {
                attempt.tell(daemon, caller, &outcome).await;
            }
            outcome
        }
        Err(failure) => Err(failure),
    };
    if let Err(failure) = &outcome {
        note(daemon, caller, address, failure);
    }
    send(stream, &Response::from(outcome)).await?;
    Ok(stream.shutdown().await?)
}

/// Counts what somebody was refused.
pub(crate) fn note(daemon: &Daemon, caller: &CertificateName, address: IpAddr, failure: &Failure) {
    let who = format!("{} {} at {address}", caller.role.name(), caller.subject);
    let (code, now) = (failure.code.to_string(), clock::now().instant);
    daemon.refusals.note(&code, who, failure, now);
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
            ployz_install::own_version()
        ))
    })
}

async fn carry_out(
    daemon: Rc<Daemon>,
    caller: &CertificateName,
    address: IpAddr,
    request: Request,
) -> Outcome {
    // It is never closed.
    let _under_way = daemon.requests.acquire().await;
    let carrying_out = requests::carry_out(Rc::clone(&daemon), caller, address, request);
    tokio::time::timeout(ANSWER_WAIT, Box::pin(carrying_out))
        .await
        .unwrap_or_else(|_| {
            let message = format!("it was not done within {ANSWER_WAIT:?}");
            Err(Failure::new(Code::Timeout, message))
        })
}
