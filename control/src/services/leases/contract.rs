//! Names and subnets, taken from a real store by several machines at a time.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use ployz_core::AddressPlan;

use super::*;
use crate::host::identity::Identity;
use crate::testkit::{Ground, key, record, run};

/// As many subnets as the smallest network of the tests has.
const FEW: u32 = 4;
const OWN: MachineId = MachineId::new(1, 1);
const OTHER: MachineId = MachineId::new(1, 2);
const THIRD: MachineId = MachineId::new(1, 3);

/// A network of few subnets, as a holder of its store has it.
async fn founded() -> (Ground, Network) {
    let ground = Ground::under_test().await;
    let store = ground.store(&ground.holder).await;
    let mut membership = ground.membership(&ground.holder);
    membership.cluster_cidr = "10.9.0.0/22".parse().unwrap();
    membership.addresses = Some(AddressPlan::new(membership.cluster_cidr, 24).unwrap());
    let network = Network::new(ground.holder.machine_id, membership, store, None, None);
    (ground, network)
}

/// A machine that has joined.
async fn member(store: &Store) -> MachineId {
    let record = record(&Identity::generate().unwrap(), 1);
    let made = store.create(MACHINES, &key(record.id), &record).await;
    assert!(made.unwrap());
    record.id
}

/// Removes a machine, and returns when that was by the store's clock.
async fn remove(store: &Store, id: MachineId) -> u64 {
    assert!(store.delete(MACHINES, &key(id), None).await.unwrap());
    let slot: Slot<MachineRecord> = store.slot(MACHINES, &key(id)).await.unwrap();
    match slot {
        Slot::Deleted { at, .. } => at,
        Slot::Nothing | Slot::Record(_) => panic!("it was removed"),
    }
}

fn name(text: &str) -> Name {
    Name::nearest(text)
}

async fn claimed(store: &Store, wanted: &str, id: MachineId) -> String {
    let name = claim_name(store, &name(wanted), id, 0).await.unwrap();
    name.as_str().to_owned()
}

