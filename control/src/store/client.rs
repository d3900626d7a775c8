//! The store: key-value buckets of JetStream, written by compare-and-set.
//!
//! Every call ends within [`PATIENCE`], with `STORE_UNAVAILABLE` if need be.

use std::collections::BTreeMap;
use std::error::Error;
use std::future::IntoFuture as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::datetime::parse_rfc3339;
use async_nats::jetstream::kv::{self, CreateErrorKind, UpdateErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Config, RawMessageError, RawMessageErrorKind};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, Event};
use bytes::Bytes;
use ployz_api::{InstanceId, MachineId, RttRecord};
use ployz_core::{InstanceRecord, ObservedRecord};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::host::identity::Identity;
use crate::host::membership::Membership;
use crate::host::tls;
use crate::host::tls::Presence;
use crate::nats::{EVENTS, Version, inbox_prefix, instance_subject, refuse_old};
use crate::store::buckets::{MACHINES, OBSERVED, RTT, rebound, stream_name, streams};
use crate::store::error::StoreError;
use crate::store::health::Health;
use crate::store::watch::{self, Changes, Machines};
use crate::store::{retry, stream};

/// A store that has not answered by then is unavailable.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The client reconnects within this time after the store has recovered.
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(2);
/// A connection that has broken silently is noticed after two of these.
const PING_INTERVAL: Duration = Duration::from_secs(4);

/// A client of the store, which connects and reconnects by itself.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(super) client: Client,
    pub(super) jetstream: Context,
    pub(super) connected: Arc<Notify>,
    pub(super) health: Arc<Health>,
}

/// A value, and the revision that a writer has to name to replace it.
#[derive(Debug)]
pub(crate) struct Revised<T> {
    pub(crate) value: T,
    pub(crate) revision: u64,
}

/// The content of a key.
#[derive(Debug)]
pub(crate) enum Slot<T> {
    /// Nothing was ever written.
    Nothing,
    /// A record.
    Record(Revised<T>),
    /// The record was deleted: in this revision, at this time (seconds since 1970, by the store's clock).
    Deleted { revision: u64, at: u64 },
}

impl<T> Slot<T> {
    /// The record, if there is one.
    pub(crate) fn record(self) -> Option<Revised<T>> {
        match self {
            Self::Record(record) => Some(record),
            Self::Nothing | Self::Deleted { .. } => None,
        }
    }
}

impl Store {
    /// Begins to connect to the store of a membership.
    pub(crate) async fn open(
        membership: &Membership,
        identity: &Identity,
    ) -> Result<Self, StoreError> {
        Self::open_at(&membership.store, membership, identity).await
    }

    /// Begins to connect to the store on these servers.
    pub(crate) async fn open_at(
        servers: &[(IpAddr, u16)],
        membership: &Membership,
        identity: &Identity,
    ) -> Result<Self, StoreError> {
        let tls = tls::store_client(Presence {
            ca_pem: &membership.ca_pem,
            certificate_pem: membership.store_certificate(),
            key_pem: identity.certificate_key_pem.expose(),
            strangers: false,
        })?;
        let servers = urls(servers);
        let health = Arc::new(Health::default());
        let reporter = Arc::clone(&health);
        let connected = Arc::new(Notify::new());
        let events = Arc::clone(&connected);
        let client = ConnectOptions::with_nkey(identity.nkey_seed.expose().to_owned())
            .name(identity.machine_id)
            .custom_inbox_prefix(inbox_prefix(identity.machine_id))
            .require_tls(true)
            .tls_client_config(tls)
            .retry_on_initial_connect()
            .connection_timeout(PATIENCE)
            .request_timeout(Some(PATIENCE))
            .ping_interval(PING_INTERVAL)
            .reconnect_delay_callback(reconnect_delay)
            .ignore_discovered_servers()
            .event_callback(move |event| {
                reporter.report(&event);
                let events = Arc::clone(&events);
                async move {
                    if event == Event::Connected {
                        events.notify_one();
                    }
                }
            })
            .connect(servers)
            .await
            .map_err(|error| StoreError::Connect(error.to_string()))?;
        Ok(Self {
            jetstream: jetstream::new(client.clone()),
            client,
            health,
            connected,
        })
    }

    /// The counters of failures.
    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// Uses these servers from the next connection on. Returns once there is a connection, however long that takes.
    pub(crate) async fn set_servers(&self, servers: &[(IpAddr, u16)]) {
        if let Err(error) = self.client.set_server_pool(urls(servers)).await {
            tracing::debug!(%error, "the store's client has ended");
        }
    }

    /// Whether there is a connection, as far as the client has noticed.
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Waits until the next connection is made.
    pub(crate) async fn connected_anew(&self) {
        self.connected.notified().await;
    }

