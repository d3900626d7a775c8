//! The options of a device, and the errors of making one.

use std::io;

use nix::errno::Errno;
use ployz_engine::UpdateError;

use crate::backend::BackendChoice;
use crate::sys::tun::TunError;

/// The options of a [`Device`](crate::Device).
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// The interface's name.
    pub name: String,
    /// The loop to run.
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

/// The reason for which there is no device.
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
        /// The port.
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
    /// The first configuration cannot be applied.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// No thread, no descriptors.
    #[error("starting the data plane failed: {0}")]
    Start(#[from] io::Error),
}
