//! Changes to an engine's configuration, and descriptions of its state.
//!
//! An [`Update`] has the shape of one `set` of the WireGuard userspace protocol, so `wg`, a configuration file and a
//! control plane all speak the same way. It is applied whole or not at all.

use std::net::SocketAddr;
use std::time::Instant;

use ipnet::IpNet;

use crate::drops::Drops;
use crate::key::{PresharedKey, PrivateKey, PublicKey};
use crate::path::batches::Batches;
use crate::rtt::RttSnapshot;
use crate::tunnel::Tai64n;

/// Peers per engine: a two-hundred-and-fiftieth of the 2^24 indices, so that a random one is nearly always free.
pub const MAX_PEERS: usize = 1 << 16;

/// Changes to one interface. `None` leaves a thing as it is.
#[derive(Debug, Default)]
pub struct Update {
    /// `Some(None)` takes the key away.
    pub private_key: Option<Option<PrivateKey>>,
    /// UDP port for both address families; 0 lets the kernel choose.
    pub listen_port: Option<u16>,
    /// Mark of outer packets (`SO_MARK`); 0 takes it away.
    pub fwmark: Option<u32>,
    /// Removes every peer before `peers` is read.
    pub replace_peers: bool,
    /// Applied in this order.
    pub peers: Vec<PeerUpdate>,
}

/// Changes to one peer.
#[derive(Debug)]
pub struct PeerUpdate {
    /// The peer; it is created if it is unknown and neither `remove` nor `update_only` is set.
    pub public_key: PublicKey,
    /// Removes the peer.
    pub remove: bool,
    /// Leaves an unknown peer unknown.
    pub update_only: bool,
    /// `Some(None)` takes the key away.
    pub preshared_key: Option<Option<PresharedKey>>,
    /// The endpoint until the peer is heard from elsewhere.
    pub endpoint: Option<SocketAddr>,
    /// The newest initiation that an earlier process took from the peer: no older one is taken.
    pub newest_initiation: Option<Tai64n>,
    /// Seconds of silence after which a keepalive is sent; 0 for never.
    pub persistent_keepalive_secs: Option<u16>,
    /// Takes all allowed IPs away before `allowed_ips` is read.
    pub replace_allowed_ips: bool,
    /// Applied in this order.
    pub allowed_ips: Vec<AllowedIpChange>,
}

impl PeerUpdate {
    /// An update that names the peer and changes nothing else.
    pub const fn new(public_key: PublicKey) -> Self {
        Self {
            public_key,
            remove: false,
            update_only: false,
            preshared_key: None,
            endpoint: None,
            newest_initiation: None,
            persistent_keepalive_secs: None,
            replace_allowed_ips: false,
            allowed_ips: Vec::new(),
        }
    }
}

/// A prefix given to a peer or taken from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowedIpChange {
    /// Gives the prefix to this peer; another peer that had it loses it.
    Add(IpNet),
    /// Takes the prefix away if this peer has it.
    Remove(IpNet),
}

/// Everything an engine holds: the answer to one `get` of the userspace protocol.
#[derive(Debug)]
pub struct Description {
    /// Our private key, if set.
    pub private_key: Option<PrivateKey>,
    /// In the order in which the peers were added.
    pub peers: Vec<PeerDescription>,
}

/// A peer within a [`Description`].
#[derive(Debug)]
pub struct PeerDescription {
    /// State that changes with traffic.
    pub state: PeerSnapshot,
    /// The preshared key, if set.
    pub preshared_key: Option<PresharedKey>,
    /// Seconds; 0 for off.
    pub persistent_keepalive_secs: u16,
    /// In ascending order.
    pub allowed_ips: Vec<IpNet>,
}

/// State that changes with traffic, small enough to be taken every second.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// In the order in which the peers were added.
    pub peers: Vec<PeerSnapshot>,
    /// Counts of drops, by reason.
    pub drops: Drops,
}

/// A peer within a [`Snapshot`].
#[derive(Clone, Debug)]
pub struct PeerSnapshot {
    /// The peer.
    pub public_key: PublicKey,
    /// The endpoint that it was last heard from, or that was configured.
    pub endpoint: Option<SocketAddr>,
    /// Bytes of authenticated messages received, headers included.
    pub rx_bytes: u64,
    /// Bytes of messages sent, headers included.
    pub tx_bytes: u64,
    /// The time at which the last handshake was completed, on the engine's clock.
    pub last_handshake: Option<Instant>,
    /// The timestamp of the newest initiation that was taken from it.
    pub newest_initiation: Option<Tai64n>,
    /// Packets that wait for a handshake.
    pub staged_packets: usize,
    /// The longest IP packet that reaches it, outside the tunnel, in bytes; none before it was measured.
    pub path_mtu: Option<usize>,
    /// The state of the test whether batches reach it as they were sent.
    pub batches: Batches,
    /// The round trips to it; none before it had a session.
    pub rtt: Option<RttSnapshot>,
}

impl PeerSnapshot {
    /// A peer with which nothing has happened yet.
    pub const fn unheard(public_key: PublicKey) -> Self {
        Self {
            public_key,
            endpoint: None,
            rx_bytes: 0,
            tx_bytes: 0,
            last_handshake: None,
            newest_initiation: None,
            staged_packets: 0,
            path_mtu: None,
            batches: Batches::Untested,
            rtt: None,
        }
    }
}

/// An [`Update`] that cannot be applied; nothing of it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// More peers than receiver indices allow.
    #[error("an interface holds at most {max} peers; remove some first", max = MAX_PEERS)]
    TooManyPeers,
}
