//! What a configuration file says.

use ipnet::IpNet;
use ployz_engine::Update;

/// What a file says.
#[derive(Debug, Default)]
pub struct Config {
    /// What `wg setconf` would set.
    pub update: Update,
    /// The interface's own addresses, each with the length of its network's prefix.
    pub addresses: Vec<IpNet>,
    /// The interface's MTU.
    pub mtu: Option<u32>,
}
