//! An interface: it is made, runs on threads of its own, takes changes, and is taken down again.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use ployz_engine::{Description, Engine, PublicKey, ShardMap, Snapshot, Update};
use tokio::sync::Notify;

use crate::backend::Backend;
use crate::descriptors::Descriptors;
use crate::driver::{self, DeviceShard};
use crate::egress::Egress;
use crate::inbox::{Change, Command};
use crate::inherited_fds::InheritedFds;
use crate::offload::Capabilities;
use crate::options::{DeviceError, DeviceOptions};
use crate::parts::{AdoptError, Parts, each_descriptor};
use crate::shard::Shard;
use crate::shards::Shards;
use crate::steering::Steering;
use crate::sys::ring::RingDepth;
use crate::sys::tun::{Tun, TunOffloads};
use crate::sys::udp::UdpSockets;
use crate::uapi::InterfaceError;

/// The offloads to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// TSO on the TUN.
    pub tun_tcp: bool,
    /// USO on the TUN.
    pub tun_udp: bool,
    /// Datagrams leave in batches.
    pub udp_gso: bool,
    /// Datagrams come in batches.
    pub udp_gro: bool,
}

/// State that changes with traffic.
#[derive(Clone, Debug)]
pub struct DeviceSnapshot {
    /// Peers and drops.
    pub traffic: Snapshot,
    /// The offloads that are in use.
    pub offloads: Offloads,
    /// The depth of each shard's ring; empty with epoll.
    pub rings: Vec<RingDepth>,
}

/// An interface that was taken over from a process that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Adoption {
    /// The time at which this process took it.
    pub at: Instant,
    /// For how long the oldest datagram had been waiting in its sockets by then; none if none waited.
    pub waited: Option<Duration>,
}

/// An interface and the threads that run it. Dropping it without [`Device::stop`] stops it as well.
#[derive(Debug)]
pub struct Device {
    name: String,
    shards: Shards,
    /// If there are several.
    steering: Option<Steering>,
    adoption: Option<Adoption>,
    tuns: Vec<Arc<Tun>>,
    tun_offloads: TunOffloads,
    udp_offload: bool,
    /// One for each shard, all on one port.
    sockets: RefCell<Vec<Arc<UdpSockets>>>,
    fwmark: Cell<u32>,
    rebound: Notify,
}

impl Device {
    /// Makes the interface and starts its threads, which know of `update` from their first turn on. The interface is
    /// down and has no address. Its port is that of `options`, not of `update`.
    ///
    /// # Errors
    /// [`DeviceError`]; nothing is left behind.
    pub fn create(options: &DeviceOptions, update: &Update) -> Result<Self, DeviceError> {
        let parts = Parts::make(options, update.fwmark.unwrap_or_default())?;
        Self::start(options, update, parts, None)
    }

    /// As [`Device::create`], of what a process that has ended had made: the interface is as it was, with its
    /// addresses, and what has been queued since is taken from the first turn on.
    ///
    /// # Errors
    /// [`AdoptError`]; the descriptors are closed here, and the interface goes once the supervisor closes its own as
    /// well.
    pub fn adopt(
        options: &DeviceOptions,
        update: &Update,
        kept: InheritedFds,
    ) -> Result<Self, AdoptError> {
        let parts = Parts::adopt(options, update.fwmark.unwrap_or_default(), kept)?;
        let adoption = Adoption {
            at: driver::clock(),
            waited: parts.waited(),
        };
        Ok(Self::start(options, update, parts, Some(adoption))?)
    }

