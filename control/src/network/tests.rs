//! What a machine concludes from its view; no store answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ployz_api::{Authority, InstanceId, MachineId, WorkloadName, WorkloadState};
use ployz_core::{Change, Input, MachineRecord, ObservedRecord, SESSION_SECS, STALE_SECS};
use ployz_engine::PublicKey;
use serde_json::json;

use crate::host::clock;
use crate::host::identity::Identity;
use crate::network::{Network, NetworkError, is_session};
use crate::testkit::{Offline, record, run};

const FIRST: InstanceId = InstanceId::new(10, 1);
const LATER: InstanceId = InstanceId::new(20, 1);

fn machine(number: u16) -> MachineRecord {
    record(&Identity::generate().unwrap(), number)
}

fn workload(name: &str) -> WorkloadName {
    serde_json::from_value(json!(name)).unwrap()
}

/// News, as if the store had said it.
fn hear(network: &Network, change: Change) {
    let mut control = network.control.borrow_mut();
    control.handle(Input::Changed(change), clock::now());
}

/// The network's own machine, which holds these instances.
fn own(network: &Network, held: &[(InstanceId, &str)]) {
    let record = MachineRecord {
        id: network.own(),
        workloads: claims(held),
        ..machine(1)
    };
    hear(network, Change::Machine(Box::new(record), 1));
}

fn claims(held: &[(InstanceId, &str)]) -> BTreeMap<InstanceId, WorkloadName> {
    held.iter()
        .map(|(id, name)| (*id, workload(name)))
        .collect()
}

fn observed(id: MachineId, clock: Option<u64>) -> ObservedRecord {
    let json = json!({
        "version": 1, "id": id, "software_version": "1.2.3", "backend": "epoll",
        "workloads": 1, "sessions": 0, "clock_unix_secs": clock,
        "instances": { FIRST.to_string(): WorkloadState::Running },
    });
    serde_json::from_value(json).unwrap()
}

#[test]
fn a_removed_machine_runs_nothing_and_one_that_was_taken_back_does() {
    run(async {
        let offline = Offline::new();
        let network = offline.network(false, Vec::new()).await;
        own(&network, &[(FIRST, "web")]);
        assert_eq!(network.own_claims(), None, "before the first listing");
        network.listed.set(true);
        assert_eq!(network.own_claims(), Some(claims(&[(FIRST, "web")])));
        network.set_removed(true);
        network.set_removed(true);
        assert!(network.is_removed());
        assert_eq!(network.own_claims(), Some(BTreeMap::new()));
        network.set_removed(false);
        assert_eq!(network.own_claims(), Some(claims(&[(FIRST, "web")])));
    });
}

#[test]
fn a_machine_that_is_not_in_the_listing_claims_nothing_and_stops_nothing() {
    run(async {
        let offline = Offline::new();
        let network = offline.network(false, vec![machine(2)]).await;
        network.listed.set(true);
        assert_eq!(network.own_claims(), None);
    });
}

#[test]
fn only_a_later_instance_of_the_same_workload_elsewhere_succeeds_one() {
    run(async {
        for (held, expected) in [
            (claims(&[(LATER, "web")]), true),
            (claims(&[(LATER, "db")]), false),
            (claims(&[(InstanceId::new(5, 1), "web")]), false),
            (claims(&[(FIRST, "web")]), false),
            (
                claims(&[(LATER, "db"), (InstanceId::new(21, 1), "web")]),
                true,
            ),
            (BTreeMap::new(), false),
        ] {
            let other = MachineRecord {
                workloads: held.clone(),
                ..machine(2)
            };
            let offline = Offline::new();
            let network = offline.network(false, vec![other]).await;
            assert!(!network.is_succeeded(FIRST), "it has none itself");
            own(&network, &[(FIRST, "web")]);
            assert_eq!(network.is_succeeded(FIRST), expected, "{held:?}");
            assert!(!network.is_succeeded(InstanceId::new(1, 1)), "not its own");
        }
    });
}

