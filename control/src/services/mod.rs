//! Work that outlives the request that began it, or that several requests share.

pub(crate) mod admitting;
pub(crate) mod founding;
pub(crate) mod joining;
pub(crate) mod leases;
pub(crate) mod measure;
pub(crate) mod membership;
pub(crate) mod migration;
pub(crate) mod pair;
pub(crate) mod placement;
pub(crate) mod removal;
pub(crate) mod renewal;
pub(crate) mod retiring;
pub(crate) mod runner;
pub(crate) mod store_change;
pub(crate) mod update;
