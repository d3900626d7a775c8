//! Following the store: everything that there is, and then what changes.
//!
//! Changes are what the store publishes after each write, which takes no consumer either.

use std::collections::VecDeque;

use async_nats::jetstream::message::StreamMessage;
use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt as _;
use ployz_api::{CredentialId, MachineId};
use ployz_core::{Change, CredentialRecord, MachineRecord, ObservedRecord};
use serde::de::DeserializeOwned;

use crate::nats::{CHANGED, NEWS};
use crate::store::buckets::{CREDENTIALS, MACHINES, OBSERVED, stream_name};
use crate::store::error::StoreError;
use crate::store::stream;

/// News from the store.
pub(crate) struct Changes {
    listed: VecDeque<Change>,
    news: Subscriber,
}

/// All machines, each with the revision of its record.
pub(crate) type Machines = Vec<(MachineRecord, u64)>;

/// Lists all machines, and then says what changes.
pub(crate) async fn follow(client: &Client) -> Result<(Machines, Changes), StoreError> {
    // First, so that nothing is missed in between.
    let news = client
        .subscribe(NEWS)
        .await
        .map_err(StoreError::unavailable)?;
    let mut machines = Machines::new();
    for change in list(client, MACHINES).await? {
        match change {
            Change::Machine(record, revision) => {
                machines.retain(|(known, _)| known.id != record.id);
                machines.push((*record, revision));
            }
            Change::MachineGone(id, _) => machines.retain(|(known, _)| known.id != id),
            Change::Observed(..) | Change::Credential(_) => {}
        }
    }
    let mut listed: VecDeque<Change> = list(client, OBSERVED).await?.into();
    listed.extend(list(client, CREDENTIALS).await?);
    Ok((machines, Changes { listed, news }))
}

impl Changes {
    /// The next one; `None` when the store has hung up, and has to be followed anew.
    pub(crate) async fn next(&mut self) -> Option<Change> {
        if let Some(change) = self.listed.pop_front() {
            return Some(change);
        }
        loop {
            if let Some(change) = changed(self.news.next().await?) {
                return Some(change);
            }
        }
    }
}

/// News of a key. A machine can have an answer sent to where news comes from, but not with other headers than what it was
/// the answer to: so both have to say the same.
fn changed(message: Message) -> Option<Change> {
    let subject = message.subject.clone();
    let key = subject.strip_prefix(CHANGED)?.strip_prefix('.')?;
    let message = StreamMessage::try_from(message).ok()?;
    if message.subject.strip_prefix("$KV.") != Some(key) {
        return None;
    }
    let (bucket, key) = key.split_once('.')?;
    change(message, bucket, key)
}

/// What a bucket remembers, the oldest first.
async fn list(client: &Client, bucket: &str) -> Result<Vec<Change>, StoreError> {
    let prefix = format!("$KV.{bucket}.");
    let messages = stream::list(client, &stream_name(bucket), &format!("{prefix}>"), 1).await?;
    let changes = messages.into_iter().filter_map(|message| {
        let subject = message.subject.clone();
        change(message, bucket, subject.strip_prefix(&prefix)?)
    });
    Ok(changes.collect())
}

/// What a message says of a key of a bucket. Its number and time are the server's, who puts its headers behind those of
/// the writer, and the last of a name counts.
fn change(message: StreamMessage, bucket: &str, key: &str) -> Option<Change> {
    // Values have no such header, whoever wrote them.
    let deleted = message
        .headers
        .get("KV-Operation")
        .is_some_and(|operation| operation.as_str() != "PUT");
    match (bucket, deleted) {
        (MACHINES, false) => readable::<MachineRecord>(bucket, key, &message)
            .filter(|record| is_named(key, record.id))
            .map(|record| Change::Machine(Box::new(record), message.sequence)),
        (MACHINES, true) => Some(Change::MachineGone(key.parse().ok()?, message.sequence)),
        (OBSERVED, false) => {
            let at = u64::try_from(message.time.unix_timestamp()).ok()?;
            readable::<ObservedRecord>(bucket, key, &message)
                .filter(|record| is_named(key, record.id))
                .map(|record| Change::Observed(record, at))
        }
        (CREDENTIALS, false) => readable::<CredentialRecord>(bucket, key, &message)
            .filter(|record| key.parse::<CredentialId>() == Ok(record.id))
            .map(Change::Credential),
        (_, _) => None,
    }
}

fn is_named(key: &str, id: MachineId) -> bool {
    key.parse::<MachineId>() == Ok(id)
}

/// A record that cannot be read is not ours to judge: it may be a newer daemon's.
fn readable<T: DeserializeOwned>(bucket: &str, key: &str, message: &StreamMessage) -> Option<T> {
    serde_json::from_slice(&message.payload)
        .inspect_err(|error| tracing::warn!(bucket, key, %error, "a record cannot be read"))
        .ok()
}
