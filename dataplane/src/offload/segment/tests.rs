use proptest::prelude::*;

use super::*;
use crate::offload::testkit::{ACK, CWR, FIN, PSH, Spec, spec, twin_sum};

fn packets(mut segments: Segments<'_>) -> Vec<Vec<u8>> {
    let mut packets = vec![];
    loop {
        let remaining = segments.remaining();
        let packet_len_max = segments.packet_len_max();
        let Some(packet) = segments.next_packet() else {
            assert_eq!(remaining, 0);
            return packets;
        };
        assert!(packet.len() <= packet_len_max);
        packets.push(packet.to_vec());
        assert_eq!(segments.remaining(), remaining - 1);
    }
}

fn error(vnet: VnetHeader, mut packet: Vec<u8>) -> Option<Malformed> {
    Segments::new(vnet, &mut packet).err()
}

#[test]
fn a_super_packet_becomes_its_segments() {
    let mut spec = Spec::tcp().with_payload(3_000, 9);
    *spec.flags_mut().unwrap() = ACK | PSH | FIN | CWR;
    let mut read = spec.read(1_400);
    let segments = Segments::from_read(&mut read).unwrap();
    assert_eq!(segments.remaining(), 3);
    assert_eq!(segments.packet_len_max(), 20 + 32 + 1_400);
    assert_eq!(segments.super_packet(), spec.partial());

    let packets = packets(segments);
    let flags: Vec<u8> = packets.iter().map(|packet| packet[20 + 13]).collect();
    assert_eq!(flags, [ACK | CWR, ACK, ACK | PSH | FIN]);
    let lengths: Vec<usize> = packets.iter().map(Vec::len).collect();
    assert_eq!(lengths, [1_452, 1_452, 252]);
    for packet in &packets {
        assert_eq!(twin_sum(&packet[..20]), 0xffff);
    }
}

#[test]
fn a_whole_packet_is_lent_untouched() {
    let mut read = VnetHeader::Whole.to_bytes().to_vec();
    read.extend([0x45, 1, 2, 3]);
    assert_eq!(
        packets(Segments::from_read(&mut read).unwrap()),
        [[0x45, 1, 2, 3]]
    );
}

/// A UDP checksum that comes to zero is sent as 0xffff, a TCP checksum as zero.
#[test]
fn the_two_zeros() {
    for (spec, expected) in [(Spec::udp(), 0xffff), (Spec::tcp(), 0)] {
        let mut spec = spec.with_payload(100, 1);
        spec.payload[..2].copy_from_slice(&[0, 0]);
        let at = spec.transport_at() + if spec.is_tcp() { 16 } else { 6 };
        let balance = spec.packet()[at..at + 2].to_vec();
        spec.payload[..2].copy_from_slice(&balance);
        assert_eq!(read_u16(&spec.packet(), at), expected);

        let mut whole = spec.partial();
        let segments = Segments::new(spec.vnet_partial(), &mut whole).unwrap();
        assert_eq!(packets(segments), [spec.packet()]);
        let mut read = spec.read(1_000);
        let segments = Segments::from_read(&mut read).unwrap();
        assert_eq!(packets(segments), [spec.packet()]);
    }
}

#[test]
fn ipv6_extension_headers_and_ipv4_options_are_repeated() {
    for v6 in [false, true] {
        for base in [Spec::tcp(), Spec::udp()] {
            // Destination options that announce the transport, padded with PadN. As IPv4 options
            // they are nonsense, which nobody looks at.
            let protocol = if base.is_tcp() { 6 } else { 17 };
            let spec = Spec {
                v6,
                extra: vec![protocol, 0, 1, 4, 0, 0, 0, 0],
                ..base
            }
            .with_payload(500, 3);
            let mut read = spec.read(200);
            let expected: Vec<Vec<u8>> = spec.cut(200).iter().map(Spec::packet).collect();
            assert_eq!(packets(Segments::from_read(&mut read).unwrap()), expected);
        }
    }
}

