//! The receiving half: counts what belongs to a trial.

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, recvmsg, setsockopt, sockopt,
};

use super::datagram::Header;
use super::{Load, Offload};
use crate::clock;
use crate::netns::Namespace;

pub(crate) const PORT: u16 = 7_000;
const BATCH: usize = 64;
/// Enough that the sink's own scheduling is not what loses packets: 8 MiB of socket buffer is
/// about 10,000 small datagrams with the kernel's overhead, 25 ms at 400,000 a second.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;
/// 50 packets at 500,000 a second.
const LOOK: Duration = Duration::from_micros(100);
/// Nothing for this long after the sender has ended: whatever is missing is lost.
const SILENCE: Duration = Duration::from_millis(100);
/// However long packets keep coming.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);
const GRO_BYTES: usize = 1 << 16;

pub(crate) struct Sink {
    socket: UdpSocket,
    load: Load,
    buffers: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) packets: u64,
    /// Packets that came after one with a higher number.
    pub(crate) reordered: u64,
}

impl Sink {
    pub(crate) fn open(namespace: &Namespace, address: Ipv4Addr, load: Load) -> Result<Self> {
        let socket = namespace.enter(|| {
            let at = SocketAddrV4::new(address, PORT);
            let socket = UdpSocket::bind(at).with_context(|| at.to_string())?;
            setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES)?;
            if load.offload == Offload::Segmentation {
                setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
            }
            Ok(socket)
        })?;
        let buffers = match load.offload {
            Offload::None => vec![0; BATCH * load.payload_bytes],
            Offload::Segmentation => vec![0; GRO_BYTES],
        };
        Ok(Self {
            socket,
            load,
            buffers,
        })
    }

    /// Counts the packets of `trial` until `sender_done` and silence.
    ///
    /// The sink polls every 100 us instead of blocking: a wake-up for each packet would cost the one that
    /// delivers it an interrupt to another processor, which is the dearest thing in a virtual
    /// machine, and would be measured as the tunnel's work.
    pub(crate) fn count(&mut self, trial: u32, sender_done: &AtomicBool) -> Result<Received> {
        prctl::set_timerslack(1)?;
        let mut counter = Counter {
            trial,
            received: Received::default(),
            next: 0,
        };
        let mut headers = MultiHeaders::preallocate(BATCH, None);
        let mut last = clock::now();
        let mut drain_deadline = None;
        loop {
            let received = match self.load.offload {
                Offload::None => self.receive_batch(&mut headers, &mut counter),
                Offload::Segmentation => self.receive_coalesced(&mut counter),
            };
            match received {
                Ok(()) => last = clock::now(),
                Err(Errno::EAGAIN | Errno::EINTR) => clock::pause(LOOK),
                Err(error) => return Err(error).context("receiving"),
            }
            if !sender_done.load(Ordering::Acquire) {
                continue;
            }
            let now = clock::now();
            let deadline = *drain_deadline.get_or_insert(now + DRAIN_LIMIT);
            if now > deadline || now.duration_since(last) > SILENCE {
                return Ok(counter.received);
            }
        }
    }

    fn receive_batch(
        &mut self,
        headers: &mut MultiHeaders<SockaddrIn>,
        counter: &mut Counter,
    ) -> nix::Result<()> {
        let payloads = self.buffers.chunks_exact_mut(self.load.payload_bytes);
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            payloads.map(|payload| [IoSliceMut::new(payload)]).collect();
        let fd = self.socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        for message in recvmmsg(fd, headers, &mut slices, flags, None)? {
            message.iovs().for_each(|payload| counter.count(payload));
        }
        Ok(())
    }

    fn receive_coalesced(&mut self, counter: &mut Counter) -> nix::Result<()> {
        let mut control = cmsg_space!(i32);
        let mut slices = [IoSliceMut::new(&mut self.buffers)];
        let fd = self.socket.as_raw_fd();
        let message =
            recvmsg::<SockaddrIn>(fd, &mut slices, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
        let segment = message.cmsgs()?.find_map(|control| {
            let ControlMessageOwned::UdpGroSegments(size) = control else {
                return None;
            };
            usize::try_from(size).ok()
        });
        for payload in message.iovs() {
            payload
                .chunks(segment.unwrap_or(GRO_BYTES))
                .for_each(|one| counter.count(one));
        }
        Ok(())
    }
}

struct Counter {
    trial: u32,
    received: Received,
    /// The highest number so far, plus one.
    next: u64,
}

impl Counter {
    fn count(&mut self, payload: &[u8]) {
        let Some(header) = Header::read(payload).filter(|header| header.trial == self.trial) else {
            return;
        };
        self.received.packets += 1;
        if header.sequence < self.next {
            self.received.reordered += 1;
        } else {
            self.next = header.sequence + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_packets_are_reordered_and_foreign_ones_not_counted() {
        let mut counter = Counter {
            trial: 3,
            received: Received::default(),
            next: 0,
        };
        for (trial, sequence) in [(3, 0), (3, 2), (3, 1), (2, 9), (3, 3)] {
            let mut payload = [0; 64];
            Header { trial, sequence }.write(&mut payload);
            counter.count(&payload);
        }
        assert_eq!(
            counter.received,
            Received {
                packets: 4,
                reordered: 1
            }
        );
    }
}
