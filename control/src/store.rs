//! The store: key-value buckets of JetStream, written by compare-and-set.
//!
//! Every call ends within [`PATIENCE`], with `STORE_UNAVAILABLE` if need be.

use std::future::{Future, IntoFuture as _};
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::datetime::parse_rfc3339;
use async_nats::jetstream::kv::{self, CreateErrorKind, UpdateErrorKind};
use async_nats::jetstream::stream::{self, DiscardPolicy, Republish, StorageType};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, Event};
use bytes::Bytes;
use futures_util::StreamExt as _;
use ployz_api::{Code, Failure};
use ployz_core::ObservedRecord;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::identity::Identity;
use crate::membership::Membership;
use crate::nats::{CHANGED, Version, inbox_prefix, refuse_old};
use crate::news::{self, Changes, Machines};
use crate::tls::{self, Presence};

/// What the operator wants of machines; coordinators write it.
pub(crate) const MACHINES: &str = "machines";
/// What machines say of themselves.
pub(crate) const OBSERVED: &str = "observed";
/// Invites, for ever.
pub(crate) const INVITES: &str = "invites";
/// Who has which subnet.
pub(crate) const LEASES: &str = "leases";

/// A store that has not answered by then is not there.
const PATIENCE: Duration = Duration::from_secs(5);
/// Half a second in all, which is much more than a server with all its users takes to read them.
const RELOAD_ATTEMPTS: u32 = 10;
const RELOAD_POLL: Duration = Duration::from_millis(50);
/// After the store has come back it is found within this time.
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(2);
/// A connection that died without a word is noticed after two of these.
const PING_INTERVAL: Duration = Duration::from_secs(4);
/// What each record remembers of its past.
const HISTORY: i64 = 8;
/// A record is about a kilobyte.
const RECORD_LEN_MAX: i32 = 64 * 1024;

/// A client of the store, which connects by itself, again and again.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    client: Client,
    jetstream: Context,
    connected: Arc<Notify>,
}

/// A value and what its writer has to say to replace it.
#[derive(Debug)]
pub(crate) struct Revised<T> {
    pub(crate) value: T,
    pub(crate) revision: u64,
}

