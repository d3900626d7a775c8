//! The cost of the data plane's parts, with Criterion. `scripts/bench micro [filter]`.

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot run has nothing to say"
)]

mod aead;
mod allowed_ips;
mod offload;
#[path = "../support/mod.rs"]
mod support;
mod uapi;
mod way;

use criterion::{criterion_group, criterion_main};

criterion_group!(
    parts,
    aead::seal_and_open,
    allowed_ips::lookup,
    offload::checksum,
    offload::segment,
    offload::coalesce,
    uapi::parse_and_render,
    way::whole,
);
criterion_main!(parts);
