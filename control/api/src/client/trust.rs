//! A client's trust: it believes the holders of certificates of one CA, and nothing that the other side supplies.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::error::ClientError;
use super::key_exchange::provider;
use crate::ALPN;
use crate::certificate::CertificateName;
use crate::credential::Credential;
use crate::id::MachineId;
use crate::name::Name;
use crate::token::{Token, fingerprint};

/// The CA whose certificates count.
#[derive(Debug)]
enum Trust {
    Ca(CertificateDer<'static>),
    /// The other side shows its CA, which has to be this one.
    Fingerprint(String),
}

/// The machine that the other side has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Any machine of the network.
    Any,
    /// The machine of this id.
    Machine(MachineId),
    /// The machine of this name, as its operator gave it.
    Named(Name),
    /// A machine that holds the store.
    Holder,
    /// A machine that holds the store and has one of these ids.
    HolderAmong(Vec<MachineId>),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("a machine of the network"),
            Self::Machine(id) => id.fmt(f),
            Self::Named(name) => name.fmt(f),
            Self::Holder | Self::HolderAmong(_) => f.write_str("a machine that holds the store"),
        }
    }
}

impl Peer {
    /// The names of which its certificate has one.
    fn names(&self, network: &str) -> Vec<String> {
        match self {
            Self::Any => vec![CertificateName::any_machine(network)],
            Self::Machine(id) => vec![CertificateName::machine(*id, network).to_string()],
            Self::Named(name) => vec![CertificateName::named(name, network)],
            Self::Holder => vec![CertificateName::any_holder(network)],
            Self::HolderAmong(ids) => {
                let names = ids.iter().map(|id| CertificateName::holder(*id, network));
                names.collect()
            }
        }
    }
}

/// A clock for certificates other than this host's: the earlier of the two counts, in seconds since 1970.
pub(super) type Evidence = Option<u64>;

/// TLS for the holder of a credential.
pub(super) fn certified(
    credential: &Credential,
    peer: &Peer,
    evidence: Evidence,
) -> Result<ClientConfig, ClientError> {
    let unusable = |error: &dyn fmt::Display| ClientError::Credential(error.to_string());
    let ca =
        CertificateDer::from_pem_slice(credential.ca_pem.as_bytes()).map_err(|e| unusable(&e))?;
    let chain = vec![
        CertificateDer::from_pem_slice(credential.certificate_pem.as_bytes())
            .map_err(|e| unusable(&e))?,
    ];
    let key = PrivateKeyDer::from_pem_slice(credential.key_pem.expose().as_bytes())
        .map_err(|e| unusable(&e))?;
    let expected = Expected::new(peer, &credential.network, evidence)?;
    let mut config = tls(Trust::Ca(ca), expected)
        .with_client_auth_cert(chain, key)
        .map_err(|e| unusable(&e))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// TLS for a stranger who knows the hash of the CA.
pub(super) fn invited(token: &Token) -> Result<ClientConfig, ClientError> {
    let (peer, evidence) = match &token.coordinators {
        Some(named) => {
            let peer = Peer::HolderAmong(named.machines.clone());
            (peer, Some(named.created_at))
        }
        None => (Peer::Any, None),
    };
    let expected = Expected::new(&peer, &token.network_id.to_string(), evidence)?;
    let trust = Trust::Fingerprint(token.ca_fingerprint.clone());
    let mut config = tls(trust, expected).with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// What the certificate of the other side has to say, and the time that it is judged by.
#[derive(Debug)]
struct Expected {
    names: Vec<ServerName<'static>>,
    evidence: Evidence,
}

impl Expected {
    fn new(peer: &Peer, network: &str, evidence: Evidence) -> Result<Self, ClientError> {
        let names = peer.names(network).into_iter().map(ServerName::try_from);
        let names: Result<_, _> = names.collect();
        Ok(Self {
            names: names.map_err(|e| ClientError::Credential(e.to_string()))?,
            evidence,
        })
    }
}

fn tls(
    trust: Trust,
    expected: Expected,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let provider = provider();
    let verifier = Pinned {
        trust,
        expected,
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
    expected: Expected,
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
        _dialled: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let root = self.root(intermediates).ok_or_else(|| {
            rustls::Error::General("the machine belongs to another network".to_owned())
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&self.provider),
        );
        let verifier = verifier
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        let evidence = self.expected.evidence.map(Duration::from_secs);
        let now = evidence.map_or(now, |evidence| {
            now.min(UnixTime::since_unix_epoch(evidence))
        });
        let mut refused = rustls::Error::General("no machine is expected".to_owned());
        for name in &self.expected.names {
            // Nothing but the root counts: a chain has one link.
            match verifier.verify_server_cert(end_entity, &[], name, ocsp_response, now) {
                Ok(verified) => return Ok(verified),
                Err(error) => refused = error,
            }
        }
        Err(refused)
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
