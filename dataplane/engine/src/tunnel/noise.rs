//! The two messages of a handshake, `Noise_IKpsk2` (paper, section 5.4): what is in them and what follows from them.
//! Nothing is kept here, and randomness and time are passed in.

use x25519_dalek::{PublicKey as Point, SharedSecret, StaticSecret};
use zeroize::Zeroizing;

use crate::drops::Drop;
use crate::key::{KEY_LEN, PresharedKey, PublicKey};
use crate::message::{HANDSHAKE_INITIATION_LEN, HANDSHAKE_RESPONSE_LEN};
use crate::secret::{SecretBytes, on_wiped_stack};
use crate::tunnel::identity::Identity;
use crate::tunnel::tai64n::Tai64n;
use crate::tunnel::transcript::{Bytes32, Transcript, agree};

/// Where the fields of an initiation end, without its MACs.
mod initiation {
    pub(super) const EPHEMERAL: std::ops::Range<usize> = 8..40;
    pub(super) const STATIC: std::ops::Range<usize> = 40..88;
    pub(super) const TIMESTAMP: std::ops::Range<usize> = 88..116;
}

/// And those of a response.
mod response {
    pub(super) const RECEIVER: std::ops::Range<usize> = 8..12;
    pub(super) const EPHEMERAL: std::ops::Range<usize> = 12..44;
    pub(super) const NOTHING: std::ops::Range<usize> = 44..60;
}

/// What never changes about one peer, but for the preshared key.
pub(super) struct Remote {
    point: Point,
    /// Of our static key and the peer's: part of every handshake.
    static_secret: SharedSecret,
    preshared_key: SecretBytes,
}

impl Remote {
    /// None if the key has small order: no handshake with it means anything.
    pub(super) fn new(identity: &Identity, peer: &PublicKey) -> Option<Self> {
        let point = Point::from(*peer.as_bytes());
        Some(Self {
            static_secret: agree(identity.secret(), &point).ok()?,
            preshared_key: SecretBytes::zero(),
            point,
        })
    }

    /// The key of the next handshake; without one it is zeros.
    pub(super) fn set_preshared_key(&mut self, key: Option<&PresharedKey>) {
        *self.preshared_key = *key.map_or(&[0; KEY_LEN], PresharedKey::expose);
    }
}

/// What a handshake ends in.
pub(super) struct Agreed {
    /// Under which the peer knows the session.
    pub(super) peer_index: u32,
    pub(super) sending: Zeroizing<Bytes32>,
    pub(super) receiving: Zeroizing<Bytes32>,
}

/// An initiation of ours that has no response yet.
pub(super) struct Pending {
    pub(super) index: u32,
    ephemeral: StaticSecret,
    transcript: Transcript,
}

impl Pending {
    /// Writes an initiation.
    pub(super) fn initiate(
        identity: &Identity,
        remote: &Remote,
        index: u32,
        ephemeral: StaticSecret,
        timestamp: Tai64n,
        message: &mut [u8; HANDSHAKE_INITIATION_LEN],
    ) -> Self {
        let public = Point::from(&ephemeral);
        message[..4].copy_from_slice(&[1, 0, 0, 0]);
        message[4..8].copy_from_slice(&index.to_le_bytes());
        message[initiation::EPHEMERAL].copy_from_slice(public.as_bytes());

        let mut transcript = Transcript::new(remote.point.as_bytes());
        transcript.mix_ephemeral(public.as_bytes());
        let key = transcript.derive_key(&ephemeral.diffie_hellman(&remote.point));
        let own = identity.public_key();
        transcript.seal(&key, own.as_bytes(), &mut message[initiation::STATIC]);
        let key = transcript.derive_key(&remote.static_secret);
        let time = timestamp.as_bytes();
        transcript.seal(&key, time, &mut message[initiation::TIMESTAMP]);
        Self {
            index,
            ephemeral,
            transcript,
        }
    }

    /// Reads the response.
    pub(super) fn complete(
        &self,
        identity: &Identity,
        remote: &Remote,
        message: &[u8; HANDSHAKE_RESPONSE_LEN],
    ) -> Result<Agreed, Drop> {
        if message[response::RECEIVER] != self.index.to_le_bytes() {
            return Err(Drop::BadHandshake);
        }
        let theirs = point(&message[response::EPHEMERAL]);
        let mut transcript = self.transcript.clone();
        transcript.mix_ephemeral(theirs.as_bytes());
        transcript.mix_secret(&agree(&self.ephemeral, &theirs)?);
        transcript.mix_secret(&agree(identity.secret(), &theirs)?);
        let key = transcript.mix_preshared_key(&remote.preshared_key);
        let [] = transcript.open(&key, &message[response::NOTHING])?;
        let [sending, receiving] = &*transcript.split();
        Ok(Agreed {
            peer_index: sender(message),
            sending: Zeroizing::new(*sending),
            receiving: Zeroizing::new(*receiving),
        })
    }
}

