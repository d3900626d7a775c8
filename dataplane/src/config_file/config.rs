//! The contents of a configuration file.

use ipnet::IpNet;
use ployz_engine::Update;

/// The contents of a file.
#[derive(Debug, Default)]
pub struct Config {
    /// The changes that `wg setconf` would make.
    pub update: Update,
    /// The interface's own addresses, each with the length of its network's prefix.
    pub addresses: Vec<IpNet>,
    /// The interface's MTU.
    pub mtu: Option<u32>,
}
