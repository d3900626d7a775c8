//! The holders of the store: a pure function of the present holders and the request.
//!
//! A store is never changed in place. A standalone JetStream that is restarted as a member of a cluster deletes its
//! streams, a cluster of one elects no leader, and a cluster drops no member by itself; so the next store is always a
//! fresh one, of one, three or five servers, and gets a copy. Every change is the same few steps, whether it adds
//! holders, takes them away, or moves the store.

use std::collections::BTreeSet;

use ployz_api::{Authority, Code, Failure, Lifecycle, MachineId};

use crate::machines::MachineRecord;

/// How many holders have majorities that are worth having.
const SIZES: [usize; 3] = [1, 3, 5];

/// The requested change for the named machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageWish {
    /// That they begin to hold the store, so many in the end.
    Promote(Option<u32>),
    /// That they cease to.
    Demote(Option<u32>),
}

/// The planned holders of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoragePlan {
    /// All of them.
    pub members: BTreeSet<MachineId>,
    /// Those that do not now.
    pub promoted: Vec<MachineId>,
    /// Those that do now, and will not.
    pub demoted: Vec<MachineId>,
    /// Those that are named and stay what they are.
    pub unchanged: Vec<MachineId>,
    /// The steps, in words.
    pub steps: Vec<String>,
}

impl StoragePlan {
    /// Whether there is nothing to do.
    pub const fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// Plans a change. `named` are records of `machines`; the store is made for `replicas`, of which some may have been
/// removed since.
///
/// # Errors
/// `INVALID_REPLICAS` if it is not one, three or five that would hold it, `INVALID_TRANSITION` if one that is to hold
/// it is not active.
pub fn plan_storage<'a>(
    wish: StorageWish,
    named: &[MachineId],
    machines: impl Iterator<Item = &'a MachineRecord>,
    replicas: usize,
) -> Result<StoragePlan, Failure> {
    let records: Vec<&MachineRecord> = machines.collect();
    let holders = |it: &&&MachineRecord| it.authority == Authority::Storage;
    let now: BTreeSet<MachineId> = records.iter().filter(holders).map(|it| it.id).collect();
    let named: BTreeSet<MachineId> = named.iter().copied().collect();
    let members = members(wish, &named, &now)?;
    for record in &records {
        let is_idle = record.lifecycle != Lifecycle::Active;
        if is_idle && members.contains(&record.id) && !now.contains(&record.id) {
            let message = format!("{} is not active: nothing was changed", record.name);
            return Err(Failure::new(Code::InvalidTransition, message)
                .hint(format!("ployzctl machine activate {}", record.name)));
        }
    }
    let steps = if members == now && replicas == members.len() {
        Vec::new()
    } else {
        steps(&records, &members, &now)
    };
    let is_same = |id: &&MachineId| members.contains(*id) == now.contains(*id);
    Ok(StoragePlan {
        promoted: members.difference(&now).copied().collect(),
        demoted: now.difference(&members).copied().collect(),
        unchanged: named.iter().filter(is_same).copied().collect(),
        members,
        steps,
    })
}

fn members(
    wish: StorageWish,
    named: &BTreeSet<MachineId>,
    now: &BTreeSet<MachineId>,
) -> Result<BTreeSet<MachineId>, Failure> {
    let (members, wanted) = match wish {
        StorageWish::Promote(wanted) => {
            let all: BTreeSet<MachineId> = named | now;
            // A request that names as many machines as there are replicas names all holders: so the store moves, and a
            // dead holder is replaced.
            let names_all = wanted.is_some_and(|it| it as usize == named.len());
            let fits = wanted.is_none_or(|it| it as usize == all.len());
            (
                if names_all && !fits {
                    named.clone()
                } else {
                    all
                },
                wanted,
            )
        }
        StorageWish::Demote(wanted) => (now - named, wanted),
    };
    let count = members.len();
    let differs = wanted.is_some_and(|it| it as usize != count);
    if !SIZES.contains(&count) || differs {
        let wanted = wanted.map_or_else(
            || "allowed are 1, 3 or 5".to_owned(),
            |it| format!("--replicas asks for {it}"),
        );
        let message =
            format!("{count} machines would hold the store, but {wanted}: nothing was changed");
        return Err(Failure::new(Code::InvalidReplicas, message).hint(
            "ployzctl machine storage promote --replicas N <machine...>, where N is 1, 3 or 5, naming every machine that is to hold the store",
        ));
    }
    Ok(members)
}

