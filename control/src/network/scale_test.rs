//! 200 machines and one real store: every control task with its own connection, and a data plane that is only counted.
//!
//! `CARGO_PROFILE_TEST_OPT_LEVEL=2 cargo test -p ployzd -- --ignored --nocapture simulation` runs it and prints the
//! figures, with `NATS_SERVER_UNDER_TEST` in the environment naming the server that `scripts/setup run` installs.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ployz_api::{InstanceId, WorkloadState};
use ployz_core::{MachineRecord, View};
use ployz_engine::{PeerUpdate, PublicKey, RttSnapshot};

use crate::host::clock;
use crate::host::identity::Identity;
use crate::network::{Contacts, Host, Network, NetworkError};
use crate::store::{MACHINES, OBSERVED, Revised, Store};
use crate::testkit::{Ground, PATIENCE, key, program, record, run, wait_until};

const MACHINES_COUNT: usize = 200;
const CHANGES: u32 = 50;
/// What the issue grants a change until every view has it.
const CHANGE_WAIT: Duration = Duration::from_secs(1);
/// What it grants after the store has come back.
const BACK_WAIT: Duration = Duration::from_secs(10);
/// Everybody lists anew three times in it.
const RESYNCS: Duration = Duration::from_secs(62);
/// What three rounds of listings may add to the control tasks once the allocator has settled: 50 KiB a machine.
const GROWTH_KIB_MAX: u64 = 10 * 1024;
/// What the server may have: its collector lets garbage grow to as much again as what is in use, about 100 MiB.
const SERVER_KIB_MAX: u64 = 256 * 1024;

/// A machine whose data plane is a set of keys.
#[derive(Debug, Default)]
struct Stub {
    peers: RefCell<BTreeSet<PublicKey>>,
    saves: Cell<u64>,
}

impl Host for Stub {
    fn backend(&self) -> &'static str {
        "stub"
    }

    async fn change_peers(&self, peers: Vec<PeerUpdate>) -> Result<(), NetworkError> {
        let mut known = self.peers.borrow_mut();
        for peer in peers {
            if peer.remove {
                known.remove(&peer.public_key);
            } else {
                known.insert(peer.public_key);
            }
        }
        Ok(())
    }

    async fn contacts(&self) -> Result<Contacts, NetworkError> {
        let somewhere = SocketAddr::from(([192, 0, 2, 1], 1));
        let peers = self.peers.borrow();
        Ok(Contacts {
            sessions: peers.iter().map(|key| (*key, somewhere)).collect(),
            ..Contacts::default()
        })
    }

    fn runtime(&self) -> &'static str {
        "stub"
    }

    fn workloads(&self) -> BTreeMap<InstanceId, WorkloadState> {
        BTreeMap::new()
    }

    fn management(&self) -> Vec<SocketAddr> {
        Vec::new()
    }

    async fn round_trips(&self) -> Result<BTreeMap<PublicKey, RttSnapshot>, NetworkError> {
        Ok(BTreeMap::new())
    }

    fn save(&self, _view: &View) -> Result<(), NetworkError> {
        self.saves.set(self.saves.get() + 1);
        Ok(())
    }

    fn store_refused(&self, said: &str) {
        // Whoever comes before the store has heard of it comes again.
        let is_early = said.contains("authentication error");
        assert!(is_early, "nobody does what it may not: {said}");
    }
}

struct Machine {
    network: Rc<Network>,
    host: Rc<Stub>,
}

#[test]
#[ignore = "takes the servers of scripts/setup test, and three minutes"]
fn a_change_reaches_200_views_within_a_second() {
    run(async {
        let begin = clock::now().instant;
        let ground = Ground::new(&program("2.14.6")).await;
        let store = ground.store(&ground.holder).await;
        let identities: Vec<Identity> = (1..MACHINES_COUNT)
            .map(|_| Identity::generate().unwrap())
            .collect();
        write_records(&ground, &store, &identities).await;
        let machines = start(&ground, &identities).await;
        wait_until("everybody to know everybody", PATIENCE * 6, || {
            machines
                .iter()
                .all(|it| it.host.peers.borrow().len() == MACHINES_COUNT - 1)
        })
        .await;
        show("everybody knows everybody after", begin.elapsed());
        measure_changes(&store, &machines, CHANGE_WAIT).await;
        let [settled, _] = watch_resources(&store, &ground, &machines).await;
        let [later, server] = watch_resources(&store, &ground, &machines).await;
        assert!(
            later < settled + GROWTH_KIB_MAX,
            "{settled} KiB became {later}"
        );
        assert!(server < SERVER_KIB_MAX, "nats-server has {server} KiB");
        measure_changes(&store, &machines, CHANGE_WAIT).await;
        come_back(&ground, &machines).await;
        measure_changes(&store, &machines, BACK_WAIT).await;
    });
}

