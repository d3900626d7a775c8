//! One coordinator at a time, as far as this daemon is concerned.

use std::sync::Arc;

use ployz_api::{Code, Failure};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// A lock that is taken at once or not at all. It guards this daemon only: between daemons the store decides.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExclusiveLock(Arc<Mutex<()>>);

/// Held while the work goes on.
#[derive(Debug)]
pub(crate) struct ExclusiveGuard(
    #[expect(dead_code, reason = "held, not read")] OwnedMutexGuard<()>,
);

impl ExclusiveLock {
    /// Takes it; none if it is held.
    pub(crate) fn take(&self) -> Option<ExclusiveGuard> {
        Arc::clone(&self.0)
            .try_lock_owned()
            .ok()
            .map(ExclusiveGuard)
    }

    /// Takes it, or says that `what` is going on.
    ///
    /// # Errors
    /// `BUSY`.
    pub(crate) fn take_for(&self, what: &str) -> Result<ExclusiveGuard, Failure> {
        self.take().ok_or_else(|| {
            Failure::new(Code::Busy, format!("{what} is in progress"))
                .hint("ployzctl operation list")
        })
    }
}
