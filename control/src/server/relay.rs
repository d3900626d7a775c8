//! Requests to other machines. What is passed on is a TLS session of the caller's with the machine that answers: whoever
//! is between them knows neither request nor answer, and the role that counts is the caller's own.
//!
//! ```text
//!   caller ──QUIC──▶ this machine ──QUIC, as a machine──▶ the one that answers
//!      └───────────────── TLS, as the caller ──────────────────┘
//! ```

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ployz_api::client::{ClientError, Session, connect};
use ployz_api::{
    Code, Credential, Destination, Failure, MEMBER_CREDENTIAL_FILE, MachineId, Outcome,
    RESPONSE_LEN_MAX, Request, Response, Secret, Success, encode,
};
use quinn::{RecvStream, SendStream};
use tokio::io::{AsyncWriteExt as _, Join};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::daemon::Daemon;
use crate::host::tls;
use crate::network::{Host as _, Network};
use crate::requests::not_selected;
use crate::server;

/// The overlay address, and if need be where the machine is reached without the overlay.
const CONNECT_WAIT: Duration = Duration::from_secs(8);
/// A handshake takes two round trips through both connections.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);

type QuicStream = Join<RecvStream, SendStream>;

/// Passes a stream on until either side ends it, or says why not.
pub(crate) async fn pass_on(
    daemon: Rc<Daemon>,
    address: IpAddr,
    destination: &Destination,
    mut stream: QuicStream,
) -> anyhow::Result<()> {
    let way = match resolve(&daemon, destination).await {
        Ok(machine) if machine == daemon.identity.machine_id => Ok(None),
        Ok(machine) => reach(&daemon, machine).await.map(Some),
        Err(failure) => Err(failure),
    };
    let outcome = way.as_ref().map(|_| Success {
        message: String::new(),
        payload: None,
    });
    let response = Response::from(outcome.map_err(Failure::clone));
    stream
        .write_all(&encode(&response, RESPONSE_LEN_MAX)?)
        .await?;
    match way {
        Ok(None) => Box::pin(take(daemon, address, stream)).await,
        Ok(Some(session)) => {
            let mut onward = session.pipe().await?;
            tokio::io::copy_bidirectional(&mut stream, &mut onward).await?;
            Ok(())
        }
        Err(_) => Ok(stream.shutdown().await?),
    }
}

/// Answers the one whose TLS session comes on this stream, from this address.
pub(crate) async fn take(
    daemon: Rc<Daemon>,
    address: IpAddr,
    stream: QuicStream,
) -> anyhow::Result<()> {
    let network = daemon.network().context("in no network")?;
    let acceptor = TlsAcceptor::from(Arc::new(tls::relayed(
        daemon.presence(&network.membership),
    )?));
    let label = network.membership.network_id.to_string();
    let accepting = acceptor.accept(stream);
    let mut session = tokio::time::timeout(HANDSHAKE_WAIT, accepting).await??;
    let caller = session
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| tls::role(chain, &label))
        .context("the certificate says nothing of its holder")?;
    server::answer(&daemon, &caller, address, &mut session).await
}

async fn resolve(daemon: &Daemon, destination: &Destination) -> Result<MachineId, Failure> {
    let network = daemon.running_network()?;
    match destination {
        Destination::Machine(wanted) => {
            let view = network.view();
            Ok(view.select(wanted).map_err(not_selected)?.id)
        }
        Destination::Coordinator if network.storage.is_some() => Ok(daemon.identity.machine_id),
        Destination::Coordinator => {
            network.coordinator_id(&daemon.sessions().await.unwrap_or_default())
        }
    }
}

/// Connects to a machine, as this one.
pub(crate) async fn reach(daemon: &Daemon, machine: MachineId) -> Result<Session, Failure> {
    reach_as(daemon, machine, own_credential(daemon)?).await
}

/// Asks a machine as root of this host, who is an admin where the network's authority lies.
pub(crate) async fn ask_as_admin(
    daemon: &Daemon,
    machine: MachineId,
    request: &Request,
) -> Outcome {
    let session = reach_as_admin(daemon, machine).await?;
    let outcome = ask_once(&session, machine, request).await;
    session.close().await;
    outcome
}

