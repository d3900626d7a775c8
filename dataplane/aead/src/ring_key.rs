//! ring's key, which ring does not wipe.
//!
//! # Safety
//! The key is initialised from its making to its end, and its memory is all that is written when it is dropped.
#![expect(unsafe_code, reason = "the memory of another library's key is wiped")]

use std::mem::{MaybeUninit, needs_drop};
use std::ops::Deref;
use std::sync::atomic::{Ordering, compiler_fence};

use ring::aead::{CHACHA20_POLY1305, LessSafeKey, UnboundKey};

use crate::message::KEY_LEN;

const WORDS: usize = size_of::<LessSafeKey>() / size_of::<u64>();

// Whole words, and nothing is left undone when only its memory ends.
const _: () = assert!(size_of::<LessSafeKey>().is_multiple_of(size_of::<u64>()));
const _: () = assert!(align_of::<LessSafeKey>() >= align_of::<u64>());
const _: () = assert!(!needs_drop::<LessSafeKey>());

/// A key that is wiped when it is dropped. Where it was moved from, a copy remains: it belongs where it stays.
pub(crate) struct RingKey(MaybeUninit<LessSafeKey>);

impl RingKey {
    pub(crate) fn new(bytes: &[u8; KEY_LEN]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, bytes).expect("the length is right");
        Self(MaybeUninit::new(LessSafeKey::new(key)))
    }
}

impl Deref for RingKey {
    type Target = LessSafeKey;

    fn deref(&self) -> &LessSafeKey {
        // SAFETY: it was initialised by `new`, and only `drop` changes that.
        unsafe { self.0.assume_init_ref() }
    }
}

impl Drop for RingKey {
    fn drop(&mut self) {
        let words: *mut u64 = self.0.as_mut_ptr().cast();
        for at in 0..WORDS {
            // SAFETY: the key has so many words.
            let word = unsafe { words.add(at) };
            // SAFETY: the key is ours, it is aligned as a word is, and nothing reads it as a key any more.
            unsafe { word.write_volatile(0) };
        }
        compiler_fence(Ordering::SeqCst);
    }
}
