use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::offload::testkit::{ACK, CWR, FIN, PSH, Spec, Transport, spec, twin_sum};
use crate::offload::{Gso, Segments};

const ALL: Capabilities = Capabilities {
    tcp: true,
    udp: true,
};

fn coalescer(capabilities: Capabilities) -> Coalescer {
    Coalescer::new(capabilities, 16)
}

fn writes(coalescer: &mut Coalescer) -> Vec<Vec<u8>> {
    let mut writes = vec![];
    while let Some(buffer) = coalescer.pop_ready() {
        writes.push(buffer.as_bytes().to_vec());
        coalescer.recycle(buffer);
    }
    writes
}

fn coalesce(capabilities: Capabilities, packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut coalescer = coalescer(capabilities);
    let mut written = vec![];
    for packet in packets {
        assert!(coalescer.push(packet));
        written.extend(writes(&mut coalescer));
    }
    coalescer.flush();
    written.extend(writes(&mut coalescer));
    assert_eq!(coalescer.buffers_free(), 16);
    written
}

fn cut(write: &[u8]) -> Vec<Vec<u8>> {
    let mut write = write.to_vec();
    let mut segments = Segments::from_read(&mut write).unwrap();
    let mut packets = vec![];
    while let Some(packet) = segments.next_packet() {
        packets.push(packet.to_vec());
    }
    packets
}

fn packets(specs: &[Spec]) -> Vec<Vec<u8>> {
    specs.iter().map(Spec::packet).collect()
}

/// How many packets each write has.
fn counts(specs: &[Spec]) -> Vec<usize> {
    coalesce(ALL, &packets(specs))
        .iter()
        .map(|write| cut(write).len())
        .collect()
}

/// Three segments of one super-packet.
fn three(base: Spec) -> [Spec; 3] {
    let specs = base.with_payload(3_000, 5).cut(1_000);
    specs.try_into().unwrap()
}

fn tcp(spec: &mut Spec, change: impl FnOnce(&mut u32, &mut u32, &mut u16, &mut Vec<u8>)) {
    if let Transport::Tcp {
        sequence,
        acknowledgement,
        window,
        options,
        ..
    } = &mut spec.transport
    {
        change(sequence, acknowledgement, window, options);
    }
}

#[test]
fn the_write_is_the_super_packet_that_was_cut() {
    for v6 in [false, true] {
        for base in [Spec::tcp(), Spec::udp()] {
            let spec = Spec { v6, ..base }.with_payload(64_000, 1);
            let written = coalesce(ALL, &packets(&spec.cut(1_380)));
            assert_eq!(written, [spec.read(1_380)]);
        }
    }
}

#[test]
fn a_lone_packet_is_written_as_it_came() {
    for spec in [Spec::tcp(), Spec::udp()] {
        for payload in [0, 1, 1_000] {
            let packet = spec.clone().with_payload(payload, 0).packet();
            let written = coalesce(ALL, std::slice::from_ref(&packet));
            assert_eq!(written.len(), 1);
            assert_eq!(written[0][..VnetHeader::LEN], [0; VnetHeader::LEN]);
            assert_eq!(written[0][VnetHeader::LEN..], packet);
        }
    }
}

#[test]
fn tcp_headers_that_do_not_merge() {
    type Change = fn(&mut Spec);
    let table: [(&str, Change); 13] = [
        ("service", |spec| spec.service = 3),
        ("hop limit", |spec| spec.hop_limit -= 1),
        ("don't fragment", |spec| spec.dont_fragment = false),
        ("gap", |spec| tcp(spec, |sequence, _, _, _| *sequence += 1)),
        ("repeat", |spec| {
            tcp(spec, |sequence, _, _, _| *sequence -= 1_000)
        }),
        ("ack", |spec| tcp(spec, |_, ack, _, _| *ack += 1)),
        ("window", |spec| tcp(spec, |_, _, window, _| *window += 1)),
        ("option", |spec| {
            tcp(spec, |_, _, _, options| options[11] += 1)
        }),
        ("more options", |spec| {
            tcp(spec, |_, _, _, options| options.extend([1; 4]))
        }),
        ("CWR", |spec| *spec.flags_mut().unwrap() |= CWR),
        ("FIN", |spec| *spec.flags_mut().unwrap() |= FIN),
        ("no ACK", |spec| *spec.flags_mut().unwrap() = 0),
        ("IP options", |spec| spec.extra = vec![1; 4]),
    ];
    for (name, change) in table {
        let mut specs = three(Spec::tcp());
        change(&mut specs[1]);
        assert_eq!(counts(&specs), [1, 1, 1], "{name}");
    }
    assert_eq!(counts(&three(Spec::tcp())), [3]);
}

