//! A flow of numbered datagrams: which of them arrive, and in which order.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::Host;
use crate::relay::udp_socket;
use crate::wait::pause;

const DATAGRAMS: u64 = 8_000;
/// As many a millisecond: several make one read of a TUN, and leave in one piece.
const BURST: u64 = 16;
/// Longer than anything waits on its way once the last datagram was sent.
const SILENCE: Duration = Duration::from_millis(500);
const LEN_MAX: usize = 1_200;

/// A sender and a receiver at work.
#[derive(Debug)]
pub struct Numbered {
    sender: JoinHandle<Result<()>>,
    receiver: JoinHandle<Result<Arrivals>>,
    is_sending: Arc<AtomicBool>,
}

/// What became of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arrivals {
    pub received: u64,
    /// Those that came after one that was sent later.
    pub overtaken: u64,
}

impl Arrivals {
    /// Something may be lost where queues overflow, but there must be enough left to say something.
    pub fn is_in_order(self) -> Result<()> {
        ensure!(self.received > DATAGRAMS / 20, "hardly any came: {self:?}");
        ensure!(self.overtaken == 0, "{self:?}");
        Ok(())
    }
}

impl Numbered {
    /// Starts a flow from one host to an address of another.
    pub fn start(from: &Host, to: &Host, address: IpAddr) -> Result<Self> {
        let unspecified = match address {
            IpAddr::V4(_) => "0.0.0.0",
            IpAddr::V6(_) => "::",
        };
        let receiver = udp_socket(&to.netns, SocketAddr::new(address, 0))?;
        let sender = udp_socket(&from.netns, SocketAddr::new(unspecified.parse()?, 0))?;
        sender.connect(receiver.local_addr()?)?;
        receiver.set_read_timeout(Some(SILENCE))?;
        let is_sending = Arc::new(AtomicBool::new(true));
        let (begun, going_on) = (Arc::clone(&is_sending), Arc::clone(&is_sending));
        Ok(Self {
            sender: std::thread::spawn(move || {
                let outcome = send(&sender);
                begun.store(false, Ordering::Release);
                outcome
            }),
            receiver: std::thread::spawn(move || receive(&receiver, &going_on)),
            is_sending,
        })
    }

    /// False once the last datagram has left.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        self.is_sending.load(Ordering::Acquire)
    }

    /// Waits for the end.
    pub fn finish(self) -> Result<Arrivals> {
        let sent = self.sender.join().ok().context("the sender panicked")?;
        sent.context("sending")?;
        self.receiver.join().ok().context("the receiver panicked")?
    }
}

fn send(socket: &UdpSocket) -> Result<()> {
    let mut datagram = [0; LEN_MAX];
    for number in 0..DATAGRAMS {
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        // In runs of one length, as applications send.
        let len = if (number / BURST).is_multiple_of(2) {
            64
        } else {
            LEN_MAX
        };
        socket.send(&datagram[..len])?;
        if number % BURST == BURST - 1 {
            pause(Duration::from_millis(1));
        }
    }
    Ok(())
}

fn receive(socket: &UdpSocket, is_sending: &AtomicBool) -> Result<Arrivals> {
    let mut arrivals = Arrivals::default();
    let mut datagram = [0; LEN_MAX];
    let mut newest = None;
    loop {
        let was_sending = is_sending.load(Ordering::Acquire);
        if socket.recv(&mut datagram).is_err() {
            if was_sending {
                continue;
            }
            return Ok(arrivals);
        }
        let number = u64::from_be_bytes(*datagram.first_chunk().context("short")?);
        arrivals.received += 1;
        arrivals.overtaken += u64::from(newest.is_some_and(|newest| number < newest));
        newest = newest.max(Some(number));
    }
}