#[test]
fn what_a_machine_said_too_long_ago_is_unknown() {
    run(async {
        let offline = Offline::new();
        let other = machine(2);
        let network = offline.network(false, vec![other.clone()]).await;
        let state = || network.instance_state(other.id, FIRST);
        assert_eq!(state(), WorkloadState::Unknown, "it has not said anything");
        let now = clock::now().unix_secs;
        let old = now - STALE_SECS - 1;
        hear(&network, Change::Observed(observed(other.id, None), old));
        assert_eq!(state(), WorkloadState::Unknown);
        hear(&network, Change::Observed(observed(other.id, None), now));
        assert_eq!(state(), WorkloadState::Running);
        assert_eq!(
            network.instance_state(other.id, LATER),
            WorkloadState::Unknown
        );
        assert!(!Network::is_stale(STALE_SECS) && Network::is_stale(STALE_SECS + 1));
    });
}

#[test]
fn ages_are_by_the_clock_of_the_store() {
    run(async {
        let offline = Offline::new();
        let other = machine(2);
        let network = offline.network(false, vec![other.clone()]).await;
        let before = clock::now().unix_secs;
        assert_eq!(network.clock_offset_secs(), None);
        assert!(network.unix_secs() >= before);
        // This machine's clock is an hour ahead of the store's.
        let by_store = before - 3_600;
        let own = observed(network.own(), Some(before));
        hear(&network, Change::Observed(own, by_store));
        assert_eq!(network.clock_offset_secs(), Some(3_600));
        let now = network.unix_secs();
        assert!((by_store..by_store + 60).contains(&now), "{now}");
        // So what the store got an hour ago by this clock is recent.
        hear(
            &network,
            Change::Observed(observed(other.id, None), by_store),
        );
        let state = network.instance_state(other.id, FIRST);
        assert_eq!(state, WorkloadState::Running);
    });
}

#[test]
fn a_holder_with_a_session_is_asked_before_one_without() {
    run(async {
        let offline = Offline::new();
        let mut machines: Vec<_> = (1..=3).map(machine).collect();
        machines.sort_by_key(|it| it.id);
        let network = offline.network(false, machines.clone()).await;
        let sessions = |with: &[&MachineRecord]| -> BTreeMap<PublicKey, SocketAddr> {
            let endpoint = SocketAddr::from(([192, 0, 2, 1], 1));
            with.iter()
                .map(|it| (it.key().unwrap(), endpoint))
                .collect()
        };
        let none = network.coordinator_id(&sessions(&[&machines[0]]));
        assert!(matches!(none, Err(NetworkError::NoHolder)));
        for (revision, holder) in (1..).zip(&mut machines[1..]) {
            holder.authority = Authority::Storage;
            hear(
                &network,
                Change::Machine(Box::new(holder.clone()), revision),
            );
        }
        let [_, second, third] = &machines[..] else {
            panic!("three");
        };
        let asked = |with: &[&MachineRecord]| network.coordinator_id(&sessions(with)).unwrap();
        assert_eq!(asked(&[]), second.id, "somebody has to be asked");
        assert_eq!(asked(&[third]), third.id);
        assert_eq!(asked(&[second, third]), second.id);
        assert_eq!(
            asked(&[&machines[0]]),
            second.id,
            "no holder, session or not"
        );
    });
}

#[test]
fn only_a_holder_has_what_it_takes_to_coordinate() {
    run(async {
        let offline = Offline::new();
        let member = offline.network(false, Vec::new()).await;
        assert!(matches!(
            member.require_storage(),
            Err(NetworkError::NotHolder)
        ));
        let holder = offline.network(true, Vec::new()).await;
        assert!(holder.require_storage().is_ok());
    });
}

#[test]
fn a_handshake_makes_a_session_for_a_while() {
    let is = |age| is_session(age);
    assert!(is(Some(0)) && is(Some(SESSION_SECS - 1)));
    assert!(!is(Some(SESSION_SECS)) && !is(None));
}

#[test]
fn whoever_was_revoked_before_the_start_stays_so() {
    run(async {
        use ployz_api::{CertificateName, CredentialId, Role};
        let offline = Offline::new();
        let (revoked, good) = (CredentialId::new(1, 1), CredentialId::new(1, 2));
        let network = offline
            .network_without(false, Vec::new(), BTreeSet::from([revoked]))
            .await;
        let believes = |id: CredentialId| {
            let name = CertificateName {
                role: Role::Admin,
                network: String::new(),
                subject: id.to_string(),
            };
            network.view().believes(&name, "")
        };
        assert!(believes(good) && !believes(revoked));
    });
}
