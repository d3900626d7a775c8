//! The operations of the protocol.

/// The operations that a client can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `get=1`
    Get,
    /// `set=1`
    Set,
    /// `status=1`
    Status,
    /// `measure=COUNT`
    Measure(u16),
}
