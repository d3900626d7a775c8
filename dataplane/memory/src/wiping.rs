//! An allocator that wipes what is freed.

use std::alloc::{GlobalAlloc, Layout, System};

/// Fills every block with zeros before it is free. On the way of a packet nothing is freed, so it costs nothing there.
///
/// A block that grows or shrinks is copied and wiped: the default `realloc` of [`GlobalAlloc`] does that, where that of
/// the system would leave the former block as it was.
#[derive(Debug)]
pub struct Wiping<A = System>(A);

impl Wiping {
    /// On top of the system's allocator.
    pub const fn new() -> Self {
        Self(System)
    }
}

impl Default for Wiping {
    fn default() -> Self {
        Self::new()
    }
}

impl<A> Wiping<A> {
    /// On top of another one.
    pub const fn over(inner: A) -> Self {
        Self(inner)
    }
}

// SAFETY: blocks come from the inner allocator and go back to it with the layout that they were asked for with.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Wiping<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is the one that the inner allocator asks for.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller gives up a block of this size, which nothing else refers to.
        unsafe { wipe(memory, layout.size()) };
        // SAFETY: the caller's promise is the one that the inner allocator asks for.
        unsafe { self.0.dealloc(memory, layout) }
    }
}

/// Zeros that the compiler does not leave out, although nothing reads them: it has to believe that the assembly does.
///
/// # Safety
/// `memory` is the start of `len` bytes that may be written.
pub(crate) unsafe fn wipe(memory: *mut u8, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { memory.write_bytes(0, len) };
    // SAFETY: it is empty.
    unsafe { std::arch::asm!("/* {0} */", in(reg) memory, options(nostack, preserves_flags)) };
}
