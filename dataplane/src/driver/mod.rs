//! The two loops that move bytes between the kernel and a shard. They behave the same; `uring` is the fast one, `epoll`
//! is for where io_uring is forbidden or too old.

mod clocks;
mod commands;
pub(crate) mod epoll;
pub(crate) mod uring;

pub(crate) use clocks::{clock, read_clocks, sources};
pub(crate) use commands::DeviceShard;
