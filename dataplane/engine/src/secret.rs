//! Secrets in memory: in one place while they are needed, and nowhere afterwards.

use std::hint::black_box;
use std::ops::{Deref, DerefMut};

use zeroize::Zeroize;

/// Length of every key in bytes.
pub const KEY_LEN: usize = 32;

/// A key on the heap: what holds it can be moved, into a longer list or another thread, and leaves no copy behind. It
/// is wiped when it is dropped.
pub(crate) struct SecretBytes(Box<[u8; KEY_LEN]>);

impl SecretBytes {
    /// Zeros, to be filled.
    pub(crate) fn zero() -> Self {
        Self(Box::new([0; KEY_LEN]))
    }

    /// A copy, which its owner wiped or will wipe.
    pub(crate) fn copy_of(bytes: &[u8; KEY_LEN]) -> Self {
        let mut copy = Self::zero();
        copy.copy_from_slice(bytes);
        copy
    }
}

impl Deref for SecretBytes {
    type Target = [u8; KEY_LEN];

    fn deref(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl DerefMut for SecretBytes {
    fn deref_mut(&mut self) -> &mut [u8; KEY_LEN] {
        &mut self.0
    }
}

impl Clone for SecretBytes {
    fn clone(&self) -> Self {
        Self::copy_of(self)
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretBytes(..)")
    }
}

/// Does work whose functions leave secrets in the frames that they return from: hashes, curves and ciphers of libraries
/// wipe what they own and not what they computed with. What `work` returns must hold no secret but on the heap.
pub(crate) fn on_wiped_stack<T>(work: impl FnOnce() -> T) -> T {
    let result = in_a_frame_below(work);
    wipe_stack();
    result
}

#[inline(never)]
fn in_a_frame_below<T>(work: impl FnOnce() -> T) -> T {
    work()
}

/// Bytes of stack that are filled: more than twice what the functions of a handshake use without optimisation, by
/// `a_handshake_leaves_nothing_on_the_stack`. Four times for both ends of a handshake, which takes 365 us: less of that
/// than can be measured.
const STACK_LEN: usize = 16 << 10;

/// Fills the stack below its caller, where the frames of `work` were.
#[inline(never)]
fn wipe_stack() {
    let mut below = [0_u64; STACK_LEN / size_of::<u64>()];
    black_box(&mut below);
}
