//! Memory that is wiped when its owner is dropped.
//!
//! # Safety
//! The value is initialised from its making to its end, and its memory is all that is written when it is dropped.
#![expect(unsafe_code, reason = "the memory of another library's key is wiped")]

use std::mem::{MaybeUninit, needs_drop};
use std::ops::Deref;
use std::sync::atomic::{Ordering, compiler_fence};

/// A value of which every byte is wiped when it is dropped: those that other libraries do not wipe, and the padding,
/// into which a move takes what was on the stack before. Where it was moved from, a copy remains: it belongs where it
/// stays.
pub(crate) struct Wiped<T>(MaybeUninit<T>);

impl<T> Wiped<T> {
    const WORDS: usize = size_of::<T>() / size_of::<u64>();
    /// Whole words, and nothing is left undone when only its memory ends.
    const IS_PLAIN: () = {
        assert!(size_of::<T>().is_multiple_of(size_of::<u64>()));
        assert!(align_of::<T>() >= align_of::<u64>());
        assert!(!needs_drop::<T>());
    };

    pub(crate) const fn new(value: T) -> Self {
        let () = Self::IS_PLAIN;
        Self(MaybeUninit::new(value))
    }
}

impl<T> Deref for Wiped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: it was initialised by `new`, and only `drop` changes that.
        unsafe { self.0.assume_init_ref() }
    }
}

impl<T> Drop for Wiped<T> {
    fn drop(&mut self) {
        let words: *mut u64 = self.0.as_mut_ptr().cast();
        for at in 0..Self::WORDS {
            // SAFETY: the value has so many words.
            let word = unsafe { words.add(at) };
            // SAFETY: the value is ours, it is aligned as a word is, and nothing reads it as a value any more.
            unsafe { word.write_volatile(0) };
        }
        compiler_fence(Ordering::SeqCst);
    }
}
