//! The outer UDP sockets.
//!
//! # Safety
//!
//! Only `setsockopt` and `getsockopt` with integers on the stack.
#![expect(unsafe_code, reason = "some options have no safe wrapper")]

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrStorage, bind, getsockname,
    socket,
};

use ployz_engine::WallNs;

use super::errno::check;
use super::message::Incoming;
use super::reuseport;

/// The standing queue under load is this buffer: it must hold what arrives while another program has the processor, a
/// scheduler's slice of 3 ms, which is 1.9 MB at 5 Gb/s. More would only add latency. The kernel doubles it for its own
/// bookkeeping.
const RECEIVE_BUFFER_BYTES: i32 = 2 << 20;
/// Room for every batch of a turn and those that the device has not let go of.
const SEND_BUFFER_BYTES: i32 = 4 << 20;

/// The party that cuts a datagram which does not fit the path (ip(7), `IP_MTU_DISCOVER`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fragmentation {
    /// The kernel alone, where it knows of a smaller path.
    AsKernelSees,
    /// No party, whatever the kernel believes of the path.
    Never,
    /// The kernel, where it knows of a smaller path, and with IPv4 any router. No router cuts IPv6.
    Always,
}

/// The two sockets of a shard, on one port.
#[derive(Debug)]
pub(crate) struct UdpSockets {
    v4: OwnedFd,
    /// None on a host without IPv6.
    v6: Option<OwnedFd>,
    port: u16,
}

impl UdpSockets {
    /// Binds so many times both families to `port`, or to one that the kernel chooses. Datagrams are steered to the
    /// sockets of their shard (`reuseport.rs`).
    ///
    /// # Errors
    /// `EADDRINUSE` if either is taken.
    pub(crate) fn bind_all(
        port: u16,
        fwmark: u32,
        offload: bool,
        shards: usize,
    ) -> Result<Vec<Self>, Errno> {
        let mut all = vec![Self::bind(port, fwmark, offload)?];
        if shards == 1 {
            return Ok(all);
        }
        // The first is alone on its port and opens it to the others once it is; their order is that of the shards.
        let port = all[0].port;
        all[0].set(libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        for _ in 1..shards {
            all.push(Self::bind_once(port, fwmark, offload, Port::Shared)?);
        }
        all[0].steer(shards)?;
        Ok(all)
    }

    /// Takes the sockets of all shards, for IPv4 and IPv6, from a process that has ended, and sets them up as if they
    /// were new. What they have received stays.
    ///
    /// # Errors
    /// `EADDRNOTAVAIL` if one is not bound to `port`, or, with 0, to that of the first; `ENOTSOCK` and others if one is
    /// no UDP socket.
    pub(crate) fn adopt_all(
        pairs: Vec<(OwnedFd, Option<OwnedFd>)>,
        port: u16,
        fwmark: u32,
        offload: bool,
    ) -> Result<Vec<Self>, Errno> {
        let mut all: Vec<Self> = Vec::with_capacity(pairs.len());
        for (v4, v6) in pairs {
            let wanted = all.first().map_or(port, Self::port);
            let sockets = Self::adopt(v4, v6, wanted, offload)?;
            sockets.set_fwmark(fwmark)?;
            all.push(sockets);
        }
        if let [first, _, ..] = &all[..] {
            first.steer(all.len())?;
        }
        Ok(all)
    }

    fn adopt(v4: OwnedFd, v6: Option<OwnedFd>, port: u16, offload: bool) -> Result<Self, Errno> {
        let found = bound_port(v4.as_fd())?;
        if found == 0 || (port != 0 && found != port) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        set_up(v4.as_fd(), true, offload)?;
        if let Some(v6) = &v6 {
            if bound_port(v6.as_fd())? != found {
                return Err(Errno::EADDRNOTAVAIL);
            }
            set_up(v6.as_fd(), false, offload)?;
        }
        let sockets = Self {
            v4,
            v6,
            port: found,
        };
        // The process before us may have ended with an option set for one datagram, and the stamps that it had asked
        // for are not ours.
        for (socket, ipv4) in sockets.both().zip([true, false]) {
            set_fragmentation(socket, ipv4, Fragmentation::AsKernelSees)?;
            restart_stamps(socket).map_err(errno)?;
            let mut header = Incoming::new();
            while header.receive_departure(socket).is_ok() {}
        }
        Ok(sockets)
    }

    fn bind(port: u16, fwmark: u32, offload: bool) -> Result<Self, Errno> {
        // With the port left to the kernel, the one it gives us for IPv4 may be taken for IPv6: then draw again.
        const DRAWS: usize = 8;
        let mut result = Self::bind_once(port, fwmark, offload, Port::Own);
        for _ in 1..DRAWS {
            if port != 0 || !matches!(result, Err(Errno::EADDRINUSE)) {
                break;
            }
            result = Self::bind_once(port, fwmark, offload, Port::Own);
        }
        result
    }

    fn bind_once(port: u16, fwmark: u32, offload: bool, sharing: Port) -> Result<Self, Errno> {
        let v4 = open(
            AddressFamily::Inet,
            (Ipv4Addr::UNSPECIFIED, port).into(),
            offload,
            sharing,
        )?;
        let port = bound_port(v4.as_fd())?;
        let v6 = match open(
            AddressFamily::Inet6,
            (Ipv6Addr::UNSPECIFIED, port).into(),
            offload,
            sharing,
        ) {
            Ok(v6) => Some(v6),
            Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => None,
            Err(errno) => return Err(errno),
        };
        let sockets = Self { v4, v6, port };
        if fwmark != 0 {
            sockets.set_fwmark(fwmark)?;
        }
        Ok(sockets)
    }

    /// Has what arrives for the port come to the sockets of its shard.
    fn steer(&self, shards: usize) -> Result<(), Errno> {
        self.both()
            .try_for_each(|socket| reuseport::steer(socket, shards as u32).map_err(errno))
    }

    /// The time at which the oldest datagram that waits arrived.
    pub(crate) fn first_arrival(&self) -> Option<WallNs> {
        let mut header = Incoming::new();
        self.both()
            .filter_map(|socket| header.first_arrival(socket))
            .min()
    }

    /// The port that both are bound to.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// The socket for IPv4.
    pub(crate) fn v4(&self) -> BorrowedFd<'_> {
        self.v4.as_fd()
    }

