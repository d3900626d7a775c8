//! Following the store: everything that there is, and then what changes.
//!
//! Listings are read straight from a bucket's stream, and changes are what the store publishes after each write. Neither
//! takes a consumer: there is nothing on the server to be left behind or to be pointed at somebody else.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt as _;
use ployz_api::{Failure, MachineId};
use ployz_core::{Change, MachineRecord, ObservedRecord, RttRecord};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::nats::{CHANGED, NEWS, listing_subject};
use crate::store::{MACHINES, OBSERVED, RTT, unavailable};

/// Messages of one answer; at 1 KiB each they stay far below what the server keeps for a slow reader.
const BATCH: u32 = 256;
/// A store that has not gone on by then is not there.
const PATIENCE: Duration = Duration::from_secs(5);

/// News from the store.
pub(crate) struct Changes {
    listed: VecDeque<Change>,
    news: Subscriber,
}

/// All machines, each with the revision of its record.
pub(crate) type Machines = Vec<(MachineRecord, u64)>;

/// Lists all machines, and then says what changes.
pub(crate) async fn follow(client: &Client) -> Result<(Machines, Changes), Failure> {
    // First, so that nothing is missed in between.
    let news = client
        .subscribe(NEWS)
        .await
        .map_err(|error| unavailable(&error))?;
    let mut machines = Machines::new();
    for change in list(client, MACHINES, change).await? {
        match change {
            Change::Machine(record, revision) => {
                machines.retain(|(known, _)| known.id != record.id);
                machines.push((*record, revision));
            }
            Change::MachineGone(id, _) => machines.retain(|(known, _)| known.id != id),
            Change::Observed(..) => {}
        }
    }
    let listed = list(client, OBSERVED, change).await?.into();
    Ok((machines, Changes { listed, news }))
}

/// Lists what all machines have measured.
pub(crate) async fn round_trips(client: &Client) -> Result<Vec<RttRecord>, Failure> {
    list(client, RTT, |message, bucket, key| {
        readable::<RttRecord>(bucket, key, &message).filter(|record| record.id.to_string() == key)
    })
    .await
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

/// One record of a listing, with its number.
fn listed<T>(message: Message, bucket: &str, read: Read<T>) -> Option<(u64, Option<T>)> {
    let message = StreamMessage::try_from(message).ok()?;
    let (sequence, subject) = (message.sequence, message.subject.clone());
    let key = subject
        .strip_prefix("$KV.")?
        .strip_prefix(bucket)?
        .strip_prefix('.')?;
    Some((sequence, read(message, bucket, key)))
}

/// Makes something of a message under a key of a bucket, if it can be read.
type Read<T> = fn(StreamMessage, &str, &str) -> Option<T>;

/// What a bucket remembers, the oldest first.
async fn list<T>(client: &Client, bucket: &str, read: Read<T>) -> Result<Vec<T>, Failure> {
    let mut records = Vec::new();
    let mut from = 1;
    loop {
        let page = tokio::time::timeout(PATIENCE, page(client, bucket, from, read, &mut records));
        let last = page
            .await
            .map_err(|_| unavailable(&"it did not list its records"))??;
        match last {
            Some(last) => from = last + 1,
            None => return Ok(records),
        }
    }
}

/// One batch; the number of its last message if there is more.
async fn page<T>(
    client: &Client,
    bucket: &str,
    from: u64,
    read: Read<T>,
    records: &mut Vec<T>,
) -> Result<Option<u64>, Failure> {
    let failed = |error: &dyn std::fmt::Display| unavailable(error);
    let inbox = client.new_inbox();
    let mut answers = client
        .subscribe(inbox.clone())
        .await
        .map_err(|e| failed(&e))?;
    let question =
        json!({ "seq": from, "batch": BATCH, "next_by_subj": format!("$KV.{bucket}.>") });
    client
        .publish_with_reply(listing_subject(bucket), inbox, question.to_string().into())
        .await
        .map_err(|e| failed(&e))?;
    let (mut last, mut count) = (from, 0);
    loop {
        let answer = answers.next().await;
        let answer = answer.ok_or_else(|| failed(&"it hung up"))?;
        match answer.status.map(|status| status.as_u16()) {
            None => {
                count += 1;
                if let Some((sequence, record)) = listed(answer, bucket, read) {
                    last = sequence;
                    records.extend(record);
                }
            }
            Some(END_OF_BATCH) => return Ok((count >= BATCH).then_some(last)),
            Some(NOTHING) => return Ok(None),
            Some(status) => {
                let said = answer.description.unwrap_or_default();
                return Err(failed(&format!("it answered {status} {said}")));
            }
        }
    }
}

/// The server's status codes, which are those of HTTP.
const END_OF_BATCH: u16 = 204;
const NOTHING: u16 = 404;

/// What a message says of a key of a bucket. Its number and time are the server's, who puts its headers behind those of
/// the writer, and the last of a name counts.
fn change(message: StreamMessage, bucket: &str, key: &str) -> Option<Change> {
    let id: MachineId = key.parse().ok()?;
    // Values have no such header, whoever wrote them.
    let deleted = message
        .headers
        .get("KV-Operation")
        .is_some_and(|operation| operation.as_str() != "PUT");
    match (bucket, deleted) {
        (MACHINES, false) => readable::<MachineRecord>(bucket, key, &message)
            .filter(|record| record.id == id)
            .map(|record| Change::Machine(Box::new(record), message.sequence)),
        (MACHINES, true) => Some(Change::MachineGone(id, message.sequence)),
        (OBSERVED, false) => {
            let at = u64::try_from(message.time.unix_timestamp()).ok()?;
            readable::<ObservedRecord>(bucket, key, &message)
                .filter(|record| record.id == id)
                .map(|record| Change::Observed(record, at))
        }
        (_, _) => None,
    }
}

/// A record that cannot be read is not ours to judge: it may be a newer daemon's.
fn readable<T: DeserializeOwned>(bucket: &str, key: &str, message: &StreamMessage) -> Option<T> {
    serde_json::from_slice(&message.payload)
        .inspect_err(|error| tracing::warn!(bucket, key, %error, "a record cannot be read"))
        .ok()
}
