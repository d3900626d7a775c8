//! A certificate authority: a network's own, or one that a daemon makes for its host and drops when it stops.

use std::net::IpAddr;

use ployz_api::{CertificateName, Role, Secret};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
    SignatureAlgorithm,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::host::error::HostError;
use crate::host::identity::hex;

/// Signs certificates for one network.
///
/// Certificates of machines do not expire: membership ends by removal, never by a clock that is wrong.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateAuthority {
    network: String,
    certificate_pem: String,
    key_pem: Secret,
}

impl CertificateAuthority {
    /// A new authority.
    pub(crate) fn generate(network: &str) -> Result<Self, HostError> {
        let key = KeyPair::generate()?;
        let certificate = parameters(network).self_signed(&key)?;
        Ok(Self {
            network: network.to_owned(),
            certificate_pem: certificate.pem(),
            key_pem: Secret::new(key.serialize_pem()),
        })
    }

    /// The authority's own certificate.
    pub(crate) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A certificate with which a machine serves at these addresses and identifies itself to others.
    pub(crate) fn certify_machine(
        &self,
        subject: &str,
        addresses: &[IpAddr],
        key: &impl PublicKeyData,
    ) -> Result<String, HostError> {
        let any = CertificateName::any_machine(&self.network);
        let mut names = vec![SanType::DnsName(any.try_into()?)];
        names.extend(addresses.iter().copied().map(SanType::IpAddress));
        let usages = [
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.certify(subject, Role::Machine, names, &usages, None, key)
    }

    /// A client certificate for a person, which no server can use. It expires at a time in seconds since 1970, or
    /// never.
    pub(crate) fn certify_person(
        &self,
        subject: &str,
        role: Role,
        expires_at: Option<u64>,
        key: &impl PublicKeyData,
    ) -> Result<String, HostError> {
        let usages = [ExtendedKeyUsagePurpose::ClientAuth];
        self.certify(subject, role, Vec::new(), &usages, expires_at, key)
    }

    /// The secret by which the servers of store number `epoch` identify each other: it takes the authority to derive
    /// it.
    pub(crate) fn route_secret(&self, epoch: u32) -> Secret {
        let mut digest = Sha256::new();
        digest.update(b"ployz: routes of the store\0");
        digest.update(epoch.to_be_bytes());
        digest.update(self.key_pem.expose());
        Secret::new(hex(&digest.finalize()))
    }

    fn certify(
        &self,
        subject: &str,
        role: Role,
        other_names: Vec<SanType>,
        usages: &[ExtendedKeyUsagePurpose],
        expires_at: Option<u64>,
        key: &impl PublicKeyData,
    ) -> Result<String, HostError> {
        let name = CertificateName {
            subject: subject.to_owned(),
            role,
            network: self.network.clone(),
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(subject);
        params.subject_alt_names = vec![SanType::DnsName(name.to_string().try_into()?)];
        params.subject_alt_names.extend(other_names);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        if let Some(unix_secs) = expires_at {
            params.not_after = expiry(unix_secs)?;
        }
        let own_key = KeyPair::from_pem(self.key_pem.expose())
            .map_err(HostError::key("the network authority's key"))?;
        let issuer = Issuer::new(parameters(&self.network), own_key);
        Ok(params.signed_by(key, &issuer)?.pem())
    }
}

fn expiry(unix_secs: u64) -> Result<OffsetDateTime, HostError> {
    i64::try_from(unix_secs)
        .ok()
        .and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok())
        .ok_or(HostError::Expiry(unix_secs))
}

/// The parameters that issuer and certificate have to agree on; they follow from the network alone.
fn parameters(network: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&format!("ployz {network}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// The public half of a P-256 key: a joining machine's, whose private half stays there.
#[derive(Debug)]
pub(crate) struct PublicPoint(Vec<u8>);

impl PublicPoint {
    /// Parses an uncompressed point: 4, and two coordinates of 32 bytes. A point that is not on the curve harms its
    /// holder alone, who cannot use the certificate.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let byte = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
        bytes
            .filter(|bytes| bytes.len() == 65 && bytes[0] == 4)
            .map(Self)
    }
}

impl PublicKeyData for PublicPoint {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_points_are_points() {
        let key = KeyPair::generate().unwrap();
        let text = hex(key.der_bytes());
        assert_eq!(
            PublicPoint::from_hex(&text).unwrap().der_bytes(),
            key.der_bytes()
        );
        let compressed = format!("02{}", &text[2..]);
        for other in ["", "04", "ä", &text[1..], &compressed] {
            assert!(PublicPoint::from_hex(other).is_none(), "{other}");
        }
    }

    #[test]
    fn each_store_has_a_secret_of_its_own_that_only_its_authority_can_tell() {
        let authority = CertificateAuthority::generate("n1").unwrap();
        let secret = |authority: &CertificateAuthority, epoch| {
            authority.route_secret(epoch).expose().to_owned()
        };
        assert_eq!(secret(&authority, 1), secret(&authority, 1));
        assert_ne!(secret(&authority, 1), secret(&authority, 2));
        let other = CertificateAuthority::generate("n1").unwrap();
        assert_ne!(secret(&authority, 1), secret(&other, 1));
        // As it comes back from its file, it is the same.
        let saved = serde_json::to_string(&authority).unwrap();
        let read: CertificateAuthority = serde_json::from_str(&saved).unwrap();
        assert_eq!(secret(&authority, 1), secret(&read, 1));
    }

    #[test]
    fn a_time_that_no_certificate_can_have_is_refused_and_not_cut() {
        let authority = CertificateAuthority::generate("n1").unwrap();
        let key = KeyPair::generate().unwrap();
        let certify =
            |expires_at| authority.certify_person("ann", Role::Reader, Some(expires_at), &key);
        for expires_at in [u64::MAX, i64::MAX as u64] {
            let refused = certify(expires_at).unwrap_err();
            assert!(
                matches!(refused, HostError::Expiry(at) if at == expires_at),
                "{refused}"
            );
        }
        assert!(certify(4_000_000_000).is_ok());
    }
}
