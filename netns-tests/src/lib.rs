//! Real daemons on real topologies, in network namespaces that the test makes and removes.
//!
//! A story is one file in `tests/stories/`, with its topology drawn at the top. It gets a [`Stage`], which owns
//! every name that could collide with another process, and builds on it: [`Netns`] for hosts and cables,
//! [`Daemon`] for what runs on them, [`Wg`] for the stock `wg` tool, [`traffic`] for what flows. Most
//! stories start from [`Pair`]: two hosts, one cable, one tunnel.
//!
//! Nothing sleeps: [`wait`] polls a condition until a deadline, and every command that is run has one.
//!
//! The daemon under test is `ployzd dataplane`, once per I/O backend. `PLOYZ_UNDER_TEST=wireguard-go` (or `boringtun`,
//! `gotatun`) runs the same stories on another implementation, which tells a fault of the story from a fault of the
//! daemon. `PLOYZ_SHARDS=4` tells those of `ployzd` on four shards, where a story does not choose itself.

pub mod attack;
pub mod cluster;
pub mod command;
pub mod contender;
pub mod counters;
pub mod daemon;
pub mod delay_link;
pub mod forged_handshake;
pub mod hoard;
pub mod joiner;
pub mod lab;
pub mod machine_client;
pub mod netns;
pub mod numbered;
pub mod operator;
pub mod pair;
pub mod peer_swarm;
pub mod quic_client;
pub mod relay;
pub mod release;
pub mod rogue;
pub mod routed;
pub mod rtt_pair;
pub mod stage;
mod story;
pub mod supervisor;
pub mod traffic;
pub mod tripwire;
pub mod uapi;
pub mod wait;
pub mod wg;
pub mod workloads;

pub use contender::{Backend, Contender};
pub use daemon::Daemon;
pub use lab::Lab;
pub use netns::Netns;
pub use pair::{Host, Pair, Plan};
pub use stage::Stage;
pub use story::{Outcome, tell, tell_with};
pub use wg::{Keys, Wg};
