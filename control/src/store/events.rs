//! What was done, kept in the store for whoever wants to know: a stream of at most some thousand events, of which the
//! oldest go first.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Republish};
use async_nats::{Message, Subscriber};
use futures_util::StreamExt as _;
use ployz_api::{
    CertificateName, Code, Event, EventList, Failure, MachineId, Operation, Outcome, Payload,
    Response, Role,
};
use tokio::io::AsyncWrite;

use crate::daemon::Daemon;
use crate::host::clock;
use crate::nats::EVENT_NEWS;
use crate::server;
use crate::store::stream;
use crate::store::{Store, unavailable};

/// The stream.
pub(crate) const EVENTS: &str = "events";
/// Each machine has one.
pub(crate) const SUBJECTS: &str = "events.*";
/// At some 300 bytes, 3 MiB.
const EVENTS_MAX: i64 = 10_000;
const BYTES_MAX: i64 = 8 << 20;
/// How soon a follower hears that its credential was revoked, and we that it is gone, at the latest.
const FOLLOW_STEP: Duration = Duration::from_secs(1);
/// Each has a subscription of the store's news.
const FOLLOWERS_MAX: usize = 16;

/// The stream, and that the store says each event as soon as it has it.
pub(crate) fn stream_config(replicas: usize) -> Config {
    Config {
        name: EVENTS.to_owned(),
        subjects: vec![SUBJECTS.to_owned()],
        max_messages: EVENTS_MAX,
        max_bytes: BYTES_MAX,
        max_message_size: 16 << 10,
        discard: DiscardPolicy::Old,
        allow_direct: true,
        deny_delete: true,
        republish: Some(Republish {
            source: ">".to_owned(),
            destination: "ployz.>".to_owned(),
            headers_only: false,
        }),
        num_replicas: replicas,
        ..Config::default()
    }
}

/// Where a machine tells its events.
fn subject(machine: MachineId) -> String {
    format!("{EVENTS}.{machine}")
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
        if let Err(failure) = network.store.publish(&subject(event.machine), &event).await {
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
        | Payload::MachineRtt(_)
        | Payload::MachineInspect(_)
        | Payload::InviteList(_)
        | Payload::CredentialList(_)
        | Payload::Doctor(_)
        | Payload::PairReport(_)
        | Payload::RttReport(_)
        | Payload::EventList(_)
        | Payload::Event(_)
        | Payload::OperationList(_)
        | Payload::Operation(_)
        | Payload::MeshList(_)
        | Payload::MeshStatus(_)
        | Payload::MeshReady(_)
        | Payload::MeshSelfRecord(_)
        | Payload::MachineRecord(_)
        | Payload::Workload(_)
        | Payload::WorkloadList(_)
        | Payload::WorkloadInspect(_)
        | Payload::WorkloadLogs(_)
        | Payload::MigratePreview(_)
        | Payload::MigrateApply(_)
        | Payload::VolumeEntries(_)
        | Payload::VolumeBytes(_)
        | Payload::MachineLifecycle(_)
        | Payload::MachineRemove(_)
        | Payload::MachineRetired(_)
        | Payload::MachineUpdate(_)
        | Payload::StoragePromotion(_)
        | Payload::StorageReport(_)
        | Payload::StorageList(_)
        | Payload::MachineHealth(_)
        | Payload::ReleaseFetched(_) => None,
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
    address: IpAddr,
    limit: u32,
    stream: &mut (impl AsyncWrite + Unpin),
) -> anyhow::Result<()> {
    let end = match Box::pin(follow_on(daemon, caller, limit, stream)).await? {
        Ok(()) => return Ok(()),
        Err(failure) => failure,
    };
    server::note(daemon, caller, address, &end);
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

/// Somebody's way along the stream.
struct Following {
    store: Store,
    news: Subscriber,
    /// The number of the last event that was seen.
    seen: u64,
    /// What was missed and has been read since, the oldest first.
    caught_up: VecDeque<Event>,
}

impl Following {
    /// The last `limit` events, and what comes after them.
    async fn begin(store: &Store, limit: u32) -> Result<(Vec<Event>, Self), Failure> {
        let client = store.client()?;
        // First, so that nothing is missed in between.
        let subscribing = client.subscribe(EVENT_NEWS).await;
        let news = subscribing.map_err(|error| unavailable(&error))?;
        let last = stream::last(client, EVENTS, SUBJECTS).await?;
        let mut following = Self {
            store: store.clone(),
            news,
            seen: last.saturating_sub(limit.into()),
            caught_up: VecDeque::new(),
        };
        let events = following.read_on().await?;
        following.seen = following.seen.max(last);
        Ok((events, following))
    }

    async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            if let Some(event) = self.caught_up.pop_front() {
                return Ok(event);
            }
            let message = self.news.next().await;
            let message = message.ok_or_else(|| unavailable(&"it hung up"))?;
            let Some(message) = told(message).filter(|message| message.sequence > self.seen) else {
                continue;
            };
            if message.sequence > self.seen + 1 {
                // News is not kept for anybody who could not be reached.
                self.caught_up = self.read_on().await?.into();
                continue;
            }
            self.seen = message.sequence;
            if let Some(event) = event(&message) {
                return Ok(event);
            }
        }
    }

    /// What has been told since.
    async fn read_on(&mut self) -> Result<Vec<Event>, Failure> {
        let from = self.seen + 1;
        let messages = stream::list(self.store.client()?, EVENTS, SUBJECTS, from).await?;
        if let Some(last) = messages.last() {
            self.seen = last.sequence;
        }
        Ok(messages.iter().filter_map(event).collect())
    }
}

/// News of an event. A machine can have an answer sent to where news comes from, but not with other headers than what it
/// was the answer to: so both have to say the same.
fn told(message: Message) -> Option<StreamMessage> {
    let subject = message.subject.clone();
    let message = StreamMessage::try_from(message).ok()?;
    (subject.strip_prefix("ployz.")? == message.subject.as_str()).then_some(message)
}

/// What a message says; nothing if a newer daemon has said it, or in another machine's name.
fn event(message: &StreamMessage) -> Option<Event> {
    let event: Event = serde_json::from_slice(&message.payload).ok()?;
    (subject(event.machine) == message.subject.as_str()).then_some(event)
}
