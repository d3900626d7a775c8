//! The network that this machine is in, as it is stored. A machine with this file is a member, whether it takes part at
//! the moment or not.

use std::net::{IpAddr, SocketAddr};

use ipnet::Ipv4Net;
use ployz_api::{Name, NetworkId, NetworkState, Renewed, StoreLocation};
use ployz_core::AddressPlan;
use serde::{Deserialize, Serialize};

use crate::host::error::HostError;
use crate::host::files::DataDirectory;

/// The file of a [`Membership`].
pub(crate) const FILE: &str = "network.json";
/// The file of the network's authority, on machines that hold the store.
pub(crate) const AUTHORITY_FILE: &str = "ca.json";
/// The file of this machine's certificates as they are by now.
pub(crate) const CERTIFICATES_FILE: &str = "certificates.json";
/// The file of the last good view.
pub(crate) const VIEW_FILE: &str = "view.json";

/// Everything that a machine needs to enter its network without any other machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Membership {
    pub(crate) network_id: NetworkId,
    pub(crate) network: Name,
    pub(crate) name: Name,
    pub(crate) cluster_cidr: Ipv4Net,
    /// The plan by which addresses are assigned; only holders of the store have it.
    pub(crate) addresses: Option<AddressPlan>,
    pub(crate) overlay_ip: std::net::Ipv4Addr,
    pub(crate) overlay_ip6: std::net::Ipv6Addr,
    pub(crate) subnet: Ipv4Net,
    pub(crate) ca_pem: String,
    /// The certificate with which it joined. It stays in the file for an earlier version, to which this machine may be
    /// rolled back.
    pub(crate) certificate_pem: String,
    /// The store's servers, by their addresses in the overlay.
    pub(crate) store: Vec<(IpAddr, u16)>,
    /// The number of stores before this one: after a change of holders, the higher number counts.
    #[serde(default)]
    pub(crate) store_epoch: u32,
    /// Whether to take part.
    #[serde(default)]
    pub(crate) state: NetworkState,
    /// WireGuard's port, if it is not the one that the daemon is started with.
    #[serde(default)]
    pub(crate) wg_port: Option<u16>,
    /// The endpoints of this machine's WireGuard, if the operator set them when the network was created.
    #[serde(default)]
    pub(crate) endpoints: Vec<SocketAddr>,
    /// The certificates that have replaced that one; none before the first renewal by this version.
    #[serde(skip)]
    pub(crate) renewed: Option<OwnCertificates>,
}

/// This machine's certificates in a network, which are renewed: in a file of their own, since that of the membership is
/// read by earlier versions as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnCertificates {
    pub(crate) network_id: NetworkId,
    /// For the management protocol.
    pub(crate) machine_pem: String,
    /// For the store.
    pub(crate) store_pem: String,
}

impl OwnCertificates {
    /// Those that were just signed.
    pub(crate) fn of(network_id: NetworkId, signed: Renewed) -> Self {
        Self {
            network_id,
            machine_pem: signed.certificate_pem,
            store_pem: signed.store_certificate_pem,
        }
    }
}

impl Membership {
    /// Reads the membership, with this machine's certificates as they are by now.
    pub(crate) fn read(files: &DataDirectory) -> Result<Option<Self>, HostError> {
        let Some(mut membership) = files.read::<Self>(FILE)? else {
            return Ok(None);
        };
        let renewed: Option<OwnCertificates> = files.read(CERTIFICATES_FILE)?;
        membership.renewed = renewed.filter(|it| it.network_id == membership.network_id);
        Ok(Some(membership))
    }

    /// The certificate for the management protocol.
    pub(crate) fn machine_certificate(&self) -> &str {
        let renewed = self.renewed.as_ref();
        renewed.map_or(&self.certificate_pem, |it| &it.machine_pem)
    }

    /// The certificate for the store.
    pub(crate) fn store_certificate(&self) -> &str {
        let renewed = self.renewed.as_ref();
        renewed.map_or(&self.certificate_pem, |it| &it.store_pem)
    }

