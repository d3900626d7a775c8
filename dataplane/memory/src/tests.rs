//! The watch sees what is freed, and sees nothing below an allocator that wipes.

use std::alloc::{GlobalAlloc, Layout};

use super::*;

#[global_allocator]
static ALLOCATOR: Watching = Watching::new();

/// Each test's own: others free theirs meanwhile.
fn secret(of_test: u8) -> Vec<u8> {
    let byte = |n: u8| n.wrapping_mul(151) ^ of_test;
    (0..32).map(byte).collect()
}

#[test]
fn what_is_freed_is_looked_at_and_what_was_wiped_is_not_found() {
    let secret = secret(1);
    let watch = Watch::begin(&[&secret]);
    let mut wiped = secret.clone();
    wiped.fill(0);
    drop(std::hint::black_box(wiped));
    assert!(watch.found().is_empty());
    drop(std::hint::black_box(secret[8..20].to_vec()));
    let found = watch.found();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("12 bytes, at 0"), "{}", found[0]);
}

#[test]
fn a_block_that_grows_leaves_its_former_place() {
    let secret = secret(2);
    let watch = Watch::begin(&[&secret]);
    let mut growing = Vec::with_capacity(32);
    growing.extend_from_slice(&secret);
    growing.reserve(4_096);
    growing.fill(0);
    drop(std::hint::black_box(growing));
    assert_eq!(watch.found().len(), 1);
}

#[test]
fn a_wiping_allocator_leaves_nothing_behind() {
    let secret = secret(3);
    let watch = Watch::begin(&[&secret]);
    let allocator = Wiping::over(Watching::new());
    let (layout, longer) = (
        Layout::from_size_align(32, 8).unwrap(),
        Layout::from_size_align(64, 8).unwrap(),
    );
    // SAFETY: the layout has a size.
    let memory = unsafe { allocator.alloc(layout) };
    // SAFETY: 32 bytes are there.
    unsafe { memory.copy_from_nonoverlapping(secret.as_ptr(), secret.len()) };
    // SAFETY: the block is the allocator's, with that layout, and the new size is no surprise.
    let grown = unsafe { allocator.realloc(memory, layout, longer.size()) };
    // SAFETY: 64 bytes are there, the first 32 of which were written.
    let kept = unsafe { std::slice::from_raw_parts(grown, secret.len()) };
    assert_eq!(kept, secret);
    // SAFETY: the block is the allocator's, with that layout.
    unsafe { allocator.dealloc(grown, longer) };
    assert!(watch.found().is_empty(), "{:?}", watch.found());
}
