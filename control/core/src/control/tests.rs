use std::collections::{BTreeMap, BTreeSet};

use ployz_api::{CertificateName, CredentialId, Role};
use proptest::prelude::*;
use std::net::SocketAddr;

use serde_json::Map;

use super::*;
use crate::machines::examples::{id, machine};
use crate::{RECORD_VERSION, ROOT_PREFIX, SelectError};

const OWN: MachineId = MachineId::new(0, 0);

#[expect(clippy::disallowed_methods, reason = "any instant does to count from")]
fn now() -> Now {
    Now {
        instant: Instant::now(),
        unix_secs: 1_000,
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
            Effect::Distrust
            | Effect::Admit(_)
            | Effect::Save
            | Effect::Resync
            | Effect::Observe
            | Effect::Listen => 0,
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
            roamed: BTreeMap::new(),
            initiations: BTreeMap::new(),
        }),
        now,
    );
    assert_eq!(configured(&drain(&mut control)), 2);
    assert_eq!(control.view().age_secs(now.unix_secs), 600);
    let listing = (0..3).map(|number| (machine(number, 1), 7)).collect();
    control.handle(Input::Listed(listing), now);
    assert_eq!(configured(&drain(&mut control)), 0);
    assert_eq!(control.view().age_secs(now.unix_secs), 0);
    assert_eq!(control.view().revision(), 7);
    assert_eq!(control.view().revision_age_secs(now.unix_secs + 5), 5);
}

#[test]
fn a_machine_that_had_roamed_is_looked_for_where_it_was_last() {
    let now = now();
    let known = machine(1, 1);
    let key = PublicKey::from_base64(&known.wireguard_key).unwrap();
    let elsewhere = SocketAddr::from(([198, 51, 100, 7], 4_000));
    let mut before = Control::new(OWN, now);
    before.handle(Input::Listed(vec![(known.clone(), 1)]), now);
    drain(&mut before);
    let mut record = |endpoint| {
        before.handle(Input::Sessions(BTreeMap::from([(key, endpoint)])), now);
        let saves = matches!(drain(&mut before)[..], [Effect::Save]);
        (saves, before.view().saved())
    };
    assert!(
        !record(known.endpoints[0]).0,
        "it is where its record has it"
    );
    assert!(record(elsewhere).0);
    let (again, saved) = record(elsewhere);
    assert!(!again, "that is known");
    let mut after = Control::new(OWN, now);
    after.handle(Input::Restored(saved.clone()), now);
    after.handle(Input::Listed(vec![(known, 1)]), now);
    let announced: Vec<_> = drain(&mut after)
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Configure(updates) => Some(updates),
            Effect::Distrust
            | Effect::Admit(_)
            | Effect::Save
            | Effect::Resync
            | Effect::Observe
            | Effect::Listen => None,
        })
        .flatten()
        .map(|update| (update.public_key, update.endpoint))
        .collect();
    assert_eq!(
        announced,
        [(key, Some(elsewhere))],
        "and the store leads nobody astray"
    );
    assert_eq!(after.view().saved().roamed, saved.roamed);
}

#[test]
fn the_newest_initiations_outlive_the_process() {
    let begin = now();
    let after = |secs| Now {
        instant: begin.instant + Duration::from_secs(secs),
        ..begin
    };
    let known = machine(1, 1);
    let key = known.key().unwrap();
    let time = |byte| Tai64n::from_bytes([byte; 12]);
    let mut before = Control::new(OWN, begin);
    before.handle(Input::Listed(vec![(known, 1)]), begin);
    drain(&mut before);
    let mut saves = |byte, secs| {
        let taken = BTreeMap::from([(key, time(byte)), (stranger(), time(9))]);
        before.handle(Input::Initiations(taken), after(secs));
        !drain(&mut before).is_empty()
    };
    assert!(!saves(1, 5), "soon, by itself or with something else");
    assert!(saves(1, 20));
    assert!(!saves(1, 60), "it is saved");
    assert!(saves(2, 65), "nothing was saved for long");
    assert!(!saves(3, 70));
    let json = serde_json::to_string(&before.view().saved()).unwrap();
    let saved: SavedView = serde_json::from_str(&json).unwrap();
    assert_eq!(saved.initiations.len(), 1, "of machines of the network");
    let peers = saved.peers(OWN);
    assert_eq!(peers[0].newest_initiation, Some(time(3)));
    let mut next = Control::new(OWN, begin);
    next.handle(Input::Restored(saved.clone()), begin);
    assert_eq!(next.view().saved().initiations, saved.initiations);
}

fn stranger() -> PublicKey {
    PublicKey::from_bytes([9; 32])
}

