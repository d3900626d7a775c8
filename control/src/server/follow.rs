//! The events as they happen, to a client that follows them.

use std::time::Duration;

use ployz_api::{Code, EventList, Failure, Outcome, Payload, Response};
use tokio::io::AsyncWrite;

use crate::host::tls::Caller;
use crate::machine::Machine;
use crate::requests;
use crate::server::admission::Admission;
use crate::server::belief::disbelieved;
use crate::server::error::StreamError;
use crate::server::frame::{send, send_heartbeat};
use crate::store::Following;

/// The longest that a follower who has gone is kept.
const FOLLOW_STEP: Duration = Duration::from_secs(1);

/// Sends the last events, of one machine or of all, and then each new one, until the client goes or is believed no
/// more.
///
/// # Errors
/// If the client takes no answer in time; the inner failure is the last answer.
pub(super) async fn follow(
    machine: &Machine,
    admission: &Admission,
    caller: &Caller,
    of: Option<&str>,
    limit: u32,
    stream: &mut (impl AsyncWrite + Unpin),
) -> Result<Result<(), Failure>, StreamError> {
    let network = match machine.running_network() {
        Ok(network) => network,
        Err(failure) => return Ok(Err(failure)),
    };
    let writer = match requests::event_writer(machine, of) {
        Ok(writer) => writer,
        Err(failure) => return Ok(Err(failure)),
    };
    let _permit = match admission.follow(caller) {
        Ok(permit) => permit,
        Err(full) => {
            let message = format!(
                "{} other clients follow the events of this machine",
                full.max
            );
            return Ok(Err(Failure::new(Code::Busy, message)));
        }
    };
    let (events, mut following) = match Following::begin(&network.store, writer, limit).await {
        Ok(begun) => begun,
        Err(error) => return Ok(Err(error.into())),
    };
    let list = Outcome::Ok(Payload::EventList(EventList { events }).into());
    send(stream, &Response::from(list)).await?;
    let following = async {
        loop {
            match tokio::time::timeout(FOLLOW_STEP, following.next()).await {
                Err(_) => send_heartbeat(stream).await?,
                Ok(Ok(event)) => {
                    let event = Outcome::Ok(Payload::Event(Box::new(event)).into());
                    send(stream, &Response::from(event)).await?;
                }
                Ok(Err(error)) => return Ok(Err(error.into())),
            }
        }
    };
    tokio::select! {
        ended = following => ended,
        failure = disbelieved(Some(&network), caller) => Ok(Err(failure)),
    }
}
