//! Memory that is lent to the kernel, buffer by buffer.
//!
//! # Safety
//!
//! The kernel writes into a buffer only between [`ProvidedBuffers::lend`] and the completion that names it, and picks
//! from the ring only while operations are outstanding. The owner ([`super::ring`]) touches a buffer only outside that
//! time, and drops or leaks the whole after the last completion.
#![expect(unsafe_code, reason = "memory that is shared with the kernel")]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use super::depth::Depth;

/// Buffers of one length that the kernel picks from (io_uring_register_buf_ring(3)).
pub(crate) struct ProvidedBuffers {
    entries: NonNull<BufRingEntry>,
    entries_layout: Layout,
    memory: NonNull<u8>,
    memory_layout: Layout,
    buffer_len: usize,
    count: u16,
    tail: u16,
    depth: Depth,
    /// How many the kernel has.
    lent: u16,
    /// Ours and idle. Used last in, first out: the one on top is in the cache.
    spare: Vec<u16>,
    leaked: bool,
}

impl ProvidedBuffers {
    /// Allocates `count` buffers, a power of two, and registers them as a group.
    pub(crate) fn register(
        ring: &IoUring,
        group: u16,
        count: u16,
        buffer_len: usize,
    ) -> io::Result<Self> {
        assert!(count.is_power_of_two());
        /// The kernel wants the entries at the start of a page.
        const PAGE_LEN: usize = 4096;
        /// No more than the allocator gives anyway: only then does it leave zeroing, and so the page, to the first use.
        const MEMORY_ALIGN: usize = 16;
        let layout = |len: usize, align: usize| {
            Layout::from_size_align(len, align)
                .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))
        };
        let entries_len = usize::from(count) * size_of::<BufRingEntry>();
        let entries_layout = layout(entries_len, PAGE_LEN)?;
        let memory_layout = layout(usize::from(count) * buffer_len, MEMORY_ALIGN)?;
        let mut buffers = Self {
            entries: allocate(entries_layout).cast(),
            entries_layout,
            memory: allocate(memory_layout),
            memory_layout,
            buffer_len,
            count,
            tail: 0,
            depth: Depth::new(count),
            lent: 0,
            spare: (0..count).rev().collect(),
            leaked: false,
        };
        let address = buffers.entries.as_ptr() as u64;
        // SAFETY: the entries are page-aligned, zeroed, `count` long, and are freed after the ring or leaked.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(address, count, group, 0)
        }?;
        buffers.top_up();
        Ok(buffers)
    }

    /// The bytes of a buffer that is ours.
    pub(crate) fn buffer(&mut self, index: u16) -> &mut [u8] {
        assert!(index < self.count);
        // SAFETY: `index` is in bounds of the allocation.
        let start = unsafe { self.memory.add(usize::from(index) * self.buffer_len) };
        // SAFETY: `buffer_len` zero-initialised bytes of our allocation; the kernel has completed the buffer and does
        // not touch it until it is provided again, which takes the `BufferId`; the borrow is of the whole pool.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.buffer_len) }
    }

    /// The kernel has written `len` bytes into a buffer, which is ours now.
    pub(crate) fn take(&mut self, len: usize) {
        self.lent -= 1;
        self.depth.observe(len);
    }

    /// A buffer is not needed any more: the kernel gets it back, or another, or several, or none.
    pub(crate) fn give_back(&mut self, index: u16) {
        self.spare.push(index);
        self.top_up();
    }

    fn top_up(&mut self) {
        while self.lent < self.depth.get()
            && let Some(index) = self.spare.pop()
        {
            self.lend(index);
            self.lent += 1;
        }
    }

    fn lend(&mut self, index: u16) {
        let slot = usize::from(self.tail & (self.count - 1));
        let address = self.buffer(index).as_mut_ptr() as u64;
        // SAFETY: `slot` is less than `count`.
        let entry = unsafe { self.entries.add(slot) };
        // SAFETY: the kernel does not read slots at or behind the tail.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(address);
        entry.set_len(self.buffer_len as u32);
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the base address of a registered ring, whose tail overlays the first entry's reserved field.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: aligned, valid for the ring's life, and written by this thread only.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Never frees the memory: the kernel may still write to it.
    pub(crate) fn leak(&mut self) {
        self.leaked = true;
    }
}

impl Drop for ProvidedBuffers {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        // SAFETY: allocated in `register` with this layout; no operation is outstanding, so the kernel picks no more.
        unsafe { dealloc(self.memory.as_ptr(), self.memory_layout) };
        // SAFETY: as above; the kernel holds its own reference to the pages of the ring until the ring is gone.
        unsafe { dealloc(self.entries.cast::<u8>().as_ptr(), self.entries_layout) };
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: both layouts have a size above zero.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}
