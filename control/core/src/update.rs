//! The order of an update, and the health of a machine after it: pure functions.

use ployz_api::{Code, Failure, MachineHealth, MachineId};

/// A machine to be updated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The id of the machine.
    pub id: MachineId,
    /// The name of the machine.
    pub name: String,
    /// Whether it holds the store.
    pub is_storage: bool,
    /// From the version that it last said it has.
    pub step: VersionStep,
}

/// From one version to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionStep {
    /// The machine has the version.
    None,
    /// The machine has an earlier version, or has not reported one.
    Ahead,
    /// The machine has a later version.
    Back,
    /// Versions so far apart do not work together.
    TooFar,
}

/// The machines to update, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdatePlan {
    /// In this order.
    pub order: Vec<MachineId>,
    /// Those that have the version.
    pub unchanged: Vec<MachineId>,
}

/// Plans an update: machines that hold the store come behind all others, the one that coordinates it behind them, and
/// ids decide otherwise. One at a time, so the store loses at most one machine for as long as a restart takes.
///
/// # Errors
/// `VERSION_MISMATCH`, which names the machines, if one would go back or has a version that does not work together with
/// the new one. Then nothing is to be done to any of them.
pub fn plan_update(own: MachineId, candidates: &[Candidate]) -> Result<UpdatePlan, Failure> {
    refuse(
        candidates,
        VersionStep::Back,
        "a newer version is running on",
    )?;
    refuse(
        candidates,
        VersionStep::TooFar,
        "the update would skip a version on",
    )?;
    let mut sorted: Vec<&Candidate> = candidates.iter().collect();
    sorted.sort_by_key(|it| (it.id == own, it.is_storage, it.id));
    let (unchanged, order): (Vec<&Candidate>, Vec<_>) = sorted
        .into_iter()
        .partition(|it| it.step == VersionStep::None);
    let ids = |machines: Vec<&Candidate>| machines.into_iter().map(|it| it.id).collect();
    Ok(UpdatePlan {
        order: ids(order),
        unchanged: ids(unchanged),
    })
}

fn refuse(candidates: &[Candidate], step: VersionStep, what: &str) -> Result<(), Failure> {
    let names: Vec<&str> = candidates
        .iter()
        .filter(|it| it.step == step)
        .map(|it| it.name.as_str())
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    let message = format!("{what} {}: nothing was changed", names.join(", "));
    Err(Failure::new(Code::VersionMismatch, message).hint(
        "ployzctl machine ls --wide shows the version of every machine; choose another --version",
    ))
}

/// Compares a machine's health with that before the update.
///
/// # Errors
/// The first thing that is missing, in words.
pub fn compare_health(
    before: &MachineHealth,
    after: &MachineHealth,
    version: &str,
) -> Result<(), String> {
    if after.version != version {
        return Err(format!("version {} is still running", after.version));
    }
    let missing = before.sessions.difference(&after.sessions).count();
    if missing > 0 {
        let of = before.sessions.len();
        return Err(format!("{missing} of its {of} peers have no session yet"));
    }
    if before.store && !after.store {
        return Err("the machine does not reach the store".to_owned());
    }
    for (peer, then_ns) in &before.p50_ns {
        let now_ns = after.p50_ns.get(peer).copied().unwrap_or_default();
        if now_ns > round_trip_ns_max(*then_ns) {
            return Err(format!(
                "the round-trip time to {peer} is {} us; before the update it was {} us",
                now_ns / 1_000,
                then_ns / 1_000
            ));
        }
    }
    Ok(())
}

/// The bound on a median round trip after an update. A few round trips on a path of less than a millisecond differ by
/// the slices of a scheduler, some 3 ms each; on a longer path half as much again is another path.
const fn round_trip_ns_max(before_ns: u64) -> u64 {
    const SCHEDULER_NS: u64 = 5_000_000;
    before_ns
        .saturating_add(before_ns / 2)
        .saturating_add(SCHEDULER_NS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn candidate(number: u8, is_storage: bool, step: VersionStep) -> Candidate {
        Candidate {
            id: MachineId::new(0, number.into()),
            name: format!("m{number}"),
            is_storage,
            step,
        }
    }

    #[test]
    fn one_that_would_go_back_or_is_too_far_away_refuses_all() {
        use VersionStep::{Ahead, Back, TooFar};
        for (step, word) in [(Back, "newer"), (TooFar, "skip")] {
            let candidates = [candidate(1, false, Ahead), candidate(2, true, step)];
            let refused = plan_update(candidates[0].id, &candidates).unwrap_err();
            assert_eq!(refused.code, Code::VersionMismatch);
            assert!(refused.message.contains(word), "{refused}");
            assert!(refused.message.contains("m2"), "{refused}");
        }
    }

    proptest! {
        /// Every machine is in exactly one list; one that has the version is left alone; and the order holds for every
        /// pair.
        #[test]
        fn every_plan_keeps_the_order(
            machines in prop::collection::btree_map(0_u8..12, (any::<bool>(), any::<bool>()), 0..10),
            own in 0_u8..12,
        ) {
            let step = |ahead| if ahead { VersionStep::Ahead } else { VersionStep::None };
            let candidates: Vec<_> = machines
                .iter()
                .map(|(number, (is_storage, ahead))| candidate(*number, *is_storage, step(*ahead)))
                .collect();
            let own = MachineId::new(0, own.into());
            let plan = plan_update(own, &candidates).unwrap();
            prop_assert_eq!(plan.order.len() + plan.unchanged.len(), candidates.len());
            let of = |id: &MachineId| candidates.iter().find(|it| it.id == *id).unwrap();
            prop_assert!(plan.order.iter().all(|id| of(id).step == VersionStep::Ahead));
            prop_assert!(plan.unchanged.iter().all(|id| of(id).step == VersionStep::None));
            for (at, id) in plan.order.iter().enumerate() {
                for later in &plan.order[at + 1..] {
                    prop_assert!(*id != own, "self is last");
                    prop_assert!(!of(id).is_storage || of(later).is_storage || *later == own);
                }
            }
        }
    }

    #[test]
    fn a_machine_is_healthy_when_nothing_is_missing_that_was_there() {
        let peer = MachineId::new(0, 7);
        let health = |version: &str, sessions: &[MachineId], store, p50_us: u64| MachineHealth {
            version: version.to_owned(),
            sessions: sessions.iter().copied().collect(),
            p50_ns: BTreeMap::from([(peer, p50_us * 1_000)]),
            store,
            ..MachineHealth::default()
        };
        let before = health("1.0.0", &[peer], true, 20_000);
        for (after, cause) in [
            (health("1.1.0", &[peer], true, 20_000), None),
            (health("1.1.0", &[peer], true, 35_000), None),
            (
                health("1.0.0", &[peer], true, 20_000),
                Some("1.0.0 is still running"),
            ),
            (health("1.1.0", &[], true, 20_000), Some("no session")),
            (health("1.1.0", &[peer], false, 20_000), Some("store")),
            (health("1.1.0", &[peer], true, 36_000), Some("round-trip")),
        ] {
            let compared = compare_health(&before, &after, "1.1.0");
            match cause {
                None => assert_eq!(compared, Ok(())),
                Some(cause) => assert!(compared.unwrap_err().contains(cause)),
            }
        }
        // A peer or store that was missing before is no fault of the update.
        let alone = health("1.0.0", &[], false, 20_000);
        assert_eq!(
            compare_health(&alone, &health("1.1.0", &[], false, 0), "1.1.0"),
            Ok(())
        );
    }
}
