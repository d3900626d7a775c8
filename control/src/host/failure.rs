//! Failures as an operator reads them.

use ployz_api::{Code, Failure};

/// Something of ours that should not fail has failed.
pub(crate) fn internal(error: impl Into<anyhow::Error>) -> Failure {
    error
        .into()
        .downcast::<Failure>()
        .unwrap_or_else(|error| Failure::new(Code::Internal, format!("{error:#}")))
}
