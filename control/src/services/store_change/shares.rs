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