/// What there is under a key.
#[derive(Debug)]
pub(crate) enum Slot<T> {
    /// Nothing, ever.
    Nothing,
    /// A record.
    Record(Revised<T>),
    /// What was there has been deleted: in this revision, at this time (seconds since 1970, by the store's clock).
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
    /// Begins to connect.
    pub(crate) async fn open(membership: &Membership, identity: &Identity) -> anyhow::Result<Self> {
        let tls = tls::store_client(Presence {
            ca_pem: &membership.ca_pem,
            certificate_pem: &membership.certificate_pem,
            key_pem: identity.certificate_key_pem.expose(),
            strangers: false,
        })?;
        let servers: Vec<String> = membership
            .store
            .iter()
            .map(|(address, port)| format!("tls://{}", std::net::SocketAddr::new(*address, *port)))
            .collect();
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
                let events = Arc::clone(&events);
                async move {
                    report(&event);
                    if event == Event::Connected {
                        events.notify_one();
                    }
                }
            })
            .connect(servers)
            .await?;
        Ok(Self {
            jetstream: jetstream::new(client.clone()),
            client,
            connected,
        })
    }

    /// Whether there is a connection, as far as anybody knows.
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Waits for the next time that a connection has been made.
    pub(crate) async fn connected_anew(&self) {
        self.connected.notified().await;
    }

    /// Waits for the first answer.
    pub(crate) async fn wait_connected(&self, patience: Duration) -> Result<(), Failure> {
        let connected = async {
            while self.reachable().is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _too_late = tokio::time::timeout(patience, connected).await;
        self.reachable()
    }

    /// What time it is by the store's clock, in seconds since 1970: the one that all coordinators share.
    pub(crate) async fn unix_secs(&self) -> Result<u64, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            /// RFC 3339.
            ts: String,
        }
        self.reachable()?;
        let subject = format!("STREAM.INFO.KV_{MACHINES}");
        let Answer { ts } = self
            .across_a_reload(async || self.jetstream.request(subject.clone(), &()).await)
            .await?;
        let time = parse_rfc3339(&ts).map_err(|error| unavailable(&error))?;
        u64::try_from(time.unix_timestamp()).map_err(|error| unavailable(&error))
    }

    /// Makes the buckets; those that are there stay as they are.
    pub(crate) async fn make_buckets(&self) -> Result<(), Failure> {
        for (bucket, storage) in [
            (MACHINES, StorageType::File),
            (OBSERVED, StorageType::Memory),
            (INVITES, StorageType::File),
            (LEASES, StorageType::File),
        ] {
            let config = bucket_config(bucket, storage);
            self.within(self.jetstream.create_stream(config)).await?;
        }
        Ok(())
    }

    /// Reads one record.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<Option<Revised<T>>, Failure> {
        Ok(self.look(bucket, key).await?.record())
    }

    /// Reads what there is under a key, or was.
    pub(crate) async fn look<T: DeserializeOwned>(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<Slot<T>, Failure> {
        let bucket = self.bucket(bucket).await?;
        let Some(entry) = self.within(bucket.entry(key)).await? else {
            return Ok(Slot::Nothing);
        };
        let revision = entry.revision;
        Ok(match entry.operation {
            kv::Operation::Put => Slot::Record(Revised {
                value: parse(&entry)?,
                revision,
            }),
            kv::Operation::Delete | kv::Operation::Purge => Slot::Deleted {
                revision,
                at: written_at(&entry),
            },
        })
    }

    /// Reads every record.
    pub(crate) async fn list<T: DeserializeOwned>(&self, bucket: &str) -> Result<Vec<T>, Failure> {
        let bucket = self.bucket(bucket).await?;
        let mut keys = self.across_a_reload(async || bucket.keys().await).await?;
        let mut records = Vec::new();
        while let Some(key) = keys.next().await {
            let key = key.map_err(|error| unavailable(&error))?;
            let entry = self.within(bucket.entry(key)).await?;
            // One that was deleted since its key was listed is none.
            let entry = entry.filter(|entry| entry.operation == kv::Operation::Put);
            records.extend(entry.as_ref().map(parse).transpose()?);
        }
        Ok(records)
    }

    /// Writes a record that must not be there yet; `false` if it is.
    pub(crate) async fn create(
        &self,
        bucket: &str,
        key: &str,
        value: &impl Serialize,
    ) -> Result<bool, Failure> {
        let bucket = self.bucket(bucket).await?;
        match tokio::time::timeout(PATIENCE, bucket.create(key, render(value)?)).await {
            Ok(Ok(_revision)) => Ok(true),
            Ok(Err(error)) if error.kind() == CreateErrorKind::AlreadyExists => Ok(false),
            Ok(Err(error)) => Err(unavailable(&error)),
            Err(_) => Err(unavailable(&"it did not answer")),
        }
    }

    /// Replaces a record that must be as it was read; `false` if it is not.
    pub(crate) async fn update(
        &self,
        bucket: &str,
        key: &str,
        value: &impl Serialize,
        revision: u64,
    ) -> Result<bool, Failure> {
        let bucket = self.bucket(bucket).await?;
        let writing = bucket.update(key, render(value)?, revision);
        match tokio::time::timeout(PATIENCE, writing).await {
            Ok(Ok(_revision)) => Ok(true),
            Ok(Err(error)) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(false),
            Ok(Err(error)) => Err(unavailable(&error)),
            Err(_) => Err(unavailable(&"it did not answer")),
        }
    }

    /// Deletes a record that must be as it was read, if a revision is given; `false` if it is not.
    pub(crate) async fn delete(
        &self,
        bucket: &str,
        key: &str,
        revision: Option<u64>,
    ) -> Result<bool, Failure> {
        let bucket = self.bucket(bucket).await?;
        let deleting = bucket.delete_expect_revision(key, revision);
        match tokio::time::timeout(PATIENCE, deleting).await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(error)) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(false),
            Ok(Err(error)) => Err(unavailable(&error)),
            Err(_) => Err(unavailable(&"it did not answer")),
        }
    }

    /// Writes this machine's own observed record, of which it is the only writer.
    pub(crate) async fn observe(&self, record: &ObservedRecord) -> Result<(), Failure> {
        self.reachable()?;
        let subject = format!("$KV.{OBSERVED}.{}", record.id);
        let publishing = self.jetstream.publish(subject, render(record)?);
        let acknowledgement = self.within(publishing).await?;
        self.within(acknowledgement.into_future()).await?;
        Ok(())
    }

    /// Lists all machines, and then says what changes.
    pub(crate) async fn follow(&self) -> Result<(Machines, Changes), Failure> {
        self.reachable()?;
        news::follow(&self.client).await
    }

    async fn bucket(&self, bucket: &str) -> Result<kv::Store, Failure> {
        self.reachable()?;
        self.across_a_reload(async || self.jetstream.get_key_value(bucket).await)
            .await
    }

    /// Fails at once when it is known that there is nobody to ask.
    fn reachable(&self) -> Result<(), Failure> {
        if !self.is_connected() {
            return Err(unavailable(&"there is no connection to it"));
        }
        let version = self.client.server_info().version;
        match Version::parse(&version) {
            Some(version) => refuse_old(version, "the store"),
            None => Ok(()),
        }
    }

    /// While the server reads its configuration anew, as for every machine that comes or goes, questions to JetStream
    /// itself find nobody for some milliseconds.
    async fn across_a_reload<T, E: std::fmt::Display>(
        &self,
        ask: impl AsyncFn() -> Result<T, E>,
    ) -> Result<T, Failure> {
        let asking = async {
            for _ in 1..RELOAD_ATTEMPTS {
                if let Ok(answer) = ask().await {
                    return Ok(answer);
                }
                tokio::time::sleep(RELOAD_POLL).await;
            }
            ask().await
        };
        self.within(asking).await
    }

    async fn within<T, E: std::fmt::Display>(
        &self,
        asking: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        tokio::time::timeout(PATIENCE, asking)
            .await
            .map_err(|_| unavailable(&"it did not answer"))?
            .map_err(|error| unavailable(&error))
    }
}

