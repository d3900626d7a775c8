//! The control plane without I/O: what is in the store, who may ask for what, and what follows from it for this
//! machine.
//!
//! [`Control`] is the control task: store changes and time go in, effects come out. Everything else here is a pure
//! function over records. Clocks and chance are arguments.

#![forbid(unsafe_code)]

mod addresses;
mod attempts;
mod control;
mod credentials;
mod initiations;
mod invite;
mod lease;
mod lifecycle;
mod machines;
mod operation;
mod pair;
mod peers;
mod permissions;
mod procedure;
mod removal;
mod rtt;
mod storage;
mod supervision;
mod update;
mod view;
mod workloads;

pub use addresses::{
    AddressError, AddressPlan, Addresses, CLUSTER_CIDR_DEFAULT, SUBNET_PREFIX_LEN_DEFAULT,
};
pub use control::{Change, Control, Effect, Input, Now};
pub use credentials::CredentialRecord;
pub use initiations::{InitiationTime, InvalidInitiationTime};
pub use invite::{InviteRecord, InviteRefusal, Redeemer, Redemption, secret_digest};
pub use lease::{HolderState, Lease, NAME_REST_SECS, SUBNET_REST_SECS};
pub use lifecycle::{Transition, TransitionRefusal, may_place};
pub use machines::{MachineRecord, ObservedRecord, RECORD_VERSION};
pub use operation::OperationRecord;
pub use pair::{Pair, SESSION_SECS, STALE_SECS, Side, diagnose};
pub use peers::{PeerPlan, changes, plan};
pub use permissions::{permits, permits_privileged};
pub use procedure::{
    MigrationAnswer, MigrationProcedure, MigrationStep, Next, Procedure, Stage,
    StoreChangeProcedure, StoreChangeStep, UpdateAnswer, UpdateProcedure, UpdateTask,
};
pub use removal::{RemovalRefusal, may_remove};
pub use storage::{StoragePlan, StorageWish, plan_storage};
pub use supervision::{Seen, Supervision};
pub use update::{Candidate, UpdatePlan, VersionStep, compare_health, plan_update};
pub use view::{ROOT_PREFIX, SavedView, SelectError, View};
pub use workloads::{HELD_MAX, InstanceRecord, ServiceRecord, pick, void_claims};

pub use rtt::peer_rtt;
