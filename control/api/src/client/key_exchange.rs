//! The cryptography of every TLS session, and its key exchange X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem): whoever
//! records a session today does not open it with a quantum computer later, unless X25519 *and* ML-KEM (FIPS 203) are
//! broken.
//!
//! ```text
//!   client ── encapsulation key (1,184 bytes), X25519 (32) ──▶ server
//!   client ◀─ ciphertext (1,088 bytes), X25519 (32) ───────── server
//!   secret: that of ML-KEM (32 bytes), and then that of X25519 (32)
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ml_kem::array::Array;
use ml_kem::kem::{Decapsulate as _, Encapsulate as _, Kem as _, KeyExport as _};
use ml_kem::{Ciphertext, DecapsulationKey, EncapsulationKey, MlKem768};
use rustls::crypto::{
    ActiveKeyExchange, CompletedKeyExchange, CryptoProvider, SharedSecret, SupportedKxGroup, ring,
};
use rustls::{Error, NamedGroup, PeerMisbehaved, ProtocolVersion};
use zeroize::Zeroizing;

use crate::response::KeyExchanges;

const ENCAPSULATION_KEY_LEN: usize = 1_184;
const CIPHERTEXT_LEN: usize = 1_088;
/// Of each of the two secrets.
const SECRET_LEN: usize = 32;

/// The cryptography of every TLS session. A side that lacks the hybrid key exchange gets X25519 alone, in the same
/// round trip: its share goes along.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        kx_groups: vec![&Hybrid, &X25519],
        ..ring::default_provider()
    })
}

/// X25519 alone, for whoever has nothing else.
static X25519: Classical = Classical(ring::kx_group::X25519);

/// Key exchanges of this process that were completed, with ML-KEM and without.
static WITH_ML_KEM: AtomicU64 = AtomicU64::new(0);
static WITHOUT: AtomicU64 = AtomicU64::new(0);

/// The key exchanges of this process so far.
pub fn key_exchanges() -> KeyExchanges {
    KeyExchanges {
        post_quantum: WITH_ML_KEM.load(Ordering::Relaxed),
        classical: WITHOUT.load(Ordering::Relaxed),
    }
}

/// A group whose key exchanges are counted as those of old.
#[derive(Debug)]
struct Classical(&'static dyn SupportedKxGroup);

impl SupportedKxGroup for Classical {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        self.0.start()
    }

    fn start_and_complete(&self, share: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let completed = self.0.start_and_complete(share)?;
        WITHOUT.fetch_add(1, Ordering::Relaxed);
        Ok(completed)
    }

    fn name(&self) -> NamedGroup {
        self.0.name()
    }
}

/// The group of both.
#[derive(Debug)]
struct Hybrid;

impl SupportedKxGroup for Hybrid {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let (secret, public) = MlKem768::generate_keypair();
        let x25519 = ring::kx_group::X25519.start()?;
        let mut share = public.to_bytes().to_vec();
        share.extend_from_slice(x25519.pub_key());
        Ok(Box::new(Started {
            secret,
            x25519,
            share,
        }))
    }

    fn start_and_complete(&self, share: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let (key, x25519) = split(share, ENCAPSULATION_KEY_LEN)?;
        let key = Array::try_from(key).map_err(|_| INVALID)?;
        let key = EncapsulationKey::<MlKem768>::new(&key).map_err(|_| INVALID)?;
        let (ciphertext, secret) = key.encapsulate();
        let secret = Zeroizing::new(<[u8; SECRET_LEN]>::from(secret));
        let x25519 = ring::kx_group::X25519.start_and_complete(x25519)?;
        WITH_ML_KEM.fetch_add(1, Ordering::Relaxed);
        let mut answer = ciphertext.to_vec();
        answer.extend_from_slice(&x25519.pub_key);
        Ok(CompletedKeyExchange {
            group: self.name(),
            pub_key: answer,
            secret: both(&secret, &x25519.secret),
        })
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}

/// What a client waits for the answer with.
struct Started {
    secret: DecapsulationKey<MlKem768>,
    x25519: Box<dyn ActiveKeyExchange>,
    share: Vec<u8>,
}