/// Asks the machine at the other end of a session.
pub(crate) async fn ask_once(session: &Session, machine: MachineId, request: &Request) -> Outcome {
    let asking = async { session.open(request).await?.only().await };
    let response = asking.await.map_err(|error| {
        if let ClientError::Refused(cause) = error {
            return Failure::new(Code::Forbidden, cause);
        }
        broken(machine, &error)
    });
    response.and_then(Outcome::from)
}

/// Connects to a machine as root of this host.
pub(crate) async fn reach_as_admin(
    daemon: &Daemon,
    machine: MachineId,
) -> Result<Session, Failure> {
    let credential: Option<Credential> = daemon
        .files
        .read(MEMBER_CREDENTIAL_FILE)
        .map_err(|error| broken(machine, &error))?;
    let credential = credential.ok_or_else(|| broken(machine, &"this daemon is stopping"))?;
    reach_as(daemon, machine, credential).await
}

fn broken(machine: MachineId, cause: &dyn std::fmt::Display) -> Failure {
    let message = format!("machine {machine} did not answer: {cause}");
    Failure::new(Code::MachineUnreachable, message).hint(format!("ployzctl doctor {machine}"))
}

/// Asks a machine by its overlay address alone, which nobody else can have: its WireGuard key is what it is reached by.
pub(crate) async fn ask_in_overlay(
    daemon: &Daemon,
    machine: MachineId,
    credential: Credential,
    request: &Request,
) -> Outcome {
    let network = daemon.running_network()?;
    let first = endpoints(daemon, &network, machine).into_iter().take(1);
    let session = dial(machine, first.collect(), credential).await?;
    let outcome = ask_once(&session, machine, request).await;
    session.close().await;
    outcome
}

async fn reach_as(
    daemon: &Daemon,
    machine: MachineId,
    credential: Credential,
) -> Result<Session, Failure> {
    let network = daemon.running_network()?;
    dial(machine, endpoints(daemon, &network, machine), credential).await
}

async fn dial(
    machine: MachineId,
    endpoints: Vec<SocketAddr>,
    credential: Credential,
) -> Result<Session, Failure> {
    let credential = Credential {
        endpoints,
        ..credential
    };
    connect(&credential, Instant::now() + CONNECT_WAIT)
        .await
        .map_err(|error| {
            let message = format!("machine {machine} cannot be reached from here: {error}");
            Failure::new(Code::MachineUnreachable, message)
                .hint(format!("ployzctl doctor {machine}"))
        })
}

/// How this machine is known to others; it does not say where they are.
pub(crate) fn own_credential(daemon: &Daemon) -> Result<Credential, Failure> {
    let network = daemon.running_network()?;
    let membership = &network.membership;
    Ok(Credential {
        endpoints: Vec::new(),
        network: membership.network_id.to_string(),
        ca_pem: membership.ca_pem.clone(),
        certificate_pem: membership.certificate_pem.clone(),
        key_pem: Secret::new(daemon.identity.certificate_key_pem.expose().to_owned()),
    })
}

/// Where a machine's management server is: in the overlay, and then where it says that it is reached. One that has not
/// said anything yet has most likely the same port as this one, where its WireGuard is reached.
fn endpoints(daemon: &Daemon, network: &Network, machine: MachineId) -> Vec<SocketAddr> {
    let view = network.view();
    let said = view
        .observed(machine)
        .map(|(record, _)| record.management.clone())
        .unwrap_or_default();
    let port = said
        .first()
        .map_or_else(|| daemon.config.listen.port(), SocketAddr::port);
    let Some(record) = view.machine(machine) else {
        return said;
    };
    let guessed = record.endpoints.iter().map(|it| (it.ip(), port).into());
    let others = if said.is_empty() {
        guessed.collect()
    } else {
        said
    };
    let overlay = SocketAddr::new(record.overlay_ip.into(), port);
    std::iter::once(overlay).chain(others).collect()
}
