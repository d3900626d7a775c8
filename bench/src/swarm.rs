//! Many WireGuard peers in one place, to be the far end of one daemon.
//!
//! Every member has a key and a session of its own (boringtun's `Tunn`); all of them speak through
//! one UDP socket, as peers behind one address translator do.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use boringtun::noise::{Tunn, TunnResult};
use nix::sys::socket::{MultiHeaders, SockaddrIn, setsockopt, sockopt};

use crate::clock;
use crate::inner::{self, InnerPacket};
use crate::keys::Keys;
use crate::topology::{End, Topology};
use crate::tunnel::{idle_address, keys_of};
use crate::udp::datagram::Header;
use crate::udp::pace::{Offered, Pace, Source};
use crate::udp::sender::{BATCH, none_if_refused, send_each};
use crate::udp::sink::PORT as SINK_PORT;
use crate::wgconf::{PORT, Peer};

/// Handshakes under way at once: far from wireguard-go's 128, above which it asks for cookies.
const WINDOW: usize = 32;
/// A handshake without an answer is started anew after this.
const RETRY: Duration = Duration::from_millis(500);
const HANDSHAKES_LIMIT: Duration = Duration::from_secs(60);
const MESSAGE_BYTES_MAX: usize = 2_048;
/// The header and the tag of a data message.
const DATA_OVERHEAD: usize = 32;

const HANDSHAKE_RESPONSE: u8 = 2;
const COOKIE_REPLY: u8 = 3;

pub(crate) struct Swarm {
    socket: UdpSocket,
    members: Vec<Member>,
    turn: usize,
    headers: MultiHeaders<SockaddrIn>,
    datagrams: Vec<u8>,
}

struct Member {
    tunn: Tunn,
    packet: InnerPacket,
    initiation: Vec<u8>,
    sent: Option<Instant>,
    response: Option<Vec<u8>>,
}

/// How the daemon coped with all members wanting a handshake.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handshakes {
    pub(crate) elapsed: Duration,
    pub(crate) answered: usize,
    pub(crate) cookies: u64,
    pub(crate) retries: u64,
}

impl Swarm {
    /// At B, facing a daemon at A.
    pub(crate) fn new(topology: &Topology, count: u32, payload_bytes: usize) -> Result<Self> {
        let socket = topology.namespace(End::B).enter(|| {
            let socket = UdpSocket::bind(SocketAddrV4::new(End::B.underlay(), PORT))?;
            socket.connect(SocketAddrV4::new(End::A.underlay(), PORT))?;
            setsockopt(&socket, sockopt::SndBufForce, &(4 << 20))?;
            setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20))?;
            socket.set_read_timeout(Some(Duration::from_millis(20)))?;
            Ok(socket)
        })?;
        let members = (0..count)
            .map(|number| Member::new(number, payload_bytes))
            .collect();
        let datagrams = vec![0; BATCH * (inner::HEADER_BYTES + payload_bytes + DATA_OVERHEAD)];
        let headers = MultiHeaders::preallocate(BATCH, None);
        Ok(Self {
            socket,
            members,
            turn: 0,
            headers,
            datagrams,
        })
    }

    /// How the daemon is to be configured for a swarm of `count`.
    pub(crate) fn peers(count: u32, keepalive_seconds: u16) -> Vec<Peer> {
        let peer = |number| Peer {
            public_base64: Member::keys(number).public_base64(),
            allowed_ip: idle_address(number),
            endpoint: None,
            keepalive_seconds,
        };
        (0..count).map(peer).collect()
    }

    /// Every member gets a session.
    ///
    /// The initiations are made before the clock starts and the responses are verified after it
    /// has stopped, so that what is timed is the daemon and not the swarm.
    pub(crate) fn shake_hands(&mut self) -> Result<Handshakes> {
        self.members.iter_mut().try_for_each(Member::prepare)?;
        let started = clock::now();
        let mut tally = Tally {
            next: 0,
            under_way: 0,
            answered: 0,
            cookies: 0,
            retries: 0,
        };
        while tally.answered < self.members.len() {
            if started.elapsed() > HANDSHAKES_LIMIT {
                let (answered, of) = (tally.answered, self.members.len());
                bail!("{answered} of {of} handshakes answered in {HANDSHAKES_LIMIT:?}");
            }
            self.start_some(&mut tally)?;
            self.receive_one(&mut tally)?;
        }
        let elapsed = started.elapsed();
        let confirmed = self.confirm_all()?;
        if confirmed < tally.answered {
            bail!(
                "only {confirmed} of {} responses were valid",
                tally.answered
            );
        }
        let Tally {
            answered,
            cookies,
            retries,
            ..
        } = tally;
        Ok(Handshakes {
            elapsed,
            answered,
            cookies,
            retries,
        })
    }

    fn start_some(&mut self, tally: &mut Tally) -> Result<()> {
        while tally.under_way < WINDOW
            && let Some(member) = self.members.get_mut(tally.next)
        {
            member.send_initiation(&self.socket)?;
            tally.next += 1;
            tally.under_way += 1;
        }
        Ok(())
    }

    fn receive_one(&mut self, tally: &mut Tally) -> Result<()> {
        let mut message = [0; MESSAGE_BYTES_MAX];
        let Ok(length) = self.socket.recv(&mut message) else {
            return self.retry_overdue(tally);
        };
        let message = message.get(..length).unwrap_or_default();
        match message.first() {
            Some(&HANDSHAKE_RESPONSE) => {
                let member = member_at(&mut self.members, message, 8);
                if let Some(member) = member.filter(|member| member.response.is_none()) {
                    member.response = Some(message.to_vec());
                    tally.answered += 1;
                    tally.under_way -= 1;
                }
            }
            Some(&COOKIE_REPLY) => {
                if let Some(member) = member_at(&mut self.members, message, 4) {
                    tally.cookies += 1;
                    member.take_cookie(message);
                    member.restart(&self.socket)?;
                }
            }
            // Keepalives, and initiations of the daemon's own.
            _ => {}
        }
        Ok(())
    }

    fn retry_overdue(&mut self, tally: &mut Tally) -> Result<()> {
        let now = clock::now();
        let waiting = self
            .members
            .iter_mut()
            .filter(|member| member.response.is_none());
        for member in waiting {
            if member
                .sent
                .is_some_and(|sent| now.duration_since(sent) > RETRY)
            {
                member.restart(&self.socket)?;
                tally.retries += 1;
            }
        }
        Ok(())
    }

    fn confirm_all(&mut self) -> Result<usize> {
        let mut confirmed = 0;
        for member in &mut self.members {
            confirmed += usize::from(member.confirm(&self.socket)?);
        }
        Ok(confirmed)
    }

    /// Seals one packet of each of the next `count` members and sends them together.
    fn send(&mut self, count: usize, first: u64, trial: u32) -> Result<u64> {
        let size = self.datagrams.len() / BATCH;
        let slots = self.datagrams.chunks_exact_mut(size).take(count);
        for (sequence, slot) in (first..).zip(slots) {
            self.turn = (self.turn + 1) % self.members.len();
            let member = self
                .members
                .get_mut(self.turn)
                .context("a swarm has members")?;
            let packet = member.packet.carrying(Header { trial, sequence });
            let TunnResult::WriteToNetwork(_) = member.tunn.encapsulate(packet, slot) else {
                bail!("a member has lost its session");
            };
        }
        let datagrams = self.datagrams.chunks_exact(size).take(count);
        none_if_refused(send_each(&self.socket, &mut self.headers, datagrams))
    }
}