#[test]
fn what_is_older_than_what_is_known_changes_nothing() {
    let now = now();
    let mut control = Control::new(OWN, now);
    control.handle(
        Input::Changed(Change::Machine(machine(1, 2).into(), 9)),
        now,
    );
    let listing = vec![(machine(1, 1), 8), (machine(2, 1), 9)];
    control.handle(Input::Listed(listing), now);
    control.handle(Input::Changed(Change::MachineGone(id(1), 8)), now);
    let held = control.view().machine(id(1)).unwrap();
    assert_eq!(held.endpoints[0].port(), 2);
    control.handle(Input::Changed(Change::MachineGone(id(1), 10)), now);
    assert_eq!(control.view().machine(id(1)), None);
}

#[test]
fn a_store_that_was_restored_is_believed_although_it_is_older() {
    let now = now();
    let mut control = Control::new(OWN, now);
    let listing = vec![(machine(1, 2), 9), (machine(2, 2), 8)];
    control.handle(Input::Listed(listing), now);
    control.handle(Input::Listed(vec![(machine(1, 1), 5)]), now);
    assert_eq!(control.view().machine(id(1)), Some(&machine(1, 2)));
    let again = control.poll_timeout();
    assert!(again <= now.instant + OLDER_WAIT, "it is listed again soon");
    control.handle(Input::Listed(vec![(machine(1, 1), 5)]), now);
    assert_eq!(control.view().machine(id(1)), Some(&machine(1, 1)));
    assert_eq!(control.view().machine(id(2)), None);
    control.handle(
        Input::Changed(Change::Machine(machine(1, 3).into(), 6)),
        now,
    );
    assert_eq!(control.view().machine(id(1)), Some(&machine(1, 3)));
}

#[test]
fn a_server_that_is_behind_for_a_moment_takes_nothing_back() {
    let now = now();
    let mut control = Control::new(OWN, now);
    for (revision, port) in [(9, 2), (8, 1), (9, 2), (8, 1)] {
        control.handle(Input::Listed(vec![(machine(1, port), revision)]), now);
        assert_eq!(control.view().machine(id(1)), Some(&machine(1, 2)));
    }
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
                Effect::Configure(_)
                | Effect::Distrust
                | Effect::Save
                | Effect::Resync
                | Effect::Observe
                | Effect::Listen => None,
            })
    };
    assert_eq!(admitted(vec![0, 1]), Some(vec![id(0), id(1)]));
    assert_eq!(admitted(vec![0, 1]), None);
    assert_eq!(admitted(vec![0]), Some(vec![id(0)]));
}

#[test]
fn a_clock_that_is_wrong_shows_in_what_its_machine_reports() {
    let now = now();
    let mut control = Control::new(OWN, now);
    let mut offset = |clock_unix_secs, at| {
        let record = ObservedRecord {
            version: RECORD_VERSION,
            id: id(1),
            software_version: String::new(),
            backend: String::new(),
            workloads: 0,
            instances: BTreeMap::new(),
            runtime: String::new(),
            sessions: 0,
            clock_unix_secs,
            management: Vec::new(),
            unknown: Map::new(),
        };
        control.handle(Input::Changed(Change::Observed(record, at)), now);
        control.view().clock_offset_secs(id(1))
    };
    assert_eq!(offset(Some(4_600), 1_000), Some(3_600));
    assert_eq!(offset(Some(1_000), 4_600), Some(-3_600));
    assert_eq!(offset(Some(7), 7), Some(0));
    assert_eq!(offset(None, 7), None, "an older daemon does not say");
    assert_eq!(offset(Some(u64::MAX), 7), None);
    assert_eq!(control.view().clock_offset_secs(id(2)), None);
}

#[test]
fn whoever_was_revoked_stays_so_across_a_restart() {
    let now = now();
    let mut control = Control::new(OWN, now);
    let id = CredentialId::new(1, 1);
    let record = CredentialRecord::new(id, Role::Operator, None, 1, None);
    control.handle(Input::Changed(Change::Credential(record.clone())), now);
    assert!(control.view().believes(&holder(id, Role::Operator), ""));
    let revoked = record.revoke(2).unwrap();
    control.handle(Input::Changed(Change::Credential(revoked)), now);
    let effects = drain(&mut control);
    assert!(matches!(effects.last(), Some(Effect::Save)));
    let saved = control.view().saved();
    control.handle(Input::Changed(Change::Credential(record)), now);
    let mut restarted = Control::new(OWN, now);
    restarted.handle(Input::Restored(saved), now);
    for control in [control, restarted] {
        assert!(!control.view().believes(&holder(id, Role::Operator), ""));
        assert!(control.view().believes(&holder("root", Role::Admin), ""));
    }
}

