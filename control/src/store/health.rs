//! Counters of failures between this machine and the store.

use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::Event;

use crate::store::error::StoreError;

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Health {
    errors: AtomicU64,
    disconnects: AtomicU64,
}

impl Health {
    /// Calls that failed.
    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Connections that were lost.
    pub(crate) fn disconnects(&self) -> u64 {
        self.disconnects.load(Ordering::Relaxed)
    }

    /// Counts a failed call, and returns its error.
    pub(super) fn failed(&self, cause: &dyn std::fmt::Display) -> StoreError {
        self.errors.fetch_add(1, Ordering::Relaxed);
        StoreError::unavailable(cause)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "only errors among the client's events are failures"
    )]
    pub(super) fn report(&self, event: &Event) {
        match event {
            Event::ServerError(_) | Event::ClientError(_) => tracing::warn!(%event, "store"),
            Event::Disconnected => {
                self.disconnects.fetch_add(1, Ordering::Relaxed);
                tracing::info!(%event, "store");
            }
            _ => tracing::info!(%event, "store"),
        }
    }
}
