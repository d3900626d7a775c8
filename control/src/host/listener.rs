//! The UDP port that management requests arrive at, and the bounds of the transport.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use quinn::{
    Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};

use crate::host::error::HostError;
use crate::host::tls::{self, Presence};

/// Requests at a time on one connection.
pub(crate) const STREAMS_MAX: u32 = 16;
/// A request fits into it, and so do all of a connection's together.
const RECEIVE_WINDOW: u32 = 256 * 1024;

/// Bytes of datagrams that wait to be read: the first messages of 1,000 clients. The kernel counts 1,200 bytes as
/// 2,304.
const RECEIVE_BUFFER: usize = 4 << 20;
const _: () = assert!(RECEIVE_BUFFER > 1_000 * 2_304);

const IDLE_MS_MAX: u32 = 30_000;

/// The kernel releases the port of a server that was closed after a moment.
const RELEASE_WAIT: Duration = Duration::from_secs(2);
const RELEASE_POLL: Duration = Duration::from_millis(20);

/// Listens at an address.
pub(crate) async fn bind(
    listen: SocketAddr,
    presence: Presence<'_>,
) -> Result<Endpoint, HostError> {
    let config = configuration(presence)?;
    let attempts = RELEASE_WAIT.as_millis() / RELEASE_POLL.as_millis();
    for _ in 0..attempts {
        match open(config.clone(), listen) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                tokio::time::sleep(RELEASE_POLL).await;
            }
            bound => return bound.map_err(|cause| cannot_listen(listen, cause)),
        }
    }
    open(config, listen).map_err(|cause| cannot_listen(listen, cause))
}

/// The configuration of a server, which takes effect for connections from then on.
pub(crate) fn configuration(presence: Presence<'_>) -> Result<ServerConfig, HostError> {
    let mut config = ServerConfig::with_crypto(Arc::new(tls::server(presence)?));
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS_MAX))));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

fn cannot_listen(address: SocketAddr, cause: std::io::Error) -> HostError {
    HostError::Listen {
        address,
        purpose: "for management requests (UDP)",
        cause,
        flag: "--listen",
    }
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
