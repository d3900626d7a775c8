//! Joins packets that came out of the tunnel into super-packets for the TUN.
//!
//! The owner opens each datagram straight into the room that [`Coalescer::reserve`] lends, says
//! with [`Reservation::commit`] how long the packet is, and once per turn flushes and writes:
//!
//! ```text
//! for each datagram: coalescer.reserve(len)?, open into it, .commit(packet_len) or drop it
//! coalescer.flush()
//! while let Some(buffer) = coalescer.pop_ready() { /* TUN write */ }
//! on completion: coalescer.recycle(buffer)
//! ```
//!
//! Coalescing is invisible: cutting what is written gives the committed packets, in their order
//! within every flow. The two exceptions mean nothing to a receiver: the identification of an
//! IPv4 packet that must not be fragmented, and UDP datagrams without a checksum, which get one.
//!
//! Room is lent where the packet's payload continues the super-packet that grew last, with the
//! header on top of the payload's end, which is saved meanwhile. So the usual packet is not copied.

use std::collections::VecDeque;
use std::ops::Range;

use super::VnetHeader;
use super::batch::{Batch, HEADER_LEN_MAX};
use super::buffer::TunBuffer;
use super::flow::{Class, Flow, Segment, classify};

/// Open super-packets at a time.
const FLOWS_MAX: usize = 8;

/// Which super-packets the TUN takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    pub tcp: bool,
    /// Since Linux 6.2.
    pub udp: bool,
}

/// The super-packets of one TUN queue, and the buffers they are made in.
#[derive(Debug)]
pub struct Coalescer {
    capabilities: Capabilities,
    /// Used last in, first out: the one on top is the one in the cache.
    free: Vec<TunBuffer>,
    /// The one that grew last is at the end; a flow has at most one.
    open: Vec<Batch>,
    ready: VecDeque<TunBuffer>,
    reserved: Option<Reserved>,
    /// What the header of a packet in a batch's tail covers.
    covered: [u8; HEADER_LEN_MAX],
}

/// Room that is lent. Dropping it takes it back.
#[derive(Debug)]
pub struct Reservation<'a> {
    coalescer: &'a mut Coalescer,
}

