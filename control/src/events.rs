//! What was done, kept in the store for whoever wants to know: a stream of at most some thousand events, of which the
//! oldest go first.

use std::time::Duration;

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::push::{Ordered, OrderedConfig};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Stream};
use futures_util::StreamExt as _;
use ployz_api::{
    CertificateName, Code, Event, EventList, Failure, Operation, Outcome, Payload, Response, Role,
};
use tokio::io::AsyncWrite;

use crate::clock;
use crate::daemon::Daemon;
use crate::server;
use crate::store::{Store, unavailable};

/// The stream, and what its subjects begin with; then comes the machine.
pub(crate) const STREAM: &str = "events";
/// At some 300 bytes, 3 MiB.
const EVENTS_MAX: i64 = 10_000;
const BYTES_MAX: i64 = 8 << 20;
/// A store that has not sent the next event of a listing by then will not.
const LISTING_WAIT: Duration = Duration::from_secs(5);
/// How soon a follower hears that its credential was revoked, and we that it is gone, at the latest.
const FOLLOW_STEP: Duration = Duration::from_secs(1);
/// Each has a consumer in the store.
const FOLLOWERS_MAX: usize = 16;

/// Makes the stream; one that is there stays as it is.
pub(crate) async fn make_stream(store: &Store) -> Result<(), Failure> {
    let config = Config {
        name: STREAM.to_owned(),
        subjects: vec![format!("{STREAM}.*")],
        max_messages: EVENTS_MAX,
        max_bytes: BYTES_MAX,
        max_message_size: 16 << 10,
        discard: DiscardPolicy::Old,
        ..Config::default()
    };
    store
        .within(store.jetstream().get_or_create_stream(config))
        .await?;
    Ok(())
}

/// What is to be told of a request, before it is carried out.
#[derive(Debug)]
pub(crate) struct Attempt {
    operation: Operation,
    target: String,
}

impl Attempt {
    /// `None` if it changes nothing.
    pub(crate) fn of(request: &ployz_api::Request) -> Option<Self> {
        let operation = request.operation();
        operation.is_change().then(|| Self {
            operation,
            target: request.target(),
        })
    }

    /// Tells how it ended. What cannot be told now is told to the log only: a change is not undone because of that.
    pub(crate) async fn tell(self, daemon: &Daemon, caller: &CertificateName, outcome: &Outcome) {
        // Whoever has no certificate could fill the stream with guesses.
        if outcome.is_err() && caller.role == Role::Stranger {
            return;
        }
        // And a store that did not answer would keep the caller waiting once more.
        let code = outcome.as_ref().err().map(|failure| failure.code);
        if code == Some(Code::StoreUnavailable) {
            return;
        }
        let (code, message) = match outcome {
            Ok(success) => (Code::Ok, success.message.clone()),
            Err(failure) => (failure.code, failure.message.clone()),
        };
        let target = outcome
            .as_ref()
            .ok()
            .and_then(|success| made(success.payload.as_ref()));
        let event = Event {
            at: clock::now().unix_secs,
            machine: daemon.identity.machine_id,
            subject: caller.subject.to_uppercase(),
            role: caller.role,
            operation: self.operation,
            target: target.unwrap_or(self.target),
            code,
            message,
        };
        let Some(network) = daemon.network() else {
            return;
        };
        if let Err(failure) = network.store.publish(STREAM, event.machine, &event).await {
            tracing::warn!(?event, cause = %failure, "an event is not in the store");
        }
    }
}

/// What a change has made, where only the answer knows its name.
fn made(payload: Option<&Payload>) -> Option<String> {
    match payload? {
        Payload::Invite(invite) => Some(invite.invite_id.to_string()),
        Payload::Credential(credential) => Some(credential.credential_id.to_string()),
        Payload::MachineJoin(join) => Some(join.network.to_string()),
        Payload::MeshInit(_)
        | Payload::Redeemed(_)
        | Payload::Status(_)
        | Payload::MachineList(_)
        | Payload::MachineInspect(_)
        | Payload::InviteList(_)
        | Payload::CredentialList(_)
        | Payload::Doctor(_)
        | Payload::PairReport(_)
        | Payload::EventList(_)
        | Payload::Event(_)
        | Payload::OperationList(_)
        | Payload::Operation(_) => None,
    }
}

