//! The interface of this process: taken over from the process before it, or made.
//!
//! ```text
//!   former process ──FDSTORE──▶ supervisor ──LISTEN_FDS──▶ this process
//!                                   │ keeps the TUN and the sockets: the interface stays, and the kernel queues
//! ```
//!
//! With a supervisor that keeps descriptors (systemd's `FileDescriptorStoreMax=`), an update or a crash is a pause in
//! traffic. Without one, the interface ends with its process.

use std::cell::Cell;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use ployz_dataplane::{Adoption, Device, DeviceError, DeviceOptions, InheritedFds, TunError};
use ployz_engine::Update;
use sd_notify::NotifyState;

use crate::host::clock;
use crate::overlay::error::OverlayError;

/// Opens the interface with `update` in force from the first packet on, and has the supervisor keep it for the next
/// process.
///
/// # Errors
/// If there is no interface to take over and none can be made.
pub(crate) async fn open(options: &DeviceOptions, update: &Update) -> Result<Device, OverlayError> {
    if let Some(device) = adopt(options, update)? {
        return Ok(device);
    }
    let device = create(options, update).await?;
    keep(&device);
    Ok(device)
}

/// Measures the gap in traffic after a take-over, and has the supervisor keep new sockets whenever the port changes.
/// Never returns. `ended_ms` is the end of the former process, in milliseconds since 1970; none after a crash.
pub(crate) async fn attend(device: &Device, ended_ms: Option<u64>, gap: &Cell<Option<Duration>>) {
    let keep = async {
        loop {
            device.rebound().await;
            device.each_descriptor(|name, _| report(name, drop_kept(name)));
            keep(device);
        }
    };
    let measure = async { gap.set(measure_gap(device, ended_ms).await) };
    tokio::join!(measure, keep);
}

/// Has the supervisor keep the descriptors that the interface consists of now. Without a supervisor it does nothing.
fn keep(device: &Device) {
    device.each_descriptor(|name, fd| report(name, keep_one(name, fd)));
}

fn report(name: &str, told: std::io::Result<()>) {
    if let Err(error) = told {
        tracing::warn!(name, %error, "the supervisor does not keep the interface: a restart will interrupt traffic");
    }
}

/// Waits until there is traffic again, and returns the length of the gap. Ends at once if nothing was taken over.
async fn measure_gap(device: &Device, ended_ms: Option<u64>) -> Option<Duration> {
    /// Peers answer within a round trip, or in the next of their attempts, every 5 s.
    const PATIENCE: Duration = Duration::from_secs(60);
    const POLL: Duration = Duration::from_millis(50);
    let adoption = device.adoption()?;
    let idle = ended_ms.and_then(|ended_ms| idle(&adoption, ended_ms));
    let attempts = PATIENCE.as_millis() / POLL.as_millis();
    for _ in 0..attempts {
        tokio::time::sleep(POLL).await;
        let peers = device.snapshot().await.ok()?.traffic.peers;
        let first = peers.iter().filter_map(|peer| peer.last_handshake).min();
        if let Some(first) = first {
            let gap = gap(&adoption, idle, first);
            let gap_ms = gap.as_millis();
            tracing::info!(gap_ms, "traffic goes on");
            return Some(gap);
        }
    }
    None
}

/// The time from the end of the former process to the take-over; none if the clocks do not allow to say.
fn idle(adoption: &Adoption, ended_ms: u64) -> Option<Duration> {
    /// Longer, and the clock was set, or the machine was off.
    const IDLE_MAX: Duration = Duration::from_secs(60);
    let since_ended = Duration::from_millis(clock::unix_ms().checked_sub(ended_ms)?);
    let since_adopted = clock::now().instant.duration_since(adoption.at);
    let idle = since_ended.checked_sub(since_adopted)?;
    (idle < IDLE_MAX).then_some(idle)
}

/// The time to the first session: from the end of the former process, or from the arrival of the first unread datagram
/// if that was earlier or the end is unknown.
fn gap(adoption: &Adoption, idle: Option<Duration>, first_session: Instant) -> Duration {
    let since_adopted = first_session.saturating_duration_since(adoption.at);
    adoption.waited.max(idle).unwrap_or_default() + since_adopted
}

/// The interface that the supervisor has passed to this process, if it is the wanted one.
fn adopt(options: &DeviceOptions, update: &Update) -> Result<Option<Device>, OverlayError> {
    let kept = InheritedFds::take().map_err(OverlayError::Kept)?;
    if kept.is_empty() {
        return Ok(None);
    }
    let names: Vec<String> = kept.names().map(str::to_owned).collect();
    match Device::adopt(options, update, kept) {
        Ok(device) => {
            tracing::info!(
                interface = options.name,
                "taken over from the process before"
            );
            Ok(Some(device))
        }
        Err(error) => {
            tracing::warn!(%error, "the kept interface cannot be used; creating a new one");
            for name in names {
                drop_kept(&name).map_err(OverlayError::Drop)?;
            }
            Ok(None)
        }
    }
}

/// The kernel releases interface and port of a killed daemon, or of a supervisor that drops them, after a moment.
async fn create(options: &DeviceOptions, update: &Update) -> Result<Device, DeviceError> {
    const RELEASE_WAIT: Duration = Duration::from_secs(2);
    const POLL: Duration = Duration::from_millis(20);
    let attempts = RELEASE_WAIT.as_millis() / POLL.as_millis();
    for _ in 0..attempts {
        match Device::create(options, update) {
            Err(DeviceError::Tun(TunError::Exists(_)) | DeviceError::PortInUse { .. }) => {
                tokio::time::sleep(POLL).await;
            }
            result => return result,
        }
    }
    Device::create(options, update)
}

fn keep_one(name: &str, fd: BorrowedFd<'_>) -> std::io::Result<()> {
    // The supervisor must not poll it: a timestamp in a socket's error queue looks like an end.
    let state = [
        NotifyState::FdStore,
        NotifyState::FdName(name),
        NotifyState::Custom("FDPOLL=0"),
    ];
    sd_notify::notify_with_fds(false, &state, &[fd])
}

fn drop_kept(name: &str) -> std::io::Result<()> {
    sd_notify::notify(
        false,
        &[NotifyState::FdStoreRemove, NotifyState::FdName(name)],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant does to count from")]
    fn the_gap_begins_with_the_end_or_the_first_datagram_that_nobody_took() {
        let at = Instant::now();
        let session = at + Duration::from_millis(5);
        let since = |waited, idle| gap(&Adoption { at, waited }, idle, session);
        assert_eq!(since(None, None), Duration::from_millis(5));
        let waited = Some(Duration::from_millis(40));
        assert_eq!(since(waited, None), Duration::from_millis(45));
        let idle = Some(Duration::from_millis(60));
        assert_eq!(since(waited, idle), Duration::from_millis(65));
        assert_eq!(since(idle, waited), Duration::from_millis(65));
    }
}
