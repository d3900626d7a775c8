//! `struct msghdr` with everything it points to, and the two system calls that take one.
//!
//! # Safety
//!
//! A `msghdr` is a bundle of pointers. [`Outgoing`] and [`Incoming`] own what theirs point to, are boxed so that
//! nothing moves, and rewrite all pointers before every use. A payload is borrowed for a plain call, and for an
//! operation in a ring it is owned by the keeper of the operation's memory (see `docs/decisions/0004-buffers.md`).
#![expect(
    unsafe_code,
    reason = "msghdr is made of pointers, and libc's calls are unsafe"
)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ployz_engine::WallNs;

use super::errno::check;
use super::{address, control};

/// The header of one `sendmsg`.
pub(crate) struct Outgoing {
    name: [u8; address::LEN],
    control: ControlBytes<{ control::SEND_LEN }>,
    payload: libc::iovec,
    header: libc::msghdr,
}

/// Control messages are read by the kernel as words.
#[repr(align(8))]
struct ControlBytes<const N: usize>([u8; N]);

// SAFETY: the pointers inside are to the value's own heap memory or to a payload, and are used only through `&mut
// self`.
unsafe impl Send for Outgoing {}

impl Outgoing {
    /// An empty header.
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self {
            name: [0; address::LEN],
            control: ControlBytes([0; control::SEND_LEN]),
            payload: libc::iovec {
                iov_base: std::ptr::null_mut(),
                iov_len: 0,
            },
            header: empty_header(),
        })
    }

    /// Fills everything in and returns the pointer for the kernel, which is valid until `self` or `payload` goes or
    /// `prepare` is called again.
    pub(crate) fn prepare(
        &mut self,
        to: SocketAddr,
        say: control::Send,
        payload: &[u8],
    ) -> *const libc::msghdr {
        let name_len = address::encode(to, &mut self.name);
        let control_len = control::encode(say, &mut self.control.0);
        self.payload.iov_base = payload.as_ptr().cast_mut().cast();
        self.payload.iov_len = payload.len();
        self.header.msg_name = self.name.as_mut_ptr().cast();
        self.header.msg_namelen = name_len as libc::socklen_t;
        self.header.msg_iov = &raw mut self.payload;
        self.header.msg_iovlen = 1;
        self.header.msg_control = self.control.0.as_mut_ptr().cast();
        self.header.msg_controllen = control_len as _;
        &raw const self.header
    }

    /// Sends `payload` now, without waiting.
    ///
    /// # Errors
    /// Whatever `sendmsg` says; `WouldBlock` if the socket's buffer is full.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        to: SocketAddr,
        say: control::Send,
        payload: &[u8],
    ) -> io::Result<usize> {
        let header = self.prepare(to, say, payload);
        // SAFETY: `prepare` made every pointer in the header valid for the lengths beside it, and they live in `self`
        // and `payload`, which are borrowed for the call.
        check(unsafe { libc::sendmsg(socket.as_raw_fd(), header, libc::MSG_DONTWAIT) })
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing")
            .field("payload_len", &self.payload.iov_len)
            .finish()
    }
}

/// The header of `recvmsg`.
pub(crate) struct Incoming {
    name: [u8; address::LEN],
    control: ControlBytes<{ control::RECEIVE_LEN }>,
    payload: libc::iovec,
    header: libc::msghdr,
}

// SAFETY: as for `Outgoing`.
unsafe impl Send for Incoming {}

/// A receive: its sender, the kernel's control messages, its length.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The sender.
    pub from: SocketAddr,
    /// Packet info, ECN, GRO size.
    pub received: control::Received,
    /// Bytes of payload.
    pub len: usize,
}

impl Incoming {
    /// A header with room for an address and the control messages.
    pub(crate) fn new() -> Box<Self> {
        Box::new(Self {
            name: [0; address::LEN],
            control: ControlBytes([0; control::RECEIVE_LEN]),
            payload: libc::iovec {
                iov_base: std::ptr::null_mut(),
                iov_len: 0,
            },
            header: empty_header(),
        })
    }

    /// Receives into `buffer` now, without waiting. `None` if what came was cut off or is from no IP address.
    ///
    /// # Errors
    /// Whatever `recvmsg` says; `WouldBlock` if there is nothing.
    pub(crate) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        buffer: &mut [u8],
    ) -> io::Result<Option<Arrival>> {
        let len = self.call(socket, buffer, libc::MSG_DONTWAIT)?;
        if self.header.msg_flags & libc::MSG_TRUNC != 0 {
            return Ok(None);
        }
        let name_len = (self.header.msg_namelen as usize).min(self.name.len());
        let received = control::decode(self.control());
        let from = address::decode(&self.name[..name_len]);
        Ok(from.map(|from| Arrival {
            from,
            received,
            len,
        }))
    }

    /// Takes the next message of the socket's error queue: the key of a datagram that has left, and when. `None` if it
    /// is about something else.
    ///
    /// # Errors
    /// Whatever `recvmsg` says; `WouldBlock` if there is nothing.
    pub(crate) fn receive_departure(
        &mut self,
        socket: BorrowedFd<'_>,
    ) -> io::Result<Option<(u32, WallNs)>> {
        self.call(socket, &mut [], libc::MSG_DONTWAIT | libc::MSG_ERRQUEUE)?;
        Ok(control::decode_departure(self.control()))
    }

    /// The time at which the oldest datagram that waits arrived. It goes on waiting.
    pub(crate) fn first_arrival(&mut self, socket: BorrowedFd<'_>) -> Option<WallNs> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_PEEK;
        self.call(socket, &mut [], flags).ok()?;
        control::decode(self.control()).arrived
    }

    /// The control messages of the last receive.
    fn control(&self) -> &[u8] {
        let len = self.header.msg_controllen.min(self.control.0.len());
        &self.control.0[..len]
    }

    fn call(
        &mut self,
        socket: BorrowedFd<'_>,
        buffer: &mut [u8],
        flags: libc::c_int,
    ) -> io::Result<usize> {
        self.payload.iov_base = buffer.as_mut_ptr().cast();
        self.payload.iov_len = buffer.len();
        self.header.msg_name = self.name.as_mut_ptr().cast();
        self.header.msg_namelen = self.name.len() as libc::socklen_t;
        self.header.msg_iov = &raw mut self.payload;
        self.header.msg_iovlen = 1;
        self.header.msg_control = self.control.0.as_mut_ptr().cast();
        self.header.msg_controllen = self.control.0.len() as _;
        let header = &raw mut self.header;
        // SAFETY: every pointer in the header was set above to memory of the length beside it, owned by `self` or
        // borrowed mutably as `buffer` for the call.
        check(unsafe { libc::recvmsg(socket.as_raw_fd(), header, flags) })
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").finish_non_exhaustive()
    }
}

/// The header that a multishot `recvmsg` is armed with: only the lengths of name and control matter, the memory is in
/// each provided buffer.
pub(crate) fn multishot_header() -> libc::msghdr {
    let mut header = empty_header();
    header.msg_namelen = address::LEN as libc::socklen_t;
    header.msg_controllen = control::RECEIVE_LEN as _;
    header
}

fn empty_header() -> libc::msghdr {
    // SAFETY: all-zero bytes are a valid `msghdr`: null pointers and zero lengths.
    unsafe { std::mem::zeroed() }
}
