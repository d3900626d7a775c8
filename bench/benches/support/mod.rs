//! What the benchmarks of the parts share: packets, and two shards that talk through memory.

pub(crate) mod packets;
pub(crate) mod pair;
