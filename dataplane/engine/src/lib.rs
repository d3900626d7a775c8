//! WireGuard without I/O.
mod drops;
mod key;
mod update;

pub use drops::{Drop, Drops};
pub use key::{InvalidKey, KEY_LEN, PresharedKey, PrivateKey, PublicKey};
pub use update::{
    AllowedIpChange, Description, PeerDescription, PeerSnapshot, PeerUpdate, Snapshot, Update, UpdateError,
};

/// Peers per engine.
pub const MAX_PEERS: usize = 1 << 16;
