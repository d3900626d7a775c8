//! The whole way through the data plane without I/O: from a read of one TUN to writes of another.

use criterion::{Criterion, Throughput};

use crate::support::packets::{SEGMENTS, tcp_read, udp_read};
use crate::support::pair::Pair;

pub(crate) fn whole(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("way");
    let cases = [("tcp", tcp_read(), SEGMENTS), ("udp64", udp_read(64), 1)];
    for (name, read, packets) in cases {
        group.throughput(Throughput::Elements(packets as u64));
        // A session each: it counts packets, and lives for three minutes.
        let mut pair = Pair::new();
        group.bench_function(format!("{name}/sealed"), |bencher| {
            bencher.iter(|| assert_eq!(pair.seal(&read), packets));
        });
        let mut pair = Pair::new();
        group.bench_function(format!("{name}/carried"), |bencher| {
            bencher.iter(|| assert!(pair.carry(&read) > 0));
        });
    }
    group.finish();
}
