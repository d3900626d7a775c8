//! A client's trust: it believes the holders of certificates of one CA, and nothing that the other side supplies.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::error::ClientError;
use crate::ALPN;
use crate::credential::Credential;
use crate::token::fingerprint;

/// The CA whose certificates count.
#[derive(Debug)]
enum Trust {
    Ca(CertificateDer<'static>),
    /// The other side shows its CA, which has to be this one.
    Fingerprint(String),
}

/// TLS for the holder of a credential.
pub(super) fn certified(credential: &Credential) -> Result<ClientConfig, ClientError> {
    let unusable = |error: &dyn std::fmt::Display| ClientError::Credential(error.to_string());
    let ca =
        CertificateDer::from_pem_slice(credential.ca_pem.as_bytes()).map_err(|e| unusable(&e))?;
    let chain = vec![
        CertificateDer::from_pem_slice(credential.certificate_pem.as_bytes())
            .map_err(|e| unusable(&e))?,
    ];
    let key = PrivateKeyDer::from_pem_slice(credential.key_pem.expose().as_bytes())
        .map_err(|e| unusable(&e))?;
    let mut config = tls(Trust::Ca(ca))
        .with_client_auth_cert(chain, key)
        .map_err(|e| unusable(&e))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// TLS for a stranger who knows the hash of the CA.
pub(super) fn invited(ca_fingerprint: &str) -> ClientConfig {
    let mut config = tls(Trust::Fingerprint(ca_fingerprint.to_owned())).with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

fn tls(trust: Trust) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Pinned {
        trust,
        provider: Arc::clone(&provider),
    };
    #[expect(clippy::expect_used, reason = "the provider has TLS 1.3")]
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
}

/// Verifies as rustls does, with one root: the pinned one.
#[derive(Debug)]
struct Pinned {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn root<'a>(&'a self, shown: &'a [CertificateDer<'a>]) -> Option<&'a CertificateDer<'a>> {
        match &self.trust {
            Trust::Ca(ca) => Some(ca),
            Trust::Fingerprint(pin) => shown.iter().find(|shown| fingerprint(shown) == *pin),
        }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let root = self.root(intermediates).ok_or_else(|| {
            rustls::Error::General("the machine belongs to another network".to_owned())
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?
            // Nothing but the root counts: a chain has one link.
            .verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
