//! UDP load: a paced sender, a counting sink, and the search for the highest rate between them.

pub(crate) mod datagram;
pub(crate) mod pace;
pub(crate) mod search;
pub(crate) mod sender;
pub(crate) mod sink;
pub(crate) mod trial;

/// The load that is sent, and the way in which the kernel gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) payload_bytes: usize,
    pub(crate) offload: Offload,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offload {
    /// A datagram per message, in batches of `sendmmsg` and `recvmmsg`.
    None,
    /// UDP_SEGMENT and UDP_GRO: many datagrams a message.
    Segmentation,
}