/// Somebody says in an initiation who he is. He knows our public key, and has proved nothing yet.
pub(crate) struct Claim {
    initiator: PublicKey,
    transcript: Transcript,
}

impl Claim {
    /// Reads whose the initiation is, which costs one scalar multiplication.
    pub(crate) fn read(identity: &Identity, datagram: &[u8]) -> Result<Self, Drop> {
        on_wiped_stack(|| Self::read_in_place(identity, datagram))
    }

    fn read_in_place(identity: &Identity, datagram: &[u8]) -> Result<Self, Drop> {
        let message = initiation_message(datagram)?;
        let ephemeral = point(&message[initiation::EPHEMERAL]);
        let mut transcript = Transcript::new(identity.public_key().as_bytes());
        transcript.mix_ephemeral(ephemeral.as_bytes());
        let key = transcript.derive_key(&agree(identity.secret(), &ephemeral)?);
        let initiator = transcript.open(&key, &message[initiation::STATIC])?;
        Ok(Self {
            initiator: PublicKey::from_bytes(initiator),
            transcript,
        })
    }

    pub(crate) fn initiator(&self) -> PublicKey {
        self.initiator
    }

    /// Reads the rest of the same initiation. It is from `remote`, who made it at the time that it says, or a copy of
    /// that.
    pub(super) fn prove(&self, remote: &Remote, datagram: &[u8]) -> Result<Proven, Drop> {
        let message = initiation_message(datagram)?;
        let mut transcript = self.transcript.clone();
        let key = transcript.derive_key(&remote.static_secret);
        let timestamp = transcript.open(&key, &message[initiation::TIMESTAMP])?;
        Ok(Proven {
            timestamp: Tai64n::from_bytes(timestamp),
            peer_index: sender(message),
            ephemeral: point(&message[initiation::EPHEMERAL]),
            transcript,
        })
    }
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Claim(of {})", self.initiator)
    }
}

/// An initiation that is the peer's.
pub(super) struct Proven {
    pub(super) timestamp: Tai64n,
    peer_index: u32,
    ephemeral: Point,
    transcript: Transcript,
}

impl Proven {
    /// Writes the response.
    pub(super) fn respond(
        self,
        remote: &Remote,
        index: u32,
        ephemeral: &StaticSecret,
        message: &mut [u8; HANDSHAKE_RESPONSE_LEN],
    ) -> Result<Agreed, Drop> {
        let public = Point::from(ephemeral);
        message[..4].copy_from_slice(&[2, 0, 0, 0]);
        message[4..8].copy_from_slice(&index.to_le_bytes());
        message[response::RECEIVER].copy_from_slice(&self.peer_index.to_le_bytes());
        message[response::EPHEMERAL].copy_from_slice(public.as_bytes());

        let mut transcript = self.transcript;
        transcript.mix_ephemeral(public.as_bytes());
        transcript.mix_secret(&agree(ephemeral, &self.ephemeral)?);
        transcript.mix_secret(&agree(ephemeral, &remote.point)?);
        let key = transcript.mix_preshared_key(&remote.preshared_key);
        transcript.seal(&key, &[], &mut message[response::NOTHING]);
        let [receiving, sending] = &*transcript.split();
        Ok(Agreed {
            peer_index: self.peer_index,
            sending: Zeroizing::new(*sending),
            receiving: Zeroizing::new(*receiving),
        })
    }
}

fn initiation_message(datagram: &[u8]) -> Result<&[u8; HANDSHAKE_INITIATION_LEN], Drop> {
    datagram.try_into().map_err(|_| Drop::MalformedMessage)
}

fn point(field: &[u8]) -> Point {
    Point::from(<Bytes32>::try_from(field).expect("the field of a key has its length"))
}

fn sender<const LEN: usize>(message: &[u8; LEN]) -> u32 {
    u32::from_le_bytes([message[4], message[5], message[6], message[7]])
}

#[cfg(test)]
pub(super) mod tests;
