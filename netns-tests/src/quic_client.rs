//! A client of management servers that sends what it likes: the handshake is as it should be, and nothing else is.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use ployz_api::{ALPN, CertificateName, Credential};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Connects to the first endpoint of a credential.
pub async fn connect(credential: &Credential) -> Result<(Endpoint, Connection)> {
    let endpoint = Endpoint::client(([0, 0, 0, 0], 0).into())?;
    let connection = connect_from(&endpoint, credential).await?;
    Ok((endpoint, connection))
}

/// The same, from a socket that other connections have as well.
pub async fn connect_from(endpoint: &Endpoint, credential: &Credential) -> Result<Connection> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(
        credential.ca_pem.as_bytes(),
    )?)?;
    let chain = vec![CertificateDer::from_pem_slice(
        credential.certificate_pem.as_bytes(),
    )?];
    let key = PrivateKeyDer::from_pem_slice(credential.key_pem.expose().as_bytes())?;
    let tls = tls_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    let server: SocketAddr = *credential.endpoints.first().context("an endpoint")?;
    let name = CertificateName::any_machine(&credential.network);
    Ok(endpoint.connect_with(quic(tls)?, server, &name)?.await?)
}

/// TLS 1.3 alone.
pub fn tls_versions() -> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier>>
{
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    Ok(builder.with_protocol_versions(&[&rustls::version::TLS13])?)
}

/// TLS for QUIC, with the protocol's ALPN.
pub fn quic(mut tls: rustls::ClientConfig) -> Result<ClientConfig> {
    tls.alpn_protocols = vec![ALPN.to_vec()];
    Ok(ClientConfig::new(Arc::new(QuicClientConfig::try_from(
        tls,
    )?)))
}

/// A runtime for one thread.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?)
}