#[test]
fn malformed_super_packets_are_refused() {
    let tcp = Spec::tcp().with_payload(3_000, 0);
    let udp = Spec::udp().with_payload(3_000, 0);
    let tcp6 = Spec {
        v6: true,
        ..tcp.clone()
    };
    let broken = |spec: &Spec, at: usize, bytes: &[u8]| {
        let mut packet = spec.partial();
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        error(spec.vnet_super(1_000), packet)
    };
    let table = [
        (broken(&tcp, 0, &[0x46]), Malformed::TransportOffset),
        (broken(&tcp, 0, &[0x44]), Malformed::Truncated),
        (broken(&tcp, 0, &[0x65]), Malformed::Protocol),
        (broken(&udp, 0, &[0x75]), Malformed::Protocol),
        (broken(&tcp, 9, &[17]), Malformed::Protocol),
        (broken(&tcp6, 6, &[17]), Malformed::Protocol),
        (broken(&tcp, 6, &[0x20]), Malformed::Fragment),
        (broken(&tcp, 7, &[1]), Malformed::Fragment),
        (broken(&tcp, 2, &[0, 0]), Malformed::Length),
        (broken(&tcp6, 4, &[0, 0]), Malformed::Length),
        (broken(&udp, 24, &[0, 0]), Malformed::Length),
        (broken(&tcp, 32, &[0x40]), Malformed::Truncated),
    ];
    for (index, (error, expected)) in table.into_iter().enumerate() {
        assert_eq!(error, Some(expected), "row {index}");
    }
}

#[test]
fn short_super_packets_are_refused() {
    for spec in [Spec::tcp(), Spec::udp()] {
        for v6 in [false, true] {
            let spec = Spec { v6, ..spec.clone() }.with_payload(100, 0);
            for len in 0..spec.header_len() {
                let packet = spec.partial()[..len].to_vec();
                assert_eq!(
                    error(spec.vnet_super(10), packet),
                    Some(Malformed::HeaderLength)
                );
                let VnetHeader::Super {
                    gso,
                    size,
                    transport,
                    ..
                } = spec.vnet_super(10)
                else {
                    unreachable!()
                };
                let no_hint = VnetHeader::Super {
                    gso,
                    size,
                    transport,
                    header_len: 0,
                };
                assert!(error(no_hint, spec.partial()[..len].to_vec()).is_some());
            }
            assert_eq!(error(spec.vnet_super(10), spec.partial()), None);
        }
    }
}

#[test]
fn a_checksum_field_outside_the_packet_is_refused() {
    for (start, offset, expected) in [
        (0, 38, None),
        (0, 39, Some(Malformed::ChecksumOutside)),
        (38, 0, None),
        (39, 0, Some(Malformed::ChecksumOutside)),
        (41, 0, Some(Malformed::ChecksumOutside)),
        (u16::MAX, u16::MAX, Some(Malformed::ChecksumOutside)),
    ] {
        let vnet = VnetHeader::PartialChecksum { start, offset };
        assert_eq!(error(vnet, vec![0x45; 40]), expected, "{start} + {offset}");
    }
}

proptest! {
    #[test]
    fn agrees_with_the_twin(spec in spec(any::<u8>(), 0..9_000), size in 1usize..9_100) {
        // Below header_len a header overlaps the one before it.
        let size = if spec.payload.len() > 1_000 { size.max(20) } else { size };
        let expected: Vec<Vec<u8>> = spec.cut(size).iter().map(Spec::packet).collect();
        let mut read = spec.read(size);
        let segments = Segments::from_read(&mut read).unwrap();
        prop_assert_eq!(segments.remaining(), expected.len());
        prop_assert_eq!(packets(segments), expected);
    }

    #[test]
    fn agrees_with_the_twin_on_the_largest(spec in spec(any::<u8>(), 65_400..65_435)) {
        let expected: Vec<Vec<u8>> = spec.cut(1_380).iter().map(Spec::packet).collect();
        let mut read = spec.read(1_380);
        prop_assert_eq!(packets(Segments::from_read(&mut read).unwrap()), expected);
    }

    #[test]
    fn partial_checksums_are_completed(spec in spec(any::<u8>(), 0..2_000)) {
        let mut packet = spec.partial();
        let segments = Segments::new(spec.vnet_partial(), &mut packet).unwrap();
        prop_assert_eq!(packets(segments), [spec.packet()]);
    }

    #[test]
    fn random_reads_do_not_panic(mut read in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(segments) = Segments::from_read(&mut read) {
            packets(segments);
        }
    }

    #[test]
    fn damaged_reads_do_not_panic(
        spec in spec(any::<u8>(), 0..300),
        size in 1usize..300,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        is_cut: bool,
    ) {
        let mut read = spec.read(size);
        for (at, value) in damage {
            let at = at.index(read.len().min(80));
            read[at] = value;
        }
        if is_cut {
            read.truncate(cut.index(read.len()));
        }
        if let Ok(segments) = Segments::from_read(&mut read) {
            packets(segments);
        }
    }
}