/// The last events.
pub(crate) async fn list(daemon: &Daemon, limit: u32) -> Outcome {
    let network = daemon.running_network()?;
    let (events, _) = Following::begin(&network.store, limit).await?;
    Ok(Payload::EventList(EventList { events }).into())
}

/// The last events, and then every other one, until either side has had enough.
pub(crate) async fn follow(
    daemon: &Daemon,
    caller: &CertificateName,
    limit: u32,
    stream: &mut (impl AsyncWrite + Unpin),
) -> anyhow::Result<()> {
    let end = match Box::pin(follow_on(daemon, caller, limit, stream)).await? {
        Ok(()) => return Ok(()),
        Err(failure) => failure,
    };
    server::send(stream, &Response::from(Outcome::Err(end))).await
}

async fn follow_on(
    daemon: &Daemon,
    caller: &CertificateName,
    limit: u32,
    stream: &mut (impl AsyncWrite + Unpin),
) -> anyhow::Result<Result<(), Failure>> {
    let network = match daemon.running_network() {
        Ok(network) => network,
        Err(failure) => return Ok(Err(failure)),
    };
    let Some(_place) = network.followers.take(FOLLOWERS_MAX) else {
        let message = format!("{FOLLOWERS_MAX} others follow the events of this machine");
        return Ok(Err(Failure::new(Code::Busy, message)));
    };
    let (events, mut following) = match Following::begin(&network.store, limit).await {
        Ok(begun) => begun,
        Err(failure) => return Ok(Err(failure)),
    };
    let list = Outcome::Ok(Payload::EventList(EventList { events }).into());
    server::send(stream, &Response::from(list)).await?;
    loop {
        if let Err(failure) = server::still_believed(&network, caller) {
            return Ok(Err(failure));
        }
        match tokio::time::timeout(FOLLOW_STEP, following.next()).await {
            Err(_) => server::send_heartbeat(stream).await?,
            Ok(Ok(event)) => {
                let event = Outcome::Ok(Payload::Event(Box::new(event)).into());
                server::send(stream, &Response::from(event)).await?;
            }
            Ok(Err(failure)) => return Ok(Err(failure)),
        }
    }
}

/// A consumer of the stream.
struct Following {
    messages: Ordered,
}

impl Following {
    /// The last `limit` events, and what comes after them.
    async fn begin(store: &Store, limit: u32) -> Result<(Vec<Event>, Self), Failure> {
        let stream: Stream = store.within(store.jetstream().get_stream(STREAM)).await?;
        let state = &stream.cached_info().state;
        let (first, last) = (state.first_sequence, state.last_sequence);
        let start = (last + 1).saturating_sub(limit.into()).max(first).max(1);
        let config = OrderedConfig {
            deliver_subject: store.inbox(),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: start,
            },
            ..OrderedConfig::default()
        };
        let consumer = store.within(stream.create_consumer(config)).await?;
        let mut following = Self {
            messages: store.within(consumer.messages()).await?,
        };
        let mut events = Vec::new();
        let mut at = start - 1;
        while at < last {
            let (sequence, event) = tokio::time::timeout(LISTING_WAIT, following.read())
                .await
                .map_err(|_| unavailable(&"it did not list the events"))??;
            events.extend(event);
            at = sequence;
        }
        Ok((events, following))
    }

    async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            if let (_, Some(event)) = self.read().await? {
                return Ok(event);
            }
        }
    }

    /// The next message's number, and what it says; nothing if a newer daemon has said it.
    async fn read(&mut self) -> Result<(u64, Option<Event>), Failure> {
        let message = self.messages.next().await;
        let message = message.ok_or_else(|| unavailable(&"it hung up"))?;
        let message = message.map_err(|error| unavailable(&error))?;
        let info = message.info().map_err(|error| unavailable(&error))?;
        Ok((
            info.stream_sequence,
            serde_json::from_slice(&message.payload).ok(),
        ))
    }
}
