//! The store: key-value buckets of JetStream, written by compare-and-set.
//!
//! Every call ends within [`PATIENCE`], with `STORE_UNAVAILABLE` if need be.

use std::future::Future;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::kv::{self, CreateErrorKind, UpdateErrorKind, Watch};
use async_nats::jetstream::stream::StorageType;
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, Event};
use bytes::Bytes;
use futures_util::StreamExt as _;
use ployz_api::{Code, Failure, MachineId};
use ployz_core::{Change, MachineRecord, ObservedRecord};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::identity::Identity;
use crate::membership::Membership;
use crate::nats::{Version, inbox_prefix, refuse_old};
use crate::tls::{self, Presence};

/// What the operator wants of machines; coordinators write it.
pub(crate) const MACHINES: &str = "machines";
/// What machines say of themselves.
pub(crate) const OBSERVED: &str = "observed";
/// Invites, for ever.
pub(crate) const INVITES: &str = "invites";
/// Who has been certified, and who is believed no more.
pub(crate) const CREDENTIALS: &str = "credentials";
/// Long work, for a month.
pub(crate) const OPERATIONS: &str = "operations";
/// Who has which subnet.
pub(crate) const LEASES: &str = "leases";

/// A store that has not answered by then is not there.
const PATIENCE: Duration = Duration::from_secs(5);
/// After the store has come back it is found within this time.
const RECONNECT_WAIT_MAX: Duration = Duration::from_secs(2);
/// A connection that died without a word is noticed after two of these.
const PING_INTERVAL: Duration = Duration::from_secs(4);
/// At a hundred joins a day, of 1 KiB each, 3 MiB and what they remember.
const OPERATION_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);
/// What each record remembers of its past.
const HISTORY: i64 = 8;

/// A client of the store, which connects by itself, again and again.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    client: Client,
    jetstream: Context,
}

