//! Words about machines that the store, the wire and the command line share.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! word {
    ($name:ident { $($variant:ident => $word:literal),+ $(,)? }) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$variant => $word),+ })
            }
        }
    };
}

/// The lifecycle that the operator wants for a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifecycle {
    /// Parked.
    Standby,
    /// Takes workloads.
    Active,
    /// Keeps its workloads, takes no new ones.
    Draining,
}
word!(Lifecycle { Standby => "standby", Active => "active", Draining => "draining" });

/// The lifecycle of a machine with its progress: `drained` is computed, and never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Posture {
    /// Parked.
    Standby,
    /// Takes workloads.
    Active,
    /// Takes no new ones, and still has some.
    Draining,
    /// Takes no new ones, and has none.
    Drained,
}
word!(Posture {
    Standby => "standby", Active => "active", Draining => "draining", Drained => "drained",
});

impl Posture {
    /// That of a machine with so many workloads.
    pub const fn of(lifecycle: Lifecycle, workloads: usize) -> Self {
        match (lifecycle, workloads) {
            (Lifecycle::Standby, _) => Self::Standby,
            (Lifecycle::Active, _) => Self::Active,
            (Lifecycle::Draining, 0) => Self::Drained,
            (Lifecycle::Draining, _) => Self::Draining,
        }
    }
}

/// Whether a machine holds the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Authority {
    /// The machine holds the store and the network's CA.
    Storage,
    /// The machine holds neither.
    Compute,
}
word!(Authority { Storage => "storage", Compute => "compute" });

/// The role of a machine within its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegionRole {
    /// Holds data: the founder's.
    HomeData,
    /// Computes: the role of every other machine.
    Compute,
}
word!(RegionRole { HomeData => "home_data", Compute => "compute" });

/// The status of an invite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InviteStatus {
    /// The invite can be used.
    Active,
    /// The invite was used.
    Consumed,
    /// An operator has revoked it.
    Revoked,
    /// The invite was not used in time.
    Expired,
}
word!(InviteStatus {
    Active => "active", Consumed => "consumed", Revoked => "revoked", Expired => "expired",
});

/// The state of a network on a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkState {
    /// The network was created, and has never been started.
    Created,
    /// The machine participates in the network.
    #[default]
    Running,
    /// The machine participated, and pauses until the next start.
    Stopped,
}
word!(NetworkState { Created => "created", Running => "running", Stopped => "stopped" });

/// The status of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialStatus {
    /// The credential is accepted.
    Active,
    /// An operator has revoked it.
    Revoked,
    /// The lifetime of the credential has ended.
    Expired,
}
word!(CredentialStatus { Active => "active", Revoked => "revoked", Expired => "expired" });
