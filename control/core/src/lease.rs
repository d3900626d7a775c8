//! Leases of subnets and names, and the time after which another machine may have them.
//!
//! Removing a machine gives back none of its leases: whether one still holds follows from the machine that it names, so
//! that a machine is removed in one write, and nothing is left over if the remover dies after that.

use ployz_api::MachineId;
use serde::{Deserialize, Serialize};

use crate::machines::RECORD_VERSION;

/// The address of a removed machine stays unused for a day: peers, firewalls and people remember it.
pub const SUBNET_REST_SECS: u64 = 24 * 3600;
/// A name is free at once: a replacement often has the name of the machine that it replaces.
pub const NAME_REST_SECS: u64 = 0;

/// A lease in bucket `leases`, under what it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    version: u32,
    machine: MachineId,
}

/// The entry of the store under a machine's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HolderState {
    /// Nothing, ever: it may be about to join.
    Unknown,
    /// Its record.
    Member,
    /// The machine was removed, at this time (seconds since 1970).
    Removed(u64),
}

impl Lease {
    /// This machine's.
    pub const fn of(machine: MachineId) -> Self {
        Self {
            version: RECORD_VERSION,
            machine,
        }
    }

    /// The machine that holds the lease.
    pub const fn holder(&self) -> MachineId {
        self.machine
    }

    /// Whether another machine may have it, `rest_secs` after its holder was removed.
    pub const fn is_free(holder: HolderState, rest_secs: u64, unix_secs: u64) -> bool {
        match holder {
            HolderState::Unknown | HolderState::Member => false,
            HolderState::Removed(at) => unix_secs >= at.saturating_add(rest_secs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_removed_machine_had_becomes_free() {
        let day = SUBNET_REST_SECS;
        for (holder, rest, at, free) in [
            (HolderState::Unknown, 0, u64::MAX, false),
            (HolderState::Member, 0, u64::MAX, false),
            (HolderState::Removed(10), NAME_REST_SECS, 10, true),
            (HolderState::Removed(10), day, 10, false),
            (HolderState::Removed(10), day, 9 + day, false),
            (HolderState::Removed(10), day, 10 + day, true),
            // A clock that is behind that of the store frees nothing.
            (HolderState::Removed(10), NAME_REST_SECS, 9, false),
            (HolderState::Removed(u64::MAX), day, u64::MAX - 1, false),
        ] {
            assert_eq!(
                Lease::is_free(holder, rest, at),
                free,
                "{holder:?} after {rest} s, at {at}"
            );
        }
    }
}
