//! What is known of the packet around a datagram.

use crate::ecn::Ecn;

/// Nanoseconds since 1970 on the wall clock, as the kernel stamps packets.
pub type WallNs = u64;

/// The outer packet of a datagram that came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outer {
    /// ECN bits of its header.
    pub ecn: Ecn,
    /// When the kernel had it from the driver. None if the kernel does not say, or if several came as one.
    pub arrived: Option<WallNs>,
}

impl From<Ecn> for Outer {
    fn from(ecn: Ecn) -> Self {
        Self { ecn, arrived: None }
    }
}
