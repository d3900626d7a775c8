//! The output of a shard: datagrams in batches, packets coalesced.
//!
//! The engine writes into an [`Egress`]. At the end of a turn the driver takes what is ready and gives it to the kernel
//! in its own way. If buffers run out within a turn, the egress sends and writes what is ready at once and in order, so
//! that nothing is lost and no memory is added.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ployz_aead::Key;
use ployz_engine::{Departure, Drop, Drops, Endpoint, LocalAddress, SendMode, Sink, WallNs};

use crate::batch::SendBatch;
use crate::offload::{Capabilities, Coalescer, TunBuffer};

/// Batches of 64 KiB. A turn of the ring reads at most eight buffers of each kind, and each becomes one or two batches.
const BATCHES: usize = 24;
/// TUN writes of 64 KiB: one for every buffer received in a turn, and as many open flows.
const TUN_BUFFERS: usize = 24;

/// Plain calls to the kernel, which wait: for a batch or a packet that the driver does not send in its own way.
pub trait PacketIo {
    /// Sends a batch in its mode.
    ///
    /// # Errors
    /// The kernel's error; the batch is lost then.
    fn send(&mut self, batch: &mut SendBatch) -> io::Result<()>;

    /// Sends a batch datagram by datagram.
    ///
    /// # Errors
    /// The kernel's error for one of them.
    fn send_singly(&mut self, batch: &mut SendBatch) -> io::Result<()>;

    /// Writes to the TUN.
    ///
    /// # Errors
    /// The kernel's error; the packet is lost then.
    fn write(&mut self, buffer: &TunBuffer) -> io::Result<()>;

    /// A datagram that was sent in [`SendMode::Stamped`] and when it left, if there is news at `now`.
    fn departure(&mut self, now: Instant) -> Option<(u32, WallNs)>;

    /// Bytes that wait to be received where datagrams of `remote` arrive, as the kernel counts memory.
    fn backlog(&self, remote: SocketAddr) -> usize;
}

/// The memory for a shard's output, and the packet I/O that empties it early; see the module.
#[derive(Debug)]
pub struct Egress<E> {
    io: E,
    coalescer: Coalescer,
    /// The batch that grows.
    open: Option<SendBatch>,
    ready: VecDeque<SendBatch>,
    /// Used last in, first out: the one on top is in the cache.
    spare: Vec<SendBatch>,
    /// Datagrams may leave in batches.
    udp_gso: bool,
    /// Source addresses that turned out to be gone.
    gone: Vec<LocalAddress>,
    drops: Drops,
}

impl<E: PacketIo> Egress<E> {
    /// An egress with all the memory it will ever have.
    pub fn new(io: E, tun: Capabilities, udp_gso: bool) -> Self {
        Self {
            io,
            coalescer: Coalescer::new(tun, TUN_BUFFERS),
            open: None,
            ready: VecDeque::with_capacity(BATCHES),
            spare: (0..BATCHES).map(|_| SendBatch::new()).collect(),
            udp_gso,
            gone: Vec::new(),
            drops: Drops::default(),
        }
    }

    /// The packet I/O.
    pub fn io(&self) -> &E {
        &self.io
    }

    /// The packet I/O.
    pub fn io_mut(&mut self) -> &mut E {
        &mut self.io
    }

    /// Counts of what was lost on the way out.
    pub fn drops(&self) -> &Drops {
        &self.drops
    }

    /// True while UDP GSO is in use.
    pub fn sends_segmented(&self) -> bool {
        self.udp_gso
    }

    /// Ends the turn: the open batch is ready.
    pub fn close(&mut self) {
        self.coalescer.flush();
        self.part();
    }

    /// The batch for a datagram.
    fn batch_for(
        &mut self,
        len: usize,
        to: &Endpoint,
        mut departure: Departure,
    ) -> Option<&mut SendBatch> {
        if !self.udp_gso && departure.mode == SendMode::Batched {
            departure.mode = SendMode::Single;
        }
        let fits = |batch: &SendBatch| batch.takes(len, to, departure);
        if !self.open.as_ref().is_some_and(fits) {
            self.part();
            let Some(mut batch) = self.spare_batch() else {
                self.drops.count(Drop::NoBuffer);
                return None;
            };
            batch.open(to, departure);
            self.open = Some(batch);
        }
        self.open.as_mut()
    }

