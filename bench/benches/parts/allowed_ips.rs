//! The longest prefix that contains an address.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{BenchmarkId, Criterion};
use ipnet::{IpNet, Ipv4Net};
use ployz_engine::AllowedIps;

const ADDRESSES: usize = 1024;

pub(crate) fn lookup(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("allowed_ips");
    for prefixes in [10, 1_000, 100_000_u32] {
        let mut table = AllowedIps::new();
        let mut random = Random(1);
        let networks: Vec<Ipv4Net> = (0..prefixes).map(|_| random.network()).collect();
        for (network, number) in networks.iter().zip(0_u32..) {
            table.insert(IpNet::V4(*network), number);
        }
        let addresses: Vec<IpAddr> = (0..ADDRESSES)
            .map(|_| IpAddr::V4(networks[random.below(networks.len())].addr()))
            .collect();
        let mut next = (0..ADDRESSES).cycle();
        group.bench_function(BenchmarkId::new("lookup", prefixes), |bencher| {
            bencher.iter(|| {
                let address = addresses[next.next().unwrap_or(0)];
                table.lookup(black_box(address))
            });
        });
    }
    group.finish();
}

/// Knuth's MMIX generator: the same prefixes in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound
    }

    /// Between /16 and /32, as clusters have them.
    fn network(&mut self) -> Ipv4Net {
        let length = 16 + (self.next() % 17) as u8;
        Ipv4Net::new_assert(Ipv4Addr::from(self.next()), length)
    }
}
