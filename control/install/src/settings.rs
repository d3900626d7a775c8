//! The daemon's settings: `/etc/ployz/ployzd.toml`.

use std::net::SocketAddr;

use ployz_api::{Code, Failure, Name};
use serde::Serialize;
use toml::Table;

use crate::units::NATS_UNIT;

/// The settings that an installation makes. A setting without a value stays as it is in the file.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// The runtime for workloads: `docker` or `host`.
    pub runtime: String,
    /// The name of the machine.
    pub name: Option<Name>,
    /// The region it is in.
    pub region: Option<Name>,
    /// WireGuard's UDP port.
    pub wg_port: Option<u16>,
    /// The endpoints at which other machines reach it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wg_endpoint: Vec<SocketAddr>,
    /// The address for remote management requests.
    pub listen: Option<SocketAddr>,
    /// The base of later versions.
    pub release_base: Option<String>,
}

impl Settings {
    /// The file as it is to be, after what it was. Keys that are no concern of an installation are left alone; comments
    /// go, if anything changes.
    pub(crate) fn merged(&self, before: &str) -> Result<String, Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            let message = format!("/etc/ployz/ployzd.toml: {error}");
            Failure::new(Code::InstallFailed, message).hint("fix the file, or move it away")
        };
        let old: Table = before.parse().map_err(|error| failed(&error))?;
        let mut new = old.clone();
        new.extend(Table::try_from(self).map_err(|error| failed(&error))?);
        new.insert("service_mode".to_owned(), "system".into());
        new.insert("nats_unit".to_owned(), NATS_UNIT.into());
        if new == old {
            return Ok(before.to_owned());
        }
        toml::to_string(&new).map_err(|error| failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            runtime: "host".to_owned(),
            name: None,
            region: None,
            wg_port: Some(51_900),
            wg_endpoint: vec!["192.0.2.1:51900".parse().unwrap()],
            listen: None,
            release_base: None,
        }
    }

    #[test]
    fn what_is_said_again_changes_nothing_and_what_is_not_said_stays() {
        let first = settings().merged("").unwrap();
        assert!(first.contains("service_mode = \"system\""), "{first}");
        assert!(
            first.contains("nats_unit = \"ployz-nats.service\""),
            "{first}"
        );
        assert_eq!(settings().merged(&first).unwrap(), first);
        let by_hand = format!("# mine\nshards = 2\n{first}");
        assert_eq!(settings().merged(&by_hand).unwrap(), by_hand);
        let other = Settings {
            wg_port: None,
            runtime: "docker".to_owned(),
            ..settings()
        };
        let merged = other.merged(&by_hand).unwrap();
        for line in ["shards = 2", "wg_port = 51900", "runtime = \"docker\""] {
            assert!(merged.contains(line), "{merged}");
        }
    }

    #[test]
    fn a_damaged_file_is_named() {
        let failure = settings().merged("wg_port =").unwrap_err();
        assert!(failure.message.contains("ployzd.toml"), "{failure}");
    }
}
