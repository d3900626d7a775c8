//! The sending half: as fast as it can, or paced at a rate.

use std::io::IoSlice;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, sendmmsg, sendmsg, setsockopt, sockopt,
};

use super::datagram::Header;
use super::{Load, Offload};
use crate::clock;
use crate::netns::Namespace;

/// Datagrams in one `sendmmsg`.
const BATCH: usize = 64;
/// The kernel takes 65,507 bytes of UDP payload in one send, and 64 segments in older kernels.
const GSO_BYTES: usize = 65_000;
const GSO_SEGMENTS: usize = 64;
/// The paced sender sleeps this long between bursts: 10 packets at 100,000 a second.
const TICK: Duration = Duration::from_micros(100);
/// A sender that the scheduler left waiting does not make up for more than this.
const ARREARS: Duration = Duration::from_millis(1);

pub(crate) struct Sender {
    socket: UdpSocket,
    load: Load,
    buffers: Vec<u8>,
    headers: MultiHeaders<SockaddrIn>,
}

/// What one call to [`Sender::offer`] has sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offered {
    pub(crate) packets: u64,
    pub(crate) elapsed: Duration,
}

impl Sender {
    pub(crate) fn open(namespace: &Namespace, to: SocketAddrV4, load: Load) -> Result<Self> {
        let socket = namespace.enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(to).with_context(|| to.to_string())?;
            setsockopt(&socket, sockopt::SndBufForce, &(4 << 20))?;
            Ok(socket)
        })?;
        let in_a_burst = load.burst();
        let buffers = vec![0; load.payload_bytes * in_a_burst];
        let headers = MultiHeaders::preallocate(BATCH, None);
        Ok(Self {
            socket,
            load,
            buffers,
            headers,
        })
    }

    /// Sends for `duration` at `rate` packets a second, or as fast as it can.
    pub(crate) fn offer(
        &mut self,
        rate: Option<f64>,
        duration: Duration,
        trial: u32,
    ) -> Result<Offered> {
        // The default slack of 50 us would be half a tick.
        prctl::set_timerslack(1)?;
        let burst = self.load.burst() as u64;
        let started = clock::now();
        let mut packets = 0;
        let mut forgiven = 0.0;
        loop {
            let elapsed = started.elapsed();
            if elapsed >= duration {
                return Ok(Offered { packets, elapsed });
            }
            let due = match rate {
                None => burst,
                Some(rate) => {
                    let due = elapsed.as_secs_f64() * rate - forgiven - packets as f64;
                    forgiven += (due - rate * ARREARS.as_secs_f64() - burst as f64).max(0.0);
                    due as u64
                }
            };
            // A burst of segments goes out whole, or the pacing would undo the offload.
            let whole = self.load.offload == Offload::None || due >= burst;
            if due == 0 || !whole {
                clock::pause(TICK);
                continue;
            }
            packets += self.send(due.min(burst) as usize, packets, trial)?;
        }
    }

    fn send(&mut self, count: usize, sequence: u64, trial: u32) -> Result<u64> {
        let payloads = self.buffers.chunks_exact_mut(self.load.payload_bytes);
        for (sequence, payload) in (sequence..).zip(payloads.take(count)) {
            Header { trial, sequence }.write(payload);
        }
        let sent = match self.load.offload {
            Offload::None => self.send_one_by_one(count),
            Offload::Segmentation => self.send_segmented(count),
        };
        match sent {
            Ok(sent) => Ok(sent as u64),
            // The queue is full, or an ICMP error for an earlier datagram: nothing was sent.
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::ECONNREFUSED) => Ok(0),
            Err(error) => Err(error).context("sending"),
        }
    }

    fn send_one_by_one(&mut self, count: usize) -> nix::Result<usize> {
        let payloads = self
            .buffers
            .chunks_exact(self.load.payload_bytes)
            .take(count);
        let slices: Vec<[IoSlice<'_>; 1]> = payloads.map(|one| [IoSlice::new(one)]).collect();
        let fd = self.socket.as_raw_fd();
        let flags = MsgFlags::empty();
        let none = [None; BATCH];
        sendmmsg(fd, &mut self.headers, &slices, none, [], flags).map(Iterator::count)
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

impl Load {
    /// Datagrams in one system call.
    fn burst(self) -> usize {
        match self.offload {
            Offload::None => BATCH,
            Offload::Segmentation => (GSO_BYTES / self.payload_bytes).min(GSO_SEGMENTS),
        }
    }
}
