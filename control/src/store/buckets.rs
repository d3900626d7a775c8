//! What lies where in the store.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, Republish, StorageType};

use crate::nats::{CHANGED, EVENT_SUBJECTS, EVENTS};

/// What the operator wants of machines; coordinators write it.
pub(crate) const MACHINES: &str = "machines";
/// What machines say of themselves.
pub(crate) const OBSERVED: &str = "observed";
/// The round trips that machines have measured: read when somebody asks, and no news to anybody.
pub(crate) const RTT: &str = "rtt";
/// Invites, for ever.
pub(crate) const INVITES: &str = "invites";
/// Who has been certified, and who is believed no more.
pub(crate) const CREDENTIALS: &str = "credentials";
/// What workloads are called, and what each machine is to run.
pub(crate) const WORKLOADS: &str = "workloads";
/// Long work, for a month.
pub(crate) const OPERATIONS: &str = "operations";
/// Who has which subnet.
pub(crate) const LEASES: &str = "leases";

/// What every machine hears of.
const FOLLOWED: [&str; 3] = [MACHINES, OBSERVED, CREDENTIALS];

/// What each record remembers of its past.
const HISTORY: i64 = 8;
/// A record is about a kilobyte, but for the round trips to 200 machines: those have up to 66 KiB.
const RECORD_LEN_MAX: i32 = 128 * 1024;
/// At a hundred joins a day, of 1 KiB each, 3 MiB and what they remember.
const OPERATION_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);

/// At some 300 bytes, 3 MiB.
const EVENTS_MAX: i64 = 10_000;
const BYTES_MAX: i64 = 8 << 20;
/// Every stream that there is, on so many servers.
pub(super) fn streams(replicas: usize) -> impl Iterator<Item = Config> {
    configs(replicas).into_iter().chain([events(replicas)])
}

/// All of them, as the stock tools make them but for what a single writer could do to all keys with a header (roll-up),
/// and with news of every write.
fn configs(replicas: usize) -> [Config; 8] {
    [
        (MACHINES, StorageType::File),
        (OBSERVED, StorageType::Memory),
        (RTT, StorageType::Memory),
        (INVITES, StorageType::File),
        (LEASES, StorageType::File),
        (CREDENTIALS, StorageType::File),
        (OPERATIONS, StorageType::File),
        (WORKLOADS, StorageType::File),
    ]
    .map(|(bucket, storage)| config(bucket, storage, replicas))
}

/// What the stock tools call the stream of a bucket.
pub(crate) fn stream_name(bucket: &str) -> String {
    format!("KV_{bucket}")
}

fn config(bucket: &str, storage: StorageType, replicas: usize) -> Config {
    let history = if storage == StorageType::File {
        HISTORY
    } else {
        1
    };
    Config {
        name: stream_name(bucket),
        subjects: vec![format!("$KV.{bucket}.>")],
        max_messages_per_subject: history,
        max_message_size: RECORD_LEN_MAX,
        storage,
        discard: DiscardPolicy::New,
        allow_direct: true,
        deny_delete: true,
        max_age: if bucket == OPERATIONS {
            OPERATION_AGE_MAX
        } else {
            Duration::ZERO
        },
        republish: FOLLOWED.contains(&bucket).then(|| Republish {
            source: format!("$KV.{bucket}.>"),
            destination: format!("{CHANGED}.{bucket}.>"),
            headers_only: false,
        }),
        num_replicas: replicas,
        ..Config::default()
    }
}

/// The stream, and that the store says each event as soon as it has it.
fn events(replicas: usize) -> Config {
    Config {
        name: EVENTS.to_owned(),
        subjects: vec![EVENT_SUBJECTS.to_owned()],
        max_messages: EVENTS_MAX,
        max_bytes: BYTES_MAX,
        max_message_size: 16 << 10,
        discard: DiscardPolicy::Old,
        allow_direct: true,
        deny_delete: true,
        republish: Some(Republish {
            source: ">".to_owned(),
            destination: "ployz.>".to_owned(),
            headers_only: false,
        }),
        num_replicas: replicas,
        ..Config::default()
    }
}
