//! The three kinds of 32-byte keys, which must not be confused.
//!
//! Secret keys are wiped on drop, are not `Clone`, and never show themselves in `Debug`. They stay in one place however
//! they are moved; a copy is made knowingly, with `copy`.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use x25519_dalek as x25519;
use zeroize::{Zeroize, Zeroizing};

pub use crate::secret::KEY_LEN;
use crate::secret::{SecretBytes, on_wiped_stack};

/// A key that could not be read from text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is 32 bytes, written as 64 hexadecimal digits or 44 characters of base64")]
pub struct InvalidKey;

/// A peer's Curve25519 public key, which is also its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_LEN]);

impl PublicKey {
    /// The key with these bytes; every 32 bytes are a public key.
    pub const fn from_bytes(bytes: [u8; KEY_LEN]) -> Self {
        Self(bytes)
    }

    /// Reads 64 hexadecimal digits, the form of the userspace protocol.
    ///
    /// # Errors
    /// [`InvalidKey`] for any other text.
    pub fn from_hex(text: &str) -> Result<Self, InvalidKey> {
        let mut bytes = [0; KEY_LEN];
        decode_hex(text, &mut bytes)?;
        Ok(Self(bytes))
    }

    /// Reads base64, the form of `wg` and its files.
    ///
    /// # Errors
    /// [`InvalidKey`] for any other text.
    pub fn from_base64(text: &str) -> Result<Self, InvalidKey> {
        let mut bytes = [0; KEY_LEN];
        decode_base64(text, &mut bytes)?;
        Ok(Self(bytes))
    }

    /// The 32 bytes, little-endian u-coordinate (RFC 7748).
    pub const fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// True for the points whose shared secret is zero with every private key (RFC 7748, section 6.1): no handshake
    /// with them means anything, so none is sent or answered.
    pub fn is_low_order(&self) -> bool {
        // The top bit is ignored by X25519, so both spellings of a point are the same point.
        let mut canonical = self.0;
        canonical[KEY_LEN - 1] &= 0x7f;
        LOW_ORDER_POINTS.contains(&canonical)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Our own Curve25519 private key.
pub struct PrivateKey(SecretBytes);

impl PrivateKey {
    /// Takes 32 random bytes and clamps them (RFC 7748, section 5), so that what is read back is what is used.
    pub fn from_bytes(mut bytes: [u8; KEY_LEN]) -> Self {
        let key = Self::clamped(SecretBytes::copy_of(&bytes));
        bytes.zeroize();
        key
    }

    /// Reads 64 hexadecimal digits; all zero means "no key".
    ///
    /// # Errors
    /// [`InvalidKey`] for any other text.
    pub fn from_hex(text: &str) -> Result<Option<Self>, InvalidKey> {
        let mut bytes = SecretBytes::zero();
        decode_hex(text, &mut bytes)?;
        Ok((*bytes != [0; KEY_LEN]).then(|| Self::clamped(bytes)))
    }

    /// Reads base64.
    ///
    /// # Errors
    /// [`InvalidKey`] for any other text.
    pub fn from_base64(text: &str) -> Result<Option<Self>, InvalidKey> {
        let mut bytes = SecretBytes::zero();
        decode_base64(text, &mut bytes)?;
        Ok((*bytes != [0; KEY_LEN]).then(|| Self::clamped(bytes)))
    }

    /// Another one of the same.
    pub fn copy(&self) -> Self {
        Self(self.0.clone())
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        on_wiped_stack(|| {
            PublicKey(x25519::PublicKey::from(&x25519::StaticSecret::from(*self.0)).to_bytes())
        })
    }

    /// The secret that this key and another one's public half share (RFC 7748, section 6.1); none if that is of low
    /// order, for then everybody knows it.
    pub fn agree(&self, other: &PublicKey) -> Option<Zeroizing<[u8; KEY_LEN]>> {
        on_wiped_stack(|| {
            let secret = x25519::StaticSecret::from(*self.0);
            let shared = secret.diffie_hellman(&x25519::PublicKey::from(other.0));
            shared
                .was_contributory()
                .then(|| Zeroizing::new(shared.to_bytes()))
        })
    }

    /// The secret itself.
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    fn clamped(mut bytes: SecretBytes) -> Self {
        bytes[0] &= 248;
        bytes[31] = (bytes[31] & 127) | 64;
        Self(bytes)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {})", self.public_key())
    }
}

/// The optional symmetric key mixed into the handshake.
pub struct PresharedKey(SecretBytes);

impl PresharedKey {
    /// Takes the 32 bytes; all zero means "no key" and is `None`.
    pub fn from_bytes(mut bytes: [u8; KEY_LEN]) -> Option<Self> {
        let key = Self::unless_zero(SecretBytes::copy_of(&bytes));
        bytes.zeroize();
        key
    }

