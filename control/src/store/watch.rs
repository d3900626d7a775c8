//! The watch on the store: a listing of all records, and then each change.
//!
//! Changes are the store's publications after each write, so a watch needs no consumer.

use std::collections::VecDeque;

use async_nats::jetstream::message::StreamMessage;
use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt as _;
use ployz_api::{CredentialId, MachineId, text};
use ployz_core::{Change, CredentialRecord, MachineRecord, ObservedRecord};
use serde::de::DeserializeOwned;

use crate::nats::{CHANGED, NEWS};
use crate::store::buckets::{CREDENTIALS, MACHINES, OBSERVED, stream_name};
use crate::store::error::StoreError;
use crate::store::stream;

/// What is logged of an error.
const ERROR_LEN_MAX: usize = 256;

/// Changes in the store since a listing.
pub(crate) struct Changes {
    listed: VecDeque<Change>,
    news: Subscriber,
}

/// All machines, each with the revision of its record.
pub(crate) type Machines = Vec<(MachineRecord, u64)>;

/// Lists all machines, and follows their changes.
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
    /// The next change; `None` when the connection has ended, after which the watch has to begin anew.
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

/// The publication of a change. A machine can direct an answer to the subject of publications, but cannot choose its
/// headers: so subject and headers have to agree.
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

/// The messages of a bucket as changes, the oldest first.
async fn list(client: &Client, bucket: &str) -> Result<Vec<Change>, StoreError> {
    let prefix = format!("$KV.{bucket}.");
    let messages = stream::list(client, &stream_name(bucket), &format!("{prefix}>"), 1).await?;
    let changes = messages.into_iter().filter_map(|message| {
        let subject = message.subject.clone();
        change(message, bucket, subject.strip_prefix(&prefix)?)
    });
    Ok(changes.collect())
}

/// The change of a key that a message describes. Its number and time are the server's, whose headers follow the
/// writer's: the last header of a name counts.
fn change(message: StreamMessage, bucket: &str, key: &str) -> Option<Change> {
    // Values have no such header.
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

/// Parses a record; one that cannot be read is skipped, as it may be a newer daemon's.
fn readable<T: DeserializeOwned>(bucket: &str, key: &str, message: &StreamMessage) -> Option<T> {
    serde_json::from_slice(&message.payload)
        .inspect_err(|error| {
            // It quotes what it cannot read, and that is another machine's.
            let error = text::bounded(&error.to_string(), ERROR_LEN_MAX);
            tracing::warn!(bucket, ?key, error, "cannot read a record");
        })
        .ok()
}
