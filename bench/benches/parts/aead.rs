//! Sealing and opening packets of one session, some at a time: the last of one datagram train is alone as often as not,
//! and a full train is taken in groups of sixteen.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use ployz_aead::{GROUP_LEN_MAX, Key, Message, TAG_LEN};

const SIZES: [usize; 3] = [64, 512, 1420];
const GROUPS: [usize; 4] = [1, 4, 8, GROUP_LEN_MAX];

pub(crate) fn seal_and_open(criterion: &mut Criterion) {
    let key = Key::new(&[7; 32]);
    for size in SIZES {
        for count in GROUPS {
            let mut group = criterion.benchmark_group(format!("aead of {size} bytes"));
            group.throughput(Throughput::Bytes((size * count) as u64));
            let mut buffers = vec![vec![0x5a; size + TAG_LEN]; count];
            group.bench_function(BenchmarkId::new("seal", count), |bencher| {
                bencher.iter(|| key.seal(black_box(&mut messages(&mut buffers)[..count])));
            });
            group.bench_function(BenchmarkId::new("open", count), |bencher| {
                bencher.iter_custom(|times| opened(&key, &mut buffers, times));
            });
            group.finish();
        }
    }
}

/// How long it takes to open a group so many times, without the time it takes to seal it again.
fn opened(key: &Key, buffers: &mut [Vec<u8>], times: u64) -> Duration {
    let count = buffers.len();
    let mut total = Duration::ZERO;
    for _ in 0..times {
        key.seal(&mut messages(buffers)[..count]);
        let mut group = messages(buffers);
        let started = clock();
        let authentic = key.open(&mut group[..count]);
        total += started.elapsed();
        assert!((0..count).all(|index| authentic.contains(index)));
    }
    total
}

fn messages(buffers: &mut [Vec<u8>]) -> [Message<'_>; GROUP_LEN_MAX] {
    let mut buffers = (0..).zip(buffers);
    std::array::from_fn(|_| {
        buffers
            .next()
            .map_or_else(Message::default, |(counter, bytes)| Message {
                counter,
                bytes,
            })
    })
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn clock() -> Instant {
    Instant::now()
}
