//! The units: the daemon's, and the one of the store's server, which a restart of the daemon leaves alone.

use std::fs;
use std::path::Path;

use ployz_api::Failure;

use crate::files::failed;

/// The daemon's.
pub const DAEMON_UNIT: &str = "ployzd.service";
/// The store's server, which the daemon starts and stops.
pub const NATS_UNIT: &str = "ployz-nats.service";

/// The transient units that the daemon runs.
pub(crate) const WORKLOAD_UNITS: &str = "ployz-workload-*.service";

/// The text of the units, by name.
pub(crate) const UNITS: [(&str, &str); 2] = [
    (DAEMON_UNIT, include_str!("ployzd.service")),
    (NATS_UNIT, include_str!("ployz-nats.service")),
];

/// Writes the units of this version, as the version before it asks for when it makes room.
///
/// # Errors
///
/// `INSTALL_FAILED`: they cannot be written there.
pub fn write_units(directory: &Path) -> Result<(), Failure> {
    fs::create_dir_all(directory).map_err(failed(directory))?;
    for (unit, text) in UNITS {
        let path = directory.join(unit);
        fs::write(&path, text).map_err(failed(&path))?;
    }
    Ok(())
}
