//! The credentials that this machine presents as a client: a member's, or an admin's where the network's authority is
//! kept.

use ployz_api::client::CERTIFICATE_SECS;
use ployz_api::{Code, Credential, Failure, Role, Secret};
use ployz_core::ROOT_PREFIX;
use rcgen::KeyPair;

use crate::host::ca::CertificateAuthority;
use crate::host::clock;
use crate::host::error::HostError;
use crate::host::membership::Membership;
use crate::machine::context::Machine;
use crate::network::Storage;

impl Machine {
    /// By what the rest of the network knows root of this host: as an admin where the network's authority lies in
    /// root's hands anyway, and everywhere else as the machine.
    pub(crate) fn member_credential(
        &self,
        membership: &Membership,
        certificate_pem: &str,
        storage: Option<&Storage>,
    ) -> Result<Credential, HostError> {
        if let Some(storage) = storage {
            return self.credential_of_root(membership, &storage.authority);
        }
        let key = self.identity.certificate_key_pem.expose().to_owned();
        let certificate = certificate_pem.to_owned();
        Ok(credential(membership, certificate, Secret::new(key)))
    }

    /// The certificate of a server of the store, where the network's authority is.
    pub(crate) fn store_certificate(
        &self,
        membership: &Membership,
        authority: &CertificateAuthority,
    ) -> Result<String, HostError> {
        let addresses = [membership.overlay_ip.into(), membership.overlay_ip6.into()];
        let key = self.identity.certificate_key()?;
        authority.certify_store(self.identity.machine_id, &addresses, &key)
    }

    /// As root of this host, for as long as the network's authority lies here: a machine that hands the store over has
    /// it until the other ones have been told.
    ///
    /// # Errors
    /// `NETWORK_NOT_RUNNING`, or `INTERNAL` if the authority is not here.
    pub(crate) fn admin_credential(&self) -> Result<Credential, Failure> {
        let membership = self.membership()?.ok_or_else(|| {
            Failure::new(Code::NetworkNotRunning, "this machine is in no network")
        })?;
        Ok(self.credential_of_root(&membership, &self.authority()?)?)
    }

    fn credential_of_root(
        &self,
        membership: &Membership,
        authority: &CertificateAuthority,
    ) -> Result<Credential, HostError> {
        let key = KeyPair::generate()?;
        let subject = format!("{ROOT_PREFIX}{}", self.identity.machine_id);
        // It is made anew with the machine's own.
        let end = Some(clock::now().unix_secs + CERTIFICATE_SECS);
        let certificate = authority.certify_person(&subject, Role::Admin, end, &key)?;
        let key = Secret::new(key.serialize_pem());
        Ok(credential(membership, certificate, key))
    }
}

fn credential(membership: &Membership, certificate_pem: String, key_pem: Secret) -> Credential {
    Credential {
        endpoints: Vec::new(),
        network: membership.network_id.to_string(),
        ca_pem: membership.ca_pem.clone(),
        certificate_pem,
        key_pem,
    }
}
