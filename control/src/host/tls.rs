//! TLS of servers and of the store's clients: the certificates that are accepted, and the holder that they name.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use ployz_api::client::{Facts, provider};
use ployz_api::{ALPN, CertificateName, Role};
use quinn::crypto::rustls::QuicServerConfig;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};

use crate::host::error::HostError;

/// The certificates of a server, and the authority whose certificates it accepts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Presence<'a> {
    pub(crate) ca_pem: &'a str,
    pub(crate) certificate_pem: &'a str,
    pub(crate) key_pem: &'a str,
    /// Whether clients without a certificate are accepted, for the one request that strangers may make.
    pub(crate) strangers: bool,
}

/// TLS for QUIC: version 1.3, certificates of one authority, nothing before the handshake is over.
pub(crate) fn server(presence: Presence<'_>) -> Result<QuicServerConfig, HostError> {
    QuicServerConfig::try_from(serving(presence)?).map_err(HostError::tls)
}

/// TLS within a stream that another machine relays. Strangers are not accepted.
pub(crate) fn relayed(presence: Presence<'_>) -> Result<rustls::ServerConfig, HostError> {
    serving(Presence {
        strangers: false,
        ..presence
    })
}

fn serving(presence: Presence<'_>) -> Result<rustls::ServerConfig, HostError> {
    let provider = provider();
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(HostError::tls)?
        .with_client_cert_verifier(verifier(presence, provider)?)
        .with_single_cert(chain(presence)?, key(presence.key_pem)?)
        .map_err(HostError::tls)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    Ok(tls)
}

/// TLS for a client of the store: it shows its certificate, and trusts the network's authority only.
pub(crate) fn store_client(presence: Presence<'_>) -> Result<rustls::ClientConfig, HostError> {
    let provider = provider();
    let mut chain = chain(presence)?;
    // Both sides have the authority's certificate already.
    chain.truncate(1);
    rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(HostError::tls)?
        .with_root_certificates(roots(presence.ca_pem)?)
        .with_client_auth_cert(chain, key(presence.key_pem)?)
        .map_err(HostError::tls)
}

/// A client, as its certificate says who it is. Whether the certificate has expired is for each request to judge: a
/// connection may be older than that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    name: CertificateName,
    /// None without a certificate.
    pub(crate) certificate: Option<Facts>,
}

impl Deref for Caller {
    type Target = CertificateName;

    fn deref(&self) -> &CertificateName {
        &self.name
    }
}

