//! Whole machines in one process, without root: real servers of the store, real QUIC, and no interface of the overlay.
//! Each machine's overlay address is one of the loopback network, which the host has anyway.
//!
//! ```text
//!   m1 127.a.b.1      management 51821, nats-server 4222 ─┐
//!   m2 127.a.(b+1).1  the same ──────────────────────────┼── lo
//!   m3 127.a.(b+2).1  the same ──────────────────────────┘
//! ```
//!
//! They take the servers of `scripts/setup quick`; `scripts/test` asks for them.

mod certificates;
mod cluster;
mod credentials;
mod crowd;
mod events;
mod invites;
mod labels;
mod membership;
mod mesh;
mod operations;
mod provision;
mod relay;
mod removal;
mod reports;
mod requests;
mod server;
mod storage;
mod streams;
mod workloads;
