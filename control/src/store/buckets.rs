//! The buckets and streams of the store.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, Republish, StorageType};

use crate::nats::{CHANGED, EVENT_SUBJECTS, EVENTS};

/// Records of machines as they should be; coordinators write them.
pub(crate) const MACHINES: &str = "machines";
/// Records of machines as they are; each machine writes its own.
pub(crate) const OBSERVED: &str = "observed";
/// Round trips that machines have measured: read on request, and not followed.
pub(crate) const RTT: &str = "rtt";
/// Invites, which are never deleted.
pub(crate) const INVITES: &str = "invites";
/// Certificates that were issued, and those that were revoked.
pub(crate) const CREDENTIALS: &str = "credentials";
/// Names of workloads, and the instances that each machine is to run.
pub(crate) const WORKLOADS: &str = "workloads";
/// Operations, for a month.
pub(crate) const OPERATIONS: &str = "operations";
/// Holders of names and subnets.
pub(crate) const LEASES: &str = "leases";

/// The buckets that every machine follows.
const FOLLOWED: [&str; 3] = [MACHINES, OBSERVED, CREDENTIALS];

/// Revisions that are kept of each record.
const HISTORY: i64 = 8;
/// A record is about a kilobyte, but for the round trips to 200 machines: those have up to 66 KiB.
const RECORD_LEN_MAX: i32 = 128 * 1024;
/// At a hundred joins a day, of 1 KiB each, 3 MiB and their history.
const OPERATION_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Events of one machine. They have some 300 bytes each, and a machine that holds the store writes nearly all of them.
const WRITER_EVENTS_MAX: i64 = 4_000;
/// An event with the longest texts has 1 KiB; a former version may have written longer ones.
const EVENT_LEN_MAX: i32 = 2 << 10;
/// Bytes of all events: those of 50 machines that have their share of usual ones, or of eight that make theirs as long
/// as they can. One machine takes no more than an eighth of it.
const EVENT_BYTES_MAX: i64 = 64 << 20;
const _: () = assert!(8 * WRITER_EVENTS_MAX * EVENT_LEN_MAX as i64 <= EVENT_BYTES_MAX);

/// Every stream, with this number of replicas.
pub(super) fn streams(replicas: usize) -> impl Iterator<Item = Config> {
    configs(replicas).into_iter().chain([events(replicas)])
}

/// Gives a stream the bounds that it has in this version; false if it has them already. All else stays as it is.
pub(super) fn rebound(present: &mut Config, wanted: &Config) -> bool {
    let bounds = |it: &Config| {
        let messages = (it.max_messages, it.max_messages_per_subject);
        (messages, it.max_bytes, it.max_message_size)
    };
    if bounds(present) == bounds(wanted) {
        return false;
    }
    present.max_messages = wanted.max_messages;
    present.max_messages_per_subject = wanted.max_messages_per_subject;
    present.max_bytes = wanted.max_bytes;
    present.max_message_size = wanted.max_message_size;
    true
}

/// The buckets, as the stock tools create them, but without roll-up, by which a single writer could delete all keys,
/// and with republication of every write.
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

/// The stream of a bucket, as the stock tools name it.
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

/// The stream of events, each of which is republished. What a machine writes too much is at the expense of its own.
fn events(replicas: usize) -> Config {
    Config {
        name: EVENTS.to_owned(),
        subjects: vec![EVENT_SUBJECTS.to_owned()],
        max_messages: -1,
        max_messages_per_subject: WRITER_EVENTS_MAX,
        max_bytes: EVENT_BYTES_MAX,
        max_message_size: EVENT_LEN_MAX,
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
