//! This machine's place in the overlay: the interface, its addresses and its peers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use ployz_dataplane::netlink::{HostWatch, Link, Netlink};
use ployz_dataplane::uapi::{Interface as _, SOCKET_DIRECTORY, Server};
use ployz_dataplane::{Device, DeviceError, DeviceOptions, TunError};
use ployz_engine::{Drop, PeerSnapshot, PeerUpdate, PrivateKey, PublicKey, Snapshot, Update};

use crate::config::Config;
use crate::dataplane::{follow_host, follow_mtu};
use crate::metrics;

/// A /48 of unique local addresses is a network's.
const CLUSTER_PREFIX_LEN_V6: u8 = 48;

/// The overlay's interface on this machine.
#[derive(Debug)]
pub(crate) struct Overlay {
    device: Device,
    link: Link,
}

/// What is known of a peer from its traffic.
#[derive(Clone, Debug)]
pub(crate) struct PeerTraffic {
    pub(crate) handshake_age_secs: Option<u64>,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) path_mtu: Option<u64>,
}

impl Overlay {
    /// Makes the interface, with its key and its port, up and without an address.
    pub(crate) async fn create(config: &Config, key: &PrivateKey) -> anyhow::Result<Self> {
        let device = create(&DeviceOptions {
            name: config.interface.clone(),
            backend: config.io_backend.into(),
            offload: true,
            udp_gso: true,
            shards: config.shards.into(),
            listen_port: config.wg_port,
        })
        .await?;
        let link = Link::by_name(&Netlink::open()?, &config.interface).await?;
        link.set_mtu(config.mtu).await?;
        let key = PrivateKey::from_bytes(*key.expose());
        device
            .apply(Update {
                private_key: Some(Some(key)),
                ..Update::default()
            })
            .await?;
        link.set_up().await?;
        Ok(Self { device, link })
    }

    /// Keeps it in step with the host and answers `wg`. Ends when the interface does.
    pub(crate) async fn serve(&self) -> anyhow::Result<()> {
        let wg = Server::bind(SOCKET_DIRECTORY.as_ref(), self.device.name()).await?;
        let (link_watch, host_watch) = (self.link.watch()?, HostWatch::open()?);
        tokio::select! {
            result = wg.serve(&self.device) => result.context("the wg socket"),
            () = follow_mtu(link_watch, &self.device) => Ok(()),
            () = follow_host(host_watch, &self.device) => Ok(()),
            () = self.device.ended() => anyhow::bail!("the data plane has ended"),
        }
    }

    /// Gives this machine its addresses, and with them the routes to the whole overlay.
    pub(crate) async fn add_addresses(&self, addresses: &[IpNet]) -> anyhow::Result<()> {
        for address in addresses {
            self.link.add_address(*address).await?;
        }
        Ok(())
    }

    /// Takes them away again.
    pub(crate) async fn remove_addresses(&self, addresses: &[IpNet]) -> anyhow::Result<()> {
        for address in addresses {
            self.link.remove_address(*address).await?;
        }
        Ok(())
    }

    /// Changes peers, all of them or none.
    pub(crate) async fn change_peers(&self, peers: Vec<PeerUpdate>) -> anyhow::Result<()> {
        let update = Update {
            peers,
            ..Update::default()
        };
        self.device.apply(update).await.context("change the peers")
    }

    /// Forgets all peers.
    pub(crate) async fn clear_peers(&self) -> anyhow::Result<()> {
        let update = Update {
            replace_peers: true,
            ..Update::default()
        };
        self.device.apply(update).await.context("clear the peers")
    }

    /// Has WireGuard on another port.
    pub(crate) async fn set_port(&self, port: u16) -> anyhow::Result<()> {
        let update = Update {
            listen_port: Some(port),
            ..Update::default()
        };
        let applied = self.device.apply(update).await;
        applied.with_context(|| format!("have WireGuard on UDP port {port}"))
    }

    /// Everything that the data plane counts.
    pub(crate) async fn snapshot(&self) -> anyhow::Result<Snapshot> {
        Ok(self.device.snapshot().await?.traffic)
    }

    /// Its part of the page of metrics.
    pub(crate) async fn metrics(&self) -> anyhow::Result<String> {
        metrics::data_plane(&self.device).await
    }

    /// What the peers' traffic tells.
    pub(crate) async fn traffic(
        &self,
        now: Instant,
    ) -> anyhow::Result<BTreeMap<PublicKey, PeerTraffic>> {
        let snapshot = self.snapshot().await?;
        let traffic = |peer: PeerSnapshot| PeerTraffic {
            handshake_age_secs: peer
                .last_handshake
                .map(|at| now.saturating_duration_since(at).as_secs()),
            endpoint: peer.endpoint,
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
            path_mtu: peer.path_mtu.map(|mtu| mtu as u64),
        };
        Ok(snapshot
            .peers
            .into_iter()
            .map(|peer| (peer.public_key, traffic(peer)))
            .collect())
    }

    /// Tests the way to these peers so many times, now.
    pub(crate) fn measure_round_trips(
        &self,
        count: u16,
        wanted: BTreeSet<PublicKey>,
    ) -> anyhow::Result<()> {
        Ok(self.device.measure_round_trips(count, Some(wanted))?)
    }

    /// Datagrams that were not authentic, or of no session that is known.
    pub(crate) async fn refused(&self) -> anyhow::Result<u64> {
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

    /// `io_uring` or `epoll`.
    pub(crate) fn backend(&self) -> &'static str {
        self.device.backend().name()
    }

    /// What the shard says of itself.
    pub(crate) async fn status(&self) -> anyhow::Result<BTreeMap<String, String>> {
        Ok(self.device.status().await?.into_iter().collect())
    }
}

/// A daemon that was killed leaves its interface and port to the kernel, which takes a moment to let go of them.
async fn create(options: &DeviceOptions) -> Result<Device, DeviceError> {
    const RELEASE_WAIT: Duration = Duration::from_secs(2);
    const POLL: Duration = Duration::from_millis(20);
    let attempts = RELEASE_WAIT.as_millis() / POLL.as_millis();
    for _ in 0..attempts {
        match Device::create(options) {
            Err(DeviceError::Tun(TunError::Exists(_)) | DeviceError::PortInUse { .. }) => {
                tokio::time::sleep(POLL).await;
            }
            result => return result,
        }
    }
    Device::create(options)
}

/// A machine's addresses as its interface has them: each with the prefix of the whole overlay.
pub(crate) fn interface_addresses(
    cluster_cidr: Ipv4Net,
    overlay_ip: std::net::Ipv4Addr,
    overlay_ip6: std::net::Ipv6Addr,
) -> anyhow::Result<[IpNet; 2]> {
    Ok([
        Ipv4Net::new(overlay_ip, cluster_cidr.prefix_len())?.into(),
        Ipv6Net::new(overlay_ip6, CLUSTER_PREFIX_LEN_V6)?.into(),
    ])
}

/// Where a machine's store is.
pub(crate) fn store_address(overlay_ip: std::net::Ipv4Addr, port: u16) -> (IpAddr, u16) {
    (IpAddr::V4(overlay_ip), port)
}