/// The number of the subnet that a machine gets.
async fn subnet(network: &Network, id: MachineId, now: u64) -> Result<u32, Failure> {
    let addresses = claim_subnet(network, id, now).await?;
    let plan = network.membership.addresses.unwrap();
    let of = |index: &u32| plan.addresses(network.membership.network_id, *index);
    let index = (0..plan.capacity()).find(|index| of(index) == Some(addresses));
    Ok(index.expect("it is one of the plan's"))
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_name_that_is_taken_gets_the_first_number_that_is_free() {
    run(async {
        let (_ground, network) = founded().await;
        let store = &network.store;
        assert_eq!(claimed(store, "web", OWN).await, "web");
        assert_eq!(claimed(store, "web", OTHER).await, "web-2");
        assert_eq!(claimed(store, "web", THIRD).await, "web-3");
        // Whoever asks again has what it has.
        for (id, expected) in [(OTHER, "web-2"), (OWN, "web"), (THIRD, "web-3")] {
            assert_eq!(claimed(store, "web", id).await, expected);
        }
        assert!(claim_this_name(store, &name("web"), OWN, 0).await.unwrap());
        assert!(
            !claim_this_name(store, &name("web"), THIRD, 0)
                .await
                .unwrap()
        );
        assert!(claim_this_name(store, &name("db"), THIRD, 0).await.unwrap());
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn the_longest_names_get_a_number_as_well() {
    run(async {
        let (_ground, network) = founded().await;
        let longest = "n".repeat(63);
        assert_eq!(claimed(&network.store, &longest, OWN).await, longest);
        let second = claimed(&network.store, &longest, OTHER).await;
        assert_eq!(second, format!("{}-2", "n".repeat(58)));
        let third = claimed(&network.store, &longest, THIRD).await;
        assert_eq!(third, format!("{}-3", "n".repeat(58)));
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn only_its_holder_gives_a_name_back() {
    run(async {
        let (_ground, network) = founded().await;
        let store = &network.store;
        let web = name("web");
        assert_eq!(claimed(store, "web", OWN).await, "web");
        release_name(store, &web, OTHER).await.unwrap();
        assert!(!claim_this_name(store, &web, OTHER, u64::MAX).await.unwrap());
        release_name(store, &web, OWN).await.unwrap();
        // Once more, and of a name that nobody has ever had.
        release_name(store, &web, OWN).await.unwrap();
        release_name(store, &name("db"), OWN).await.unwrap();
        assert!(claim_this_name(store, &web, OTHER, 0).await.unwrap());
        assert!(!claim_this_name(store, &web, OWN, 0).await.unwrap());
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_removed_machine_leaves_its_name_at_once_and_its_subnet_a_day_later() {
    run(async {
        let (_ground, network) = founded().await;
        let store = &network.store;
        let former = member(store).await;
        assert_eq!(claimed(store, "web", former).await, "web");
        assert_eq!(subnet(&network, former, 0).await.unwrap(), 0);
        // A member keeps both, however late it is.
        assert!(
            !claim_this_name(store, &name("web"), OWN, u64::MAX)
                .await
                .unwrap()
        );
        assert_eq!(subnet(&network, OWN, u64::MAX).await.unwrap(), 1);
        let at = remove(store, former).await;
        let early = at - 1;
        assert!(
            !claim_this_name(store, &name("web"), OTHER, early)
                .await
                .unwrap()
        );
        assert!(
            claim_this_name(store, &name("web"), OTHER, at)
                .await
                .unwrap()
        );
        let rested = at + SUBNET_REST_SECS;
        assert_eq!(subnet(&network, OTHER, rested - 1).await.unwrap(), 2);
        assert_eq!(subnet(&network, THIRD, rested).await.unwrap(), 0);
        // Both have changed hands for good.
        assert!(
            !claim_this_name(store, &name("web"), former, u64::MAX)
                .await
                .unwrap()
        );
        assert_eq!(subnet(&network, THIRD, rested).await.unwrap(), 0);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn whoever_is_about_to_join_keeps_what_it_has_claimed() {
    run(async {
        let (_ground, network) = founded().await;
        // There is no record of this machine yet.
        assert_eq!(subnet(&network, OWN, 0).await.unwrap(), 0);
        assert_eq!(claimed(&network.store, "web", OWN).await, "web");
        assert_eq!(subnet(&network, OTHER, u64::MAX).await.unwrap(), 1);
        let web = name("web");
        let taken = claim_this_name(&network.store, &web, OTHER, u64::MAX).await;
        assert!(!taken.unwrap());
        assert_eq!(subnet(&network, OWN, 0).await.unwrap(), 0);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn machines_that_join_at_once_have_nothing_in_common() {
    run(async {
        let (_ground, network) = founded().await;
        let ids = (1..=u128::from(FEW)).map(|number| MachineId::new(2, number));
        let ids: Vec<MachineId> = ids.collect();
        let subnets = join_all(ids.iter().map(|id| subnet(&network, *id, 0))).await;
        let subnets: BTreeSet<u32> = subnets.into_iter().map(Result::unwrap).collect();
        assert_eq!(subnets, (0..FEW).collect());
        let names = join_all(ids.iter().map(|id| claimed(&network.store, "web", *id))).await;
        let names: BTreeSet<String> = names.into_iter().collect();
        let expected = ["web", "web-2", "web-3", "web-4"].map(str::to_owned);
        assert_eq!(names, BTreeSet::from(expected));
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn one_of_those_who_want_what_has_become_free_gets_it() {
    run(async {
        let (_ground, network) = founded().await;
        let store = &network.store;
        let former = member(store).await;
        assert_eq!(claimed(store, "web", former).await, "web");
        let at = remove(store, former).await;
        let wanted = name("web");
        let claims = [OWN, OTHER, THIRD].map(|id| claim_this_name(store, &wanted, id, at));
        let got = join_all(claims).await.into_iter().map(Result::unwrap);
        assert_eq!(got.filter(|it| *it).count(), 1);
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_full_network_says_so_until_a_subnet_has_rested() {
    run(async {
        let (_ground, network) = founded().await;
        let former = member(&network.store).await;
        let others = (1..u128::from(FEW)).map(|number| MachineId::new(2, number));
        for (expected, id) in (0..).zip(std::iter::once(former).chain(others)) {
            assert_eq!(subnet(&network, id, 0).await.unwrap(), expected);
        }
        let full = async |now| {
            let failure = claim_subnet(&network, OWN, now).await.unwrap_err();
            assert_eq!(failure.code, Code::Conflict);
            assert!(
                failure.message.contains("10.9.0.0/22"),
                "{}",
                failure.message
            );
        };
        full(u64::MAX).await;
        let at = remove(&network.store, former).await;
        full(at).await;
        full(at + SUBNET_REST_SECS - 1).await;
        let rested = subnet(&network, OWN, at + SUBNET_REST_SECS).await;
        assert_eq!(rested.unwrap(), 0);
        assert!(claim_subnet(&network, OTHER, u64::MAX).await.is_err());
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn the_founder_has_the_first_of_everything_and_nobody_loses_it_to_a_second_one() {
    run(async {
        let (_ground, network) = founded().await;
        let store = &network.store;
        for id in [OWN, OWN, OTHER] {
            claim_first(store, &name("web"), id).await.unwrap();
        }
        assert!(claim_this_name(store, &name("web"), OWN, 0).await.unwrap());
        assert_eq!(subnet(&network, OWN, 0).await.unwrap(), 0);
        assert_eq!(subnet(&network, OTHER, 0).await.unwrap(), 1);
        assert_eq!(claimed(store, "web", OTHER).await, "web-2");
    });
}

#[test]
#[ignore = "takes the servers of scripts/setup quick"]
fn a_machine_without_the_plan_gives_no_subnet_away() {
    run(async {
        let (ground, network) = founded().await;
        let membership = ground.membership(&ground.holder);
        let store = ground.store(&ground.holder).await;
        let without = Network::new(ground.holder.machine_id, membership, store, None, None);
        let failure = claim_subnet(&without, OWN, 0).await.unwrap_err();
        assert_eq!(failure.code, Code::Conflict);
        assert!(
            network
                .store
                .list::<Lease>(LEASES)
                .await
                .unwrap()
                .is_empty()
        );
    });
}
