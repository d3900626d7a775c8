//! Failures as an operator reads them.

use ployz_api::{Code, Failure};

use crate::host::error::HostError;

/// Something of ours that should not fail has failed.
pub(crate) fn internal(error: impl Into<anyhow::Error>) -> Failure {
    error
        .into()
        .downcast::<Failure>()
        .unwrap_or_else(|error| Failure::new(Code::Internal, format!("{error:#}")))
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        Self::new(Code::Internal, error.to_string())
    }
}
