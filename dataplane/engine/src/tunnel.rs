//! WireGuard's handshakes, sessions and timers with one peer: a [`Tunnel`].
//!
//! Keys are made in `noise` and kept in `session`; `replay` knows what was seen, `timers` what is due; `macs` signs our
//! handshake messages and `gate` admits those of others. Time and randomness are passed in.

mod gate;
mod identity;
mod mac;
mod macs;
mod noise;
mod replay;
mod session;
mod tai64n;
mod timers;
mod transcript;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use ployz_aead::Key;

use crate::drops::Drop;
use crate::key::{PresharedKey, PublicKey};
use crate::message::{DATA_OVERHEAD_LEN, HANDSHAKE_INITIATION_LEN, HANDSHAKE_RESPONSE_LEN};
use crate::sealing::seal_messages;
use crate::secret::on_wiped_stack;
use crate::sources::Sources;
use macs::Macs;
use noise::{Agreed, Pending, Remote};
use session::{REJECT_AFTER_TIME, Role, Session, Sessions};
use tai64n::Stamps;
use timers::{Due, JITTER_MAX, KEEPALIVE_TIMEOUT, REKEY_TIMEOUT, Timers};

pub(crate) use gate::{Admission, Gate};
pub(crate) use identity::Identity;
pub(crate) use noise::Claim;
pub use tai64n::Tai64n;

/// The interval at which a tunnel that is awake wants [`Tunnel::tick`]: timers are late by so much at most.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// A peer that sends on a session as old as this gets a new one in time, even if we send nothing: before it ends there
/// is still a passive keepalive and a handshake to come (paper, section 6.2).
const LAST_MINUTE: Duration =
    REJECT_AFTER_TIME.saturating_sub(KEEPALIVE_TIMEOUT.saturating_add(REKEY_TIMEOUT));

/// The sessions with one peer.
pub(crate) struct Tunnel {
    identity: Arc<Identity>,
    /// Apart, like all that holds keys: the list of peers is moved when it grows.
    remote: Box<Remote>,
    macs: Macs,
    /// 24 bits, which the receiver indices of all sessions begin with; the rest of the latest.
    index: u32,
    last_number: u8,
    pending: Option<Box<Pending>>,
    sessions: Sessions,
    timers: Timers,
    stamps: Stamps,
    /// The newest initiation that was taken, by this tunnel or by an earlier process.
    newest_initiation: Option<Tai64n>,
    /// The peer has sent data on a session that it had begun: it made that initiation while this tunnel existed.
    is_confirmed: bool,
}

/// The age of an initiation that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Newer than one that the peer has confirmed: made since then, and no recording from before.
    New,
    /// Newer than all that were taken, but this tunnel did not exist yet when an earlier one may have been recorded.
    Unproven,
}

/// The result of a tick.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tick {
    Nothing,
    /// Send the message of this length that was written.
    Send(usize),
    /// The peer does not answer: nothing more is tried until something is to be sent.
    GaveUp,
    /// Neither keys nor a handshake under way: no more ticks are needed until something happens.
    Asleep,
}

impl Tunnel {
    /// A tunnel with no session. `index` is 24 bits; the receiver indices of its sessions are `index << 8 | 0..256`.
    /// None for a peer whose public key has small order.
    pub(crate) fn new(identity: &Arc<Identity>, peer: &PublicKey, index: u32) -> Option<Self> {
        debug_assert!(index < 1 << 24);
        Some(Self {
            identity: Arc::clone(identity),
            remote: on_wiped_stack(|| Remote::new(identity, peer).map(Box::new))?,
            macs: Macs::new(peer),
            index,
            last_number: 0,
            pending: None,
            sessions: Sessions::default(),
            timers: Timers::default(),
            stamps: Stamps::default(),
            newest_initiation: None,
            is_confirmed: false,
        })
    }

    /// The newest initiation that was taken.
    pub(crate) fn newest_initiation(&self) -> Option<Tai64n> {
        self.newest_initiation
    }

    /// Takes no initiation from now on that is not newer than `taken`.
    pub(crate) fn set_newest_initiation(&mut self, taken: Tai64n) {
        self.newest_initiation = self.newest_initiation.max(Some(taken));
    }