#[test]
fn a_larger_segment_starts_anew_and_a_smaller_one_ends() {
    for base in [Spec::tcp(), Spec::udp()] {
        let mut specs = base.clone().with_payload(2_500, 1).cut(1_000);
        specs.extend(base.with_payload(2_000, 1).cut(1_000));
        assert_eq!(counts(&specs), [3, 2]);
        specs.swap(0, 2);
        assert_eq!(counts(&specs)[0], 1);
    }
}

#[test]
fn push_ends_the_super_packet() {
    let mut specs = three(Spec::tcp());
    *specs[1].flags_mut().unwrap() |= PSH;
    assert_eq!(counts(&specs), [2, 1]);
    *specs[0].flags_mut().unwrap() |= PSH;
    assert_eq!(counts(&specs), [1, 1, 1]);
}

#[test]
fn identification_counts_up_where_it_means_something() {
    for (dont_fragment, identification, expected) in [
        (false, 8, vec![3]),
        (false, 7, vec![1, 1, 1]),
        (true, 8, vec![3]),
        (true, 7, vec![3]),
    ] {
        let mut specs = three(Spec {
            dont_fragment,
            ..Spec::udp()
        });
        specs[1].identification = identification;
        assert_eq!(counts(&specs), expected);
    }
}

/// With and without a UDP checksum each merge among themselves, except that IPv6 demands one.
#[test]
fn zero_udp_checksums() {
    let without = Transport::Udp {
        has_checksum: false,
    };
    for (v6, expected) in [(false, vec![3]), (true, vec![1, 1, 1])] {
        let specs = three(Spec {
            transport: without.clone(),
            v6,
            ..Spec::udp()
        });
        assert_eq!(counts(&specs), expected);
        let mut mixed = three(Spec { v6, ..Spec::udp() });
        mixed[1].transport = without.clone();
        assert_eq!(counts(&mixed), [1, 1, 1]);
    }
}

#[test]
fn a_bad_checksum_is_not_laundered() {
    for base in [Spec::tcp(), Spec::udp()] {
        for v6 in [false, true] {
            let specs = three(Spec { v6, ..base.clone() });
            let at = specs[0].header_len();
            for (bad, expected) in [(0, vec![1, 2]), (1, vec![1, 1, 1]), (2, vec![2, 1])] {
                let mut packets = packets(&specs);
                packets[bad][at + 500] ^= 1;
                let written = coalesce(ALL, &packets);
                let cut: Vec<_> = written.iter().map(|write| cut(write)).collect();
                assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), expected);
                assert_eq!(cut.concat(), packets);
            }
        }
    }
}

