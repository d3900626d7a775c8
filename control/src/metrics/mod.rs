//! The daemon's metrics, for Prometheus.

mod data_plane;
mod exposition;

pub(crate) use data_plane::page as data_plane;
pub(crate) use exposition::{bind, family, gauge, serve};