    /// Waits until there is a connection to a server that is new enough.
    pub(crate) async fn wait_connected(&self, patience: Duration) -> Result<(), StoreError> {
        let connected = async {
            while self.reachable().is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _too_late = tokio::time::timeout(patience, connected).await;
        self.reachable()
    }

    /// The time by the store's clock, which all coordinators share, in seconds since 1970.
    pub(crate) async fn unix_secs(&self) -> Result<u64, StoreError> {
        #[derive(Deserialize)]
        struct Answer {
            /// RFC 3339.
            ts: String,
        }
        self.reachable()?;
        let subject = format!("STREAM.INFO.KV_{MACHINES}");
        let asking = async || self.jetstream.request(subject.clone(), &()).await;
        let Answer { ts } = self.within(asking).await?;
        let time = parse_rfc3339(&ts).map_err(StoreError::unavailable)?;
        u64::try_from(time.unix_timestamp()).map_err(StoreError::unavailable)
    }

    /// Creates the buckets and the stream of events with this number of replicas. Existing ones stay as they are, but
    /// for the bounds of the stream of events, which a former version has made without a share for each machine.
    pub(crate) async fn make_buckets(&self, replicas: usize) -> Result<(), StoreError> {
        for config in streams(replicas) {
            let present = self.make(config.clone()).await?;
            if config.name == EVENTS {
                self.rebound_events(present, &config).await;
            }
        }
        Ok(())
    }

    /// A store that refuses works as it is, and is asked again with the next listing.
    async fn rebound_events(&self, mut present: Config, wanted: &Config) {
        if !rebound(&mut present, wanted) {
            return;
        }
        let changing = async || self.jetstream.update_stream(present.clone()).await;
        if let Err(error) = self.within(changing).await {
            tracing::warn!(%error, "the stream of events keeps its former bounds");
        }
    }

    /// Creates a stream that is not there; its configuration.
    pub(super) async fn make(&self, config: Config) -> Result<Config, StoreError> {
        let making = async || self.jetstream.get_or_create_stream(config.clone()).await;
        let stream = self.within(making).await?;
        Ok(stream.cached_info().config.clone())
    }

    /// Reads one record.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<Option<Revised<T>>, StoreError> {
        Ok(self.slot(bucket, key).await?.record())
    }

    /// Reads the content of a key, or its deletion.
    pub(crate) async fn slot<T: DeserializeOwned>(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<Slot<T>, StoreError> {
        self.reachable()?;
        let (name, subject) = (stream_name(bucket), format!("$KV.{bucket}.{key}"));
        // From the leader, not from any server: a writer must find the record that it has just written.
        let looking = async || {
            let stream = self.jetstream.get_stream_no_info(&name).await;
            let stream = stream
                .map_err(|error| RawMessageError::with_source(RawMessageErrorKind::Other, error))?;
            stream.get_last_raw_message_by_subject(&subject).await
        };
        let message = match self.ask(looking).await? {
            Ok(message) => message,
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                return Ok(Slot::Nothing);
            }
            Err(error) => return Err(self.health.failed(&error)),
        };
        let revision = message.sequence;
        Ok(if message.headers.get("KV-Operation").is_some() {
            let at = u64::try_from(message.time.unix_timestamp()).unwrap_or_default();
            Slot::Deleted { revision, at }
        } else {
            let value = parse(key, &message.payload)?;
            Slot::Record(Revised { value, revision })
        })
    }

