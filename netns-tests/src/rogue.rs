//! A machine that has turned: a management server with a member's certificate and key, which answers joins as if it
//! held the store, and ends what it is to relay.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use ployz_api::{
    ALPN, HEADER_LEN, Outcome, Payload, REQUEST_LEN_MAX, RESPONSE_LEN_MAX, Redeemed, Request,
    Response, Success, body_len, encode,
};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, ServerConfig};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::cluster::Machine;
use crate::machine_client::credential_of;

/// The server, and everything that it was told.
#[derive(Debug)]
pub struct Rogue {
    told: Arc<Mutex<Vec<String>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

type Told = Arc<Mutex<Vec<String>>>;

impl Rogue {
    /// Listens at a port of a machine, with that machine's certificate and key as they are on its disk.
    ///
    /// # Errors
    /// No files, or no port.
    pub fn listen(machine: &Machine, port: u16) -> Result<Self> {
        let tls = tls(machine)?;
        let told = Told::default();
        let (stop, stopped) = oneshot::channel();
        let (begun, ready) = mpsc::channel();
        let (netns, heard) = (Arc::clone(&machine.netns), Arc::clone(&told));
        let thread = thread::spawn(move || {
            let begin = || -> Result<_> {
                netns.move_in()?;
                let mut builder = tokio::runtime::Builder::new_current_thread();
                let runtime = builder.enable_all().build()?;
                let endpoint = runtime.block_on(async { listen(&tls, port) })?;
                Ok((runtime, endpoint))
            };
            match begin() {
                Ok((runtime, endpoint)) => {
                    let _heard = begun.send(Ok(()));
                    runtime.block_on(async {
                        tokio::select! {
                            () = serve(&endpoint, &tls, &heard) => {}
                            _ = stopped => {}
                        }
                    });
                }
                Err(error) => drop(begun.send(Err(error))),
            }
        });
        ready.recv()??;
        Ok(Self {
            told,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Every request that it could read, as JSON.
    pub fn told(&self) -> Vec<String> {
        self.told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Rogue {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _already_failed = thread.join();
        }
    }
}

fn tls(machine: &Machine) -> Result<Arc<rustls::ServerConfig>> {
    let own = credential_of(machine, Vec::new())?;
    let chain = [&own.certificate_pem, &own.ca_pem]
        .map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()))
        .into_iter()
        .collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(own.key_pem.expose().as_bytes())?;
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(tls))
}

fn listen(tls: &Arc<rustls::ServerConfig>, port: u16) -> Result<Endpoint> {
    let quic = QuicServerConfig::try_from(Arc::clone(tls))?;
    let config = ServerConfig::with_crypto(Arc::new(quic));
    Ok(Endpoint::server(config, SocketAddr::from(([0; 4], port)))?)
}

/// One connection, and one stream, after the other.
async fn serve(endpoint: &Endpoint, tls: &Arc<rustls::ServerConfig>, told: &Told) {
    while let Some(incoming) = endpoint.accept().await {
        // One that does not trust us goes away, and that is all.
        let Ok(connection) = incoming.await else {
            continue;
        };
        while let Ok((send, receive)) = connection.accept_bi().await {
            let _gone = answer(tokio::io::join(receive, send), tls, told).await;
        }
    }
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    tls: &Arc<rustls::ServerConfig>,
    told: &Told,
) -> Result<()> {
    let request = read(&mut stream, told).await?;
    if let Request::InviteRedeem(request) = &request {
        let redeemed = redeem(request)?;
        let answer = Outcome::Ok(Payload::Redeemed(Box::new(redeemed)).into());
        send(&mut stream, answer).await?;
    }
    if let Request::Relay { .. } = &request {
        let nothing = Success {
            message: String::new(),
            payload: None,
        };
        send(&mut stream, Ok(nothing)).await?;
        // Instead of passing it on.
        let acceptor = TlsAcceptor::from(Arc::clone(tls));
        let mut inner = acceptor.accept(stream).await?;
        read(&mut inner, told).await?;
    }
    Ok(())
}

async fn read(stream: &mut (impl AsyncRead + Unpin), told: &Told) -> Result<Request> {
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header).await?;
    let mut body = vec![0; body_len(header, REQUEST_LEN_MAX)?];
    stream.read_exact(&mut body).await?;
    let text = String::from_utf8(body)?;
    let request = serde_json::from_str(&text)?;
    told.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(text);
    Ok(request)
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), answer: Outcome) -> Result<()> {
    let frame = encode(&Response::from(answer), RESPONSE_LEN_MAX)?;
    stream.write_all(&frame).await?;
    Ok(stream.flush().await?)
}

/// A place in a network of its own, whose authority it has.
fn redeem(request: &ployz_api::RedeemRequest) -> Result<Redeemed> {
    let network_id = ployz_api::NetworkId::new(6, 6);
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let key = KeyPair::generate()?;
    let ca_pem = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);
    let name = format!("{}.machine.{network_id}.ployz", request.machine_id).to_lowercase();
    let leaf = CertificateParams::new(vec![name])?;
    let point = Point(hex::decode(&request.certificate_key)?);
    let certificate_pem = leaf.signed_by(&point, &issuer)?.pem();
    let record = json!({
        "version": 1, "id": request.machine_id, "name": "owned", "lifecycle": "active",
        "authority": "compute", "region": "local", "region_role": "compute",
        "availability_zone": null, "overlay_ip": "10.66.0.2", "overlay_ip6": "fd66::2",
        "subnet": "10.66.0.0/24", "wireguard_key": request.wireguard_key, "nkey": request.nkey,
        "endpoints": [], "store_port": null, "created_at": 1,
    });
    Ok(Redeemed {
        network_id,
        network: "rogue".parse().ok().context("a name")?,
        cluster_cidr: "10.66.0.0/16".parse()?,
        ca_pem,
        certificate_pem,
        store: vec![("10.66.0.1".parse()?, 4_222)],
        store_epoch: 0,
        machines: vec![record],
        store_certificate_pem: None,
    })
}

/// The key of a joining machine.
struct Point(Vec<u8>);

impl PublicKeyData for Point {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}
