//! Joins packets that came out of the tunnel into super-packets for the TUN.
//!
//! ```text
//! for each packet: coalescer.push(packet)
//! coalescer.flush()
//! while let Some(buffer) = coalescer.pop_ready() { /* TUN write */ }
//! on completion: coalescer.recycle(buffer)
//! ```
//!
//! Coalescing is invisible: cutting what is written gives the committed packets, in their order
//! within every flow. The two exceptions mean nothing to a receiver: the identification of an
//! IPv4 packet that must not be fragmented, and UDP datagrams without a checksum, which get one.

use std::collections::VecDeque;

use super::batch::Batch;
use super::buffer::TunBuffer;
use super::flow::{Class, Flow, Segment, classify};
use super::vnet::VnetHeader;

/// Open super-packets at a time. One is enough for TCP from a sender that segments; interleaved
/// flows of single UDP datagrams come to 1.0 packets a write with one and to 6-11 with eight.
const FLOWS_MAX: usize = 8;

/// The super-packets that the kernel takes from the TUN.
///
/// A kernel that claims to may still refuse some with EINVAL, as Linux 6.6.44 and 6.6.45 do those
/// with a short last segment. The write can be cut up again with [`super::Segments`] and the
/// capability taken away with [`Coalescer::set_capabilities`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    pub tcp: bool,
    /// Since Linux 6.2, but before 6.8.5 a super-packet that carries VXLAN gets lost.
    pub udp: bool,
}

/// The super-packets of one TUN queue, and the buffers they are made in.
#[derive(Debug)]
pub struct Coalescer {
    capabilities: Capabilities,
    /// Last in, first out: the one on top is in the cache.
    free: Vec<TunBuffer>,
    /// The one that grew last is at the end. A flow has at most one.
    open: Vec<Batch>,
    ready: VecDeque<TunBuffer>,
}

impl Coalescer {
    /// `buffers` is how many TUN writes can be open, ready or in flight at a time: the memory that
    /// the coalescer has for ever.
    #[must_use]
    pub fn new(capabilities: Capabilities, buffers: usize) -> Self {
        Self {
            capabilities,
            free: (0..buffers).map(|_| TunBuffer::new()).collect(),
            open: Vec::with_capacity(FLOWS_MAX),
            ready: VecDeque::with_capacity(buffers),
        }
    }

    /// Applies to packets committed from now on.
    pub fn set_capabilities(&mut self, capabilities: Capabilities) {
        self.capabilities = capabilities;
    }

    /// Takes a packet for the TUN. False if it does not follow others and no buffer is free, and then flushing, writing
    /// and recycling helps; or if it is longer than any packet. An empty one is nothing.
    pub fn push(&mut self, packet: &[u8]) -> bool {
        if packet.is_empty() {
            return true;
        }
        match classify(packet) {
            Class::Segment(segment) if self.is_capable(&segment) => {
                if self.join(&segment, packet) {
                    return true;
                }
                self.close_flow(segment.flow());
                self.open(segment, packet)
            }
            Class::Segment(segment) => {
                self.close_flow(segment.flow());
                self.send_alone(packet)
            }
            Class::Alone(flow) => {
                self.close_flow(flow);
                self.send_alone(packet)
            }
            Class::Opaque => {
                self.flush();
                self.send_alone(packet)
            }
        }
    }

    /// Closes every super-packet.
    pub fn flush(&mut self) {
        let ready = self.open.drain(..).map(Batch::finish);
        self.ready.extend(ready);
    }

    /// The next write, in order. Complete super-packets appear before the flush.
    pub fn pop_ready(&mut self) -> Option<TunBuffer> {
        self.ready.pop_front()
    }

    /// Takes a buffer back that was written.
    pub fn recycle(&mut self, buffer: TunBuffer) {
        self.free.push(buffer);
    }

    /// The number of buffers that are neither open, ready nor in flight. With at least as many as packets, every
    /// [`Self::push`] succeeds.
    #[must_use]
    pub fn buffers_free(&self) -> usize {
        self.free.len()
    }

    fn is_capable(&self, segment: &Segment) -> bool {
        match segment.is_tcp() {
            true => self.capabilities.tcp,
            false => self.capabilities.udp,
        }
    }

    /// Appends the packet to its flow's super-packet, if there is one that it continues.
    fn join(&mut self, segment: &Segment, packet: &[u8]) -> bool {
        let Some(index) = self.position(segment.flow()) else {
            return false;
        };
        let batch = &mut self.open[index];
        if !batch.append(segment, packet) {
            return false;
        }
        if batch.is_ended() {
            self.close(index);
        } else {
            self.open[index..].rotate_left(1);
        }
        true
    }

    fn open(&mut self, segment: Segment, packet: &[u8]) -> bool {
        let Some(buffer) = self.copy(packet) else {
            return false;
        };
        if self.open.len() == FLOWS_MAX {
            self.close(0);
        }
        let batch = Batch::new(buffer, segment);
        match batch.is_ended() {
            true => self.ready.push_back(batch.finish()),
            false => self.open.push(batch),
        }
        true
    }

    fn send_alone(&mut self, packet: &[u8]) -> bool {
        let Some(mut buffer) = self.copy(packet) else {
            return false;
        };
        buffer.finish(VnetHeader::Whole, packet.len());
        self.ready.push_back(buffer);
        true
    }

    /// A buffer with the packet in it.
    fn copy(&mut self, packet: &[u8]) -> Option<TunBuffer> {
        let room = self.free.last_mut()?.packet_mut();
        room.get_mut(..packet.len())?.copy_from_slice(packet);
        self.free.pop()
    }

    fn position(&self, flow: Flow) -> Option<usize> {
        self.open.iter().rposition(|batch| batch.flow() == flow)
    }

    fn close_flow(&mut self, flow: Flow) {
        if let Some(index) = self.position(flow) {
            self.close(index);
        }
    }

    fn close(&mut self, index: usize) {
        let batch = self.open.remove(index);
        self.ready.push_back(batch.finish());
    }
}

#[cfg(test)]
mod tests;
