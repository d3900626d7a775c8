//! Changes of the host's interfaces and routes, passed on to the data plane.

use std::time::Duration;

use ployz_dataplane::Device;
use ployz_dataplane::netlink::{HostWatch, LinkWatch};

/// Keeps packets and their padding below every MTU on the way in. Never returns.
pub(crate) async fn follow_mtu(mut watch: LinkWatch, device: &Device) {
    loop {
        match watch.changed().await {
            Ok(Some(change)) => {
                let routes = change.smallest_route_mtu.unwrap_or(u32::MAX);
                let smallest = routes.min(change.mtu);
                device.set_mtu(change.mtu as usize, smallest as usize);
            }
            // The interface has left this namespace. The data plane notices a removal itself, and outlives a move.
            Ok(None) => std::future::pending().await,
            Err(error) => tracing::warn!(%error, "cannot follow the interface's MTU"),
        }
    }
}

/// Drops sticky source addresses when a better route may need another. Never returns.
pub(crate) async fn follow_host(mut watch: HostWatch, device: &Device) {
    /// By then an answer that was under way to the former address, and made it sticky again, has arrived.
    const IN_FLIGHT_WAIT: Duration = Duration::from_secs(1);
    loop {
        if let Err(error) = watch.changed().await {
            tracing::warn!(%error, "cannot follow the host's routes");
        }
        device.forget_locals();
        tokio::time::sleep(IN_FLIGHT_WAIT).await;
        device.forget_locals();
    }
}
