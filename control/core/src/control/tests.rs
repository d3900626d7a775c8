use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use ployz_api::{Authority, CertificateName, CredentialId, Lifecycle, RegionRole, Role};
use proptest::prelude::*;
use serde_json::Map;

use super::*;
use crate::{RECORD_VERSION, SelectError};

const OWN: MachineId = MachineId::new(0, 0);

fn id(number: u8) -> MachineId {
    MachineId::new(0, number.into())
}

#[expect(clippy::disallowed_methods, reason = "any instant does to count from")]
fn now() -> Now {
    Now {
        instant: Instant::now(),
        unix_secs: 1_000,
    }
}

fn machine(number: u8, port: u16) -> MachineRecord {
    let key = PublicKey::from_bytes([number + 100; 32]);
    MachineRecord {
        version: RECORD_VERSION,
        id: id(number),
        name: format!("m{number}").parse().unwrap(),
        lifecycle: Lifecycle::Active,
        authority: Authority::Compute,
        region: "local".to_owned(),
        region_role: RegionRole::Compute,
        availability_zone: None,
        overlay_ip: Ipv4Addr::new(10, 101, number, 1),
        overlay_ip6: Ipv6Addr::new(0xfd00, 0, 0, number.into(), 0, 0, 0, 1),
        subnet: Some(format!("10.101.{number}.0/24").parse().unwrap()),
        wireguard_key: key.to_string(),
        nkey: String::new(),
        endpoints: vec![SocketAddr::from(([192, 0, 2, number], port))],
        store_port: None,
        created_at: 0,
        labels: BTreeMap::new(),
        unknown: Map::new(),
    }
}

fn drain(control: &mut Control) -> Vec<Effect> {
    std::iter::from_fn(|| control.poll_effect()).collect()
}

fn configured(effects: &[Effect]) -> usize {
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Configure(updates) => updates.len(),
            Effect::Admit(_) | Effect::Save(_) | Effect::Resync | Effect::Observe => 0,
        })
        .sum()
}

#[test]
fn a_start_from_disk_configures_peers_and_the_store_then_changes_nothing() {
    let now = now();
    let mut control = Control::new(OWN, now);
    control.handle(
        Input::Restored(SavedView {
            confirmed_at: 400,
            machines: vec![machine(0, 1), machine(1, 1), machine(2, 1)],
            revoked: BTreeSet::new(),
        }),
        now,
    );
    assert_eq!(configured(&drain(&mut control)), 2);
    assert_eq!(control.view().age_secs(now.unix_secs), 600);
    let listing = (0..3).map(|number| (machine(number, 1), 7)).collect();
    control.handle(Input::Listed(listing), now);
    assert_eq!(configured(&drain(&mut control)), 0);
    assert_eq!(control.view().age_secs(now.unix_secs), 0);
}

#[test]
fn what_is_older_than_what_is_known_changes_nothing() {
    let now = now();
    let mut control = Control::new(OWN, now);
    control.handle(
        Input::Changed(Change::Machine(machine(1, 2).into(), 9)),
        now,
    );
    control.handle(Input::Listed(vec![(machine(1, 1), 8)]), now);
    control.handle(Input::Changed(Change::MachineGone(id(1), 8)), now);
    let held = control.view().machine(id(1)).unwrap();
    assert_eq!(held.endpoints[0].port(), 2);
    control.handle(Input::Changed(Change::MachineGone(id(1), 10)), now);
    assert_eq!(control.view().machine(id(1)), None);
}

#[test]
fn who_may_connect_to_the_store_follows_from_who_is_there() {
    let now = now();
    let mut control = Control::new(OWN, now);
    let mut admitted = |listing: Vec<u8>| {
        let listing = listing.into_iter().map(|number| (machine(number, 1), 1));
        control.handle(Input::Listed(listing.collect()), now);
        drain(&mut control)
            .into_iter()
            .find_map(|effect| match effect {
                Effect::Admit(nkeys) => Some(nkeys.into_keys().collect::<Vec<_>>()),
                Effect::Configure(_) | Effect::Save(_) | Effect::Resync | Effect::Observe => None,
            })
    };
    assert_eq!(admitted(vec![0, 1]), Some(vec![id(0), id(1)]));
    assert_eq!(admitted(vec![0, 1]), None);
    assert_eq!(admitted(vec![0]), Some(vec![id(0)]));
}