    /// The socket for IPv6, if the host has it.
    pub(crate) fn v6(&self) -> Option<BorrowedFd<'_>> {
        self.v6.as_ref().map(AsFd::as_fd)
    }

    /// The socket for datagrams to `to`.
    pub(crate) fn for_remote(&self, to: SocketAddr) -> Option<BorrowedFd<'_>> {
        self.of_family(to.is_ipv6())
    }

    /// The socket of a family.
    pub(crate) fn of_family(&self, ipv6: bool) -> Option<BorrowedFd<'_>> {
        if ipv6 { self.v6() } else { Some(self.v4()) }
    }

    /// Sends to `remote` under another rule of fragmentation than that of data. The option is the socket's, so it is
    /// set for this one call: nothing else may be sent through the socket at the same time.
    ///
    /// # Errors
    /// The errors of `send`, or of setting the option.
    pub(crate) fn with_fragmentation(
        &self,
        remote: SocketAddr,
        rule: Fragmentation,
        send: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let socket = self.for_remote(remote);
        let socket = socket.ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
        set_fragmentation(socket, remote.is_ipv4(), rule)?;
        let result = send();
        set_fragmentation(socket, remote.is_ipv4(), Fragmentation::AsKernelSees)?;
        result
    }

    /// Bytes of memory that the kernel holds for datagrams from where `remote` is, which have not been received yet.
    pub(crate) fn backlog(&self, remote: SocketAddr) -> usize {
        self.for_remote(remote).map_or(0, received_memory)
    }

    /// Marks everything that is sent from now on (`SO_MARK`, socket(7)).
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`.
    pub(crate) fn set_fwmark(&self, fwmark: u32) -> Result<(), Errno> {
        self.set(libc::SOL_SOCKET, libc::SO_MARK, fwmark.cast_signed())
    }

    fn set(&self, level: i32, name: i32, value: i32) -> Result<(), Errno> {
        self.both()
            .try_for_each(|socket| set_option(socket, level, name, value))
    }

    fn both(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [Some(self.v4()), self.v6()].into_iter().flatten()
    }
}

/// Says whether others may bind to a socket's port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Own,
    Shared,
}

fn open(
    family: AddressFamily,
    address: SocketAddr,
    offload: bool,
    sharing: Port,
) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Datagram, flags, None)?;
    let socket = fd.as_fd();
    if address.is_ipv6() {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    set_up(socket, address.is_ipv4(), offload)?;
    if sharing == Port::Shared {
        set_option(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(fd)
}

/// Sets all options that do not depend on the port.
fn set_up(socket: BorrowedFd<'_>, ipv4: bool, offload: bool) -> Result<(), Errno> {
    if ipv4 {
        set_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        set_option(socket, libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
    } else {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
    }
    // Past the limits of net.core if we may, within them if not.
    let (receive, send) = (libc::SO_RCVBUF, libc::SO_SNDBUF);
    set_option(
        socket,
        libc::SOL_SOCKET,
        libc::SO_RCVBUFFORCE,
        RECEIVE_BUFFER_BYTES,
    )
    .or_else(|_| set_option(socket, libc::SOL_SOCKET, receive, RECEIVE_BUFFER_BYTES))?;
    set_option(
        socket,
        libc::SOL_SOCKET,
        libc::SO_SNDBUFFORCE,
        SEND_BUFFER_BYTES,
    )
    .or_else(|_| set_option(socket, libc::SOL_SOCKET, send, SEND_BUFFER_BYTES))?;
    match set_option(socket, libc::SOL_UDP, libc::UDP_GRO, i32::from(offload)) {
        // A kernel without it has it off.
        Err(Errno::ENOPROTOOPT) if !offload => {}
        result => result?,
    }
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, STAMPS)
}

/// Stamp all that comes, and what we ask for of what goes: by number, and without its bytes.
const STAMPS: i32 = (libc::SOF_TIMESTAMPING_SOFTWARE
    | libc::SOF_TIMESTAMPING_RX_SOFTWARE
    | libc::SOF_TIMESTAMPING_OPT_ID
    | libc::SOF_TIMESTAMPING_OPT_TSONLY)
    .cast_signed();

/// Makes a socket number its stamps from zero again.
///
/// # Errors
/// None, of a socket.
pub(crate) fn restart_stamps(socket: BorrowedFd<'_>) -> io::Result<()> {
    let without = STAMPS & !libc::SOF_TIMESTAMPING_OPT_ID.cast_signed();
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, without)?;
    set_option(socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, STAMPS)?;
    Ok(())
}

fn set_fragmentation(socket: BorrowedFd<'_>, ipv4: bool, rule: Fragmentation) -> Result<(), Errno> {
    let (level, name) = if ipv4 {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
    };
    let value = match rule {
        Fragmentation::AsKernelSees => libc::IP_PMTUDISC_WANT,
        Fragmentation::Never => libc::IP_PMTUDISC_PROBE,
        Fragmentation::Always => libc::IP_PMTUDISC_DONT,
    };
    set_option(socket, level, name, value)
}

fn bound_port(socket: BorrowedFd<'_>) -> Result<u16, Errno> {
    let address: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let v4 = address.as_sockaddr_in().map(SockaddrIn::port);
    let v6 = address.as_sockaddr_in6().map(SockaddrIn6::port);
    v4.or(v6).ok_or(Errno::EAFNOSUPPORT)
}

fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> Result<(), Errno> {
    let len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes from a pointer to an `i32` that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            len,
        )
    };
    check(result as isize).map(|_| ()).map_err(errno)
}

fn errno(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// The first value of `SO_MEMINFO`, `SK_MEMINFO_RMEM_ALLOC` (uapi/linux/sock_diag.h).
fn received_memory(socket: BorrowedFd<'_>) -> usize {
    const SO_MEMINFO: i32 = 55;
    let mut bytes = 0_u32;
    let mut len = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to an `u32` that outlives the call; it cuts off what does not fit.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            (&raw mut bytes).cast(),
            &raw mut len,
        )
    };
    // A kernel without it (before 4.12) looks like one whose buffer is always empty.
    check(result as isize).map_or(0, |_| bytes as usize)
}

#[cfg(test)]
mod tests;
