//! The events as they happen, to a client that follows them.

use std::time::Duration;

use ployz_api::{Code, EventList, Failure, Operation, Outcome, Payload, Response};
use tokio::io::AsyncWrite;

use crate::host::tls::Caller;
use crate::machine::Machine;
use crate::server::authorise::still_believed;
use crate::server::error::StreamError;
use crate::server::frame::{send, send_heartbeat};
use crate::store::Following;

/// The longest that a follower whose credential was revoked goes on, and that a follower who has gone is kept.
const FOLLOW_STEP: Duration = Duration::from_secs(1);
/// Each has a subscription of the store's news.
const FOLLOWERS_MAX: usize = 16;

/// Sends the last events, and then each new one, until the client goes or is believed no more.
///
/// # Errors
/// If the client takes no answer in time; the inner failure is the last answer.
pub(super) async fn follow(
    machine: &Machine,
    caller: &Caller,
    limit: u32,
    stream: &mut (impl AsyncWrite + Unpin),
) -> Result<Result<(), Failure>, StreamError> {
    let network = match machine.running_network() {
        Ok(network) => network,
        Err(failure) => return Ok(Err(failure)),
    };
    let Some(_permit) = network.followers.take(FOLLOWERS_MAX) else {
        let message = format!("{FOLLOWERS_MAX} other clients follow the events of this machine");
        return Ok(Err(Failure::new(Code::Busy, message)));
    };
    let (events, mut following) = match Following::begin(&network.store, limit).await {
        Ok(begun) => begun,
        Err(error) => return Ok(Err(error.into())),
    };
    let list = Outcome::Ok(Payload::EventList(EventList { events }).into());
    send(stream, &Response::from(list)).await?;
    loop {
        if let Err(failure) = still_believed(&network, caller, Operation::Events) {
            return Ok(Err(failure));
        }
        match tokio::time::timeout(FOLLOW_STEP, following.next()).await {
            Err(_) => send_heartbeat(stream).await?,
            Ok(Ok(event)) => {
                let event = Outcome::Ok(Payload::Event(Box::new(event)).into());
                send(stream, &Response::from(event)).await?;
            }
            Ok(Err(error)) => return Ok(Err(error.into())),
        }
    }
}
