//! The system calls that no library wraps the way the hot path needs them.
//!
//! All unsafe code of ployz lives in the modules below; each opens with a `# Safety` section. What can be done on plain
//! bytes (addresses, control messages) is.

pub(crate) mod address;
pub(crate) mod bpf;
mod buffers;
pub(crate) mod control;
pub(crate) mod departures;
mod depth;
mod errno;
pub(crate) mod inherited;
pub(crate) mod message;
mod reuseport;
pub(crate) mod ring;
pub(crate) mod tun;
pub(crate) mod udp;
