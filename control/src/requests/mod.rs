//! What each request does. Who may ask for it has been checked by then.

mod credentials;
mod doctor;
mod invites;
mod lifecycle;
pub(crate) mod machines;
pub(crate) mod mesh;
mod mesh_init;
mod operations;
mod provision;
pub(crate) mod records;
pub(crate) mod remove;
mod status;
mod storage;
mod volumes;
pub(crate) mod workloads;

use std::net::IpAddr;
use std::rc::Rc;

use ployz_api::{
    CertificateName, Code, EVENTS_LIMIT_MAX, Failure, LOCAL_NETWORK, Outcome, Request,
};

use crate::daemon::Daemon;
use crate::services::{
    admitting as redeem, joining as import, measure as rtt, migration as migrate, pair,
    retiring as retire, store_change, update,
};
use crate::store::events;

pub(crate) use machines::not_selected;
pub(crate) use records::change;
pub(crate) use storage::storage_list;

/// Does what is asked.
pub(crate) async fn carry_out(
    daemon: Rc<Daemon>,
    caller: &CertificateName,
    address: IpAddr,
    request: Request,
) -> Outcome {
    match request {
        Request::Status => status::status(&daemon).await,
        Request::MeshInit(request) => mesh_init::init(&daemon, request).await,
        Request::MeshCreate(request) => mesh_init::create(&daemon, request),
        Request::MeshStart => mesh::start(&daemon).await,
        Request::MeshStop { force } => mesh::stop(&daemon, force).await,
        Request::MeshDestroy { name, force } => mesh::destroy(&daemon, name, force).await,
        Request::MachineList => machines::list(&daemon).await,
        Request::MachineInspect { machine } => machines::inspect(&daemon, &machine).await,
        Request::MachineRename { machine, name } => records::rename(&daemon, &machine, name).await,
        Request::MachineLabel { machine, labels } => {
            records::label(&daemon, &machine, &labels).await
        }
        Request::MachineActivate { machine } => lifecycle::activate(&daemon, &machine).await,
        Request::MachineDrain { machine } => lifecycle::drain(&daemon, &machine).await,
        Request::MachineStandby { machine, force } => {
            lifecycle::standby(&daemon, &machine, force).await
        }
        Request::MachineRemove { machine, force } => {
            let is_here = caller.network == LOCAL_NETWORK;
            let asker = remove::Asker { is_here, address };
            remove::remove(&daemon, asker, &machine, force).await
        }
        Request::MachineRetire => retire::retire(&daemon).await,
        Request::WorkloadDeploy(request) => workloads::deploy(&daemon, request).await,
        Request::WorkloadList => workloads::list(&daemon),
        Request::WorkloadInspect { workload } => workloads::inspect(&daemon, &workload).await,
        Request::WorkloadLogs { workload, lines } => {
            workloads::logs(&daemon, workload, lines).await
        }
        Request::WorkloadRemove { workload } => workloads::remove(&daemon, &workload).await,
        Request::MachineUpdate(request) => update::begin(&daemon, request).await,
        Request::UpdateStep(step) => Box::pin(update::member::step(&daemon, step)).await,
        Request::StoragePromote(request) => storage::promote(&daemon, request).await,
        Request::StorageDemote(request) => storage::demote(&daemon, request).await,
        Request::StorageList => Box::pin(storage::list(&daemon)).await,
        Request::StorageStep(step) => Box::pin(store_change::step(&daemon, step)).await,
        Request::MigratePreview(request) => migrate::preview(&daemon, &request).await,
        Request::MigrateApply(request) => migrate::apply(&daemon, &request).await,
        Request::Volume(request) => volumes::answer(&daemon, caller, &request),
        Request::InviteCreate(request) => invites::create(&daemon, request).await,
        Request::InviteList { all } => invites::list(&daemon, all).await,
        Request::InviteRevoke { invite_id } => invites::revoke(&daemon, invite_id).await,
        Request::InviteImport { token } => import::import(&daemon, &token).await,
        Request::InviteRedeem(request) => redeem::redeem(&daemon, request).await,
        Request::CredentialCreate(request) => credentials::create(&daemon, request).await,
        Request::CredentialList => credentials::list(&daemon).await,
        Request::CredentialRevoke { credential_id } => {
            credentials::revoke(&daemon, credential_id).await
        }
        Request::Doctor { machine } => doctor::doctor(&daemon, machine.as_deref()).await,
        Request::PairReport { machine } => pair::report(&daemon, machine).await,
        Request::RttReport { peers, count } => rtt::report(&daemon, &peers, count).await,
        Request::Events { limit, .. } => events::list(&daemon, limit.min(EVENTS_LIMIT_MAX)).await,
        Request::OperationList => operations::list(&daemon).await,
        Request::OperationGet { operation_id } => operations::get(&daemon, operation_id).await,
        Request::Provision(report) => provision::report(&daemon, report).await,
        // The server carries these out: the one has several answers, and the others are the last request on their stream.
        Request::MachineRtt { .. } | Request::Relay { .. } | Request::Relayed => Err(Failure::new(
            Code::InvalidArgument,
            "what is relayed is not relayed again",
        )),
    }
}
