//! One connection: who has made it, and the streams that it carries.

use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use ployz_api::{BUSY, LOCAL_NETWORK, NO_MEMBER, Request, Role};
use quinn::{Connection, ConnectionError, Incoming, RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::task::JoinSet;

use crate::host::clock;
use crate::host::tls::Caller;
use crate::machine::Machine;
use crate::server::admission::{Full, Permit};
use crate::server::authorise::admits;
use crate::server::belief::disbelieved;
use crate::server::error::StreamError;
use crate::server::frame::REQUEST_WAIT;
use crate::server::relay;
use crate::server::stream::Responder;

/// A handshake takes two round trips.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(5);
/// Without a certificate, one request is all there is to do.
const STRANGER_WAIT: Duration = Duration::from_secs(20);

/// Completes a handshake, and answers what the client asks. Returns when the connection has ended and everything that
/// it asked has been carried out.
pub(super) async fn serve(
    responder: &Responder,
    incoming: Incoming,
    handshake: Permit,
    network: &str,
) -> Result<(), StreamError> {
    let machine = &*responder.machine;
    let address = incoming.remote_address().ip();
    let accepted = tokio::time::timeout(HANDSHAKE_WAIT, incoming.accept()?).await;
    let failed = |why: &str| refuse(machine, "handshake", address, why);
    let connection = accepted
        .inspect_err(|_| failed("the handshake timed out"))
        .map_err(|_| StreamError::TimedOut {
            omission: "did not complete its handshake",
            patience: HANDSHAKE_WAIT,
        })?
        .inspect_err(|error| failed(&error.to_string()))?;
    let Some(caller) = identify(&connection, network) else {
        let why = "the certificate does not name its holder";
        close(machine, &connection, why);
        return Ok(());
    };
    if !admits(machine, &caller) {
        close(machine, &connection, "this machine is not in the network");
        return Ok(());
    }
    let _permit = match responder.admission.connect(&caller, address) {
        Ok(permit) => permit,
        Err(full) => {
            turn_away(machine, &connection, &caller, full);
            return Ok(());
        }
    };
    drop(handshake);
    if caller.role == Role::Stranger {
        let answering = answer_one(responder, &connection, &caller);
        let late = |_| StreamError::TimedOut {
            omission: "did not ask and take the answer",
            patience: STRANGER_WAIT,
        };
        let answered = tokio::time::timeout(STRANGER_WAIT, answering).await;
        answered.map_err(late)?
    } else {
        answer_streams(responder, &connection, caller).await
    }
}

/// Counts a client that was turned away.
pub(super) fn refuse(machine: &Machine, cause: &str, address: IpAddr, why: &str) {
    let now = clock::now().instant;
    machine.refusals.note(cause, address, why, now);
}

/// Closes a connection that there is no room for: the client asks again later.
fn turn_away(machine: &Machine, connection: &Connection, caller: &Caller, full: Full) {
    let Full { cause, max } = full;
    let address = connection.remote_address().ip();
    refuse(machine, cause, address, "the maximum is reached");
    let why = match cause {
        "holder" => format!("{max} connections are all that one certificate has at a time"),
        "address" => format!("{max} connections are all that one address has at a time"),
        _ => format!(
            "the {max} connections of role {} are in use",
            caller.role.name()
        ),
    };
    connection.close(VarInt::from_u32(BUSY), why.as_bytes());
}

fn close(machine: &Machine, connection: &Connection, why: &str) {
    let address = connection.remote_address().ip();
    refuse(machine, "certificate", address, why);
    connection.close(VarInt::from_u32(NO_MEMBER), why.as_bytes());
}

/// The holder of the certificate that the handshake has verified; none if it does not say.
fn identify(connection: &Connection, network: &str) -> Option<Caller> {
    match connection.peer_identity() {
        None => Some(Caller::stranger(network)),
        Some(identity) => {
            let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
            Caller::of(&chain, network)
        }
    }
}

/// A stranger has one thing to ask, once.
async fn answer_one(
    responder: &Responder,
    connection: &Connection,
    caller: &Caller,
) -> Result<(), StreamError> {
    let (send, receive) = connection.accept_bi().await?;
    let address = connection.remote_address().ip();
    answer_stream(responder, caller, address, send, receive).await
}

async fn answer_streams(
    responder: &Responder,
    connection: &Connection,
    caller: Caller,
) -> Result<(), StreamError> {
    let address = connection.remote_address().ip();
    // Root of this host is no network's to judge.
    let is_certified = caller.network != LOCAL_NETWORK;
    let network = responder.machine.network().filter(|_| is_certified);
    let caller = Rc::new(caller);
    let mut disbelieved = pin!(disbelieved(network.as_deref(), &caller));
    // At most STREAMS_MAX of them, by the transport's own count.
    let mut streams = JoinSet::new();
    let ended = loop {
        let (send, receive) = tokio::select! {
            opened = connection.accept_bi() => match opened {
                Ok(opened) => opened,
                Err(error) => break error,
            },
            Some(_ended) = streams.join_next() => continue,
            failure = &mut disbelieved => {
                close(&responder.machine, connection, &failure.message);
                break ConnectionError::LocallyClosed;
            }
        };
        let (responder, caller) = (responder.clone(), Rc::clone(&caller));
        streams.spawn_local(async move {
            let answering = answer_stream(&responder, &caller, address, send, receive);
            if let Err(error) = answering.await {
                tracing::debug!(%error, "request ended");
            }
        });
    };
    // A change that is under way is carried out to its end, whether the client hears of it or not.
    streams.join_all().await;
    Err(ended.into())
}

async fn answer_stream(
    responder: &Responder,
    caller: &Caller,
    address: IpAddr,
    send: SendStream,
    receive: RecvStream,
) -> Result<(), StreamError> {
    let mut stream = tokio::io::join(receive, send);
    match responder.receive(caller, &mut stream).await {
        Ok(Request::Relay { destination }) => {
            Box::pin(relay::forward(
                responder,
                caller,
                address,
                &destination,
                stream,
            ))
            .await
        }
        Ok(Request::Relayed) => Box::pin(relay::accept(responder, address, stream)).await,
        request => {
            let _under_way = responder.begin(&request).await;
            responder
                .reply(caller, address, request, &mut stream)
                .await?;
            // Or the connection could close before it has arrived.
            let (_, send) = stream.into_inner();
            let _ = tokio::time::timeout(REQUEST_WAIT, send.stopped()).await;
            Ok(())
        }
    }
}
