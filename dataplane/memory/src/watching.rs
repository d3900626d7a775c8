//! An allocator that looks for secrets in what is freed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Words of all secrets of a watch.
const WORDS_MAX: usize = 256;
const WORD_LEN: usize = size_of::<u64>();

/// The words, each inverted, so that this memory holds no secret. Zero is none: it would be a word of all ones.
static WORDS: [AtomicU64; WORDS_MAX] = [const { AtomicU64::new(0) }; WORDS_MAX];
static WORDS_LEN: AtomicUsize = AtomicUsize::new(0);
static FOUND: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// One watch at a time.
static TURN: Mutex<()> = Mutex::new(());

thread_local! {
    /// True while this thread writes a finding down, which frees memory as well.
    static IS_AT_WORK: Cell<bool> = const { Cell::new(false) };
}

/// Looks for the secrets of a [`Watch`] in every block that is freed. For tests: a block that is freed during a watch
/// is read byte by byte.
#[derive(Debug)]
pub struct Watching<A = System>(A);

impl Watching {
    /// On top of the system's allocator.
    pub const fn new() -> Self {
        Self(System)
    }
}

impl Default for Watching {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: blocks come from the inner allocator and go back to it with the layout that they were asked for with.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Watching<A> {
    /// All blocks begin with zeros: what is found was written by their owner, and every byte may be read.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the one that the inner allocator asks for.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if WORDS_LEN.load(Ordering::Acquire) > 0 {
            // SAFETY: the caller gives up a block of this size, and it began with zeros.
            let block = unsafe { std::slice::from_raw_parts(memory, layout.size()) };
            inspect(block);
        }
        // SAFETY: the caller's promise is the one that the inner allocator asks for.
        unsafe { self.0.dealloc(memory, layout) }
    }
}

/// Secrets that are looked for until it is dropped. The program's allocator has to be [`Watching`].
#[derive(Debug)]
pub struct Watch {
    _turn: MutexGuard<'static, ()>,
}

impl Watch {
    /// Looks for any eight bytes that stand at a multiple of eight in one of these secrets.
    ///
    /// # Panics
    /// If there are too many, or one is too short to tell from chance.
    pub fn begin(secrets: &[&[u8]]) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        found().clear();
        let mut len = 0;
        for secret in secrets {
            assert!(secret.len() >= 2 * WORD_LEN, "a secret of so few bytes");
            let (words, _) = secret.as_chunks();
            for word in words {
                WORDS[len].store(!u64::from_ne_bytes(*word), Ordering::Relaxed);
                len += 1;
            }
        }
        WORDS_LEN.store(len, Ordering::Release);
        Self { _turn: turn }
    }

    /// The blocks in which a secret was found so far, each with where it was freed.
    pub fn found(&self) -> Vec<String> {
        found().clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        WORDS_LEN.store(0, Ordering::Release);
        for word in &WORDS {
            word.store(0, Ordering::Relaxed);
        }
    }
}

fn found() -> MutexGuard<'static, Vec<String>> {
    FOUND.lock().unwrap_or_else(PoisonError::into_inner)
}

fn inspect(block: &[u8]) {
    let words = &WORDS[..WORDS_LEN.load(Ordering::Acquire)];
    let is_secret = |window: &[u8]| {
        let word = window.try_into().map(|it| !u64::from_ne_bytes(it));
        word.is_ok_and(|word| words.iter().any(|it| it.load(Ordering::Relaxed) == word))
    };
    let Some(at) = block.windows(WORD_LEN).position(is_secret) else {
        return;
    };
    if IS_AT_WORK.replace(true) {
        return;
    }
    let trace = Backtrace::force_capture();
    found().push(format!("{} bytes, at {at}:\n{trace}", block.len()));
    IS_AT_WORK.set(false);
}
