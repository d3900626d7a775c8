//! The records of workloads: what is called how, and what a machine is told to run.
//!
//! That a machine holds a workload is said by the machine's own record, and by nothing else. A workload is written down
//! before a machine claims it, and its id is made anew for every placement: so a claim whose id no workload has will
//! never have one again, and is void.

use std::collections::{BTreeMap, BTreeSet};

use ployz_api::{InstanceId, MachineId, WorkloadName, WorkloadSpec};
use serde::{Deserialize, Serialize};

use crate::lifecycle::may_place;
use crate::machines::MachineRecord;

/// The most workloads that a machine holds. With names of 63 characters, a claim has some 160 bytes of the 128 KiB that
/// a record may have.
pub const HELD_MAX: usize = 256;

/// A workload in bucket `workloads`, under `service.<namespace>.<name>`: the coordinators' word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/protocol.md describes every field")]
pub struct ServiceRecord {
    pub version: u32,
    pub workload: WorkloadName,
    /// The instance that counts.
    pub id: InstanceId,
    /// The machine that runs it.
    pub machine: MachineId,
    /// Another one that is to take its place.
    #[serde(default)]
    pub next: Option<InstanceId>,
    /// Seconds since 1970.
    pub created_at: u64,
}

/// An instance that a machine runs, in bucket `workloads`, under `instance.<machine>.<id>`, which no other machine can
/// read.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/protocol.md describes every field")]
pub struct InstanceRecord {
    pub version: u32,
    pub workload: WorkloadName,
    pub id: InstanceId,
    pub spec: WorkloadSpec,
    /// The machine that its volumes are to come from, before it is started.
    #[serde(default)]
    pub from: Option<MachineId>,
    /// Whether it runs as root and without a sandbox. Beside the specification, in which a machine of the version
    /// before refuses what it does not know; that one runs every command as root.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
}

/// The machine for another workload: of those that take one, whose runtime fits and that have room, the one with the
/// fewest; of several such, the first by id.
pub fn pick<'a>(
    machines: impl Iterator<Item = &'a MachineRecord>,
    fits: impl Fn(&MachineRecord) -> bool,
) -> Option<MachineId> {
    machines
        .filter(|machine| may_place(machine).is_ok() && machine.workloads.len() < HELD_MAX)
        .filter(|machine| fits(machine))
        .min_by_key(|machine| (machine.workloads.len(), machine.id))
        .map(|machine| machine.id)
}

/// The claims of a machine without a workload. The workloads have to be read after the machine's record.
pub fn void_claims(
    claims: &BTreeMap<InstanceId, WorkloadName>,
    services: &[ServiceRecord],
) -> BTreeSet<InstanceId> {
    let known: BTreeSet<InstanceId> = services
        .iter()
        .flat_map(|service| [Some(service.id), service.next])
        .flatten()
        .collect();
    claims
        .keys()
        .filter(|id| !known.contains(id))
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use ployz_api::Lifecycle;
    use proptest::prelude::*;

    use super::*;
    use crate::machines::examples;

    fn machine(number: u8, lifecycle: Lifecycle, holds: u8) -> MachineRecord {
        let claims = (0..holds).map(|at| {
            let name = format!("w{number}-{at}").parse().unwrap();
            (InstanceId::new(number.into(), at.into()), name)
        });
        MachineRecord {
            lifecycle,
            workloads: claims.collect(),
            ..examples::machine(number, 1)
        }
    }

    fn lifecycle() -> impl Strategy<Value = Lifecycle> {
        prop_oneof![
            Just(Lifecycle::Standby),
            Just(Lifecycle::Active),
            Just(Lifecycle::Draining)
        ]
    }

    proptest! {
        /// The twin compares every machine with every other.
        #[test]
        fn the_machine_with_the_fewest_is_picked(
            machines in prop::collection::vec((lifecycle(), 0_u8..4, any::<bool>()), 0..8)
        ) {
            let (records, fit): (Vec<MachineRecord>, Vec<bool>) = machines
                .into_iter()
                .enumerate()
                .map(|(at, (lifecycle, holds, fits))| {
                    (machine(u8::try_from(at).unwrap(), lifecycle, holds), fits)
                })
                .unzip();
            let fits = |machine: &MachineRecord| {
                let at = records.iter().position(|record| record.id == machine.id);
                fit[at.unwrap()]
            };
            let mut best: Option<&MachineRecord> = None;
            for record in &records {
                if record.lifecycle != Lifecycle::Active || !fits(record) {
                    continue;
                }
                if best.is_none_or(|best| record.workloads.len() < best.workloads.len()) {
                    best = Some(record);
                }
            }
            let picked = pick(records.iter().rev(), fits);
            prop_assert_eq!(picked, best.map(|record| record.id));
        }
    }

    #[test]
    fn a_full_machine_is_not_picked() {
        let mut full = machine(1, Lifecycle::Active, 0);
        for at in 0..HELD_MAX {
            let id = InstanceId::new(1, u128::try_from(at).unwrap());
            full.workloads.insert(id, "w".parse().unwrap());
        }
        assert_eq!(pick([&full].into_iter(), |_| true), None);
    }

    #[test]
    fn claims_without_a_workload_are_void() {
        let service = |id: u64, next: Option<u64>| ServiceRecord {
            version: 1,
            workload: "web".parse().unwrap(),
            id: InstanceId::new(id, 0),
            machine: examples::id(1),
            next: next.map(|next| InstanceId::new(next, 0)),
            created_at: 0,
        };
        let claims = (1..=4).map(|id| (InstanceId::new(id, 0), "web".parse().unwrap()));
        let void = void_claims(&claims.collect(), &[service(1, Some(2)), service(3, None)]);
        assert_eq!(void, BTreeSet::from([InstanceId::new(4, 0)]));
    }

    /// A machine of the version before wrote this, and reads what is written now.
    #[test]
    fn an_instance_without_privileges_is_written_as_it_was_before_there_were_any() {
        let before = r#"{"version":1,"workload":"default/web","id":"00000000010000000000000001",
            "spec":{"program":{"exec":"true"},"env":{},"volumes":{},"publish":[]},"from":null}"#;
        let before: serde_json::Value = serde_json::from_str(before).unwrap();
        let record: InstanceRecord = serde_json::from_value(before.clone()).unwrap();
        assert!(!record.privileged);
        assert_eq!(serde_json::to_value(&record).unwrap(), before);
        let privileged = InstanceRecord {
            privileged: true,
            ..record
        };
        let written = serde_json::to_value(&privileged).unwrap();
        assert_eq!(written["privileged"], true);
        assert_eq!(
            written["spec"], before["spec"],
            "the version before knows it"
        );
    }
}
