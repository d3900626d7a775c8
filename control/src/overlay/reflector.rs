//! The reflector of STAMP tests on this machine's addresses in the overlay, for other tools to measure against
//! (`docs/rtt.md`).

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use futures_util::future::join_all;
use nix::cmsg_space;
use nix::sys::socket::sockopt::{Ipv4RecvTtl, Ipv6RecvHopLimit, Timestamping};
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, TimestampingFlag, Timestamps, recvmsg,
    setsockopt,
};
use ployz_engine::{Stamper, TestArrival, WallNs, reflect};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::host::clock;

/// RFC 8762, section 4.1.
const PORT: u16 = 862;
/// The longest test that is answered: what the longest path takes.
const TEST_LEN_MAX: usize = 9_216;
/// An address that was just added to the interface may not be usable yet, and another program may hold the port.
const BIND_WAIT: Duration = Duration::from_secs(1);
/// The number of tests answered in a row, and the pause for other tasks after it: at most 3,200 tests a second, which
/// take some percent of a core.
const TURN_LEN: u32 = 16;
const TURN_WAIT: Duration = Duration::from_millis(5);

/// Answers on all of these addresses. Never returns.
pub(crate) async fn serve(addresses: impl IntoIterator<Item = IpAddr>) {
    join_all(addresses.into_iter().map(serve_one)).await;
    std::future::pending().await
}

async fn serve_one(address: IpAddr) {
    let mut logged = false;
    loop {
        let error = match bind(address).await {
            Ok(socket) => {
                logged = false;
                answer(&socket).await
            }
            Err(error) => error,
        };
        if logged {
            tracing::debug!(%error, %address, "cannot answer STAMP tests");
        } else {
            tracing::info!(%error, %address, port = PORT, "cannot answer STAMP tests; retrying");
            logged = true;
        }
        tokio::time::sleep(BIND_WAIT).await;
    }
}

async fn bind(address: IpAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((address, PORT)).await?;
    let stamps = TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE
        | TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE;
    setsockopt(&socket, Timestamping, &stamps)?;
    match address {
        IpAddr::V4(_) => setsockopt(&socket, Ipv4RecvTtl, &true)?,
        IpAddr::V6(_) => setsockopt(&socket, Ipv6RecvHopLimit, &true)?,
    }
    Ok(socket)
}

/// Answers until the socket fails.
async fn answer(socket: &UdpSocket) -> io::Error {
    let mut packet = vec![0; TEST_LEN_MAX];
    loop {
        for _ in 0..TURN_LEN {
            let received = socket.async_io(Interest::READABLE, || receive(socket, &mut packet));
            let (len, from, arrival) = match received.await {
                Ok(Some(received)) => received,
                Ok(None) => continue,
                Err(error) => return error,
            };
            if reflect(&mut packet[..len], arrival, clock::unix_ns()) {
                // A reply that does not fit into the socket's buffer is lost, as it would be on the way.
                let _ = socket.try_send_to(&packet[..len], from);
            }
        }
        tokio::time::sleep(TURN_WAIT).await;
    }
}

/// The next datagram; none if it was truncated, or has no source address.
fn receive(
    socket: &UdpSocket,
    packet: &mut [u8],
) -> io::Result<Option<(usize, SocketAddr, TestArrival)>> {
    let mut parts = [IoSliceMut::new(packet)];
    let mut control = cmsg_space!(Timestamps, i32);
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::empty(),
    )?;
    let mut arrival = TestArrival {
        at: clock::unix_ns(),
        by: Stamper::User,
        hop_limit: 0,
    };
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmTimestampsns(stamps) = control {
            arrival.at = Duration::from(stamps.system).as_nanos() as WallNs;
            arrival.by = Stamper::Kernel;
        }
        if let ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) = control
        {
            arrival.hop_limit = u8::try_from(ttl).unwrap_or_default();
        }
    }
    let from = message.address.as_ref().and_then(socket_address);
    let whole = from.filter(|_| !message.flags.contains(MsgFlags::MSG_TRUNC));
    Ok(whole.map(|from| (message.bytes, from, arrival)))
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|it| SocketAddr::V4((*it).into()));
    v4.or_else(|| {
        address
            .as_sockaddr_in6()
            .map(|it| SocketAddr::V6((*it).into()))
    })
}
