//! Whether a caller may make a request. This is the one place that decides it, for every stream and every relayed
//! session.

use ployz_api::{
    Answerer, Authority, CertificateName, Circle, Code, Failure, LOCAL_NETWORK, MachineId, Request,
    Role, WorkloadName,
};
use ployz_core::{permits, permits_privileged};

use crate::machine::Machine;
use crate::network::Network;

/// Decides whether a caller may make a request, and whether this machine can answer it, by the network that it takes
/// part in.
///
/// # Errors
/// `FORBIDDEN`; `UNSUPPORTED` if a machine that holds the store has to answer; `BUSY` if a volume is not the caller's
/// yet.
pub(super) fn authorise(
    network: Option<&Network>,
    caller: &CertificateName,
    request: &Request,
) -> Result<(), Failure> {
    // Connections may be older than the news of whose certificate is believed no more, and a relayed session is new
    // here.
    network.map_or(Ok(()), |network| still_believed(network, caller))?;
    let row = request.operation().row();
    if !permits(caller.role, row.operation) {
        let (role, name) = (caller.role.name(), row.operation.name());
        return Err(forbidden(format!("role {role} may not ask for {name}")));
    }
    match (row.circle, request) {
        (Circle::Holders, _) if !network.is_some_and(|it| holds_store(it, caller)) => {
            let message = "only a machine that holds the store may make this request";
            return Err(forbidden(message.to_owned()));
        }
        (_, Request::WorkloadDeploy(asked))
            if asked.privileged && !permits_privileged(caller.role) =>
        {
            let role = caller.role.name();
            let message = format!("role {role} may not deploy privileged workloads");
            return Err(forbidden(message).hint("deploy without --privileged, or ask an admin"));
        }
        (Circle::Claimant, Request::Volume(asked)) => claims(network, caller, &asked.workload)?,
        (_, _) => {}
    }
    match (row.answered_by, network) {
        (Answerer::Holder, Some(network)) => Ok(network.require_storage().map(drop)?),
        // In no network, the handler answers NETWORK_NOT_RUNNING.
        (Answerer::Holder, None) | (Answerer::Any, _) => Ok(()),
    }
}

/// Whether the network still believes the caller's certificate.
///
/// # Errors
/// `FORBIDDEN`.
pub(super) fn still_believed(network: &Network, caller: &CertificateName) -> Result<(), Failure> {
    // What the host's own authority certifies is not the network's to decide.
    if caller.network == LOCAL_NETWORK || network.view().believes(caller) {
        return Ok(());
    }
    let message = "this credential has been revoked, or its machine was removed";
    Err(forbidden(message.to_owned()))
}

/// Whether a caller is let in at all: a machine has to be a member of the network.
pub(super) fn admits(machine: &Machine, caller: &CertificateName) -> bool {
    caller.role != Role::Machine || machine.has_member(&caller.subject)
}

fn holds_store(network: &Network, caller: &CertificateName) -> bool {
    let Ok(id) = caller.subject.parse::<MachineId>() else {
        return false;
    };
    let view = network.view();
    let machine = view.machine(id);
    machine.is_some_and(|machine| machine.authority == Authority::Storage)
}

/// A coordinator has had the caller's machine claim the workload; the news of it may not have arrived here yet.
fn claims(
    network: Option<&Network>,
    caller: &CertificateName,
    workload: &WorkloadName,
) -> Result<(), Failure> {
    let id = caller.subject.parse::<MachineId>().ok();
    let is_claimed = network.is_some_and(|network| {
        let view = network.view();
        let record = id.and_then(|id| view.machine(id));
        record.is_some_and(|it| it.workloads.values().any(|held| held == workload))
    });
    if is_claimed {
        return Ok(());
    }
    let message = format!("no record in view moves {workload} to the calling machine");
    Err(Failure::new(Code::Busy, message))
}

fn forbidden(message: String) -> Failure {
    Failure::new(Code::Forbidden, message)
}

#[cfg(test)]
mod tests;