/// Where the lent room is.
#[derive(Debug, Clone)]
enum Reserved {
    /// In the last open batch.
    Tail(Range<usize>),
    /// In the free buffer on top.
    Fresh(Range<usize>),
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
            reserved: None,
            covered: [0; HEADER_LEN_MAX],
        }
    }

    /// Lends `len` bytes to open a packet into. The AEAD's tag and padding may be among them.
    ///
    /// None if no buffer is free, and then flushing, writing and recycling helps; or if `len` is
    /// more than a buffer holds behind the vnet header, which no datagram is.
    pub fn reserve(&mut self, len: usize) -> Option<Reservation<'_>> {
        self.abandon();
        // Even a packet in a batch's tail may turn out to need a buffer of its own.
        let fresh = self.free.last()?.packet();
        if len > fresh.len() {
            return None;
        }
        let tail = self.open.last_mut().and_then(|batch| {
            let range = batch.tail(len)?;
            let covered = range.start..range.start + batch.header_len();
            self.covered[..covered.len()].copy_from_slice(&batch.packet()[covered]);
            Some(Reserved::Tail(range))
        });
        self.reserved = tail.or(Some(Reserved::Fresh(0..len)));
        Some(Reservation { coalescer: self })
    }

    /// Closes every super-packet.
    pub fn flush(&mut self) {
        self.abandon();
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

    /// How many buffers are neither open, ready nor in flight. With at least as many as datagrams
    /// to open, every [`Self::reserve`] succeeds.
    #[must_use]
    pub fn buffers_free(&self) -> usize {
        self.free.len()
    }

    fn commit(&mut self, len: usize) {
        let Some(reserved) = self.reserved.take() else {
            return;
        };
        match reserved {
            Reserved::Tail(range) => {
                self.commit_tail(range.start..range.end.min(range.start + len))
            }
            Reserved::Fresh(range) => {
                let len = range.end.min(len);
                if let Some(fresh) = self.free.last() {
                    let class = classify(&fresh.packet()[..len]);
                    self.commit_fresh(class, len);
                }
            }
        }
    }

    /// The packet lies in the last batch. Either it continues that, or it moves out.
    fn commit_tail(&mut self, range: Range<usize>) {
        let (Some(batch), Some(fresh)) = (self.open.last_mut(), self.free.last_mut()) else {
            return;
        };
        let len = range.len();
        let packet = &batch.packet()[range.clone()];
        let class = classify(packet);
        let next = match class {
            Class::Segment(segment) if batch.is_continued_by(&segment, packet) => Some(segment),
            Class::Segment(_) | Class::Alone(_) | Class::Opaque => {
                fresh.packet_mut()[..len].copy_from_slice(packet);
                None
            }
        };
        uncover(batch, range.start, &self.covered);
        let Some(segment) = next else {
            return self.commit_fresh(class, len);
        };
        batch.append(&segment);
        if batch.is_full() {
            self.close(self.open.len() - 1);
        }
    }

    /// The packet lies at the start of the free buffer on top.
    fn commit_fresh(&mut self, class: Class, len: usize) {
        match class {
            Class::Segment(segment) if self.is_capable(&segment) => {
                if !self.append_copy(&segment, len) {
                    self.close_flow(segment.flow());
                    self.open(segment);
                }
            }
            Class::Segment(segment) => {
                self.close_flow(segment.flow());
                self.send_alone(len);
            }
            Class::Alone(flow) => {
                self.close_flow(flow);
                self.send_alone(len);
            }
            Class::Opaque => {
                self.flush();
                self.send_alone(len);
            }
        }
    }

    fn is_capable(&self, segment: &Segment) -> bool {
        match segment.is_tcp() {
            true => self.capabilities.tcp,
            false => self.capabilities.udp,
        }
    }

    /// Continues a super-packet of the same flow if there is one that this continues.
    fn append_copy(&mut self, segment: &Segment, len: usize) -> bool {
        let (Some(index), Some(fresh)) = (self.position(segment.flow()), self.free.last()) else {
            return false;
        };
        let batch = &mut self.open[index];
        let packet = &fresh.packet()[..len];
        if !batch.is_first_good() || !batch.is_continued_by(segment, packet) {
            return false;
        }
        batch.append_copy(segment, packet);
        if batch.is_full() {
            self.close(index);
        } else {
            self.open[index..].rotate_left(1);
        }
        true
    }

    fn open(&mut self, segment: Segment) {
        if self.open.len() == FLOWS_MAX {
            self.close(0);
        }
        let Some(buffer) = self.free.pop() else {
            return;
        };
        let batch = Batch::new(buffer, segment);
        match batch.is_full() {
            true => self.ready.push_back(batch.finish()),
            false => self.open.push(batch),
        }
    }

    fn send_alone(&mut self, len: usize) {
        if let Some(mut buffer) = self.free.pop() {
            buffer.finish(VnetHeader::Whole, len);
            self.ready.push_back(buffer);
        }
    }

    fn position(&self, flow: Flow) -> Option<usize> {
        self.open.iter().position(|batch| batch.flow() == flow)
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

    /// Takes lent room back as if nothing had been written to it.
    fn abandon(&mut self) {
        if let Some(Reserved::Tail(range)) = self.reserved.take()
            && let Some(batch) = self.open.last_mut()
        {
            uncover(batch, range.start, &self.covered);
        }
    }
}

/// Restores what the header of a packet in the batch's tail covered.
fn uncover(batch: &mut Batch, start: usize, covered: &[u8; HEADER_LEN_MAX]) {
    let covered = &covered[..batch.header_len()];
    batch.packet_mut()[start..start + covered.len()].copy_from_slice(covered);
}

impl Reservation<'_> {
    /// What is lent. It holds rubbish: old packets, and payload that is put back afterwards.
    pub fn room(&mut self) -> &mut [u8] {
        let coalescer = &mut *self.coalescer;
        let (packet, range) = match &coalescer.reserved {
            Some(Reserved::Tail(range)) => {
                let batch = coalescer.open.last_mut().map(Batch::packet_mut);
                (batch, range.clone())
            }
            Some(Reserved::Fresh(range)) => {
                let buffer = coalescer.free.last_mut().map(TunBuffer::packet_mut);
                (buffer, range.clone())
            }
            None => (None, 0..0),
        };
        packet.map_or(&mut [], |packet| &mut packet[range])
    }

    /// The first `len` bytes are a packet for the TUN. Without any it is as if dropped.
    pub fn commit(self, len: usize) {
        if len > 0 {
            self.coalescer.commit(len);
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.coalescer.abandon();
    }
}

#[cfg(test)]
mod tests;
