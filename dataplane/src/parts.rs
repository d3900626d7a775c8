//! The parts of an interface: the queues of a TUN, and sockets on one port. They are made, or adopted from a process
//! that has ended.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;

use crate::driver;
use crate::inherited_fds::{self, InheritedFds};
use crate::options::{DeviceError, DeviceOptions};
use crate::sys::tun::Tun;
use crate::sys::udp::UdpSockets;

/// A queue and a pair of sockets for every shard, in their order.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) tuns: Vec<Arc<Tun>>,
    pub(crate) sockets: Vec<Arc<UdpSockets>>,
}

/// The reason for which a kept interface is of no use to this process.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Descriptors are missing, or too many.
    #[error("{queues} queues and {sockets} pairs of sockets were kept, for {shards} shards")]
    Incomplete {
        /// Of the TUN.
        queues: usize,
        /// On the port.
        sockets: usize,
        /// That are wanted.
        shards: usize,
    },
    /// The TUN has another name or other flags, or it has been removed.
    #[error("the TUN that was kept is not '{name}' as it has to be: {source}")]
    Tun {
        /// The one that is wanted.
        name: String,
        /// The fault.
        source: io::Error,
    },
    /// They are not sockets, or on another port.
    #[error("the sockets that were kept are not on UDP port {port}: {source}")]
    Sockets {
        /// The one that is wanted.
        port: u16,
        /// The fault.
        source: Errno,
    },
    /// They are as they have to be, and there is no device all the same.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl Parts {
    /// Makes them.
    ///
    /// # Errors
    /// [`DeviceError`]; nothing is left behind.
    pub(crate) fn make(options: &DeviceOptions, fwmark: u32) -> Result<Self, DeviceError> {
        let port = options.listen_port;
        let tuns = Tun::create(&options.name, options.offload, options.shards)?;
        match UdpSockets::bind_all(port, fwmark, options.offload, options.shards) {
            Ok(sockets) => Ok(Self::new(tuns, sockets)),
            Err(Errno::EADDRINUSE) => Err(DeviceError::PortInUse { port }),
            Err(errno) => Err(DeviceError::Sockets(errno)),
        }
    }

    /// Takes what was kept, and sets it up as if it were new: what was queued in it stays.
    ///
    /// # Errors
    /// [`AdoptError`]; what was kept is closed here.
    pub(crate) fn adopt(
        options: &DeviceOptions,
        fwmark: u32,
        mut kept: InheritedFds,
    ) -> Result<Self, AdoptError> {
        let queues = kept.of_kind(inherited_fds::TUN);
        let (v4, v6) = (
            kept.of_kind(inherited_fds::UDP_V4),
            kept.of_kind(inherited_fds::UDP_V6),
        );
        let fits = queues.len() == options.shards && v4.len() == options.shards;
        if !fits || !(v6.is_empty() || v6.len() == v4.len()) || !kept.is_empty() {
            return Err(AdoptError::Incomplete {
                queues: queues.len(),
                sockets: v4.len(),
                shards: options.shards,
            });
        }
        let tuns = Tun::adopt(queues, &options.name, options.offload).map_err(|source| {
            let name = options.name.clone();
            AdoptError::Tun { name, source }
        })?;
        let v6 = v6
            .into_iter()
            .map(Some)
            .chain(std::iter::repeat_with(|| None));
        let pairs = v4.into_iter().zip(v6).collect();
        let port = options.listen_port;
        let sockets = UdpSockets::adopt_all(pairs, port, fwmark, options.offload)
            .map_err(|source| AdoptError::Sockets { port, source })?;
        Ok(Self::new(tuns, sockets))
    }

    fn new(tuns: Vec<Tun>, sockets: Vec<UdpSockets>) -> Self {
        Self {
            tuns: tuns.into_iter().map(Arc::new).collect(),
            sockets: sockets.into_iter().map(Arc::new).collect(),
        }
    }

    /// The time that the oldest datagram has been waiting to be received; none if none waits.
    pub(crate) fn waited(&self) -> Option<Duration> {
        let arrivals = self.sockets.iter().filter_map(|it| it.first_arrival());
        let waited_ns = driver::read_clocks().wall_ns.checked_sub(arrivals.min()?)?;
        Some(Duration::from_nanos(waited_ns))
    }
}

/// Shows everything that has to be kept, with the name to keep it under.
pub(crate) fn each_descriptor(
    tuns: &[Arc<Tun>],
    sockets: &[Arc<UdpSockets>],
    mut show: impl FnMut(&str, BorrowedFd<'_>),
) {
    for (shard, tun) in tuns.iter().enumerate() {
        show(&format!("{}{shard}", inherited_fds::TUN), tun.as_fd());
    }
    for (shard, pair) in sockets.iter().enumerate() {
        show(&format!("{}{shard}", inherited_fds::UDP_V4), pair.v4());
        if let Some(v6) = pair.v6() {
            show(&format!("{}{shard}", inherited_fds::UDP_V6), v6);
        }
    }
}
