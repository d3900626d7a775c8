//! The stream of events, as a follower reads it.

use async_nats::HeaderMap;
use async_nats::jetstream::stream::Config;
use ployz_api::{Code, Event, MachineId, Operation, Role};
use serde_json::json;

use crate::nats::{EVENT_SUBJECTS, EVENTS};
use crate::store::{Following, Store};
use crate::testkit::{Ground, PATIENCE, run, wait_until};

const MACHINE: MachineId = MachineId::new(1, 1);
const OTHER: MachineId = MachineId::new(1, 2);
/// More than the store lists in one answer.
const MANY: u64 = 300;

/// The event of this number.
fn event(number: u64) -> Event {
    Event {
        at: number,
        machine: MACHINE,
        subject: "root".to_owned(),
        role: Role::Admin,
        operation: Operation::MachineRemove,
        target: "m2".to_owned(),
        code: Code::Ok,
        message: String::new(),
    }
}

async fn publish(store: &Store, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        store.publish_event(&event(number)).await.unwrap();
    }
}

async fn begin(store: &Store, limit: u32) -> (Vec<u64>, Following) {
    let (events, following) = Following::begin(store, None, limit).await.unwrap();
    (events.iter().map(|it| it.at).collect(), following)
}

async fn next(following: &mut Following) -> u64 {
    let next = tokio::time::timeout(PATIENCE, following.next());
    next.await.expect("there is an event").unwrap().at
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_follower_has_the_last_ones_and_then_each_later_one() {
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        let (none, mut first) = begin(&store, 3).await;
        assert!(none.is_empty());
        publish(&store, 1..=5).await;
        let (last, mut second) = begin(&store, 3).await;
        assert_eq!(last, [3, 4, 5]);
        assert_eq!(begin(&store, 0).await.0, [0_u64; 0]);
        assert_eq!(begin(&store, 5).await.0, [1, 2, 3, 4, 5]);
        assert_eq!(begin(&store, u32::MAX).await.0, [1, 2, 3, 4, 5]);
        publish(&store, 6..=7).await;
        for expected in 1..=7 {
            assert_eq!(next(&mut first).await, expected);
        }
        for expected in 6..=7 {
            assert_eq!(next(&mut second).await, expected);
        }
        assert_eq!(begin(&store, 1).await.0, [7]);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_listing_of_more_than_one_answer_is_whole_and_in_order() {
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        publish(&store, 1..=MANY).await;
        let (all, mut following) = begin(&store, u32::MAX).await;
        assert_eq!(all, (1..=MANY).collect::<Vec<_>>());
        // Exactly as many as one answer holds.
        assert_eq!(begin(&store, 256).await.0.len(), 256);
        publish(&store, [MANY + 1]).await;
        assert_eq!(next(&mut following).await, MANY + 1);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn what_cannot_be_read_or_is_in_anothers_name_is_passed_over() {
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        let malformed = async || {
            let subject = format!("events.{MACHINE}");
            store.publish(&subject, &json!("no event")).await.unwrap();
            store.publish(&subject, &json!({ "at": 9 })).await.unwrap();
            let another = format!("events.{OTHER}");
            store.publish(&another, &event(99)).await.unwrap();
        };
        let (_, mut following) = begin(&store, 0).await;
        malformed().await;
        publish(&store, [1]).await;
        malformed().await;
        publish(&store, [2]).await;
        assert_eq!(next(&mut following).await, 1);
        assert_eq!(next(&mut following).await, 2);
        // Three that cannot be read, and one that can.
        assert_eq!(begin(&store, 4).await.0, [2]);
        assert_eq!(begin(&store, u32::MAX).await.0, [1, 2]);
        malformed().await;
        let (last, mut later) = begin(&store, 3).await;
        assert!(last.is_empty());
        publish(&store, [3]).await;
        assert_eq!(next(&mut later).await, 3);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_publication_that_is_not_the_streams_is_no_event() {
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        let (_, mut following) = begin(&store, 0).await;
        let client = store.client().unwrap();
        let news = format!("ployz.events.{MACHINE}");
        let forged = serde_json::to_vec(&event(99)).unwrap();
        client
            .publish(news.clone(), forged.clone().into())
            .await
            .unwrap();
        // The headers of an answer about something else.
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Stream", "events");
        headers.insert("Nats-Subject", format!("events.{OTHER}"));
        headers.insert("Nats-Sequence", "1");
        headers.insert("Nats-Time-Stamp", "2026-01-01T00:00:00Z");
        let publishing = client.publish_with_headers(news, headers, forged.into());
        publishing.await.unwrap();
        client.flush().await.unwrap();
        publish(&store, [1]).await;
        assert_eq!(next(&mut following).await, 1);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn what_was_missed_while_the_server_was_away_is_read_on_in_order() {
    run(async {
        let ground = Ground::under_test().await;
        let publisher = ground.store(&ground.holder).await;
        let follower = ground.store(&ground.holder).await;
        publish(&publisher, [1]).await;
        let (last, mut following) = begin(&follower, 5).await;
        assert_eq!(last, [1]);
        publish(&publisher, [2]).await;
        ground.cut_power(&follower).await;
        let away = || !publisher.is_connected();
        wait_until("the publisher to notice", PATIENCE, away).await;
        ground.restore_power(&publisher).await;
        // Whether it is back by then or not, it misses none of these.
        publish(&publisher, 3..=5).await;
        follower.wait_connected(PATIENCE).await.unwrap();
        // With an answer on the new connection, its subscription is there as well.
        follower.unix_secs().await.unwrap();
        publish(&publisher, [6]).await;
        for expected in 2..=6 {
            assert_eq!(next(&mut following).await, expected);
        }
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn nothing_is_followed_while_there_is_no_connection() {
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        ground.cut_power(&store).await;
        assert!(Following::begin(&store, None, 1).await.is_err());
        assert!(store.publish_event(&event(1)).await.is_err());
        ground.restore_power(&store).await;
        assert!(
            begin(&store, 1).await.0.is_empty(),
            "what failed did not happen"
        );
    });
}

/// The server refuses what it cannot store in time: so many of a flood are under way.
const UNDER_WAY: u64 = 500;

/// The events of a machine that has turned, as many as it likes.
async fn flood(store: &Store, count: u64) {
    let client = store.client().unwrap();
    let of_other = Event {
        machine: OTHER,
        ..event(0)
    };
    let payload = bytes::Bytes::from(serde_json::to_vec(&of_other).unwrap());
    for number in 1..=count {
        let subject = format!("events.{OTHER}");
        if number % UNDER_WAY == 0 || number == count {
            let last = async_nats::Request::new().payload(payload.clone());
            let last = last.timeout(Some(PATIENCE));
            client.send_request(subject, last).await.unwrap();
        } else {
            client.publish(subject, payload.clone()).await.unwrap();
        }
    }
}

async fn count(store: &Store) -> u64 {
    let infos = store.stream_infos().await.unwrap();
    let events = infos.into_iter().find(|it| it.config.name == EVENTS);
    events.unwrap().state.messages
}

/// A machine drops its own events with what it writes, and nobody else's. Its own stay readable on their own.
#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_machine_that_writes_without_end_has_its_share_and_others_have_theirs() {
    run(async {
        let ground = Ground::under_test().await;
        let store = ground.store(&ground.holder).await;
        publish(&store, 1..=5).await;
        flood(&store, 4_100).await;
        publish(&store, 6..=7).await;
        assert_eq!(count(&store).await, 4_000 + 7);
        let of = async |writer, limit| {
            let begun = Following::begin(&store, writer, limit).await;
            let (events, following) = begun.unwrap();
            let numbers = events.iter().map(|it| it.at).collect::<Vec<_>>();
            (numbers, following)
        };
        // The oldest are far behind the last ones, by number and not by count.
        assert_eq!(of(None, 4_004).await.0[..2], [4, 5]);
        assert_eq!(of(None, 3).await.0, [0, 6, 7]);
        for (limit, expected) in [(3, vec![5, 6, 7]), (100, (1..=7).collect()), (0, vec![])] {
            assert_eq!(of(Some(MACHINE), limit).await.0, expected);
        }
        assert_eq!(of(Some(OTHER), u32::MAX).await.0.len(), 4_000);
        assert!(of(Some(MachineId::new(9, 9)), 5).await.0.is_empty());
        let (_, mut following) = of(Some(MACHINE), 0).await;
        flood(&store, 10).await;
        publish(&store, [8]).await;
        assert_eq!(next(&mut following).await, 8);
    });
}

/// The stream as a version before had made it, with events in it.
#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn the_stream_of_a_former_version_gets_shares_where_it_is() {
    run(async {
        let ground = Ground::bare(&crate::testkit::program_under_test()).await;
        let store = ground.store(&ground.holder).await;
        let former = Config {
            name: EVENTS.to_owned(),
            subjects: vec![EVENT_SUBJECTS.to_owned()],
            max_messages: 10_000,
            max_bytes: 8 << 20,
            max_message_size: 16 << 10,
            allow_direct: true,
            deny_delete: true,
            num_replicas: 1,
            ..Config::default()
        };
        store.make(former.clone()).await.unwrap();
        publish(&store, 1..=5).await;
        flood(&store, 4_100).await;
        store.make_buckets(1).await.unwrap();
        assert_eq!(count(&store).await, 4_000 + 5);
        // What is not a bound is as it was: a frozen stream stays frozen.
        let infos = store.stream_infos().await.unwrap();
        let events = infos.into_iter().find(|it| it.config.name == EVENTS);
        let config = events.unwrap().config;
        assert_eq!(
            (config.republish, config.subjects),
            (None, former.subjects.clone())
        );
        // A former version finds its stream, and leaves it as it is.
        store.make(former).await.unwrap();
        assert_eq!(begin(&store, 3).await.0.len(), 3);
    });
}
