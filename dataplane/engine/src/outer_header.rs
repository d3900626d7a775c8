//! The header of the packet around a datagram.

use crate::ecn::Ecn;

/// Nanoseconds since 1970 on the wall clock, as the kernel stamps packets.
pub type WallNs = u64;

/// Facts from the outer header of a datagram that was received, and from its arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OuterHeader {
    /// The ECN bits.
    pub ecn: Ecn,
    /// The time at which the kernel had it from its driver. None if the kernel does not say, or if several came as one.
    pub arrived: Option<WallNs>,
}

impl From<Ecn> for OuterHeader {
    fn from(ecn: Ecn) -> Self {
        Self { ecn, arrived: None }
    }
}