/// Makes the header's checksum right again after a change.
fn fix_header(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let checksum = !twin_sum(&packet[..20]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

#[test]
fn ipv4_headers_that_do_not_merge() {
    type Change = fn(&mut Vec<u8>);
    let table: [(&str, Change); 6] = [
        ("bad checksum", |packet| packet[10] ^= 1),
        ("more fragments", |packet| {
            packet[6] |= 0x20;
            fix_header(packet);
        }),
        ("fragment offset", |packet| {
            packet[7] = 1;
            fix_header(packet);
        }),
        ("reserved bit", |packet| {
            packet[6] |= 0x80;
            fix_header(packet);
        }),
        ("trailing byte", |packet| packet.push(0)),
        ("other zero", |packet| {
            // The identification takes up what would be the checksum.
            packet[4..6].fill(0);
            fix_header(packet);
            packet.copy_within(10..12, 4);
            packet[10..12].fill(0xff);
            assert_eq!(twin_sum(&packet[..20]), 0xffff);
        }),
    ];
    for (name, change) in table {
        for changed in [1..2, 0..3] {
            let mut packets = packets(&three(Spec::tcp()));
            packets[changed].iter_mut().for_each(change);
            assert_eq!(coalesce(ALL, &packets).len(), 3, "{name}");
        }
    }
}

#[test]
fn an_urgent_pointer_does_not_merge_with_none() {
    let mut packets = packets(&three(Spec::tcp()));
    packets[1][20 + 19] = 1;
    // The last byte of the payload makes up for it.
    let last = packets[1].len() - 1;
    packets[1][last] -= 1;
    assert_eq!(coalesce(ALL, &packets).len(), 3);
}

/// 0xffff is as good as zero to a receiver, but cutting would give zero.
#[test]
fn the_other_zero_as_tcp_checksum_does_not_merge() {
    let mut specs = three(Spec::tcp());
    specs[1].payload[..2].fill(0);
    let balance = specs[1].packet()[36..38].to_vec();
    specs[1].payload[..2].copy_from_slice(&balance);
    assert_eq!(specs[1].packet()[36..38], [0, 0]);
    let mut packets = packets(&specs);
    assert_eq!(coalesce(ALL, &packets).len(), 1);
    packets[1][36..38].fill(0xff);
    assert_eq!(coalesce(ALL, &packets).len(), 3);
}

#[test]
fn an_empty_datagram_travels_alone() {
    let mut specs = three(Spec::udp());
    specs[1].payload = vec![];
    assert_eq!(counts(&specs), [1, 1, 1]);
}

#[test]
fn losing_a_capability_keeps_the_order() {
    let mut coalescer = coalescer(ALL);
    let packets = packets(&three(Spec::tcp()));
    assert!(coalescer.push(&packets[0]));
    coalescer.set_capabilities(Capabilities { tcp: false, ..ALL });
    assert!(coalescer.push(&packets[1]));
    coalescer.flush();
    let written = writes(&mut coalescer);
    let order: Vec<_> = written
        .iter()
        .map(|write| &write[VnetHeader::LEN..])
        .collect();
    assert_eq!(order, packets[..2]);
}

#[test]
fn a_tun_without_an_offload_gets_packets() {
    for (capabilities, tcp_writes, udp_writes) in [
        (ALL, 1, 1),
        (Capabilities { tcp: false, ..ALL }, 3, 1),
        (Capabilities { udp: false, ..ALL }, 1, 3),
    ] {
        let writes = |base| coalesce(capabilities, &packets(&three(base))).len();
        assert_eq!(writes(Spec::tcp()), tcp_writes);
        assert_eq!(writes(Spec::udp()), udp_writes);
    }
}

#[test]
fn super_packets_stay_within_their_limits() {
    // 47 segments of 1,380 bytes and the headers are 64,912 bytes; one more exceeds 65,535.
    let base = Spec::tcp().with_payload(1_380, 1);
    let specs: Vec<Spec> = (0..100u32)
        .map(|index| {
            let mut next = base.clone();
            tcp(&mut next, |sequence, _, _, _| *sequence += index * 1_380);
            next
        })
        .collect();
    assert_eq!(counts(&specs), [47, 47, 6]);

    let spec = Spec::udp().with_payload(100 * 150, 1);
    assert_eq!(counts(&spec.cut(100)), [64, 64, 22]);
}

#[test]
fn flows_are_kept_apart() {
    let flows: Vec<[Spec; 3]> = (0..FLOWS_MAX as u16)
        .map(|port| {
            three(Spec {
                ports: [port, 1],
                ..Spec::tcp()
            })
        })
        .collect();
    let interleaved: Vec<Spec> = (0..3)
        .flat_map(|index| flows.iter().map(move |flow| flow[index].clone()))
        .collect();
    assert_eq!(counts(&interleaved), [3; FLOWS_MAX]);

    let differs: [fn(&mut Spec); 4] = [
        |spec| spec.ports[0] += 1,
        |spec| spec.ports[1] += 1,
        |spec| spec.host += 1,
        |spec| spec.v6 = true,
    ];
    for differs in differs {
        let mut other = three(Spec::tcp());
        other.iter_mut().for_each(differs);
        let [a, b, c] = three(Spec::tcp());
        let [x, y, z] = other;
        assert_eq!(counts(&[a, x, b, y, c, z]), [3, 3]);
    }
}

#[test]
fn the_least_recently_grown_gives_way() {
    let mut specs: Vec<Spec> = (0..=FLOWS_MAX as u16)
        .map(|port| {
            three(Spec {
                ports: [port, 1],
                ..Spec::tcp()
            })[0]
                .clone()
        })
        .collect();
    let second = three(Spec {
        ports: [0, 1],
        ..Spec::tcp()
    })[1]
        .clone();
    specs.insert(FLOWS_MAX, second);
    let written = coalesce(ALL, &packets(&specs));
    let ports: Vec<u8> = written
        .iter()
        .map(|write| write[VnetHeader::LEN + 21])
        .collect();
    assert_eq!(ports[0], 1, "flow 0 grew after flow 1");
    assert_eq!(written.len(), FLOWS_MAX + 1);
}

/// An acknowledgement of another flow does not disturb, one of the same flow keeps its place.
#[test]
fn acknowledgements() {
    let [a, b, c] = three(Spec::tcp());
    let other = Spec {
        ports: [1, 1],
        ..Spec::tcp()
    };
    assert_eq!(
        counts(&[a.clone(), other.clone(), b.clone(), other, c.clone()]),
        [1, 1, 3]
    );
    let mut own = b.clone();
    own.payload = vec![];
    assert_eq!(counts(&[a, own, b, c]), [1, 1, 2]);
}

#[test]
fn what_has_no_flow_waits_for_all() {
    let [a, b, _] = three(Spec::tcp());
    let mut fragment = a.packet();
    fragment[6] = 0x20;
    fix_header(&mut fragment);
    let written = coalesce(ALL, &[a.packet(), b.packet(), fragment.clone(), a.packet()]);
    assert_eq!(written.len(), 3);
    assert_eq!(written[1][VnetHeader::LEN..], fragment);
}

#[test]
fn the_vnet_header_of_a_merged_write() {
    let written = coalesce(ALL, &packets(&three(Spec::udp())));
    let expected = VnetHeader::Super {
        gso: Gso::UdpL4,
        size: std::num::NonZeroU16::new(1_000).unwrap(),
        header_len: 28,
        transport: 20,
    };
    assert_eq!(VnetHeader::parse(&written[0]), Ok(expected));
}

#[test]
fn running_out_of_buffers_is_not_fatal() {
    let mut coalescer = Coalescer::new(ALL, 2);
    let specs = three(Spec::tcp());
    assert!(coalescer.push(&specs[0].packet()));
    assert!(coalescer.push(&specs[1].packet()));
    assert!(coalescer.push(&Spec::udp().packet()));
    assert_eq!(coalescer.buffers_free(), 0);
    assert!(coalescer.push(&specs[2].packet()), "it follows others");
    assert!(!coalescer.push(&Spec::udp().packet()));
    coalescer.flush();
    assert_eq!(writes(&mut coalescer).len(), 2);
    assert!(!coalescer.push(&[0x45; TunBuffer::CAPACITY]));
    assert!(coalescer.push(&Spec::udp().packet()));
}

/// What the driver does about EINVAL.
#[test]
fn a_refused_write_is_cut_up_again() {
    for base in [Spec::tcp(), Spec::udp()] {
        let mut coalescer = coalescer(ALL);
        let expected = packets(&three(base));
        for packet in &expected {
            assert!(coalescer.push(packet));
        }
        coalescer.flush();
        let mut refused = coalescer.pop_ready().unwrap();
        coalescer.set_capabilities(Capabilities {
            tcp: false,
            udp: false,
        });
        let mut segments = Segments::from_read(refused.as_bytes_mut()).unwrap();
        while let Some(packet) = segments.next_packet() {
            assert!(coalescer.push(packet));
        }
        coalescer.recycle(refused);
        let written = writes(&mut coalescer);
        assert_eq!(written.len(), 3);
        for (written, packet) in written.iter().zip(&expected) {
            assert_eq!(VnetHeader::parse(written), Ok(VnetHeader::Whole));
            assert_eq!(written[VnetHeader::LEN..], *packet);
        }
    }
}

#[test]
fn odd_packets() {
    let mut coalescer = coalescer(ALL);
    let specs = three(Spec::tcp());
    assert!(coalescer.push(&specs[0].packet()));
    assert!(coalescer.push(&[]));
    assert!(coalescer.push(&specs[1].packet()));
    coalescer.flush();
    let written = writes(&mut coalescer);
    assert_eq!(written.len(), 1);
    assert_eq!(cut(&written[0]), packets(&specs[..2]));
}

/// The twin's idea of a flow, for packets that travel in order with their flow only.
fn flow(packet: &[u8]) -> Option<Vec<u8>> {
    let (transport_at, protocol, addresses) = match packet.first()? >> 4 {
        4 => {
            let is_plain = packet.len() >= 20
                && packet[0] == 0x45
                && packet[6] & 0xbf == 0
                && packet[7] == 0
                && twin_sum(&packet[..20]) == 0xffff
                && packet[10..12] != [0xff, 0xff]
                && usize::from(packet[2]) << 8 | usize::from(packet[3]) == packet.len();
            is_plain.then(|| (20, packet[9], &packet[12..20]))?
        }
        6 => {
            let is_plain = packet.len() >= 40
                && usize::from(packet[4]) << 8 | usize::from(packet[5]) == packet.len() - 40;
            is_plain.then(|| (40, packet[6], &packet[8..40]))?
        }
        _ => return None,
    };
    let ports = packet.get(transport_at..transport_at + 4)?;
    let header_len_min = match protocol {
        6 => 20,
        17 => 8,
        _ => return None,
    };
    (packet.len() >= transport_at + header_len_min)
        .then(|| [&[protocol], addresses, ports].concat())
}

type Epoch = BTreeMap<Option<Vec<u8>>, Vec<Vec<u8>>>;

/// Packets by flow, between those without a flow.
fn epochs(packets: &[Vec<u8>]) -> Vec<Epoch> {
    let mut epochs = vec![BTreeMap::new()];
    for packet in packets {
        let flow = flow(packet);
        if flow.is_none() {
            epochs.push(BTreeMap::new());
        }
        let epoch = epochs.last_mut().unwrap();
        epoch
            .entry(flow)
            .or_insert_with(Vec::new)
            .push(packet.clone());
    }
    epochs
}

/// Equal, but for what coalescing may change.
fn is_same(before: &[u8], after: &[u8]) -> bool {
    let mut expected = before.to_vec();
    if before.len() >= 20 && after.len() >= 20 && before[0] == 0x45 && before[6] == 0x40 {
        expected[4..6].copy_from_slice(&after[4..6]);
        if twin_sum(&before[..20]) == 0xffff {
            expected[10..12].fill(0);
            let checksum = !twin_sum(&expected[..20]);
            expected[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
    }
    let is_udp_without_checksum =
        before.len() >= 28 && before[0] == 0x45 && before[9] == 17 && before[26..28] == [0, 0];
    if is_udp_without_checksum && after.len() == before.len() && after[26..28] != [0, 0] {
        let pseudo_header = [&after[12..20], &[0, 17], &after[24..26]].concat();
        let sum = twin_sum(&[&pseudo_header, &after[20..]].concat());
        return sum == 0xffff && expected[..26] == after[..26] && expected[28..] == after[28..];
    }
    expected == after
}

#[derive(Debug, Clone)]
enum Step {
    /// The next packet of a flow, its header changed, then bytes of it damaged.
    Packet {
        flow: usize,
        payload_len: usize,
        change: Change,
        damage: Option<(prop::sample::Index, u8)>,
    },
    Raw(Vec<u8>),
    Flush,
    Pop,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    None,
    Push,
    Flags(u8),
    Service,
    Gap,
    Acknowledgement,
    Identification,
    DontFragment,
    ToggleChecksum,
}

fn step() -> impl Strategy<Value = Step> {
    let change = prop_oneof![
        20 => Just(Change::None),
        2 => Just(Change::Push),
        1 => any::<u8>().prop_map(Change::Flags),
        1 => Just(Change::Service),
        1 => Just(Change::Gap),
        1 => Just(Change::Acknowledgement),
        1 => Just(Change::Identification),
        1 => Just(Change::DontFragment),
        1 => Just(Change::ToggleChecksum),
    ];
    // Mostly one size, which merges; small ones, where the header is longer than the payload.
    let payload_len = prop_oneof![
        12 => Just(0usize),
        1 => 0usize..1_500,
        1 => 0usize..60,
    ];
    let damage = proptest::option::weighted(0.05, (any::<prop::sample::Index>(), 1u8..=255));
    // Mostly bursts of flow 0.
    let flow = prop_oneof![4 => Just(0usize), 4 => 0usize..3, 1 => 0usize..12];
    prop_oneof![
        40 => (flow, payload_len, change, damage).prop_map(
            |(flow, payload_len, change, damage)| Step::Packet { flow, payload_len, change, damage }
        ),
        1 => prop::collection::vec(any::<u8>(), 1..100).prop_map(Step::Raw),
        1 => Just(Step::Flush),
        1 => Just(Step::Pop),
    ]
}

/// The next packet of `flow`, which goes on behind it.
fn next_packet(flow: &mut Spec, size: usize, payload_len: usize, change: Change) -> Vec<u8> {
    let len = if payload_len == 0 { size } else { payload_len };
    flow.payload = vec![];
    let mut spec = flow.clone().with_payload(len, flow.identification as u8);
    match change {
        Change::None => {}
        Change::Push => {
            if let Some(flags) = spec.flags_mut() {
                *flags |= PSH;
            }
        }
        Change::Flags(value) => {
            if let Some(flags) = spec.flags_mut() {
                *flags = value;
            }
        }
        Change::Service => spec.service ^= 3,
        Change::Gap => tcp(&mut spec, |sequence, _, _, _| {
            *sequence = sequence.wrapping_add(1);
        }),
        Change::Acknowledgement => tcp(flow, |_, acknowledgement, _, _| {
            *acknowledgement = acknowledgement.wrapping_add(1);
        }),
        Change::Identification => spec.identification ^= 0x0101,
        Change::DontFragment => spec.dont_fragment ^= true,
        Change::ToggleChecksum => {
            if let Transport::Udp { has_checksum } = &mut spec.transport {
                *has_checksum ^= true;
            }
        }
    }
    flow.identification = flow.identification.wrapping_add(1);
    tcp(flow, |sequence, _, _, _| {
        *sequence = sequence.wrapping_add(len as u32);
    });
    spec.packet()
}

fn flows(specs: Vec<Spec>) -> Vec<Spec> {
    let numbered = specs.into_iter().enumerate();
    let numbered = numbered.map(|(index, spec)| Spec {
        ports: [index as u16, 9],
        ..spec
    });
    numbered.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Cutting what is written gives what was committed.
    #[test]
    fn coalescing_is_invisible(
        specs in prop::collection::vec(spec(Just(ACK), 0..1), 12),
        size in prop_oneof![Just(1_380usize), 1usize..200],
        steps in prop::collection::vec(step(), 0..150),
        capabilities in prop_oneof![
            4 => Just(ALL),
            1 => (any::<bool>(), any::<bool>()).prop_map(|(tcp, udp)| Capabilities { tcp, udp }),
        ],
    ) {
        let mut flows = flows(specs);
        let mut coalescer = coalescer(capabilities);
        let (mut before, mut after) = (vec![], vec![]);
        for step in steps {
            let packet = match step {
                Step::Packet { flow, payload_len, change, damage } => {
                    let mut packet = next_packet(&mut flows[flow], size, payload_len, change);
                    if let Some((at, value)) = damage {
                        let at = at.index(packet.len());
                        packet[at] ^= value;
                    }
                    packet
                }
                Step::Raw(bytes) => bytes,
                Step::Flush => {
                    coalescer.flush();
                    continue;
                }
                Step::Pop => {
                    after.extend(writes(&mut coalescer).iter().flat_map(|write| cut(write)));
                    continue;
                }
            };
            if coalescer.buffers_free() == 0 {
                coalescer.flush();
                after.extend(writes(&mut coalescer).iter().flat_map(|write| cut(write)));
            }
            assert!(coalescer.push(&packet));
            before.push(packet);
        }
        coalescer.flush();
        after.extend(writes(&mut coalescer).iter().flat_map(|write| cut(write)));
        prop_assert_eq!(coalescer.buffers_free(), 16);

        prop_assert_eq!(before.len(), after.len());
        let (before, after) = (epochs(&before), epochs(&after));
        prop_assert_eq!(before.len(), after.len());
        for (before, after) in before.iter().zip(&after) {
            prop_assert!(before.keys().eq(after.keys()));
            for (flow, before) in before {
                let after = &after[flow];
                prop_assert_eq!(before.len(), after.len());
                for (before, after) in before.iter().zip(after) {
                    prop_assert!(is_same(before, after), "{:02x?}\n{:02x?}", before, after);
                }
            }
        }
    }

    /// The segments of a super-packet make one write, and that is the super-packet.
    #[test]
    fn segments_become_the_super_packet_again(
        spec in spec(prop_oneof![Just(ACK), Just(ACK | PSH)], 2..60_000),
        size in 1usize..9_000,
    ) {
        let len = spec.payload.len();
        let size_min = len.div_ceil(if spec.is_tcp() { 1_000 } else { 64 });
        let size = size.clamp(size_min, len - 1);
        let segments = packets(&spec.cut(size));
        let written = coalesce(ALL, &segments);
        prop_assert_eq!(written, [spec.read(size)]);
    }

    #[test]
    fn random_packets_do_not_panic(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..120), 0..20),
    ) {
        let written = coalesce(ALL, &packets);
        prop_assert_eq!(written.len(), packets.len());
    }
}
