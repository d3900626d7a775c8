//! The overlay's interface on this machine: its addresses and its peers.

mod error;
mod follow;
mod interface;
pub(crate) mod reflector;
pub(crate) mod standalone;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use ployz_dataplane::netlink::{HostWatch, Link, Netlink};
use ployz_dataplane::uapi::{Interface as _, SOCKET_DIRECTORY, Server};
use ployz_dataplane::{Device, DeviceOptions};
use ployz_engine::{
    Drop, PeerSnapshot, PeerUpdate, PrivateKey, PublicKey, Snapshot, Tai64n, Update,
};

use crate::host::config::Config;
use crate::metrics;
use crate::overlay::follow::{follow_host, follow_mtu};

pub(crate) use error::OverlayError;

/// An action of [`OverlayError::Command`].
const READ: &str = "read the data plane's state";

/// A /48 of unique local addresses is a network's.
const CLUSTER_PREFIX_LEN_V6: u8 = 48;

/// The overlay's interface on this machine.
#[derive(Debug)]
pub(crate) struct Overlay {
    attached: Attached,
    /// The end of the former process by its own account, in milliseconds since 1970.
    ended_ms: Option<u64>,
    /// The gap in traffic, if the interface was taken over from the former process.
    gap: Cell<Option<Duration>>,
}

/// The attachment of the machine to the overlay.
#[derive(Debug)]
enum Attached {
    /// An interface of the kernel's, and the data plane behind it.
    Interface(Box<Device>, Link),
    /// Nothing: tests of the control plane need no packets, and no root.
    #[cfg(test)]
    Nothing,
}

/// The traffic with one peer.
#[derive(Clone, Debug)]
pub(crate) struct PeerTraffic {
    pub(crate) handshake_age_secs: Option<u64>,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) path_mtu: Option<u64>,
    pub(crate) newest_initiation: Option<Tai64n>,
}

impl Overlay {
    /// Opens the interface with its key, its port and its first peers. It is up, and has no address unless it was taken
    /// over from the former process.
    pub(crate) async fn open(
        config: &Config,
        key: &PrivateKey,
        wg_port: u16,
        peers: Vec<PeerUpdate>,
        ended_ms: Option<u64>,
    ) -> Result<Self, OverlayError> {
        let options = DeviceOptions {
            name: config.interface.clone(),
            backend: config.io_backend.into(),
            offload: true,
            udp_gso: true,
            shards: config.shards.into(),
            listen_port: wg_port,
        };
        let update = Update {
            private_key: Some(Some(key.copy())),
            peers,
            ..Update::default()
        };
        let device = interface::open(&options, &update).await?;
        let link = Link::by_name(&Netlink::open()?, &config.interface).await?;
        link.set_mtu(config.mtu).await?;
        link.set_up().await?;
        Ok(Self {
            attached: Attached::Interface(Box::new(device), link),
            ended_ms,
            gap: Cell::default(),
        })
    }

    /// An overlay that no packet gets into, and whose addresses the host has already.
    #[cfg(test)]
    pub(crate) fn detached() -> Self {
        Self {
            attached: Attached::Nothing,
            ended_ms: None,
            gap: Cell::default(),
        }
    }

    fn interface(&self) -> Option<(&Device, &Link)> {
        match &self.attached {
            Attached::Interface(device, link) => Some((device, link)),
            #[cfg(test)]
            Attached::Nothing => None,
        }
    }

    async fn apply(&self, update: Update, action: &'static str) -> Result<(), OverlayError> {
        let Some((device, _)) = self.interface() else {
            return Ok(());
        };
        let applied = device.apply(update).await;
        applied.map_err(OverlayError::command(action))
    }

    /// Follows the host's changes and answers `wg`. Ends when the interface does.
    pub(crate) async fn serve(&self) -> Result<(), OverlayError> {
        let Some((device, link)) = self.interface() else {
            return std::future::pending().await;
        };
        let wg = Server::bind(SOCKET_DIRECTORY.as_ref(), device.name()).await?;
        let (link_watch, host_watch) = (link.watch()?, HostWatch::open()?);
        tokio::select! {
            result = wg.serve(device) => Ok(result?),
            () = follow_mtu(link_watch, device) => Ok(()),
            () = follow_host(host_watch, device) => Ok(()),
            () = interface::attend(device, self.ended_ms, &self.gap) => Ok(()),
            () = device.ended() => Err(OverlayError::Ended),
        }
    }

    /// Adds this machine's addresses, and with them the routes to the whole overlay.
    pub(crate) async fn add_addresses(&self, addresses: &[IpNet]) -> Result<(), OverlayError> {
        if let Some((_, link)) = self.interface() {
            for address in addresses {
                link.add_address(*address).await?;
            }
        }
        Ok(())
    }