#[test]
fn whoever_was_revoked_stays_so_across_a_restart() {
    let now = now();
    let mut control = Control::new(OWN, now);
    let id = CredentialId::new(1, 1);
    let record = CredentialRecord::new(id, Role::Operator, None, 1, None);
    control.handle(Input::Changed(Change::Credential(record.clone())), now);
    assert!(control.view().believes(&holder(id, Role::Operator)));
    let revoked = record.revoke(2).unwrap();
    control.handle(Input::Changed(Change::Credential(revoked)), now);
    let saved = drain(&mut control).pop();
    let Some(Effect::Save(saved)) = saved else {
        unreachable!("{saved:?}")
    };
    control.handle(Input::Changed(Change::Credential(record)), now);
    let mut restarted = Control::new(OWN, now);
    restarted.handle(Input::Restored(saved), now);
    for control in [control, restarted] {
        assert!(!control.view().believes(&holder(id, Role::Operator)));
        assert!(control.view().believes(&holder("root", Role::Admin)));
    }
}

#[test]
fn a_machine_is_believed_while_it_is_in_the_network() {
    let now = now();
    let mut control = Control::new(OWN, now);
    let is_believed = |control: &Control| {
        let view = control.view();
        [0, 1].map(|number| view.believes(&holder(id(number), Role::Machine)))
    };
    assert_eq!(is_believed(&control), [false, false]);
    control.handle(
        Input::Listed(vec![(machine(0, 1), 1), (machine(1, 1), 2)]),
        now,
    );
    assert_eq!(is_believed(&control), [true, true]);
    control.handle(Input::Changed(Change::MachineGone(id(1), 3)), now);
    assert_eq!(is_believed(&control), [true, false]);
}

/// As certificates spell it.
fn holder(subject: impl ToString, role: Role) -> CertificateName {
    CertificateName {
        subject: subject.to_string().to_lowercase(),
        role,
        network: "n".to_owned(),
    }
}

#[test]
fn time_brings_listings_and_reports() {
    let now = now();
    let mut control = Control::new(OWN, now);
    control.handle_timeout(now);
    let effects = drain(&mut control);
    assert!(matches!(effects[..], [Effect::Resync, Effect::Observe]));
    assert_eq!(control.poll_timeout(), now.instant + OBSERVE_INTERVAL);
    control.handle_timeout(now);
    assert!(drain(&mut control).is_empty());
}

#[test]
fn machines_are_found_by_id_name_and_unique_beginning() {
    let now = now();
    let mut control = Control::new(OWN, now);
    let mut listing: Vec<_> = (1..3).map(|number| (machine(number, 1), 1)).collect();
    let mut other = machine(3, 1);
    other.name = "m".parse().unwrap();
    listing.push((other, 1));
    control.handle(Input::Listed(listing), now);
    let find = |wanted: &str| control.view().select(wanted).map(|machine| machine.id);
    assert_eq!(find("m2"), Ok(id(2)));
    assert_eq!(find("m"), Ok(id(3)), "a whole name beats a beginning");
    assert_eq!(find(&id(1).to_string().to_lowercase()), Ok(id(1)));
    assert!(matches!(find("0000"), Err(SelectError::Ambiguous { .. })));
    assert_eq!(find("x"), Err(SelectError::NotFound("x".to_owned())));
    assert!(matches!(find(""), Err(SelectError::NotFound(_))));
}

proptest! {
    /// Whatever order news comes in, the view ends as the last listing, and the peers follow from it.
    #[test]
    fn a_listing_is_the_truth(
        news in prop::collection::vec((1_u8..5, 1_u16..4, any::<bool>()), 0..20),
        last in prop::collection::btree_set(0_u8..5, 0..5),
    ) {
        let now = now();
        let mut control = Control::new(OWN, now);
        for (revision, (number, port, gone)) in (1_u64..).zip(&news) {
            let change = if *gone {
                Change::MachineGone(id(*number), revision)
            } else {
                Change::Machine(machine(*number, *port).into(), revision)
            };
            control.handle(Input::Changed(change), now);
        }
        let listing = last.iter().map(|number| (machine(*number, 9), 100)).collect();
        control.handle(Input::Listed(listing), now);
        let expected: Vec<_> = last.iter().map(|number| machine(*number, 9)).collect();
        prop_assert_eq!(control.view().machines().cloned().collect::<Vec<_>>(), &expected[..]);
        prop_assert_eq!(control.peers, plan(OWN, expected.iter()));
    }
}
