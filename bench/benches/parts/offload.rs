//! Checksums, segmentation and coalescing, over one TUN read of 44 packets.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use ployz_dataplane::offload::checksum::Sum;
use ployz_dataplane::offload::{Capabilities, Coalescer, Segments};

use crate::support::packets::{SEGMENTS, tcp_read};

const BUFFERS: usize = 8;

pub(crate) fn checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    let bytes = vec![0x5a; 65_536];
    for len in [20, 64, 1_420, 65_000] {
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            bencher.iter(|| Sum::of(black_box(&bytes[6..6 + len])));
        });
    }
    group.finish();
}

/// The copy of the read stands for the kernel's; `copy` is what it takes alone.
pub(crate) fn segment(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("segment");
    group.throughput(Throughput::Elements(SEGMENTS as u64));
    let read = tcp_read();
    let mut buffer = read.clone();
    group.bench_function("copy", |bencher| {
        bencher.iter(|| black_box(&mut buffer).copy_from_slice(&read));
    });
    group.bench_function("tcp", |bencher| {
        bencher.iter(|| {
            buffer.copy_from_slice(&read);
            let mut segments = Segments::from_read(&mut buffer).unwrap();
            while let Some(packet) = segments.next_packet() {
                black_box(packet);
            }
        });
    });
    group.finish();
}

pub(crate) fn coalesce(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("coalesce");
    group.throughput(Throughput::Elements(SEGMENTS as u64));
    let mut read = tcp_read();
    let mut segments = Segments::from_read(&mut read).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = segments.next_packet() {
        packets.push(packet.to_vec());
    }
    let mut coalescer = Coalescer::new(
        Capabilities {
            tcp: true,
            udp: true,
        },
        BUFFERS,
    );
    group.bench_function("tcp", |bencher| {
        bencher.iter(|| {
            for packet in &packets {
                assert!(coalescer.push(packet));
            }
            coalescer.flush();
            while let Some(buffer) = coalescer.pop_ready() {
                coalescer.recycle(black_box(buffer));
            }
        });
    });
    group.finish();
}
