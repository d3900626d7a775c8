//! What each request does: parse, call a service, shape the payload. Who may ask for it has been decided by then.

mod asker;
mod certificates;
mod credentials;
mod doctor;
mod events;
mod invites;
mod lifecycle;
mod machines;
mod mesh;
mod mesh_init;
mod network_shown;
mod operations;
mod provision;
mod records;
mod remove;
mod status;
mod storage;
mod volumes;
mod workloads;

use std::rc::Rc;

use ployz_api::{Code, Failure, Outcome, Request};

use crate::machine::Machine;
use crate::services::{
    admitting, joining, measure, migration, pair, retiring, store_change, update,
};

pub(crate) use crate::services::measure::stream_rtt;
pub(crate) use asker::Asker;
pub(crate) use events::writer as event_writer;

/// Carries out a request that has one answer.
///
/// # Errors
/// What the caller is told.
pub(crate) async fn carry_out(here: Rc<Machine>, asker: Asker, request: Request) -> Outcome {
    match request {
        Request::Status => status::status(&here).await,
        Request::MeshInit(request) => mesh_init::init(&here, request).await,
        Request::MeshCreate(request) => mesh_init::create(&here, request),
        Request::MeshStart => mesh::start(&here).await,
        Request::MeshStop { force } => mesh::stop(&here, force).await,
        Request::MeshDestroy { name, force } => mesh::destroy(&here, name, force).await,
        Request::MachineList => machines::list(&here).await,
        Request::MachineInspect { machine } => machines::inspect(&here, &machine).await,
        Request::MachineRename { machine, name } => records::rename(&here, &machine, name).await,
        Request::MachineLabel { machine, labels } => records::label(&here, &machine, &labels).await,
        Request::MachineActivate { machine } => lifecycle::activate(&here, &machine).await,
        Request::MachineDrain { machine } => lifecycle::drain(&here, &machine).await,
        Request::MachineStandby { machine, force } => {
            lifecycle::standby(&here, &machine, force).await
        }
        Request::MachineRemove { machine, force } => {
            remove::remove(&here, asker, &machine, force).await
        }
        Request::MachineRetire { decision } => retiring::retire(&here, decision.as_deref()).await,
        Request::WorkloadDeploy(request) => workloads::deploy(&here, request).await,
        Request::WorkloadList => workloads::list(&here),
        Request::WorkloadInspect { workload } => workloads::inspect(&here, &workload).await,
        Request::WorkloadLogs { workload, lines } => workloads::logs(&here, workload, lines).await,
        Request::WorkloadRemove { workload } => workloads::remove(&here, &workload).await,
        Request::MachineUpdate(request) => update::begin(&here, request).await,
        Request::UpdateStep(step) => Box::pin(update::step(&here, step)).await,
        Request::StoragePromote(request) => storage::promote(&here, request).await,
        Request::StorageDemote(request) => storage::demote(&here, request).await,
        Request::StorageList => Box::pin(storage::list(&here)).await,
        Request::StorageStep(step) => Box::pin(store_change::step(&here, step)).await,
        Request::MigratePreview(request) => migration::preview(&here, &request).await,
        Request::MigrateApply(request) => migration::apply(&here, &request).await,
        Request::Volume(request) => volumes::answer(&here, &request),
        Request::InviteCreate(request) => invites::create(&here, request).await,
        Request::InviteList { all } => invites::list(&here, all).await,
        Request::InviteRevoke { invite_id } => invites::revoke(&here, invite_id).await,
        Request::InviteImport { token } => joining::import(&here, &token).await,
        Request::InviteRedeem(request) => admitting::redeem(&here, request).await,
        Request::CredentialCreate(request) => credentials::create(&here, request).await,
        Request::CredentialList => credentials::list(&here).await,
        Request::CredentialRevoke { credential_id } => {
            credentials::revoke(&here, credential_id).await
        }
        Request::CertificateRenew => certificates::renew(&here, asker).await,
        Request::Doctor { machine } => doctor::doctor(&here, machine.as_deref()).await,
        Request::PairReport { machine } => pair::report(&here, machine).await,
        Request::RttReport { peers, count } => measure::report(&here, &peers, count).await,
        Request::Events { limit, machine, .. } => {
            events::list(&here, machine.as_deref(), limit).await
        }
        Request::OperationList => operations::list(&here).await,
        Request::OperationGet { operation_id } => operations::get(&here, operation_id).await,
        Request::Provision(report) => provision::report(&here, report).await,
        // The server answers these: one has several answers, and the others are the last request on their stream.
        Request::MachineRtt { .. } | Request::Relay { .. } | Request::Relayed => Err(Failure::new(
            Code::InvalidArgument,
            "this request cannot be made within a relayed session",
        )),
    }
}
