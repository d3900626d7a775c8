//! The units: the daemon's, and the one of the store's server, which a restart of the daemon leaves alone.

/// The daemon's.
pub const DAEMON_UNIT: &str = "ployzd.service";
/// The store's server, which the daemon starts and stops.
pub const NATS_UNIT: &str = "ployz-nats.service";

/// What the daemon runs as transient units.
pub(crate) const WORKLOAD_UNITS: &str = "ployz-workload-*.service";

/// What they say, by name.
pub(crate) const UNITS: [(&str, &str); 2] = [
    (DAEMON_UNIT, include_str!("ployzd.service")),
    (NATS_UNIT, include_str!("ployz-nats.service")),
];
