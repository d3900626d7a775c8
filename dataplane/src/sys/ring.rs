//! An io_uring that owns the memory of its operations.
//!
//! Receives are multishot into provided buffers; sends and writes take ownership of what they send and give it back
//! with their completion. A turn of the driver is: [`Ring::wait`], then [`Ring::next`] until `None`, queueing output as
//! it goes; the next `wait` submits everything at once.
//!
//! # Safety
//!
//! - *The kernel owns a buffer until its completion.* Batches and TUN buffers in flight live in `flights` and cannot be
//!   reached; provided buffers are read only between their completion and [`Ring::recycle`], through `&mut self`.
//! - *Nothing is freed under the kernel's hands.* [`Ring::shut_down`] cancels and drains; should operations remain,
//!   their memory is leaked.
//! - *One thread.* The ring is set up for a single issuer and is not `Sync`; it is made on the thread that uses it.
#![expect(
    unsafe_code,
    reason = "submission entries carry pointers, provided buffers are shared with the kernel"
)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, RecvMsgOut, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};

use super::buffers::ProvidedBuffers;
use super::message::{Arrival, multishot_header};
use super::{address, control};
use crate::batch::SendBatch;
use crate::offload::TunBuffer;

/// Submissions per turn: every send and write of a turn, and the receives to arm again.
const SUBMISSION_ENTRIES: u32 = 256;
/// Completions between two turns: every operation in flight and every provided buffer, four times over.
const COMPLETION_ENTRIES: u32 = 1024;

/// A source of input that is armed once and completes many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The IPv4 socket.
    UdpV4,
    /// The IPv6 socket.
    UdpV6,
    /// The TUN.
    Tun,
    /// The event descriptor through which other threads wake this one.
    Wake,
}

const SOURCES: [Source; 4] = [Source::UdpV4, Source::UdpV6, Source::Tun, Source::Wake];

/// Something that has happened.
#[derive(Debug)]
pub(crate) enum Completion {
    /// Datagrams came; their payload is in the buffer, which must be recycled.
    Datagrams(BufferId, Arrival, PayloadAt),
    /// The TUN gave `len` bytes, in the buffer, which must be recycled.
    TunRead(BufferId, usize),
    /// Somebody called.
    Wake,
    /// A batch was sent, or was not.
    Sent(SendBatch, io::Result<()>),
    /// A packet was written to the TUN, or was not.
    Written(TunBuffer, io::Result<()>),
    /// A source failed with something other than being out of buffers. It will be armed again.
    Failed(Source, io::Error),
}

/// How much of a ring is in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingDepth {
    /// Operations whose memory the kernel holds: sends and writes.
    pub in_flight: usize,
    /// Completions that the last turn found.
    pub completed: usize,
    /// The most that any turn has found; the ring has room for 1,024.
    pub completed_max: usize,
}

/// A provided buffer that is ours for the moment.
#[derive(Debug)]
pub(crate) struct BufferId {
    pool: Pool,
    index: u16,
}

/// Where the payload starts within a buffer.
pub(crate) type PayloadAt = usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pool {
    Udp,
    Tun,
}

/// The memory of an operation in flight.
enum Flight {
    Send(SendBatch),
    Write(TunBuffer),
}

/// See the module.
pub(crate) struct Ring {
    ring: IoUring,
    udp_buffers: ProvidedBuffers,
    tun_buffers: ProvidedBuffers,
    /// What every multishot `recvmsg` is armed with; the kernel reads it while arming and while receiving.
    receive_header: Box<libc::msghdr>,
    sources: [SourceState; SOURCES.len()],
    flights: Vec<Option<Flight>>,
    free_flights: Vec<usize>,
    completed: VecDeque<cqueue::Entry>,
    depth: RingDepth,
    /// Multishots armed and flights under way: completions that must come before memory may go.
    outstanding: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct SourceState {
    fd: Option<RawFd>,
    armed: bool,
    /// Tells completions of a former descriptor from those of this one.
    generation: u32,
}

impl Ring {
    /// Sets up a ring with `udp_buffers` and `tun_buffers` provided buffers; both are powers of two.
    ///
    /// # Errors
    /// `EPERM` or `ENOSYS` where the kernel or a sandbox forbids io_uring; `Unsupported` if it is too old for multishot
    /// reads (Linux 6.7).
    pub(crate) fn new(udp_buffers: u16, tun_buffers: u16) -> io::Result<Self> {
        let ring: IoUring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(COMPLETION_ENTRIES)
            .build(SUBMISSION_ENTRIES)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::ReadMulti::CODE) {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        }
        let udp_buffers =
            ProvidedBuffers::register(&ring, Pool::Udp as u16, udp_buffers, UDP_BUFFER_LEN)?;
        let tun_buffers =
            ProvidedBuffers::register(&ring, Pool::Tun as u16, tun_buffers, TUN_BUFFER_LEN)?;
        Ok(Self {
            ring,
            udp_buffers,
            tun_buffers,
            receive_header: Box::new(multishot_header()),
            sources: [SourceState::default(); SOURCES.len()],
            flights: Vec::new(),
            free_flights: Vec::new(),
            completed: VecDeque::with_capacity(COMPLETION_ENTRIES as usize),
            depth: RingDepth::default(),
            outstanding: 0,
        })
    }