impl Source for Swarm {
    fn offer(&mut self, rate: Option<f64>, duration: Duration, trial: u32) -> Result<Offered> {
        let pace = Pace {
            rate,
            duration,
            burst: BATCH as u64,
            whole_bursts: false,
        };
        pace.run(|count, first| self.send(count, first, trial))
    }
}

struct Tally {
    /// The next member that has not begun.
    next: usize,
    under_way: usize,
    answered: usize,
    cookies: u64,
    retries: u64,
}

impl Member {
    fn new(number: u32, payload_bytes: usize) -> Self {
        let own = Self::keys(number);
        let daemon = keys_of(End::A).public;
        let tunn = Tunn::new(own.private, daemon, None, None, number, None);
        let from: Ipv4Addr = idle_address(number);
        let packet = InnerPacket::new(from, End::A.overlay(), SINK_PORT, payload_bytes);
        Self {
            tunn,
            packet,
            initiation: Vec::new(),
            sent: None,
            response: None,
        }
    }

    fn keys(number: u32) -> Keys {
        Keys::numbered(u64::from(number) + 1_000_000)
    }

    fn prepare(&mut self) -> Result<()> {
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        let message = self.tunn.format_handshake_initiation(&mut buffer, true);
        let TunnResult::WriteToNetwork(message) = message else {
            bail!("a member made no handshake initiation");
        };
        self.initiation = message.to_vec();
        self.response = None;
        Ok(())
    }

    fn send_initiation(&mut self, socket: &UdpSocket) -> Result<()> {
        self.sent = Some(clock::now());
        socket
            .send(&self.initiation)
            .context("sending a handshake initiation")?;
        Ok(())
    }

    fn restart(&mut self, socket: &UdpSocket) -> Result<()> {
        self.prepare()?;
        self.send_initiation(socket)
    }

    fn take_cookie(&mut self, message: &[u8]) {
        self.tunn
            .decapsulate(None, message, &mut [0; MESSAGE_BYTES_MAX]);
    }

    /// Checks the response and sends the first data message, which makes the session the daemon's
    /// too. False when there was no valid response.
    fn confirm(&mut self, socket: &UdpSocket) -> Result<bool> {
        let Some(response) = self.response.take() else {
            return Ok(false);
        };
        let mut buffer = [0; MESSAGE_BYTES_MAX];
        let TunnResult::WriteToNetwork(keepalive) =
            self.tunn.decapsulate(None, &response, &mut buffer)
        else {
            return Ok(false);
        };
        socket.send(keepalive).context("confirming a handshake")?;
        Ok(true)
    }
}

/// The member whose index a message carries at `offset`: boringtun keeps the number of the tunnel
/// in the upper 24 bits.
fn member_at<'a>(
    members: &'a mut [Member],
    message: &[u8],
    offset: usize,
) -> Option<&'a mut Member> {
    let index = message.get(offset..)?.first_chunk::<4>()?;
    members.get_mut(usize::try_from(u32::from_le_bytes(*index) >> 8).ok()?)
}
