//! WireGuard's noise, session keys, replay window and timers, one [`Tunnel`] per peer.
//!
//! This is the one module that knows boringtun. What boringtun 0.7.1 leaves to its caller, or does otherwise than the
//! paper, is handled here and listed in `docs/decisions/0001-boringtun.md`:
//!
//! - it queues packets without a session in a queue of its own: never reached, because nothing is sealed before
//!   [`Tunnel::is_ready`];
//! - its clock stands still between calls of `update_timers`, and a session that is born at an old time dies at the next
//!   tick: [`Tunnel::tick`] comes before every handshake message to a tunnel that slept;
//! - its rate limiter counts a message once for every check: the shared [`Gate`] checks and counts, the tunnels get a
//!   limiter without a limit;
//! - it panics when a buffer is too small: every entry here asserts the size first.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519;

use crate::callers::Callers;
use crate::drops::Drop;
use crate::key::{PresharedKey, PrivateKey, PublicKey};
use crate::message::{COOKIE_REPLY_LEN, DATA_OVERHEAD_LEN, HANDSHAKE_INITIATION_LEN};

/// How often a tunnel that is awake wants [`Tunnel::tick`]. boringtun rounds its timers to this.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// Our keys, and what all tunnels share because of them.
pub(crate) struct Identity {
    private_key: PrivateKey,
    public_key: PublicKey,
    /// Never under load: [`Gate`] has counted already.
    unlimited: Arc<RateLimiter>,
}

impl Identity {
    pub(crate) fn new(private_key: PrivateKey) -> Self {
        let public_key = private_key.public_key();
        let unlimited = Arc::new(RateLimiter::new(&dalek_public(&public_key), u64::MAX));
        Self {
            private_key,
            public_key,
            unlimited,
        }
    }

    pub(crate) fn private_key(&self) -> &PrivateKey {
        &self.private_key
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// Who sent this handshake initiation, which costs one scalar multiplication and is not yet proof of anything.
    pub(crate) fn initiator(&self, datagram: &[u8]) -> Result<PublicKey, Drop> {
        let Ok(Packet::HandshakeInit(initiation)) = Tunn::parse_incoming_packet(datagram) else {
            return Err(Drop::MalformedMessage);
        };
        // The ephemeral key: one of small order would make the first secret known to everyone.
        if datagram[8..]
            .first_chunk()
            .is_some_and(|key| PublicKey::from_bytes(*key).is_low_order())
        {
            return Err(Drop::BadHandshake);
        }
        let (secret, public) = (
            dalek_secret(&self.private_key),
            dalek_public(&self.public_key),
        );
        parse_handshake_anon(&secret, &public, &initiation)
            .map(|half| PublicKey::from_bytes(half.peer_static_public))
            .map_err(|_| Drop::BadHandshake)
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.public_key)
    }
}

/// Handshake messages let through per second before cookies are asked for. One costs the responder five scalar
/// multiplications of about 40 us, so this is a tenth of a core.
const HANDSHAKES_PER_SECOND: u64 = 500;

/// The door for handshake messages of all peers: MAC, load, cookies (paper, section 5.3).
pub(crate) struct Gate {
    limiter: RateLimiter,
    callers: Callers,
}

/// What to do with a handshake message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Admitted,
    /// Send the cookie reply that was written.
    Cookie,
    Refused(Drop),
}

impl Gate {
    pub(crate) fn new(identity: &Identity, now: Instant) -> Self {
        Self {
            limiter: RateLimiter::new(&dalek_public(&identity.public_key), HANDSHAKES_PER_SECOND),
            callers: Callers::new(now),
        }
    }

    /// Checks the MACs of a handshake message; under load it writes a cookie reply to its sender.
    pub(crate) fn admit(
        &mut self,
        now: Instant,
        from: IpAddr,
        datagram: &[u8],
        reply: &mut [u8; COOKIE_REPLY_LEN],
    ) -> Admission {
        self.limiter.reset_count();
        // Without a second MAC this is nobody who has had a cookie: whether it gets one is decided before one is computed.
        let has_mac2 = datagram
            .last_chunk::<16>()
            .is_some_and(|mac2| *mac2 != [0; 16]);
        let address = has_mac2.then_some(from);
        match self.limiter.verify_packet(address, datagram, reply) {
            Ok(_) => Admission::Admitted,
            Err(TunnResult::Err(WireGuardError::InvalidMac)) => Admission::Refused(Drop::BadMac),
            Err(TunnResult::WriteToNetwork(_) | TunnResult::Err(WireGuardError::UnderLoad)) => {
                self.under_load(now, from, datagram, reply)
            }
            Err(_) => Admission::Refused(Drop::MalformedMessage),
        }
    }

