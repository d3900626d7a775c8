//! The keyed hash of both MACs at the end of a handshake message, and the keys that follow from the receiver's public
//! key (paper, sections 5.4.4 and 5.4.7).

use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac as _};

use crate::key::PublicKey;
use crate::tunnel::transcript::{Bytes32, hash};

const LABEL_MAC1: &[u8] = b"mac1----";
const LABEL_COOKIE: &[u8] = b"cookie--";

/// Length of a MAC, and of a cookie, in bytes.
pub(super) const MAC_LEN: usize = 16;

/// A MAC, or a cookie, which is one.
pub(super) type MacBytes = [u8; MAC_LEN];

/// The key of the first MAC of messages to `receiver`.
pub(super) fn mac1_key(receiver: &PublicKey) -> Bytes32 {
    hash(&[LABEL_MAC1, receiver.as_bytes()])
}

/// The key that `giver` seals its cookies with.
pub(super) fn cookie_key(giver: &PublicKey) -> Bytes32 {
    hash(&[LABEL_COOKIE, giver.as_bytes()])
}

/// The paper's `Mac`: BLAKE2s with a key of at most 32 bytes.
pub(super) fn mac(key: &[u8], parts: &[&[u8]]) -> MacBytes {
    keyed(key, parts).finalize().into_bytes().into()
}

/// True if `claimed` is the MAC, found out in constant time.
pub(super) fn is_mac(key: &[u8], parts: &[&[u8]], claimed: &MacBytes) -> bool {
    keyed(key, parts).verify(claimed.into()).is_ok()
}

fn keyed(key: &[u8], parts: &[&[u8]]) -> Blake2sMac<U16> {
    let mut mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(key).expect("at most 32 bytes");
    for part in parts {
        mac.update(part);
    }
    mac
}