/// Whoever is believed no more is news; everybody else is left alone.
#[test]
fn the_end_of_belief_is_an_effect() {
    let now = now();
    let mut control = Control::new(OWN, now);
    let credential = CredentialId::new(1, 1);
    let record = CredentialRecord::new(credential, Role::Reader, None, 1, None);
    let revoked = record.revoke(2).unwrap();
    let both = || vec![(machine(1, 1), 1), (machine(2, 1), 2)];
    let gone = id(2);
    for (input, is_news) in [
        (Input::Listed(both()), false),
        (Input::Listed(both()), false),
        (Input::Changed(Change::Credential(record.clone())), false),
        (Input::Changed(Change::Credential(revoked.clone())), true),
        (Input::Changed(Change::Credential(revoked)), false),
        (Input::Changed(Change::Credential(record)), false),
        (Input::Changed(Change::MachineGone(gone, 3)), true),
        (Input::Changed(Change::MachineGone(gone, 3)), false),
        (
            Input::Listed(vec![(machine(1, 1), 1), (machine(2, 1), 4)]),
            false,
        ),
        (Input::Listed(vec![(machine(2, 1), 4)]), true),
    ] {
        let what = format!("{input:?}");
        control.handle(input, now);
        let effects = drain(&mut control);
        let is_first = matches!(effects.first(), Some(Effect::Distrust));
        assert_eq!(is_first, is_news, "{what}: {effects:?}");
    }
}

#[test]
fn a_machine_is_believed_by_the_key_in_its_record_and_root_while_the_machine_is_there() {
    let now = now();
    let mut control = Control::new(OWN, now);
    let mut known = machine(0, 1);
    known.certificate_key = Some("its key".to_owned());
    let former = machine(1, 1);
    control.handle(Input::Listed(vec![(known, 1), (former, 2)]), now);
    let view = control.view();
    let believes = |number, key| view.believes(&holder(id(number), Role::Machine), key);
    assert!(believes(0, "its key") && !believes(0, "another key"));
    assert!(believes(1, "any key"), "its record names none yet");
    let root = |number| {
        let subject = format!("{ROOT_PREFIX}{}", id(number));
        view.believes(&holder(subject.to_lowercase(), Role::Admin), "any key")
    };
    assert!(root(0) && root(1));
    assert!(!root(2), "there is no such machine");
}

#[test]
fn a_machine_is_believed_while_it_is_in_the_network() {
    let now = now();
    let mut control = Control::new(OWN, now);
    let is_believed = |control: &Control| {
        let view = control.view();
        [0, 1].map(|number| view.believes(&holder(id(number), Role::Machine), ""))
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
    assert_eq!(control.poll_timeout(), now.instant + LISTEN_INTERVAL);
    control.handle_timeout(now);
    assert!(drain(&mut control).is_empty());
    let later = Now {
        instant: control.poll_timeout(),
        ..now
    };
    control.handle_timeout(later);
    assert!(matches!(drain(&mut control)[..], [Effect::Listen]));
}

#[test]
fn a_peer_without_a_session_is_tried_at_its_other_endpoint_and_left_alone_with_one() {
    let now = now();
    let mut control = Control::new(OWN, now);
    let mut machine = machine(1, 1);
    machine
        .endpoints
        .push(SocketAddr::from(([192, 0, 2, 1], 2)));
    let key = PublicKey::from_base64(&machine.wireguard_key).unwrap();
    control.handle(Input::Listed(vec![(machine, 1)]), now);
    drain(&mut control);
    let mut tried = |secs, sessions: &[PublicKey]| {
        let at = Now {
            instant: now.instant + Duration::from_secs(secs),
            ..now
        };
        let at_home = SocketAddr::from(([192, 0, 2, 1], 1));
        let sessions = sessions.iter().map(|key| (*key, at_home)).collect();
        control.handle(Input::Sessions(sessions), at);
        configured(&drain(&mut control))
    };
    assert_eq!(tried(0, &[]), 0);
    assert_eq!(tried(10, &[]), 1);
    assert_eq!(tried(20, &[key]), 0);
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
        // One that is older than what is known is believed when it is heard again.
        for _ in 0..2 {
            let listing = last.iter().map(|number| (machine(*number, 9), 100)).collect();
            control.handle(Input::Listed(listing), now);
        }
        let expected: Vec<_> = last.iter().map(|number| machine(*number, 9)).collect();
        prop_assert_eq!(control.view().machines().cloned().collect::<Vec<_>>(), &expected[..]);
        prop_assert_eq!(control.peers, plan(OWN, expected.iter()));
    }
}