impl ActiveKeyExchange for Started {
    fn complete(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
        let (ciphertext, x25519) = split(share, CIPHERTEXT_LEN)?;
        let ciphertext = Ciphertext::<MlKem768>::try_from(ciphertext).map_err(|_| INVALID)?;
        let secret = self.secret.decapsulate(&ciphertext);
        let secret = Zeroizing::new(<[u8; SECRET_LEN]>::from(secret));
        let secret = both(&secret, &self.x25519.complete(x25519)?);
        WITH_ML_KEM.fetch_add(1, Ordering::Relaxed);
        Ok(secret)
    }

    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        Some((self.x25519.group(), self.x25519.pub_key()))
    }

    fn complete_hybrid_component(self: Box<Self>, share: &[u8]) -> Result<SharedSecret, Error> {
        let secret = self.x25519.complete(share)?;
        WITHOUT.fetch_add(1, Ordering::Relaxed);
        Ok(secret)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

const INVALID: Error = Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);

/// The part of ML-KEM, which has so many bytes, and that of X25519.
fn split(share: &[u8], len: usize) -> Result<(&[u8], &[u8]), Error> {
    share.split_at_checked(len).ok_or(INVALID)
}

fn both(ml_kem: &[u8; SECRET_LEN], x25519: &SharedSecret) -> SharedSecret {
    let mut secret = Zeroizing::new([0; 2 * SECRET_LEN]);
    let (first, second) = secret.split_at_mut(SECRET_LEN);
    first.copy_from_slice(ml_kem);
    second.copy_from_slice(x25519.secret_bytes());
    SharedSecret::from(&secret[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agree() -> (SharedSecret, SharedSecret) {
        let client = Hybrid.start().unwrap();
        assert_eq!(client.pub_key().len(), ENCAPSULATION_KEY_LEN + 32);
        let server = Hybrid.start_and_complete(client.pub_key()).unwrap();
        assert_eq!(server.pub_key.len(), CIPHERTEXT_LEN + 32);
        (client.complete(&server.pub_key).unwrap(), server.secret)
    }

    #[test]
    fn both_sides_get_to_one_secret_of_two_parts_each_time_another() {
        let (client, server) = agree();
        assert_eq!(client.secret_bytes(), server.secret_bytes());
        assert_eq!(client.secret_bytes().len(), 64);
        assert_ne!(client.secret_bytes(), agree().0.secret_bytes());
    }

    #[test]
    fn a_share_that_is_too_short_too_long_or_no_key_is_refused() {
        let client = Hybrid.start().unwrap();
        let share = client.pub_key().to_vec();
        let mut longer = share.clone();
        longer.push(0);
        let mut no_key = share.clone();
        // Coefficients beyond the modulus (FIPS 203, section 7.2).
        no_key[..ENCAPSULATION_KEY_LEN].fill(0xff);
        for share in [&[][..], &share[..share.len() - 1], &longer, &no_key] {
            assert!(Hybrid.start_and_complete(share).is_err());
        }
        let answer = Hybrid.start_and_complete(&share).unwrap().pub_key;
        for answer in [&[][..], &answer[..answer.len() - 1]] {
            assert!(Hybrid.start().unwrap().complete(answer).is_err());
        }
        // ML-KEM rejects in silence: the secret is another one, and the handshake fails.
        let client = Hybrid.start().unwrap();
        let mut server = Hybrid.start_and_complete(client.pub_key()).unwrap();
        server.pub_key[0] ^= 1;
        let secret = client.complete(&server.pub_key).unwrap();
        assert_ne!(secret.secret_bytes(), server.secret.secret_bytes());
    }

    #[test]
    fn x25519_alone_is_offered_along_and_completed_alone() {
        let client = Hybrid.start().unwrap();
        let (group, share) = client.hybrid_component().unwrap();
        assert_eq!(group, NamedGroup::X25519);
        let server = ring::kx_group::X25519.start_and_complete(share).unwrap();
        let secret = client.complete_hybrid_component(&server.pub_key).unwrap();
        assert_eq!(secret.secret_bytes(), server.secret.secret_bytes());
        let groups = &provider().kx_groups;
        let groups: Vec<_> = groups.iter().map(|it| it.name()).collect();
        assert_eq!(groups, [NamedGroup::X25519MLKEM768, NamedGroup::X25519]);
    }
}
