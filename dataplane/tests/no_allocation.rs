//! A million packets through two shards, there and back, without one allocation.
#![expect(unsafe_code, reason = "a global allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use pair::{NoIo, SEGMENT_LEN, SEGMENTS, carry, clock, key, shard, tcp_super_packet, udp_packet};
use ployz_dataplane::Shard;

mod pair;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is the one that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_million_packets_allocate_nothing() {
    let (mut a, mut b) = (shard(1, key(2).public_key()), shard(2, key(1).public_key()));
    let (bulk, back) = (tcp_super_packet(1, 2), tcp_super_packet(2, 1));
    let small = udp_packet(1, 2);
    let mut read = Vec::with_capacity(bulk.len() + 16);
    let mut turn = |a: &mut Shard<NoIo>, b: &mut Shard<NoIo>| {
        let now = clock();
        for template in [&bulk, &small] {
            read.clear();
            read.extend_from_slice(template);
            a.on_tun_read(now, &mut read);
        }
        let there = carry(now, a, 1, b);
        read.clear();
        read.extend_from_slice(&back);
        b.on_tun_read(now, &mut read);
        (there, carry(now, b, 2, a))
    };
    // The handshake, and whatever grows once.
    for _ in 0..20 {
        turn(&mut a, &mut b);
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let packets_per_turn = 2 * usize::from(SEGMENTS) + 1;
    let turns = 1_000_000 / packets_per_turn + 1;
    let bulk_len = 52 + usize::from(SEGMENT_LEN) * usize::from(SEGMENTS);
    for _ in 0..turns {
        assert_eq!(
            turn(&mut a, &mut b),
            (bulk_len + 92, bulk_len),
            "each arrives as it was sent"
        );
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
}
