//! ChaCha20-Poly1305 (RFC 8439) as WireGuard uses it: no associated data, a nonce of 32 zero bits and a 64-bit counter
//! (paper, section 5.4.6). A [`Key`] takes many messages in one call.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod key;
mod message;
mod wiped;

pub use key::Key;
pub use message::{Authentic, GROUP_LEN_MAX, KEY_LEN, Message, TAG_LEN};

#[cfg(test)]
mod tests;