    fn under_load(
        &mut self,
        now: Instant,
        from: IpAddr,
        datagram: &[u8],
        reply: &mut [u8; COOKIE_REPLY_LEN],
    ) -> Admission {
        if !self.callers.may_answer(now, from) {
            return Admission::Refused(Drop::Flood);
        }
        match self.limiter.verify_packet(Some(from), datagram, reply) {
            // The second ended between the two looks.
            Ok(_) => Admission::Admitted,
            Err(TunnResult::WriteToNetwork(_)) => Admission::Cookie,
            Err(_) => Admission::Refused(Drop::Flood),
        }
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

/// The sessions with one peer.
pub(crate) struct Tunnel {
    tunn: Box<Tunn>,
    /// There is a session to seal with.
    ready: bool,
    /// Session that we answered a handshake with and that the peer has not used yet.
    unconfirmed: Option<u32>,
    ticked_at: Option<Instant>,
}

/// What a tick asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tick {
    Nothing,
    /// Send the message of this length that was written.
    Send(usize),
    /// No session and no handshake under way: no more ticks are needed until something happens.
    Asleep,
}

impl Tunnel {
    /// A tunnel with no session. `index` is 24 bits; the receiver indices of its sessions are `index << 8 | 0..256`.
    pub(crate) fn new(
        identity: &Identity,
        peer: &PublicKey,
        preshared_key: Option<&PresharedKey>,
        index: u32,
    ) -> Self {
        debug_assert!(index < 1 << 24);
        let tunn = Tunn::new(
            dalek_secret(&identity.private_key),
            dalek_public(peer),
            preshared_key.map(|key| *key.expose()),
            None,
            index,
            Some(Arc::clone(&identity.unlimited)),
        );
        Self {
            tunn: Box::new(tunn),
            ready: false,
            unconfirmed: None,
            ticked_at: None,
        }
    }

    /// True if a packet can be sealed.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Writes `packet` as a data message that fills `out`, which is [`DATA_OVERHEAD_LEN`] longer. Empty is a keepalive.
    pub(crate) fn seal(&mut self, packet: &[u8], out: &mut [u8]) {
        assert!(self.ready && out.len() == packet.len() + DATA_OVERHEAD_LEN);
        let written = message_len(self.tunn.encapsulate(packet, out));
        debug_assert_eq!(written, Some(packet.len() + DATA_OVERHEAD_LEN));
    }

    /// Authenticates a data message and opens it into `out`, which is as long as the message. The length of the packet in
    /// it: zero for a keepalive, none if what was sealed is no IP packet.
    pub(crate) fn open(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<Option<usize>, Drop> {
        assert!(out.len() >= datagram.len());
        match self.tunn.decapsulate(None, datagram, out) {
            TunnResult::Done => Ok(Some(0)),
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Ok(Some(packet.len()))
            }
            // boringtun says so of a message's form, which was checked before, and of what it has authenticated.
            TunnResult::Err(WireGuardError::InvalidPacket) => Ok(None),
            TunnResult::Err(error) => Err(data_drop(&error)),
            TunnResult::WriteToNetwork(_) => Err(Drop::MalformedMessage),
        }
    }

    /// Call after a data message was opened: true if it is the first of a session that we answered for, which completes
    /// the handshake on our side.
    pub(crate) fn confirm(&mut self, receiver_index: u32) -> bool {
        let completed = self.unconfirmed == Some(receiver_index);
        if completed {
            self.unconfirmed = None;
        }
        if completed || !self.ready {
            self.refresh();
        }
        completed
    }

