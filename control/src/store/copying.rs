//! The copy of a store to the next one: writes are refused, and then every stream is copied with the numbers and times
//! of its messages. Records are compared by these, and removed machines remembered.

use std::time::Duration;

use async_nats::Subscriber;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Config, Info, StorageType};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::store::buckets::streams;
use crate::store::client::{PATIENCE, Store};
use crate::store::error::StoreError;
use crate::store::stream;

/// Bytes that the server sends before it waits for an acknowledgement.
const CHUNK_LEN: u32 = 128 * 1024;
/// The first election of a cluster takes some seconds.
const READY_WAIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
/// The subject of frozen streams, which has no writer.
const FROZEN: &str = "ployz.frozen";

impl Store {
    /// Refuses every write from now on with "no responders". Reads continue.
    pub(crate) async fn freeze(&self) -> Result<(), StoreError> {
        for config in kept() {
            let frozen = format!("{FROZEN}.{}", config.name);
            self.reconfigure(&config.name, |now| {
                now.subjects = vec![frozen.clone()];
                // The source of a republication has to be among the subjects.
                now.republish = None;
            })
            .await?;
        }
        Ok(())
    }

    /// Accepts writes again.
    pub(crate) async fn thaw(&self) -> Result<(), StoreError> {
        for config in kept() {
            self.reconfigure(&config.name, |now| {
                now.subjects.clone_from(&config.subjects);
                now.republish.clone_from(&config.republish);
            })
            .await?;
        }
        Ok(())
    }

    async fn reconfigure(
        &self,
        stream: &str,
        edit: impl Fn(&mut Config),
    ) -> Result<(), StoreError> {
        patiently(async || self.reconfigure_once(stream, &edit).await).await
    }

    async fn reconfigure_once(
        &self,
        stream: &str,
        edit: &impl Fn(&mut Config),
    ) -> Result<(), StoreError> {
        let mut config = self.info(stream).await?.config;
        edit(&mut config);
        let changing = async || self.jetstream.update_stream(config.clone()).await;
        self.within(changing).await.map(drop)
    }

    async fn info(&self, stream: &str) -> Result<Info, StoreError> {
        self.reachable()?;
        let asking = async || self.jetstream.get_stream(stream).await;
        Ok(self.within(asking).await?.cached_info().clone())
    }

    /// The state of each stream.
    pub(crate) async fn stream_infos(&self) -> Result<Vec<Info>, StoreError> {
        let mut infos = Vec::new();
        for config in streams(1) {
            infos.push(self.info(&config.name).await?);
        }
        Ok(infos)
    }

    /// Waits until a store that was just started accepts streams with this number of replicas, and creates those that
    /// are kept in memory: machines write their content anew.
    pub(crate) async fn begin_copy(&self, replicas: usize) -> Result<(), StoreError> {
        self.wait_connected(READY_WAIT).await?;
        for config in streams(replicas).filter(|it| it.storage == StorageType::Memory) {
            patiently(async || self.make(config.clone()).await.map(drop)).await?;
        }
        Ok(())
    }

    /// Copies every stream on disk to a store that has none of them. The store must be frozen.
    pub(crate) async fn copy_to(&self, next: &Self, replicas: usize) -> Result<(), StoreError> {
        for mut config in kept() {
            config.num_replicas = replicas;
            self.copy_stream(next, &config).await?;
        }
        next.wait_complete(replicas).await
    }

