//! Whether a caller may make a request. This is the one place that decides it, for every stream and every relayed
//! session.

use ployz_api::client::Facts;
use ployz_api::{
    Answerer, Authority, CertificateName, Circle, Code, Failure, LOCAL_NETWORK, MachineId,
    Operation, Request, Role, StorageStep, WorkloadName,
};
use ployz_core::{permits, permits_privileged};

use crate::host::tls::Caller;
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
    caller: &Caller,
    request: &Request,
) -> Result<(), Failure> {
    let row = request.operation().row();
    // Connections may be older than the end of a certificate, or the news of whose is believed no more, and a relayed
    // session is new here.
    if let Some(network) = network {
        still_believed(network, caller, row.operation)?;
    }
    if !permits(caller.role, row.operation) {
        let (role, name) = (caller.role.name(), row.operation.name());
        return Err(forbidden(format!("role {role} may not ask for {name}")));
    }
    if let Some(network) = network {
        refuse_former_root(network, caller, request)?;
    }
    match (row.circle, request) {
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

/// Whether the network still believes the caller's certificate, for this request.
///
/// # Errors
/// `FORBIDDEN`.
pub(super) fn still_believed(
    network: &Network,
    caller: &Caller,
    operation: Operation,
) -> Result<(), Failure> {
    // What the host's own authority certifies is not the network's to decide.
    if caller.network == LOCAL_NETWORK {
        return Ok(());
    }
    let key = caller.certificate.as_ref().map(Facts::key);
    if !network.view().believes(caller, &key.unwrap_or_default()) {
        let message = "this credential has been revoked, or its machine was removed";
        return Err(forbidden(message.to_owned()));
    }
    refuse_expired(network, caller, operation)
}

/// A person's certificate ends by the clock. That of a machine ends by the newest one that was seen, and a machine
/// with an expired one may still have it renewed. One without an end is of an earlier version, and counts until the
/// machine's record names its key.
fn refuse_expired(network: &Network, caller: &Caller, operation: Operation) -> Result<(), Failure> {
    let Some(facts) = &caller.certificate else {
        return Ok(());
    };
    if caller.role != Role::Machine {
        let now = network.unix_secs();
        return match facts.expires_at {
            Some(end) if end <= now => {
                let message = format!("this credential expired {} s ago", now - end);
                Err(forbidden(message))
            }
            Some(_) | None => Ok(()),
        };
    }
    network.note_issue(facts.issued_at().unwrap_or_default());
    let has_ended = match facts.expires_at {
        Some(end) => end <= network.certificate_time(),
        None => names_key(network, caller),
    };
    if has_ended && operation != Operation::CertificateRenew {
        let message = "the certificate of this machine has expired; it is renewed once a machine that holds the store answers";
        return Err(forbidden(message.to_owned()));
    }
    Ok(())
}

/// Root of a machine is an admin while the machine holds the store. One that has handed the store over has one thing
/// left to do in the network: to have what there is of the former store deleted.
fn refuse_former_root(
    network: &Network,
    caller: &Caller,
    request: &Request,
) -> Result<(), Failure> {
    let view = network.view();
    let is_former = view
        .root_of(caller)
        .flatten()
        .is_some_and(|machine| machine.authority != Authority::Storage);
    let is_left = request.operation().row().circle == Circle::Known
        || matches!(request, Request::StorageStep(StorageStep::Settle { .. }));
    if is_former && !is_left {
        let message = "the machine of this caller does not hold the store any more";
        return Err(forbidden(message.to_owned()));
    }
    Ok(())
}

/// Whether the record of the calling machine names the key of its certificate.
fn names_key(network: &Network, caller: &Caller) -> bool {
    let id = caller.subject.parse().ok();
    let view = network.view();
    let record = id.and_then(|id| view.machine(id));
    record.is_some_and(|record| record.certificate_key.is_some())
}

/// Whether a caller is let in at all: a machine has to be a member of the network.
pub(super) fn admits(machine: &Machine, caller: &CertificateName) -> bool {
    caller.role != Role::Machine || machine.has_member(&caller.subject)
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
