//! TLS of servers and of the store's clients: the certificates that are accepted, and the holder that they name.

use std::sync::Arc;

use ployz_api::{ALPN, CertificateName, Role};
use quinn::crypto::rustls::QuicServerConfig;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

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
    let provider = Arc::new(ring::default_provider());
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
    let provider = Arc::new(ring::default_provider());
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

/// The holder that a verified certificate names; `None` without a certificate, or if it is not one of this network.
pub(crate) fn role(chain: &[CertificateDer<'_>], network: &str) -> Option<CertificateName> {
    let certificate = webpki::EndEntityCert::try_from(chain.first()?).ok()?;
    certificate
        .valid_dns_names()
        .filter_map(|name| name.parse::<CertificateName>().ok())
        .find(|name| name.network.eq_ignore_ascii_case(network))
}

/// The name of a client without a certificate.
pub(crate) fn stranger(network: &str) -> CertificateName {
    CertificateName {
        subject: String::new(),
        role: Role::Stranger,
        network: network.to_owned(),
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
    builder.build().map_err(HostError::tls)
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
    use rcgen::KeyPair;

    use super::*;
    use crate::host::ca::CertificateAuthority;

    #[test]
    fn a_certificate_names_its_holder_to_its_own_network_only() {
        let authority = CertificateAuthority::generate("n1").unwrap();
        let key = KeyPair::generate().unwrap();
        let pem = authority.certify_person("ann", Role::Operator, None, &key);
        let chain = [certificate(&pem.unwrap()).unwrap()];
        let holder = role(&chain, "N1").unwrap();
        assert_eq!(
            (holder.subject.as_str(), holder.role),
            ("ann", Role::Operator)
        );
        assert_eq!(role(&chain, "n2"), None);
        assert_eq!(role(&[], "n1"), None);
        let garbage = [CertificateDer::from(vec![0x30, 0x03, 0x02, 0x01, 0x00])];
        assert_eq!(role(&garbage, "n1"), None);
        // The authority itself is nobody.
        let own = [certificate(authority.certificate_pem()).unwrap()];
        assert_eq!(role(&own, "n1"), None);
    }

    #[test]
    fn what_is_no_certificate_or_no_key_is_told_apart() {
        let authority = CertificateAuthority::generate("n1").unwrap();
        let key = KeyPair::generate().unwrap();
        let pem = authority.certify_machine("m1", &[], &key).unwrap();
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
