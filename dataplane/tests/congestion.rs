//! A receiver that cannot keep up says so for the price of one segment.

use pair::{SEGMENT_LEN, SEGMENTS, carry, clock, key, shard, tcp_super_packet, udp_packet};
use ployz_engine::Drop;

mod pair;

#[test]
fn a_backlog_costs_a_bulk_sender_one_segment_and_others_nothing() {
    let (mut a, mut b) = (shard(1, key(2).public_key()), shard(2, key(1).public_key()));
    let (mut bulk, mut single) = (tcp_super_packet(1, 2), udp_packet(1, 2));
    let now = clock();
    // The handshake.
    for _ in 0..3 {
        a.on_tun_read(now, &mut single.clone());
        carry(now, &mut a, 1, &mut b);
        carry(now, &mut b, 2, &mut a);
    }
    let marked =
        |b: &ployz_dataplane::Shard<pair::NoIo>| b.snapshot().drops.get(Drop::EcnCongestion);

    b.egress_mut().io_mut().backlog = usize::MAX;
    a.on_tun_read(now, &mut single);
    assert_eq!(
        carry(now, &mut a, 1, &mut b),
        92,
        "a single datagram passes"
    );
    assert_eq!(marked(&b), 0);

    a.on_tun_read(now, &mut bulk);
    let segments = usize::from(SEGMENTS);
    let arrived = carry(now, &mut a, 1, &mut b);
    assert_eq!(arrived, 52 + usize::from(SEGMENT_LEN) * (segments - 1));
    assert_eq!(marked(&b), 1);

    a.on_tun_read(now, &mut tcp_super_packet(1, 2));
    carry(now, &mut a, 1, &mut b);
    assert_eq!(marked(&b), 1, "the sender has not had the time to react");
}