    /// Starts a handshake unless one is under way; the message is written to `out`.
    pub(crate) fn initiate(&mut self, out: &mut [u8]) -> Option<usize> {
        assert!(out.len() >= HANDSHAKE_INITIATION_LEN);
        message_len(self.tunn.format_handshake_initiation(out, false))
    }

    /// Consumes an initiation that was admitted and writes the response.
    pub(crate) fn respond(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<usize, Drop> {
        let len = self
            .handshake_message(datagram, out)?
            .ok_or(Drop::BadHandshake)?;
        self.unconfirmed = crate::message::sender_index(out);
        self.refresh();
        Ok(len)
    }

    /// Consumes a response that was admitted: there is a session now. Writes a keepalive, which tells the peer so if
    /// nothing else is sent.
    pub(crate) fn complete(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<usize, Drop> {
        let len = self
            .handshake_message(datagram, out)?
            .ok_or(Drop::BadHandshake)?;
        self.refresh();
        Ok(len)
    }

    /// Keeps the cookie for the next handshake message. It proves nothing about where the peer is.
    pub(crate) fn cookie(&mut self, datagram: &[u8]) -> Result<(), Drop> {
        self.handshake_message(datagram, &mut []).map(|_| ())
    }

    /// Lets time pass. `out` has room for a handshake initiation.
    pub(crate) fn tick(&mut self, now: Instant, out: &mut [u8]) -> Tick {
        assert!(out.len() >= HANDSHAKE_INITIATION_LEN);
        self.ticked_at = Some(now);
        let tick = match self.tunn.update_timers(out) {
            TunnResult::WriteToNetwork(message) => Tick::Send(message.len()),
            TunnResult::Err(_) => Tick::Asleep,
            TunnResult::Done
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => Tick::Nothing,
        };
        self.refresh();
        tick
    }

    /// True if boringtun's clock is too old to take a handshake message.
    pub(crate) fn has_slept(&self, now: Instant) -> bool {
        self.ticked_at
            .is_none_or(|then| now.saturating_duration_since(then) > 2 * TICK)
    }

    fn handshake_message(
        &mut self,
        datagram: &[u8],
        out: &mut [u8],
    ) -> Result<Option<usize>, Drop> {
        match self.tunn.decapsulate(None, datagram, out) {
            TunnResult::Err(_) => Err(Drop::BadHandshake),
            TunnResult::WriteToNetwork(message) => Ok(Some(message.len())),
            TunnResult::Done
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => Ok(None),
        }
    }

    fn refresh(&mut self) {
        self.ready = self.tunn.time_since_last_handshake().is_some();
    }
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel")
            .field("ready", &self.ready)
            .finish_non_exhaustive()
    }
}

fn message_len(result: TunnResult<'_>) -> Option<usize> {
    match result {
        TunnResult::WriteToNetwork(message) => Some(message.len()),
        TunnResult::Done
        | TunnResult::Err(_)
        | TunnResult::WriteToTunnelV4(..)
        | TunnResult::WriteToTunnelV6(..) => None,
    }
}

fn data_drop(error: &WireGuardError) -> Drop {
    match error {
        WireGuardError::InvalidCounter | WireGuardError::DuplicateCounter => Drop::Replay,
        WireGuardError::NoCurrentSession | WireGuardError::WrongIndex => Drop::UnknownSession,
        WireGuardError::InvalidAeadTag => Drop::BadTag,
        WireGuardError::InvalidPacket
        | WireGuardError::DestinationBufferTooSmall
        | WireGuardError::IncorrectPacketLength
        | WireGuardError::UnexpectedPacket
        | WireGuardError::WrongPacketType
        | WireGuardError::WrongKey
        | WireGuardError::InvalidTai64nTimestamp
        | WireGuardError::WrongTai64nTimestamp
        | WireGuardError::InvalidMac
        | WireGuardError::LockFailed
        | WireGuardError::ConnectionExpired
        | WireGuardError::UnderLoad => Drop::MalformedMessage,
    }
}

fn dalek_secret(key: &PrivateKey) -> x25519::StaticSecret {
    x25519::StaticSecret::from(*key.expose())
}

fn dalek_public(key: &PublicKey) -> x25519::PublicKey {
    x25519::PublicKey::from(*key.as_bytes())
}
