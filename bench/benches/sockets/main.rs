//! A UDP socket driven in four variants: plain calls, calls in batches, tokio (epoll), tokio-uring.
//!
//! The cost of the data plane's own ring and epoll loops is measured whole, by `scripts/bench`: this
//! is why the loops are not built on tokio-uring. A thread sends to itself over loopback, bursts
//! that fit into the socket's buffer, so nothing is lost and nothing waits; the figure is the time
//! for each datagram, receive and send apart.
//!
//! `cargo bench -p ployz-bench --bench sockets`

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot run has nothing to say"
)]

mod variants;

use std::io::Write as _;
use std::time::Duration;

use variants::Variant;

const SIZES: [usize; 2] = [64, 1452];
/// Datagrams in a burst: 128 of 1,452 bytes take 300 KiB of socket buffer.
const BURST: usize = 128;
const BURSTS: usize = 2_000;
const ROUNDS: usize = 5;

/// Time for one datagram.
#[derive(Clone, Copy, Debug)]
struct Cost {
    send: Duration,
    receive: Duration,
}

fn main() {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(
        stdout,
        "{:<12} {:>6} {:>10} {:>10}",
        "variant", "bytes", "send ns", "receive ns"
    );
    for size in SIZES {
        let mut costs: Vec<(Variant, Vec<Cost>)> =
            Variant::ALL.map(|variant| (variant, Vec::new())).to_vec();
        // Interleaved: whatever the machine does meanwhile meets all of them.
        for _ in 0..ROUNDS {
            for (variant, costs) in &mut costs {
                costs.push(variant.run(size));
            }
        }
        for (variant, costs) in costs {
            let median = |cost: fn(&Cost) -> Duration| {
                let mut sorted: Vec<Duration> = costs.iter().map(cost).collect();
                sorted.sort_unstable();
                sorted[ROUNDS / 2].as_nanos()
            };
            let (send, receive) = (median(|cost| cost.send), median(|cost| cost.receive));
            let name = variant.name();
            let _ = writeln!(stdout, "{name:<12} {size:>6} {send:>10} {receive:>10}");
        }
    }
}