/// Seconds since 1970, by the store's clock.
fn written_at(entry: &kv::Entry) -> u64 {
    u64::try_from(entry.created.unix_timestamp()).unwrap_or_default()
}

/// As the stock tools make a bucket, but for what a single writer could do to all keys with a header (roll-up), and with
/// news of every write.
fn bucket_config(bucket: &str, storage: StorageType) -> stream::Config {
    let history = if storage == StorageType::File {
        HISTORY
    } else {
        1
    };
    stream::Config {
        name: format!("KV_{bucket}"),
        subjects: vec![format!("$KV.{bucket}.>")],
        max_messages_per_subject: history,
        max_message_size: RECORD_LEN_MAX,
        storage,
        discard: DiscardPolicy::New,
        allow_direct: true,
        deny_delete: true,
        republish: [MACHINES, OBSERVED].contains(&bucket).then(|| Republish {
            source: format!("$KV.{bucket}.>"),
            destination: format!("{CHANGED}.{bucket}.>"),
            headers_only: false,
        }),
        num_replicas: 1,
        ..stream::Config::default()
    }
}

fn parse<T: DeserializeOwned>(entry: &kv::Entry) -> Result<T, Failure> {
    serde_json::from_slice(&entry.value).map_err(|error| {
        let message = format!(
            "record {} of {} is damaged: {error}",
            entry.key, entry.bucket
        );
        Failure::new(Code::Internal, message)
    })
}

fn render(value: &impl Serialize) -> Result<Bytes, Failure> {
    let json = serde_json::to_vec(value);
    json.map(Bytes::from)
        .map_err(|error| Failure::new(Code::Internal, error.to_string()))
}

pub(crate) fn unavailable(cause: &dyn std::fmt::Display) -> Failure {
    Failure::new(
        Code::StoreUnavailable,
        format!("the store is not available: {cause}"),
    )
    .hint("ployzctl status (on a machine that holds the store)")
}

/// Soon at first; chance keeps machines from coming all at once.
fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.min(8)).unwrap_or(8);
    let wait = (Duration::from_millis(20) * 2_u32.pow(doublings)).min(RECONNECT_WAIT_MAX);
    wait.mul_f64(rand::random_range(0.5..1.0))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the client's events, of which only errors are bad news"
)]
fn report(event: &Event) {
    match event {
        Event::ServerError(_) | Event::ClientError(_) => tracing::warn!(%event, "store"),
        _ => tracing::info!(%event, "store"),
    }
}
