//! A link with a known delay: forwards datagrams between two endpoints after a set time, and records by the kernel's
//! stamps how long it held them.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use nix::cmsg_space;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::sockopt::{RcvBufForce, Timestamping, UdpGroSegment};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, TimestampingFlag, Timestamps,
    recvmsg, sendmsg, setsockopt,
};
use nix::sys::time::TimeSpec;

use crate::Netns;
use crate::relay::udp_socket;

/// How long the thread takes at most to notice that it should end.
const TURN: Duration = Duration::from_millis(20);
/// What the kernel's timers miss a time by; the rest is waited for with open eyes.
const TIMER_SLACK: Duration = Duration::from_micros(80);
/// Half a second of 1 Gb/s.
const RECEIVE_BUFFER_BYTES: usize = 64 << 20;
const DATAGRAM_LEN_MAX: usize = 65_536;

/// What becomes of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Passed {
        after: Duration,
    },
    /// Passed at once, and once more.
    Repeated,
    Lost,
}

/// Decides what becomes of a datagram of this length; true is for those of the client.
pub type Judge = dyn FnMut(bool, usize) -> Fate + Send;

/// Holds everything for a time, and up to another time longer.
#[must_use]
pub fn held(hold: Duration, jitter: Duration) -> Box<Judge> {
    let mut state = 1_u32;
    Box::new(move |_, _| {
        // Numerical Recipes' generator; its high bits are good enough to shake a relay.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let share = f64::from(state) / f64::from(u32::MAX);
        Fate::Passed {
            after: hold + jitter.mul_f64(share),
        }
    })
}

/// Stands between a client, the last one who wrote to it, and `server`.
#[derive(Debug)]
pub struct DelayLink {
    pub address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What became of datagrams of one length.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    pub from_client: Side,
    pub from_server: Side,
}

/// What became of those that came from one side.
#[derive(Debug, Clone, Default)]
pub struct Side {
    /// How long they were kept, from the driver that they came through to that they left through, in the order of leaving.
    pub held: Vec<Duration>,
    pub came: u64,
    pub lost: u64,
    pub repeated: u64,
    /// Left behind one that had come later.
    pub overtaken: u64,
    last_left: u64,
}

impl Kept {
    /// The median of what tests and their replies were kept for, as long as only one side tests and none overtakes another.
    #[must_use]
    pub fn round_trip(&self) -> Duration {
        let both = self.from_client.held.iter().zip(&self.from_server.held);
        median(&both.map(|(there, back)| *there + *back).collect::<Vec<_>>())
    }

    fn side(&mut self, from_client: bool) -> &mut Side {
        if from_client {
            &mut self.from_client
        } else {
            &mut self.from_server
        }
    }
}

impl Side {
    fn leaves(&mut self, number: u64, held: Duration) {
        self.held.push(held);
        self.overtaken += u64::from(number < self.last_left);
        self.last_left = self.last_left.max(number);
    }
}

/// The middle one; zero of none.
#[must_use]
pub fn median(all: &[Duration]) -> Duration {
    let mut sorted = all.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

impl DelayLink {
    /// Listens inside `netns` on a free port of `address`, and notes what becomes of datagrams of `noted_len` bytes.
    pub fn start(
        netns: &Netns,
        address: IpAddr,
        server: SocketAddr,
        noted_len: usize,
        judge: Box<Judge>,
    ) -> Result<Self> {
        let socket = udp_socket(netns, SocketAddr::new(address, 0))?;
        socket.set_nonblocking(true)?;
        setsockopt(&socket, UdpGroSegment, &true)?;
        setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER_BYTES)?;
        let stamps = TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE
            | TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE
            | TimestampingFlag::SOF_TIMESTAMPING_TX_SOFTWARE
            | TimestampingFlag::SOF_TIMESTAMPING_OPT_TSONLY;
        setsockopt(&socket, Timestamping, &stamps)?;
        let address = socket.local_addr()?;
        let (kept, ended) = (Arc::default(), Arc::default());
        let forwarder = Forwarder {
            socket,
            server,
            client: None,
            noted_len,
            judge,
            kept: Arc::clone(&kept),
            waiting: VecDeque::new(),
        };
        let ends = Arc::clone(&ended);
        let thread = thread::spawn(move || forwarder.run(&ends));
        Ok(Self {
            address,
            kept,
            ended,
            thread: Some(thread),
        })
    }

    #[must_use]
    pub fn kept(&self) -> Kept {
        lock(&self.kept).clone()
    }

    /// Begins to note anew.
    pub fn forget(&self) {
        *lock(&self.kept) = Kept::default();
    }
}

