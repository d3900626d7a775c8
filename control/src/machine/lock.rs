//! Locks that allow a single coordinator at a time within this daemon.

use std::sync::Arc;

use ployz_api::{Code, Failure};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// A lock that is taken at once or not at all. It guards this daemon only: between daemons the store decides.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExclusiveLock(Arc<Mutex<()>>);

/// Held while the operation runs.
#[derive(Debug)]
pub(crate) struct ExclusiveGuard(
    #[expect(dead_code, reason = "held, not read")] OwnedMutexGuard<()>,
);

impl ExclusiveLock {
    /// Takes the lock; none if it is held.
    pub(crate) fn take(&self) -> Option<ExclusiveGuard> {
        Arc::clone(&self.0)
            .try_lock_owned()
            .ok()
            .map(ExclusiveGuard)
    }

    /// Takes the lock, or reports that `what` is running.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_holds_a_lock_and_whoever_comes_then_is_told_what_is_going_on() {
        let lock = ExclusiveLock::default();
        let handle = lock.clone();
        let held = lock.take_for("an update").unwrap();
        let refused = handle.take_for("an update").unwrap_err();
        assert_eq!(
            (refused.code, refused.message.as_str()),
            (Code::Busy, "an update is in progress")
        );
        assert_eq!(refused.hint.as_deref(), Some("ployzctl operation list"));
        assert!(handle.take().is_none());
        assert!(
            ExclusiveLock::default().take().is_some(),
            "another lock is another matter"
        );
        drop(held);
        assert!(handle.take().is_some() && lock.take().is_some());
    }
}
