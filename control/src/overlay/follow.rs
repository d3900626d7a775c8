//! Keeping the data plane in step with the host's interfaces and routes.

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
            // Gone from this namespace: if it was removed, the data plane notices; if it was moved, it goes on.
            Ok(None) => std::future::pending().await,
            Err(error) => tracing::warn!(%error, "cannot follow the interface's MTU"),
        }
    }
}

/// Lets sticky source addresses go when a better route may need another. Never returns.
pub(crate) async fn follow_host(mut watch: HostWatch, device: &Device) {
    /// By then an answer that was on its way to the former address, and taught it to us once more, has arrived.
    const SETTLE: Duration = Duration::from_secs(1);
    loop {
        if let Err(error) = watch.changed().await {
            tracing::warn!(%error, "cannot follow the host's routes");
        }
        device.forget_locals();
        tokio::time::sleep(SETTLE).await;
        device.forget_locals();
    }
}
