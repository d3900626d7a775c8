//! One interface: made, run on threads of its own, told what to do, and taken down again.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use ployz_engine::{Drop, Engine, Place, PublicKey, RttSnapshot, Snapshot, Update};

use crate::descriptors::Descriptors;
use crate::driver::{self, DeviceShard};
use crate::inbox::{Change, Command};
use crate::offload::Capabilities;
use crate::outlet::Outlet;
use crate::shard::Shard;
use crate::shards::Shards;
use crate::steering::Steering;
use crate::sys::ring::RingDepth;
use crate::sys::tun::{Tun, TunError, TunOffloads};
use crate::sys::udp::UdpSockets;
use crate::uapi::{Interface, InterfaceDescription, InterfaceError};

/// Which loop to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendChoice {
    /// io_uring if the kernel lets us, epoll if not.
    #[default]
    Auto,
    /// io_uring, or fail.
    IoUring,
    /// epoll.
    Epoll,
}

/// The loop that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// io_uring.
    IoUring,
    /// epoll.
    Epoll,
}

impl From<Backend> for BackendChoice {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::IoUring => Self::IoUring,
            Backend::Epoll => Self::Epoll,
        }
    }
}

impl Backend {
    /// The name in logs and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

/// How to make a [`Device`].
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// The interface's name.
    pub name: String,
    /// Which loop to run.
    pub backend: BackendChoice,
    /// TSO, USO, GSO and GRO.
    pub offload: bool,
    /// With `offload`: datagrams leave in batches.
    pub udp_gso: bool,
    /// UDP port; 0 lets the kernel choose.
    pub listen_port: u16,
    /// Threads that the peers are spread over: from 1 to [`ployz_engine::SHARDS_MAX`].
    pub shards: usize,
}

/// What is left to the kernel.
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

/// What changes with traffic.
#[derive(Clone, Debug)]
pub struct DeviceSnapshot {
    /// Peers and drops.
    pub traffic: Snapshot,
    /// Which offloads are in use.
    pub offloads: Offloads,
    /// How busy each shard's ring is; empty with epoll.
    pub rings: Vec<RingDepth>,
}

/// Why there is no device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No TUN.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// The port is taken.
    #[error(
        "UDP port {port} is in use: choose another ListenPort, or stop what uses it ('ss -ulnp sport = :{port}' tells)"
    )]
    PortInUse {
        /// Which one.
        port: u16,
    },
    /// No sockets.
    #[error("opening the UDP sockets failed: {0}")]
    Sockets(Errno),
    /// io_uring was asked for by name and is not to be had.
    #[error(
        "io_uring is not available ({0}): set kernel.io_uring_disabled=0 or allow it in the sandbox, or use --io-backend epoll"
    )]
    NoIoUring(String),
    /// No eBPF, which several shards need.
    #[error(
        "no eBPF to steer packets to several shards with ({0}): run as root or with CAP_BPF, or use --shards 1"
    )]
    Steering(io::Error),
    /// No thread, no descriptors.
    #[error("starting the data plane failed: {0}")]
    Start(#[from] io::Error),
}

/// An interface and the threads that run it. Dropping it without [`Device::stop`] stops it as well.
#[derive(Debug)]
pub struct Device {
    name: String,
    shards: Shards,
    /// If there are several.
    steering: Option<Steering>,
    tun_offloads: TunOffloads,
    udp_offload: bool,
    /// One for each shard, all on one port.
    sockets: RefCell<Vec<Arc<UdpSockets>>>,
    fwmark: Cell<u32>,
}

impl Device {
    /// Makes the interface and starts its threads. The interface is down and has no address.
    ///
    /// # Errors
    /// [`DeviceError`]; nothing is left behind.
    pub fn create(options: &DeviceOptions) -> Result<Self, DeviceError> {
        let tuns = Tun::create(&options.name, options.offload, options.shards)?;
        let tun_offloads = tuns[0].offloads();
        // Without shards there is nothing to steer, and nothing that would need CAP_BPF.
        let steering = match options.shards {
            1 => None,
            _ => Some(Steering::attach(&tuns[0]).map_err(DeviceError::Steering)?),
        };
        let sockets = bind(options)?;
        let udp_gso = options.offload && options.udp_gso;
        let shards = Place::all(options.shards)
            .zip(tuns.into_iter().zip(&sockets))
            .map(|(place, (tun, sockets))| {
                let descriptors = Descriptors::new(tun, Arc::clone(sockets));
                shard(place, descriptors, udp_gso)
            })
            .collect();
        Ok(Self {
            name: options.name.clone(),
            shards: Shards::start(shards, options.backend)?,
            steering,
            tun_offloads,
            udp_offload: options.offload,
            sockets: RefCell::new(sockets),
            fwmark: Cell::new(0),
        })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The loop that runs.
    pub fn backend(&self) -> Backend {
        self.shards.backend()
    }

    /// Tells the data plane the interface's MTU, and the smallest of it and of those of the routes through it, in bytes.
    pub fn set_mtu(&self, link: usize, smallest: usize) {
        // A stopped data plane sends nothing.
        let _ = self.shards.tell(|| Command::SetMtu { link, smallest });
    }

    /// Tells the data plane that the host's addresses or routes have changed.
    pub fn forget_locals(&self) {
        // A stopped data plane remembers nothing.
        let _ = self.shards.tell(|| Command::ForgetLocals);
    }

    /// Tests the way to `wanted`, or to all peers, `count` times in quick succession. What comes of it is in later snapshots.
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

    /// What changes with traffic.
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
    /// What ended a loop, if it was not this call.
    pub fn stop(mut self) -> io::Result<()> {
        self.shards.stop()
    }

    fn port(&self) -> u16 {
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
                // The first is the door.
                steering: steering.filter(|_| shard == 0).cloned(),
            };
            Command::Apply(change, reply)
        };
        let answers = self.shards.ask(change).await;
        // Whatever came of it: the door may have answered when another did not.
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

impl Interface for Device {
    async fn apply(&self, update: Update) -> Result<(), InterfaceError> {
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
        }
        Ok(())
    }