    /// Reads every record.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        bucket: &str,
    ) -> Result<Vec<T>, StoreError> {
        self.read(bucket, ">").await
    }

    /// Reads the records whose keys match. As with [`Self::list`], every machine may do so.
    pub(crate) async fn read<T: DeserializeOwned>(
        &self,
        bucket: &str,
        keys: &str,
    ) -> Result<Vec<T>, StoreError> {
        let subjects = format!("$KV.{bucket}.{keys}");
        let stream = stream_name(bucket);
        let listing = stream::list(self.client()?, &stream, &subjects, 1);
        // The last message of a key counts.
        let mut records = BTreeMap::new();
        for message in listing.await? {
            records.insert(message.subject.clone(), message);
        }
        let records = records.values();
        let records = records.filter(|message| message.headers.get("KV-Operation").is_none());
        records
            .map(|message| parse(&message.subject, &message.payload))
            .collect()
    }

    /// Writes a record that must not exist yet; `false` if it does.
    pub(crate) async fn create(
        &self,
        bucket: &str,
        key: &str,
        value: &impl Serialize,
    ) -> Result<bool, StoreError> {
        let bucket = self.bucket(bucket).await?;
        let value = render(value)?;
        match self
            .ask(async || bucket.create(key, value.clone()).await)
            .await?
        {
            Ok(_revision) => Ok(true),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(self.health.failed(&error)),
        }
    }

    /// Replaces a record that must still have this revision; `false` if it does not.
    pub(crate) async fn update(
        &self,
        bucket: &str,
        key: &str,
        value: &impl Serialize,
        revision: u64,
    ) -> Result<bool, StoreError> {
        let bucket = self.bucket(bucket).await?;
        let value = render(value)?;
        let writing = async || bucket.update(key, value.clone(), revision).await;
        match self.ask(writing).await? {
            Ok(_revision) => Ok(true),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(false),
            Err(error) => Err(self.health.failed(&error)),
        }
    }

    /// Deletes a record that must still have this revision, if one is given; `false` if it does not.
    pub(crate) async fn delete(
        &self,
        bucket: &str,
        key: &str,
        revision: Option<u64>,
    ) -> Result<bool, StoreError> {
        let bucket = self.bucket(bucket).await?;
        let deleting = async || bucket.delete_expect_revision(key, revision).await;
        match self.ask(deleting).await? {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(false),
            Err(error) => Err(self.health.failed(&error)),
        }
    }

    /// The number of consumers of a bucket.
    #[cfg(test)]
    pub(crate) async fn consumers(&self, bucket: &str) -> Result<usize, StoreError> {
        let bucket = self.bucket(bucket).await?;
        let info = self.within(async || bucket.stream.get_info().await).await?;
        Ok(info.state.consumer_count)
    }

    /// Writes a record that has no other writer.
    pub(crate) async fn put(
        &self,
        bucket: &str,
        key: &str,
        value: &impl Serialize,
    ) -> Result<(), StoreError> {
        self.publish(&format!("$KV.{bucket}.{key}"), value).await
    }

    /// Writes this machine's own observed record, of which it is the only writer.
    pub(crate) async fn observe(&self, record: &ObservedRecord) -> Result<(), StoreError> {
        self.put(OBSERVED, &record.id.to_string(), record).await
    }

    /// Writes the round trips that this machine has measured.
    pub(crate) async fn record_round_trips(&self, record: &RttRecord) -> Result<(), StoreError> {
        self.put(RTT, &record.id.to_string(), record).await
    }

    /// Writes a message under a subject of a stream.
    pub(crate) async fn publish(
        &self,
        subject: &str,
        value: &impl Serialize,
    ) -> Result<(), StoreError> {
        self.reachable()?;
        let value = render(value)?;
        let publishing = async || {
            let publishing = self.jetstream.publish(subject.to_owned(), value.clone());
            publishing.await?.into_future().await
        };
        self.within(publishing).await?;
        Ok(())
    }

    /// Reads the record of an instance on a machine, which only this machine and coordinators may do.
    pub(crate) async fn instance(
        &self,
        machine: MachineId,
        id: InstanceId,
    ) -> Result<Option<InstanceRecord>, StoreError> {
        let client = self.client()?;
        let subject = instance_subject(machine, id);
        let asking = async || client.request(subject.clone(), Bytes::new()).await;
        let answer = self.within(asking).await?;
        if answer.status.is_some() {
            return Ok(None);
        }
        let message = StreamMessage::try_from(answer).map_err(StoreError::unavailable)?;
        if message.headers.get("KV-Operation").is_some() {
            return Ok(None);
        }
        parse(&subject, &message.payload).map(Some)
    }

    /// The client, for requests that are not about a bucket.
    pub(crate) fn client(&self) -> Result<&Client, StoreError> {
        self.reachable()?;
        Ok(&self.client)
    }

    /// Lists all machines, and follows their changes.
    pub(crate) async fn follow(&self) -> Result<(Machines, Changes), StoreError> {
        watch::follow(self.client()?).await
    }

    async fn bucket(&self, bucket: &str) -> Result<kv::Store, StoreError> {
        self.reachable()?;
        self.within(async || self.jetstream.get_key_value(bucket).await)
            .await
    }

    /// Fails at once without a connection, or if the server is too old.
    pub(super) fn reachable(&self) -> Result<(), StoreError> {
        if !self.is_connected() {
            return Err(StoreError::unavailable("there is no connection to it"));
        }
        let version = self.client.server_info().version;
        match Version::parse(&version) {
            Some(version) => Ok(refuse_old(version, "the store")?),
            None => Ok(()),
        }
    }

    pub(super) async fn within<T, E: Error + 'static>(
        &self,
        question: impl AsyncFn() -> Result<T, E>,
    ) -> Result<T, StoreError> {
        let answer = self.ask(question).await?;
        answer.map_err(|error| self.health.failed(&error))
    }

    /// Asks, and counts a missing answer as a failure; an error that is an answer is passed on.
    async fn ask<T, E: Error + 'static>(
        &self,
        question: impl AsyncFn() -> Result<T, E>,
    ) -> Result<Result<T, E>, StoreError> {
        retry::ask(PATIENCE, question)
            .await
            .ok_or_else(|| self.health.failed(&"it did not answer"))
    }
}

fn urls(servers: &[(IpAddr, u16)]) -> Vec<String> {
    let url =
        |(address, port): &(IpAddr, u16)| format!("tls://{}", SocketAddr::new(*address, *port));
    servers.iter().map(url).collect()
}

fn parse<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|cause| StoreError::Damaged {
        key: key.to_owned(),
        cause,
    })
}

fn render(value: &impl Serialize) -> Result<Bytes, StoreError> {
    let json = serde_json::to_vec(value);
    json.map(Bytes::from).map_err(StoreError::Render)
}

/// Short at first, and randomised, so that machines do not reconnect all at once.
fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.min(8)).unwrap_or(8);
    let wait = (Duration::from_millis(20) * 2_u32.pow(doublings)).min(RECONNECT_WAIT_MAX);
    wait.mul_f64(rand::random_range(0.5..1.0))
}