    /// The next batch to send.
    pub fn next_batch(&mut self) -> Option<SendBatch> {
        self.ready.pop_front()
    }

    /// The next packet to write.
    pub fn next_write(&mut self) -> Option<TunBuffer> {
        self.coalescer.pop_ready()
    }

    /// Sends and writes all that is ready.
    pub fn drain(&mut self) {
        self.send_ready();
        self.write_ready();
    }

    /// Takes back a batch that was sent, or that `error` kept from being sent: then it is tried again the plain way.
    pub fn sent(&mut self, mut batch: SendBatch, result: io::Result<()>) {
        if let Err(error) = result {
            self.try_again(&mut batch, &error);
        }
        self.spare.push(batch);
    }

    /// Takes back a buffer that was written, or not.
    pub fn written(&mut self, buffer: TunBuffer, result: io::Result<()>) {
        if result.is_err() {
            self.drops.count(Drop::TunFailed);
        }
        self.coalescer.recycle(buffer);
    }

    /// A source address that was found to be gone since the last call.
    pub fn gone_local(&mut self) -> Option<LocalAddress> {
        self.gone.pop()
    }

    fn send_ready(&mut self) {
        while let Some(mut batch) = self.ready.pop_front() {
            let result = self.io.send(&mut batch);
            self.sent(batch, result);
        }
    }

    fn write_ready(&mut self) {
        while let Some(buffer) = self.coalescer.pop_ready() {
            let result = self.io.write(&buffer);
            self.written(buffer, result);
        }
    }

    /// The three ways in which a send can fail and still be mended: its source address is gone, the path or the kernel
    /// does not take segments, or the socket was full for a moment.
    fn try_again(&mut self, batch: &mut SendBatch, error: &io::Error) {
        let mut outcome = match error.raw_os_error() {
            Some(libc::EAGAIN) => self.io.send(batch),
            _ => Err(io::Error::from(error.kind())),
        };
        if let (Err(_), Some(local)) = (&outcome, batch.to().local) {
            self.gone.push(local);
            batch.forget_local();
            outcome = self.io.send(batch);
        }
        if outcome.is_err() && batch.count() > 1 && batch.mode() == SendMode::Batched {
            outcome = self.io.send_singly(batch);
            if outcome.is_ok() && error.raw_os_error() == Some(libc::EIO) {
                tracing::warn!("the network does not take UDP GSO: sending datagrams one by one");
                self.udp_gso = false;
            }
        }
        if outcome.is_err() {
            self.drops.count_many(Drop::SendFailed, batch.count());
        }
    }

    /// An empty batch; every one is either open, ready, in flight or spare.
    fn spare_batch(&mut self) -> Option<SendBatch> {
        if self.spare.is_empty() {
            self.send_ready();
        }
        self.spare.pop()
    }
}

impl<E: PacketIo> Sink for Egress<E> {
    fn datagram(
        &mut self,
        len: usize,
        to: &Endpoint,
        departure: Departure,
        write: impl FnOnce(&mut [u8]),
    ) {
        if let Some(batch) = self.batch_for(len, to, departure) {
            write(batch.room(len));
            batch.push(len);
        }
    }

    fn message<'k>(
        &mut self,
        len: usize,
        to: &Endpoint,
        departure: Departure,
        write: impl FnOnce(&mut [u8]) -> &'k Arc<Key>,
    ) {
        if let Some(batch) = self.batch_for(len, to, departure) {
            let key = write(batch.room(len));
            batch.push_unsealed(len, key);
        }
    }

    fn part(&mut self) {
        if let Some(mut batch) = self.open.take() {
            batch.close();
            self.ready.push_back(batch);
        }
    }

    fn packet(&mut self, packet: &[u8]) -> Result<(), Drop> {
        if self.coalescer.buffers_free() == 0 {
            self.coalescer.flush();
            self.write_ready();
        }
        match self.coalescer.push(packet) {
            true => Ok(()),
            false => Err(Drop::NoBuffer),
        }
    }
}