impl Caller {
    /// The holder of a verified certificate; `None` if it is not one of this network.
    pub(crate) fn of(chain: &[CertificateDer<'_>], network: &str) -> Option<Self> {
        let facts = Facts::read(chain.first()?)?;
        let names = facts.names.iter();
        let name = names
            .filter_map(|name| name.parse::<CertificateName>().ok())
            .find(|name| name.network.eq_ignore_ascii_case(network))?;
        Some(Self {
            name,
            certificate: Some(facts),
        })
    }

    /// A client without a certificate.
    pub(crate) fn stranger(network: &str) -> Self {
        Self {
            name: CertificateName {
                subject: String::new(),
                role: Role::Stranger,
                network: network.to_owned(),
            },
            certificate: None,
        }
    }

    /// A client by its name, with or without a certificate.
    #[cfg(test)]
    pub(crate) const fn named(name: CertificateName, certificate: Option<Facts>) -> Self {
        Self { name, certificate }
    }
}

/// Verifies certificates as they were before they expired.
#[derive(Debug)]
struct WithoutEnd(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for WithoutEnd {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let end = Facts::read(end_entity).and_then(|facts| facts.expires_at);
        let end = end.map(|end| UnixTime::since_unix_epoch(Duration::from_secs(end)));
        let at = end.map_or(now, |end| end.min(now));
        self.0.verify_client_cert(end_entity, intermediates, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn verifier(
    presence: Presence<'_>,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, HostError> {
    let roots = Arc::new(roots(presence.ca_pem)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
    let builder = if presence.strangers {
        builder.allow_unauthenticated()
    } else {
        builder
    };
    let verifier = builder.build().map_err(HostError::tls)?;
    Ok(Arc::new(WithoutEnd(verifier)))
}

/// This machine's certificate and the authority's: a joining machine has only the hash of the latter.
fn chain(presence: Presence<'_>) -> Result<Vec<CertificateDer<'static>>, HostError> {
    [presence.certificate_pem, presence.ca_pem]
        .into_iter()
        .map(certificate)
        .collect()
}

pub(crate) fn certificate(pem: &str) -> Result<CertificateDer<'static>, HostError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(HostError::key("a certificate"))
}

/// What a certificate says, if this authority has signed it.
pub(crate) fn verified(pem: &str, authority: &CertificateDer<'_>) -> Option<Facts> {
    let certificate = certificate(pem).ok()?;
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone().into_owned()).ok()?;
    let provider = provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = WithoutEnd(verifier.build().ok()?);
    verifier
        .verify_client_cert(&certificate, &[], UnixTime::now())
        .ok()?;
    Facts::read(&certificate)
}

fn key(pem: &str) -> Result<PrivateKeyDer<'static>, HostError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(HostError::key("a private key"))
}

fn roots(ca_pem: &str) -> Result<RootCertStore, HostError> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(ca_pem)?).map_err(HostError::tls)?;
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use ployz_api::MachineId;
    use rcgen::KeyPair;

    use super::*;
    use crate::host::ca::CertificateAuthority;

    #[test]
    fn a_certificate_names_its_holder_to_its_own_network_only() {
        let authority = CertificateAuthority::generate("n1").unwrap();
        let key = KeyPair::generate().unwrap();
        let pem = authority.certify_person("ann", Role::Operator, None, &key);
        let chain = [certificate(&pem.unwrap()).unwrap()];
        let holder = Caller::of(&chain, "N1").unwrap();
        assert_eq!(
            (holder.subject.as_str(), holder.role),
            ("ann", Role::Operator)
        );
        assert_eq!(Caller::of(&chain, "n2"), None);
        assert_eq!(Caller::of(&[], "n1"), None);
        let garbage = [CertificateDer::from(vec![0x30, 0x03, 0x02, 0x01, 0x00])];
        assert_eq!(Caller::of(&garbage, "n1"), None);
        // The authority itself is nobody.
        let own = [certificate(authority.certificate_pem()).unwrap()];
        assert_eq!(Caller::of(&own, "n1"), None);
    }

    #[test]
    fn what_is_no_certificate_or_no_key_is_told_apart() {
        let authority = CertificateAuthority::generate("n1").unwrap();
        let key = KeyPair::generate().unwrap();
        let pem = authority.certify_host(MachineId::new(1, 1), &key).unwrap();
        let key_pem = key.serialize_pem();
        let presence = Presence {
            ca_pem: authority.certificate_pem(),
            certificate_pem: &pem,
            key_pem: &key_pem,
            strangers: true,
        };
        server(presence).unwrap();
        relayed(presence).unwrap();
        store_client(presence).unwrap();
        let other = KeyPair::generate().unwrap().serialize_pem();
        for (broken, words) in [
            (
                Presence {
                    ca_pem: "",
                    ..presence
                },
                "a certificate",
            ),
            (
                Presence {
                    certificate_pem: &key_pem,
                    ..presence
                },
                "a certificate",
            ),
            (
                Presence {
                    key_pem: &pem,
                    ..presence
                },
                "a private key",
            ),
            (
                Presence {
                    key_pem: &other,
                    ..presence
                },
                "",
            ),
        ] {
            for error in [server(broken).err(), store_client(broken).err()] {
                let error = error.expect("it is refused").to_string();
                assert!(error.contains(words), "{error}");
            }
        }
    }
}
