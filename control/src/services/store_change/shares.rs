//! Who holds the store, and how much of it, as its servers say.

use std::collections::BTreeMap;

use async_nats::jetstream::stream::Info;
use ployz_api::{Authority, Failure, MachineId, StorageList, StorageRow};

use crate::machine::Machine;
use crate::store::{MACHINES, stream_name};

/// What there is of the store on one machine.
#[derive(Debug, Default)]
struct Share {
    leader: bool,
    behind: bool,
    lag: u64,
    disk: u64,
    streams: u32,
}

/// Asks the store, on a machine that holds it.
pub(crate) async fn storage_list(here: &Machine) -> Result<StorageList, Failure> {
    let network = here.running_network()?;
    network.require_storage()?;
    let infos = network.store.stream_infos().await?;
    let shares = shares(network.own(), &infos);
    let view = network.view();
    let mut rows: Vec<StorageRow> = view
        .machines()
        .map(|machine| {
            let holds = machine.authority == Authority::Storage;
            let share = shares.get(&machine.id).filter(|_| holds);
            StorageRow {
                id: machine.id,
                name: machine.name.clone(),
                role: machine.authority,
                leader: share.is_some_and(|it| it.leader),
                current: holds.then(|| share.is_some_and(|it| !it.behind)),
                lag: share.map(|it| it.lag),
                disk: share.map(|it| it.disk),
                streams: share.map(|it| it.streams),
            }
        })
        .collect();
    rows.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    let replicas = network.membership.store.len();
    Ok(StorageList {
        replicas: u32::try_from(replicas).unwrap_or(u32::MAX),
        rows,
    })
}

/// Servers are called as their machines; one that stands alone says nothing of itself.
fn shares(own: MachineId, infos: &[Info]) -> BTreeMap<MachineId, Share> {
    let mut shares: BTreeMap<MachineId, Share> = BTreeMap::new();
    for info in infos {
        let leads = info.config.name == stream_name(MACHINES);
        let Some(cluster) = &info.cluster else {
            add(shares.entry(own).or_default(), info, leads, Some(0));
            continue;
        };
        if let Some(leader) = cluster.leader.as_ref().and_then(|it| it.parse().ok()) {
            add(shares.entry(leader).or_default(), info, leads, Some(0));
        }
        for replica in &cluster.replicas {
            if let Ok(id) = replica.name.parse() {
                let is_there = replica.current && !replica.offline;
                let lag = is_there.then(|| replica.lag.unwrap_or_default());
                let share = shares.entry(id).or_default();
                share.lag = share.lag.max(replica.lag.unwrap_or_default());
                add(share, info, false, lag);
            }
        }
    }
    shares
}

/// Another stream, of which this server lacks so many writes, or nobody knows how many.
fn add(share: &mut Share, info: &Info, leads: bool, lag: Option<u64>) {
    share.leader |= leads;
    share.behind |= lag != Some(0);
    share.disk += info.state.bytes;
    share.streams += 1;
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const OWN: MachineId = MachineId::new(1, 1);
    const SECOND: MachineId = MachineId::new(1, 2);
    const THIRD: MachineId = MachineId::new(1, 3);

    /// A stream of so many bytes, as a server describes it.
    fn info(stream: &str, bytes: u64, cluster: &Value) -> Info {
        let time = "2026-01-01T00:00:00Z";
        let json = json!({
            "config": {
                "name": stream, "max_consumers": -1, "max_msgs": -1, "max_bytes": -1,
                "discard": "new", "max_age": 0, "max_msgs_per_subject": 8, "max_msg_size": -1,
                "storage": "file", "num_replicas": 3, "retention": "limits",
            },
            "created": time,
            "state": {
                "messages": 1, "bytes": bytes, "first_seq": 1, "first_ts": time,
                "last_seq": 1, "last_ts": time, "consumer_count": 0,
            },
            "cluster": cluster,
        });
        serde_json::from_value(json).unwrap()
    }

    fn replica(id: MachineId, current: bool, offline: bool, lag: u64) -> Value {
        json!({ "name": id.to_string(), "current": current, "offline": offline, "active": 0, "lag": lag })
    }

    fn cluster(leader: MachineId, replicas: &[Value]) -> Value {
        json!({ "name": "n-1", "leader": leader.to_string(), "replicas": replicas })
    }

    #[test]
    fn a_server_that_stands_alone_has_everything() {
        let infos = [
            info(&stream_name(MACHINES), 100, &Value::Null),
            info("events", 20, &Value::Null),
        ];
        let shares = shares(OWN, &infos);
        assert_eq!(shares.len(), 1);
        let own = &shares[&OWN];
        assert!(own.leader && !own.behind);
        assert_eq!((own.lag, own.disk, own.streams), (0, 120, 2));
    }

    #[test]
    fn each_holder_has_its_share_and_who_leads_the_machines_leads() {
        let up = |id| replica(id, true, false, 0);
        let infos = [
            info(
                &stream_name(MACHINES),
                100,
                &cluster(SECOND, &[up(OWN), up(THIRD)]),
            ),
            info("events", 20, &cluster(OWN, &[up(SECOND), up(THIRD)])),
        ];
        let shares = shares(OWN, &infos);
        let said: Vec<_> = shares
            .values()
            .map(|it| (it.leader, it.behind, it.disk))
            .collect();
        assert_eq!(
            said,
            [(false, false, 120), (true, false, 120), (false, false, 120)]
        );
    }

    #[test]
    fn one_that_lags_or_is_away_is_behind_by_the_most_of_any_stream() {
        let leads = |replicas: &[Value]| cluster(OWN, replicas);
        let infos = [
            info(
                "events",
                1,
                &leads(&[
                    replica(SECOND, true, false, 3),
                    replica(THIRD, true, true, 0),
                ]),
            ),
            info(
                "other",
                1,
                &leads(&[
                    replica(SECOND, true, false, 2),
                    replica(THIRD, true, false, 0),
                ]),
            ),
        ];
        let shares = shares(OWN, &infos);
        assert!(!shares[&OWN].behind);
        assert!(shares[&SECOND].behind);
        assert_eq!(shares[&SECOND].lag, 3);
        assert!(shares[&THIRD].behind, "nobody knows how much it lacks");
        let not_current = [info(
            "events",
            1,
            &leads(&[replica(SECOND, false, false, 0)]),
        )];
        assert!(super::shares(OWN, &not_current)[&SECOND].behind);
    }

    #[test]
    fn a_stream_without_a_leader_and_servers_of_other_names_are_nobodys() {
        let foreign = json!({ "name": "n-1", "replicas": [
            { "name": "not a machine", "current": true, "active": 0, "lag": 0 },
        ] });
        assert!(shares(OWN, &[info("events", 1, &foreign)]).is_empty());
    }
}
