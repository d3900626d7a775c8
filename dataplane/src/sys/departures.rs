//! The departures of datagrams, as the kernel stamped them (Documentation/networking/timestamping.rst).
//!
//! A stamp is asked for with one datagram and comes back through the socket's error queue under a key: the socket
//! counts what it was asked to stamp. The answer is there as soon as the driver has the packet, and is fetched in a
//! later turn.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use ployz_engine::WallNs;

use super::message::Incoming;
use super::udp::{self, UdpSockets};

/// As many as the engine awaits.
const AWAITED_MAX: usize = 256;
/// A driver that has not stamped a datagram by then does not stamp it.
const WAIT: Duration = Duration::from_secs(1);

/// The stamps that two sockets owe.
#[derive(Debug)]
pub(crate) struct Departures {
    awaited: VecDeque<Awaited>,
    /// Of the socket for IPv4 and of that for IPv6.
    next_key: [u32; 2],
    header: Box<Incoming>,
}

#[derive(Debug)]
struct Awaited {
    token: u32,
    ipv6: bool,
    key: u32,
    /// From the first look on.
    until: Option<Instant>,
}

impl Departures {
    /// For sockets that were not asked for anything.
    pub(crate) fn new() -> Self {
        Self {
            awaited: VecDeque::new(),
            next_key: [0; 2],
            header: Incoming::new(),
        }
    }

    /// Sends a datagram that is to be stamped. `send` asks for it.
    ///
    /// # Errors
    /// The errors of `send`.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        ipv6: bool,
        token: u32,
        send: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let key = &mut self.next_key[usize::from(ipv6)];
        if let Err(error) = send() {
            // Whether it was counted is unknown: both begin anew.
            *key = 0;
            self.awaited.retain(|it| it.ipv6 != ipv6);
            udp::restart_stamps(socket)?;
            return Err(error);
        }
        if self.awaited.len() == AWAITED_MAX {
            self.awaited.pop_front();
        }
        self.awaited.push_back(Awaited {
            token,
            ipv6,
            key: *key,
            until: None,
        });
        *key = key.wrapping_add(1);
        Ok(())
    }

    /// A datagram that has left and when, if there is news.
    pub(crate) fn next(&mut self, now: Instant, sockets: &UdpSockets) -> Option<(u32, WallNs)> {
        for ipv6 in [false, true] {
            if !self.awaited.iter().any(|it| it.ipv6 == ipv6) {
                continue;
            }
            let Some(socket) = sockets.of_family(ipv6) else {
                continue;
            };
            while let Ok(stamp) = self.header.receive_departure(socket) {
                let known =
                    |it: &Awaited| stamp.is_some_and(|(key, _)| it.ipv6 == ipv6 && it.key == key);
                let Some(at) = self.awaited.iter().position(known) else {
                    continue;
                };
                let token = self.awaited.remove(at).map(|it| it.token);
                return token.zip(stamp.map(|(_, at)| at));
            }
        }
        self.give_up(now);
        None
    }

    fn give_up(&mut self, now: Instant) {
        for it in &mut self.awaited {
            it.until.get_or_insert(now + WAIT);
        }
        self.awaited
            .retain(|it| it.until.is_none_or(|until| now < until));
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::SystemTime;

    use super::*;
    use crate::batch::SendBatch;
    use ployz_engine::{Departure, Endpoint, SendMode};

    #[expect(clippy::disallowed_methods, reason = "a test is a driver")]
    fn clocks() -> (Instant, WallNs) {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        (Instant::now(), wall.unwrap().as_nanos() as u64)
    }

    #[test]
    fn the_kernel_says_when_a_datagram_left_and_when_it_arrived() {
        for (family, at) in [(false, "127.0.0.1:0"), (true, "[::1]:0")] {
            let sockets = UdpSockets::bind_all(0, 0, true, 1).unwrap().remove(0);
            let receiver = UdpSocket::bind(at).unwrap();
            let to = receiver.local_addr().unwrap();
            let socket = sockets.for_remote(to).unwrap();
            let mut departures = Departures::new();
            let (now, before) = clocks();
            for token in 70..73 {
                let mut batch = SendBatch::new();
                let departure = Departure::new(SendMode::Stamped(token));
                batch.open(&Endpoint::configured(to), departure);
                batch.room(5).copy_from_slice(b"hello");
                batch.push(5);
                let send = || batch.send_one(socket, 0);
                departures.send(socket, family, token, send).unwrap();
            }
            let (_, after) = clocks();
            for token in 70..73 {
                let (name, at) = departures.next(now, &sockets).expect("a stamp");
                assert_eq!(name, token);
                assert!((before..=after).contains(&at), "{before} {at} {after}");
            }
            assert_eq!(departures.next(now, &sockets), None);
        }
    }

    #[test]
    fn after_a_send_that_failed_both_count_from_the_start() {
        let sockets = UdpSockets::bind_all(0, 0, true, 1).unwrap().remove(0);
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = Endpoint::configured(receiver.local_addr().unwrap());
        let socket = sockets.v4();
        let mut departures = Departures::new();
        let (now, _) = clocks();
        for token in 0..4 {
            let mut batch = SendBatch::new();
            batch.open(&to, Departure::new(SendMode::Stamped(token)));
            batch.room(5).fill(0);
            batch.push(5);
            let sent = departures.send(socket, false, token, || match token {
                1 => Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
                _ => batch.send_one(socket, 0),
            });
            assert_eq!(sent.is_err(), token == 1);
        }
        let names: Vec<_> =
            std::iter::from_fn(|| departures.next(now, &sockets).map(|(name, _)| name)).collect();
        // The stamp of the first came before the second failed, and its key means another now.
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(departures.awaited.len() <= 1);
        assert_eq!(departures.next(now + WAIT, &sockets), None);
        assert!(departures.awaited.is_empty());
    }
}
