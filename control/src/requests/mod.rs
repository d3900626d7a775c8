//! What each request does. Who may ask for it has been checked by then.

mod founding;
mod import;
mod invites;
mod leases;
mod machines;
mod mesh;
mod mesh_init;
mod records;
mod redeem;
mod remove;
mod rtt;
mod status;

use std::rc::Rc;

use ployz_api::{Code, Failure, Outcome, Request};

use crate::daemon::Daemon;

/// Does what is asked.
pub(crate) async fn carry_out(daemon: Rc<Daemon>, request: Request) -> Outcome {
    match request {
        Request::Status => status::status(&daemon).await,
        Request::MeshInit(request) => mesh_init::init(&daemon, request).await,
        Request::MeshCreate(request) => mesh_init::create(&daemon, request),
        Request::MeshStart => mesh::start(&daemon).await,
        Request::MeshStop { force } => mesh::stop(&daemon, force).await,
        Request::MeshDestroy { name, force } => mesh::destroy(&daemon, name, force).await,
        Request::MachineList => machines::list(&daemon).await,
        Request::MachineRtt => rtt::matrix(&daemon).await,
        Request::MachineInspect { machine } => machines::inspect(&daemon, &machine).await,
        Request::MachineRename { machine, name } => records::rename(&daemon, &machine, name).await,
        Request::MachineLabel { machine, labels } => {
            records::label(&daemon, &machine, &labels).await
        }
        Request::MachineRemove { machine, force } => remove::remove(&daemon, &machine, force).await,
        Request::InviteCreate(request) => invites::create(&daemon, request).await,
        Request::InviteList { all } => invites::list(&daemon, all).await,
        Request::InviteRevoke { invite_id } => invites::revoke(&daemon, invite_id).await,
        Request::InviteImport { token } => import::import(&daemon, &token).await,
        Request::InviteRedeem(request) => redeem::redeem(&daemon, request).await,
    }
}

/// Something of ours that should not fail has failed.
fn internal(error: anyhow::Error) -> Failure {
    error
        .downcast::<Failure>()
        .unwrap_or_else(|error| Failure::new(Code::Internal, format!("{error:#}")))
}
