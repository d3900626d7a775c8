//! Replays what the fuzzers found worth keeping, with nothing but the stable toolchain.

use std::fs;
use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
pub mod targets;

/// Runs a target on every file of its corpus.
fn replay(name: &str, target: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let paths: Vec<_> = fs::read_dir(&directory)
        .expect("the corpus is readable")
        .map(|entry| entry.expect("the corpus is readable").path())
        .collect();
    assert!(!paths.is_empty(), "{} is empty", directory.display());
    for path in paths {
        let bytes = fs::read(&path).expect("the corpus is readable");
        let replayed = std::panic::catch_unwind(|| target(&bytes));
        assert!(replayed.is_ok(), "{}", path.display());
    }
}

#[test]
fn frame() {
    replay("frame", targets::frame);
}

#[test]
fn request() {
    replay("request", targets::request);
}

#[test]
fn token() {
    replay("token", targets::token);
}