    /// Reads 64 hexadecimal digits; all zero means "no key".
    ///
    /// # Errors
    /// [`InvalidKey`] for any other text.
    pub fn from_hex(text: &str) -> Result<Option<Self>, InvalidKey> {
        let mut bytes = SecretBytes::zero();
        decode_hex(text, &mut bytes)?;
        Ok(Self::unless_zero(bytes))
    }

    /// Reads base64; all zero means "no key".
    ///
    /// # Errors
    /// [`InvalidKey`] for any other text.
    pub fn from_base64(text: &str) -> Result<Option<Self>, InvalidKey> {
        let mut bytes = SecretBytes::zero();
        decode_base64(text, &mut bytes)?;
        Ok(Self::unless_zero(bytes))
    }

    /// Another one of the same.
    pub fn copy(&self) -> Self {
        Self(self.0.clone())
    }

    /// The secret itself.
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    fn unless_zero(bytes: SecretBytes) -> Option<Self> {
        (*bytes != [0; KEY_LEN]).then_some(Self(bytes))
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(..)")
    }
}

fn decode_hex(text: &str, bytes: &mut [u8; KEY_LEN]) -> Result<(), InvalidKey> {
    hex::decode_to_slice(text, bytes).map_err(|_| InvalidKey)
}

fn decode_base64(text: &str, bytes: &mut [u8; KEY_LEN]) -> Result<(), InvalidKey> {
    // 44 characters without padding could be a byte more, for which there has to be room.
    let mut decoded = Zeroizing::new([0; KEY_LEN + 1]);
    match BASE64.decode_slice(text, &mut *decoded) {
        Ok(KEY_LEN) => {
            bytes.copy_from_slice(&decoded[..KEY_LEN]);
            Ok(())
        }
        Ok(_) | Err(_) => Err(InvalidKey),
    }
}

/// The points of small order and their non-canonical spellings (<https://cr.yp.to/ecdh.html#validate>).
const LOW_ORDER_POINTS: [[u8; KEY_LEN]; 7] = [
    [0; KEY_LEN],
    little_endian_one(),
    [
        0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4,
        0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49,
        0xb8, 0x00,
    ],
    [
        0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef,
        0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f,
        0x11, 0x57,
    ],
    near_field_prime(0xec),
    near_field_prime(0xed),
    near_field_prime(0xee),
];

const fn little_endian_one() -> [u8; KEY_LEN] {
    let mut bytes = [0; KEY_LEN];
    bytes[0] = 1;
    bytes
}

/// 2^255 - 19 is `ed ff .. ff 7f`; its neighbours are spellings of -1, 0 and 1.
const fn near_field_prime(lowest: u8) -> [u8; KEY_LEN] {
    let mut bytes = [0xff; KEY_LEN];
    bytes[0] = lowest;
    bytes[KEY_LEN - 1] = 0x7f;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_point_has_no_contribution() {
        let secret = x25519::StaticSecret::from([7; KEY_LEN]);
        for point in LOW_ORDER_POINTS {
            let shared = secret.diffie_hellman(&x25519::PublicKey::from(point));
            assert!(!shared.was_contributory(), "{point:02x?}");
            assert!(PublicKey::from_bytes(point).is_low_order());
            let mut high_bit = point;
            high_bit[31] |= 0x80;
            assert!(PublicKey::from_bytes(high_bit).is_low_order());
        }
        assert!(
            !PrivateKey::from_bytes([7; KEY_LEN])
                .public_key()
                .is_low_order()
        );
    }

    #[test]
    fn private_keys_are_clamped_on_entry() {
        let key = PrivateKey::from_bytes([0xff; KEY_LEN]);
        assert_eq!(key.expose()[0], 0xf8);
        assert_eq!(key.expose()[31], 0x7f);
    }

    #[test]
    fn debug_never_shows_a_secret() {
        let key = PrivateKey::from_bytes([0xab; KEY_LEN]);
        assert!(!format!("{key:?}").contains("ababab"));
        let psk = PresharedKey::from_bytes([0xab; KEY_LEN]).unwrap();
        assert_eq!(format!("{psk:?}"), "PresharedKey(..)");
    }

    #[test]
    fn text_forms_round_trip_and_refuse_what_is_not_a_key() {
        let public = PrivateKey::from_bytes([3; KEY_LEN]).public_key();
        assert_eq!(PublicKey::from_hex(&public.to_hex()), Ok(public));
        assert_eq!(PublicKey::from_base64(&public.to_string()), Ok(public));
        assert_eq!(PublicKey::from_hex("zz"), Err(InvalidKey));
        assert_eq!(PublicKey::from_base64("AAAA"), Err(InvalidKey));
        assert!(PresharedKey::from_hex(&"0".repeat(64)).unwrap().is_none());
        assert!(PrivateKey::from_hex(&"0".repeat(64)).unwrap().is_none());
    }
}