    async fn describe(&self) -> Result<InterfaceDescription, InterfaceError> {
        let device = self.shards.describe().await?;
        let (now, unix_now) = clocks();
        Ok(InterfaceDescription {
            listen_port: self.port(),
            fwmark: self.fwmark.get(),
            device,
            now,
            unix_now,
        })
    }

    async fn measure(&self, count: u16) -> Result<(), InterfaceError> {
        self.measure_round_trips(count, None)
    }

    async fn status(&self) -> Result<Vec<(String, String)>, InterfaceError> {
        let DeviceSnapshot {
            traffic: snapshot,
            offloads,
            ..
        } = self.snapshot().await?;
        let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let mut status = vec![
            ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("backend".to_owned(), self.backend().name().to_owned()),
            ("shards".to_owned(), self.shards.count().to_string()),
            ("tun_tcp_offload".to_owned(), yes_no(offloads.tun_tcp)),
            ("tun_udp_offload".to_owned(), yes_no(offloads.tun_udp)),
            ("udp_gso".to_owned(), yes_no(offloads.udp_gso)),
            ("udp_gro".to_owned(), yes_no(offloads.udp_gro)),
            ("listen_port".to_owned(), self.port().to_string()),
            ("peers".to_owned(), snapshot.peers.len().to_string()),
        ];
        for (number, peer) in snapshot.peers.iter().enumerate() {
            if let Some(mtu) = peer.path_mtu {
                let path = format!("{} {mtu} {}", peer.public_key, peer.batches.name());
                status.push((format!("path_{number}"), path));
            }
            if let Some(rtt) = peer.rtt.as_ref().map(rtt_line) {
                status.push((
                    format!("rtt_{number}"),
                    format!("{} {rtt}", peer.public_key),
                ));
            }
        }
        for &reason in Drop::ALL {
            status.push((
                format!("drop_{}", reason.key()),
                snapshot.drops.get(reason).to_string(),
            ));
        }
        Ok(status)
    }
}

/// What is known of the round trips to a peer, as words of `name=value`: of the last samples the times in the network and through
/// the tunnel, and what became of the tests since the session began.
fn rtt_line(rtt: &RttSnapshot) -> String {
    let us = |time: Duration| format!("{:.1}", time.as_nanos() as f64 / 1e3);
    let network = rtt.window.network().unwrap_or_default();
    let tunnel = rtt.window.tunnel().unwrap_or_default();
    let counts = &rtt.counts;
    let words = [
        ("p50_us", us(network.p50)),
        ("p99_us", us(network.p99)),
        ("min_us", us(network.min)),
        ("max_us", us(network.max)),
        ("stddev_us", us(network.standard_deviation)),
        ("jitter_us", us(network.jitter)),
        ("tunnel_p50_us", us(tunnel.p50)),
        ("tunnel_p99_us", us(tunnel.p99)),
        ("samples", rtt.window.samples().len().to_string()),
        ("sent", counts.sent.to_string()),
        ("answered", counts.answered.to_string()),
        ("lost_forward", counts.lost_forward.to_string()),
        ("lost_reverse", counts.lost_reverse.to_string()),
        ("reordered_forward", counts.reordered_forward.to_string()),
        ("reordered_reverse", counts.reordered_reverse.to_string()),
        ("duplicates", counts.duplicates.to_string()),
        ("late", counts.late.to_string()),
        ("forged", counts.forged.to_string()),
        ("stalls", counts.stalls.to_string()),
        ("under_way", rtt.under_way.to_string()),
        (
            "age_secs",
            rtt.age.unwrap_or_default().as_secs().to_string(),
        ),
        ("stamps", rtt.window.by().name().to_owned()),
    ];
    words
        .map(|(name, value)| format!("{name}={value}"))
        .join(" ")
}

fn bind(options: &DeviceOptions) -> Result<Vec<Arc<UdpSockets>>, DeviceError> {
    let port = options.listen_port;
    match UdpSockets::bind_all(port, 0, options.offload, options.shards) {
        Ok(sockets) => Ok(sockets.into_iter().map(Arc::new).collect()),
        Err(Errno::EADDRINUSE) => Err(DeviceError::PortInUse { port }),
        Err(errno) => Err(DeviceError::Sockets(errno)),
    }
}

fn shard(place: Place, descriptors: Descriptors, udp_gso: bool) -> DeviceShard {
    let mut engine = Engine::new(place, Box::new(rand::random::<u32>));
    engine.set_listen_port(descriptors.sockets().port());
    engine.set_udp_gso(udp_gso);
    engine.set_clocks(Box::new(driver::read_clocks));
    let TunOffloads { tcp, udp } = descriptors.tun().offloads();
    Shard::new(
        engine,
        Outlet::new(descriptors, Capabilities { tcp, udp }, udp_gso),
    )
}

/// The engine's clock and the wall clock, at one moment.
#[expect(
    clippy::disallowed_methods,
    reason = "the edge where handshakes get a date"
)]
fn clocks() -> (Instant, Duration) {
    let unix_now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    (Instant::now(), unix_now)
}
