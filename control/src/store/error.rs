//! Why a call to the store failed.

use ployz_api::{Code, Failure};

/// The store did not do what was asked of it.
pub(crate) fn unavailable(cause: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        Code::StoreUnavailable,
        format!("the store is not available: {cause}"),
    )
    .hint("ployzctl status (on a machine that holds the store)")
}
