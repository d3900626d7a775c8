//! The descriptors of an interface that outlive a process: the supervisor keeps them, each under a name, and passes
//! them to the next process.
//!
//! ```text
//!   tun-0 … tun-N        the queues of the TUN
//!   udp4-0, udp6-0 …     the sockets of each shard
//! ```

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use crate::sys::inherited;

/// The beginnings of the names; the number of the shard follows.
pub(crate) const TUN: &str = "tun-";
pub(crate) const UDP_V4: &str = "udp4-";
pub(crate) const UDP_V6: &str = "udp6-";

/// The descriptors that this process has inherited; see the module for their names.
#[derive(Debug, Default)]
pub struct InheritedFds(BTreeMap<String, OwnedFd>);

impl InheritedFds {
    /// Takes the descriptors that were passed to this process: none without a supervisor that keeps them, and none the
    /// second time. Descriptors of other names are closed.
    ///
    /// # Errors
    /// If the supervisor's variables contradict each other.
    pub fn take() -> io::Result<Self> {
        let ours = |name: &str| [TUN, UDP_V4, UDP_V6].iter().any(|it| name.starts_with(it));
        let passed = inherited::take()?.into_iter();
        Ok(Self(passed.filter(|(name, _)| ours(name)).collect()))
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of all.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Takes the descriptors of one kind out, in the order of the shards.
    pub(crate) fn of_kind(&mut self, kind: &str) -> Vec<OwnedFd> {
        (0..)
            .map_while(|shard| self.0.remove(&format!("{kind}{shard}")))
            .collect()
    }
}
