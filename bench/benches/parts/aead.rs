//! Sealing and opening one packet with boringtun's `Tunn`, as the engine does.

use std::hint::black_box;
use std::time::{Duration, Instant};

use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use criterion::{BenchmarkId, Criterion, Throughput};

const SIZES: [usize; 3] = [64, 512, 1420];
const OVERHEAD: usize = 32;
/// Datagrams opened in one go: one can be opened only once.
const RUN: usize = 64;

pub(crate) fn seal_and_open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("aead");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let (mut a, mut b) = session();
        let packet = ipv4_packet(size);
        let mut sealed = vec![0; size + OVERHEAD];
        group.bench_function(BenchmarkId::new("seal", size), |bencher| {
            bencher.iter(|| seal(&mut a, black_box(&packet), &mut sealed));
        });
        group.bench_function(BenchmarkId::new("open", size), |bencher| {
            bencher.iter_custom(|times| opened(&mut a, &mut b, &packet, times));
        });
    }
    group.finish();
}

fn opened(a: &mut Tunn, b: &mut Tunn, packet: &[u8], times: u64) -> Duration {
    let mut datagrams = vec![vec![0; packet.len() + OVERHEAD]; RUN];
    let mut room = vec![0; packet.len() + OVERHEAD];
    let mut total = Duration::ZERO;
    let mut left = usize::try_from(times).unwrap();
    while left > 0 {
        let run = left.min(RUN);
        datagrams[..run]
            .iter_mut()
            .for_each(|sealed| seal(a, packet, sealed));
        let started = clock();
        for datagram in &datagrams[..run] {
            let result = b.decapsulate(None, datagram, &mut room);
            assert!(matches!(result, TunnResult::WriteToTunnelV4(..)));
        }
        total += started.elapsed();
        left -= run;
    }
    total
}

fn seal(tunn: &mut Tunn, packet: &[u8], sealed: &mut [u8]) {
    let result = tunn.encapsulate(packet, sealed);
    assert!(matches!(result, TunnResult::WriteToNetwork(_)));
}

/// Two ends of one session.
fn session() -> (Tunn, Tunn) {
    let (key_a, key_b) = (StaticSecret::from([1; 32]), StaticSecret::from([2; 32]));
    let (public_a, public_b) = (PublicKey::from(&key_a), PublicKey::from(&key_b));
    let mut a = Tunn::new(key_a, public_b, None, None, 1, None);
    let mut b = Tunn::new(key_b, public_a, None, None, 2, None);
    let mut buffer = [0; 2048];
    let initiation = message(a.format_handshake_initiation(&mut buffer, false));
    let response = message(b.decapsulate(None, &initiation, &mut buffer));
    let keepalive = message(a.decapsulate(None, &response, &mut buffer));
    assert!(matches!(
        b.decapsulate(None, &keepalive, &mut buffer),
        TunnResult::Done
    ));
    (a, b)
}

fn message(result: TunnResult<'_>) -> Vec<u8> {
    let TunnResult::WriteToNetwork(bytes) = result else {
        panic!("no message: {result:?}")
    };
    bytes.to_vec()
}

fn ipv4_packet(size: usize) -> Vec<u8> {
    let mut packet = vec![0x5a; size];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&u16::try_from(size).unwrap().to_be_bytes());
    packet
}

#[expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn clock() -> Instant {
    Instant::now()
}
