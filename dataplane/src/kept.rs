//! Descriptors of an interface that have outlived a process: its supervisor has kept them, each under a name, and has
//! passed them to this one.
//!
//! ```text
//!   tun-0 … tun-N        the queues of the TUN
//!   udp4-0, udp6-0 …     the sockets of each shard
//! ```

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use crate::sys::inherited;

/// What the names begin with; the number of the shard follows.
pub(crate) const TUN: &str = "tun-";
pub(crate) const UDP_V4: &str = "udp4-";
pub(crate) const UDP_V6: &str = "udp6-";

/// See the module.
#[derive(Debug, Default)]
pub struct Kept(BTreeMap<String, OwnedFd>);

impl Kept {
    /// What was passed to this process; nothing without a supervisor that keeps descriptors, and nothing the second
    /// time. What has other names is closed.
    ///
    /// # Errors
    /// If the supervisor's word contradicts itself.
    pub fn take() -> io::Result<Self> {
        let ours = |name: &str| [TUN, UDP_V4, UDP_V6].iter().any(|it| name.starts_with(it));
        let passed = inherited::take()?.into_iter();
        Ok(Self(passed.filter(|(name, _)| ours(name)).collect()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Those of one kind, in the order of the shards.
    pub(crate) fn of_kind(&mut self, kind: &str) -> Vec<OwnedFd> {
        (0..)
            .map_while(|shard| self.0.remove(&format!("{kind}{shard}")))
            .collect()
    }
}