    /// Receives from `fd` from now on, and no longer from what `source` was before. The caller keeps `fd` open until
    /// the source is set again or the ring is shut down.
    pub(crate) fn set_source(&mut self, source: Source, fd: Option<BorrowedFd<'_>>) {
        let state = self.sources[source as usize];
        if state.armed {
            let user_data = source_user_data(source, state.generation);
            let cancel = opcode::AsyncCancel2::new(CancelBuilder::user_data(user_data)).build();
            self.push(cancel.user_data(IGNORE));
        }
        self.sources[source as usize] = SourceState {
            fd: fd.map(|fd| fd.as_raw_fd()),
            armed: false,
            generation: state.generation.wrapping_add(1),
        };
    }

    /// Queues a batch to be sent from `socket` with the next submission.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>, mut batch: SendBatch) {
        let header = batch.prepare();
        let index = self.take_off(Flight::Send(batch));
        let entry = opcode::SendMsg::new(Fd(socket.as_raw_fd()), header).build();
        self.push(entry.user_data(FLIGHT | index as u64));
    }

    /// Queues a packet to be written to `tun` with the next submission.
    pub(crate) fn write(&mut self, tun: BorrowedFd<'_>, buffer: TunBuffer) {
        let bytes = buffer.as_bytes();
        let entry = opcode::Write::new(Fd(tun.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32);
        let entry = entry.offset(u64::MAX).build();
        let index = self.take_off(Flight::Write(buffer));
        self.push(entry.user_data(FLIGHT | index as u64));
    }

    /// Operations whose memory the kernel holds.
    pub(crate) fn in_flight(&self) -> usize {
        self.flights.len() - self.free_flights.len()
    }

    /// Submits what is queued and waits for a completion, at most `timeout` (`None`: as long as it takes).
    ///
    /// # Errors
    /// If the ring itself is broken.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.arm();
        let timespec = timeout.map(Timespec::from);
        let mut args = SubmitArgs::new();
        if let Some(timespec) = &timespec {
            args = args.timespec(timespec);
        }
        match self.ring.submitter().submit_with_args(1, &args) {
            Ok(_) => {}
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {}
                _ => return Err(error),
            },
        }
        self.completed.extend(self.ring.completion());
        self.depth.completed = self.completed.len();
        self.depth.completed_max = self.depth.completed_max.max(self.depth.completed);
        Ok(())
    }

    /// How much of it is in use.
    pub(crate) fn depth(&self) -> RingDepth {
        RingDepth {
            in_flight: self.in_flight(),
            ..self.depth
        }
    }

    /// The next thing that has happened.
    pub(crate) fn next(&mut self) -> Option<Completion> {
        loop {
            let entry = self.completed.pop_front()?;
            let user_data = entry.user_data();
            if user_data == IGNORE {
                continue;
            }
            if user_data & FLIGHT != 0 {
                return Some(self.land((user_data & !FLIGHT) as usize, entry.result()));
            }
            if let Some(completion) = self.source_completion(&entry) {
                return Some(completion);
            }
        }
    }

    /// The bytes of a buffer.
    pub(crate) fn buffer(&mut self, id: &BufferId) -> &mut [u8] {
        self.pool(id.pool).buffer(id.index)
    }

    /// Gives a buffer back to the kernel.
    pub(crate) fn recycle(&mut self, id: BufferId) {
        self.pool(id.pool).give_back(id.index);
    }

    /// Cancels everything and waits until the kernel has let go of all memory, at most `timeout`.
    pub(crate) fn shut_down(&mut self, timeout: Duration) {
        for source in SOURCES {
            self.set_source(source, None);
        }
        // Every wait ends with a completion or after a tenth of the time.
        const WAITS: u32 = 10;
        for _ in 0..WAITS {
            if self.outstanding == 0 || self.wait(Some(timeout / WAITS)).is_err() {
                break;
            }
            while let Some(completion) = self.next() {
                if let Completion::Datagrams(id, ..) | Completion::TunRead(id, _) = completion {
                    self.recycle(id);
                }
            }
        }
        if self.outstanding > 0 {
            tracing::warn!(
                operations = self.outstanding,
                "operations did not end: leaking their memory"
            );
            std::mem::forget(std::mem::take(&mut self.flights));
            self.udp_buffers.leak();
            self.tun_buffers.leak();
        }
    }

    fn arm(&mut self) {
        for source in SOURCES {
            let state = self.sources[source as usize];
            let (Some(fd), false) = (state.fd, state.armed) else {
                continue;
            };
            let fd = Fd(fd);
            let entry = match source {
                Source::UdpV4 | Source::UdpV6 => {
                    let header = &raw const *self.receive_header;
                    opcode::RecvMsgMulti::new(fd, header, Pool::Udp as u16).build()
                }
                Source::Tun => opcode::ReadMulti::new(fd, 0, Pool::Tun as u16)
                    .offset(u64::MAX)
                    .build(),
                Source::Wake => opcode::PollAdd::new(fd, libc::POLLIN as u32)
                    .multi(true)
                    .build(),
            };
            self.push(entry.user_data(source_user_data(source, state.generation)));
            self.sources[source as usize].armed = true;
            self.outstanding += 1;
        }
    }

    fn push(&mut self, entry: squeue::Entry) {
        loop {
            // SAFETY: what the entry points to is owned by `flights`, the provided buffers or `receive_header`, none of
            // which moves or goes before the completion (see the module).
            let pushed = unsafe { self.ring.submission().push(&entry) };
            if pushed.is_ok() {
                return;
            }
            // Full: let the kernel take what is there. It always can, so this ends.
            if let Err(error) = self.ring.submit() {
                tracing::error!(%error, "io_uring does not take submissions");
            }
        }
    }

    fn take_off(&mut self, flight: Flight) -> usize {
        self.outstanding += 1;
        if let Some(index) = self.free_flights.pop() {
            self.flights[index] = Some(flight);
            return index;
        }
        self.flights.push(Some(flight));
        self.free_flights.reserve(self.flights.len());
        self.flights.len() - 1
    }

    fn land(&mut self, index: usize, result: i32) -> Completion {
        self.outstanding -= 1;
        self.free_flights.push(index);
        let result = outcome(result).map(|_| ());
        match self.flights[index].take().expect("a flight lands once") {
            Flight::Send(batch) => Completion::Sent(batch, result),
            Flight::Write(buffer) => Completion::Written(buffer, result),
        }
    }

    fn source_completion(&mut self, entry: &cqueue::Entry) -> Option<Completion> {
        let (source, generation) = source_of(entry.user_data())?;
        let current = self.sources[source as usize].generation == generation;
        if !cqueue::more(entry.flags()) {
            self.outstanding -= 1;
            if current {
                self.sources[source as usize].armed = false;
            }
        }
        let pool = if source == Source::Tun {
            Pool::Tun
        } else {
            Pool::Udp
        };
        let id = cqueue::buffer_select(entry.flags()).map(|index| BufferId { pool, index });
        let result = outcome(entry.result());
        if id.is_some() {
            self.pool(pool).take(*result.as_ref().unwrap_or(&0));
        }
        let len = match (result, current) {
            (Ok(len), true) => len,
            (_, false) => {
                id.into_iter().for_each(|id| self.recycle(id));
                return None;
            }
            (Err(error), true) => {
                id.into_iter().for_each(|id| self.recycle(id));
                // Out of buffers: they are all being worked on, and the source is armed again in the next turn.
                let harmless =
                    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ECANCELED));
                return (!harmless).then_some(Completion::Failed(source, error));
            }
        };
        match source {
            Source::Wake => Some(Completion::Wake),
            Source::Tun => id.map(|id| Completion::TunRead(id, len)),
            Source::UdpV4 | Source::UdpV6 => self.datagrams(id?, len),
        }
    }

    /// Reads the header that a multishot `recvmsg` puts in front of the payload.
    fn datagrams(&mut self, id: BufferId, len: usize) -> Option<Completion> {
        let bytes = &self.udp_buffers.buffer(id.index)[..len];
        let Ok(out) = RecvMsgOut::parse(bytes, &self.receive_header) else {
            self.recycle(id);
            return None;
        };
        let from = address::decode(out.name_data());
        let (Some(from), false) = (from, out.is_payload_truncated()) else {
            self.recycle(id);
            return None;
        };
        let received = control::decode(out.control_data());
        let payload_len = out.payload_data().len();
        let arrival = Arrival {
            from,
            received,
            len: payload_len,
        };
        Some(Completion::Datagrams(id, arrival, len - payload_len))
    }

    fn pool(&mut self, pool: Pool) -> &mut ProvidedBuffers {
        match pool {
            Pool::Udp => &mut self.udp_buffers,
            Pool::Tun => &mut self.tun_buffers,
        }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("sources", &self.sources)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.outstanding > 0 {
            self.shut_down(Duration::from_secs(1));
        }
    }
}

/// Completions that mean nothing.
const IGNORE: u64 = u64::MAX >> 1;
/// Marks the index of a flight.
const FLIGHT: u64 = 1 << 63;

const fn source_user_data(source: Source, generation: u32) -> u64 {
    (source as u64) << 32 | generation as u64
}

fn source_of(user_data: u64) -> Option<(Source, u32)> {
    let source = SOURCES.get(usize::try_from(user_data >> 32).ok()?)?;
    Some((*source, user_data as u32))
}

fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// Header, address and control messages of a multishot `recvmsg`, and the longest payload.
const UDP_BUFFER_LEN: usize =
    (16 + address::LEN + control::RECEIVE_LEN + 65_535).next_multiple_of(64);
/// Vnet header, the longest packet, and room for its padding.
const TUN_BUFFER_LEN: usize = (10_usize + 65_535 + 15).next_multiple_of(64);
