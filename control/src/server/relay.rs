//! Requests to other machines. What is forwarded is a TLS session of the caller's with the machine that answers: a
//! machine between them sees neither request nor answer, and the role that counts is the caller's own.
//!
//! ```text
//!   caller ──QUIC──▶ this machine ──QUIC, as a machine──▶ the one that answers
//!      └───────────────── TLS, as the caller ──────────────────┘
//! ```

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ployz_api::{
    CertificateName, Code, Destination, Failure, MachineId, RESPONSE_LEN_MAX, Response, Success,
    encode,
};
use quinn::{RecvStream, SendStream};
use tokio::io::{AsyncWriteExt as _, Join};
use tokio_rustls::TlsAcceptor;

use crate::host::clock;
use crate::host::tls::{self, Caller};
use crate::machine::Machine;
use crate::network::Host as _;
use crate::server::admission::Full;
use crate::server::belief::removed;
use crate::server::error::StreamError;
use crate::server::stream::Responder;

/// A handshake takes two round trips through both connections.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);

type QuicStream = Join<RecvStream, SendStream>;

/// Forwards a stream until either side ends it, or says why not.
pub(super) async fn forward(
    responder: &Responder,
    caller: &CertificateName,
    address: IpAddr,
    destination: &Destination,
    mut stream: QuicStream,
) -> Result<(), StreamError> {
    let machine = &responder.machine;
    let path = match resolve(machine, destination).await {
        Ok(id) if id == machine.identity.machine_id => Ok((id, None)),
        Ok(id) => match responder.admission.forward(caller, id) {
            Ok(permit) => {
                let reached = reach(machine, id).await;
                reached.map(|session| (id, Some((session, permit))))
            }
            Err(full) => Err(refused(machine, address, full)),
        },
        Err(failure) => Err(failure),
    };
    let outcome = path.as_ref().map(|(id, _)| Success {
        // Root of this host has it from here; everybody else has the certificate say it.
        message: id.to_string(),
        payload: None,
    });
    let response = Response::from(outcome.map_err(Failure::clone));
    stream
        .write_all(&encode(&response, RESPONSE_LEN_MAX)?)
        .await?;
    match path {
        Ok((_, None)) => Box::pin(accept(responder, address, stream)).await,
        Ok((id, Some((session, _permit)))) => {
            let network = machine.network().ok_or(StreamError::NoNetwork)?;
            let mut onward = session.pipe().await?;
            tokio::select! {
                copied = tokio::io::copy_bidirectional(&mut stream, &mut onward) => drop(copied?),
                // What it says counts no more.
                () = removed(&network, id) => {}
            }
            Ok(())
        }
        Err(_) => Ok(stream.shutdown().await?),
    }
}

/// Answers the caller whose TLS session comes on this stream, from this address.
pub(super) async fn accept(
    responder: &Responder,
    address: IpAddr,
    stream: QuicStream,
) -> Result<(), StreamError> {
    let machine = &responder.machine;
    let network = machine.network().ok_or(StreamError::NoNetwork)?;
    let certificate = network.certificate();
    let presence = machine.presence(&network.membership, &certificate);
    let acceptor = TlsAcceptor::from(Arc::new(tls::relayed(presence)?));
    let label = network.membership.network_id.to_string();
    let accepting = acceptor.accept(stream);
    let accepted = tokio::time::timeout(HANDSHAKE_WAIT, accepting).await;
    let late = |_| StreamError::TimedOut {
        omission: "did not complete its handshake",
        patience: HANDSHAKE_WAIT,
    };
    let mut session = accepted.map_err(late)??;
    let caller = session
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| Caller::of(chain, &label))
        .ok_or(StreamError::Unnamed)?;
    // A caller holds no more by way of other machines than by itself.
    let Ok(_permit) = responder.admission.connect(&caller, address) else {
        let message = "this certificate has as many connections as it may have at a time";
        let busy = Err(Failure::new(Code::Busy, message));
        return responder.reply(&caller, address, busy, &mut session).await;
    };
    responder.answer(&caller, address, &mut session).await
}

fn refused(machine: &Machine, address: IpAddr, full: Full) -> Failure {
    let message = format!(
        "this machine forwards as much as it can: {} at most",
        full.max
    );
    let now = clock::now().instant;
    machine.refusals.note(full.cause, address, &message, now);
    Failure::new(Code::Busy, message)
}

async fn resolve(machine: &Machine, destination: &Destination) -> Result<MachineId, Failure> {
    let network = machine.running_network()?;
    match destination {
        Destination::Machine(wanted) => Ok(network.view().select(wanted)?.id),
        Destination::Coordinator if network.storage.is_some() => Ok(machine.identity.machine_id),
        Destination::Coordinator => {
            let sessions = machine.sessions().await.unwrap_or_default();
            Ok(network.coordinator_id(&sessions)?)
        }
    }
}

async fn reach(machine: &Machine, id: MachineId) -> Result<ployz_api::client::Session, Failure> {
    Ok(machine.client()?.reach(id).await?)
}