    fn start(
        options: &DeviceOptions,
        update: &Update,
        parts: Parts,
        adoption: Option<Adoption>,
    ) -> Result<Self, DeviceError> {
        let Parts { tuns, sockets } = parts;
        let udp_gso = options.offload && options.udp_gso;
        let mut shards: Vec<DeviceShard> = ShardMap::all(options.shards)
            .zip(tuns.iter().zip(&sockets))
            .map(|(shard_map, (tun, sockets))| {
                let descriptors = Descriptors::new(Arc::clone(tun), Arc::clone(sockets));
                shard(shard_map, descriptors, udp_gso)
            })
            .collect();
        let now = driver::clock();
        for shard in &mut shards {
            shard.apply(now, update)?;
        }
        // Without shards there is nothing to steer, and nothing that would need CAP_BPF.
        let steering = match &mut shards[..] {
            [_] => None,
            shards => Some(steer(&tuns[0], &mut shards[0]).map_err(DeviceError::Steering)?),
        };
        Ok(Self {
            name: options.name.clone(),
            shards: Shards::start(shards, options.backend)?,
            steering,
            adoption,
            tun_offloads: tuns[0].offloads(),
            tuns,
            udp_offload: options.offload,
            sockets: RefCell::new(sockets),
            fwmark: Cell::new(update.fwmark.unwrap_or_default()),
            rebound: Notify::new(),
        })
    }

    /// The takeover of the interface, if there was one.
    pub const fn adoption(&self) -> Option<Adoption> {
        self.adoption
    }

