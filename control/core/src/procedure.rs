//! Long work as state machines: each says which step is next, and takes what came of it. One runner in the daemon
//! carries the steps out, waits, and keeps the journal; nothing here knows how.
//!
//! ```text
//!            next(): Step ─────▶ carried out ─────▶ handle(outcome, now)
//!   runner   next(): Wait ─────▶ the time comes ──▶ handle_timeout(now)
//!            next(): Done ─────▶ the outcome is recorded
//! ```

mod interface;
mod migration;
mod store_change;
mod update;

pub use interface::{Next, Procedure, Stage};
pub use migration::{MigrationAnswer, MigrationProcedure, MigrationStep};
pub use store_change::{StoreChangeProcedure, StoreChangeStep};
pub use update::{UpdateAnswer, UpdateProcedure, UpdateTask};

/// Where the clock of a test begins.
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "any instant does to count from")]
fn beginning() -> std::time::Instant {
    std::time::Instant::now()
}