/// A value and what its writer has to say to replace it.
#[derive(Debug)]
pub(crate) struct Revised<T> {
    pub(crate) value: T,
    pub(crate) revision: u64,
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
            .event_callback(|event| async move { report(&event) })
            .connect(servers)
            .await?;
        Ok(Self {
            jetstream: jetstream::new(client.clone()),
            client,
        })
    }

    /// Whether there is a connection, as far as anybody knows.
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
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

    /// Makes the buckets; those that are there stay as they are.
    pub(crate) async fn make_buckets(&self) -> Result<(), Failure> {
        for (bucket, storage) in [
            (MACHINES, StorageType::File),
            (OBSERVED, StorageType::Memory),
            (INVITES, StorageType::File),
            (LEASES, StorageType::File),
            (CREDENTIALS, StorageType::File),
            (OPERATIONS, StorageType::File),
        ] {
            let config = kv::Config {
                bucket: bucket.to_owned(),
                history: if storage == StorageType::File {
                    HISTORY
                } else {
                    1
                },
                storage,
                max_age: if bucket == OPERATIONS {
                    OPERATION_AGE_MAX
                } else {
                    Duration::ZERO
                },
                num_replicas: 1,
                ..kv::Config::default()
            };
            self.within(self.jetstream.create_key_value(config)).await?;
        }
        Ok(())
    }

    /// Reads one record.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<Option<Revised<T>>, Failure> {
        let bucket = self.bucket(bucket).await?;
        let entry = self.within(bucket.entry(key)).await?;
        entry
            .filter(|entry| entry.operation == kv::Operation::Put)
            .map(|entry| {
                Ok(Revised {
                    value: parse(&entry)?,
                    revision: entry.revision,
                })
            })
            .transpose()
    }

    /// Reads every record.
    pub(crate) async fn list<T: DeserializeOwned>(&self, bucket: &str) -> Result<Vec<T>, Failure> {
        let bucket = self.bucket(bucket).await?;
        let mut keys = self.within(bucket.keys()).await?;
        let mut records = Vec::new();
        while let Some(key) = keys.next().await {
            let key = key.map_err(|error| unavailable(&error))?;
            let entry = self.within(bucket.entry(key)).await?;
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

    /// Writes a record that nobody else writes.
    pub(crate) async fn put(
        &self,
        bucket: &str,
        key: &str,
        value: &impl Serialize,
    ) -> Result<(), Failure> {
        let bucket = self.bucket(bucket).await?;
        let value = render(value)?;
        self.within(bucket.put(key, value)).await.map(drop)
    }

    /// Writes this machine's own observed record, of which it is the only writer.
    pub(crate) async fn observe(&self, record: &ObservedRecord) -> Result<(), Failure> {
        self.put(OBSERVED, &record.id.to_string(), record).await
    }

    /// Tells something to a stream that a machine has a subject in.
    pub(crate) async fn publish(
        &self,
        stream: &str,
        machine: MachineId,
        value: &impl Serialize,
    ) -> Result<(), Failure> {
        self.reachable()?;
        let publishing = async {
            let publishing = self
                .jetstream
                .publish(format!("{stream}.{machine}"), render(value)?);
            let acknowledged = publishing.await.map_err(|error| unavailable(&error))?;
            acknowledged.await.map_err(|error| unavailable(&error))
        };
        self.within(publishing).await.map(drop)
    }

    /// For what is more than a bucket. Calls go through [`Self::within`].
    pub(crate) const fn jetstream(&self) -> &Context {
        &self.jetstream
    }

    /// Where messages to this machine go.
    pub(crate) fn inbox(&self) -> String {
        self.client.new_inbox()
    }

    /// Lists all machines, and then says what changes.
    pub(crate) async fn follow(&self) -> Result<(Listing, Changes), Failure> {
        let machines = self.bucket(MACHINES).await?;
        let observed = self.bucket(OBSERVED).await?;
        let mut machines = self.within(machines.watch_with_history(">")).await?;
        let listing = tokio::time::timeout(PATIENCE, listing(&mut machines))
            .await
            .map_err(|_| unavailable(&"it did not list the machines"))??;
        let observed = self.within(observed.watch_with_history(">")).await?;
        let credentials = self.bucket(CREDENTIALS).await?;
        let credentials = self.within(credentials.watch_with_history(">")).await?;
        let changes = Changes {
            machines,
            observed,
            credentials,
        };
        Ok((listing, changes))
    }

    async fn bucket(&self, bucket: &str) -> Result<kv::Store, Failure> {
        self.reachable()?;
        self.within(self.jetstream.get_key_value(bucket)).await
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

    /// Waits for an answer, but not for ever.
    pub(crate) async fn within<T, E: std::fmt::Display>(
        &self,
        asking: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        tokio::time::timeout(PATIENCE, asking)
            .await
            .map_err(|_| unavailable(&"it did not answer"))?
            .map_err(|error| unavailable(&error))
    }
}

/// All machines, each with the revision of its record.
pub(crate) type Listing = Vec<(MachineRecord, u64)>;

/// News from the store.
pub(crate) struct Changes {
    machines: Watch,
    observed: Watch,
    credentials: Watch,
}

impl Changes {
    /// The next one; `None` when the watch has ended and has to be begun anew.
    pub(crate) async fn next(&mut self) -> Option<Change> {
        loop {
            let change = tokio::select! {
                entry = self.machines.next() => machine_change(&entry?.ok()?),
                entry = self.observed.next() => observed_change(&entry?.ok()?),
                entry = self.credentials.next() => credential_change(&entry?.ok()?),
            };
            // A record that cannot be read is not ours to judge: it may be a newer daemon's.
            if let Some(change) = change {
                return Some(change);
            }
        }
    }
}

async fn listing(watch: &mut Watch) -> Result<Listing, Failure> {
    let mut machines = Vec::new();
    loop {
        let entry = watch
            .next()
            .await
            .ok_or_else(|| unavailable(&"it hung up"))?;
        let entry = entry.map_err(|error| unavailable(&error))?;
        if let Some(Change::Machine(record, revision)) = machine_change(&entry) {
            machines.push((*record, revision));
        }
        if entry.seen_current {
            return Ok(machines);
        }
    }
}

fn machine_change(entry: &kv::Entry) -> Option<Change> {
    match entry.operation {
        kv::Operation::Put => Some(Change::Machine(Box::new(readable(entry)?), entry.revision)),
        kv::Operation::Delete | kv::Operation::Purge => {
            let id: MachineId = entry.key.parse().ok()?;
            Some(Change::MachineGone(id, entry.revision))
        }
    }
}

fn observed_change(entry: &kv::Entry) -> Option<Change> {
    let at = u64::try_from(entry.created.unix_timestamp()).ok()?;
    (entry.operation == kv::Operation::Put)
        .then(|| readable(entry))?
        .map(|record| Change::Observed(record, at))
}

fn credential_change(entry: &kv::Entry) -> Option<Change> {
    (entry.operation == kv::Operation::Put)
        .then(|| readable(entry))?
        .map(Change::Credential)
}

fn readable<T: DeserializeOwned>(entry: &kv::Entry) -> Option<T> {
    parse(entry)
        .inspect_err(|failure| tracing::warn!(cause = %failure, "a record cannot be read"))
        .ok()
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
