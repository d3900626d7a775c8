//! The data plane of ployz: WireGuard between a TUN and UDP sockets, on io_uring or epoll.
//!
//! ```text
//!   TUN --read--> offload::Segments --> Engine::encapsulate --> SendBatch --sendmsg--> UDP
//!   TUN <--write-- offload::Coalescer <-- Engine::handle_datagram <-- recvmsg (GRO) -- UDP
//! ```
//!
//! A [`Device`] is an interface and its threads. Each thread runs one `shard`, which is all of the logic and no I/O, in
//! one of the two loops in `driver`. All unsafe code is in `sys`.

mod backend;
mod batch;
pub mod config_file;
mod congestion;
mod descriptors;
mod device;
mod driver;
mod egress;
mod inbox;
mod inherited_fds;
mod interface;
mod neighbours;
pub mod netlink;
pub mod offload;
mod options;
mod parts;
mod shard;
mod shards;
mod steering;
mod sys;
pub mod uapi;
mod worker;

pub use backend::{Backend, BackendChoice};
pub use batch::{BATCH_LEN_MAX, SendBatch};
pub use device::{Adoption, Device, DeviceSnapshot, Offloads};
pub use egress::{Egress, PacketIo};
pub use inherited_fds::InheritedFds;
pub use options::{DeviceError, DeviceOptions};
pub use parts::AdoptError;
pub use shard::Shard;
pub use sys::control::Received;
pub use sys::message::Arrival;
pub use sys::ring::RingDepth;
pub use sys::tun::TunError;