impl Drop for DelayLink {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Forwarder {
    socket: UdpSocket,
    server: SocketAddr,
    client: Option<SocketAddr>,
    noted_len: usize,
    judge: Box<Judge>,
    kept: Arc<Mutex<Kept>>,
    /// In the order in which they are due.
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    /// Among those that are noted from its side, from 1 on; zero if it is not.
    number: u64,
    due: Duration,
    arrived: Duration,
    from_client: bool,
    bytes: Vec<u8>,
    segment_len: u16,
}

impl Forwarder {
    fn run(mut self, ended: &AtomicBool) {
        let mut buffer = vec![0; DATAGRAM_LEN_MAX];
        while !ended.load(Ordering::Relaxed) {
            while self.receive(&mut buffer).is_some() {}
            self.send_due();
            self.wait();
        }
    }

    fn wait(&self) {
        let until_due = self.waiting.front().map(|it| it.due.saturating_sub(now()));
        let time = until_due.unwrap_or(TURN).min(TURN);
        if time < TIMER_SLACK {
            return;
        }
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let _interrupted = ppoll(&mut fds, Some(TimeSpec::from(time - TIMER_SLACK)), None);
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Option<()> {
        let mut parts = [IoSliceMut::new(buffer)];
        let mut control = cmsg_space!(i32, Timestamps);
        let message = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        )
        .ok()?;
        let (length, source) = (message.bytes, message.address?);
        let (mut segment_len, mut arrived) = (length, None);
        for control in message.cmsgs().ok()? {
            if let ControlMessageOwned::UdpGroSegments(len) = control {
                segment_len = usize::try_from(len).ok()?;
            }
            arrived = arrived.or_else(|| stamp(&control));
        }
        let source = SocketAddr::V4((*source.as_sockaddr_in()?).into());
        let from_client = source != self.server;
        if from_client {
            self.client = Some(source);
        }
        let arrived = arrived?;
        let fate = (self.judge)(from_client, length);
        let number = self.note(from_client, length, fate);
        let (after, times) = match fate {
            Fate::Passed { after } => (after, 1),
            Fate::Repeated => (Duration::ZERO, 2),
            Fate::Lost => return Some(()),
        };
        for time in 0..times {
            let waiting = Waiting {
                number: if time == 0 { number } else { 0 },
                due: arrived + after,
                arrived,
                from_client,
                bytes: buffer[..length].to_vec(),
                segment_len: u16::try_from(segment_len).ok()?,
            };
            let at = self.waiting.partition_point(|it| it.due <= waiting.due);
            self.waiting.insert(at, waiting);
        }
        Some(())
    }

    /// Its number, if it is one that is noted.
    fn note(&self, from_client: bool, length: usize, fate: Fate) -> u64 {
        if length != self.noted_len {
            return 0;
        }
        let mut kept = lock(&self.kept);
        let side = kept.side(from_client);
        side.came += 1;
        match fate {
            Fate::Passed { .. } => {}
            Fate::Repeated => side.repeated += 1,
            Fate::Lost => side.lost += 1,
        }
        side.came
    }

    fn send_due(&mut self) {
        while self.waiting.front().is_some_and(|it| it.due <= now()) {
            let Some(it) = self.waiting.pop_front() else {
                return;
            };
            let target = if it.from_client {
                Some(self.server)
            } else {
                self.client
            };
            let Some(target) = target else {
                continue;
            };
            let left = self.send(&it, target);
            if it.number > 0
                && let Some(left) = left
            {
                let held = left.saturating_sub(it.arrived);
                lock(&self.kept)
                    .side(it.from_client)
                    .leaves(it.number, held);
            }
        }
    }

    /// Sends, and asks the kernel when that was.
    fn send(&self, it: &Waiting, target: SocketAddr) -> Option<Duration> {
        let batched = it.bytes.len() > usize::from(it.segment_len);
        let segments = [ControlMessage::UdpGsoSegments(&it.segment_len)];
        let control = if batched { &segments[..] } else { &[] };
        let parts = [IoSlice::new(&it.bytes)];
        let target = SockaddrStorage::from(target);
        let fd = self.socket.as_raw_fd();
        sendmsg(fd, &parts, control, MsgFlags::empty(), Some(&target)).ok()?;
        let mut control = cmsg_space!(Timestamps, [u8; 64]);
        let message =
            recvmsg::<SockaddrStorage>(fd, &mut [], Some(&mut control), MsgFlags::MSG_ERRQUEUE)
                .ok()?;
        message.cmsgs().ok()?.find_map(|control| stamp(&control))
    }
}

/// The time in a control message.
fn stamp(control: &ControlMessageOwned) -> Option<Duration> {
    if let ControlMessageOwned::ScmTimestampsns(stamps) = control {
        return Some(Duration::from(stamps.system));
    }
    None
}

/// The wall clock, on which the kernel stamps packets.
fn now() -> Duration {
    #[expect(
        clippy::disallowed_methods,
        reason = "the clock of the kernel's stamps"
    )]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}
