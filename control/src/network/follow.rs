//! The watch on the store: a listing and then its changes, begun anew whenever the watch ends.

use std::time::Duration;

use futures_util::FutureExt as _;
use ployz_core::Input;
use tokio::sync::mpsc;

use crate::network::state::Network;
use crate::store::{Changes, Machines, StoreError, operations};

/// The wait before a watch that failed is begun anew, at first and at most.
const FOLLOW_WAIT_MIN: Duration = Duration::from_millis(100);
const FOLLOW_WAIT_MAX: Duration = Duration::from_secs(2);

impl Network {
    /// Watches the store, again and again. Never returns.
    pub(super) async fn follow(&self, news: mpsc::Sender<Input>) {
        let mut wait = FOLLOW_WAIT_MIN;
        loop {
            // A listing that begins now has everything from before: earlier connections do not matter.
            let _ = self.store.connected_anew().now_or_never();
            match self.begin_to_follow().await {
                Ok((listing, changes)) => {
                    wait = FOLLOW_WAIT_MIN;
                    // `run` holds the other end.
                    let _ = news.send(Input::Listed(listing)).await;
                    tokio::select! {
                        () = forward(changes, &news) => {}
                        () = self.resync.notified() => continue,
                        // Publications in between were lost, and the store may be another one by now.
                        () = self.store.connected_anew() => continue,
                    }
                }
                Err(error) => tracing::debug!(%error, "cannot follow the store"),
            }
            tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
            wait = (wait * 2).min(FOLLOW_WAIT_MAX);
        }
    }

    /// A holder of the store first restores what the watch needs: buckets in memory end with their server, a former
    /// version may lack a bucket, and a former daemon may have left operations.
    async fn begin_to_follow(&self) -> Result<(Machines, Changes), StoreError> {
        if self.storage.is_some() {
            self.store.make_buckets(self.membership.store.len()).await?;
            operations::interrupt_former(&self.store, self.own, self.entered_ms).await?;
        }
        self.store.follow().await
    }
}

/// Forwards what changes until the watch ends.
async fn forward(mut changes: Changes, news: &mpsc::Sender<Input>) {
    while let Some(change) = changes.next().await {
        if news.send(Input::Changed(change)).await.is_err() {
            return;
        }
    }
}