    /// The key of the handshakes from now on. The session goes on.
    pub(crate) fn set_preshared_key(&mut self, key: Option<&PresharedKey>) {
        self.remote.set_preshared_key(key);
        self.timers.allow_handshake();
    }

    /// True if a packet can be sealed.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        let current = self.sessions.current();
        current.is_some_and(|session| session.may_send(now))
    }

    /// Writes `packet` as a data message that fills `out`, which is [`DATA_OVERHEAD_LEN`] longer, but for sealing it:
    /// that is for the caller to do, with this key and within the same turn. Empty is a keepalive.
    ///
    /// # Panics
    /// If the tunnel is not ready, or the lengths do not fit.
    pub(crate) fn next_message(
        &mut self,
        now: Instant,
        packet: &[u8],
        out: &mut [u8],
    ) -> &Arc<Key> {
        assert_eq!(out.len(), packet.len() + DATA_OVERHEAD_LEN);
        let session = self.sessions.current_mut().expect("the tunnel is ready");
        let (header, text) = out.split_first_chunk_mut().expect("there is room");
        session.write_header(header);
        text[..packet.len()].copy_from_slice(packet);
        self.timers.authenticated_sent();
        if !packet.is_empty() {
            self.timers.data_sent(now);
        }
        if session.is_worn(now) {
            self.timers.want_handshake(now);
        }
        session.sending_key()
    }

    /// The same, sealed.
    pub(crate) fn seal(&mut self, now: Instant, packet: &[u8], out: &mut [u8]) {
        let key = self.next_message(now, packet, out);
        seal_messages(key, out, out.len());
    }

    /// The key that opens data messages to `receiver_index`.
    ///
    /// # Errors
    /// [`Drop::UnknownSession`] if there is no such session or it is over.
    pub(crate) fn receiving_key(&self, now: Instant, receiver_index: u32) -> Result<&Key, Drop> {
        let session = self.sessions.get(receiver_index);
        session.ok_or(Drop::UnknownSession)?.receiving_key(now)
    }

    /// Takes a message that was opened with that key and held `text_len` bytes, zero for a keepalive. True if it is the
    /// first of a session that we had answered for, which completes the handshake on our side.
    ///
    /// # Errors
    /// [`Drop::Replay`] if a message with this counter was taken before, or is too old to tell.
    pub(crate) fn accept(
        &mut self,
        now: Instant,
        receiver_index: u32,
        counter: u64,
        text_len: usize,
    ) -> Result<bool, Drop> {
        let session = self.sessions.get_mut(receiver_index);
        session.ok_or(Drop::UnknownSession)?.note(counter)?;
        let completed = self.sessions.confirm(receiver_index);
        if completed {
            self.is_confirmed = true;
            self.end_handshake();
        }
        self.timers.authenticated_received();
        if text_len > 0 {
            self.timers.data_received(now);
        }
        let current = self.sessions.current();
        if current.is_some_and(|session| session.was_initiated_before(now, LAST_MINUTE)) {
            self.timers.want_handshake_in_time(now);
        }
        Ok(completed)
    }

    /// Asks for a session. True if an initiation was written; if not, it is not time for one, and one will follow.
    pub(crate) fn initiate(
        &mut self,
        now: Instant,
        sources: &mut Sources,
        out: &mut [u8; HANDSHAKE_INITIATION_LEN],
    ) -> bool {
        self.timers.want_handshake(now);
        let may_initiate = self.timers.may_initiate(now);
        if may_initiate {
            self.write_initiation(now, sources, out);
        }
        may_initiate
    }

    /// Answers an initiation whose sender claims to be this peer. A recording that is unproven leads to nothing: only
    /// the peer itself can confirm the session.
    ///
    /// # Errors
    /// [`Drop::BadHandshake`] if it is not the peer's, or not newer than all that were answered.
    pub(crate) fn respond(
        &mut self,
        now: Instant,
        sources: &mut Sources,
        claim: &Claim,
        datagram: &[u8],
        out: &mut [u8; HANDSHAKE_RESPONSE_LEN],
    ) -> Result<Freshness, Drop> {
        on_wiped_stack(|| {
            let proven = claim.prove(&self.remote, datagram)?;
            let stamp = Some(proven.timestamp);
            if stamp <= self.newest_initiation {
                return Err(Drop::BadHandshake);
            }
            let index = self.unused_index();
            let agreed = proven.respond(&self.remote, index, &sources.draw_secret(), out)?;
            self.newest_initiation = stamp;
            let session = Session::new(now, Role::Responder, index, &agreed);
            self.sessions.add_answered(session);
            Ok(())
        })?;
        self.macs.write(now, out);
        self.timers.authenticated_received();
        self.timers
            .response_sent(now, sources.draw_duration(JITTER_MAX));
        self.timers.session_derived(now);
        Ok(match self.is_confirmed {
            true => Freshness::New,
            false => Freshness::Unproven,
        })
    }

    /// Takes a response that was admitted: there is a session now, and the peer waits for the first message on it.
    ///
    /// # Errors
    /// [`Drop::BadHandshake`] if it answers nothing that we have asked, or does not authenticate.
    pub(crate) fn complete(&mut self, now: Instant, datagram: &[u8]) -> Result<(), Drop> {
        let message = datagram.try_into().map_err(|_| Drop::MalformedMessage)?;
        let pending = self.pending.as_ref().ok_or(Drop::BadHandshake)?;
        on_wiped_stack(|| {
            let agreed: Agreed = pending.complete(&self.identity, &self.remote, message)?;
            let session = Session::new(now, Role::Initiator, pending.index, &agreed);
            self.sessions.add_initiated(session);
            Ok(())
        })?;
        self.timers.authenticated_received();
        self.timers.session_derived(now);
        self.end_handshake();
        Ok(())
    }

    /// Keeps the cookie for the next handshake message. It proves nothing about where the peer is.
    pub(crate) fn cookie(&mut self, now: Instant, datagram: &[u8]) -> Result<(), Drop> {
        self.macs.take_cookie(now, datagram)
    }

    /// Lets time pass.
    pub(crate) fn tick(
        &mut self,
        now: Instant,
        sources: &mut Sources,
        out: &mut [u8; HANDSHAKE_INITIATION_LEN],
    ) -> Tick {
        match self.timers.poll(now) {
            Due::Handshake => {
                self.write_initiation(now, sources, out);
                Tick::Send(HANDSHAKE_INITIATION_LEN)
            }
            Due::Keepalive if self.is_ready(now) => {
                self.seal(now, &[], &mut out[..DATA_OVERHEAD_LEN]);
                Tick::Send(DATA_OVERHEAD_LEN)
            }
            Due::Keepalive => {
                self.timers.want_handshake(now);
                Tick::Nothing
            }
            Due::GiveUp => {
                self.pending = None;
                Tick::GaveUp
            }
            Due::Forget => {
                self.sessions.clear();
                Tick::Nothing
            }
            Due::Nothing if self.timers.are_at_rest() => Tick::Asleep,
            Due::Nothing => Tick::Nothing,
        }
    }

    fn write_initiation(
        &mut self,
        now: Instant,
        sources: &mut Sources,
        out: &mut [u8; HANDSHAKE_INITIATION_LEN],
    ) {
        let stamp = self.stamps.next((sources.unix_time)());
        let index = self.unused_index();
        self.pending = Some(on_wiped_stack(|| {
            let ephemeral = sources.draw_secret();
            let (identity, remote) = (&self.identity, &self.remote);
            let pending = Pending::initiate(identity, remote, index, ephemeral, stamp, out);
            Box::new(pending)
        }));
        self.macs.write(now, out);
        self.timers
            .initiation_sent(now, sources.draw_duration(JITTER_MAX));
    }

    fn end_handshake(&mut self) {
        self.pending = None;
        self.timers.handshake_ended();
    }

    /// Of the 256 at most four are in use.
    fn unused_index(&mut self) -> u32 {
        loop {
            self.last_number = self.last_number.wrapping_add(1);
            let index = self.index << 8 | u32::from(self.last_number);
            let is_pending = self.pending.as_ref().is_some_and(|it| it.index == index);
            if !is_pending && self.sessions.get(index).is_none() {
                return index;
            }
        }
    }
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}
