//! The common ground of the benchmarks of the parts: packets, and two shards that talk through memory.

pub(crate) mod packets;
pub(crate) mod pair;
