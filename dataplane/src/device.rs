//! One interface: made, run on a thread of its own, told what to do, and taken down again.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use ployz_engine::{Drop, Engine, Snapshot, Update};
use tokio::sync::oneshot;

use crate::descriptors::Descriptors;
use crate::driver::{self, DeviceShard};
use crate::inbox::{Caller, Command, Inbox, inbox};
use crate::offload::Capabilities;
use crate::outlet::Outlet;
use crate::shard::Shard;
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
    /// No thread, no descriptors.
    #[error("starting the data plane failed: {0}")]
    Start(#[from] io::Error),
}

/// An interface and the thread that runs it. Dropping it without [`Device::stop`] stops it as well.
#[derive(Debug)]
pub struct Device {
    name: String,
    caller: Caller,
    thread: Option<JoinHandle<io::Result<()>>>,
    backend: Backend,
    tun_offloads: TunOffloads,
    udp_offload: bool,
    sockets: RefCell<Arc<UdpSockets>>,
    fwmark: Cell<u32>,
    ended: RefCell<Option<oneshot::Receiver<()>>>,
}

impl Device {
    /// Makes the interface and starts its thread. The interface is down and has no address.
    ///
    /// # Errors
    /// [`DeviceError`]; nothing is left behind.
    pub fn create(options: &DeviceOptions) -> Result<Self, DeviceError> {
        let tun = Tun::create(&options.name, options.offload)?;
        let sockets = bind(options.listen_port, 0, options.offload)?;
        let sockets = Arc::new(sockets);
        let tun_offloads = tun.offloads();
        let udp_gso = options.offload && options.udp_gso;
        let shard = shard(Descriptors::new(tun, Arc::clone(&sockets)), udp_gso);
        let (caller, inbox) = inbox()?;
        let (started, backend) = mpsc::sync_channel(1);
        let (alive, ended) = oneshot::channel();
        let choice = options.backend;
        let thread = std::thread::Builder::new()
            .name("ployz-data".to_owned())
            .spawn(move || {
                // Dropped when the thread ends, however it ends.
                let _alive = alive;
                run(shard, choice, &inbox, &started)
            })?;
        let backend = backend
            .recv()
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(Self {
            name: options.name.clone(),
            caller,
            thread: Some(thread),
            backend: backend?,
            tun_offloads,
            udp_offload: options.offload,
            sockets: RefCell::new(sockets),
            fwmark: Cell::new(0),
            ended: RefCell::new(Some(ended)),
        })
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The loop that runs.
    pub const fn backend(&self) -> Backend {
        self.backend
    }

    /// Tells the data plane the interface's MTU, and the smallest of it and of those of the routes through it, in bytes.
    pub fn set_mtu(&self, link: usize, smallest: usize) {
        // A stopped data plane sends nothing.
        let _ = self.caller.call(Command::SetMtu { link, smallest });
    }

    /// Tells the data plane that the host's addresses or routes have changed.
    pub fn forget_locals(&self) {
        // A stopped data plane remembers nothing.
        let _ = self.caller.call(Command::ForgetLocals);
    }

    /// What changes with traffic.
    ///
    /// # Errors
    /// If the data plane is stuck or gone.
    pub async fn snapshot(&self) -> Result<(Snapshot, bool), InterfaceError> {
        self.ask(Command::Snapshot).await
    }

    /// Waits until the data plane has ended by itself, which it does only if the kernel fails it.
    pub async fn ended(&self) {
        let ended = self.ended.borrow_mut().take();
        match ended {
            Some(ended) => {
                let _ = ended.await;
            }
            None => std::future::pending().await,
        }
    }

    /// Stops the thread and takes the interface down.
    ///
    /// # Errors
    /// What ended the loop, if it was not this call.
    pub fn stop(mut self) -> io::Result<()> {
        self.join()
    }

    fn join(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        // If the queue is full the thread has commands to read, and the next try finds room.
        while self.caller.call(Command::Stop) == Err(crate::inbox::CallError::Busy) {
            std::thread::yield_now();
        }
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the data plane panicked")))
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, InterfaceError> {
        /// The shard answers within a turn; a turn of full buffers takes milliseconds.
        const ANSWER_WAIT: Duration = Duration::from_secs(5);
        let (reply, answer) = oneshot::channel();
        self.caller
            .call(command(reply))
            .map_err(|error| InterfaceError::new(Errno::EBUSY, error.to_string()))?;
        match tokio::time::timeout(ANSWER_WAIT, answer).await {
            Ok(Ok(answer)) => Ok(answer),
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

    /// New sockets, if `update` asks for another port: bound before anything is changed.
    fn rebind(&self, update: &Update) -> Result<Option<Arc<UdpSockets>>, InterfaceError> {
        let Some(port) = update.listen_port else {
            return Ok(None);
        };
        if port == self.sockets.borrow().port() {
            return Ok(None);
        }
        let fwmark = update.fwmark.unwrap_or_else(|| self.fwmark.get());
        let sockets = UdpSockets::bind(port, fwmark, self.udp_offload).map_err(|errno| {
            InterfaceError::new(errno, format!("binding UDP port {port} failed: {errno}"))
        })?;
        Ok(Some(Arc::new(sockets)))
    }
}

impl std::ops::Drop for Device {
    fn drop(&mut self) {
        if let Err(error) = self.join() {
            tracing::error!(%error, "the data plane had failed");
        }
    }
}

impl Interface for Device {
    async fn apply(&self, update: Update) -> Result<(), InterfaceError> {
        let sockets = self.rebind(&update)?;
        let fwmark = update.fwmark;
        if let (Some(fwmark), None) = (fwmark, &sockets) {
            let current = Arc::clone(&self.sockets.borrow());
            current.set_fwmark(fwmark).map_err(|errno| {
                InterfaceError::new(errno, format!("setting the firewall mark failed: {errno}"))
            })?;
        }
        let for_shard = sockets.clone();
        self.ask(|reply| Command::Apply(update, for_shard, reply))
            .await?
            .map_err(|error| InterfaceError::new(Errno::ENOSPC, error.to_string()))?;
        if let Some(fwmark) = fwmark {
            self.fwmark.set(fwmark);
        }
        if let Some(sockets) = sockets {
            self.sockets.replace(sockets);
        }
        Ok(())
    }

    async fn describe(&self) -> Result<InterfaceDescription, InterfaceError> {
        let device = self.ask(Command::Describe).await?;
        let (now, unix_now) = clocks();
        Ok(InterfaceDescription {
            listen_port: self.sockets.borrow().port(),
            fwmark: self.fwmark.get(),
            device,
            now,
            unix_now,
        })
    }

    async fn status(&self) -> Result<Vec<(String, String)>, InterfaceError> {
        let (snapshot, udp_gso) = self.snapshot().await?;
        let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let mut status = vec![
            ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("backend".to_owned(), self.backend.name().to_owned()),
            ("tun_tcp_offload".to_owned(), yes_no(self.tun_offloads.tcp)),
            ("tun_udp_offload".to_owned(), yes_no(self.tun_offloads.udp)),
            ("udp_gso".to_owned(), yes_no(udp_gso)),
            ("udp_gro".to_owned(), yes_no(self.udp_offload)),
            (
                "listen_port".to_owned(),
                self.sockets.borrow().port().to_string(),
            ),
            ("peers".to_owned(), snapshot.peers.len().to_string()),
        ];
        for peer in &snapshot.peers {
            if let Some(mtu) = peer.path_mtu {
                let path = format!("{} {mtu} {}", peer.public_key, peer.batches.name());
                status.push(("path".to_owned(), path));
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

fn bind(port: u16, fwmark: u32, offload: bool) -> Result<UdpSockets, DeviceError> {
    UdpSockets::bind(port, fwmark, offload).map_err(|errno| {
        if errno == Errno::EADDRINUSE {
            DeviceError::PortInUse { port }
        } else {
            DeviceError::Sockets(errno)
        }
    })
}

fn shard(descriptors: Descriptors, udp_gso: bool) -> DeviceShard {
    let mut engine = Engine::new(Box::new(rand::random::<u32>));
    engine.set_listen_port(descriptors.sockets().port());
    engine.set_udp_gso(udp_gso);
    let TunOffloads { tcp, udp } = descriptors.tun().offloads();
    Shard::new(
        engine,
        Outlet::new(descriptors, Capabilities { tcp, udp }, udp_gso),
    )
}

/// The thread: picks a loop, says which, runs it.
fn run(
    shard: DeviceShard,
    choice: BackendChoice,
    inbox: &Inbox,
    started: &mpsc::SyncSender<Result<Backend, DeviceError>>,
) -> io::Result<()> {
    let ring = match choice {
        BackendChoice::Epoll => None,
        BackendChoice::Auto | BackendChoice::IoUring => match driver::uring::ring() {
            Ok(ring) => Some(ring),
            Err(error) if choice == BackendChoice::IoUring => {
                // The creator waits for this, so it is there to hear it.
                let _ = started.send(Err(DeviceError::NoIoUring(explain(&error))));
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(reason = explain(&error), "no io_uring, using epoll");
                None
            }
        },
    };
    let backend = if ring.is_some() {
        Backend::IoUring
    } else {
        Backend::Epoll
    };
    let _ = started.send(Ok(backend));
    let result = match ring {
        Some(ring) => driver::uring::run(shard, ring, inbox),
        None => driver::epoll::run(shard, inbox),
    };
    if let Err(error) = &result {
        tracing::error!(%error, backend = backend.name(), "the data plane failed");
    }
    result
}

fn explain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "the kernel or a sandbox forbids it".to_owned(),
        Some(libc::ENOSYS) => "the kernel has none".to_owned(),
        _ if error.kind() == io::ErrorKind::Unsupported => {
            "the kernel is older than 6.7 and has no multishot reads".to_owned()
        }
        _ => error.to_string(),
    }
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
