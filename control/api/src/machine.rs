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

/// What the operator wants of a machine.
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

/// What the operator wants of a machine, and how far it is: `drained` is computed, and stored nowhere.
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
    /// It does, and with it the network's CA.
    Storage,
    /// It does not.
    Compute,
}
word!(Authority { Storage => "storage", Compute => "compute" });

/// What a machine is for within its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegionRole {
    /// Holds data: the founder's.
    HomeData,
    /// Computes: everybody else's.
    Compute,
}
word!(RegionRole { HomeData => "home_data", Compute => "compute" });

/// What has become of an invite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InviteStatus {
    /// It can be used.
    Active,
    /// Somebody used it.
    Consumed,
    /// It was taken back.
    Revoked,
    /// It was not used in time.
    Expired,
}
word!(InviteStatus {
    Active => "active", Consumed => "consumed", Revoked => "revoked", Expired => "expired",
});

/// What a machine has to do with the network that it knows of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkState {
    /// It was drawn up, and has never been started.
    Created,
    /// The machine takes part.
    #[default]
    Running,
    /// It did, and does not until it is started.
    Stopped,
}
word!(NetworkState { Created => "created", Running => "running", Stopped => "stopped" });

/// What has become of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialStatus {
    /// It is taken.
    Active,
    /// It was taken back.
    Revoked,
    /// Its time is over.
    Expired,
}
word!(CredentialStatus { Active => "active", Revoked => "revoked", Expired => "expired" });
