//! Replays what the fuzzers found worth keeping, with nothing but the stable toolchain.

use std::fs;
use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
pub mod targets;

/// Runs a target on every file of its corpus, in order of their names.
#[expect(
    clippy::print_stdout,
    reason = "shown if a test fails: which file it was at"
)]
fn replay(name: &str, target: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let entries = fs::read_dir(&directory).expect("the corpus is readable");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("the corpus is readable").path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", directory.display());
    for path in paths {
        let bytes = fs::read(&path).expect("the corpus is readable");
        // Only a failed test shows it: what it was at.
        println!("{}", path.display());
        target(&bytes);
    }
}

#[test]
fn outer_message() {
    replay("outer_message", targets::outer_message);
}

#[test]
fn inner_packet() {
    replay("inner_packet", targets::inner_packet);
}

#[test]
fn tun_read() {
    replay("tun_read", targets::tun_read);
}

#[test]
fn uapi() {
    replay("uapi", targets::uapi);
}

#[test]
fn config_file() {
    replay("config_file", targets::config_file);
}
