//! Secrets and the heap: [`Wiping`] is the allocator of the programs, and wipes every block before it is free;
//! [`Watching`] is an allocator for tests, which looks for secrets in every block that is freed.
//!
//! Types of our own wipe what they hold. Libraries copy keys into buffers that nothing outside of them reaches: the
//! scratch of a JSON parser, the key of a TLS connection, the DER of a certificate's key. Those end in a block that is
//! freed, and only the allocator sees it.
//!
//! # Safety
//! Both allocators pass every call on to another one with the same layout; they touch only blocks that the caller gives
//! back, before they do.
#![expect(unsafe_code, reason = "allocators")]

mod watching;
mod wiping;

pub use watching::{Watch, Watching};
pub use wiping::Wiping;

#[cfg(test)]
mod tests;