    /// Removes them.
    pub(crate) async fn remove_addresses(&self, addresses: &[IpNet]) -> Result<(), OverlayError> {
        if let Some((_, link)) = self.interface() {
            for address in addresses {
                link.remove_address(*address).await?;
            }
        }
        Ok(())
    }

    /// Changes peers, all of them or none.
    pub(crate) async fn change_peers(&self, peers: Vec<PeerUpdate>) -> Result<(), OverlayError> {
        let update = Update {
            peers,
            ..Update::default()
        };
        self.apply(update, "change the peers").await
    }

    /// Removes all peers.
    pub(crate) async fn clear_peers(&self) -> Result<(), OverlayError> {
        let update = Update {
            replace_peers: true,
            ..Update::default()
        };
        self.apply(update, "remove the peers").await
    }

    /// Changes WireGuard's port.
    pub(crate) async fn set_port(&self, port: u16) -> Result<(), OverlayError> {
        let update = Update {
            listen_port: Some(port),
            ..Update::default()
        };
        self.apply(update, "change WireGuard's UDP port").await
    }

    /// All counters of the data plane.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, OverlayError> {
        let Some((device, _)) = self.interface() else {
            return Ok(Snapshot::default());
        };
        let snapshot = device.snapshot().await;
        Ok(snapshot.map_err(OverlayError::command(READ))?.traffic)
    }

    /// The data plane's part of the page of metrics.
    pub(crate) async fn metrics(&self) -> Result<String, OverlayError> {
        let Some((device, _)) = self.interface() else {
            return Ok(String::new());
        };
        let page = metrics::data_plane(device).await;
        page.map_err(OverlayError::command(READ))
    }

    /// The traffic with each peer.
    pub(crate) async fn traffic(
        &self,
        now: Instant,
    ) -> Result<BTreeMap<PublicKey, PeerTraffic>, OverlayError> {
        let snapshot = self.snapshot().await?;
        let traffic = |peer: PeerSnapshot| PeerTraffic {
            handshake_age_secs: peer
                .last_handshake
                .map(|at| now.saturating_duration_since(at).as_secs()),
            endpoint: peer.endpoint,
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
            path_mtu: peer.path_mtu.map(|mtu| mtu as u64),
            newest_initiation: peer.newest_initiation,
        };
        Ok(snapshot
            .peers
            .into_iter()
            .map(|peer| (peer.public_key, traffic(peer)))
            .collect())
    }

    /// Starts `count` tests of the path to each of these peers.
    pub(crate) fn measure_round_trips(
        &self,
        count: u16,
        wanted: BTreeSet<PublicKey>,
    ) -> Result<(), OverlayError> {
        let Some((device, _)) = self.interface() else {
            return Ok(());
        };
        let measuring = device.measure_round_trips(count, Some(wanted));
        measuring.map_err(OverlayError::command("measure round trips"))
    }

    /// The number of datagrams that were not authentic, or belong to no known session.
    pub(crate) async fn refused(&self) -> Result<u64, OverlayError> {
        let snapshot = self.snapshot().await?;
        let reasons = [
            Drop::BadMac,
            Drop::UnknownPeer,
            Drop::BadHandshake,
            Drop::UnknownSession,
            Drop::BadTag,
        ];
        Ok(reasons
            .map(|reason| snapshot.drops.get(reason))
            .iter()
            .sum())
    }

    /// The gap in traffic when the interface was taken over from the former process, once it is measured.
    pub(crate) const fn gap(&self) -> Option<Duration> {
        self.gap.get()
    }

    /// `io_uring` or `epoll`.
    pub(crate) fn backend(&self) -> &'static str {
        self.interface()
            .map_or("none", |(device, _)| device.backend().name())
    }

    /// The data plane's own status, as keys and values.
    pub(crate) async fn status(&self) -> Result<BTreeMap<String, String>, OverlayError> {
        let gap = self.gap.get();
        let gap = gap.map(|gap| ("handover_gap_ms".to_owned(), gap.as_millis().to_string()));
        let Some((device, _)) = self.interface() else {
            return Ok(BTreeMap::new());
        };
        let status = device.status().await;
        let status = status.map_err(OverlayError::command(READ))?;
        Ok(status.into_iter().chain(gap).collect())
    }
}

/// The addresses of a machine's interface, each with the prefix of the whole overlay.
pub(crate) fn interface_addresses(
    cluster_cidr: Ipv4Net,
    overlay_ip: std::net::Ipv4Addr,
    overlay_ip6: std::net::Ipv6Addr,
) -> Result<[IpNet; 2], OverlayError> {
    Ok([
        Ipv4Net::new(overlay_ip, cluster_cidr.prefix_len())?.into(),
        Ipv6Net::new(overlay_ip6, CLUSTER_PREFIX_LEN_V6)?.into(),
    ])
}

/// The address of the store on a machine.
pub(crate) fn store_address(overlay_ip: std::net::Ipv4Addr, port: u16) -> (IpAddr, u16) {
    (IpAddr::V4(overlay_ip), port)
}
