//! All shards of an interface: told the same things in the same order, and heard as one.
//!
//! A command goes to all of them or to none, without a wait in between, so that they cannot disagree. The handshake
//! shard hears last: whatever it hands off because of a command, its neighbours have been told of the command before.

use std::cell::RefCell;
use std::io;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use nix::errno::Errno;
use ployz_engine::{Description, Drops, PublicKey, ShardMap, Snapshot};
use tokio::sync::oneshot;

use crate::backend::{Backend, BackendChoice};
use crate::driver::DeviceShard;
use crate::inbox::{CallError, Command, Turn, inbox};
use crate::neighbours::Neighbours;
use crate::options::DeviceError;
use crate::sys::ring::RingDepth;
use crate::uapi::InterfaceError;
use crate::worker::{Task, Worker};

/// State that changes with traffic, of all shards together.
#[derive(Debug)]
pub(crate) struct ShardsSnapshot {
    pub(crate) traffic: Snapshot,
    /// True if all of them send in batches.
    pub(crate) udp_gso: bool,
    /// In their order, with io_uring.
    pub(crate) rings: Vec<RingDepth>,
}

/// The threads of an interface. Dropping them stops them.
#[derive(Debug)]
pub(crate) struct Shards {
    /// In their order; never empty.
    workers: Vec<Worker>,
    /// None while a caller waits.
    ended: RefCell<Option<FuturesUnordered<oneshot::Receiver<()>>>>,
}

impl Shards {
    /// Starts a thread for each.
    ///
    /// # Errors
    /// [`DeviceError`]; none is left behind.
    pub(crate) fn start(
        shards: Vec<DeviceShard>,
        choice: BackendChoice,
    ) -> Result<Self, DeviceError> {
        let mut posts = Vec::with_capacity(shards.len());
        for _ in &shards {
            posts.push(inbox()?);
        }
        let neighbours = Neighbours::new(posts.iter().map(|(_, neighbour, _)| neighbour.clone()));
        let ended = FuturesUnordered::new();
        let mut workers: Vec<Worker> = Vec::with_capacity(shards.len());
        for (shard, (caller, _, inbox)) in shards.into_iter().zip(posts) {
            let task = Task {
                name: format!("ployz-data-{}", workers.len()),
                shard,
                inbox,
                neighbours: neighbours.clone(),
            };
            // What the first one got, all must have: there is one answer to which loop runs.
            let choice = workers
                .first()
                .map_or(choice, |first| first.backend().into());
            let (alive, end) = oneshot::channel();
            workers.push(Worker::start(task, caller, choice, alive)?);
            ended.push(end);
        }
        Ok(Self {
            workers,
            ended: RefCell::new(Some(ended)),
        })
    }

    /// The number of shards.
    pub(crate) fn count(&self) -> usize {
        self.workers.len()
    }

    /// The loop that all run.
    pub(crate) fn backend(&self) -> Backend {
        self.workers[0].backend()
    }

    /// Tells all of them something that needs no answer.
    ///
    /// # Errors
    /// [`CallError`]; none was told.
    pub(crate) fn tell(&self, command: impl Fn() -> Command) -> Result<(), CallError> {
        for turn in self.turns()?.into_iter().rev() {
            turn.call(command());
        }
        Ok(())
    }

    /// Asks all of them, and waits for their answers, in their order.
    ///
    /// # Errors
    /// If the data plane is stuck or gone.
    pub(crate) async fn ask<T>(
        &self,
        command: impl Fn(usize, oneshot::Sender<T>) -> Command,
    ) -> Result<Vec<T>, InterfaceError> {
        /// A shard answers within a turn; a turn of full buffers takes milliseconds.
        const ANSWER_WAIT: Duration = Duration::from_secs(5);
        let turns = self
            .turns()
            .map_err(|error| InterfaceError::new(Errno::EBUSY, error.to_string()))?;
        let mut replies = Vec::with_capacity(turns.len());
        for (shard, turn) in turns.into_iter().enumerate().rev() {
            let (reply, answer) = oneshot::channel();
            turn.call(command(shard, reply));
            replies.push(answer);
        }
        let answers = async {
            let mut answers = Vec::with_capacity(replies.len());
            for answer in replies.into_iter().rev() {
                answers.push(answer.await?);
            }
            Ok::<_, oneshot::error::RecvError>(answers)
        };
        match tokio::time::timeout(ANSWER_WAIT, answers).await {
            Ok(Ok(answers)) => Ok(answers),
            Ok(Err(_)) => Err(InterfaceError::new(
                Errno::ENODEV,
                "the data plane has stopped",
            )),
            Err(_) => Err(InterfaceError::new(
                Errno::ETIMEDOUT,
                "the data plane does not answer",
            )),
        }
    }