fn steps(
    records: &[&MachineRecord],
    members: &BTreeSet<MachineId>,
    now: &BTreeSet<MachineId>,
) -> Vec<String> {
    let names = |ids: &BTreeSet<MachineId>| {
        let known = records.iter().filter(|it| ids.contains(&it.id));
        let names: Vec<&str> = known.map(|it| it.name.as_str()).collect();
        names.join(", ")
    };
    let mut steps = vec![
        format!("check that {} can hold the store", names(members)),
        format!("prepare an empty store on {}", names(members)),
        "refuse writes to the current store; reads continue".to_owned(),
        "copy every record, and compare both stores record by record".to_owned(),
        format!("switch every machine over to {}", names(members)),
        "wait until every holder is in sync".to_owned(),
    ];
    let leavers: BTreeSet<MachineId> = now - members;
    if !leavers.is_empty() {
        steps.push(format!(
            "remove the store and the network's CA from {}",
            names(&leavers)
        ));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machines::examples::{id, machine};

    /// Machines 0 to 5, of which the first `storage` hold the store.
    fn records(storage: u8) -> Vec<MachineRecord> {
        let record = |number| MachineRecord {
            authority: if number < storage {
                Authority::Storage
            } else {
                Authority::Compute
            },
            ..machine(number, 1)
        };
        (0..6).map(record).collect()
    }

    fn plan(wish: StorageWish, storage: u8, named: &[u8]) -> Result<Vec<u8>, Code> {
        let named: Vec<MachineId> = named.iter().map(|it| id(*it)).collect();
        let records = records(storage);
        let planned = plan_storage(wish, &named, records.iter(), usize::from(storage));
        let number = |it: &u8| {
            planned
                .as_ref()
                .is_ok_and(|plan| plan.members.contains(&id(*it)))
        };
        match &planned {
            Ok(_) => Ok((0..6).filter(number).collect()),
            Err(failure) => Err(failure.code),
        }
    }

    #[test]
    fn one_three_or_five_hold_the_store() {
        use StorageWish::{Demote, Promote};
        let invalid = Err(Code::InvalidReplicas);
        for (wish, storage, named, expected) in [
            (Promote(Some(3)), 1, &[1, 2][..], Ok(vec![0, 1, 2])),
            (Promote(Some(3)), 1, &[0, 1, 2], Ok(vec![0, 1, 2])),
            (Promote(Some(3)), 1, &[1, 2, 3], Ok(vec![1, 2, 3])),
            (Promote(Some(1)), 1, &[1], Ok(vec![1])),
            (Promote(Some(1)), 1, &[0], Ok(vec![0])),
            (Promote(Some(3)), 3, &[1], Ok(vec![0, 1, 2])),
            (Promote(Some(5)), 3, &[3, 4], Ok(vec![0, 1, 2, 3, 4])),
            (Promote(Some(3)), 3, &[0, 1, 3], Ok(vec![0, 1, 3])),
            (Promote(Some(3)), 1, &[1], invalid.clone()),
            (Promote(Some(2)), 1, &[1], invalid.clone()),
            (Promote(Some(3)), 3, &[3], invalid.clone()),
            (Promote(None), 1, &[1, 2], Ok(vec![0, 1, 2])),
            (Demote(None), 3, &[0, 1], Ok(vec![2])),
            (Demote(Some(1)), 3, &[0, 1], Ok(vec![2])),
            (Demote(None), 5, &[0, 5], invalid.clone()),
            (Demote(None), 5, &[0, 1], Ok(vec![2, 3, 4])),
            (Demote(None), 3, &[0], invalid.clone()),
            (Demote(Some(3)), 3, &[0, 1], invalid.clone()),
            (Demote(None), 1, &[0], invalid),
        ] {
            assert_eq!(
                plan(wish, storage, named),
                expected,
                "{wish:?} {named:?} of {storage}"
            );
        }
    }

    #[test]
    fn what_is_so_already_takes_no_step_unless_one_was_removed() {
        let records = records(3);
        let same = |replicas| {
            let wish = StorageWish::Promote(Some(3));
            plan_storage(wish, &[id(0), id(1), id(2)], records.iter(), replicas).unwrap()
        };
        assert!(same(3).is_empty() && same(3).unchanged.len() == 3);
        assert!(!same(5).is_empty(), "two of five were removed");
    }

    #[test]
    fn only_active_machines_begin_to_hold_it() {
        let mut records = records(1);
        records[2].lifecycle = Lifecycle::Draining;
        let wish = StorageWish::Promote(Some(3));
        let refused = plan_storage(wish, &[id(1), id(2)], records.iter(), 1).unwrap_err();
        assert_eq!(refused.code, Code::InvalidTransition);
        records[0].lifecycle = Lifecycle::Draining;
        assert!(plan_storage(wish, &[id(1), id(3)], records.iter(), 1).is_ok());
    }
}
