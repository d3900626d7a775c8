//! What the layer costs for each packet of 1,420 bytes. Not a test: run it with
//!
//! ```text
//! cargo test --release -p ployz-dataplane offload::bench -- --ignored --nocapture --test-threads 1
//! ```
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
#![expect(clippy::print_stdout, reason = "the result is what it prints")]

use std::hint::black_box;
use std::time::Instant;

use super::checksum::Sum;
use super::coalesce::{Capabilities, Coalescer};
use super::segment::Segments;
use super::testkit::{Spec, Transport};

/// The fastest of many short slices: other load on the machine only ever adds, and preempts some.
fn nanoseconds(per_round: usize, mut round: impl FnMut()) -> f64 {
    let rounds = (1_000 / per_round).max(10);
    let fastest = (0..2_000)
        .map(|_| {
            let start = Instant::now();
            (0..rounds).for_each(|_| round());
            start.elapsed()
        })
        .min()
        .unwrap_or_default();
    fastest.as_nanos() as f64 / (rounds * per_round) as f64
}

/// 44 packets of 1,420 bytes.
fn super_packet(base: Spec) -> Spec {
    let payload = 1_420 - base.header_len();
    base.with_payload(44 * payload, 1)
}

fn bases() -> [(&'static str, Spec); 4] {
    let zero = Transport::Udp {
        has_checksum: false,
    };
    let v6 = Spec {
        v6: true,
        ..Spec::tcp()
    };
    let unsummed = Spec {
        transport: zero,
        ..Spec::udp()
    };
    [
        ("TCP/IPv4", Spec::tcp()),
        ("TCP/IPv6", v6),
        ("UDP/IPv4", Spec::udp()),
        ("UDP/IPv4, no checksum", unsummed),
    ]
}

#[test]
#[ignore = "a measurement"]
fn checksum() {
    let bytes = vec![0x5a; 65_536];
    for len in [20, 64, 1_368, 1_420, 65_000] {
        let each = nanoseconds(1, || {
            black_box(Sum::of(black_box(&bytes[6..6 + len])));
        });
        println!(
            "checksum {len:>6} B: {each:6.1} ns {:5.1} GB/s",
            len as f64 / each
        );
    }
}

#[test]
#[ignore = "a measurement"]
fn segment() {
    for (name, base) in bases() {
        let spec = super_packet(base);
        let read = spec.read(1_420 - spec.header_len());
        let mut buffer = read.clone();
        let mut sealed = vec![0; 1_500];
        let mut run = |copies: bool| {
            nanoseconds(44, || {
                // The kernel's part, measured alone below.
                buffer.copy_from_slice(&read);
                let Ok(mut segments) = Segments::from_read(&mut buffer) else {
                    unreachable!("the super-packet is well-formed")
                };
                while let Some(packet) = segments.next_packet() {
                    if copies {
                        sealed[..packet.len()].copy_from_slice(packet);
                    }
                    black_box((packet, &sealed));
                }
            })
        };
        let (lent, copied) = (run(false), run(true));
        let mut buffer = read.clone();
        let kernel = nanoseconds(44, || black_box(&mut buffer).copy_from_slice(&read));
        println!(
            "segment {name:<22}: {:6.1} ns a packet, {:6.1} ns with a copy of it",
            lent - kernel,
            copied - kernel
        );
    }
}

/// What the coalescer costs on top of one copy.
fn coalescer(capabilities: Capabilities, packets: &[Vec<u8>]) -> (f64, usize) {
    let mut coalescer = Coalescer::new(capabilities, 64);
    let mut in_flight = Vec::with_capacity(64);
    let mut writes = 0;
    let joined = nanoseconds(packets.len(), || {
        for packet in packets {
            assert!(
                coalescer.push(packet),
                "there are more buffers than packets"
            );
        }
        coalescer.flush();
        while let Some(buffer) = coalescer.pop_ready() {
            in_flight.push(buffer);
        }
        writes = in_flight.len();
        black_box(&in_flight);
        in_flight
            .drain(..)
            .for_each(|buffer| coalescer.recycle(buffer));
    });
    let mut buffers: Vec<Vec<u8>> = vec![vec![0; 70_000]; writes];
    let opened = nanoseconds(packets.len(), || {
        let mut at = 0;
        for (index, packet) in packets.iter().enumerate() {
            let buffer = &mut buffers[index * writes / packets.len()];
            if at + packet.len() > buffer.len() {
                at = 0;
            }
            black_box(&mut buffer[at..at + packet.len()]).copy_from_slice(packet);
            at += packet.len();
        }
    });
    (joined - opened, writes)
}

#[test]
#[ignore = "a measurement"]
fn coalesce() {
    let all = Capabilities {
        tcp: true,
        udp: true,
    };
    let none = Capabilities {
        tcp: false,
        udp: false,
    };
    let print = |name: &str, (each, writes): (f64, usize)| {
        println!("coalesce {name:<26}: {each:6.1} ns a packet, {writes} writes");
    };
    for (name, base) in bases() {
        let spec = super_packet(base);
        let size = 1_420 - spec.header_len();
        let packets: Vec<_> = spec.cut(size).iter().map(Spec::packet).collect();
        print(name, coalescer(all, &packets));
    }
    for flows in [2u16, 4, 8, 16] {
        let flows: Vec<Vec<Vec<u8>>> = (0..flows)
            .map(|port| {
                let spec = super_packet(Spec {
                    ports: [port, 1],
                    ..Spec::tcp()
                });
                let cut = spec.cut(1_420 - spec.header_len());
                cut.iter()
                    .map(Spec::packet)
                    .take(44 / usize::from(flows))
                    .collect()
            })
            .collect();
        let interleaved: Vec<_> = (0..flows[0].len())
            .flat_map(|index| flows.iter().map(move |flow| flow[index].clone()))
            .collect();
        let name = format!("{} TCP flows in turn", flows.len());
        print(&name, coalescer(all, &interleaved));
    }
    let spec = super_packet(Spec::tcp());
    let packets: Vec<_> = spec.cut(1_420 - spec.header_len());
    let packets: Vec<_> = packets.iter().map(Spec::packet).collect();
    print("TCP, TUN without TSO", coalescer(none, &packets));
}
