//! The decision whether a machine may be removed from the network.

use ployz_api::{Authority, Code, Failure, MachineId};

use crate::machines::MachineRecord;

/// The reason why the machine stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemovalRefusal {
    /// A machine cannot remove itself.
    #[error("a machine cannot remove itself")]
    Own,
    /// The store counts on the machine, which would clean up while it does.
    #[error("the machine holds the store, which counts on it")]
    Holder,
    /// The store would have no majority.
    #[error(
        "the machine holds the store, and a majority needs {needed} machines: without it {remaining} would remain"
    )]
    Quorum {
        /// Machines with the store that would be left and that answer.
        remaining: usize,
        /// How many have to.
        needed: usize,
    },
}

impl From<RemovalRefusal> for Failure {
    fn from(refusal: RemovalRefusal) -> Self {
        match refusal {
            RemovalRefusal::Own => Self::new(Code::CannotRemoveSelf, refusal.to_string())
                .hint("run this on another machine, or ask another one: ployzctl --connect quic://…"),
            RemovalRefusal::Holder => Self::new(Code::Conflict, refusal.to_string()).hint(
                "have others hold the store first: ployzctl machine storage promote or demote; \
                 a machine that is gone for good: ployzctl machine rm --force",
            ),
            RemovalRefusal::Quorum { .. } => Self::new(Code::QuorumAtRisk, refusal.to_string())
                .hint("let other machines hold the store first: ployzctl machine storage promote <machine...>"),
        }
    }
}

/// Decides on the removal of `target` by machine `own`; `asked_there` if the request came from the target or through
/// it, `force` if it is not to be asked to clean up. `answers` tells which machines can be reached. The store has
/// `replicas` servers: those that were removed since it was made still count for its majority.
///
/// # Errors
/// [`RemovalRefusal`].
pub fn may_remove<'a>(
    own: MachineId,
    asked_there: bool,
    force: bool,
    target: &MachineRecord,
    replicas: usize,
    machines: impl Iterator<Item = &'a MachineRecord>,
    answers: impl Fn(MachineId) -> bool,
) -> Result<(), RemovalRefusal> {
    if asked_there {
        return Err(RemovalRefusal::Own);
    }
    if target.authority != Authority::Storage {
        return Ok(());
    }
    let needed = replicas / 2 + 1;
    let remaining = machines
        .filter(|machine| machine.authority == Authority::Storage)
        .map(|machine| machine.id)
        .filter(|id| *id != target.id && (*id == own || answers(*id)))
        .count();
    if remaining < needed {
        return Err(RemovalRefusal::Quorum { remaining, needed });
    }
    if target.id == own {
        return Err(RemovalRefusal::Own);
    }
    if !force {
        return Err(RemovalRefusal::Holder);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machines::examples::{id, machine};

    /// The first `storage` of five machines hold the store; machine 0 is asked.
    fn evaluate(
        asked_there: bool,
        storage: u8,
        target: u8,
        silent: &[u8],
    ) -> Result<(), RemovalRefusal> {
        evaluate_with_replicas(usize::from(storage), asked_there, storage, target, silent)
    }

    fn machines(storage: u8) -> Vec<MachineRecord> {
        let authority = |number| {
            if number < storage {
                Authority::Storage
            } else {
                Authority::Compute
            }
        };
        let machine = |number| MachineRecord {
            authority: authority(number),
            ..machine(number, 1)
        };
        (0..5).map(machine).collect()
    }

    #[test]
    fn a_machine_that_cleans_up_does_not_hold_the_store() {
        let machines = machines(3);
        let evaluate = |target: usize, force| {
            let all = machines.iter();
            may_remove(id(0), false, force, &machines[target], 3, all, |_| true)
        };
        assert_eq!(evaluate(1, false), Err(RemovalRefusal::Holder));
        assert_eq!(evaluate(1, true), Ok(()));
        assert_eq!(evaluate(4, false), Ok(()));
    }

    fn evaluate_with_replicas(
        replicas: usize,
        asked_there: bool,
        storage: u8,
        target: u8,
        silent: &[u8],
    ) -> Result<(), RemovalRefusal> {
        let machines = machines(storage);
        may_remove(
            id(0),
            asked_there,
            true,
            &machines[usize::from(target)],
            replicas,
            machines.iter(),
            |other| !silent.iter().any(|number| id(*number) == other),
        )
    }

    #[test]
    fn a_majority_has_to_be_left_and_to_answer() {
        let quorum = |remaining, needed| Err(RemovalRefusal::Quorum { remaining, needed });
        for (storage, target, silent, expected) in [
            (1, 0, &[][..], Err(RemovalRefusal::Own)),
            (1, 1, &[], Ok(())),
            (2, 1, &[], quorum(1, 2)),
            (3, 1, &[], Ok(())),
            (3, 1, &[1], Ok(())),
            (3, 1, &[2], quorum(1, 2)),
            (3, 3, &[1, 2], Ok(())),
            (5, 4, &[3], Ok(())),
            (5, 4, &[2, 3], quorum(2, 3)),
        ] {
            assert_eq!(
                evaluate(target == 0, storage, target, silent),
                expected,
                "{storage} hold the store, {target} goes, {silent:?} are silent"
            );
        }
    }

    /// A removed holder is missing in the store, and not only in the list.
    #[test]
    fn those_that_were_removed_count_for_the_majority() {
        let quorum = |remaining, needed| Err(RemovalRefusal::Quorum { remaining, needed });
        for (replicas, storage, silent, expected) in [
            (3, 3, &[][..], Ok(())),
            (3, 2, &[], quorum(1, 2)),
            (5, 4, &[], Ok(())),
            (5, 4, &[2], quorum(2, 3)),
            (5, 3, &[], quorum(2, 3)),
        ] {
            assert_eq!(
                evaluate_with_replicas(replicas, false, storage, 1, silent),
                expected,
                "{storage} of {replicas} are left, {silent:?} are silent"
            );
        }
    }

    #[test]
    fn who_does_not_sit_at_the_machine_is_told_what_the_network_would_lose() {
        let quorum = |remaining, needed| Err(RemovalRefusal::Quorum { remaining, needed });
        assert_eq!(evaluate(false, 1, 0, &[]), quorum(0, 1));
        assert_eq!(evaluate(false, 3, 0, &[1]), quorum(1, 2));
        assert_eq!(evaluate(false, 3, 0, &[]), Err(RemovalRefusal::Own));
        assert_eq!(evaluate(false, 3, 1, &[]), Ok(()));
        assert_eq!(evaluate(true, 3, 4, &[]), Err(RemovalRefusal::Own));
    }
}
