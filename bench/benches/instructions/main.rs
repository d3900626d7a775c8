//! Instructions a packet, counted by callgrind: the same number on a busy machine.
//!
//! The program runs itself under valgrind twice for every case, with a few packets and with many;
//! the difference is the packets' alone. valgrind knows no AVX-512, so ring takes its AVX2 code.
//!
//! `scripts/bench instructions`

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot run has nothing to say"
)]

#[path = "../support/mod.rs"]
mod support;

use std::io::Write as _;
use std::process::Command;

use support::packets::{SEGMENTS, tcp_read, udp_read};
use support::pair::Pair;

const CASE: &str = "PLOYZ_BENCH_CASE";
const TURNS: &str = "PLOYZ_BENCH_TURNS";
const FEW: u64 = 20;
const MANY: u64 = 220;

/// Its name, the read that it repeats, how many packets that is, and whether they are received.
type Case = (&'static str, Vec<u8>, u64, bool);

fn main() {
    if let (Ok(case), Ok(turns)) = (std::env::var(CASE), std::env::var(TURNS)) {
        return run(&case, turns.parse().unwrap_or(FEW));
    }
    let mut stdout = std::io::stdout().lock();
    for (name, _, packets, _) in cases() {
        let per_turn = (count(name, MANY) - count(name, FEW)) / (MANY - FEW);
        let per_packet = per_turn / packets;
        let _ = writeln!(stdout, "{name:<14} {per_packet:>7} instructions a packet");
    }
}

fn cases() -> [Case; 4] {
    let segments = SEGMENTS as u64;
    [
        ("tcp/sealed", tcp_read(), segments, false),
        ("tcp/carried", tcp_read(), segments, true),
        ("udp64/sealed", udp_read(64), 1, false),
        ("udp64/carried", udp_read(64), 1, true),
    ]
}

fn run(case: &str, turns: u64) {
    let found = cases().into_iter().find(|(name, ..)| *name == case);
    let (_, read, _, received) = found.expect("the parent knows the cases");
    let mut pair = Pair::new();
    for _ in 0..turns {
        if received {
            pair.carry(&read)
        } else {
            pair.seal(&read)
        };
    }
}

fn count(case: &str, turns: u64) -> u64 {
    let this = std::env::current_exe().expect("this program has a path");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .env(CASE, case)
        .env(TURNS, turns.to_string())
        .output()
        .expect("valgrind is installed");
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let collected = collected.and_then(|(_, number)| number.trim().parse().ok());
    collected.unwrap_or_else(|| panic!("valgrind counted nothing: {text}"))
}
