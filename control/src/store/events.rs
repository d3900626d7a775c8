//! The stream of events: operators read there what was done. Each machine has a share of it, of which the oldest event
//! is dropped first.

use std::collections::VecDeque;

use async_nats::jetstream::message::StreamMessage;
use async_nats::{Message, Subscriber};
use futures_util::StreamExt as _;
use ployz_api::{Event, MachineId};

use crate::nats::{EVENT_NEWS, EVENT_SUBJECTS, EVENTS};
use crate::store::client::Store;
use crate::store::error::StoreError;
use crate::store::stream;

/// The subject of a machine's events.
fn subject(machine: MachineId) -> String {
    format!("{EVENTS}.{machine}")
}

impl Store {
    /// Writes an event of this machine.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub(crate) async fn publish_event(&self, event: &Event) -> Result<(), StoreError> {
        self.publish(&subject(event.machine), event).await
    }
}

/// A follower's position in the stream.
#[derive(Debug)]
pub(crate) struct Following {
    store: Store,
    news: Subscriber,
    /// The subjects of the events: one machine's, or all.
    subjects: String,
    /// The number of the last event that was considered.
    seen: u64,
    /// Events that were missed and have been read since, the oldest first.
    caught_up: VecDeque<Event>,
}

impl Following {
    /// The last `limit` events of one machine or of all, and a follower of later ones.
    pub(crate) async fn begin(
        store: &Store,
        writer: Option<MachineId>,
        limit: u32,
    ) -> Result<(Vec<Event>, Self), StoreError> {
        let subjects = writer.map_or_else(|| EVENT_SUBJECTS.to_owned(), subject);
        let client = store.client()?;
        // First, so that nothing is missed in between.
        let subscribing = client.subscribe(EVENT_NEWS).await;
        let news = subscribing.map_err(StoreError::unavailable)?;
        let last = stream::last(client, EVENTS, EVENT_SUBJECTS).await?;
        let from = stream::last_ones(client, EVENTS, &subjects, last, limit.into()).await?;
        let mut following = Self {
            store: store.clone(),
            news,
            subjects,
            seen: from - 1,
            caught_up: VecDeque::new(),
        };
        let events = following.read_on().await?;
        following.seen = following.seen.max(last);
        Ok((events, following))
    }

    pub(crate) async fn next(&mut self) -> Result<Event, StoreError> {
        loop {
            if let Some(event) = self.caught_up.pop_front() {
                return Ok(event);
            }
            let message = self.news.next().await;
            let message =
                message.ok_or_else(|| StoreError::unavailable("it closed the connection"))?;
            let Some(message) = published(message).filter(|message| message.sequence > self.seen)
            else {
                continue;
            };
            if message.sequence > self.seen + 1 {
                // Publications to a client that was not connected are lost.
                self.caught_up = self.read_on().await?.into();
                self.seen = self.seen.max(message.sequence);
                continue;
            }
            self.seen = message.sequence;
            if let Some(event) = event(&message).filter(|_| self.is_wanted(&message)) {
                return Ok(event);
            }
        }
    }

    fn is_wanted(&self, message: &StreamMessage) -> bool {
        self.subjects == EVENT_SUBJECTS || self.subjects == message.subject.as_str()
    }

    /// Reads the events since.
    async fn read_on(&mut self) -> Result<Vec<Event>, StoreError> {
        let from = self.seen + 1;
        let messages = stream::list(self.store.client()?, EVENTS, &self.subjects, from).await?;
        if let Some(last) = messages.last() {
            self.seen = last.sequence;
        }
        Ok(messages.iter().filter_map(event).collect())
    }
}

/// The publication of an event. A machine can direct an answer to the subject of publications, but cannot choose its
/// headers: so subject and headers have to agree.
fn published(message: Message) -> Option<StreamMessage> {
    let subject = message.subject.clone();
    let message = StreamMessage::try_from(message).ok()?;
    (subject.strip_prefix("ployz.")? == message.subject.as_str()).then_some(message)
}

/// The event in a message; none if this version cannot read it, or if it is in another machine's name.
fn event(message: &StreamMessage) -> Option<Event> {
    let event: Event = serde_json::from_slice(&message.payload).ok()?;
    (subject(event.machine) == message.subject.as_str()).then_some(event)
}
