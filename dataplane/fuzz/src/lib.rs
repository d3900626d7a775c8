//! The bodies of the fuzz targets: functions of bytes, which panic when something is wrong.
//!
//! A target reads its bytes as a small program (see `Input`), so that a fuzzer can reach what random datagrams never
//! would: a peer that is authenticated and hostile, a message with one bit changed. What comes out is held against a
//! model that is too simple to be wrong.
//!
//! `scripts/fuzz` explores; `dataplane/tests/corpus.rs` includes this file and replays `corpus/` in every test run.

mod config_file;
mod hosts;
mod inner_packet;
mod input;
mod outer_message;
mod packets;
mod tun_read;
mod uapi;

pub use config_file::config_file;
pub use inner_packet::inner_packet;
pub use outer_message::outer_message;
pub use tun_read::tun_read;
pub use uapi::uapi;
