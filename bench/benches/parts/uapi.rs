//! The userspace protocol: `wg setconf` and `wg show` with many peers.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use ployz_dataplane::uapi::parse::{Request, parse};
use ployz_dataplane::uapi::{InterfaceDescription, render};
use ployz_engine::{Departure, Drop, Endpoint, Engine, ShardMap, Sink, Sources};

pub(crate) fn parse_and_render(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("uapi");
    for peers in [1, 1_000_u32] {
        let request = request(peers);
        group.bench_function(BenchmarkId::new("parse", peers), |bencher| {
            bencher.iter(|| parse(black_box(request.as_bytes()), |_| None).unwrap());
        });
        let interface = interface(&request);
        group.bench_function(BenchmarkId::new("render", peers), |bencher| {
            bencher.iter(|| render::description(black_box(&interface)));
        });
    }
    group.finish();
}

fn request(peers: u32) -> String {
    let mut text = format!("set=1\nprivate_key={:064x}\nlisten_port=51820\n", 7);
    for number in 1..=peers {
        let [_, _, high, low] = number.to_be_bytes();
        let _ = write!(
            text,
            "public_key={number:064x}\nendpoint=192.0.2.1:51820\n\
             persistent_keepalive_interval=25\nallowed_ip=10.78.{high}.{low}/32\n"
        );
    }
    text + "\n"
}

fn interface(request: &str) -> InterfaceDescription {
    let Ok(Request::Set(update)) = parse(request.as_bytes(), |_| None) else {
        panic!("this is a request to set")
    };
    let now = clock();
    let sources = Sources {
        random: Box::new(rand::fill::<[u8]>),
        unix_time: Box::new(|| Duration::ZERO),
    };
    let mut engine = Engine::new(ShardMap::ONLY, sources);
    engine.apply(now, &update, &mut Nowhere).unwrap();
    let device = engine.describe();
    let unix_now = Duration::from_secs(1_800_000_000);
    InterfaceDescription {
        listen_port: 51_820,
        fwmark: 0,
        device,
        now,
        unix_now,
    }
}

/// Keepalives begin handshakes, which are received nowhere.
struct Nowhere;

impl Sink for Nowhere {
    fn datagram(&mut self, _: usize, _: &Endpoint, _: Departure, _: impl FnOnce(&mut [u8])) {}

    fn part(&mut self) {}

    fn packet(&mut self, _: &[u8]) -> Result<(), Drop> {
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the engine takes the time as an argument"
)]
fn clock() -> Instant {
    Instant::now()
}