async fn write_records(ground: &Ground, store: &Store, identities: &[Identity]) {
    let all = std::iter::once(&ground.holder).chain(identities);
    for (number, identity) in (0..).zip(all) {
        let record = record(identity, number);
        let made = store.create(MACHINES, &key(record.id), &record).await;
        assert!(made.unwrap());
    }
}

/// The holder first: it lets the others in, as it does in a real network.
async fn start(ground: &Ground, identities: &[Identity]) -> Vec<Machine> {
    let mut machines = Vec::with_capacity(MACHINES_COUNT);
    for identity in std::iter::once(&ground.holder).chain(identities) {
        let membership = ground.membership(identity);
        let store = Store::open(&membership, identity).await.unwrap();
        let storage = match machines.is_empty() {
            true => Some(ground.storage().await),
            false => None,
        };
        let own = identity.machine_id;
        let network = Rc::new(Network::new(own, membership, store, storage, None));
        let host = Rc::new(Stub::default());
        let (run, on) = (Rc::clone(&network), Rc::clone(&host));
        tokio::task::spawn_local(async move { Box::pin(run.run(&*on)).await.unwrap() });
        machines.push(Machine { network, host });
    }
    machines
}

/// One label at a time, and how long it takes until the last view has it.
async fn measure_changes(store: &Store, machines: &[Machine], patience: Duration) {
    let id = machines[1].network.view().machines().next().unwrap().id;
    let mut spans = Vec::new();
    for _ in 0..CHANGES {
        let Revised {
            mut value,
            revision,
        }: Revised<MachineRecord> = store.get(MACHINES, &key(id)).await.unwrap().unwrap();
        let said = clock::now().instant;
        value.labels.insert("said".to_owned(), format!("{said:?}"));
        assert!(
            store
                .update(MACHINES, &key(id), &value, revision)
                .await
                .unwrap()
        );
        wait_until("everybody to hear of a change", patience, || {
            let heard = |machine: &Machine| machine.network.view().machine(id) == Some(&value);
            machines.iter().all(heard)
        })
        .await;
        spans.push(said.elapsed());
    }
    spans.sort();
    let at = |share: usize| spans[(spans.len() - 1) * share / 100];
    show("a change reaches all views within, p50", at(50));
    show("                                   max", at(100));
}

/// Counts consumers while everybody lists anew; the memory of all control tasks and of the server after that, in KiB.
async fn watch_resources(store: &Store, ground: &Ground, machines: &[Machine]) -> [u64; 2] {
    let saves = machines[1].host.saves.get();
    let end: Instant = clock::now().instant + RESYNCS;
    let mut most = 0;
    while clock::now().instant < end {
        let both = tokio::join!(store.consumers(MACHINES), store.consumers(OBSERVED));
        most = most.max(both.0.unwrap() + both.1.unwrap());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(
        machines[1].host.saves.get() >= saves + 3,
        "nobody listed anew"
    );
    // Nobody follows with one, so there is nothing to be left behind.
    assert_eq!(most, 0, "consumers");
    let server = ground.nats.pid().unwrap();
    let memory = ["self".to_owned(), server.to_string()].map(|it| memory_kib(&it));
    tell(&format!(
        "consumers, at most                              {most}"
    ));
    tell(&format!(
        "memory of 200 control tasks, nats-server, KiB   {memory:?}"
    ));
    memory
}

/// The server is killed and started again, and everybody is back.
async fn come_back(ground: &Ground, machines: &[Machine]) {
    ground.nats.kill();
    wait_until("everybody to notice", PATIENCE, || {
        machines.iter().all(|it| !it.network.store.is_connected())
    })
    .await;
    let saves: Vec<u64> = machines.iter().map(|it| it.host.saves.get()).collect();
    let begin = clock::now().instant;
    // The holder's supervisor starts it.
    wait_until("everybody to be back", PATIENCE, || {
        machines.iter().all(|it| it.network.store.is_connected())
    })
    .await;
    show("everybody is connected again after", begin.elapsed());
    let listed = |(machine, before): (&Machine, &u64)| machine.host.saves.get() > *before;
    wait_until("everybody to list anew", PATIENCE, || {
        machines.iter().zip(&saves).all(listed)
    })
    .await;
    show("everybody has listed anew after", begin.elapsed());
}

fn memory_kib(process: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse().ok())
        .unwrap()
}

fn show(what: &str, span: Duration) {
    tell(&format!("{what:<48}{span:.1?}"));
}

#[expect(
    clippy::print_stdout,
    reason = "figures for whoever runs the simulation"
)]
fn tell(line: &str) {
    println!("{line}");
}
