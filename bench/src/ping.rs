//! An ICMP pinger whose receive stamps are the kernel's: on a busy machine the time until the
//! pinger itself is scheduled again is not the tunnel's.

use std::io::IoSliceMut;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn,
    connect, recvmsg, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeSpec, TimeVal};

use crate::clock;
use crate::netns::Namespace;

const INTERVAL: Duration = Duration::from_millis(5);
/// A ping that takes longer is lost.
const LIMIT: Duration = Duration::from_secs(1);
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
/// As `ping` sends by default: 56 bytes of payload behind 8 of header.
const MESSAGE_BYTES: usize = 64;

#[derive(Debug)]
pub(crate) struct Pinger {
    socket: OwnedFd,
    identifier: u16,
    sequence: std::cell::Cell<u16>,
}

/// The round trips of one run, sorted, and how many pings had no answer.
#[derive(Debug)]
pub(crate) struct RoundTrips {
    pub(crate) sorted: Vec<Duration>,
    pub(crate) lost: u32,
}

impl Pinger {
    pub(crate) fn open(namespace: &Namespace, destination: Ipv4Addr) -> Result<Self> {
        namespace.enter(|| {
            let protocol = SockProtocol::Icmp;
            let flags = SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Inet, SockType::Raw, flags, protocol)?;
            setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
            let [a, b, c, d] = destination.octets();
            connect(socket.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0))?;
            let identifier = u16::try_from(std::process::id() & 0xffff)?;
            Ok(Self {
                socket,
                identifier,
                sequence: std::cell::Cell::new(0),
            })
        })
    }

    /// Pings every 5 ms for `duration`; the next ping waits for the answer to the last.
    pub(crate) fn run(&self, duration: Duration) -> Result<RoundTrips> {
        let end = clock::now() + duration;
        let mut trips = RoundTrips {
            sorted: Vec::new(),
            lost: 0,
        };
        let mut next = clock::now();
        while next < end {
            match self.ping(LIMIT)? {
                Some(trip) => trips.sorted.push(trip),
                None => trips.lost += 1,
            }
            next = clock::now().max(next + INTERVAL);
            clock::pause(next.saturating_duration_since(clock::now()));
        }
        trips.sorted.sort_unstable();
        Ok(trips)
    }

    /// Sends one ping. `None` when no answer came within `limit`.
    pub(crate) fn ping(&self, limit: Duration) -> Result<Option<Duration>> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let sent = clock::wall_clock().duration_since(UNIX_EPOCH)?;
        let deadline = clock::now() + limit;
        match send(
            self.socket.as_raw_fd(),
            &request(self.identifier, sequence),
            MsgFlags::empty(),
        ) {
            Ok(_) => {}
            // The tunnel has no session yet, or the interface's queue is full.
            Err(Errno::ENOKEY | Errno::ENOBUFS | Errno::EDESTADDRREQ) => return Ok(None),
            Err(error) => return Err(error).context("sending a ping"),
        }
        while let Some(stamp) = self.receive(sequence, deadline)? {
            if let Some(stamp) = stamp {
                return Ok(Some(stamp.saturating_sub(sent)));
            }
        }
        Ok(None)
    }

    /// `None` at the deadline, `Some(None)` for a message that is not the answer.
    fn receive(&self, sequence: u16, deadline: Instant) -> Result<Option<Option<Duration>>> {
        let left = deadline.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Ok(None);
        }
        let left = TimeVal::new(
            left.as_secs().cast_signed(),
            i64::from(left.subsec_micros().max(1)),
        );
        setsockopt(&self.socket, sockopt::ReceiveTimeout, &left)?;
        let mut buffer = [0; 256];
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let mut control = cmsg_space!(TimeSpec);
        let fd = self.socket.as_raw_fd();
        let message = match recvmsg::<()>(fd, &mut slices, Some(&mut control), MsgFlags::empty()) {
            Ok(message) => message,
            Err(Errno::EAGAIN) => return Ok(None),
            // An ICMP error for an earlier ping.
            Err(Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::EINTR) => {
                return Ok(Some(None));
            }
            Err(error) => return Err(error).context("receiving a ping"),
        };
        let stamp = message.cmsgs()?.find_map(|control| {
            let ControlMessageOwned::ScmTimestampns(stamp) = control else {
                return None;
            };
            Some(Duration::from(stamp))
        });
        let length = message.bytes;
        let ours = is_reply(
            buffer.get(..length).unwrap_or_default(),
            self.identifier,
            sequence,
        );
        Ok(Some(stamp.filter(|_| ours)))
    }
}

impl RoundTrips {
    /// In microseconds; `None` without any answer.
    pub(crate) fn percentile_us(&self, percent: usize) -> Option<f64> {
        let rank = (self.sorted.len() * percent)
            .div_ceil(100)
            .saturating_sub(1);
        self.sorted.get(rank).map(|trip| trip.as_secs_f64() * 1e6)
    }
}

fn request(identifier: u16, sequence: u16) -> [u8; MESSAGE_BYTES] {
    let mut message = [0; MESSAGE_BYTES];
    message[0] = ECHO_REQUEST;
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    let sum = internet_checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// A raw socket sees the IP header too.
fn is_reply(packet: &[u8], identifier: u16, sequence: u16) -> bool {
    let header = packet
        .first()
        .map_or(0, |byte| usize::from(byte & 0x0f) * 4);
    let Some([kind, _, _, _, id0, id1, seq0, seq1]) = packet.get(header..header + 8) else {
        return false;
    };
    *kind == ECHO_REPLY
        && u16::from_be_bytes([*id0, *id1]) == identifier
        && u16::from_be_bytes([*seq0, *seq1]) == sequence
}

/// RFC 1071.
pub(crate) fn internet_checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_carries_a_valid_checksum() {
        assert_eq!(internet_checksum(&request(7, 9)), 0);
    }

    #[test]
    fn only_the_reply_to_the_last_request_counts() {
        let mut packet = vec![0x45; 20];
        packet.extend(request(7, 9));
        assert!(!is_reply(&packet, 7, 9), "a request is no reply");
        packet[20] = ECHO_REPLY;
        assert!(is_reply(&packet, 7, 9));
        assert!(!is_reply(&packet, 7, 10));
        assert!(!is_reply(&packet[..24], 7, 9), "too short");
    }

    #[test]
    fn a_percentile_is_a_value_that_was_measured() {
        let sorted = (1..=100).map(Duration::from_micros).collect();
        let trips = RoundTrips { sorted, lost: 0 };
        assert_eq!(trips.percentile_us(50), Some(50.0));
        assert_eq!(trips.percentile_us(99), Some(99.0));
        assert_eq!(
            RoundTrips {
                sorted: vec![],
                lost: 3
            }
            .percentile_us(50),
            None
        );
    }
}