    /// Whether this machine holds the store.
    pub(crate) const fn is_storage(&self) -> bool {
        self.addresses.is_some()
    }

    /// The store's location, as it is announced to other machines.
    pub(crate) fn store_location(&self) -> StoreLocation {
        StoreLocation {
            epoch: self.store_epoch,
            servers: self.store.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::host::ca::CertificateAuthority;
    use crate::host::identity::Identity;
    use crate::testkit::member_of;

    fn membership() -> Membership {
        let authority = CertificateAuthority::generate("n").unwrap();
        let identity = Identity::generate().unwrap();
        member_of(NetworkId::new(1, 1), &authority, &identity)
    }

    /// A data directory that has this as its membership.
    fn with_file(name: &str, bytes: &[u8], check: impl FnOnce(&DataDirectory)) {
        let path = std::env::temp_dir().join(format!("ployz-{name}-{}", std::process::id()));
        let files = DataDirectory::open(&path).unwrap();
        files.write_bytes(FILE, bytes).unwrap();
        check(&files);
        std::fs::remove_dir_all(path).unwrap();
    }

    fn read(files: &DataDirectory) -> Result<Membership, String> {
        let found: Result<Option<Membership>, _> = files.read(FILE);
        found.map(Option::unwrap).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_read_and_only_a_holder_has_the_plan() {
        let mut own = membership();
        own.store_epoch = 7;
        assert!(!own.is_storage());
        let location = own.store_location();
        assert_eq!((location.epoch, &location.servers), (7, &own.store));
        let json = serde_json::to_value(&own).unwrap();
        with_file("member", json.to_string().as_bytes(), |files| {
            let found = read(files).unwrap();
            assert_eq!(serde_json::to_value(found).unwrap(), json);
        });
        own.addresses = Some(AddressPlan::new("10.101.0.0/16".parse().unwrap(), 24).unwrap());
        let holder = serde_json::to_vec(&own).unwrap();
        with_file("holder", &holder, |files| {
            let found = read(files).unwrap();
            assert!(found.is_storage());
            assert_eq!(found.addresses, own.addresses);
        });
    }

    #[test]
    fn a_file_of_an_earlier_version_is_read_with_what_it_did_not_say() {
        let mut json = serde_json::to_value(membership()).unwrap();
        let fields = json.as_object_mut().unwrap();
        for later in ["store_epoch", "state", "wg_port", "endpoints"] {
            assert!(fields.remove(later).is_some(), "{later}");
        }
        with_file("earlier", json.to_string().as_bytes(), |files| {
            let found = read(files).unwrap();
            assert_eq!((found.store_epoch, found.wg_port), (0, None));
            assert_eq!(found.state, NetworkState::default());
            assert!(found.endpoints.is_empty());
        });
    }

    #[test]
    fn a_file_that_is_half_written_or_says_more_is_refused_by_name() {
        let json = serde_json::to_value(membership()).unwrap();
        let text = json.to_string();
        let mut later = json.clone();
        later["later"] = json!(1);
        let mut without = json;
        without.as_object_mut().unwrap().remove("store").unwrap();
        for damaged in [
            text.as_bytes()[..text.len() / 2].to_vec(),
            Vec::new(),
            later.to_string().into_bytes(),
            without.to_string().into_bytes(),
            Value::Null.to_string().into_bytes(),
        ] {
            with_file("damaged", &damaged, |files| {
                let error = read(files).unwrap_err();
                assert!(error.contains("network.json is damaged"), "{error}");
            });
        }
    }

    #[test]
    fn whoever_else_could_read_the_directory_cannot_after_it_was_opened() {
        use std::os::unix::fs::PermissionsExt as _;
        let path = std::env::temp_dir().join(format!("ployz-mode-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let set = |path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        set(&path, 0o777);
        let file = path.join(FILE);
        std::fs::write(&file, "{}").unwrap();
        set(&file, 0o666);
        let files = DataDirectory::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        files.write(FILE, &membership()).unwrap();
        assert_eq!(mode(&file), 0o600);
        std::fs::remove_dir_all(path).unwrap();
    }
}
