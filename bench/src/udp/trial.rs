//! A trial: an offer of load through a tunnel, and the part of it that arrived.

use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};

use super::Load;
use super::pace::Source;
use super::sender::Sender;
use super::sink::{PORT, Sink};
use crate::topology::End;
use crate::tunnel::Tunnel;
use crate::usage::of_this_thread;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trial {
    pub(crate) sent_pps: f64,
    pub(crate) received_pps: f64,
    pub(crate) loss: f64,
    pub(crate) reordered: u64,
    /// The sender's share of a processor: at 1 it is the sender that is measured.
    pub(crate) sender_busy: f64,
}

/// A source and a sink, for any number of trials.
pub(crate) struct Bench<S> {
    source: S,
    sink: Sink,
    duration: Duration,
    trials: u32,
}

impl Bench<Sender> {
    /// From A to B.
    pub(crate) fn open(tunnel: &Tunnel, load: Load, duration: Duration) -> Result<Self> {
        let to = tunnel.address(End::B);
        let sink = Sink::open(tunnel.namespace(End::B), to, load)?;
        let sender = Sender::open(tunnel.namespace(End::A), SocketAddrV4::new(to, PORT), load)?;
        Ok(Self::between(sender, sink, duration))
    }
}

impl<S: Source> Bench<S> {
    pub(crate) fn between(source: S, sink: Sink, duration: Duration) -> Self {
        Self {
            source,
            sink,
            duration,
            trials: 0,
        }
    }

    /// Offers `rate` packets a second, or all that the sender can.
    pub(crate) fn run(&mut self, rate: Option<f64>) -> Result<Trial> {
        self.trials += 1;
        let (trial, duration) = (self.trials, self.duration);
        let done = AtomicBool::new(false);
        let (source, sink) = (&mut self.source, &mut self.sink);
        let (offered, received) = std::thread::scope(|scope| {
            let receiver = scope.spawn(|| sink.count(trial, &done));
            let before = of_this_thread();
            let offered = source.offer(rate, duration, trial);
            let busy = before.and_then(|before| Ok(of_this_thread()? - before));
            done.store(true, Ordering::Release);
            (
                offered.and_then(|offered| Ok((offered, busy?))),
                receiver.join(),
            )
        });
        let (offered, busy) = offered?;
        let Ok(received) = received else {
            bail!("the sink panicked")
        };
        let received = received?;
        let seconds = offered.elapsed.as_secs_f64();
        let (sent, arrived) = (offered.packets as f64, received.packets as f64);
        Ok(Trial {
            sent_pps: sent / seconds,
            received_pps: arrived / seconds,
            loss: if sent > 0.0 {
                1.0 - arrived / sent
            } else {
                1.0
            },
            reordered: received.reordered,
            sender_busy: busy.as_secs_f64() / seconds,
        })
    }
}