    async fn copy_stream(&self, next: &Self, config: &Config) -> Result<(), StoreError> {
        let from = self.client()?;
        let inbox = from.new_inbox();
        let subscribing = from.subscribe(inbox.clone()).await;
        let mut chunks = subscribing.map_err(StoreError::unavailable)?;
        let name = &config.name;
        let question =
            json!({ "deliver_subject": inbox, "no_consumers": true, "chunk_size": CHUNK_LEN });
        let snapshot = self
            .call(format!("STREAM.SNAPSHOT.{name}"), &question)
            .await?;
        let question = json!({ "config": config, "state": snapshot["state"] });
        let restore = next
            .call(format!("STREAM.RESTORE.{name}"), &question)
            .await?;
        let into = restore["deliver_subject"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        loop {
            let chunk = next_chunk(&mut chunks).await?;
            let is_last = chunk.payload.is_empty();
            let answer = next.hand_over(&into, chunk.payload).await?;
            if is_last {
                let answer: Value =
                    serde_json::from_slice(&answer).map_err(StoreError::unavailable)?;
                return refusal(&answer).map_or(Ok(()), Err);
            }
            if let Some(reply) = chunk.reply {
                let saying = from.publish(reply, Bytes::new()).await;
                saying.map_err(StoreError::unavailable)?;
            }
        }
    }

    async fn hand_over(&self, into: &str, chunk: Bytes) -> Result<Bytes, StoreError> {
        let client = self.client()?;
        let handing = async || client.request(into.to_owned(), chunk.clone()).await;
        Ok(self.within(handing).await?.payload)
    }

    /// Calls an API of JetStream that the client does not implement.
    async fn call(&self, subject: String, question: &Value) -> Result<Value, StoreError> {
        self.reachable()?;
        let asking = async || self.jetstream.request(subject.clone(), question).await;
        let answer: Value = self.within(asking).await?;
        refusal(&answer).map_or(Ok(answer), Err)
    }

    /// Waits until every server of the store has all messages.
    async fn wait_complete(&self, replicas: usize) -> Result<(), StoreError> {
        let deadline = Instant::now() + READY_WAIT;
        while !self
            .stream_infos()
            .await?
            .iter()
            .all(|info| is_complete(info, replicas))
        {
            if Instant::now() > deadline {
                return Err(StoreError::unavailable("its servers do not catch up"));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Compares this store with one server of the next one, message by message, and returns their number. A server that
    /// does not have all of them yet is waited for.
    pub(crate) async fn compare(&self, next: &Self) -> Result<usize, StoreError> {
        next.wait_connected(READY_WAIT).await?;
        patiently(async || self.compare_once(next).await).await
    }

    async fn compare_once(&self, next: &Self) -> Result<usize, StoreError> {
        let mut count = 0;
        for config in kept() {
            let (ours, theirs) = (
                self.messages(&config.name).await?,
                next.messages(&config.name).await?,
            );
            let differs = ours.len() != theirs.len() || !ours.iter().zip(&theirs).all(is_same);
            if differs {
                return Err(StoreError::CopyDiffers(config.name));
            }
            count += ours.len();
        }
        Ok(count)
    }

    async fn messages(&self, stream: &str) -> Result<Vec<StreamMessage>, StoreError> {
        stream::list(self.client()?, stream, ">", 1).await
    }
}

/// Repeats an attempt until it succeeds: a stream that has lost its leader has a new one within seconds.
async fn patiently<T>(attempt: impl AsyncFn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let deadline = Instant::now() + READY_WAIT;
    loop {
        match attempt().await {
            Err(_) if Instant::now() < deadline => sleep(POLL).await,
            outcome => return outcome,
        }
    }
}

/// The streams on disk.
fn kept() -> impl Iterator<Item = Config> {
    streams(1).filter(|config| config.storage == StorageType::File)
}

async fn next_chunk(chunks: &mut Subscriber) -> Result<async_nats::Message, StoreError> {
    let chunk = timeout(PATIENCE, chunks.next()).await;
    let chunk = chunk.map_err(|_| StoreError::unavailable("it did not continue its copy"))?;
    let chunk = chunk.ok_or_else(|| StoreError::unavailable("it closed the connection"))?;
    // The end has no content either, and may be premature.
    match chunk.status.filter(|status| status.as_u16() >= 400) {
        Some(status) => Err(StoreError::unavailable(format!(
            "it ended its copy with {status}"
        ))),
        None => Ok(chunk),
    }
}

fn refusal(answer: &Value) -> Option<StoreError> {
    let said = answer.get("error")?;
    Some(StoreError::unavailable(
        said["description"]
            .as_str()
            .unwrap_or("it refused the request"),
    ))
}

fn is_complete(info: &Info, replicas: usize) -> bool {
    if replicas == 1 {
        return true;
    }
    info.cluster.as_ref().is_some_and(|cluster| {
        let complete = cluster
            .replicas
            .iter()
            .filter(|it| it.current && it.lag.unwrap_or(0) == 0);
        cluster.leader.is_some() && complete.count() == replicas - 1
    })
}

fn is_same((ours, theirs): (&StreamMessage, &StreamMessage)) -> bool {
    let operation = |it: &StreamMessage| it.headers.get("KV-Operation").map(ToString::to_string);
    ours.sequence == theirs.sequence
        && ours.subject == theirs.subject
        && ours.time == theirs.time
        && ours.payload == theirs.payload
        && operation(ours) == operation(theirs)
}

#[cfg(test)]
mod contract;