    /// Everything that the shards hold, as if they were one.
    ///
    /// # Errors
    /// As [`Shards::ask`].
    pub(crate) async fn describe(&self) -> Result<Description, InterfaceError> {
        let mut each = self.ask(|_, reply| Command::Describe(reply)).await?;
        let private_key = each[0].private_key.take();
        let peers = each.into_iter().map(|description| description.peers);
        Ok(Description {
            private_key,
            peers: from_their_homes(peers, |peer| peer.state.public_key),
        })
    }

    /// State that changes with traffic.
    ///
    /// # Errors
    /// As [`Shards::ask`].
    pub(crate) async fn snapshot(&self) -> Result<ShardsSnapshot, InterfaceError> {
        let each = self.ask(|_, reply| Command::Snapshot(reply)).await?;
        let udp_gso = each.iter().all(|shard| shard.udp_gso);
        let rings = each.iter().filter_map(|shard| shard.ring).collect();
        let mut drops = Drops::default();
        for shard in &each {
            drops.merge(&shard.traffic.drops);
        }
        let peers = each.into_iter().map(|shard| shard.traffic.peers);
        let peers = from_their_homes(peers, |peer| peer.public_key);
        Ok(ShardsSnapshot {
            traffic: Snapshot { peers, drops },
            udp_gso,
            rings,
        })
    }

    /// Waits until one of them has ended by itself, which it does only if the kernel fails it.
    pub(crate) async fn ended(&self) {
        let ended = self.ended.borrow_mut().take();
        match ended {
            Some(mut ended) => {
                let _ = ended.next().await;
            }
            None => std::future::pending().await,
        }
    }

    /// Stops all of them.
    ///
    /// # Errors
    /// The error that ended the first shard that was not ended by this call.
    pub(crate) fn stop(&mut self) -> io::Result<()> {
        for worker in &self.workers {
            worker.ask_to_stop();
        }
        let ends = self.workers.iter_mut().map(Worker::stop);
        ends.fold(Ok(()), io::Result::and)
    }

    fn turns(&self) -> Result<Vec<Turn<'_>>, CallError> {
        let callers = self.workers.iter().map(Worker::caller);
        callers.map(|caller| caller.reserve()).collect()
    }
}

/// Every shard lists all peers in the same order; what is true of one, its home knows.
fn from_their_homes<P>(
    each: impl Iterator<Item = Vec<P>>,
    public_key: impl Fn(&P) -> PublicKey,
) -> Vec<P> {
    let mut each: Vec<_> = each.map(Vec::into_iter).collect();
    let map = ShardMap::all(each.len()).next();
    let mut peers = Vec::new();
    loop {
        let of_all: Vec<P> = each.iter_mut().filter_map(Iterator::next).collect();
        let Some(first) = of_all.first() else {
            return peers;
        };
        let home = map.map_or(0, |map| map.home_of(&public_key(first)));
        peers.extend(of_all.into_iter().nth(home));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_is_described_by_its_home() {
        const SHARDS: usize = 3;
        let keys: Vec<PublicKey> = (0..36)
            .map(|n| PublicKey::from_bytes([n * 7; 32]))
            .collect();
        let shard_says = |shard| keys.iter().map(move |key| (*key, shard)).collect();
        let each = (0..SHARDS).map(shard_says);
        let merged = from_their_homes::<(PublicKey, usize)>(each, |(key, _)| *key);
        let map = ShardMap::all(SHARDS).next().unwrap();
        let expected: Vec<_> = keys.iter().map(|key| (*key, map.home_of(key))).collect();
        assert_eq!(merged, expected);
    }
}
