//! Getting out of the network that is about to remove this machine, and taking the daemon away.
//!
//! What lies on the disk goes before the answer, so that a power cut leaves no member behind. What carries the answer
//! goes once it has been heard.

use ployz_api::{CleanupStep, Code, Failure, MachineRetired, Name, NetworkId, Outcome, Payload};
use ployz_core::MachineRecord;
use ployz_install::Layout;

use crate::host::ca;
use crate::host::installation;
use crate::host::membership::FILE;
use crate::host::program::blocking;
use crate::machine::{Command, Machine};

/// The network's decision to remove a machine, as its authority signs it: this machine, as it was let in then.
pub(crate) fn decision(network: NetworkId, machine: &MachineRecord) -> Vec<u8> {
    let (id, created_at) = (machine.id, machine.created_at);
    format!("ployz: removal from network {network} of machine {id}, let in at {created_at}")
        .into_bytes()
}

/// Obeys the network's decision, and nobody's word.
///
/// # Errors
/// `FORBIDDEN` without one for this very machine; `CONFLICT` while it holds the store.
pub(crate) async fn retire(here: &Machine, signature: Option<&str>) -> Outcome {
    check_decision(here, signature)?;
    let network = here.running_network()?.membership.network.clone();
    let _entering = here.begin_entering()?;
    let stopped = match here.workloads.stop_all().await {
        Ok(count) => step("workloads", Ok(format!("{count} stopped"))),
        Err(error) => return Ok(retired(vec![step("workloads", Err(error.into()))])),
    };
    match leave_network(here, &network).await {
        Ok([mesh, uninstalled]) => {
            here.ask_root_later(Command::Retire)?;
            Ok(retired(vec![stopped, mesh, uninstalled]))
        }
        Err(failed) => {
            here.workloads.resume_starts();
            Ok(retired(vec![stopped, failed]))
        }
    }
}

fn check_decision(here: &Machine, signature: Option<&str>) -> Result<(), Failure> {
    let network = here.running_network()?;
    let membership = &network.membership;
    let view = network.view();
    let decided = view.machine(network.own()).is_some_and(|own| {
        let decision = decision(membership.network_id, own);
        signature.is_some_and(|it| ca::has_signed(&membership.ca_pem, &decision, it))
    });
    if !decided {
        let message = "the network has not decided to remove this machine";
        return Err(Failure::new(Code::Forbidden, message)
            .hint("update ployzd on the machines that hold the store"));
    }
    if network.storage.is_some() {
        let message = "this machine holds the store";
        return Err(Failure::new(Code::Conflict, message)
            .hint("ployzctl machine storage demote <machine>, then remove it"));
    }
    Ok(())
}

/// Both steps or none; which one failed.
async fn leave_network(here: &Machine, network: &Name) -> Result<[CleanupStep; 2], CleanupStep> {
    let service = installation::own().filter(Layout::has_service);
    let uninstalled = schedule_uninstall(service.clone()).await;
    let uninstalled = uninstalled.map_err(|failure| step("daemon", Err(failure)))?;
    // The file that makes it a member.
    if let Err(error) = here.files.remove(FILE) {
        let stays = cancel_uninstall(service).await;
        let error = stays.map_or_else(|it| it, |()| error.into());
        return Err(step("mesh", Err(error)));
    }
    tracing::info!(%network, "removed from the network");
    let mesh = step("mesh", Ok(format!("left network {network}")));
    Ok([mesh, step("daemon", Ok(uninstalled))])
}

fn retired(cleanup: Vec<CleanupStep>) -> ployz_api::Success {
    Payload::MachineRetired(MachineRetired { cleanup }).into()
}

/// A daemon that was started by hand is its supervisor's to stop.
async fn schedule_uninstall(service: Option<Layout>) -> Result<String, Failure> {
    let Some(layout) = service else {
        return Ok("not installed as a service: it keeps running, in no network".to_owned());
    };
    let secs = blocking(move || layout.uninstall_soon()).await?;
    Ok(format!("uninstalled in {secs} s, with its data"))
}

async fn cancel_uninstall(service: Option<Layout>) -> Result<(), Failure> {
    match service {
        Some(layout) => blocking(move || layout.stay()).await,
        None => Ok(()),
    }
}

/// How a step of a removal ended.
pub(crate) fn step(step: &str, done: Result<String, Failure>) -> CleanupStep {
    CleanupStep {
        step: step.to_owned(),
        ok: done.is_ok(),
        message: done.unwrap_or_else(|failure| failure.message),
    }
}
