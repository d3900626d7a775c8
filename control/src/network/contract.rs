//! A network on a real store, and a data plane that is a table of peers.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ployz_api::{Authority, InstanceId, MachineId, RttRecord, WorkloadState};
use ployz_core::{
    Change, CredentialRecord, Input, MachineRecord, ObservedRecord, OperationRecord, View,
};
use ployz_engine::{PeerUpdate, PublicKey, RttSnapshot};

use crate::host::clock;
use crate::host::identity::Identity;
use crate::host::tasks::TaskGroup;
use crate::network::{Contacts, Host, Network, NetworkError};
use crate::store::{CREDENTIALS, MACHINES, OBSERVED, OPERATIONS, RTT, Revised, Store};
use crate::testkit::{Ground, Offline, PATIENCE, key, record, run, wait_until, write};

/// A data plane, and what it was last told to save.
#[derive(Debug, Default)]
struct Recorder {
    peers: RefCell<BTreeSet<PublicKey>>,
    saved: RefCell<Option<View>>,
    refused: Cell<usize>,
}

impl Host for Recorder {
    fn backend(&self) -> &'static str {
        "recorder"
    }

    async fn change_peers(&self, peers: Vec<PeerUpdate>) -> Result<(), NetworkError> {
        let mut known = self.peers.borrow_mut();
        for peer in peers {
            if peer.remove {
                assert!(known.remove(&peer.public_key), "only a peer is removed");
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
        "host"
    }

    fn workloads(&self) -> BTreeMap<InstanceId, WorkloadState> {
        BTreeMap::from([
            (InstanceId::new(1, 1), WorkloadState::Running),
            (InstanceId::new(1, 2), WorkloadState::Unknown),
        ])
    }

    fn management(&self) -> Vec<SocketAddr> {
        vec![SocketAddr::from(([192, 0, 2, 9], 7))]
    }

    async fn round_trips(&self) -> Result<BTreeMap<PublicKey, RttSnapshot>, NetworkError> {
        Ok(BTreeMap::new())
    }

    fn save(&self, view: &View) -> Result<(), NetworkError> {
        self.saved.replace(Some(view.clone()));
        Ok(())
    }

    fn store_refused(&self, _said: &str) {
        self.refused.set(self.refused.get() + 1);
    }
}

/// A machine whose control task runs until this value is dropped.
struct Running {
    network: Rc<Network>,
    host: Rc<Recorder>,
    _task: TaskGroup,
}

impl Running {
    fn start(network: Network) -> Self {
        let (network, host) = (Rc::new(network), Rc::new(Recorder::default()));
        let task = TaskGroup::default();
        let (run, on) = (Rc::clone(&network), Rc::clone(&host));
        task.spawn(async move { Box::pin(run.run(&*on)).await.unwrap() });
        Self {
            network,
            host,
            _task: task,
        }
    }

    async fn holder(ground: &Ground) -> Self {
        let (identity, storage) = (&ground.holder, ground.storage().await);
        let membership = ground.membership(identity);
        let store = Store::open(&membership, identity).await.unwrap();
        let own = identity.machine_id;
        Self::start(Network::new(own, membership, store, Some(storage), None))
    }

    async fn member(ground: &Ground, identity: &Identity) -> Self {
        let membership = ground.membership(identity);
        let store = Store::open(&membership, identity).await.unwrap();
        let own = identity.machine_id;
        Self::start(Network::new(own, membership, store, None, None))
    }

    /// Waits until its peers are exactly those of these machines, and its view has as many and itself.
    async fn has_peers(&self, expected: &[&Identity]) {
        let expected: BTreeSet<PublicKey> = expected.iter().map(|it| public(it)).collect();
        wait_until("these peers and no others", PATIENCE, || {
            *self.host.peers.borrow() == expected
        })
        .await;
    }

    fn knows(&self, record: &MachineRecord) -> bool {
        self.network.view().machine(record.id) == Some(record)
    }
}

fn public(identity: &Identity) -> PublicKey {
    identity.wireguard_key.public_key()
}

/// A store in which its holder and one more machine are.
async fn two() -> (Ground, Store, Identity) {
    let ground = Ground::under_test().await;
    let store = ground.store(&ground.holder).await;
    let other = Identity::generate().unwrap();
    write(&store, &record(&ground.holder, 1)).await;
    write(&store, &record(&other, 2)).await;
    (ground, store, other)
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn machines_come_change_and_go_as_the_store_says() {
    run(async {
        let (ground, store, other) = two().await;
        let third = Identity::generate().unwrap();
        let holder = Running::holder(&ground).await;
        holder.has_peers(&[&other]).await;
        // The holder lets the other in.
        let member = Running::member(&ground, &other).await;
        member.has_peers(&[&ground.holder]).await;
        let mut joined = record(&third, 3);
        write(&store, &joined).await;
        holder.has_peers(&[&other, &third]).await;
        member.has_peers(&[&ground.holder, &third]).await;
        joined.labels.insert("a".to_owned(), "b".to_owned());
        write(&store, &joined).await;
        let heard = || holder.knows(&joined) && member.knows(&joined);
        wait_until("the label", PATIENCE, heard).await;
        let saved = || {
            holder
                .host
                .saved
                .borrow()
                .as_ref()
                .is_some_and(|it| it.machine(joined.id) == Some(&joined))
        };
        wait_until("what is saved to have it as well", PATIENCE, saved).await;
        assert!(store.delete(MACHINES, &key(joined.id), None).await.unwrap());
        holder.has_peers(&[&other]).await;
        member.has_peers(&[&ground.holder]).await;
        assert!(holder.network.view().machine(joined.id).is_none());
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_removed_machine_is_expelled_and_the_store_refuses_it() {
    run(async {
        let (ground, store, other) = two().await;
        let holder = Running::holder(&ground).await;
        holder.has_peers(&[&other]).await;
        let client = ground.store(&other).await;
        assert!(
            store
                .delete(MACHINES, &key(other.machine_id), None)
                .await
                .unwrap()
        );
        let expelled = holder.network.expelled(other.machine_id);
        tokio::time::timeout(PATIENCE, expelled)
            .await
            .expect("it goes");
        holder.has_peers(&[]).await;
        wait_until("the store to close its connection", PATIENCE, || {
            !client.is_connected()
        })
        .await;
        // It tries again and again, and that is counted.
        let before = holder.host.refused.get();
        let refused = || holder.host.refused.get() > before + 1;
        wait_until("refusals", PATIENCE, refused).await;
        assert!(!client.is_connected());
        // A machine that was never there need not be waited for.
        let nobody = holder.network.expelled(MachineId::new(1, 1));
        tokio::time::timeout(PATIENCE, nobody)
            .await
            .expect("nobody");
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn peers_stay_while_the_store_is_away_and_news_goes_on_after_it() {
    run(async {
        let (ground, store, other) = two().await;
        let holder = Running::holder(&ground).await;
        let member = Running::member(&ground, &other).await;
        member.has_peers(&[&ground.holder]).await;
        holder.has_peers(&[&other]).await;
        ground.cut_power(&member.network.store).await;
        // The holder's supervisor starts it again; nobody has lost a peer by then.
        store.wait_connected(PATIENCE).await.unwrap();
        for (machine, peer) in [(&holder, &other), (&member, &ground.holder)] {
            assert_eq!(*machine.host.peers.borrow(), BTreeSet::from([public(peer)]));
        }
        let third = Identity::generate().unwrap();
        write(&store, &record(&third, 3)).await;
        holder.has_peers(&[&other, &third]).await;
        member.has_peers(&[&ground.holder, &third]).await;
        // What was in memory has ended with the server, and its machines have said it again.
        let reported = async {
            loop {
                let observed = store.list::<ObservedRecord>(OBSERVED).await;
                let ids = observed.map(|all| all.len()).unwrap_or_default();
                if ids == 2 {
                    break;
                }
                holder.network.report_soon();
                member.network.report_soon();
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, reported)
            .await
            .expect("both report again");
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_store_that_lost_everything_is_made_anew_and_filled_again() {
    run(async {
        let (ground, store, other) = two().await;
        let holder = Running::holder(&ground).await;
        holder.has_peers(&[&other]).await;
        ground.lose_disk();
        let member_count = || holder.network.view().machines().count();
        wait_until("an empty store to be believed", PATIENCE, || {
            member_count() == 0
        })
        .await;
        holder.has_peers(&[]).await;
        store.wait_connected(PATIENCE).await.unwrap();
        // The buckets are there: whoever restores the records needs nothing else.
        write(&store, &record(&ground.holder, 1)).await;
        write(&store, &record(&other, 2)).await;
        holder.has_peers(&[&other]).await;
        let client = ground.store(&other).await;
        assert!(client.follow().await.is_ok(), "it is let in again");
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_machine_reports_itself_as_its_host_says() {
    run(async {
        let (ground, store, other) = two().await;
        let holder = Running::holder(&ground).await;
        let id = holder.network.own();
        let heard = || holder.network.view().observed(id).is_some();
        wait_until("its own report", PATIENCE, heard).await;
        let found: Option<Revised<ObservedRecord>> = store.get(OBSERVED, &key(id)).await.unwrap();
        let record = found.unwrap().value;
        assert_eq!((&*record.backend, &*record.runtime), ("recorder", "host"));
        assert_eq!(
            (record.workloads, record.instances.len()),
            (1, 2),
            "one of two runs"
        );
        assert_eq!(record.management, holder.host.management());
        let state = |number| {
            let instance = InstanceId::new(1, number);
            holder.network.instance_state(id, instance)
        };
        assert_eq!(state(1), WorkloadState::Running);
        assert_eq!([state(2), state(3)], [WorkloadState::Unknown; 2]);
        // One clock: the measurement is wrong by two seconds at most, and a test host may be slow.
        let offset = holder.network.clock_offset_secs().unwrap();
        assert!(offset.abs() <= 10, "{offset} s");
        let listed = async {
            while store.list::<RttRecord>(RTT).await.unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, listed)
            .await
            .expect("and its round trips");
        drop(other);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn the_store_is_looked_for_where_it_was_and_at_every_holder_of_the_records() {
    run(async {
        let (ground, store, other) = two().await;
        let holder = Running::holder(&ground).await;
        holder.has_peers(&[&other]).await;
        let known = ground.membership(&ground.holder).store[0];
        assert_eq!(*holder.network.servers.borrow(), BTreeSet::from([known]));
        let mut promoted = record(&other, 2);
        promoted.authority = Authority::Storage;
        promoted.store_port = Some(4_222);
        write(&store, &promoted).await;
        let both = BTreeSet::from([known, (promoted.overlay_ip.into(), 4_222)]);
        let learnt = || *holder.network.servers.borrow() == both;
        wait_until("the address of the new holder", PATIENCE, learnt).await;
        promoted.authority = Authority::Compute;
        write(&store, &promoted).await;
        let forgotten = || *holder.network.servers.borrow() == BTreeSet::from([known]);
        wait_until("a former holder to be forgotten", PATIENCE, forgotten).await;
    });
}

/// The client of a store that is away takes nothing in until it is back.
#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_new_holder_that_is_heard_of_as_the_store_goes_away_holds_nothing_up() {
    run(async {
        let (ground, store, other) = two().await;
        ground.admit(std::slice::from_ref(&other));
        let member = Running::member(&ground, &other).await;
        member.has_peers(&[&ground.holder]).await;
        ground.cut_power(&store).await;
        wait_until("the member to notice", PATIENCE, || {
            !member.network.store.is_connected()
        })
        .await;
        // The control task looks again when the watchdog asks whether it is alive.
        let hear = async |record: MachineRecord, revision| {
            let change = Change::Machine(Box::new(record), revision);
            let heard = Input::Changed(change);
            member
                .network
                .control
                .borrow_mut()
                .handle(heard, clock::now());
            let alive = member.network.heartbeat.check();
            tokio::time::timeout(PATIENCE, alive).await.expect("alive");
        };
        let known = ground.membership(&other).store[0];
        let (third, fourth) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let mut promoted = record(&third, 3);
        promoted.authority = Authority::Storage;
        promoted.store_port = Some(4_222);
        let both = BTreeSet::from([known, (promoted.overlay_ip.into(), 4_222)]);
        hear(promoted, 1_000).await;
        let learnt = || *member.network.servers.borrow() == both;
        wait_until("the address of the new holder", PATIENCE, learnt).await;
        hear(record(&fourth, 4), 1_001).await;
        member.has_peers(&[&ground.holder, &third, &fourth]).await;
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn whoever_was_revoked_is_not_believed_from_then_on() {
    run(async {
        use ployz_api::{CertificateName, CredentialId, Role};
        let (ground, store, _other) = two().await;
        let id = CredentialId::new(1, 1);
        let credential = CredentialRecord::new(id, Role::Admin, None, 10, None);
        let put = async |record: &CredentialRecord| {
            store
                .put(CREDENTIALS, &id.to_string(), record)
                .await
                .unwrap();
        };
        put(&credential).await;
        let holder = Running::holder(&ground).await;
        let believes = || {
            let name = CertificateName {
                role: Role::Admin,
                network: String::new(),
                subject: id.to_string(),
            };
            holder.network.view().believes(&name, "")
        };
        wait_until("the listing", PATIENCE, || holder.network.listed.get()).await;
        assert!(believes());
        put(&credential.revoke(20).unwrap()).await;
        wait_until("the revocation", PATIENCE, || !believes()).await;
        // A record that was not revoked, in whatever order it comes, changes nothing.
        put(&credential).await;
        let mut marker = record(&ground.holder, 1);
        marker.region = "later".to_owned();
        write(&store, &marker).await;
        wait_until("later news", PATIENCE, || holder.knows(&marker)).await;
        assert!(!believes());
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_holder_interrupts_what_its_former_daemon_was_doing() {
    run(async {
        use ployz_api::{OperationId, WorkState};
        let (ground, store, _other) = two().await;
        let (own, text) = (ground.holder.machine_id, String::new());
        let id = OperationId::new(1, 1);
        let former = OperationRecord::begin(id, "machine-join", text, own, "again", 10);
        store
            .put(OPERATIONS, &id.to_string(), &former)
            .await
            .unwrap();
        let holder = Running::holder(&ground).await;
        // Before the first listing.
        wait_until("the listing", PATIENCE, || holder.network.listed.get()).await;
        let found = store.list::<OperationRecord>(OPERATIONS).await.unwrap();
        let states: Vec<_> = found.iter().map(|it| it.row().state).collect();
        assert_eq!(states, [WorkState::Interrupted]);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn what_a_machine_is_to_run_is_known_only_after_a_listing() {
    run(async {
        let (ground, store, _other) = two().await;
        let mut own = record(&ground.holder, 1);
        let (instance, workload) = (InstanceId::new(1, 1), "\"web\"");
        own.workloads
            .insert(instance, serde_json::from_str(workload).unwrap());
        write(&store, &own).await;
        ground.cut_power(&store).await;
        let membership = ground.membership(&ground.holder);
        let client = Store::open(&membership, &ground.holder).await.unwrap();
        let machine = Network::new(own.id, membership, client, None, None);
        let machine = Running::start(machine);
        assert_eq!(machine.network.own_claims(), None);
        ground.nats.start().await.unwrap();
        store.wait_connected(PATIENCE).await.unwrap();
        // No holder runs here that would do it.
        store.make_buckets(1).await.unwrap();
        wait_until("its claims", PATIENCE, || {
            machine.network.own_claims().is_some()
        })
        .await;
        assert_eq!(machine.network.own_claims(), Some(own.workloads));
    });
}

/// A saved view is enough for the overlay, also where there is no store at all; so it needs no server either.
#[test]
fn a_start_without_the_store_has_the_peers_of_the_saved_view() {
    run(async {
        let offline = Offline::new();
        let (one, another) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let records = vec![record(&one, 1), record(&another, 2)];
        let machine = Running::start(offline.network(false, records.clone()).await);
        machine.has_peers(&[&one, &another]).await;
        assert!(records.iter().all(|it| machine.knows(it)));
        assert_eq!(
            machine.network.own_claims(),
            None,
            "the store has not spoken"
        );
        assert!(
            machine.host.saved.borrow().is_none(),
            "and there is nothing new to save"
        );
        let waiting =
            tokio::time::timeout(Duration::ZERO, machine.network.expelled(one.machine_id));
        assert!(waiting.await.is_err(), "it is still there");
    });
}
