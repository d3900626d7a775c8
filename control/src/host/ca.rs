//! A certificate authority: a network's own, or one that a daemon makes for its host and drops when it stops.

use std::net::IpAddr;

use ployz_api::client::{CERTIFICATE_SECS, Facts};
use ployz_api::{CertificateName, InviteId, MachineId, Name, Role, Secret, fingerprint};
use ployz_engine::PrivateKey;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
    SignatureAlgorithm, SigningKey as _,
};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::host::error::HostError;
use crate::host::identity::{from_hex, hex};

/// Signs certificates for one network.
///
/// The certificate of a machine is renewed every day and good for [`CERTIFICATE_SECS`]. Membership does not end with
/// it: an expired certificate is renewed as long as the network has the machine.
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

    /// A certificate with which a machine serves management requests and identifies itself to others, issued at a time
    /// in seconds since 1970.
    pub(crate) fn certify_machine(
        &self,
        subject: &Subject<'_>,
        issued_at: u64,
        key: &impl PublicKeyData,
    ) -> Result<String, HostError> {
        let network = &self.network;
        let mut names = vec![
            CertificateName::machine(subject.id, network).to_string(),
            CertificateName::any_machine(network),
            CertificateName::named(subject.name, network),
        ];
        if subject.holds_store {
            names.push(CertificateName::any_holder(network));
            names.push(CertificateName::holder(subject.id, network));
        }
        let names = names.into_iter().map(dns).collect::<Result<_, _>>()?;
        let expires_at = issued_at.saturating_add(CERTIFICATE_SECS);
        self.certify(&subject.id.to_string(), names, &BOTH, Some(expires_at), key)
    }

    /// A certificate for the servers of the store and their clients, at these addresses. It has no end, since it says
    /// nothing that counts: whoever uses the store is known by the key that its server has listed.
    pub(crate) fn certify_store(
        &self,
        id: MachineId,
        addresses: &[IpAddr],
        key: &impl PublicKeyData,
    ) -> Result<String, HostError> {
        let name = format!("{id}.store.{}.ployz", self.network).to_lowercase();
        let mut names = vec![dns(name)?];
        names.extend(addresses.iter().copied().map(SanType::IpAddress));
        self.certify(&id.to_string(), names, &BOTH, None, key)
    }

    /// The certificate of the server for root of this host, which lives as long as the daemon.
    pub(crate) fn certify_host(
        &self,
        id: MachineId,
        key: &impl PublicKeyData,
    ) -> Result<String, HostError> {
        let names = vec![
            dns(CertificateName::machine(id, &self.network).to_string())?,
            dns(CertificateName::any_machine(&self.network))?,
        ];
        self.certify(&id.to_string(), names, &BOTH, None, key)
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
        let name = CertificateName {
            subject: subject.to_owned(),
            role,
            network: self.network.clone(),
        };
        let names = vec![dns(name.to_string())?];
        self.certify(subject, names, &usages, expires_at, key)
    }

    /// Signs a decision of the network: ECDSA over P-256 with SHA-256, ASN.1, in hexadecimal digits.
    pub(crate) fn sign(&self, decision: &[u8]) -> Result<String, HostError> {
        Ok(hex(&self.key()?.sign(decision)?))
    }

    /// The X25519 key of an invite, to which a joining machine proves that it holds its own. Every machine that has the
    /// authority derives it, so that any of them can let the machine in.
    pub(crate) fn proof_key(&self, invite: InviteId) -> PrivateKey {
        let mut digest = Sha256::new();
        digest.update(b"ployz: key of an invite\0");
        digest.update(invite.to_string());
        digest.update(self.key_pem.expose());
        PrivateKey::from_bytes(digest.finalize().into())
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

    fn key(&self) -> Result<KeyPair, HostError> {
        KeyPair::from_pem(self.key_pem.expose())
            .map_err(HostError::key("the network authority's key"))
    }

    fn certify(
        &self,
        subject: &str,
        names: Vec<SanType>,
        usages: &[ExtendedKeyUsagePurpose],
        expires_at: Option<u64>,
        key: &impl PublicKeyData,
    ) -> Result<String, HostError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(subject);
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        if let Some(unix_secs) = expires_at {
            params.not_after = expiry(unix_secs)?;
        }
        let issuer = Issuer::new(parameters(&self.network), self.key()?);
        Ok(params.signed_by(key, &issuer)?.pem())
    }
}

/// Whether the authority of this certificate has signed a decision.
pub(crate) fn has_signed(ca_pem: &str, decision: &[u8], signature: &str) -> bool {
    let Ok(certificate) = CertificateDer::from_pem_slice(ca_pem.as_bytes()) else {
        return false;
    };
    let facts = Facts::read(&certificate);
    facts.is_some_and(|facts| verify(&facts.public_key, decision, signature))
}

/// Verifies ECDSA over P-256 with SHA-256, ASN.1, in hexadecimal digits.
pub(crate) fn verify(point: &[u8], message: &[u8], signature: &str) -> bool {
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
    from_hex(signature).is_some_and(|bytes| key.verify(message, &bytes).is_ok())
}

/// What a machine's certificate says of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) id: MachineId,
    pub(crate) name: &'a Name,
    pub(crate) holds_store: bool,
}

/// Certificates that a machine uses as a server and as a client.
const BOTH: [ExtendedKeyUsagePurpose; 2] = [
    ExtendedKeyUsagePurpose::ServerAuth,
    ExtendedKeyUsagePurpose::ClientAuth,
];

fn dns(name: String) -> Result<SanType, HostError> {
    Ok(SanType::DnsName(name.try_into()?))
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
    /// Takes the point of a certificate that has been verified.
    pub(crate) const fn of_certificate(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// SHA-256 in hexadecimal digits, by which a machine's record names its key.
    pub(crate) fn fingerprint(&self) -> String {
        fingerprint(&self.0)
    }

    /// Parses an uncompressed point: 4, and two coordinates of 32 bytes. A point that is not on the curve harms its
    /// holder alone, who cannot use the certificate.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        from_hex(text)
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