    /// Shows everything that the next process has to be given for [`Device::adopt`], with the name to keep it under.
    pub fn each_descriptor(&self, show: impl FnMut(&str, BorrowedFd<'_>)) {
        each_descriptor(&self.tuns, &self.sockets.borrow(), show);
    }

    /// Waits until it has other sockets.
    pub async fn rebound(&self) {
        self.rebound.notified().await;
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The loop that runs.
    pub fn backend(&self) -> Backend {
        self.shards.backend()
    }

    /// Tells the data plane the interface's MTU, and the smallest of it and of those of the routes through it, in
    /// bytes.
    pub fn set_mtu(&self, link: usize, smallest: usize) {
        // A stopped data plane sends nothing.
        let _ = self.shards.tell(|| Command::SetMtu { link, smallest });
    }

    /// Tells the data plane that the host's addresses or routes have changed.
    pub fn forget_locals(&self) {
        // A stopped data plane remembers nothing.
        let _ = self.shards.tell(|| Command::ForgetLocals);
    }

    /// Tests the way to `wanted`, or to all peers, `count` times in quick succession. What comes of it is in later
    /// snapshots.
    ///
    /// # Errors
    /// If the data plane is stuck or gone.
    pub fn measure_round_trips(
        &self,
        count: u16,
        wanted: Option<BTreeSet<PublicKey>>,
    ) -> Result<(), InterfaceError> {
        let wanted = wanted.map(Arc::new);
        let measure = || Command::Measure {
            count,
            wanted: wanted.clone(),
        };
        self.shards
            .tell(measure)
            .map_err(|error| InterfaceError::new(Errno::EBUSY, error.to_string()))
    }

    /// State that changes with traffic.
    ///
    /// # Errors
    /// If the data plane is stuck or gone.
    pub async fn snapshot(&self) -> Result<DeviceSnapshot, InterfaceError> {
        let shards = self.shards.snapshot().await?;
        Ok(DeviceSnapshot {
            traffic: shards.traffic,
            offloads: Offloads {
                tun_tcp: self.tun_offloads.tcp,
                tun_udp: self.tun_offloads.udp,
                udp_gso: shards.udp_gso,
                udp_gro: self.udp_offload,
            },
            rings: shards.rings,
        })
    }

    /// Waits until the data plane has ended by itself, which it does only if the kernel fails it.
    pub async fn ended(&self) {
        self.shards.ended().await;
    }

    /// Stops the threads and takes the interface down.
    ///
    /// # Errors
    /// The error that ended a loop, if it was not this call.
    pub fn stop(mut self) -> io::Result<()> {
        self.shards.stop()
    }

    /// Applies `update` whole, with its port and its mark, or not at all.
    ///
    /// # Errors
    /// If a part of it cannot be had.
    pub(crate) async fn apply_update(&self, update: Update) -> Result<(), InterfaceError> {
        let sockets = self.rebind(&update)?;
        let fwmark = update.fwmark;
        if let (Some(fwmark), None) = (fwmark, &sockets) {
            self.set_fwmark(fwmark)?;
        }
        self.change(update, sockets.as_deref()).await?;
        if let Some(fwmark) = fwmark {
            self.fwmark.set(fwmark);
        }
        if let Some(sockets) = sockets {
            self.sockets.replace(sockets);
            self.rebound.notify_one();
        }
        Ok(())
    }

    /// Everything that the engines hold, secrets included.
    ///
    /// # Errors
    /// If the data plane is stuck or gone.
    pub(crate) async fn describe_engines(&self) -> Result<Description, InterfaceError> {
        self.shards.describe().await
    }

    pub(crate) fn shard_count(&self) -> usize {
        self.shards.count()
    }

    /// The mark of outer packets; 0 for none.
    pub(crate) fn fwmark(&self) -> u32 {
        self.fwmark.get()
    }

    /// The UDP port in use.
    pub(crate) fn port(&self) -> u16 {
        self.sockets.borrow()[0].port()
    }

    /// New sockets, if `update` asks for another port: bound before anything is changed.
    fn rebind(&self, update: &Update) -> Result<Option<Vec<Arc<UdpSockets>>>, InterfaceError> {
        let Some(port) = update.listen_port else {
            return Ok(None);
        };
        if port == self.port() {
            return Ok(None);
        }
        let fwmark = update.fwmark.unwrap_or_else(|| self.fwmark.get());
        let sockets = UdpSockets::bind_all(port, fwmark, self.udp_offload, self.shards.count())
            .map_err(|errno| {
                InterfaceError::new(errno, format!("binding UDP port {port} failed: {errno}"))
            })?;
        Ok(Some(sockets.into_iter().map(Arc::new).collect()))
    }

    /// Has all shards apply `update`, and steers as they route from then on.
    async fn change(
        &self,
        update: Update,
        sockets: Option<&[Arc<UdpSockets>]>,
    ) -> Result<(), InterfaceError> {
        let update = Arc::new(update);
        let steering = self.steering.as_ref().map(Steering::sender);
        let change = |shard: usize, reply| {
            let change = Change {
                update: Arc::clone(&update),
                sockets: sockets.map(|sockets| Arc::clone(&sockets[shard])),
                // The first is the handshake shard.
                steering: steering.filter(|_| shard == 0).cloned(),
            };
            Command::Apply(change, reply)
        };
        let answers = self.shards.ask(change).await;
        // Whatever came of it: the handshake shard may have answered when another did not.
        let steered = self.steering.as_ref().map_or(Ok(()), Steering::follow);
        for answer in answers? {
            answer.map_err(|error| InterfaceError::new(Errno::ENOSPC, error.to_string()))?;
        }
        steered.map_err(|error| {
            InterfaceError::new(Errno::ENOSPC, format!("steering failed: {error}"))
        })
    }

    fn set_fwmark(&self, fwmark: u32) -> Result<(), InterfaceError> {
        for sockets in &*self.sockets.borrow() {
            sockets.set_fwmark(fwmark).map_err(|errno| {
                InterfaceError::new(errno, format!("setting the firewall mark failed: {errno}"))
            })?;
        }
        Ok(())
    }
}

/// Steers from the first packet on as the handshake shard routes: another program may have been steering until now.
fn steer(tun: &Tun, handshake_shard: &mut DeviceShard) -> io::Result<Steering> {
    let steering = Steering::new()?;
    steering.take_over(handshake_shard.engine_mut().take_steering())?;
    steering.attach(tun)?;
    Ok(steering)
}

fn shard(shard_map: ShardMap, descriptors: Descriptors, udp_gso: bool) -> DeviceShard {
    let mut engine = Engine::new(shard_map, driver::sources());
    engine.set_listen_port(descriptors.sockets().port());
    engine.set_udp_gso(udp_gso);
    engine.set_clocks(Box::new(driver::read_clocks));
    let TunOffloads { tcp, udp } = descriptors.tun().offloads();
    Shard::new(
        engine,
        Egress::new(descriptors, Capabilities { tcp, udp }, udp_gso),
    )
}
