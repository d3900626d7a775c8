//! Getting out of the network that is about to remove this machine, and taking the daemon away.
//!
//! What lies on the disk goes before the answer, so that a power cut leaves no member behind. What carries the answer
//! goes once it has been heard.

use ployz_api::{CleanupStep, Failure, MachineRetired, Name, Outcome, Payload};
use ployz_install::Layout;

use crate::host::installation;
use crate::host::membership::FILE;
use crate::host::program::blocking;
use crate::machine::{Command, Machine};

pub(crate) async fn retire(here: &Machine) -> Outcome {
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
