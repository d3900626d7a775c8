//! WireGuard without I/O: peers, allowed IPs, endpoints, staged packets, handshakes, deadlines.
//!
//! An [`Engine`] takes packets, datagrams and time, and writes what comes of them into the caller's [`Sink`]. It opens
//! no socket, starts no thread, reads no clock and draws no randomness but from its [`Sources`].

#![forbid(unsafe_code)]

mod allowed_ips;
mod apply;
mod clock;
mod drops;
mod ecn;
mod egress;
mod endpoint;
mod engine;
mod forwarding;
mod handoff;
mod ingress;
mod key;
mod measuring;
mod message;
mod outer_header;
mod packet;
mod path;
mod peer;
mod peer_id;
mod probe;
mod probing;
mod reflection;
mod rtt;
mod sealing;
mod secret;
mod shard_map;
mod sink;
mod sources;
mod staged;
mod stamp;
mod steer;
mod steering;
mod tunnel;
mod update;

#[cfg(test)]
mod tests;

pub use allowed_ips::AllowedIps;
pub use clock::{ReadClocks, Reading};
pub use drops::{Drop, Drops};
pub use ecn::Ecn;
pub use egress::{PADDING_MULTIPLE, Route};
pub use endpoint::{Endpoint, LocalAddress};
pub use engine::Engine;
pub use handoff::{HANDOFFS_MAX, Handoff};
pub use key::{InvalidKey, KEY_LEN, PresharedKey, PrivateKey, PublicKey};
pub use message::DATA_OVERHEAD_LEN;
pub use outer_header::{OuterHeader, WallNs};
pub use packet::PacketHead;
pub use path::batches::Batches;
pub use reflection::{TestArrival, reflect};
pub use rtt::{
    BUCKETS_US, BURST_LEN, Counts, Histogram, RttSnapshot, Sample, Summary, WINDOW_LEN, Window,
    burst_duration,
};
pub use sealing::seal_messages;
pub use shard_map::{SHARDS_MAX, ShardMap};
pub use sink::{Departure, SendMode, Sink};
pub use sources::{Random, Sources, UnixTime};
pub use stamp::Stamper;
pub use steer::Steer;
pub use tunnel::Tai64n;
pub use update::{
    AllowedIpChange, Description, MAX_PEERS, PeerDescription, PeerSnapshot, PeerUpdate, Snapshot,
    Update, UpdateError,
};
