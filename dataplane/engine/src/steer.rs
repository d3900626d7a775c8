//! A prefix and the shard that packets to it go to.

use ipnet::IpNet;

/// Prefixes that may belong to another peer than before, with repetitions.
pub(crate) type Moved = Vec<IpNet>;

/// A prefix and the shard that packets to it go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steer {
    /// The destinations; longer prefixes have exceptions from it.
    pub prefix: IpNet,
    /// None if no peer has the prefix any more.
    pub shard: Option<usize>,
}
