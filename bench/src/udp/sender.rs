//! The sending half, over a socket.

use std::io::IoSlice;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, sendmmsg, sendmsg, setsockopt, sockopt,
};

use super::datagram::Header;
use super::pace::{Offered, Pace, Source};
use super::{Load, Offload};
use crate::netns::Namespace;

/// Datagrams in one `sendmmsg`.
pub(crate) const BATCH: usize = 64;
/// The kernel takes 65,507 bytes of UDP payload in one send, and 64 segments in older kernels.
const GSO_BYTES: usize = 65_000;
const GSO_SEGMENTS: usize = 64;

pub(crate) struct Sender {
    socket: UdpSocket,
    load: Load,
    buffers: Vec<u8>,
    headers: MultiHeaders<SockaddrIn>,
}

impl Sender {
    pub(crate) fn open(namespace: &Namespace, to: SocketAddrV4, load: Load) -> Result<Self> {
        let socket = namespace.enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(to).with_context(|| to.to_string())?;
            setsockopt(&socket, sockopt::SndBufForce, &(4 << 20))?;
            Ok(socket)
        })?;
        let buffers = vec![0; load.payload_bytes * load.burst()];
        let headers = MultiHeaders::preallocate(BATCH, None);
        Ok(Self {
            socket,
            load,
            buffers,
            headers,
        })
    }

    fn send(&mut self, count: usize, first: u64, trial: u32) -> Result<u64> {
        let payloads = self.buffers.chunks_exact_mut(self.load.payload_bytes);
        for (sequence, payload) in (first..).zip(payloads.take(count)) {
            Header { trial, sequence }.write(payload);
        }
        let sent = match self.load.offload {
            Offload::None => {
                let payloads = self.buffers.chunks_exact(self.load.payload_bytes);
                send_each(&self.socket, &mut self.headers, payloads.take(count))
            }
            Offload::Segmentation => self.send_segmented(count),
        };
        none_if_refused(sent)
    }

    fn send_segmented(&self, count: usize) -> nix::Result<usize> {
        let size = u16::try_from(self.load.payload_bytes).unwrap_or(u16::MAX);
        let bytes = self
            .buffers
            .get(..count * self.load.payload_bytes)
            .unwrap_or_default();
        let control = [ControlMessage::UdpGsoSegments(&size)];
        let slices = [IoSlice::new(bytes)];
        let fd = self.socket.as_raw_fd();
        sendmsg::<()>(fd, &slices, &control, MsgFlags::empty(), None).map(|_| count)
    }
}

impl Source for Sender {
    fn offer(&mut self, rate: Option<f64>, duration: Duration, trial: u32) -> Result<Offered> {
        let whole_bursts = self.load.offload == Offload::Segmentation;
        let pace = Pace {
            rate,
            duration,
            burst: self.load.burst() as u64,
            whole_bursts,
        };
        pace.run(|count, first| self.send(count, first, trial))
    }
}

/// Sends up to [`BATCH`] datagrams over a connected socket with one system call.
pub(crate) fn send_each<'a>(
    socket: &UdpSocket,
    headers: &'a mut MultiHeaders<SockaddrIn>,
    payloads: impl Iterator<Item = &'a [u8]>,
) -> nix::Result<usize> {
    let slices: Vec<[IoSlice<'_>; 1]> = payloads.map(|one| [IoSlice::new(one)]).collect();
    let (fd, flags) = (socket.as_raw_fd(), MsgFlags::empty());
    sendmmsg(fd, headers, &slices, [None; BATCH], [], flags).map(Iterator::count)
}

/// A full queue, or an ICMP error for an earlier datagram, means that nothing was sent.
pub(crate) fn none_if_refused(sent: nix::Result<usize>) -> Result<u64> {
    match sent {
        Ok(sent) => Ok(sent as u64),
        Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::ECONNREFUSED) => Ok(0),
        Err(error) => Err(error).context("sending"),
    }
}

impl Load {
    /// Datagrams in one system call.
    fn burst(self) -> usize {
        match self.offload {
            Offload::None => BATCH,
            Offload::Segmentation => (GSO_BYTES / self.payload_bytes).min(GSO_SEGMENTS),
        }
    }
}
