//! Reads of a stream's messages without a consumer: nothing is left on the server, and nothing there can be directed at
//! another client.

use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};

use crate::nats::listing_subject;
use crate::store::error::StoreError;
use crate::store::retry::AGAIN_WAIT;

/// Messages of one answer; at 1 KiB each they stay far below what the server keeps for a slow reader.
const BATCH: u32 = 256;
/// A store that has not continued by then is unavailable.
const PATIENCE: Duration = Duration::from_secs(5);
/// The server's status codes, which are those of HTTP.
const END_OF_BATCH: u16 = 204;
const NOTHING: u16 = 404;
const NO_RESPONDERS: u16 = 503;

/// The end of a batch.
enum End {
    /// There are more messages.
    More,
    /// There are no more messages.
    Last,
    /// No server has taken the request.
    NoResponders,
}

/// The messages of a stream whose subjects match, the oldest first, from a number on.
pub(crate) async fn list(
    client: &Client,
    stream: &str,
    subjects: &str,
    mut from: u64,
) -> Result<Vec<StreamMessage>, StoreError> {
    let mut messages: Vec<StreamMessage> = Vec::new();
    let mut deadline = Instant::now() + PATIENCE;
    loop {
        let question = json!({ "seq": from, "batch": BATCH, "next_by_subj": subjects });
        let page = page(client, stream, &question, &mut messages);
        let end = timeout_at(deadline, page)
            .await
            .map_err(|_| StoreError::unavailable("it did not list its records"))??;
        match end {
            End::Last => return Ok(messages),
            End::More => {
                from = messages.last().map_or(from, |message| message.sequence) + 1;
                deadline = Instant::now() + PATIENCE;
            }
            End::NoResponders if Instant::now() + AGAIN_WAIT < deadline => sleep(AGAIN_WAIT).await,
            End::NoResponders => return Err(StoreError::unavailable("it has no such records")),
        }
    }
}

/// The number of a stream's last message; 0 if there is none.
pub(crate) async fn last(client: &Client, stream: &str, subjects: &str) -> Result<u64, StoreError> {
    let question = json!({ "last_by_subj": subjects });
    let asking = async {
        let answer = ask(client, stream, &question).await?.next().await;
        let answer = answer.ok_or_else(|| StoreError::unavailable("it closed the connection"))?;
        match status(&answer) {
            None => Ok(stored(answer)?.sequence),
            Some(NOTHING) => Ok(0),
            Some(status) => Err(refused(status, &answer)),
        }
    };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .map_err(|_| StoreError::unavailable("it did not return its last message"))?
}

/// The number from which on a stream has so many messages whose subjects match, or all that there are. Between the
/// numbers of messages may be those of others and of messages that were dropped, so it is searched for.
pub(crate) async fn last_ones(
    client: &Client,
    stream: &str,
    subjects: &str,
    last: u64,
    count: u64,
) -> Result<u64, StoreError> {
    if count == 0 || last == 0 {
        return Ok(last + 1);
    }
    // From `few` on there are fewer than wanted; `many` goes back until there are as many.
    let (mut many, mut few) = ((last + 1).saturating_sub(count).max(1), last + 1);
    let mut step = count;
    loop {
        let there = remaining(client, stream, subjects, many).await?;
        if there == count || (there < count && many == 1) {
            return Ok(many);
        }
        if there > count {
            break;
        }
        few = many;
        many = many.saturating_sub(step).max(1);
        step = step.saturating_mul(2);
    }
    while many + 1 < few {
        let middle = many + (few - many) / 2;
        if remaining(client, stream, subjects, middle).await? < count {
            few = middle;
        } else {
            many = middle;
        }
    }
    Ok(many)
}

/// The number of messages from a number on.
async fn remaining(
    client: &Client,
    stream: &str,
    subjects: &str,
    from: u64,
) -> Result<u64, StoreError> {
    let question = json!({ "seq": from, "batch": 1, "next_by_subj": subjects });
    let uncounted = || StoreError::unavailable("it did not count its messages");
    let asking = async {
        let answer = ask(client, stream, &question).await?.next().await;
        let answer = answer.ok_or_else(|| StoreError::unavailable("it closed the connection"))?;
        match status(&answer) {
            None => {
                let headers = answer.headers.as_ref();
                let behind = headers.and_then(|it| it.get("Nats-Num-Pending"));
                let behind = behind.and_then(|count| count.as_str().parse::<u64>().ok());
                // Those behind the first, and itself.
                behind
                    .map(|count| count.saturating_add(1))
                    .ok_or_else(uncounted)
            }
            Some(NOTHING) => Ok(0),
            Some(status) => Err(refused(status, &answer)),
        }
    };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .map_err(|_| uncounted())?
}

/// Reads one batch.
async fn page(
    client: &Client,
    stream: &str,
    question: &Value,
    messages: &mut Vec<StreamMessage>,
) -> Result<End, StoreError> {
    let mut answers = ask(client, stream, question).await?;
    let mut count = 0;
    loop {
        let answer = answers.next().await;
        let answer = answer.ok_or_else(|| StoreError::unavailable("it closed the connection"))?;
        match status(&answer) {
            None => {
                count += 1;
                messages.push(stored(answer)?);
            }
            Some(END_OF_BATCH) if count >= BATCH => return Ok(End::More),
            Some(END_OF_BATCH | NOTHING) => return Ok(End::Last),
            Some(NO_RESPONDERS) => return Ok(End::NoResponders),
            Some(status) => return Err(refused(status, &answer)),
        }
    }
}

async fn ask(client: &Client, stream: &str, question: &Value) -> Result<Subscriber, StoreError> {
    let inbox = client.new_inbox();
    let subscribing = client.subscribe(inbox.clone());
    let answers = subscribing.await.map_err(StoreError::unavailable)?;
    let question = question.to_string().into();
    let asking = client.publish_with_reply(listing_subject(stream), inbox, question);
    asking.await.map_err(StoreError::unavailable)?;
    Ok(answers)
}

fn status(answer: &Message) -> Option<u16> {
    answer.status.map(|status| status.as_u16())
}

fn stored(answer: Message) -> Result<StreamMessage, StoreError> {
    StreamMessage::try_from(answer).map_err(StoreError::unavailable)
}

fn refused(status: u16, answer: &Message) -> StoreError {
    let said = answer.description.as_deref().unwrap_or_default();
    StoreError::unavailable(format!("it answered {status} {said}"))
}
